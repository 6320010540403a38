"""The names in Keras' own files (`model.keras`, `model.weights.h5`) of a `LanguageModel`.

Keras names a weight by the attributes that lead to it and its number in its layer; here that becomes our path.
"""

import re

KERAS = "keras"  # the name of the dialect

# A decoder shares the encoder's embedding, and Keras saves it with whichever comes first.
_WHERE = (
    (r"^decoder/embedding(?=/)", "encoder/embedding"),
    (r"^(encoder|decoder)/blocks/block(?=/)", r"\1/block_0"),
    (r"^(encoder|decoder)/blocks/", r"\1/"),
)
_HEADS = {
    "layers/masked_tokens": "mlm",
    "layers/next_sentence": "nsp",
    "layers/pooler": "pooler",
    "layers/replaced_tokens": "rtd",
    "layers/token_scores": "lm",
}
# The order in which a layer makes its weights, by the end of its path; the first that fits.
_WEIGHTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"embedding/(token|segment|position)|relative", ("embeddings",)),
    (r"norm", ("gamma", "beta", "gamma_kernel", "beta_kernel")),
    (r"mlm", ("bias",)),
    (r"attention", ("query_gamma", "key_gamma")),
    (r"", ("kernel", "bias")),
)


def canonical(name: str) -> str:
    """Our path of a weight in a Keras file; other names as they are.

    Example:
        >>> canonical("encoder/blocks/block_1/attention/output_dense/vars/0")
        'encoder/block_1/attention/output/kernel'
    """
    found = re.fullmatch(r"(.+)/vars/(\d)", name)
    if found is None:
        return name
    layer, number = found[1], int(found[2])
    for pattern, ours in _WHERE:
        layer = re.sub(pattern, ours, layer)
    layer = re.sub(r"/(output|transform)_dense", r"/\1", layer)
    for theirs, ours in _HEADS.items():
        layer = re.sub(f"^{theirs}(?=/|$)", ours, layer)
    weights = next(names for end, names in _WEIGHTS if re.search(rf"({end})$", layer))
    return f"{layer}/{weights[number]}" if number < len(weights) else name
