"""A corpus read into ids: counted while it is read, numbered when all is known."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskplay import corpus
from maskplay.words import original
from maskplay.words.budget import HELD_BYTES, RUN_BYTES, Budget
from maskplay.words.parallel import thread_map
from maskplay.words.symbols import Alphabet, Ids, Kept, Spool, Tally

BLOCK = 2**20  # characters encoded at a time
PARTS = 16  # into which the files are dealt for each worker
LONG = 8  # such a part of the memory for what was read may the lines take that are not put down yet

Progress = Callable[[str, int, int], object]


class Reader:
    """Reads a corpus.

    Args:
        sources: as for `maskplay.corpus.lines`, which also knows `field`.
        kept: which characters are counted.
        folder: for what does not fit in memory.
        budget: how much that is.
        frequent_first: symbols get their ids by falling frequency; default in the order of their text.
    """

    def __init__(
        self,
        sources: corpus.Sources,
        kept: Kept,
        field: str,
        folder: Path,
        budget: Budget,
        frequent_first: bool = False,
    ) -> None:
        self.sources, self.kept, self.field = sources, kept, field
        self.budget, self.frequent_first = budget, frequent_first
        self.spool = Spool(folder / "codes", budget.part(4))
        self.threads = 1  # that put something down
        self.turn = threading.Lock()  # of who puts something down
        self.leaving = threading.Event()  # nobody wants to know the rest: of another part something is wrong, or Ctrl-C

    @property
    def counted(self) -> Spool:
        """What n-grams are counted of; mostly the same as what is cut, which is the first spool."""
        return self.spool

    def read(self, workers: int, tell: Progress) -> tuple[Alphabet, Ids]:
        """The symbols of the corpus and its ids."""
        parts: list = [self.sources]
        if corpus.are_places(self.sources):
            parts = [*corpus.parts(self.sources, PARTS * workers)]
        tally = self.first()
        if any(isinstance(part, list) and not all(piece.path.is_file() for piece in part) for part in parts):
            workers = 1  # here: a thread that waits for standard input would not hear of Ctrl-C
        workers = min(workers, len(parts))
        self.threads = workers
        for step, found in enumerate(thread_map(self.encode, parts, workers, self.leaving)):
            tally += found
            tell("reading", step + 1, len(parts))
        alphabet = Alphabet(self.kept, tally, self.frequent_first)
        return alphabet, numbered(self.spool, alphabet)

    def first(self) -> Tally:
        """What stands before the first text."""
        return Tally()

    def encode(self, part: corpus.Sources) -> Tally:
        """Put the codes of a part down; how often each occurs."""
        spools = list(dict.fromkeys((self.spool, self.counted)))
        most = None if self.spool.limit is None else self.spool.limit // (LONG * self.threads)
        tally, held, size, mine = Tally(), [], 0, False
        try:
            for text in self.texts(part):
                if self.leaving.is_set():
                    break
                codes, found = self.coded(text)
                tally += found
                held.append(codes)
                size += codes[0].nbytes
                whole = self.threads == 1 or text.endswith("\n")  # else a line goes on, and no other's may come between
                if not (whole or mine or most is not None and size > most):
                    continue
                if not mine:
                    self.turn.acquire()
                    mine = True  # until the line ends: what is too long to be held keeps the others waiting
                for spool, arrays in zip(spools, zip(*held)):
                    spool.add(np.concatenate(arrays) if len(arrays) > 1 else arrays[0])
                held, size = [], 0
                if whole:
                    mine = False
                    self.turn.release()
        finally:
            if mine:
                self.turn.release()
        return tally

    def texts(self, part: corpus.Sources) -> Iterator[str]:
        """A part as blocks, none of which ends inside a symbol."""
        return self.kept.whole(sliced(corpus.blocks(part, self.field, BLOCK)))

    def coded(self, text: str) -> tuple[tuple[NDArray, ...], Tally]:
        """The codes of a block, for each spool, and how often each occurs."""
        codes, found = self.kept.encode(text)
        self.budget.check(len(self.kept.runs or ()), RUN_BYTES, "different runs of letters and digits")
        self.budget.check(self.kept.held, HELD_BYTES, "characters in different runs of letters and digits")
        return (codes,), found


class OriginalReader(Reader):
    """Reads it as the original program does: once to be cut, once with marks at line starts and ends to be counted."""

    def __init__(self, sources: corpus.Sources, field: str, folder: Path, budget: Budget) -> None:
        super().__init__(sources, Kept(original.RANGES), field, folder, budget)
        self.windows = Spool(folder / "windows", budget.part(4))

    @property
    def counted(self) -> Spool:
        return self.windows

    def first(self) -> Tally:
        before = np.full(original.ORDER - 1, ord(original.START), np.uint16)
        self.windows.add(before)
        return Tally(np.bincount(before, minlength=65536))

    def texts(self, part: corpus.Sources) -> Iterator[str]:
        return sliced(original.cleaned(corpus.lines(part, self.field)))

    def coded(self, text: str) -> tuple[tuple[NDArray, ...], Tally]:
        codes, padded, found = original.encode(self.kept, text)
        return (codes, padded), found


def sliced(blocks: Iterable[str]) -> Iterator[str]:
    """Texts of any length, as a record or a line may have, as ones of a few blocks at most."""
    for block in blocks:
        for start in range(0, len(block), 4 * BLOCK):
            yield block[start : start + 4 * BLOCK] if len(block) > 4 * BLOCK else block


def numbered(spool: Spool, alphabet: Alphabet) -> Ids:
    """The ids of what lies in a spool, which is emptied."""
    # One after another: it is less work than handing them from thread to thread.
    return Ids(map(alphabet.ids, spool.take()), spool.length, spool.limit, spool.path.with_suffix(".ids"))
