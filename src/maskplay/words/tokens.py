"""Cutting text where no cohesive n-gram lies across, and counting what comes out.

A cut stands between two symbols exactly when no occurrence of a cohesive n-gram has both inside. Overlapping n-grams
chain, so a token can be longer than any of them; ones that only touch do not join.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskplay.words.budget import TOKEN_BYTES, Budget
from maskplay.words.parallel import thread_map
from maskplay.words.symbols import Ids
from maskplay.words.trie import Trie

CHUNK = 2**18  # ids cut at a time


@dataclass(frozen=True, slots=True)
class Tokens:
    """How often each token stands in a text, as far as it can be a word.

    Attributes:
        single: counts of single symbols, by id.
        members: counts of tokens that are themselves cohesive n-grams, by their number in the trie.
        longer: counts of longer tokens all of whose n-grams of the greatest order are cohesive; keys are ids as bytes.
    """

    single: NDArray[np.int64]
    members: NDArray[np.int64]
    longer: Counter[bytes]

    def add(self, other: "Tokens") -> None:
        """Take in what was counted elsewhere."""
        np.add(self.single, other.single, out=self.single)
        np.add(self.members, other.members, out=self.members)
        self.longer.update(other.longer)

    def check(self, budget: Budget) -> None:
        """Raise `UserError` where the longer ones take more than there is."""
        count = len(self.longer)
        each = TOKEN_BYTES + sum(map(len, self.longer)) // max(1, count)
        budget.check(count, each, "different tokens are longer than any n-gram")

    def frequent(self, least: int) -> int:
        """How many occur so often."""
        longer = sum(count >= least for count in self.longer.values())
        return longer + sum(int(np.count_nonzero(some >= least)) for some in (self.single, self.members))


def no_tokens(trie: Trie, symbols: int) -> Tokens:
    """What is counted before anything is, for so many ids."""
    return Tokens(np.zeros(symbols + 1, np.int64), np.zeros(trie.size, np.int64), Counter())


def count_tokens(
    ids: Ids,
    trie: Trie,
    order: int,
    symbols: int,
    workers: int,
    progress: Callable[[int, int], object] | None = None,
    held: Callable[[Tokens], object] | None = None,
) -> Tokens:
    """Cut a corpus into tokens and count them.

    Args:
        ids: of the corpus.
        trie: the cohesive n-grams.
        order: the greatest n of an n-gram that could be cohesive.
        symbols: how many ids there are, 0 not among them.
        workers: threads.
        progress: is told how much of how much is done.
        held: is shown what was counted so far, which it may find too much.
    """
    all_ = no_tokens(trie, symbols)
    spans = ids.spans(max(4 * workers, ids.length // 2**24))
    results = thread_map(lambda span: count_stretch(ids, trie, order, symbols, *span), spans, workers)
    for step, some in enumerate(results):
        all_.add(some)
        if held is not None:
            held(all_)
        if progress is not None:
            progress(step + 1, len(spans))
    return all_


def count_stretch(ids: Ids, trie: Trie, order: int, symbols: int, start: int, stop: int) -> Tokens:
    """The tokens of a stretch of ids that begins and ends where no run is."""
    found = no_tokens(trie, symbols)
    numbers: list[NDArray[np.int32]] = []  # of the members met, until it is worth while to count them
    size = max(CHUNK, 2 * order)  # a token that fills a block is longer than any n-gram
    while start < stop:
        length = min(size, stop - start)
        block = ids.read(start, start + length + max(order, trie.longest))
        cut, members, whole = _cut(block, length, trie, order)
        end = length
        if start + length < stop:  # a token that may go on belongs to the next block
            end = length - int(np.argmax(cut[length:0:-1]))
            if not cut[end]:  # one token fills the block
                start = _count_long(ids, trie, order, size, start, stop, found.longer)
                continue
        numbers += _count(block, cut, members, whole, end, order, found)
        start += end
        if sum(map(len, numbers)) > 2 * trie.size:
            _count_members(numbers, found)
    _count_members(numbers, found)
    found.single[0] = 0  # no symbol
    return found


def _count_members(numbers: list[NDArray[np.int32]], found: Tokens) -> None:
    """Count members by their numbers, which are forgotten."""
    counts = np.bincount(np.concatenate([np.zeros(0, np.int32), *numbers]), minlength=len(found.members))
    np.add(found.members, counts, out=found.members)
    numbers.clear()


def _count_long(ids: Ids, trie: Trie, order: int, size: int, start: int, stop: int, longer: Counter[bytes]) -> int:
    """Count the token that begins at `start` if it can be a word, looking at a block at a time; where it ends."""
    at, inside, every = start, 1, True  # inside: places from `at` on before which no cut stands, as the last block told
    while True:
        length = min(size, stop - at)
        cut, _, whole = _cut(ids.read(at, at + length + max(order, trie.longest)), length, trie, order)
        cut[:inside] = False
        end = int(np.argmax(cut[: length + 1])) or length
        every = every and bool(whole[1 : end - order + 2].all())
        if cut[end]:
            break
        at, inside = at + length - order + 1, order
    if every:
        longer[ids.read(start, at + end).tobytes()] += 1
    return at + end


def _cut(block: NDArray[np.uint16], length: int, trie: Trie, order: int):
    """For each place whether a cut stands before it; the n-grams found; where those of the greatest order begin."""
    cut = np.ones(length + trie.longest + 1, bool)
    whole = np.zeros(length + 1, np.int32)
    members = []
    for n, at, number in trie.occurrences(block, length):
        for inside in range(1, n):
            cut[at + inside] = False
        members.append((n, at, number))
        if n == order:
            whole[at + 1] = 1
    return cut, members, whole


def _count(
    block: NDArray[np.uint16], cut, members, whole, end: int, order: int, found: Tokens
) -> list[NDArray[np.int32]]:
    """Count single symbols and longer tokens before `end`; the numbers of the tokens that are members."""
    single = block[:end].compress(cut[:end] & cut[1 : end + 1])
    np.add(found.single, np.bincount(single, minlength=len(found.single)), out=found.single)
    numbers = []
    for n, at, number in members:
        last = np.searchsorted(at, end)
        at, number = at[:last], number[:last]
        numbers.append(number.compress(cut.take(at) & cut.take(at + n)))
    cuts = np.flatnonzero(cut[: end + 1])
    lengths = np.diff(cuts)
    long = np.flatnonzero(lengths > order)
    if len(long):
        starts, stops = cuts.take(long), cuts.take(long + 1)
        sums = np.cumsum(whole, dtype=np.int32)  # sums[i]: how many n-grams of the greatest order begin before i
        every = sums.take(stops - order + 1) - sums.take(starts) == stops - starts - order + 1
        text = block.tobytes()
        pairs = zip((2 * starts[every]).tolist(), (2 * stops[every]).tolist())
        found.longer.update([text[first:last] for first, last in pairs])
    return numbers
