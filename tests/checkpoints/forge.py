"""Checkpoints made by hand, so that they can be wrong in exactly one place, and damage dealt at random."""

import random
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from maskplay.checkpoints.crc32c import masked_crc32c
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.sorted_table import read_varint
from maskplay.errors import CheckpointError


def text(value: str) -> bytes:
    """A pickled string."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    """A pickled integer of any size and sign."""
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def name(dotted: str) -> bytes:
    """A pickled global."""
    module, _, last = dotted.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def tensor(
    key: str = "0",
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    offset: int = 0,
    size: int = 6,
    kind: str = "Float",
    view: bytes = b"",
) -> bytes:
    """A pickled tensor, as torch.save writes it; `view` is pickled too, and only in files that are no zip."""
    identity = text("storage") + name(f"torch.{kind}Storage") + text(key) + text("cpu") + integer(size) + view
    storage = b"(" + identity + b"tQ"
    sizes, steps = (b"(" + b"".join(map(integer, values)) + b"t" for values in (shape, strides))
    hooks = name("collections.OrderedDict") + b")R"
    return (
        name("torch._utils._rebuild_tensor_v2")
        + b"("
        + storage
        + integer(offset)
        + sizes
        + steps
        + b"\x89"
        + hooks
        + b"tR"
    )


def table(**values: bytes) -> bytes:
    """A pickled dict of pickled values."""
    items = b"".join(text(key) + value for key, value in values.items())
    return b"\x80\x02" + name("collections.OrderedDict") + b")R(" + items + b"u."


def torch_zip(
    path: Path | IO[bytes],
    pickle: bytes,
    storages: dict[str, bytes] | None = None,
    method: int = zipfile.ZIP_STORED,
    **more: bytes,
):
    """A file as torch.save lays it out, returned as it was given; `more` are further members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("model/data.pkl", pickle)
        for key, data in (storages or {}).items():
            archive.writestr(f"model/data/{key}", data)
        for key, data in more.items():
            archive.writestr(f"model/{key}", data)
    return path


def blocks(index: bytes) -> Iterator[tuple[int, int]]:
    """Offset and size of the data block, meta block and index block of a table with one data block."""
    yield 0, _data_block(index)
    at = len(index) - 48
    for _ in range(2):
        offset, at = read_varint(index, at)
        size, at = read_varint(index, at)
        yield offset, size


def _data_block(index: bytes) -> int:
    at = len(index) - 48
    offset, at = read_varint(index, at)  # the meta block follows the data block and its trailer
    return offset - 5


def sealed(index: bytes, places: list[tuple[int, int]]) -> bytes:
    """An index whose blocks carry the checksums of what is in them now."""
    out = bytearray(index)
    for offset, size in places:
        if offset + size + 5 <= len(out):
            checksum = masked_crc32c(bytes(out[offset : offset + size + 1]))
            out[offset + size + 1 : offset + size + 5] = checksum.to_bytes(4, "little")
    return bytes(out)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes with flips, cuts, splices, repeats or numbers that promise too much."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(out)) if out else 0
        match rng.randrange(7):
            case 0 | 1 if out:
                out[at] ^= 1 << rng.randrange(8)
            case 2 if out:
                out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 3:
                out[at : at + rng.choice((1, 2, 4, 8))] = rng.choice((b"\xff" * 8, b"\x00" * 4, b"\xff" * 4, b""))
            case 4:
                start = rng.randrange(len(data))
                out[at:at] = data[start : start + rng.randrange(1, 40)]
            case 5:
                del out[at : at + rng.randrange(1, 40)]
            case 6 if rng.random() < 0.3:
                del out[at:]
    return bytes(out)


def outcome(path: Path) -> str:
    """What becomes of a file that may be damaged: "read", or the one line of its error. Anything else propagates."""
    try:
        tensors = open_tensors(path)
        for key in tensors:
            array = tensors[key]
            assert array.shape == tensors.shape(key) and array.dtype == tensors.dtype(key)
            array.copy()
        return "read"
    except CheckpointError as error:
        message = str(error)
        assert path.name.partition(".")[0] in message and "\n" not in message and len(message) < 1500
        return message
