"""The dialect of Hugging Face transformers: linear weights are stored (out, in), layer norms as weight and bias.

Read with or without the model's prefix (`bert.`), with the legacy names gamma and beta, and with or without the tied
copy of the token table under `cls.predictions.decoder`.
"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from maskplay.checkpoints.dialect import Dialect, write_config
from maskplay.config import Config
from maskplay.errors import CheckpointError


def _table(prefix: str, family: str) -> dict[str, str]:
    layer = f"{prefix}encoder.layer.{{i}}"
    dense = {
        "encoder/block_{i}/attention/query": f"{layer}.attention.self.query",
        "encoder/block_{i}/attention/key": f"{layer}.attention.self.key",
        "encoder/block_{i}/attention/value": f"{layer}.attention.self.value",
        "encoder/block_{i}/attention/output": f"{layer}.attention.output.dense",
        "encoder/block_{i}/feed/inner": f"{layer}.intermediate.dense",
        "encoder/block_{i}/feed/outer": f"{layer}.output.dense",
        "pooler/dense": f"{prefix}pooler.dense",
        "nsp/dense": "cls.seq_relationship",
        "mlm/transform": "cls.predictions.transform.dense",
    }
    norms = {
        "encoder/embedding/norm": f"{prefix}embeddings.LayerNorm",
        "encoder/block_{i}/attention_norm": f"{layer}.attention.output.LayerNorm",
        "encoder/block_{i}/feed_norm": f"{layer}.output.LayerNorm",
        "mlm/norm": "cls.predictions.transform.LayerNorm",
    }
    table = {
        "encoder/embedding/token/embeddings": f"{prefix}embeddings.word_embeddings.weight",
        "encoder/embedding/segment/embeddings": f"{prefix}embeddings.token_type_embeddings.weight",
        "mlm/bias": "cls.predictions.bias",
    }
    if family == "bert":
        table["encoder/embedding/position/embeddings"] = f"{prefix}embeddings.position_embeddings.weight"
    else:
        dense["encoder/embedding/projection"] = f"{prefix}embeddings_project"
    for ours, theirs in dense.items():
        table[f"{ours}/kernel"], table[f"{ours}/bias"] = f"{theirs}.weight | transpose", f"{theirs}.bias"
    for ours, theirs in norms.items():
        table[f"{ours}/gamma"], table[f"{ours}/beta"] = f"{theirs}.weight", f"{theirs}.bias"
    return table


def _canonical(name: str) -> str:
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    return re.sub(r"^(bert|roformer)\.(?=embeddings|encoder\.|pooler\.)", "", name)


def _plain(table: dict[str, str]) -> dict[str, str]:
    return {ours: _canonical(theirs) for ours, theirs in table.items()}


HUGGINGFACE = Dialect(
    name="huggingface",
    sign="embeddings.word_embeddings.weight",
    # Without the prefix, as `_canonical` leaves the names of a file; saving writes it.
    tables={family: _plain(_table(f"{family}.", family)) for family in ("bert", "roformer")},
    canonical=_canonical,
    copies={
        "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    empty=lambda name: name.endswith((".position_ids", ".embed_positions.weight")),
)

_ARCHITECTURES: dict[tuple[str, ...], str] = {
    ("pooler", "nsp", "mlm"): "ForPreTraining",
    ("pooler", "nsp"): "ForNextSentencePrediction",
    ("pooler", "mlm"): "ForMaskedLM",
    ("mlm",): "ForMaskedLM",
}


def table_to_write(family: str) -> dict[str, str]:
    """The names as transformers writes them, prefix included."""
    return _table(f"{family}.", family)


def config_file(config: Config, family: str, heads: Iterable[str]) -> dict[str, Any]:
    """The content of `config.json`.

    Raises:
        CheckpointError: transformers' model of this family has no such part.
    """
    if config.head_size not in (None, config.hidden_size // config.num_heads):
        raise CheckpointError(
            f"transformers' {family} has no head size of its own ({config.head_size}); save as maskplay"
        )
    if family == "bert" and config.size_of_embedding != config.hidden_size:
        raise CheckpointError("transformers' bert has no factorised embedding; save as google or maskplay")
    if not config.num_segments:
        raise CheckpointError(f"transformers' {family} needs segments, this model has none; save as google or maskplay")
    values = write_config(config, family)
    values.pop("hidden_act_form", None)
    values.pop("attention_head_size", None)
    values["hidden_act"] = {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation)
    if family == "roformer":
        values["embedding_size"] = config.size_of_embedding
        values["rotary_value"] = False
    stem = {"bert": "Bert", "roformer": "RoFormer"}[family]
    heads = tuple(heads)
    if family == "roformer":  # transformers has it with the masked-token head or bare; it leaves out the other heads
        heads = ("mlm",) if "mlm" in heads else ()
    return {"architectures": [stem + _ARCHITECTURES.get(heads, "Model")], **values}


def rotary_table(config: Config) -> np.ndarray:
    """The sines and cosines that transformers keeps among RoFormer's weights, `(max_positions, head size)` float32."""
    size = config.size_per_head
    angles = np.arange(config.max_positions)[:, None] / 10000.0 ** (np.arange(0, size, 2) / size)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype("float32")
