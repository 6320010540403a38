"""Safetensors files: a JSON header of names, dtypes, shapes and places, then the raw little-endian bytes.

Arrays stay mapped in the file; for writing see `maskplay.arrays`. https://github.com/huggingface/safetensors
"""

import json
import os
from itertools import pairwise
from typing import Any

from maskplay.arrays import DTYPES
from maskplay.checkpoints.tensors import (
    MAX_TENSORS,
    LazyTensor,
    MappedFile,
    Tensors,
    byte_count,
    check_shape,
    quoted,
)
from maskplay.errors import CheckpointError

_MAX_HEADER = 8 * 2**20  # bytes; some 100 for each tensor


def open_safetensors(path: str | os.PathLike[str]) -> Tensors:
    """The tensors of one `.safetensors` file.

    Raises:
        CheckpointError: the file is missing, truncated or damaged; the text names the tensor where it is one.
    """
    file = MappedFile(path)
    header, start = _header(file)
    entries: dict[str, LazyTensor] = {}
    skipped: dict[str, str] = {}
    places: list[tuple[int, int, str]] = []
    if len(header) > MAX_TENSORS:
        raise CheckpointError(f"{file.path}: {len(header)} tensors, at most {MAX_TENSORS} are read")
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        what = f"{file.path}: tensor {quoted(name)}"
        match entry:
            case {"dtype": str(code), "shape": list(sizes), "data_offsets": [int(begin), int(end)]}:
                pass
            case _:
                raise CheckpointError(f"{what}: expected dtype, shape and data_offsets, found {quoted(entry)}")
        shape = check_shape(file.path, name, sizes)
        if not 0 <= begin <= end or start + end > file.size:
            raise CheckpointError(
                f"{what}: bytes {quoted(begin)} to {quoted(end)} of {file.size - start}: truncated or damaged"
            )
        places.append((begin, end, name))
        dtype = DTYPES.get(code)
        if dtype is None:
            skipped[name] = f"the dtype {quoted(code)} is not supported"
            continue
        if byte_count(shape, dtype) != end - begin:
            raise CheckpointError(f"{what}: {end - begin} bytes cannot hold {code} of shape {shape}")
        entries[name] = file.lazy(start + begin, shape, dtype, f"tensor {quoted(name)}")
    for (_, end, one), (begin, _, other) in pairwise(sorted(places)):
        if begin < end:
            raise CheckpointError(f"{file.path}: tensors {quoted(one)} and {quoted(other)} overlap: damaged")
    return Tensors(path, "safetensors", entries, skipped)


def _header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The header's JSON object, and where the bytes begin."""
    if file.size < 8:
        raise CheckpointError(f"{file.path}: not a safetensors file: {file.size} bytes")
    size = int.from_bytes(file.bytes(0, 8, "the header's length"), "little")
    if size > _MAX_HEADER:
        raise CheckpointError(f"{file.path}: not a safetensors file: it claims a header of {size} bytes")
    text = bytes(file.bytes(8, size, "the header"))
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.path}: the header is damaged: {quoted(str(error))}") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file.path}: the header is damaged: not a JSON object")
    return header, 8 + size


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found
