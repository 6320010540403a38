"""Just enough of protocol buffers for the files that others keep in them: fields by number, none known by name.

SentencePiece's models, the index of a TensorFlow checkpoint and TensorBoard's events are such.

Source: https://protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field of a message: its number, its wire type, its value (an integer or bytes)."""

    number: int
    wire: int
    value: int | bytes


def read_message(content: bytes) -> Iterator[Field]:
    """The fields of a message in order; `ValueError` when it is cut off or malformed."""
    at = 0
    while at < len(content):
        tag, at = read_varint(content, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = read_varint(content, at)
            yield Field(number, wire, value)
            continue
        if wire == BYTES:
            size, at = read_varint(content, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if not number or at + size > len(content):
            raise ValueError(f"the file ends inside a field at byte {at}")
        yield Field(number, wire, content[at : at + size])
        at += size


def write_field(number: int, value: int | bytes | float) -> bytes:
    """One field: an integer as varint, a float as 32 bits, bytes as they are."""
    if isinstance(value, bytes):
        return varint(number << 3 | BYTES) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | FIXED32) + struct.pack("<f", value)
    return varint(number << 3 | VARINT) + varint(value)


def varint(value: int) -> bytes:
    """A non-negative integer in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer of at most 64 bits, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                break
            return value, at
    raise ValueError("a number has more than 64 bits")
