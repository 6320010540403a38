"""What every container gives: a mapping from names to arrays that are read when asked for, and mapped files beneath it.

Nothing here knows a format. A file is untrusted: its length is taken once, every slice is checked against it before
the file is mapped, and every size is computed with Python's integers, which do not overflow.
"""

import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskplay.errors import CheckpointError

_MAX_RANK = 32
MAX_TENSORS = 50_000  # in one file; each costs a kilobyte of memory, and some files can name one in ten bytes


@dataclass(frozen=True)
class LazyTensor:
    """One array that is still in its file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


class Tensors(Mapping[str, np.ndarray]):
    """The arrays of one checkpoint, by name; `tensors[name]` reads one, memory-mapped and read-only where it can be.

    Attributes:
        path: the file that was opened (for a TensorFlow bundle its prefix, for a sharded checkpoint its index).
        container: "tensorflow", "safetensors", "torch", "npz", "keras" or "llama2c".
        skipped: what the file holds beside weights, `{name: reason}`: optimizer state, strings, other objects.
        config: what the file itself says of its network, as a config file would; None for most containers.
        stored: bytes of the files, where several tensors may lie over the same ones; else None.

    Example:
        >>> one = LazyTensor((2,), np.dtype("float32"), lambda: np.ones(2, np.float32))
        >>> tensors = Tensors("a.npz", "npz", {"bias": one})
        >>> tensors.names(), tensors.shape("bias"), tensors["bias"].sum()
        (['bias'], (2,), np.float32(2.0))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        container: str,
        entries: Mapping[str, LazyTensor],
        skipped: Mapping[str, str] | None = None,
        config: Mapping[str, object] | None = None,
        stored: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.container = container
        self.config = config
        self.stored = stored
        self.skipped = dict(skipped or {})
        self._entries = dict(entries)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it. Raises KeyError for an unknown name, as indexing does."""
        return self._entries[name].shape

    def dtype(self, name: str) -> np.dtype:
        """A tensor's dtype, without reading it; bfloat16 is `ml_dtypes.bfloat16`."""
        return self._entries[name].dtype

    def entries(self) -> dict[str, LazyTensor]:
        """The unread tensors themselves, to build one checkpoint out of several files."""
        return dict(self._entries)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._entries[name].read()

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Tensors({str(self.path)!r}, {self.container!r}, {len(self)} tensors, {len(self.skipped)} skipped)"


class MappedFile:
    """A file whose bytes are mapped on first use; every access is checked against the length it had when opened."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.size = self.path.stat().st_size
            if not self.path.is_file():
                raise CheckpointError(f"{self.path}: expected a file, found a folder or a device")
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        self._map: mmap.mmap | None = None

    def check(self, offset: int, size: int, what: str) -> None:
        """Raise `CheckpointError` when `size` bytes at `offset` do not lie within the file."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise CheckpointError(
                f"{self.path}: {what}: expected {size} bytes at {offset}, but the file ends at {self.size}: "
                "it is truncated or damaged"
            )

    def bytes(self, offset: int, size: int, what: str) -> memoryview:
        """A read-only view of part of the file."""
        self.check(offset, size, what)
        if size == 0:
            return memoryview(b"")
        try:
            if self._map is None:
                with open(self.path, "rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            # A page beyond the end of a file that shrank kills the process when touched: look again each time.
            present = min(len(self._map), self._map.size())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: cannot be mapped ({error})") from None
        if present < self.size:
            raise CheckpointError(f"{self.path}: was cut short since it was opened; open it again")
        return memoryview(self._map)[offset : offset + size]

    def array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
        """An array over part of the file: mapped, or copied when it is unaligned or in the other byte order."""
        return as_array(self.bytes(offset, byte_count(shape, dtype), what), shape, dtype)

    def lazy(self, offset: int, shape: tuple[int, ...], dtype: np.dtype, what: str) -> LazyTensor:
        """The same, read later; its place in the file is checked now."""
        self.check(offset, byte_count(shape, dtype), what)
        return LazyTensor(shape, dtype.newbyteorder("="), lambda: self.array(offset, shape, dtype, what))


def as_array(data: memoryview, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Bytes as an array of the machine's own byte order, without a copy where that is possible."""
    if dtype == np.bool_:  # any byte but 0 counts as true; NumPy itself trusts that there are only 0 and 1
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    array = np.frombuffer(data, dtype).reshape(shape) if len(data) else np.zeros(shape, dtype)
    return array if array.flags.aligned and dtype.isnative else array.astype(dtype.newbyteorder("="))


def check_shape(path: Path, name: str, shape: Sequence[object]) -> tuple[int, ...]:
    """A shape as a tuple of sane sizes: integers, not negative, and a product that fits an address."""
    if len(shape) > _MAX_RANK:
        raise CheckpointError(
            f"{path}: tensor {quoted(name)}: {len(shape)} dimensions, at most {_MAX_RANK} can be read"
        )
    sizes = tuple(size for size in shape if isinstance(size, int) and not isinstance(size, bool) and size >= 0)
    # Zero sizes are left out: NumPy computes with the rest of the shape even when the array is empty.
    if len(sizes) != len(shape) or math.prod(size for size in sizes if size) >= 2**56:
        raise CheckpointError(f"{path}: tensor {quoted(name)}: impossible shape {quoted(list(shape))}")
    return sizes


def byte_count(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The bytes of an array of this shape."""
    return math.prod(shape) * dtype.itemsize


def quoted(value: object) -> str:
    """A name or value from a file, for one line of an error: escaped and cut."""
    if isinstance(value, str):
        value = value[:200]
        text = f"'{value}'" if value.isprintable() else ascii(value)
    else:
        try:
            text = ascii(value)
        except RecursionError:
            text = f"a {type(value).__name__}"
    return text if len(text) <= 120 else f"{text[:116]}...{text[-1]}"
