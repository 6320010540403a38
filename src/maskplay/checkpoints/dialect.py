"""What a dialect is: the names and config keys in which somebody else writes the same network."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from maskplay.checkpoints.rename import Row, rows
from maskplay.config import ACTIVATIONS, BUCKETS, TABLES, Config
from maskplay.errors import CheckpointError
from maskplay.families import family as family_of

# Their spelling of an activation -> ours. "gelu" is the exact form, as bert4keras and transformers read it; Google's
# original code computed the tanh form under the same name (load with activation="gelu_tanh" to have that).
_ACTIVATIONS = {
    **{name: name for name in ACTIVATIONS},
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
}


@dataclass(frozen=True)
class Table:
    """How one family is written in one dialect.

    Attributes:
        family: the family's name.
        dialect: "google", "huggingface", "llama2c" or "maskplay".
        names: our names and theirs, as `rename.rows` reads them.
        sign: a pattern that one of the file's names matches whole.
        without: a pattern that none of them may match.
        prefix: what the file may leave out at the start of its names.
        canonical: a file's older spelling of a name -> the table's.
        copies: names that repeat another tensor (tied weights): the file may have them, and they must be equal.
        empty: a pattern of names that carry nothing that is learned, or another network's weights.
        stated: whether a config file admits that it is this family, where names cannot tell.
    """

    family: str
    dialect: str
    names: Mapping[str, str]
    sign: str
    without: str = r"(?!)"
    prefix: str = ""
    canonical: Callable[[str], str] = str
    copies: Mapping[str, str] = field(default_factory=dict)
    empty: str = r".*position_ids"
    stated: Callable[[Mapping[str, Any]], bool] = lambda config: True

    def spelled(self, name: str) -> str:
        """A file's name as the table has it."""
        name = self.canonical(name)
        if self.prefix and not name.startswith(self.prefix) and self._known.fullmatch(self.prefix + name):
            return self.prefix + name
        return name

    @functools.cached_property
    def _known(self) -> re.Pattern[str]:
        """What a name of this table looks like."""
        theirs = [right.partition("|")[0].strip() for right in self.names.values()]
        parts = [re.escape(re.sub(r"{i[^}]*}", "\0", name)).replace(re.escape("\0"), r"\d+") for name in theirs]
        return re.compile("|".join([*map(re.escape, self.copies), *parts, self.empty]))

    def rows(self, config: Config) -> list[Row]:
        """The rows with the numbers of the blocks written out."""

        def count(ours: str) -> int:
            return config.num_decoder_layers if ours.startswith("decoder/") else config.blocks

        return rows(self.names, count)

    def is_of(self, names: Iterable[str]) -> bool:
        """Whether a checkpoint with these names may be written so."""
        spelled = [self.spelled(name) for name in names]
        return any(re.fullmatch(self.sign, name) for name in spelled) and not any(
            re.search(self.without, name) for name in spelled
        )


# Our fields and the keys that config files have for them, the preferred one (which we write) first.
_KEYS = {
    "vocab_size": ("vocab_size", "n_vocab"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "num_heads": ("num_attention_heads", "n_head", "num_heads"),
    "intermediate_size": ("intermediate_size", "n_inner", "d_ff"),
    "num_decoder_layers": ("num_decoder_layers",),
    "num_kv_heads": ("num_key_value_heads",),
    "head_size": ("attention_head_size", "head_dim", "d_kv"),
    "key_size": ("attention_key_size",),
    "embedding_size": ("embedding_size",),
    "max_positions": ("max_position_embeddings", "n_positions", "n_ctx", "max_position"),
    "num_segments": ("type_vocab_size", "segment_vocab_size"),
    "num_buckets": ("relative_attention_num_buckets",),
    "rotary_base": ("rope_theta",),
    "norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"),
    "dropout": ("hidden_dropout_prob", "dropout_rate", "resid_pdrop"),
    "attention_dropout": ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout"),
    "initializer_range": ("initializer_range", "initializer_factor"),
    "pooler_activation": ("pooler_activation",),
    "pad_id": ("pad_token_id",),
}
_OTHER_KEYS: dict[str, dict[str, str]] = {
    "gpt2": {
        "hidden_size": "n_embd", "num_layers": "n_layer", "num_heads": "n_head", "intermediate_size": "n_inner",
        "max_positions": "n_positions", "norm_epsilon": "layer_norm_epsilon", "dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
    },
    "llama": {"head_size": "head_dim", "norm_epsilon": "rms_norm_eps", "attention_dropout": "attention_dropout"},
    "t5": {
        "hidden_size": "d_model", "num_layers": "num_layers", "num_heads": "num_heads", "intermediate_size": "d_ff",
        "head_size": "d_kv", "norm_epsilon": "layer_norm_epsilon", "dropout": "dropout_rate",
        "max_positions": "relative_attention_max_distance", "initializer_range": "initializer_factor",
    },
}  # fmt: skip
_OTHER_KEYS |= {"t5_1_1": _OTHER_KEYS["t5"], "mt5": _OTHER_KEYS["t5"], "t5_pegasus": _OTHER_KEYS["t5"]}

# Where transformers' own default differs from that of the family's first checkpoints.
_EPSILONS = {"llama": 1e-6, "roberta": 1e-12}

# What files may ask for and no part computes: the key and the values that mean "nothing of the kind".
_REFUSED: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("position_embedding_type", ("absolute", "rotary", None)),
    ("is_decoder", (False, None)),
    ("rotary_value", (False, None)),
    ("rope_scaling", (None, {"rope_type": "default"}, {"type": "default"})),
    ("sliding_window", (None,)),
    ("attention_bias", (False, None)),
    ("mlp_bias", (False, None)),
    ("inner_group_num", (1, None)),
    ("scale_attn_by_inverse_layer_idx", (False, None)),
    ("reorder_and_upcast_attn", (False, None)),
    ("scale_attn_weights", (True, None)),
    ("add_cross_attention", (False, None)),
)


def read_config(values: Mapping[str, Any], family: str, where: str, own_scores: bool = False) -> Config:
    """A config file of Google's, bert4keras', OpenAI's or Hugging Face's spelling as a `Config`.

    Args:
        values: the JSON object.
        family: the family's name; its row says everything that such files do not.
        where: the file's name, for errors.
        own_scores: whether the checkpoint has a matrix for a plain head, where T5's config files are unreliable.

    Raises:
        CheckpointError: a key is missing or makes no sense, or asks for something this family does not have.

    Example:
        >>> keys = {"vocab_size": 15, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 4}
        >>> read_config({**keys, "intermediate_size": 16, "hidden_act": "gelu_new"}, "bert", "config.json").activation
        'gelu_tanh'
    """
    row = family_of(family).config
    for key, plain in _REFUSED:
        if values.get(key) not in plain:
            raise CheckpointError(f"{where}: {key} = {values[key]!r} is not supported (only {plain[0]!r})")
    found = {
        name: next(values[key] for key in keys if values.get(key) is not None)
        for name, keys in _KEYS.items()
        if any(values.get(key) is not None for key in keys)
    }
    for name in ("hidden_size", "num_heads", "head_size"):  # which are reckoned with before `Config` sees them
        if not isinstance(found.get(name, 0), int):
            raise CheckpointError(f"{where}: {_key(name, family)}: expected an integer, found {found[name]!r:.40}")
    for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size"):
        if name not in found and (name, family) != ("intermediate_size", "gpt2"):
            raise CheckpointError(f"{where}: the key {_key(name, family)!r} is missing")
    try:
        derived = _derived(values, found, row, family, where)
        if row.num_decoder_layers:
            derived["scores"] = _t5_scores(values, row, own_scores)
        return row.but(**{**found, **derived})
    except CheckpointError:
        raise
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise CheckpointError(f"{where}: {error}") from None


def _key(name: str, family: str) -> str:
    return _OTHER_KEYS.get(family, {}).get(name, _KEYS[name][0])


def _derived(
    values: Mapping[str, Any], found: Mapping[str, Any], row: Config, family: str, where: str
) -> dict[str, Any]:
    """The fields that take more than reading a key."""
    made: dict[str, Any] = {"activation": _activation(values, row, where)}
    hidden, embedding = found["hidden_size"], found.get("embedding_size", row.embedding_size)
    # Transformers' ALBERT projects even where nothing changes its width.
    projected = row.embedding == "projected_first" or values.get("model_type") == "albert"
    made["embedding_size"] = embedding if embedding != hidden or projected else None
    if family == "gpt2" and "intermediate_size" not in found:
        made["intermediate_size"] = 4 * hidden
    made["pad_id"] = found.get("pad_id", row.pad_id)
    if row.pad_id is None and not _pads(made["pad_id"], values, found["vocab_size"]):
        made["pad_id"] = None
    if "norm_epsilon" in found:
        made["norm_epsilon"] = float(found["norm_epsilon"])
    elif "model_type" in values:
        made["norm_epsilon"] = _EPSILONS.get(family, row.norm_epsilon)
    if row.position == "relative":
        made["max_positions"] = values.get("max_relative_position", row.max_positions)
    elif row.position in BUCKETS:
        made["max_positions"] = values.get("relative_attention_max_distance", row.max_positions)
    elif row.position in TABLES and values.get("hierarchical_position"):
        made["position"] = "hierarchical"
    if row.num_segments == 0 and family != "gpt":
        made["num_segments"] = 0
    elif family == "gpt" and values.get("shared_segment_embeddings"):
        made["num_segments"] = None
    if row.num_decoder_layers:
        made["num_decoder_layers"] = found.get("num_decoder_layers", found["num_layers"])
        made["initializer_range"] = row.initializer_range  # their factor is relative to each layer's width
        if "dropout" in found and "attention_dropout" not in found:  # they have one rate for both
            made["attention_dropout"] = found["dropout"]
    elif family == "llama":
        made["scores"] = "tied" if values.get("tie_word_embeddings", row.scores == "tied") else "own"
    rope = values.get("rope_parameters")
    if isinstance(rope, Mapping):
        kind = rope.get("rope_type", rope.get("type", "default"))  # "type" is transformers 4's word
        if kind != "default":
            raise CheckpointError(f"{where}: rope_type = {kind!r} is not supported (only 'default')")
        made["rotary_base"] = rope.get("rope_theta", found.get("rotary_base", row.rotary_base))
    if row.num_blocks is not None:
        made["num_blocks"] = values.get("num_hidden_groups") or row.num_blocks
    if found.get("head_size", 0) * found["num_heads"] == hidden:
        made["head_size"] = None
    if found.get("num_kv_heads") == found["num_heads"]:
        made["num_kv_heads"] = None
    if values.get("rope_interleaved"):
        made["position"] = "rotary"
    if values.get("ln_type") == "preln":
        made["norm_at"] = "pre_open"
    return made


def _pads(pad_id: Any, values: Mapping[str, Any], vocab_size: int) -> bool:
    """Whether a decoder's padding is a token of its own: files name an impossible one (-1), or the end of the text."""
    ends = [values.get(name) for name in ("bos_token_id", "eos_token_id")]
    taken = [i for ids in ends for i in (ids if isinstance(ids, list) else [ids])]
    return pad_id is not None and 0 <= pad_id < vocab_size and pad_id not in taken


def _t5_scores(values: Mapping[str, Any], row: Config, own: bool) -> str:
    """Tied or not is what the file has; whether scaled, only transformers 5 says (4 scaled what it was told to tie)."""
    is_t5 = values.get("model_type") == "t5"
    told_to_tie = values.get("tie_word_embeddings", is_t5)
    if row.scores.startswith("own") and (own or not told_to_tie):
        scaled = bool(told_to_tie) if is_t5 else row.scores.endswith("_scaled")
        return "own_scaled" if values.get("scale_decoder_outputs", scaled) else "own"
    scaled = values.get("scale_decoder_outputs", values.get("model_type") != "mt5")
    return "tied_scaled" if scaled else "tied"


def _activation(values: Mapping[str, Any], row: Config, where: str) -> str:
    gated = row.activation.startswith("gated_")
    plain = row.activation.removeprefix("gated_")
    if values.get("model_type") == "albert":  # transformers' default, where Google's files always say it
        plain = "gelu_new"
    act = values.get("hidden_act") or values.get("activation_function") or values.get("feed_forward_proj") or plain
    if isinstance(act, list) and len(act) == 2 and act[1] == "linear":  # bert4keras' way to say "gated"
        act, gated = act[0], True
    elif isinstance(act, str) and act.startswith("gated-"):
        act, gated = {"gated-gelu": "gelu_new"}.get(act, act.removeprefix("gated-")), True
    elif values.get("feed_forward_proj"):
        gated = False
    if not isinstance(act, str) or act not in _ACTIVATIONS:
        raise CheckpointError(f"{where}: hidden_act: expected one of {', '.join(_ACTIVATIONS)}, found {act!r}")
    if values.get("hidden_act_form") == "tanh" and act == "gelu":
        act = "gelu_tanh"
    return ("gated_" if gated else "") + _ACTIVATIONS[act]


def write_config(config: Config, family: str) -> dict[str, Any]:
    """The keys of a config file in the family's usual spelling; `read_config` gives the same `Config` back."""
    row = family_of(family).config
    values: dict[str, Any] = {"model_type": {"t5_1_1": "t5"}.get(family, family)}
    always = ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "norm_epsilon", "dropout",
              "attention_dropout", "initializer_range", "pad_id")  # fmt: skip
    for name in _KEYS:
        value, usual = getattr(config, name), getattr(row, name)
        if value is None and usual is not None and name in ("head_size", "key_size"):
            value = config.size_per_head if name == "head_size" else config.size_per_key
        if name in ("num_segments", "max_positions") and usual not in (0, None):
            values[_key(name, family)] = value
        elif name in always or value != usual or (name == "embedding_size" and value is not None):
            values[_key(name, family)] = value
    if row.position == "relative":
        values["max_relative_position"] = values.pop("max_position_embeddings")
        values["use_relative_position"] = True
    plain = config.activation.removeprefix("gated_")
    values["hidden_act"] = "gelu" if plain == "gelu_tanh" else plain
    if plain == "gelu_tanh":
        values["hidden_act_form"] = "tanh"
    if config.activation.startswith("gated_") != row.activation.startswith("gated_"):
        values["hidden_act"] = [values["hidden_act"], "linear"]
    if config.position == "hierarchical":
        values["hierarchical_position"] = True
    if config.num_segments is None:
        values["shared_segment_embeddings"] = True
    if row.num_blocks is not None:
        values["num_hidden_groups"] = config.blocks
    if config.norm_at == "pre_open":
        values["ln_type"] = "preln"
    if config.num_decoder_layers:
        values["num_decoder_layers"] = config.num_decoder_layers
        values["relative_attention_num_buckets"] = config.num_buckets
    if config.num_decoder_layers or family == "llama":
        values["tie_word_embeddings"] = config.scores.startswith("tied")
    if config.num_decoder_layers:
        values["scale_decoder_outputs"] = config.scores.endswith("_scaled")
    return values
