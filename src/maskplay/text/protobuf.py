"""Just enough of protocol buffers to read a SentencePiece model file, check it, and write it changed.

Only checked parts, written anew, reach the C++ library.

Source: https://protobuf.dev/programming-guides/encoding, and sentencepiece_model.proto for the numbers of fields.
"""

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Piece(NamedTuple):
    """One entry of the vocabulary; `type` is NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED or BYTE."""

    piece: str
    score: float
    type: int


class Message(NamedTuple):
    """One field of a message: its number, its wire type, its value (an integer or bytes)."""

    number: int
    wire: int
    value: int | bytes


def read_message(content: bytes) -> Iterator[Message]:
    """The fields of a message in order; `ValueError` when it is cut off or malformed."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(content, at)
            yield Message(number, wire, value)
            continue
        if wire == BYTES:
            size, at = _varint(content, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if not number or at + size > len(content):
            raise ValueError(f"the file ends inside a field at byte {at}")
        yield Message(number, wire, content[at : at + size])
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
    raise ValueError(f"a number without end at byte {at}")


def write_field(number: int, value: int | bytes | float) -> bytes:
    """One field: an integer as varint, a float as 32 bits, bytes as they are."""
    if isinstance(value, bytes):
        return _written(number << 3 | BYTES) + _written(len(value)) + value
    if isinstance(value, float):
        return _written(number << 3 | FIXED32) + struct.pack("<f", value)
    return _written(number << 3 | VARINT) + _written(value)


def _written(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def read_piece(content: bytes) -> Piece:
    """One vocabulary entry; `ValueError` when it is no text, has no finite score or an unknown type."""
    piece, score, kind = "", 0.0, NORMAL
    for number, wire, value in read_message(content):
        if number == 1 and isinstance(value, bytes) and wire == BYTES:
            piece = value.decode("utf-8")
        elif number == 2 and isinstance(value, bytes) and wire == FIXED32:
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    if not math.isfinite(score) or not NORMAL <= kind <= BYTE:
        raise ValueError(f"piece {piece[:40]!r} has score {score} and type {kind}")
    return Piece(piece, score, kind)


def write_piece(piece: Piece) -> bytes:
    """The entry as a field of the model."""
    content = write_field(1, piece.piece.encode()) + write_field(2, float(piece.score)) + write_field(3, piece.type)
    return write_field(1, content)
