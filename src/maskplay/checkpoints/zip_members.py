"""Where the members of a zip file lie, so that stored ones can be mapped instead of read.

PyTorch, npz and Keras files are all zips. The standard library's reader cannot say where a member's bytes begin and
holds an object for each of the millions of members a hostile file may list. Format: PKWARE APPNOTE.TXT 4.3.
"""

import os
import struct
import zlib
from dataclasses import dataclass

from maskplay.checkpoints.tensors import MappedFile, quoted
from maskplay.errors import CheckpointError

_END = struct.Struct("<4s4HIIH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_MAX_MEMBERS = 100_000
_STORED, _DEFLATED = 0, 8
# Weights do not compress (by a tenth at best): what unfolds more than this is a bomb.
_MAX_GAIN = 16
_SMALL = 16 * 2**20


@dataclass(frozen=True)
class Member:
    """One file in a zip, as its directory describes it."""

    name: str
    method: int
    checksum: int
    stored: int  # bytes in the zip
    size: int  # bytes when unpacked
    header: int  # where its local header is


class ZipMembers:
    """A zip file's members by name, and their bytes.

    Raises:
        CheckpointError: the file is no zip, truncated, damaged, encrypted, or a bomb.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = MappedFile(path)
        self.members = _directory(self.file)
        self.unpacked = sum(member.size for member in self.members.values() if member.method != _STORED)
        if self.unpacked > _MAX_GAIN * self.file.size + _SMALL:
            raise CheckpointError(
                f"{self.file.path}: {self.file.size} bytes would unpack to {self.unpacked}: refused as a zip bomb"
            )

    def offset(self, name: str) -> int:
        """Where a stored member's bytes begin; they are checked to lie within the file."""
        member = self.members[name]
        what = f"member {quoted(name)}"
        local = _LOCAL.unpack(self.file.bytes(member.header, _LOCAL.size, what))
        if local[0] != b"PK\3\4":
            raise CheckpointError(f"{self.file.path}: {what}: damaged: no header where the directory says")
        start = member.header + _LOCAL.size + local[-2] + local[-1]
        self.file.check(start, member.stored, what)
        return start

    def is_stored(self, name: str) -> bool:
        """Whether a member's bytes lie in the file as they are."""
        return self.members[name].method == _STORED

    def verify(self, name: str) -> None:
        """Compare a stored member's checksum."""
        member = self.members[name]
        if zlib.crc32(self.file.bytes(self.offset(name), member.size, name)) != member.checksum:
            raise CheckpointError(f"{self.file.path}: member {quoted(name)} does not match its checksum: damaged")

    def peek(self, name: str, limit: int) -> bytes:
        """A member's first bytes, unpacked but unverified."""
        member = self.members[name]
        data = self.file.bytes(self.offset(name), member.stored, f"member {quoted(name)}")
        if member.method == _STORED:
            return bytes(data[:limit])
        try:
            return zlib.decompressobj(-15).decompress(data, limit)
        except zlib.error as error:
            raise CheckpointError(f"{self.file.path}: member {quoted(name)}: damaged: {error}") from None

    def read(self, name: str) -> bytes:
        """All of a member, unpacked and compared with its checksum."""
        member = self.members[name]
        content = self.peek(name, member.size + 1)  # one more would be one too many
        if len(content) != member.size or zlib.crc32(content) != member.checksum:
            raise CheckpointError(f"{self.file.path}: member {quoted(name)} is not what the directory says: damaged")
        return content


def zip_names(path: str | os.PathLike[str]) -> list[str]:
    """The names in a zip file."""
    return list(_directory(MappedFile(path)))


def _directory(file: MappedFile) -> dict[str, Member]:
    count, size, offset = _end(file)
    if count > _MAX_MEMBERS:
        raise CheckpointError(f"{file.path}: {count} members, more than any checkpoint has")
    directory = bytes(file.bytes(offset, size, "the zip directory"))
    members: dict[str, Member] = {}
    at = 0
    for _ in range(count):
        if at + _ENTRY.size > size or directory[at : at + 4] != b"PK\1\2":
            raise CheckpointError(f"{file.path}: the zip directory is damaged")
        (_, _, _, flags, method, _, _, checksum, stored, unpacked, name_size, extra_size, comment_size, *_, header) = (
            _ENTRY.unpack_from(directory, at)
        )
        at += _ENTRY.size
        raw = directory[at : at + name_size]
        extra = directory[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + comment_size
        if at > size:
            raise CheckpointError(f"{file.path}: the zip directory is damaged")
        name = raw.decode("utf-8" if flags & 0x800 else "cp437", "replace")
        unpacked, stored, header = _wide(extra, [unpacked, stored, header])
        what = f"{file.path}: member {quoted(name)}"
        if name in members:
            raise CheckpointError(f"{what} occurs twice: damaged")
        if flags & 1:
            raise CheckpointError(f"{what} is encrypted; unpack it and give the folder")
        if method not in (_STORED, _DEFLATED):
            raise CheckpointError(f"{what} is compressed by method {method}; only stored and deflated can be read")
        if method == _STORED and stored != unpacked:
            raise CheckpointError(f"{what} has two sizes, {stored} and {unpacked}: damaged")
        members[name] = Member(name, method, checksum, stored, unpacked, header)
    return members


def _end(file: MappedFile) -> tuple[int, int, int]:
    """The directory's number of entries, size and offset, out of the record at the end of the file."""
    window = min(file.size, _END.size + 0xFFFF)
    tail = bytes(file.bytes(file.size - window, window, "the end"))
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise CheckpointError(f"{file.path}: not a zip file, or truncated: its directory is missing at the end")
    _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
    place = file.size - window + at - _END64_LOCATOR.size
    if place >= 0:
        locator = _END64_LOCATOR.unpack(file.bytes(place, _END64_LOCATOR.size, "the zip directory"))
        if locator[0] == b"PK\6\7":
            wide = _END64.unpack(file.bytes(locator[2], _END64.size, "the zip directory"))
            if wide[0] != b"PK\6\6":
                raise CheckpointError(f"{file.path}: the zip directory is damaged")
            count, size, offset = wide[-3:]
    return count, size, offset


def _wide(extra: bytes, values: list[int]) -> list[int]:
    """Replace the values that do not fit 32 bits by those of the zip64 field, in which only these are given."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        content = extra[at + 4 : at + 4 + size]
        at += 4 + size
        if kind == 1:
            wide = (int.from_bytes(content[i : i + 8], "little") for i in range(0, len(content) - 7, 8))
            return [next(wide, value) if value == 0xFFFFFFFF else value for value in values]
    return values
