"""The names in Keras' own files (`model.keras`, `model.weights.h5`) of a `LanguageModel`.

Keras names a weight by the attributes that lead to it and its number in its layer; here that becomes our path.
"""

import re

from maskplay.checkpoints.dialect import Dialect

_WHERE = ((r"^encoder/blocks/block(?=/)", "encoder/block_0"), (r"^encoder/blocks/", "encoder/"))
_HEADS = {"layers/masked_tokens": "mlm", "layers/next_sentence": "nsp", "layers/pooler": "pooler"}
_TABLES = {"encoder/embedding/token", "encoder/embedding/segment", "encoder/embedding/position"}


def _canonical(name: str) -> str:
    found = re.fullmatch(r"(.+)/vars/([01])", name)
    if found is None:
        return name
    layer, number = found[1], int(found[2])
    for pattern, ours in _WHERE:
        layer = re.sub(pattern, ours, layer)
    layer = layer.replace("/output_dense", "/output")
    for theirs, ours in _HEADS.items():
        layer = re.sub(f"^{theirs}(?=/|$)", ours, layer)
    if layer in _TABLES:
        weights = ("embeddings", "?")
    elif layer == "mlm":
        weights = ("bias", "?")
    else:
        weights = ("gamma", "beta") if layer.endswith("norm") else ("kernel", "bias")
    return f"{layer}/{weights[number]}"


KERAS = Dialect(name="keras", sign="encoder/embedding/token/embeddings", tables={}, canonical=_canonical)
