"""The Snappy decoder, against streams made by hand and by a small compressor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskplay.checkpoints.snappy import decompress
from maskplay.checkpoints.sorted_table import varint


def literal(data: bytes) -> bytes:
    size = len(data) - 1
    if size < 60:
        return bytes([size << 2]) + data
    width = (size.bit_length() + 7) // 8
    return bytes([59 + width << 2]) + size.to_bytes(width, "little") + data


def copy(distance: int, size: int) -> bytes:
    if 4 <= size <= 11 and distance < 2048:
        return bytes([distance >> 8 << 5 | size - 4 << 2 | 1, distance & 255])
    if distance < 65536:
        return bytes([size - 1 << 2 | 2]) + distance.to_bytes(2, "little")
    return bytes([size - 1 << 2 | 3]) + distance.to_bytes(4, "little")


def compress(data: bytes) -> bytes:
    """Greedy: at each place the longest earlier match of 4 to 64 bytes (it may overlap), else a literal byte."""
    out = bytearray(varint(len(data)))
    at = 0
    pending = b""
    while at < len(data):
        distance, size = 0, 0
        for length in range(min(64, len(data) - at), 3, -1):
            found = data.rfind(data[at : at + length], 0, at + length - 1)
            if found >= 0:
                distance, size = at - found, length
                break
        if size:
            out += (literal(pending) if pending else b"") + copy(distance, size)
            pending = b""
        else:
            pending += data[at : at + 1]
            size = 1
        at += size
    return bytes(out) + (literal(pending) if pending else b"")


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"\0", b""),
        (varint(5) + literal(b"abcde"), b"abcde"),
        (varint(300) + literal(bytes(300)), bytes(300)),
        (varint(70_000) + literal(bytes(70_000)), bytes(70_000)),
        (varint(10) + literal(b"ab") + copy(2, 8), b"ababababab"),  # a copy of one byte
        (varint(65) + literal(b"x") + copy(1, 64), b"x" * 65),  # a copy of two bytes that overlaps itself
        (varint(8) + literal(b"abcd") + bytes([3 << 2 | 3, 4, 0, 0, 0]), b"abcdabcd"),  # a copy of four bytes
        (varint(2052) + literal(bytes(2000) + b"tail" * 12) + copy(2047, 4), bytes(2000) + b"tail" * 12 + bytes(4)),
    ],
)
def test_streams(stream: bytes, expected: bytes) -> None:
    assert decompress(stream, 10**6) == expected


@given(st.lists(st.sampled_from([b"bert/", b"encoder/", b"layer_", b"kernel", b"\0", b"aaaa"]), max_size=40))
def test_round_trip(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert decompress(compress(data), 10**6) == data


@given(st.binary(max_size=60))
def test_any_bytes_end_in_bytes_or_an_error(data: bytes) -> None:
    try:
        assert len(decompress(data, 1000)) <= 1000
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"", "no length"),
        (b"\xff" * 9, "no length"),
        (varint(5) + literal(b"abcdef"), "longer"),
        (varint(7) + literal(b"abcdef"), "shorter"),
        (varint(6) + literal(b"abcdef")[:-1], "literal runs past"),
        (varint(9) + bytes([62 << 2, 255]), "literal runs past"),
        (varint(9) + literal(b"abcd") + b"\x02\x01", "copy runs past"),
        (varint(9) + literal(b"abcd") + copy(5, 5), "before the beginning"),
        (varint(9) + literal(b"abcd") + copy(0, 5), "before the beginning"),
        (varint(2**31) + literal(b"a"), "claims to hold"),
        (varint(1001) + literal(bytes(1001)), "claims to hold"),  # over the caller's limit
    ],
)
def test_damaged_streams(stream: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decompress(stream, 1000)
