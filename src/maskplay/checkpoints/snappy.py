"""Decompress one Snappy block, the compression older TensorFlow versions used for a checkpoint's index.

Format: https://github.com/google/snappy/blob/main/format_description.txt. A block is its decompressed length and then
a row of elements, each either literal bytes or a copy of bytes already written, which may overlap the place it writes.
"""

_MAX_GAIN = 32  # the densest element, a copy of 64 bytes, takes three: no honest block grows more than 22 times


def decompress(data: bytes, limit: int) -> bytes:
    """The bytes of one block.

    Args:
        data: the whole block, beginning with its decompressed length.
        limit: the most bytes it may become.

    Raises:
        ValueError: the block is damaged, or becomes larger than `limit`.

    Example:
        >>> decompress(bytes([10, 1 << 2, *b"ab", (8 - 4) << 2 | 1, 2]), limit=100)  # "ab", then 8 bytes from 2 back
        b'ababababab'
    """
    length, at = _length(data)
    if length > min(limit, _MAX_GAIN * len(data)):
        raise ValueError(f"a Snappy block of {len(data)} bytes claims to hold {length}")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        kind = tag & 3
        if kind == 0:
            size = (tag >> 2) + 1
            if size > 60:
                width = size - 60
                size = int.from_bytes(data[at : at + width], "little") + 1
                at += width
            if at + size > len(data):
                raise ValueError("a Snappy literal runs past the end of its block")
            out += data[at : at + size]
            at += size
        else:
            width = (1, 2, 4)[kind - 1]
            if at + width > len(data):
                raise ValueError("a Snappy copy runs past the end of its block")
            distance = int.from_bytes(data[at : at + width], "little")
            at += width
            size = (tag >> 2) + 1
            if kind == 1:
                size = (tag >> 2 & 7) + 4
                distance |= tag >> 5 << 8
            if not 0 < distance <= len(out):
                raise ValueError("a Snappy copy reaches before the beginning of its block")
            start = len(out) - distance
            source = out[start : start + size]
            out += (source * (size // len(source) + 1))[:size]
        if len(out) > length:
            raise ValueError("a Snappy block is longer than it claims")
    if len(out) != length:
        raise ValueError("a Snappy block is shorter than it claims")
    return bytes(out)


def _length(data: bytes) -> tuple[int, int]:
    length = 0
    for at, byte in enumerate(data[:5]):
        length |= (byte & 127) << 7 * at
        if byte < 128:
            return length, at + 1
    raise ValueError("a Snappy block begins with no length")
