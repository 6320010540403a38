"""Counting on many machines: two kinds of pure functions, shipped as tasks, and the steps that call them.

A shard of the text is counted into a sorted partial, and a range of the keys is merged out of all partials: the same
`count_stretch` and `merge_range` by which one machine counts what does not fit its memory. In between, partials lie in
a folder that all workers see. What a task writes depends on nothing but the task, so one that was lost is done again,
and the result does not depend on shards, ranges or workers.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskplay import corpus
from maskplay.words import freedom, grams, tokens
from maskplay.words.budget import GRAM_BYTES, Budget
from maskplay.words.grams import BYTES, MERGED_BYTES, Grams, Rule, joined
from maskplay.words.machine import Reading
from maskplay.words.partials import Partials
from maskplay.words.reader import Progress
from maskplay.words.symbols import RUNS, Alphabet, Ids, Tally
from maskplay.words.tokens import Tokens, no_tokens
from maskplay.words.trie import Trie

SHARD = 2**27  # bytes of text in a shard, where no memory is given
LEAST = 2**20  # of small corpora, which are cut for the workers' sake
ROOM = 2**31  # bytes in which a range is merged, where no memory is given
SIDES = ("left", "right")

Run = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[tuple[int, Any]]]  # calls; in any order, with the place


class Shard(NamedTuple):
    """A part of the text whose codes lie in the folder."""

    number: int
    kinds: dict[str, tuple[str, int]]  # of each spool: dtype and length
    runs: list[str]  # its symbols of several characters, in the order of their codes


class Range(NamedTuple):
    """Neighbouring keys: where they begin and end in the partial of each shard, which has so many keys in all."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    sizes: NDArray[np.int64]


# What a worker does. The first arguments are the same for all, the last one is the item.


def read_shard(reading: Reading, partials: Partials, item: tuple[int, list[corpus.Part]]) -> tuple[Shard, Tally]:
    """Put a shard's codes down."""
    number, parts = item
    partials.check()
    reader = reading(parts, Path(), Budget(None))
    reader.first()  # stands before each shard, but is counted once
    tally = reader.encode(parts)
    kinds: dict[str, tuple[str, int]] = {}
    for spool in dict.fromkeys((reader.spool, reader.counted)):
        codes = np.concatenate([np.zeros(0, np.uint16), *spool.take()])
        partials.write(f"{spool.path.name}-{number}", codes)
        kinds[spool.path.name] = (codes.dtype.str, len(codes))
    return Shard(number, kinds, list(reader.kept.runs or ())), tally


def count_grams(
    alphabet: Alphabet, partials: Partials, rule: Rule, edges: NDArray[np.uint64], spool: str, shard: Shard
) -> NDArray[np.int64]:
    """Put a shard's n-grams down; where the ranges begin in them, and the end."""
    ids = _ids(alphabet, partials, spool, shard)
    keys, counts = grams.count_stretch(ids, 0, ids.length, rule.bits, rule.order)
    partials.write(f"grams-{shard.number}", keys, counts)
    return _cuts(keys, edges)


def merge_grams(partials: Partials, rule: Rule, some: Range) -> list[grams.Partial]:
    """What is kept of a range of n-grams."""
    parts = [(np.zeros(0, np.uint64), np.zeros(0, np.uint32)), *_pieces(partials, "grams", some, np.uint64)]
    keys, counts = (np.concatenate(arrays) for arrays in zip(*parts))
    return grams.merge_range(keys, counts, rule)


def count_tokens(alphabet: Alphabet, partials: Partials, trie: Trie, order: int, spool: str, shard: Shard) -> Tokens:
    """The tokens of a shard."""
    ids = _ids(alphabet, partials, spool, shard)
    return tokens.count_stretch(ids, trie, order, len(alphabet), 0, ids.length)


def count_neighbours(
    alphabet: Alphabet, partials: Partials, trie: Trie, edges: NDArray[np.int64], spool: str, shard: Shard
) -> list[NDArray[np.int64]]:
    """Put down what stands beside words in a shard; for each side, where the ranges begin in it, and the end."""
    ids = _ids(alphabet, partials, spool, shard)
    cuts = []
    for side, (keys, counts) in zip(SIDES, freedom.count_stretch(ids, trie, 0, ids.length)):
        partials.write(f"{side}-{shard.number}", keys, counts)
        cuts.append(_cuts(keys, edges.astype(keys.dtype)))
    return cuts


def merge_neighbours(
    partials: Partials, kind: type, item: tuple[str, Range]
) -> tuple[int, NDArray[np.int64], NDArray[np.float64]]:
    """A range of words with what was found beside them, as `freedom.merge_range` gives it."""
    return freedom.merge_range(list(_pieces(partials, *item, kind)))


def _ids(alphabet: Alphabet, partials: Partials, spool: str, shard: Shard) -> Ids:
    kind, length = shard.kinds[spool]
    if shard.runs:
        alphabet = alphabet.knowing(shard.runs)
    return Ids(iter([alphabet.ids(partials.read(f"{spool}-{shard.number}", kind, length))]), length)


def _cuts(keys: NDArray, edges: NDArray) -> NDArray[np.int64]:
    return np.concatenate([[0], np.searchsorted(keys, edges), [len(keys)]])


def _pieces(partials: Partials, name: str, some: Range, kind: Any) -> Iterator[tuple[NDArray, NDArray]]:
    """What each shard's partial has of a range."""
    wide = np.dtype(kind).itemsize
    for number, (first, last, size) in enumerate(zip(*(column.tolist() for column in some))):
        if first < last:
            read = partial(partials.read, f"{name}-{number}", count=last - first)
            yield read(kind=kind, start=wide * first), read(kind=np.uint32, start=wide * size + 4 * first)


class Shards:
    """The steps of `maskplay.words.machine.Machine`, each a pass over the shards.

    Args:
        reading: opens a corpus; it is sent to the workers.
        sources: files that all workers see.
        run: calls a function for each item, somewhere.
        workers: how many calls are made at once.
        partials: what all workers see.
        budget: of each worker.
        tell: is told how far each step is.
    """

    def __init__(
        self,
        reading: Reading,
        sources: corpus.Sources,
        run: Run,
        workers: int,
        partials: Partials,
        budget: Budget,
        tell: Progress,
    ) -> None:
        self.reading, self.run, self.workers, self.partials, self.tell = reading, run, workers, partials, tell
        self.budget, self.room = budget, budget.left or ROOM
        share = SHARD if budget.left is None else max(LEAST, budget.left // (BYTES + 4))
        size = corpus.size(sources)
        count = max(-(-size // share), min(4 * workers, -(-size // LEAST)), 1)
        self.parts = [[_absolute(part) for part in group] for group in corpus.parts(sources, count)]

    def read(self) -> Alphabet:
        """The symbols of the corpus; comes first."""
        reader = self.reading([], Path(), Budget(None))
        self.spool, self.counted = reader.spool.path.name, reader.counted.path.name
        tally, shards, runs = reader.first(), {}, reader.kept.runs
        reading = partial(read_shard, self.reading, self.partials)
        for done, (place, (shard, found)) in enumerate(self.run(reading, list(enumerate(self.parts)))):
            shards[place] = shard
            if runs is not None:  # each shard has its own codes for them
                codes = {RUNS + i: RUNS + runs.setdefault(run, len(runs)) for i, run in enumerate(shard.runs)}
                found.high = type(found.high)({codes.get(code, code): count for code, count in found.high.items()})
            tally += found
            self.tell("reading", done + 1, len(self.parts))
        self.shards = [shards[place] for place in sorted(shards)]
        self.alphabet = Alphabet(reader.kept, tally, reader.frequent_first)
        return self.alphabet

    def grams(self, rule: Rule) -> dict[int, Grams]:
        """Its n-grams by their n."""
        edges = _gram_edges(self.alphabet.counts, rule, self._fine(self.alphabet.total * MERGED_BYTES))
        counting = partial(count_grams, self.alphabet, self.partials, rule, edges, self.counted)
        cuts = np.array(self._all("counting", counting, self.shards, 0.5))
        ranges = self._ranges(cuts, self.room // MERGED_BYTES)
        merging = partial(merge_grams, self.partials, rule)
        parts = self._all("counting", merging, ranges, 0.5, 0.5)
        held = sum(len(keys) for part in parts for keys, _ in part)
        self.budget.check(held, GRAM_BYTES, f"n-grams occur {rule.least} times or more")
        self.partials.remove(*(f"grams-{shard.number}" for shard in self.shards))
        return joined(parts, rule)

    def tokens(self, trie: Trie, order: int) -> Tokens:
        """What comes out when it is cut where none of the trie's n-grams lies across."""
        found = no_tokens(trie, len(self.alphabet))
        cutting = partial(count_tokens, self.alphabet, self.partials, trie, order, self.spool)
        for done, (_, some) in enumerate(self.run(cutting, self.shards)):
            found.add(some)
            found.check(self.budget)
            self.tell("cutting", done + 1, len(self.shards))
        return found

    def measure(self, trie: Trie) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Occurrences, left and right freedom of the trie's words."""
        fine = self._fine(self.alphabet.total * freedom.HELD_BYTES)
        edges = np.unique(np.arange(1, fine) * trie.size // fine) << 16
        counting = partial(count_neighbours, self.alphabet, self.partials, trie, edges, self.spool)
        cuts = self._all("measuring", counting, self.shards, 0.5)
        items = [
            (side, some)
            for place, side in enumerate(SIDES)
            for some in self._ranges(np.array([both[place] for both in cuts]), self.room // freedom.HELD_BYTES)
        ]
        merging = partial(merge_neighbours, self.partials, freedom.key_kind(trie))
        counts = {side: np.zeros(trie.size, np.int64) for side in SIDES}
        sums = {side: np.zeros(trie.size) for side in SIDES}
        for (side, _), (low, every, inside) in zip(items, self._all("measuring", merging, items, 0.5, 0.5)):
            counts[side][low : low + len(every)] = every
            sums[side][low : low + len(every)] = inside
        left, right = (freedom.entropy(counts[side], sums[side]) for side in SIDES)
        return counts["left"], left, right

    def _all(self, step: str, function: Callable, items: Sequence, share: float, before: float = 0.0) -> list:
        """All results in order; they are so much of a step, of which so much has been done before."""
        results: list[Any] = [None] * len(items)
        if not items and before:
            self.tell(step, 1, 1)
        for done, (place, result) in enumerate(self.run(function, items)):
            results[place] = result
            self.tell(step, round(1000 * (before + share * (done + 1) / len(items))), 1000)
        return results

    def _fine(self, needed: int) -> int:
        """Into how many ranges keys are cut at first, twice as many as might be needed."""
        return 2 * max(2 * self.workers, -(-needed // self.room))

    def _ranges(self, cuts: NDArray[np.int64], most: int) -> list[Range]:
        """Neighbouring ranges put together, up to so many keys in one, as long as all workers have some."""
        sums = cuts.sum(axis=0)  # keys before each range
        most = max(1, min(most, -(-int(sums[-1]) // (2 * self.workers))))
        ends = [0]
        for place in range(1, len(sums)):
            if place == len(sums) - 1 or sums[place + 1] - sums[ends[-1]] > most:
                ends.append(place)
        return [
            Range(cuts[:, first], cuts[:, last], cuts[:, -1])
            for first, last in pairwise(ends)
            if sums[first] < sums[last]
        ]


def _absolute(part: corpus.Part) -> corpus.Part:
    return corpus.Part(part.path.absolute(), part.start, part.stop)


def _gram_edges(counts: NDArray[np.int64], rule: Rule, count: int) -> NDArray[np.uint64]:
    """Cuts between n-grams that differ in the first two ids, into about like ranges if neighbours were independent."""
    sums = np.cumsum(counts).astype(np.float64)
    if not sums[-1]:
        return np.zeros(0, np.uint64)
    wanted = sums[-1] * np.arange(1, count) / count
    first = np.searchsorted(sums, wanted)
    first = np.minimum(first, (1 << rule.bits) - 1)  # greater ids are in no n-gram
    second = np.searchsorted(sums, (wanted - sums[first - 1]) / counts[first] * sums[-1])
    pairs = np.unique(first << rule.bits | np.minimum(second, min(len(counts), 1 << rule.bits) - 1)).astype(np.uint64)
    return pairs << np.uint64(rule.bits * (rule.order - 2))
