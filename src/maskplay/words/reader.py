"""A corpus read into ids: counted while it is read, numbered when all is known."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from maskplay import corpus
from maskplay.words import original
from maskplay.words.budget import RUN_BYTES, Budget
from maskplay.words.parallel import thread_map
from maskplay.words.symbols import Alphabet, Ids, Kept, Spool, Tally

BLOCK = 2**20  # characters encoded at a time
PARTS = 16  # into which the files are dealt for each worker

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
        self.alone = True  # no other thread puts anything down
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
        self.alone = workers == 1
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
        tally, held = Tally(), []
        for text in self.kept.whole(corpus.blocks(part, self.field, BLOCK)):
            if self.leaving.is_set():
                break
            codes, found = self.kept.encode(text)
            self.budget.check(len(self.kept.runs or ()), RUN_BYTES, "different runs of letters and digits")
            tally += found
            held.append(codes)
            if self.alone or text.endswith("\n"):  # else a line goes on, and no other's may come between
                self.spool.add(np.concatenate(held) if len(held) > 1 else codes)
                held = []
        return tally


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

    def encode(self, part: corpus.Sources) -> Tally:
        tally = Tally()
        for text in original.cleaned(corpus.lines(part, self.field)):
            if self.leaving.is_set():
                break
            codes, padded, found = original.encode(self.kept, text)
            self.spool.add(codes)
            self.windows.add(padded)
            tally += found
        return tally


def numbered(spool: Spool, alphabet: Alphabet) -> Ids:
    """The ids of what lies in a spool, which is emptied."""
    # One after another: it is less work than handing them from thread to thread.
    return Ids(map(alphabet.ids, spool.take()), spool.length, spool.limit, spool.path.with_suffix(".ids"))
