"""What a dialect is: the names and config keys in which somebody else writes the same network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from maskplay.config import ACTIVATIONS, Config
from maskplay.errors import CheckpointError, UserError

# Their spelling of an activation -> ours. "gelu" is the exact form, as bert4keras and transformers read it; Google's
# original code computed the tanh form under the same name (load with activation="gelu_tanh" to have that).
_ACTIVATIONS = {
    **{name: name for name in ACTIVATIONS},
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
}


@dataclass(frozen=True)
class Dialect:
    """One way of writing checkpoints.

    Attributes:
        name: "google", "huggingface" or "maskplay".
        sign: the token table's canonical name, by which the dialect is recognised.
        tables: family name -> table of `rename.rows`.
        canonical: a file's spelling of a name -> the table's (prefixes and legacy names).
        copies: names that repeat another tensor (tied weights): the file may have them, and they must be equal.
        empty: does a name carry nothing that is learned (position numbers, computed tables)?
    """

    name: str
    sign: str
    tables: Mapping[str, Mapping[str, str]]
    canonical: Callable[[str], str] = str
    copies: Mapping[str, str] = field(default_factory=dict)
    empty: Callable[[str], bool] = lambda name: False


def read_config(values: Mapping[str, Any], family: str, where: str) -> Config:
    """A config file of Google's or Hugging Face's spelling as a `Config`.

    Args:
        values: the JSON object.
        family: "bert" or "roformer", which decides the positions.
        where: the file's name, for errors.

    Raises:
        CheckpointError: a key is missing or makes no sense, or asks for something this family does not have.

    Example:
        >>> keys = {"vocab_size": 15, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 4}
        >>> read_config({**keys, "intermediate_size": 16, "hidden_act": "gelu_new"}, "bert", "config.json").activation
        'gelu_tanh'
    """
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if key not in values:
            raise CheckpointError(f"{where}: the key {key!r} is missing")
    act = values.get("hidden_act", "gelu")
    if act not in _ACTIVATIONS:
        raise CheckpointError(f"{where}: hidden_act: expected one of {', '.join(_ACTIVATIONS)}, found {act!r}")
    if values.get("hidden_act_form") == "tanh" and act == "gelu":
        act = "gelu_tanh"
    for key, plain in (("position_embedding_type", "absolute"), ("is_decoder", False), ("rotary_value", False)):
        if values.get(key, plain) != plain:
            raise CheckpointError(f"{where}: {key} = {values[key]!r} is not supported (only {plain!r})")
    if (key_size := values.get("attention_key_size")) not in (None, values.get("attention_head_size")):
        raise CheckpointError(f"{where}: attention_key_size = {key_size!r} is not supported")
    position = (
        "rotary" if family == "roformer" else "hierarchical" if values.get("hierarchical_position") else "learned"
    )
    hidden, embedding = values["hidden_size"], values.get("embedding_size")
    try:
        return Config(
            vocab_size=values["vocab_size"],
            hidden_size=hidden,
            num_layers=values["num_hidden_layers"],
            num_heads=values["num_attention_heads"],
            intermediate_size=values["intermediate_size"],
            head_size=values.get("attention_head_size"),
            embedding_size=None if embedding == hidden else embedding,
            max_positions=values.get("max_position_embeddings", 512),
            num_segments=values.get("type_vocab_size", 2),
            position=position,
            activation=_ACTIVATIONS[act],
            norm_epsilon=float(values.get("layer_norm_eps", 1e-12)),
            dropout=values.get("hidden_dropout_prob", 0.1),
            attention_dropout=values.get("attention_probs_dropout_prob", 0.1),
            initializer_range=values.get("initializer_range", 0.02),
            pooler_activation=values.get("pooler_activation", "tanh"),
            pad_id=values.get("pad_token_id") or 0,
        )
    except (UserError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {error}") from None


def write_config(config: Config, family: str) -> dict[str, Any]:
    """The keys that Google's and Hugging Face's config files share; `read_config` gives the same `Config` back."""
    values: dict[str, Any] = {
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": "gelu" if config.activation == "gelu_tanh" else config.activation,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.num_segments,
        "initializer_range": config.initializer_range,
        "layer_norm_eps": config.norm_epsilon,
        "pad_token_id": config.pad_id,
    }
    if config.activation == "gelu_tanh":
        values["hidden_act_form"] = "tanh"
    if config.head_size is not None:
        values["attention_head_size"] = config.head_size
    if config.embedding_size is not None:
        values["embedding_size"] = config.embedding_size
    if config.position == "hierarchical":
        values["hierarchical_position"] = True
    if config.pooler_activation != "tanh":
        values["pooler_activation"] = config.pooler_activation
    return values
