"""CRC-32C against published values and against the definition, bit by bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskplay.checkpoints import crc32c as ours
from maskplay.checkpoints.crc32c import crc32c, masked_crc32c

LONG = 8 * ours._DEGREE  # from this length on, messages are folded


def by_definition(data: bytes) -> int:
    """Long division, one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, B.4
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


def test_masked_value_is_leveldbs() -> None:
    crc = crc32c(b"foo")
    assert masked_crc32c(b"foo") == ((crc >> 15 | crc << 17) % 2**32 + 0xA282EAD8) % 2**32
    assert masked_crc32c(b"foo") != crc


@given(st.binary(max_size=300))
def test_short_messages(data: bytes) -> None:
    assert crc32c(data) == by_definition(data)


@pytest.mark.parametrize("length", [LONG - 1, LONG, *range(LONG + 1, LONG + 10), LONG + ours._CHUNK + 3])
def test_long_messages(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == by_definition(data)
    assert crc32c(memoryview(data)) == crc32c(np.frombuffer(data, np.uint8)) == crc32c(data)


@pytest.mark.parametrize("place", [0, 3, 8, LONG, 900_000, 999_999])
def test_every_bit_of_a_long_message_counts(place: int) -> None:
    data = bytearray(1_000_000)
    before = crc32c(data)
    data[place] ^= 0x10
    assert crc32c(data) != before


def test_the_sparse_polynomial_is_a_multiple() -> None:
    polynomial = 1 << 32 | int(f"{ours._REFLECTED:032b}"[::-1], 2)
    value = 1 | sum(1 << exponent for exponent in ours._EXPONENTS)
    while value.bit_length() > 32:
        value ^= polynomial << value.bit_length() - 33
    assert value == 0
