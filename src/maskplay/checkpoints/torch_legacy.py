"""PyTorch's form from before 1.6, which is no zip: five pickles, and behind them the storages, one after another.

The pickles are a magic number, a version, a description of the machine, the table of tensors, and the order of the
storages; a storage is its number of elements (int64) and then these, all little-endian. Nothing says where a storage
lies, so that the places follow from the sizes in the table. Source: `_legacy_save` in torch/serialization.py.
"""

import struct

from maskplay.checkpoints.tensors import MappedFile, quoted
from maskplay.checkpoints.torch_pickle import MAX_PICKLE, CutShort, Pickles, Storage
from maskplay.errors import CheckpointError

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_COUNT = struct.Struct("<q")


def is_tar(start: bytes) -> bool:
    """Whether the first 512 bytes are those of a tar file, the form from before PyTorch 0.1.10."""
    return start[257:262] == b"ustar"


class LegacyFile:
    """The table of such a file, and where its storages lie.

    Attributes:
        table: what was saved, with a `StoredTensor` for each tensor.

    Raises:
        CheckpointError: the file ends within its pickles, or they contradict each other, or it is not of this form.
        Unreadable: a pickle asks for more than tensors.
    """

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        pickles = Pickles(bytes(file.bytes(0, min(file.size, MAX_PICKLE), "its pickles")))
        try:
            if pickles.load() != _MAGIC:
                raise CheckpointError(f"{file.path}: not a PyTorch checkpoint: a pickle without PyTorch's magic number")
            if pickles.load() != _VERSION:
                raise CheckpointError(f"{file.path}: expected version {_VERSION} of PyTorch's old form: damaged")
            self._check_machine(pickles.load())
            self.table = pickles.load()
            described = self._by_key(pickles.storages)
            keys = pickles.load()
        except CutShort:
            if file.size > MAX_PICKLE:
                raise CheckpointError(f"{file.path}: its pickles do not end within {MAX_PICKLE} bytes") from None
            raise CheckpointError(
                f"{file.path}: the file ends at {file.size}, before any tensor's numbers: it is truncated"
            ) from None
        self._places: dict[str, tuple[Storage, int]] = {}
        at = pickles.at
        for key in keys if isinstance(keys, list) else [None]:
            if not isinstance(key, str) or key not in described or key in self._places:
                raise CheckpointError(f"{file.path}: its list of storages does not match its tensors: damaged")
            storage = described[key]
            self._places[key] = storage, at
            at += _COUNT.size + storage.size * storage.dtype.itemsize

    def offset(self, storage: Storage, what: str) -> int:
        """Where a storage's numbers begin; they are checked to lie within the file, and to be as many as expected."""
        if storage.key not in self._places:
            raise CheckpointError(f"{self.file.path}: {what}: its storage {quoted(storage.key)} is missing: damaged")
        _, at = self._places[storage.key]
        self.file.check(at, _COUNT.size + storage.size * storage.dtype.itemsize, what)
        (count,) = _COUNT.unpack(self.file.bytes(at, _COUNT.size, what))
        if count != storage.size:
            raise CheckpointError(
                f"{self.file.path}: {what}: expected a storage of {storage.size} numbers, found {count}: damaged"
            )
        return at + _COUNT.size

    def verify(self) -> None:
        """Check the storages of what is skipped, too: were one shorter, those behind it would lie elsewhere."""
        for key, (storage, _) in self._places.items():
            self.offset(storage, f"storage {quoted(key)}")

    def _check_machine(self, machine: object) -> None:
        order = machine.get("little_endian") if isinstance(machine, dict) else None
        if order is False:
            raise CheckpointError(
                f"{self.file.path}: written by PyTorch before 1.6 on a big-endian machine, which is not read; "
                "convert it once, in PyTorch: torch.save(torch.load(path, weights_only=True), path)"
            )
        if order is not True:
            raise CheckpointError(f"{self.file.path}: expected `little_endian` to be true or false: damaged")

    def _by_key(self, storages: list[Storage]) -> dict[str, Storage]:
        found: dict[str, Storage] = {}
        for storage in storages:
            first = found.setdefault(storage.key, storage)
            if storage.size >= 2**63:  # more than its count can say
                raise CheckpointError(f"{self.file.path}: storage {quoted(storage.key)}: impossible size: damaged")
            if (first.dtype, first.size) != (storage.dtype, storage.size):
                raise CheckpointError(
                    f"{self.file.path}: storage {quoted(storage.key)} is described as {quoted(first.size)} "
                    f"{first.dtype} and as {quoted(storage.size)} {storage.dtype}: damaged"
                )
        return found
