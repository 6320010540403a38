"""The choices a transformer makes, as one frozen record that reads and writes JSON.

A field exists because a released checkpoint needs it. A model is a row of these choices (see `maskplay.families`),
never a subclass: `ROFORMER = BERT.but(position="rotary")`.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from maskplay.errors import UserError

POSITIONS = ("learned", "hierarchical", "rotary", "none")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu", "tanh", "linear")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A transformer encoder's shape and conventions; the defaults are BERT-base's.

    Attributes:
        vocab_size: number of tokens.
        hidden_size: width of the hidden states.
        num_layers: number of blocks.
        num_heads: attention heads per block.
        intermediate_size: width inside the feed-forward layers.
        head_size: width of one head; None = hidden_size / num_heads.
        embedding_size: width of the embeddings, projected up when smaller; None = hidden_size.
        max_positions: rows of the position table ("learned", "hierarchical").
        num_segments: rows of the segment table; 0 = the model has no segments.
        position: "learned" (a table), "hierarchical" (the same table read as two digits, up to max_positions² places;
            kexue.fm/archives/7947), "rotary" (RoPE on queries and keys, pairs interleaved), "none".
        activation: of the feed-forward layers; "gelu" is the exact (erf) form, "gelu_tanh" the approximation that
            Google's own BERT code used. They differ by up to 4.7e-4 per application.
        norm_epsilon: added to the variance in layer normalization.
        dropout: rate on embeddings and on each sub-layer's output, 0 … 1.
        attention_dropout: rate on attention probabilities, 0 … 1.
        initializer_range: standard deviation of fresh weights.
        pooler_activation: "tanh" (BERT) or "linear" (SimBERT).
        pad_id: the token that is padding.

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
    head_size: int | None = None
    embedding_size: int | None = None
    max_positions: int = 512
    num_segments: int = 2
    position: Literal["learned", "hierarchical", "rotary", "none"] = "learned"
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    pooler_activation: str = "tanh"
    pad_id: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if value is None and field.type == int | None:
                continue
            if field.type in (int, int | None):
                least = 0 if name in ("num_segments", "pad_id", "num_layers") else 1
                # 2**31: no released model comes near, and a config file must not make us allocate terabytes silently.
                if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
                    raise UserError(f"config: {name}: expected an integer of at least {least}, found {value!r}")
            elif field.type is float:
                if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
                    raise UserError(f"config: {name}: expected a number of at least 0, found {value!r}")
        for name, known in (("position", POSITIONS), ("activation", ACTIVATIONS), ("pooler_activation", ACTIVATIONS)):
            if getattr(self, name) not in known:
                raise UserError(f"config: {name}: expected one of {', '.join(known)}, found {getattr(self, name)!r}")
        for name in ("dropout", "attention_dropout"):
            if getattr(self, name) >= 1:
                raise UserError(f"config: {name}: expected a rate below 1, found {getattr(self, name)!r}")
        if self.head_size is None and self.hidden_size % self.num_heads:
            raise UserError(
                f"config: hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                "give head_size if that is meant"
            )
        if self.position == "rotary" and self.size_per_head % 2:
            raise UserError(f"config: rotary positions need an even head size, found {self.size_per_head}")

    @property
    def size_per_head(self) -> int:
        """Width of one attention head."""
        return self.head_size or self.hidden_size // self.num_heads

    @property
    def size_of_embedding(self) -> int:
        """Width of the embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def longest(self) -> int | None:
        """The most tokens a text may have, or None when positions do not bound it."""
        return {"learned": self.max_positions, "hierarchical": self.max_positions**2}.get(self.position)

    def but(self, **changes: Any) -> "Config":
        """The same choices with some changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """Raises `UserError` when a field is unknown or missing."""
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
