"""The choices a transformer makes, as one frozen record that reads and writes JSON.

A field exists because a released checkpoint needs it. A model is a row of these choices (see `maskplay.families`),
never a subclass: `BERT.but("roformer", source, position="rotary")`.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Any, Literal, get_args

from maskplay.errors import UserError, whole_number, within

Position = Literal[
    "learned", "learned_after_pad", "hierarchical", "rotary", "rotary_halves", "relative", "buckets", "buckets_cross",
    "none",
]  # fmt: skip
TABLES = ("learned", "learned_after_pad", "hierarchical")  # positions that have a table of vectors
BUCKETS = ("buckets", "buckets_cross")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu", "tanh", "linear")
GATED = tuple(f"gated_{name}" for name in ACTIVATIONS)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A transformer's shape and conventions; the defaults are BERT-base's.

    Attributes:
        vocab_size: number of tokens.
        hidden_size: width of the hidden states.
        num_layers: number of layers (of the encoder, where there is a decoder too).
        num_heads: attention heads per layer.
        intermediate_size: width inside the feed-forward layers (of the gates, in a gated attention unit).
        num_decoder_layers: layers of a decoder that looks at the encoder (T5); 0 = there is none.
        num_blocks: distinct blocks, shared evenly by the layers (ALBERT: 1); None = num_layers.
        num_kv_heads: heads of keys and values, each serving several of the queries' (LLaMA); None = num_heads.
        head_size: width of one head; None = hidden_size / num_heads.
        key_size: width of one head's queries and keys (RoBERTa+, GAU-α); None = head_size.
        embedding_size: width of the embeddings, projected up when smaller; None = hidden_size.
        embedding: "normed" (sum, normalize, project: BERT), "plain" (no norm: GPT, T5) or "projected_first" (tokens
            are projected, without bias, before anything is added: brightmart's ALBERT).
        max_positions: rows of the position table; for "relative" the distance beyond which all are alike (NEZHA: 64),
            for "buckets" the distance of the last bucket (T5: 128).
        num_segments: rows of the segment table; 0 = the model has no segments, None = they are token ids (CDial-GPT).
        position: "learned" (a table), "learned_after_pad" (the same, counted from pad_id + 1: RoBERTa),
            "hierarchical" (the table read as two digits, up to max_positions² places; kexue.fm/archives/7947),
            "rotary" (RoPE on queries and keys, pairs interleaved), "rotary_halves" (pairs half a head apart: LLaMA),
            "relative" (clipped sinusoids in scores and values: NEZHA), "buckets" (a learned bias per distance: T5),
            "buckets_cross" (also between decoder and encoder: T5-PEGASUS), "none".
        num_buckets: rows of the table of "buckets".
        rotary_base: the base of rotary angles.
        attention: "softmax", "residual" (each layer's own scores are added to the next one's: bert4keras' RealFormer;
            the paper's adds the running sum) or "gau" (gated units for attention and feed-forward in one: GAU-α).
        activation: of the feed-forward layers; "gelu" is the exact (erf) form, "gelu_tanh" the approximation that
            Google's own BERT code used. They differ by up to 4.7e-4 per application. "gated_…": a gated linear unit.
        norm: "layer"; "rms" (no mean, no bias: T5, LLaMA) or "unit" (RMS without parameters: RoFormerV2, GAU-α). With
            the latter two no linear map has a bias.
        norm_at: "post" (after each addition: BERT), "pre" (before each sub-layer and at the end: GPT-2), "pre_open"
            (not at the end: brightmart's largest ALBERT) or "between" (around the feed-forward only: GPT2-ML).
        norm_epsilon: added to the variance in normalization.
        condition_size: width of a vector that conditions every layer normalization; None = no condition.
        scores: how a plain head scores tokens: "tied" to the token table, "tied_scaled" (also by hidden_size^-½: T5),
            "own" (a matrix of its own: T5.1.1) or "own_scaled".
        dropout: rate on embeddings and on each sub-layer's output, 0 … 1.
        attention_dropout: rate on attention probabilities, 0 … 1.
        initializer_range: standard deviation of fresh weights.
        pooler_activation: "tanh" (BERT) or "linear" (SimBERT).
        pad_id: the token that is padding; None = there is none.

    Raises:
        UserError: a value is impossible; the text names the field.

    Example:
        >>> tiny = Config(vocab_size=100, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=64)
        >>> tiny.but(position="rotary").position, tiny.size_per_head
        ('rotary', 8)
    """

    vocab_size: int
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    num_decoder_layers: int = 0
    num_blocks: int | None = None
    num_kv_heads: int | None = None
    head_size: int | None = None
    key_size: int | None = None
    embedding_size: int | None = None
    embedding: Literal["normed", "plain", "projected_first"] = "normed"
    max_positions: int = 512
    num_segments: int | None = 2
    position: Position = "learned"
    num_buckets: int = 32
    rotary_base: float = 10000.0
    attention: Literal["softmax", "residual", "gau"] = "softmax"
    activation: str = "gelu"
    norm: Literal["layer", "rms", "unit"] = "layer"
    norm_at: Literal["post", "pre", "pre_open", "between"] = "post"
    norm_epsilon: float = 1e-12
    condition_size: int | None = None
    scores: Literal["tied", "tied_scaled", "own", "own_scaled"] = "tied"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    pooler_activation: str = "tanh"
    pad_id: int | None = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if value is None and field.type == int | None:
                continue
            if field.type in (int, int | None):
                least = 0 if name in ("num_segments", "pad_id", "num_layers", "num_decoder_layers") else 1
                # No released model comes near, and a config file must not make us allocate terabytes silently.
                most = 4096 if name in ("num_layers", "num_decoder_layers", "num_blocks") else 2**31 - 1
                object.__setattr__(self, name, whole_number(f"config: {name}", value, least, most))
            elif field.type is float:
                if not within(value, 0, sys.float_info.max):
                    raise UserError(f"config: {name}: expected a number of at least 0, found {value!r:.40}")
                object.__setattr__(self, name, float(value))
            else:
                known = {"activation": ACTIVATIONS + GATED, "pooler_activation": ACTIVATIONS}.get(name)
                known = known or get_args(field.type)
                if value not in known:
                    raise UserError(f"config: {name}: expected one of {', '.join(known)}, found {value!r}")
        for name in ("dropout", "attention_dropout"):
            if getattr(self, name) >= 1:
                raise UserError(f"config: {name}: expected a rate below 1, found {getattr(self, name)!r}")
        if self.head_size is None and self.hidden_size % self.num_heads:
            raise UserError(
                f"config: hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                "give head_size if that is meant"
            )
        if self.position.startswith("rotary") and self.size_per_key % 2:
            raise UserError(f"config: rotary positions need an even head size, found {self.size_per_key}")
        if self.position.startswith("rotary") and self.rotary_base <= 1:
            raise UserError(f"config: rotary_base: expected a number above 1, found {self.rotary_base}")
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            raise UserError(f"config: num_kv_heads: expected a divisor of {self.num_heads}, found {self.num_kv_heads}")
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Refuse combinations that no part computes."""
        if self.position == "relative" and (self.size_per_key != self.size_per_head or self.size_per_head % 2):
            raise UserError("config: relative positions need an even head size, the same for queries and values")
        if self.position == "learned_after_pad" and self.pad_id is None:
            raise UserError("config: position 'learned_after_pad' needs a pad_id")
        if self.attention == "gau" and (self.position in ("relative", *BUCKETS) or self.num_decoder_layers):
            raise UserError(f"config: gated attention units take no {self.position!r} positions and no decoder")
        if self.attention == "residual" and self.position in BUCKETS:
            raise UserError("config: attention 'residual' and bucketed positions both bias the scores: choose one")
        if self.pad_id is not None and self.pad_id >= self.vocab_size:
            raise UserError(f"config: pad_id: expected an id below vocab_size {self.vocab_size}, found {self.pad_id}")
        if self.position == "learned_after_pad" and self.max_positions <= self.first_position:
            raise UserError(
                f"config: max_positions: places are counted from pad_id + 1 = {self.first_position}, found a table of "
                f"{self.max_positions}"
            )
        if self.position in BUCKETS and (self.num_buckets < 4 or self.max_positions <= self.num_buckets // 2):
            raise UserError(
                "config: bucketed positions need num_buckets of at least 4 and max_positions above half of it, found "
                f"{self.num_buckets} and {self.max_positions}"
            )
        if self.attention == "gau" and self.activation not in ACTIVATIONS:
            raise UserError(f"config: gated attention units have gates already: activation {self.activation!r}")
        if self.attention == "gau" and self.norm_at != "post":
            raise UserError("config: gated attention units are normalized afterwards: expected norm_at 'post'")
        if self.condition_size is not None and self.norm != "layer":
            raise UserError(f"config: condition_size: only norm 'layer' takes a condition, found {self.norm!r}")
        if self.embedding == "projected_first" and self.embedding_size is None:
            raise UserError("config: embedding 'projected_first' needs an embedding_size")
        if self.num_decoder_layers and self.num_blocks is not None:
            raise UserError("config: num_blocks: blocks are shared in encoders only")

    @property
    def size_per_head(self) -> int:
        """Width of one attention head."""
        return self.head_size or self.hidden_size // self.num_heads

    @property
    def size_per_key(self) -> int:
        """Width of one head's queries and keys."""
        return self.key_size or self.size_per_head

    @property
    def size_of_embedding(self) -> int:
        """Width of the token table."""
        return self.embedding_size or self.hidden_size

    @property
    def blocks(self) -> int:
        """Number of distinct blocks."""
        return self.num_layers if self.num_blocks is None else self.num_blocks

    @property
    def has_bias(self) -> bool:
        """Whether linear maps have a bias."""
        return self.norm == "layer"

    @property
    def first_position(self) -> int:
        """The row of the position table that the first token reads."""
        return first_position(self.position, self.pad_id)

    @property
    def longest(self) -> int | None:
        """The most tokens a text may have, or None when positions do not bound it."""
        if self.position in ("learned", "learned_after_pad"):
            return self.max_positions - self.first_position
        return self.max_positions**2 if self.position == "hierarchical" else None

    @property
    def least_size(self) -> int:
        """What an encoder of this config holds at least, in numbers."""
        table = (self.vocab_size + (self.num_segments or 0)) * self.size_of_embedding
        if self.position in TABLES:
            table += self.max_positions * self.size_of_embedding
        table += self.num_buckets * self.num_heads * (self.position in BUCKETS)
        heads = self.num_heads + (self.num_kv_heads or self.num_heads)
        width = 2 * self.intermediate_size + heads * (self.size_per_key + self.size_per_head)
        if self.attention == "gau":
            width = 3 * self.intermediate_size + self.size_per_key
        return table + self.blocks * self.hidden_size * (width + 2 * (self.condition_size or 0))

    def but(self, **changes: Any) -> "Config":
        """The same choices with some changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """Raises `UserError` when it is no dictionary, or a field is unknown or missing."""
        if not isinstance(values, dict):
            raise UserError(f"config: expected a Config or a dictionary of its fields, found {values!r:.60}")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UserError(f"config: unknown field {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        if "vocab_size" not in values:
            raise UserError("config: the field vocab_size is missing")
        return cls(**values)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"config: expected JSON, found {text[:40]!r}: {error}") from None
        if not isinstance(values, dict):
            raise UserError(f"config: expected a JSON object, found {type(values).__name__}")
        return cls.from_dict(values)


def first_position(position: str, pad_id: int | None) -> int:
    """The row of the position table that the first token reads: RoBERTa counts from the padding token's id."""
    return (pad_id or 0) + 1 if position == "learned_after_pad" else 0
