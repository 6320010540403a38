"""How freely words stand: the entropy of the symbols to the left and to the right of their occurrences.

A piece of a word has few neighbours (斯洛 goes on with 伐 or 文), a word has many. The end of a run, a line end or a
punctuation mark, is a neighbour of its own each time: a word that ends sentences is free, not bound.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from maskplay.words.parallel import thread_map
from maskplay.words.symbols import Ids
from maskplay.words.trie import Trie

CHUNK = 2**18  # ids looked at together
SPAN = 2**23  # ids whose neighbours are counted together
BYTES = 16  # which a span takes for each of its ids
HELD = 2**22  # distinct neighbours of a side that are held before they are merged
MERGED_BYTES = 48  # which each of them takes at most
RANGES = 16  # of words, merged one after another


def measure(
    ids: Ids,
    trie: Trie,
    workers: int,
    memory: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Occurrences, left and right entropy in nats of each word of a trie.

    With c occurrences of w and c(x) of them beside x, the entropy is ln c - (1/c) sum c(x) ln c(x), where ends of runs
    add nothing to the sum. Every occurrence counts, also inside a longer word.
    """
    size = SPAN if memory is None else max(2**18, min(SPAN, memory // BYTES // workers))
    spans = [(start, min(start + size, ids.length)) for start in range(0, ids.length, size)]
    occurrences = np.zeros(trie.size, np.int64)
    held = HELD if memory is None else min(HELD, memory // MERGED_BYTES)
    sides = [_Neighbours(trie.size, held) for _ in range(2)]
    for step, (some, *beside) in enumerate(thread_map(lambda span: _count_span(ids, trie, *span), spans, workers)):
        np.add(occurrences, some, out=occurrences)
        for side, (keys, counts) in zip(sides, beside):
            side.add(keys, counts)
        if progress is not None:
            progress(step + 1, len(spans))
    left, right = (side.entropies(occurrences) for side in sides)
    return occurrences, left, right


def _count_span(ids: Ids, trie: Trie, start: int, stop: int):
    occurrences = np.zeros(trie.size, np.int64)
    sides: tuple[list[NDArray], list[NDArray]] = ([], [])
    kind = np.uint32 if trie.size < 2**16 else np.uint64
    for first in range(start, stop, CHUNK):
        length = min(CHUNK, stop - first)
        last = first + length + trie.longest + 1
        block = ids.read(first - 1, last) if first else np.concatenate([np.zeros(1, np.uint16), ids.read(0, last)])
        for n, at, word in trie.occurrences(block[1:], length):
            np.add(occurrences, np.bincount(word, minlength=trie.size), out=occurrences)
            word = word.astype(kind)
            word <<= kind(16)
            for side, beside in zip(sides, (block.take(at), block[n + 1 :].take(at))):
                inside = np.flatnonzero(beside)
                side.append(word.take(inside) | beside.take(inside))
    return occurrences, *(_counted(side) for side in sides)


def _counted(parts: list[NDArray]) -> tuple[NDArray, NDArray[np.uint32]]:
    keys = np.concatenate(parts) if parts else np.zeros(0, np.uint32)
    parts.clear()
    keys.sort()
    starts = _starts(keys)
    return keys[starts], np.diff(starts, append=len(keys)).astype(np.uint32)


def _starts(keys: NDArray) -> NDArray[np.int64]:
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return np.flatnonzero(new)


class _Neighbours:
    """Counts of (word, neighbour), apart for ranges of words, merged when there are many."""

    def __init__(self, words: int, held: int) -> None:
        self._bounds = np.arange(1, RANGES) * words // RANGES << 16
        self._parts: list[list[tuple[NDArray, NDArray]]] = [[] for _ in range(RANGES)]
        self._held, self._limit = 0, held

    def add(self, keys: NDArray, counts: NDArray) -> None:
        cuts = [0, *np.searchsorted(keys, self._bounds.astype(keys.dtype)).tolist(), len(keys)]
        for parts, first, last in zip(self._parts, cuts, cuts[1:]):
            if first < last:
                parts.append((keys[first:last], counts[first:last]))
        self._held += len(keys)
        if self._held > self._limit:
            self._parts = [[_merged(parts)] if parts else [] for parts in self._parts]
            self._held = sum(len(keys) for parts in self._parts for keys, _ in parts)
            self._limit = max(self._limit, 2 * self._held)

    def entropies(self, occurrences: NDArray[np.int64]) -> NDArray[np.float64]:
        sums = np.zeros(len(occurrences))
        for parts in filter(None, self._parts):
            keys, counts = _merged(parts)
            word = (keys >> keys.dtype.type(16)).astype(np.int64)
            sums += np.bincount(word, counts * np.log(counts), minlength=len(sums))
        return np.maximum(0.0, np.log(occurrences) - sums / occurrences)


def _merged(parts: list[tuple[NDArray, NDArray]]) -> tuple[NDArray, NDArray[np.int64]]:
    """Sorted counts out of several; the parts are emptied."""
    keys = np.concatenate([keys for keys, _ in parts])
    counts = np.concatenate([counts for _, counts in parts])
    parts.clear()
    order = np.argsort(keys, kind="stable")  # made for parts that are sorted already
    keys = keys.take(order)
    starts = _starts(keys)
    return keys.take(starts), np.add.reduceat(counts.take(order), starts, dtype=np.int64)
