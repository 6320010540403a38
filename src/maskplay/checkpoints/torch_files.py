"""PyTorch checkpoints, read without PyTorch: a pickle (names, shapes, strides) and the storages it refers to.

Since PyTorch 1.6 both are members of a zip; for the form before see `torch_legacy`. The pickle is interpreted by
`torch_pickle`, which runs nothing; storages are mapped.
"""

import math
import os
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from maskplay.checkpoints.tensors import MAX_TENSORS, LazyTensor, MappedFile, Tensors, as_array, check_shape, quoted
from maskplay.checkpoints.torch_legacy import LegacyFile, is_tar
from maskplay.checkpoints.torch_pickle import MAX_PICKLE, Storage, StoredTensor, Unreadable, read_pickle
from maskplay.checkpoints.zip_members import ZipMembers
from maskplay.errors import CheckpointError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")  # where training scripts keep the weights
_MAX_DEPTH = 16
_MAX_NAME = 4096
_Locate = Callable[[Storage, str], int]  # where a storage's bytes begin, once it is known that they are all there


def open_torch(path: str | os.PathLike[str]) -> Tensors:
    """The tensors of `pytorch_model.bin` or another file of `torch.save`, of any version since 0.1.10.

    A dict under `state_dict`, `model_state_dict`, `model` or `module` is taken for the weights; other nested dicts
    give names joined by dots.

    Raises:
        CheckpointError: the file is truncated or damaged, its pickle asks for more than tensors, or it is of a form
            that is not read (a tar file, a stream written on a big-endian machine).
    """
    file = MappedFile(path)
    start = bytes(file.bytes(0, min(512, file.size), "the beginning"))
    if is_tar(start):
        raise CheckpointError(
            f"{path}: a tar file, as PyTorch wrote before 0.1.10, which is not read; if you trust it (this runs the "
            "code in it), convert it once, in PyTorch: torch.save(torch.load(path, weights_only=False), path)"
        )
    try:
        if start.startswith(b"\x80"):
            legacy = LegacyFile(file)
            tensors = _tensors(file, legacy.table, legacy.offset)
            legacy.verify()
            return tensors
        return _open_zip(path)
    except Unreadable as error:
        raise CheckpointError(
            f"{path}: its pickle is refused (nothing in it was run): {error}; "
            "save only the model's state_dict, or convert it to safetensors"
        ) from None


def _open_zip(path: str | os.PathLike[str]) -> Tensors:
    archive = ZipMembers(path)
    pickles = [name for name in archive.members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError(f"{path}: not a PyTorch checkpoint: expected one data.pkl, found {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    big = f"{folder}byteorder" in archive.members and archive.peek(f"{folder}byteorder", 16) == b"big"
    size = archive.members[pickles[0]].size
    if size > MAX_PICKLE:
        raise CheckpointError(f"{path}: a pickle of {size} bytes, at most {MAX_PICKLE} are read")
    return _tensors(archive.file, read_pickle(archive.read(pickles[0])), partial(_member, archive, folder), big)


def _tensors(file: MappedFile, table: object, locate: _Locate, big: bool = False) -> Tensors:
    """The tensors of a pickle, each compared with the storage that it is a view of."""
    path = file.path
    skipped: dict[str, str] = {}
    entries: dict[str, LazyTensor] = {}
    for name, value in _flat(path, _weights(path, table, skipped)):
        if len(entries) + len(skipped) >= MAX_TENSORS:
            raise CheckpointError(f"{path}: more than {MAX_TENSORS} tensors and other values")
        if name in entries or name in skipped:
            raise CheckpointError(f"{path}: two tensors are named {quoted(name)}")
        if isinstance(value, StoredTensor):
            what = f"tensor {quoted(name)}"
            entries[name] = _lazy(file, name, value, locate(value.storage, what), big)
        else:
            skipped[name] = f"not a tensor but a {type(value).__name__}"
    return Tensors(path, "torch", entries, skipped, stored=file.size)


def _weights(path: str | os.PathLike[str], table: object, skipped: dict[str, str]) -> dict[object, object]:
    """The innermost dict that holds the weights; what lies beside it is skipped."""
    outside = ""
    for _ in range(_MAX_DEPTH):
        if not isinstance(table, dict):
            raise CheckpointError(f"{path}: expected a dict of tensors, found a {type(table).__name__}")
        wrapper = next((key for key in _WRAPPERS if isinstance(table.get(key), dict)), None)
        if wrapper is None or any(isinstance(value, StoredTensor) for value in table.values()):
            return table
        for key in table:
            if key != wrapper:
                skipped[f"{outside}{key}"] = f"lies beside the weights, which are under {wrapper!r}"
        outside += f"{wrapper}."
        table = table[wrapper]
    raise CheckpointError(f"{path}: its dicts are nested too deeply, or hold themselves")


def _flat(path: str | os.PathLike[str], table: dict[object, object]) -> Iterator[tuple[str, object]]:
    """The items of nested dicts under dotted names; a dict that is reached twice (or holds itself) is refused."""
    seen: set[int] = set()
    stack: list[tuple[str, dict[object, object], int]] = [("", table, 0)]
    while stack:
        prefix, items, depth = stack.pop()
        if id(items) in seen or depth > _MAX_DEPTH:
            raise CheckpointError(f"{path}: its dicts are nested too deeply, shared, or hold themselves")
        seen.add(id(items))
        for key, value in items.items():
            name = f"{prefix}{key}"
            if len(name) > _MAX_NAME:
                raise CheckpointError(f"{path}: a name of {len(name)} characters: {quoted(name)}")
            if isinstance(value, dict) and value:
                stack.append((f"{name}.", value, depth + 1))
            else:
                yield name, value


def _member(archive: ZipMembers, folder: str, storage: Storage, what: str) -> int:
    """Where a storage begins in a zip, after its size has been compared with the member that holds it."""
    path = archive.file.path
    member = f"{folder}data/{storage.key}"
    if member not in archive.members:
        raise CheckpointError(f"{path}: {what}: its storage {quoted(member)} is missing: damaged")
    if not archive.is_stored(member):
        raise CheckpointError(f"{path}: {what}: its storage is compressed; write the file with torch.save again")
    if storage.size * storage.dtype.itemsize > archive.members[member].size:
        raise CheckpointError(
            f"{path}: {what}: {archive.members[member].size} bytes cannot hold a storage of {quoted(storage.size)} "
            f"{storage.dtype}: damaged"
        )
    return archive.offset(member)


def _lazy(file: MappedFile, name: str, tensor: StoredTensor, offset: int, big: bool) -> LazyTensor:
    """A view of the storage at `offset` in the file, after its shape and strides have been compared with it."""
    what = f"tensor {quoted(name)}"
    storage = tensor.storage
    dtype = storage.dtype
    size = storage.stop - storage.start
    shape = check_shape(file.path, name, tensor.sizes)
    count = math.prod(shape)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, tensor.strides))
    # A view that repeats elements (stride 0) would grow when it is copied.
    if count and (last >= size or count > size):
        raise CheckpointError(
            f"{file.path}: {what}: shape {shape}, strides {quoted(tensor.strides)} and offset {quoted(tensor.offset)} "
            f"reach outside a storage of {size}: damaged"
        )

    def read() -> np.ndarray:
        if not count:
            return np.zeros(shape, dtype.newbyteorder("="))
        reach = last + 1 - tensor.offset
        begin = offset + (storage.start + tensor.offset) * dtype.itemsize
        data = file.bytes(begin, reach * dtype.itemsize, what)
        if big:
            data = np.frombuffer(data, f"u{dtype.itemsize}").byteswap().data.cast("B")
        flat = as_array(data, (reach,), dtype)
        strides = tuple(stride * flat.itemsize if size > 1 else 0 for size, stride in zip(shape, tensor.strides))
        return np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False)

    return LazyTensor(shape, dtype.newbyteorder("="), read)
