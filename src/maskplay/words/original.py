"""What the original program counts, for `mode="faithful"`: windows of four symbols with line starts padded.

Su Jianlin's word-discovery (2019) counts with kenlm: spaces are dropped, three marks stand before a line and one behind
it, windows rarer than the least count are forgotten before anything else, and the n-grams' counts are sums over the
windows they begin. So a pair seen 30 times in 30 surroundings counts nothing; `mode="exact"` is for that.
"""

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from maskplay.words.grams import Grams
from maskplay.words.symbols import Kept, Tally

ORDER = 4
RANGES = [(0x4E00, 0x9FA5), (ord("0"), ord("9")), (ord("a"), ord("z")), (ord("A"), ord("Z"))]
START, END = "\x01", "\x02"  # the marks, which are never kept themselves
OTHERS = re.compile("[^\u4e00-\u9fa50-9a-zA-Z \n]+")
BLOCK = 2**20


def cleaned(lines: Iterator[str]) -> Iterator[str]:
    """Blocks in which the lines of the original's count end with a line feed.

    Every run of characters that are not kept ends a line, also at the end of a text, where an empty one follows.
    """
    some, length = [], 0
    for line in lines:
        # Python, which the original leaves the reading to, takes a lone return for a line end.
        some += [OTHERS.sub("\n", text.replace("\u3000", " ").strip()) for text in line.split("\r")]
        length += len(line) + 1
        if length > BLOCK:
            yield "\n".join(some) + "\n"
            some, length = [], 0
    if some:
        yield "\n".join(some) + "\n"


def encode(kept: Kept, text: str) -> tuple[NDArray[np.uint16], NDArray[np.uint16], Tally]:
    """The codes of a cleaned block: those to cut, those to count windows of, and how often the latter occur."""
    codes, _ = kept.encode(text)
    spaces = np.frombuffer(text.encode("utf-16-le"), np.uint16) == ord(" ")
    inside = codes[~spaces]
    padded = np.repeat(inside, np.where(inside == 0, ORDER, 1))
    ends = np.flatnonzero(padded == 0)
    padded[ends] = ord(START)
    padded[ends[::ORDER]] = ord(END)
    return codes, padded, Tally(np.bincount(padded, minlength=65536))


def gram_counts(windows: Grams, start: int, end: int) -> tuple[int, dict[int, Grams]]:
    """The sum of the windows' counts, and the n-grams of 1 to 4 symbols without marks with the sums they begin."""
    sums: Counter[tuple[int, ...]] = Counter()
    for row, count in zip(windows.ids().tolist(), windows.counts.tolist()):
        inner = tuple(symbol for symbol in row if symbol not in (start, end))
        for n in range(1, len(inner) + 1):
            sums[inner[:n]] += count
    bits, grams = windows.bits, {}
    for n in range(1, ORDER + 1):
        packed = {_packed(gram, bits): count for gram, count in sums.items() if len(gram) == n}
        keys = sorted(packed)
        counts = np.array([packed[key] for key in keys], np.int64)
        grams[n] = Grams(n, bits, np.array(keys, np.uint64), counts)
    return int(windows.counts.sum()), grams


def _packed(gram: tuple[int, ...], bits: int) -> int:
    key = 0
    for symbol in gram:
        key = key << bits | symbol
    return key
