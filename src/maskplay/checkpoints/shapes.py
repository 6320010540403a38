"""The shape of every weight that a config promises, without building anything.

A config file is untrusted too: what it claims is compared with the arrays that are really in the checkpoint before a
network is allocated.
"""

from collections.abc import Iterable

from maskplay.config import Config


def weight_shapes(config: Config, heads: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Weight paths of a `LanguageModel` and their shapes.

    Example:
        >>> weight_shapes(Config(vocab_size=21128), [])["encoder/block_11/feed/inner/kernel"]
        (768, 3072)
    """
    hidden, size, inner = config.hidden_size, config.size_of_embedding, config.intermediate_size
    wide = config.num_heads * config.size_per_head
    shapes: dict[str, tuple[int, ...]] = {"encoder/embedding/token/embeddings": (config.vocab_size, size)}

    def dense(name: str, before: int, after: int) -> None:
        shapes.update({f"{name}/kernel": (before, after), f"{name}/bias": (after,)})

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}/gamma": (width,), f"{name}/beta": (width,)})

    if config.num_segments:
        shapes["encoder/embedding/segment/embeddings"] = (config.num_segments, size)
    if config.position in ("learned", "hierarchical"):
        shapes["encoder/embedding/position/embeddings"] = (config.max_positions, size)
    norm("encoder/embedding/norm", size)
    if size != hidden:
        dense("encoder/embedding/projection", size, hidden)
    for i in range(config.num_layers):
        block = f"encoder/block_{i}"
        for name in ("query", "key", "value"):
            dense(f"{block}/attention/{name}", hidden, wide)
        dense(f"{block}/attention/output", wide, hidden)
        norm(f"{block}/attention_norm", hidden)
        dense(f"{block}/feed/inner", hidden, inner)
        dense(f"{block}/feed/outer", inner, hidden)
        norm(f"{block}/feed_norm", hidden)
    for head in heads:
        if head == "pooler":
            dense("pooler/dense", hidden, hidden)
        elif head == "nsp":
            dense("nsp/dense", hidden, 2)
        elif head == "mlm":
            dense("mlm/transform", hidden, size)
            norm("mlm/norm", size)
            shapes["mlm/bias"] = (config.vocab_size,)
    return shapes
