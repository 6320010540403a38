"""llama2.c's `.bin` files: seven integers, then every weight as float32, layer after layer of one kind.

The format has no magic number, so a file counts as one only if its length is exactly what its header promises.
"""

import math
import struct
from pathlib import Path

import numpy as np

from maskplay.checkpoints.tensors import MappedFile, Tensors, quoted
from maskplay.errors import CheckpointError

_HEADER = struct.Struct("<7i")
_FLOAT = np.dtype("<f4")


def is_llama2c(path: Path) -> bool:
    """Whether the header's numbers make sense and the file is exactly as long as they say."""
    return _layout(path) is not None


def _layout(path: Path) -> tuple[dict[str, object], list[tuple[str, tuple[int, ...]]]] | None:
    with open(path, "rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return None
    hidden, inner, layers, heads, kv_heads, vocabulary, length = _HEADER.unpack(head)
    own_scores, vocabulary = vocabulary < 0, abs(vocabulary)  # a negative size marks a classifier of its own
    sizes = (hidden, inner, layers, heads, kv_heads, vocabulary, length)
    if not all(0 < size < 2**24 for size in sizes) or layers > 4096 or hidden % heads or heads % kv_heads:
        return None
    head_size = hidden // heads
    if head_size % 2:
        return None
    keys = kv_heads * head_size

    def stacked(name: str, *shape: int) -> list[tuple[str, tuple[int, ...]]]:
        return [(f"layers.{i}.{name}.weight", shape) for i in range(layers)]

    parts = [
        ("tok_embeddings.weight", (vocabulary, hidden)),
        *stacked("attention_norm", hidden),
        *stacked("attention.wq", hidden, hidden),
        *stacked("attention.wk", keys, hidden),
        *stacked("attention.wv", keys, hidden),
        *stacked("attention.wo", hidden, hidden),
        *stacked("ffn_norm", hidden),
        *stacked("feed_forward.w1", inner, hidden),
        *stacked("feed_forward.w2", hidden, inner),
        *stacked("feed_forward.w3", inner, hidden),
        ("norm.weight", (hidden,)),
        ("", (length, head_size)),  # rotary tables, which are computed here
        *([("output.weight", (vocabulary, hidden))] if own_scores else []),
    ]
    size = _HEADER.size + _FLOAT.itemsize * sum(math.prod(shape) for _, shape in parts)
    if path.stat().st_size != size:
        return None
    config = {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        "max_position_embeddings": length,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": not own_scores,
        "rope_interleaved": True,
    }
    return config, parts


def open_llama2c(path: Path) -> Tensors:
    """The arrays of a llama2.c file; `.config` says what its header says.

    Raises:
        CheckpointError: the header makes no sense, or the file has another length than it promises.
    """
    layout = _layout(path)
    if layout is None:
        raise CheckpointError(
            f"{path}: not a checkpoint: neither PyTorch's nor llama2.c's (whose header says how long the file is; "
            f"this one has {path.stat().st_size} bytes)"
        )
    config, parts = layout
    file = MappedFile(path)
    entries, offset = {}, _HEADER.size
    for name, shape in parts:
        size = _FLOAT.itemsize * math.prod(shape)
        if name:
            entries[name] = file.lazy(offset, shape, _FLOAT, f"tensor {quoted(name)}")
        offset += size
    return Tensors(path, "llama2c", entries, config=config)
