"""CRC-32C (Castagnoli), the checksum TensorFlow stores beside every block and tensor, in plain NumPy.

A CRC is the remainder of the message, read as a polynomial over GF(2), divided by P. Since x^6777 + x^484 + x^100 + 1
is a multiple of P, and stays one when x is replaced by x^64 (squaring a sum over GF(2) squares its terms), the leading
64-bit words of a message may be dropped after they have been XORed into the words 6293, 6677 and 6777 places further
on. That is all the work on long messages: three XORs a word. A table finishes the last few kilobytes.
"""

import numpy as np

_REFLECTED = 0x82F63B78  # P without its leading term, lowest bit first
_EXPONENTS = (6777, 484, 100)  # of the sparse multiple of P, beside the constant
_DEGREE = _EXPONENTS[0]
_PLACES = tuple(_DEGREE - e for e in _EXPONENTS[1:]) + (_DEGREE,)
_STRIDE = _PLACES[0]  # so many words at a time touch only words behind them
_CHUNK = 2**18  # bytes folded at a time: they stay in the processor's cache


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_REFLECTED if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes | memoryview | np.ndarray) -> int:
    """The CRC-32C of a contiguous buffer.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    message = np.frombuffer(data, np.uint8)
    crc = 0xFFFFFFFF
    if len(message) > 8 * _DEGREE:
        message = _remainder(message)
        crc = 0
    for byte in message.tobytes():
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes | memoryview | np.ndarray) -> int:
    """The CRC as TensorFlow and LevelDB store it: rotated and shifted, since a CRC of data with its CRC in it is weak.

    Example:
        >>> hex(masked_crc32c(b""))
        '0xa282ead8'
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _remainder(message: np.ndarray) -> np.ndarray:
    """A short message with the same remainder as a long one; the starting value 0xffffffff is already in it."""
    head = len(message) % 8
    rest = np.concatenate([np.zeros(-head % 8, np.uint8), message[: head + 8 * _DEGREE]])  # leading zeros weigh nothing
    rest[-head % 8 :][:4] ^= 0xFF
    for start in range(head + 8 * _DEGREE, len(message), _CHUNK):
        words = np.concatenate([rest, message[start : start + _CHUNK]]).view(np.uint64)
        rest = _fold(words).view(np.uint8)
    return _fold(rest.copy())


def _fold(words: np.ndarray) -> np.ndarray:
    """The last `_DEGREE` words, after all words before them are XORed into their places. Works in place."""
    surplus = len(words) - _DEGREE
    for start in range(0, surplus, _STRIDE):
        front = words[start : min(start + _STRIDE, surplus)]
        for place in _PLACES:
            behind = words[start + place :][: len(front)]
            np.bitwise_xor(behind, front, out=behind)
    return words[surplus:]
