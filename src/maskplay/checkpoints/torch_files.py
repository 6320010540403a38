"""PyTorch checkpoints, read without PyTorch: a zip of one pickle (names, shapes, strides) and one member a storage.

The pickle is interpreted by `torch_pickle`, which runs nothing; storages are mapped. Files from before PyTorch 1.6 are
one long pickle instead of a zip, and are refused with the way to convert them.
"""

import math
import os
from collections.abc import Iterator

import ml_dtypes
import numpy as np

from maskplay.checkpoints.tensors import MAX_TENSORS, LazyTensor, MappedFile, Tensors, as_array, check_shape, quoted
from maskplay.checkpoints.torch_pickle import MAX_PICKLE, StoredTensor, Unreadable, read_pickle
from maskplay.checkpoints.zip_members import ZipMembers
from maskplay.errors import CheckpointError

_DTYPES = {
    "Float": np.dtype("<f4"),
    "Double": np.dtype("<f8"),
    "Half": np.dtype("<f2"),
    "BFloat16": np.dtype(ml_dtypes.bfloat16),
    "Long": np.dtype("<i8"),
    "Int": np.dtype("<i4"),
    "Short": np.dtype("<i2"),
    "Char": np.dtype("i1"),
    "Byte": np.dtype("u1"),
    "Bool": np.dtype("?"),
}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")  # where training scripts keep the weights
_MAX_DEPTH = 16
_MAX_NAME = 4096
_LEGACY = (
    "written by PyTorch before 1.6 (not a zip file), which is not read; convert it once, in PyTorch: "
    "torch.save(torch.load(path, weights_only=True), path)"
)


def open_torch(path: str | os.PathLike[str]) -> Tensors:
    """The tensors of `pytorch_model.bin` or another file of `torch.save`.

    A dict under `state_dict`, `model_state_dict`, `model` or `module` is taken for the weights; other nested dicts
    give names joined by dots.

    Raises:
        CheckpointError: the file is of the old form, truncated or damaged, or its pickle asks for more than tensors.
    """
    file = MappedFile(path)
    if bytes(file.bytes(0, min(1, file.size), "the beginning")) == b"\x80":
        raise CheckpointError(f"{path}: {_LEGACY}")
    archive = ZipMembers(path)
    pickles = [name for name in archive.members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError(f"{path}: not a PyTorch checkpoint: expected one data.pkl, found {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    big = f"{folder}byteorder" in archive.members and archive.peek(f"{folder}byteorder", 16) == b"big"
    size = archive.members[pickles[0]].size
    if size > MAX_PICKLE:
        raise CheckpointError(f"{path}: a pickle of {size} bytes, at most {MAX_PICKLE} are read")
    try:
        table = read_pickle(archive.read(pickles[0]))
    except Unreadable as error:
        raise CheckpointError(
            f"{path}: its pickle is refused (nothing in it was run): {error}; "
            "save only the model's state_dict, or convert it to safetensors"
        ) from None
    skipped: dict[str, str] = {}
    entries: dict[str, LazyTensor] = {}
    for name, value in _flat(path, _weights(path, table, skipped)):
        if len(entries) + len(skipped) >= MAX_TENSORS:
            raise CheckpointError(f"{path}: more than {MAX_TENSORS} tensors and other values")
        if name in entries or name in skipped:
            raise CheckpointError(f"{path}: two tensors are named {quoted(name)}")
        if isinstance(value, StoredTensor):
            entries[name] = _lazy(path, archive, folder, name, value, big)
        else:
            skipped[name] = f"not a tensor but a {type(value).__name__}"
    return Tensors(path, "torch", entries, skipped)


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


def _lazy(
    path: str | os.PathLike[str], archive: ZipMembers, folder: str, name: str, tensor: StoredTensor, big: bool
) -> LazyTensor:
    """A view of a storage, after everything it claims has been compared with the member that holds the storage."""
    what = f"tensor {quoted(name)}"
    storage = tensor.storage
    member = f"{folder}data/{storage.key}"
    dtype = _DTYPES[storage.kind]
    if member not in archive.members:
        raise CheckpointError(f"{path}: {what}: its storage {quoted(member)} is missing: damaged")
    if not archive.is_stored(member):
        raise CheckpointError(f"{path}: {what}: its storage is compressed; write the file with torch.save again")
    if storage.size * dtype.itemsize > archive.members[member].size:
        raise CheckpointError(
            f"{path}: {what}: {archive.members[member].size} bytes cannot hold a storage of {quoted(storage.size)} "
            f"{dtype}: damaged"
        )
    shape = check_shape(archive.file.path, name, tensor.sizes)
    count = math.prod(shape)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, tensor.strides))
    # A view that repeats elements (stride 0) would grow when it is copied.
    if count and (last >= storage.size or count > storage.size):
        raise CheckpointError(
            f"{path}: {what}: shape {shape}, strides {quoted(tensor.strides)} and offset {quoted(tensor.offset)} "
            f"reach outside a storage of {storage.size}: damaged"
        )
    offset = archive.offset(member)

    def read() -> np.ndarray:
        if not count:
            return np.zeros(shape, dtype.newbyteorder("="))
        data = archive.file.bytes(offset, storage.size * dtype.itemsize, what)
        if big:
            data = np.frombuffer(data, f"u{dtype.itemsize}").byteswap().data.cast("B")
        flat = as_array(data, (storage.size,), dtype)[tensor.offset :]
        strides = tuple(stride * flat.itemsize if size > 1 else 0 for size, stride in zip(shape, tensor.strides))
        return np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False)

    return LazyTensor(shape, dtype.newbyteorder("="), read)
