"""List what an HDF5 file holds, as JSON; a program that `keras_files` runs in a process of its own.

The HDF5 library trusts its files: on damaged ones it crashes, loops or asks for all memory (we have seen the first two
within a thousand flipped bytes). Here it may. Nothing of maskplay is imported, so that the process starts fast.

    python hdf5_listing.py FILE BEGIN SIZE      # the HDF5 data are SIZE bytes at BEGIN

It prints {"datasets": [[name, shape, dtype or null, offset or null], ...]} or {"error": text}.
"""

import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py
from h5py import h5d

_MAX_DEPTH = 64
_MAX_DATASETS = 100_000
_MAX_NAME = 4096
_MEMORY = 4 * 2**30  # bytes of address space, most of it for the libraries


class _Window(io.RawIOBase):
    """Part of a file, as the file h5py wants."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self._file, self._begin, self._size = file, begin, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._begin + self._at)
        piece = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _datasets(tree: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset with its path. A stack, not recursion, and no group twice: a file may hold itself."""
    stack: list[tuple[str, h5py.Group, int]] = [("", tree, 0)]
    seen: set[h5py.Group] = set()  # compares places in the file, not paths
    found = 0
    while stack:
        path, group, depth = stack.pop()
        if group in seen or depth > _MAX_DEPTH:
            raise ValueError(f"group {path!r} is reached twice or lies too deep")
        seen.add(group)
        for key in group:
            name = f"{path}/{key}" if path else key
            found += 1
            if found > _MAX_DATASETS or len(name) > _MAX_NAME:
                raise ValueError("too many or too long names")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ValueError(f"{name!r} is a link to another place, which is not followed")
            item = group[key]
            if isinstance(item, h5py.Group):
                stack.append((name, item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                yield name, item


def _described(name: str, dataset: h5py.Dataset) -> list[object]:
    dtype: str | None = None
    if dataset.shape is not None and dataset.dtype.kind in "biuf" and dataset.dtype.itemsize <= 8:
        dtype = dataset.dtype.str
    elif dataset.dtype.str == "|V2" and _says_bfloat16(dataset):
        dtype = "bfloat16"
    if dtype and (dataset.id.get_create_plist().get_layout() != h5d.CONTIGUOUS or dataset.external):
        raise ValueError(f"{name!r} is chunked, compressed, external or virtual; save it in Keras again")
    return [name, dataset.shape, dtype, dataset.id.get_offset() if dtype else None]


def _says_bfloat16(dataset: h5py.Dataset) -> bool:
    """Whether Keras marked two opaque bytes as bfloat16."""
    if "dtype" not in dataset.attrs or dataset.attrs.get_id("dtype").shape != ():
        return False
    return dataset.attrs["dtype"] == "bfloat16"


def _listing(path: str, begin: int, size: int) -> dict[str, object]:
    with open(path, "rb") as file, h5py.File(_Window(file, begin, size), "r") as tree:
        if tree.userblock_size:
            return {"error": "it has a user block, which Keras does not write"}
        return {"datasets": [_described(name, dataset) for name, dataset in _datasets(tree)]}


if __name__ == "__main__":
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, ValueError, OSError):
        pass  # not every system has limits; the time limit of the caller stands
    try:
        listing = _listing(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    except Exception as error:  # whatever HDF5 stumbled over; the caller says which file it was
        listing = {"error": str(error)[:200]}
    print(json.dumps(listing))
