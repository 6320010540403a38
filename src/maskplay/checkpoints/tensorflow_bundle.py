"""TensorFlow checkpoints, read and written without TensorFlow: `PREFIX.index` and `PREFIX.data-00000-of-00001`.

The index is a sorted table of protocol buffers, one for each variable: dtype, shape, and where its little-endian bytes
lie in the data files. Field numbers: tensorflow/core/protobuf/tensor_bundle.proto. Variables are mapped, not read, so
the optimizer's slots of a training checkpoint cost nothing.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from maskplay.checkpoints.crc32c import masked_crc32c
from maskplay.checkpoints.sorted_table import MAX_FILE, is_table, read_table, write_table
from maskplay.checkpoints.tensors import (
    LazyTensor,
    MappedFile,
    Tensors,
    byte_count,
    check_shape,
    quoted,
)
from maskplay.errors import CheckpointError
from maskplay.protobuf import BYTES, read_message, write_field
from maskplay.storage import new_file, write_atomically

# tensorflow/core/framework/types.proto
_DTYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    14: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_STRING = 7

_OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # TF2 puts it behind the name of every variable
# The last part of a name that belongs to an optimizer or a training loop rather than to the model.
_SLOT_ENDINGS = ("adam_m", "adam_v", "lamb_m", "lamb_v", "slot_m", "slot_v", "slot_vr", "slot_vc")
_SLOT = re.compile(
    r"(Adam|AdamW|LAMB|Adafactor|Momentum|RMSProp|Adagrad|global_step|beta[12]_power|save_counter)(_\d+)?"
)


def open_bundle(prefix: str | os.PathLike[str], verify: bool = True) -> Tensors:
    """The variables of the checkpoint `PREFIX.index`, `PREFIX.data-*`.

    Args:
        prefix: the path without `.index`.
        verify: whether a variable's checksum is compared when it is read (the index's always is).

    Raises:
        CheckpointError: a file is missing, truncated or damaged; a variable is partitioned; the bytes are big-endian.
    """
    index = Path(f"{os.fspath(prefix)}.index")
    table = _read_index(index)
    if b"" not in table:
        raise CheckpointError(f"{index}: a sorted table, but not the index of a TensorFlow checkpoint: no header")
    shards = _shards(index, table.pop(b""))
    files: dict[int, MappedFile] = {}
    entries: dict[str, LazyTensor] = {}
    skipped: dict[str, str] = {}
    for key, value in table.items():
        if key.startswith(b"\0"):
            skipped[quoted(key)] = "a part of a partitioned variable, whose own entry follows"
            continue
        try:
            stored_name = key.decode("utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(f"{index}: a variable's name is not UTF-8: {quoted(key)}") from None
        name = stored_name.removesuffix(_OBJECT_SUFFIX)
        if name in entries or name in skipped:
            raise CheckpointError(f"{index}: two variables are named {quoted(name)}")
        entry = _Entry(index, name, value)
        if _is_optimizer_state(name):
            skipped[name] = "the optimizer's state"
        elif entry.dtype == _STRING:
            skipped[name] = "a string, not numbers"
        elif entry.dtype not in _DTYPES:
            skipped[name] = f"TensorFlow's dtype {entry.dtype} is not supported"
        elif entry.sliced:
            raise CheckpointError(
                f"{index}: tensor {quoted(name)} is partitioned (stored in slices), which is not supported; "
                "load it in TensorFlow without a partitioner and save it again"
            )
        else:
            if entry.shard >= shards:
                raise CheckpointError(f"{index}: tensor {quoted(name)}: in data file {entry.shard} of {shards}")
            if entry.shard not in files:
                files[entry.shard] = MappedFile(f"{os.fspath(prefix)}.data-{entry.shard:05d}-of-{shards:05d}")
            entries[name] = entry.lazy(files[entry.shard], verify)
    return Tensors(prefix, "tensorflow", entries, skipped, stored=sum(file.size for file in files.values()))


def write(prefix: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write a checkpoint that TensorFlow opens: `tf.train.load_checkpoint(prefix)`, or `Saver.restore` by name.

    The data file comes first and the index last, each renamed into place when complete; a text file `checkpoint` beside
    them names the prefix as the folder's latest. An interrupted write over an old checkpoint leaves a mixture that
    the checksums refuse.

    Args:
        prefix: the path without `.index`, for example `out/bert_model.ckpt`.
        tensors: arrays by variable name; float16, bfloat16, float32, float64, integers or bool.

    Raises:
        CheckpointError: a name is empty or not text, or a dtype has no place in a checkpoint.

    Example:
        >>> import tempfile
        >>> prefix = Path(tempfile.mkdtemp()) / "bert_model.ckpt"
        >>> write(prefix, {"bert/pooler/dense/bias": np.zeros(4, np.float32)})
        >>> open_bundle(prefix).shape("bert/pooler/dense/bias")
        (4,)
    """
    prefix = Path(prefix)
    header = write_field(1, 1) + write_field(3, write_field(1, 1))  # one data file; little-endian; version 1
    table = [(b"", header)]
    offset = 0
    with new_file(f"{prefix}.data-00000-of-00001") as file:
        for key, name in sorted((_key(prefix, name), name) for name in tensors):
            array = np.asarray(tensors[name])
            code = _CODES.get(array.dtype.newbyteorder("<"))
            if code is None:
                raise CheckpointError(f"{prefix}: tensor {quoted(name)}: dtype {array.dtype} cannot be written")
            data = np.ascontiguousarray(array, _DTYPES[code]).reshape(-1).view(np.uint8)
            file.write(data.data)
            shape = b"".join(write_field(2, write_field(1, size)) for size in array.shape)
            entry = write_field(1, code) + write_field(2, shape) + write_field(4, offset) + write_field(5, data.size)
            table.append((key, entry + b"\x35" + masked_crc32c(data).to_bytes(4, "little")))
            offset += data.size
    write_atomically(f"{prefix}.index", write_table(table))
    quoted_name = prefix.name.replace("\\", "\\\\").replace('"', '\\"')
    latest = f'model_checkpoint_path: "{quoted_name}"\nall_model_checkpoint_paths: "{quoted_name}"\n'
    write_atomically(prefix.parent / "checkpoint", latest)


class _Entry:
    """A BundleEntryProto: what the index says of one variable."""

    def __init__(self, index: Path, name: str, data: bytes) -> None:
        self.name = name
        self.dtype = self.shard = self.offset = self.size = self.checksum = 0
        sizes: list[int] = []
        self.sliced = False
        for number, value in _fields(index, name, data):
            match number, value:
                case 1, int():
                    self.dtype = value
                case 2, bytes():
                    sizes = [_dimension(index, name, d) for n, d in _fields(index, name, value) if n == 2]
                case 3, int():
                    self.shard = value
                case 4, int():
                    self.offset = value
                case 5, int():
                    self.size = value
                case 6, int():
                    self.checksum = value
                case 7, _:
                    self.sliced = True
        self.shape = check_shape(index, name, sizes)

    def lazy(self, file: MappedFile, verify: bool) -> LazyTensor:
        dtype = _DTYPES[self.dtype]
        what = f"tensor {quoted(self.name)}"
        if byte_count(self.shape, dtype) != self.size:
            raise CheckpointError(f"{file.path}: {what}: {self.size} bytes cannot hold {dtype} of shape {self.shape}")
        stored = file.lazy(self.offset, self.shape, dtype, what)

        def read() -> np.ndarray:
            if verify and masked_crc32c(file.bytes(self.offset, self.size, what)) != self.checksum:
                raise CheckpointError(f"{file.path}: {what}: its bytes do not match their checksum: damaged")
            return stored.read()

        return LazyTensor(self.shape, stored.dtype, read)


def _is_optimizer_state(name: str) -> bool:
    last = name.rpartition("/")[2]
    return (
        last.endswith(_SLOT_ENDINGS)
        or "Optimizer" in last  # google-research/bert: AdamWeightDecayOptimizer, AdamWeightDecayOptimizer_1
        or _SLOT.fullmatch(last) is not None
        or name.startswith(("optimizer/", "training/"))
        or "/.OPTIMIZER_SLOT/" in name
    )


def _read_index(index: Path) -> dict[bytes, bytes]:
    try:
        with open(index, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise CheckpointError(f"{index}: cannot be read ({error.strerror or error})") from None
    if len(data) > MAX_FILE:
        raise CheckpointError(f"{index}: expected an index of at most {MAX_FILE // 2**20} MiB, found a larger file")
    if not is_table(data):
        raise CheckpointError(f"{index}: not the index of a TensorFlow checkpoint, or truncated: its footer is missing")
    try:
        return read_table(data)
    except ValueError as error:
        raise CheckpointError(f"{index}: damaged: {error}") from None


def _shards(index: Path, header: bytes) -> int:
    """The number of data files, out of a BundleHeaderProto."""
    fields = dict(_fields(index, "(header)", header))
    if fields.get(2, 0) != 0:
        raise CheckpointError(f"{index}: written on a big-endian machine, which is not supported")
    version = fields.get(3, b"")
    if isinstance(version, bytes) and dict(_fields(index, "(header)", version)).get(2, 0) not in (0, 1):
        raise CheckpointError(f"{index}: asks for a newer reader than format version 1")
    shards = fields.get(1, 0)
    if not isinstance(shards, int) or not 0 < shards < 100_000:
        raise CheckpointError(f"{index}: claims {quoted(shards)} data files")
    return shards


def _dimension(index: Path, name: str, data: object) -> int:
    size = dict(_fields(index, name, data)).get(1, 0) if isinstance(data, bytes) else -1
    return size if isinstance(size, int) else -1


def _fields(index: Path, name: str, data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: numbers (varint, fixed) and bytes (strings, messages)."""
    try:
        return [
            (number, int.from_bytes(value, "little") if isinstance(value, bytes) and wire != BYTES else value)
            for number, wire, value in read_message(data)
        ]
    except ValueError as error:
        raise CheckpointError(f"{index}: tensor {quoted(name)}: a damaged entry ({error})") from None


def _key(prefix: Path, name: object) -> bytes:
    try:
        if isinstance(name, str) and name and not name.startswith("\0"):
            return name.encode("utf-8")
    except UnicodeEncodeError:
        pass
    raise CheckpointError(f"{prefix}: {quoted(name)} cannot be the name of a variable")
