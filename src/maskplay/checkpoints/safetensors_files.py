"""Safetensors files: a JSON header of names, dtypes, shapes and places, then the raw little-endian bytes.

Read here (arrays stay mapped in the file), written by the safetensors library. https://github.com/huggingface/safetensors
"""

import json
import os
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save_file

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
from maskplay.storage import new_file

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_WRITTEN = {np.dtype(dtype).newbyteorder("<") for dtype in _DTYPES.values()}
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
        dtype = _DTYPES.get(code)
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


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write one `.safetensors` file, whole or not at all.

    Args:
        path: the file's name.
        tensors: arrays by name.
        metadata: text to store in the header; Hugging Face expects `{"format": "pt"}`.

    Raises:
        CheckpointError: a dtype has no place in such a file, or a name is not text.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> write(path, {"bias": np.zeros(4, np.float32)})
        >>> open_safetensors(path)["bias"]
        array([0., 0., 0., 0.], dtype=float32)
    """
    ready: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        array = np.asarray(value)
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _WRITTEN or not isinstance(name, str) or name == "__metadata__":
            raise CheckpointError(
                f"{path}: tensor {quoted(name)}: dtype {array.dtype} cannot be written under this name"
            )
        # The library writes the buffer as it lies: it must be contiguous, and little-endian.
        ready[name] = np.ascontiguousarray(array, dtype).reshape(array.shape)
    with new_file(path) as file:
        try:
            save_file(ready, file.name, dict(metadata) if metadata else None)
        except (safetensors.SafetensorError, UnicodeError) as error:
            raise CheckpointError(f"{path}: cannot be written ({error})") from None


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
