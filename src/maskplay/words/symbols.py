"""Text as arrays of small numbers: what counting by sorting works on.

Characters that are counted become ids from 1 on; everything else, line ends first of all, becomes 0, which ends a run.
Two bytes a character stand in memory or, above a limit, in a temporary file that is read a piece at a time.
"""

import re
import string
import threading
from collections import Counter
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST = 65534  # ids; with 0 and the mark of an empty place in a table they fill 16 bits
NUL = ord("\n")  # its code: 0 is for what ends a run, and a line end has no other code
RUNS = 0x110000  # codes from here on are whole runs, below it characters
PADDING = 64  # zeros behind the last id, so that what looks ahead needs no special case
LETTERS = string.ascii_letters + string.digits
ALPHANUMERIC = re.compile("[0-9A-Za-z]+")


class Kept:
    """Which characters are counted.

    Args:
        ranges: of code points, both ends included.
        runs: a run of ASCII letters and digits is one symbol.

    Example:
        >>> codes, _ = Kept([(0x4E00, 0x9FA5)]).encode("一，二\\n")
        >>> codes.tolist() == [ord("一"), 0, ord("二"), 0]
        True
    """

    def __init__(self, ranges: list[tuple[int, int]], runs: bool = False) -> None:
        self.table = np.zeros(65536, np.uint16)
        for first, last in ranges:
            if first < 65536:
                self.table[first : last + 1] = np.arange(first, min(last, 65535) + 1)
        self.table[0xD800:0xE000] = 0  # halves of characters
        if any(first == 0 for first, _ in ranges):
            self.table[0] = NUL
        self.above = [(first, last) for first, last in ranges if last > 65535]
        self._high = np.zeros(65536, bool)  # the first halves of those; of others nothing is kept
        for first, last in self.above:
            self._high[_first_half(max(first, 65536)) : _first_half(last) + 1] = True
        self.runs: dict[str, int] | None = {} if runs else None
        self.held = 0  # characters in those
        self._lock = threading.Lock()

    def encode(self, text: str) -> tuple[NDArray, "Tally"]:
        """Codes of a text, uint16 where that holds them, and how often each occurs."""
        units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)
        found = np.bincount(units, minlength=65536)
        if self.runs is None and not found[self._high].any():
            zeros, found[self.table == 0] = found[0], 0
            found[NUL] = zeros if self.table[0] else 0
            return self.table.take(units), Tally(found)
        codes = self._wide(text)
        low, high = codes[codes < 65536], codes[codes > 65535]
        above = Counter(dict(zip(*(part.tolist() for part in np.unique(high, return_counts=True)))))
        return codes if above else codes.astype(np.uint16), Tally(np.bincount(low, minlength=65536), above)

    def _wide(self, text: str) -> NDArray[np.uint32]:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        codes, low = np.zeros(len(points), np.uint32), points < 65536
        codes[low] = self.table[points[low]]
        for first, last in self.above:
            high = (points >= max(first, 65536)) & (points <= last)
            codes[high] = points[high]
        if self.runs is None:
            return codes
        gone = np.zeros(len(codes), bool)
        with self._lock:
            for run in ALPHANUMERIC.finditer(text):
                start, stop = run.span()
                if stop - start > 1:
                    if run.group() not in self.runs:
                        self.held += stop - start
                    codes[start] = RUNS + self.runs.setdefault(run.group(), len(self.runs))
                    gone[start + 1 : stop] = True
        return codes[~gone]

    def whole(self, blocks: Iterator[str]) -> Iterator[str]:
        """Blocks of which none ends inside a run that is one symbol."""
        if self.runs is None:
            yield from blocks
            return
        held: list[str] = []  # of a run that may go on
        for block in blocks:
            if rest := block.rstrip(LETTERS):
                yield "".join([*held, rest])
                held = []
            held.append(block[len(rest) :])
        if any(held):
            yield "".join(held)

    def text(self, code: int) -> str:
        """What a code stands for."""
        if code < RUNS:
            return "\0" if code == NUL else chr(code)
        if not hasattr(self, "_names"):
            self._names = list(self.runs or ())
        return self._names[code - RUNS]


def _first_half(point: int) -> int:
    """What a character above U+FFFF begins with in UTF-16."""
    return 0xD800 + (point - 0x10000 >> 10)


class Tally:
    """How often each code occurs: an array for those below 65536, whose first place stays 0, a dictionary above.

    Example:
        >>> tally = Tally()
        >>> tally += Kept([(0x4E00, 0x9FA5)]).encode("一二一")[1]
        >>> tally.low[ord("一")], tally.high
        (np.int64(2), Counter())
    """

    def __init__(self, low: NDArray | None = None, high: Counter[int] | None = None) -> None:
        self.low = np.zeros(65536, np.int64) if low is None else low
        self.low[0] = 0
        self.high: Counter[int] = Counter() if high is None else high

    def __iadd__(self, other: "Tally") -> "Tally":
        self.low += other.low
        self.high.update(other.high)
        return self


class Alphabet:
    """The symbols of a corpus in the order of their text, or the most frequent first; the id of the first is 1.

    Above `MOST` symbols the rarest have no id: they end a run.

    Attributes:
        symbols: their texts; [0] is "".
        counts: how often each occurs, int64; [0] is 0.
        total: how many symbols were counted in all.
        lost: how often the most frequent one without an id occurs.
    """

    def __init__(self, kept: Kept, tally: Tally, frequent_first: bool = False) -> None:
        present = np.flatnonzero(tally.low)
        found = [*zip(present.tolist(), tally.low[present].tolist()), *tally.high.items()]
        named = [(kept.text(code), code, count) for code, count in found]
        self.total = sum(count for _, _, count in named)
        if frequent_first or len(named) > MOST:
            named.sort(key=lambda item: (-item[2], item[0]))
        self.lost = max((count for _, _, count in named[MOST:]), default=0)
        named = named[:MOST]
        if not frequent_first:
            named.sort()
        self.symbols = ["", *(text for text, _, _ in named)]
        self.counts = np.array([0, *(count for _, _, count in named)], np.int64)
        self._table = np.zeros(max([65535, *(code for code, _ in found)]) + 1, np.uint16)
        self._table[[code for _, code, _ in named]] = np.arange(1, len(named) + 1)

    def __len__(self) -> int:
        return len(self.symbols) - 1

    def ids(self, codes: NDArray) -> NDArray[np.uint16]:
        """The ids of codes."""
        return self._table.take(codes)

    def knowing(self, runs: list[str]) -> "Alphabet":
        """The same for codes that were given to runs elsewhere, in this order."""
        ids = {text: number for number, text in enumerate(self.symbols) if len(text) > 1}
        table = np.zeros(RUNS + len(runs), np.uint16)
        table[: min(RUNS, len(self._table))] = self._table[:RUNS]
        table[RUNS:] = [ids.get(run, 0) for run in runs]
        same = copy(self)
        same._table = table
        return same

    def text(self, ids: NDArray | list[int]) -> str:
        """Ids as a string."""
        return "".join(map(self.symbols.__getitem__, ids))


class Spool:
    """Arrays put down one after another, in memory up to a limit, beyond it in a file.

    Args:
        path: where the file may lie.
        limit: bytes to hold in memory; None = all.
    """

    def __init__(self, path: Path, limit: int | None) -> None:
        self.path, self.limit = path, limit
        self._parts: list[NDArray] = []
        self._shapes: list[tuple[np.dtype, int]] = []  # of what lies in the file
        self.bytes = 0
        self.length = 0

    def add(self, array: NDArray) -> None:
        """Put one more array down; threads take turns (`Reader.turn`)."""
        self._parts.append(array)
        self.bytes += array.nbytes
        self.length += len(array)
        if self.limit is not None and self.bytes > self.limit:
            with open(self.path, "ab", buffering=0) as file:
                for part in self._parts:
                    _write(file, part)
                    self._shapes.append((part.dtype, len(part)))
            self._parts = []

    def take(self) -> Iterator[NDArray]:
        """All arrays, each given away."""
        if self._shapes:
            with open(self.path, "rb") as file:
                for dtype, length in self._shapes:
                    yield np.fromfile(file, dtype, length)
            self.path.unlink()
        self._parts.reverse()
        while self._parts:
            yield self._parts.pop()


class Ids:
    """All ids of a corpus, a piece at a time.

    Args:
        pieces: the ids in order, uint16.
        length: how many there are.
        limit: bytes to hold in memory; None = all.
        path: the file for more than that.
    """

    def __init__(
        self, pieces: Iterator[NDArray[np.uint16]], length: int, limit: int | None = None, path: Path = Path()
    ) -> None:
        self.length = length
        self.path = None if limit is None or 2 * length <= limit else path
        if self.path is None:
            self._array = np.zeros(length + PADDING, np.uint16)  # untouched zeros take no memory yet
            start = 0
            for piece in pieces:
                self._array[start : start + len(piece)] = piece
                start += len(piece)
        else:
            with open(path, "wb", buffering=0) as file:
                for piece in pieces:
                    _write(file, piece)
                _write(file, np.zeros(PADDING, np.uint16))

    def read(self, start: int, stop: int) -> NDArray[np.uint16]:
        """The ids from `start` to `stop`, which may lie behind the last: there all are 0."""
        if self.path is None:
            piece = self._array[start:stop]
        else:
            piece = np.fromfile(self.path, np.uint16, stop - start, offset=2 * start)
        missing = stop - start - len(piece)
        return np.concatenate([piece, np.zeros(missing, np.uint16)]) if missing else piece

    def spans(self, count: int, near: int = 2**20) -> list[tuple[int, int]]:
        """About `count` stretches of like length, cut where no run is: what can be worked on apart."""
        cuts = [0]
        for i in range(1, count):
            place = self.length * i // count
            ends = np.flatnonzero(self.read(place, min(place + near, self.length)) == 0)
            if len(ends) and cuts[-1] < place + ends[0]:
                cuts.append(place + int(ends[0]))
        return list(zip(cuts, [*cuts[1:], self.length]))


def _write(file: BinaryIO, array: NDArray) -> None:
    """Write all of an array: a file without a buffer may take less at once."""
    view = memoryview(array.tobytes())
    while view:
        view = view[file.write(view) :]
