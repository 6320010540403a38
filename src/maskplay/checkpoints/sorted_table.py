"""LevelDB's sorted table, the file format of a TensorFlow checkpoint's `.index`: bytes keys to bytes values.

A file is data blocks, an (empty) meta block, a block of handles to the data blocks, and a footer of 48 bytes. A block
is entries that share a prefix of their key with the entry before, then restart points; then one byte for its
compression and a CRC. Format: https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

import os
from collections.abc import Iterable, Iterator

from maskplay.checkpoints.crc32c import masked_crc32c
from maskplay.checkpoints.snappy import decompress
from maskplay.protobuf import read_varint, varint

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48
_TRAILER = 5  # compression, CRC
_RESTART = 16  # entries between two restart points, as TensorFlow writes
# An index takes some 100 bytes a tensor; prefixes and Snappy could make a small file unfold without end.
MAX_FILE = 8 * 2**20
_MAX_UNFOLDED = 32 * 2**20
_MAX_ENTRIES = 100_000
_MAX_KEY = 4096
_MAX_VALUE = 2**16


def is_table(data: bytes) -> bool:
    """Whether bytes end as a sorted table does."""
    return len(data) >= _FOOTER and data.endswith(_MAGIC)


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All entries of a table in the order of their keys.

    Raises:
        ValueError: the table is damaged; the text says where.

    Example:
        >>> read_table(write_table([(b"", b"header"), (b"a/b", b"1"), (b"a/c", b"2")]))
        {b'': b'header', b'a/b': b'1', b'a/c': b'2'}
    """
    if not is_table(data):
        raise ValueError("the footer of a sorted table is missing")
    footer = data[-_FOOTER:]
    _, _, at = _handle(footer, 0)
    offset, size, _ = _handle(footer, at)
    entries: dict[bytes, bytes] = {}
    end = unfolded = 0
    last: bytes | None = None
    for _, value in _entries(_block(data, offset, size)):
        offset, size, _ = _handle(value, 0)
        if offset < end:  # also keeps one block from being read a million times
            raise ValueError(f"the data block at {offset} overlaps the one before")
        end = offset + size + _TRAILER
        block = _block(data, offset, size)
        unfolded += len(block)
        for key, value in _entries(block):
            if last is not None and key <= last:
                raise ValueError(f"key {_shown(key)} is repeated or out of order")
            last = key
            unfolded += len(key)
            if unfolded > _MAX_UNFOLDED or len(entries) == _MAX_ENTRIES:
                raise ValueError(f"it unfolds to more than {_MAX_UNFOLDED // 2**20} MiB or {_MAX_ENTRIES} entries")
            entries[key] = value
    return entries


def write_table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A table of entries whose keys are already in order, in one uncompressed data block."""
    data, last = _written(entries)
    out = bytearray()

    def add(block: bytes) -> bytes:
        handle = varint(len(out)) + varint(len(block))
        out.extend(block)
        out.append(0)
        out.extend(masked_crc32c(block + b"\0").to_bytes(4, "little"))
        return handle

    index = [(last, add(data))]
    footer = add(_written([])[0]) + add(_written(index)[0])
    return bytes(out) + footer.ljust(_FOOTER - len(_MAGIC), b"\0") + _MAGIC


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return offset, size, at


def _block(data: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise ValueError(f"a block at {offset} of {size} bytes reaches past the end")
    stored = int.from_bytes(data[end + 1 : end + _TRAILER], "little")
    if masked_crc32c(data[offset : end + 1]) != stored:
        raise ValueError(f"the block at {offset} does not match its checksum")
    compression = data[end]
    if compression > 1:
        raise ValueError(f"the block at {offset} has the unknown compression {compression}")
    block = data[offset:end]
    return decompress(block, _MAX_UNFOLDED) if compression else block


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if len(block) < 4 or end < 0:
        raise ValueError("a block has no restart points")
    at = count = 0
    key = b""
    while at < end:
        count += 1
        if count > _MAX_ENTRIES:
            raise ValueError(f"a block has more than {_MAX_ENTRIES} entries")
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        size, at = read_varint(block, at)
        if shared > len(key) or at + own + size > end or shared + own > _MAX_KEY or size > _MAX_VALUE:
            raise ValueError(f"an entry after key {_shown(key)} is too long")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + size]
        at += size


def _written(entries: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """A block, and its last key."""
    out = bytearray()
    restarts = [0]
    last = b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % _RESTART:
            shared = len(os.path.commonprefix([key, last]))
        elif number:
            restarts.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    for number in (*restarts, len(restarts)):
        out += number.to_bytes(4, "little")
    return bytes(out), last


def _shown(key: bytes) -> str:
    return ascii(key.decode("utf-8", "replace")[:80])
