"""Counting on this machine: threads over arrays in memory or, above a limit, in files.

What finding words asks of the text, in four steps; `maskplay.words.shards` takes the same steps on a cluster.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskplay import corpus
from maskplay.words import freedom
from maskplay.words.budget import GRAM_BYTES, Budget
from maskplay.words.grams import Grams, Rule, count_grams
from maskplay.words.reader import Progress, Reader, numbered
from maskplay.words.symbols import Alphabet
from maskplay.words.tokens import Tokens, count_tokens
from maskplay.words.trie import Trie

Reading = Callable[[corpus.Sources, Path, Budget], Reader]  # opens a corpus


class Machine:
    """Threads of this machine, and a folder for what does not fit in memory."""

    def __init__(
        self, reading: Reading, sources: corpus.Sources, workers: int, folder: Path, budget: Budget, tell: Progress
    ) -> None:
        self.reader = reading(sources, folder, budget)
        self.workers, self.folder, self.budget, self.tell = workers, folder, budget, tell

    def read(self) -> Alphabet:
        """The symbols of the corpus; comes first."""
        self.alphabet, self.ids = self.reader.read(self.workers, self.tell)
        return self.alphabet

    def grams(self, rule: Rule) -> dict[int, Grams]:
        """Its n-grams by their n."""
        same = self.reader.counted is self.reader.spool
        return count_grams(
            self.ids if same else numbered(self.reader.counted, self.alphabet),
            self.alphabet.counts,
            rule,
            workers=self.workers,
            memory=self.budget.part(2),
            folder=self.folder,
            progress=partial(self.tell, "counting"),
            held=lambda count: self.budget.check(count, GRAM_BYTES, f"n-grams occur {rule.least} times or more"),
        )

    def tokens(self, trie: Trie, order: int) -> Tokens:
        """What comes out when it is cut where none of the trie's n-grams lies across."""
        return count_tokens(
            self.ids,
            trie,
            order,
            len(self.alphabet),
            self.workers,
            partial(self.tell, "cutting"),
            lambda found: found.check(self.budget),
        )

    def measure(self, trie: Trie) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Occurrences, left and right freedom of the trie's words."""
        told = partial(self.tell, "measuring")
        return freedom.measure(self.ids, trie, self.workers, self.budget.part(4), self.folder, told)
