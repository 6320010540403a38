"""Keras' own files: `.weights.h5`, and the `model.weights.h5` inside a `.keras` archive.

The names are the paths of the HDF5 datasets, `layers/dense/vars/0`. h5py only walks the file: Keras writes every weight
as one unbroken run of bytes, so each is mapped from the file itself, and whatever HDF5 could make of a small file
(filters, chunks, virtual datasets, links to other files) is refused.
"""

import io
import os
from collections.abc import Iterator
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from maskplay.checkpoints.tensors import LazyTensor, MappedFile, Tensors, byte_count, check_shape, quoted
from maskplay.checkpoints.zip_members import ZipMembers
from maskplay.errors import CheckpointError

_MAX_DEPTH = 64
_WEIGHTS = "model.weights.h5"


def open_keras(path: str | os.PathLike[str]) -> Tensors:
    """The weights of a `.weights.h5` or `.keras` file.

    Raises:
        CheckpointError: the file is missing, truncated or damaged, or uses a part of HDF5 that Keras does not.
    """
    file = MappedFile(path)
    begin, size = 0, file.size
    if bytes(file.bytes(0, min(2, file.size), "the beginning")) == b"PK":
        archive = ZipMembers(path)
        if _WEIGHTS not in archive.members or not archive.is_stored(_WEIGHTS):
            raise CheckpointError(f"{path}: expected a .keras archive with an uncompressed {_WEIGHTS}")
        begin, size = archive.offset(_WEIGHTS), archive.members[_WEIGHTS].size
    window = _Window(file.bytes(begin, size, "the HDF5 data"))
    entries: dict[str, LazyTensor] = {}
    skipped: dict[str, str] = {}
    try:
        with h5py.File(window, "r") as tree:
            if tree.userblock_size:
                raise CheckpointError(f"{path}: an HDF5 file with a user block, which Keras does not write")
            for name, dataset in _datasets(file, tree):
                entry = _lazy(file, begin, size, name, dataset)
                if isinstance(entry, str):
                    skipped[name] = entry
                elif name.startswith(("optimizer/", "optimizer_weights/")):
                    skipped[name] = "the optimizer's state"
                else:
                    entries[name] = entry
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError, RecursionError) as error:
        reason = quoted(str(error))  # h5py passes on whatever the HDF5 library stumbled over
        raise CheckpointError(f"{path}: not an HDF5 file, truncated or damaged: {reason}") from None
    return Tensors(path, "keras", entries, skipped)


class _Window(io.RawIOBase):
    """Part of a mapped file, as the file h5py wants."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._data)}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        piece = self._data[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _datasets(file: MappedFile, tree: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset with its path. A stack, not recursion, and no group twice: a file may hold itself."""
    stack: list[tuple[str, h5py.Group, int]] = [("", tree, 0)]
    seen: set[int] = set()
    while stack:
        path, group, depth = stack.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen or depth > _MAX_DEPTH:
            raise CheckpointError(f"{file.path}: group {quoted(path)} is reached twice or lies too deep: damaged")
        seen.add(place)
        for key in group:
            name = f"{path}/{key}" if path else key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise CheckpointError(f"{file.path}: {quoted(name)} is a link to another place, which is not followed")
            item = group[key]
            if isinstance(item, h5py.Group):
                stack.append((name, item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                yield name, item


def _lazy(file: MappedFile, begin: int, size: int, name: str, dataset: h5py.Dataset) -> LazyTensor | str:
    """A dataset as a part of the file, or why it is skipped."""
    dtype = dataset.dtype
    if dtype == np.dtype("V2") and _says_bfloat16(dataset):
        dtype = np.dtype(ml_dtypes.bfloat16)
    elif dtype.kind not in "biuf" or dtype.itemsize > 8 or dataset.shape is None:
        return "not an array of numbers"
    what = f"tensor {quoted(name)}"
    shape = check_shape(file.path, name, dataset.shape)
    layout = dataset.id.get_create_plist().get_layout()
    if layout == h5py.h5d.COMPACT and byte_count(shape, dtype) < 2**16:
        content = dataset[()]
        return LazyTensor(shape, dtype.newbyteorder("="), lambda: np.asarray(content).astype(dtype.newbyteorder("=")))
    if layout != h5py.h5d.CONTIGUOUS or dataset.external:
        raise CheckpointError(
            f"{file.path}: {what}: chunked, compressed, external or virtual; open it in Keras and save it again"
        )
    if byte_count(shape, dtype) == 0:
        return LazyTensor(shape, dtype.newbyteorder("="), lambda: np.zeros(shape, dtype.newbyteorder("=")))
    offset = dataset.id.get_offset()
    if offset is None or offset + byte_count(shape, dtype) > size:
        raise CheckpointError(f"{file.path}: {what}: its bytes are missing: truncated or damaged")
    return file.lazy(begin + offset, shape, dtype, what)


def _says_bfloat16(dataset: h5py.Dataset) -> bool:
    """Whether Keras marked two opaque bytes as bfloat16. Looks at the attribute's shape before reading it."""
    if "dtype" not in dataset.attrs or dataset.attrs.get_id("dtype").shape != ():
        return False
    return dataset.attrs["dtype"] == "bfloat16"
