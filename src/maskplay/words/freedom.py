"""How freely words stand: the entropy of the symbols to the left and to the right of their occurrences.

A piece of a word has few neighbours (斯洛 goes on with 伐 or 文), a word has many. The end of a run, a line end or a
punctuation mark, is a neighbour of its own each time: a word that ends sentences is free, not bound.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskplay.words.parallel import thread_map
from maskplay.words.symbols import Ids
from maskplay.words.trie import Trie

CHUNK = 2**18  # ids looked at together
SPAN = 2**23  # ids whose neighbours are counted together
BYTES = 16  # which a span takes for each of its ids
HELD = 2**22  # distinct neighbours of a side that are held before they are merged
HELD_BYTES = 24  # which each of them takes
RANGES = 64  # of words, each merged by itself

Counts = tuple[NDArray, NDArray]  # keys (word, neighbour) and how often each was met


def measure(
    ids: Ids,
    trie: Trie,
    workers: int,
    memory: int | None = None,
    folder: Path = Path(),
    progress: Callable[[int, int], object] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Occurrences, left and right entropy in nats of each word of a trie.

    With c occurrences of w and c(x) of them beside x, the entropy is ln c - (1/c) sum c(x) ln c(x), where ends of runs
    add nothing to the sum. Every occurrence counts, also inside a longer word.
    """
    # Of each worker two spans may wait, and one is in work.
    size = SPAN if memory is None else max(2**18, min(SPAN, memory // BYTES // (3 * workers)))
    size = -(-ids.length // (workers * max(1, -(-ids.length // (size * workers)))))  # as many for each worker
    spans = [(start, min(start + size, ids.length)) for start in range(0, ids.length, max(1, size))]
    held = None if memory is None else memory // HELD_BYTES // 2
    sides = [_Neighbours(trie.size, held, folder / name) for name in ("left", "right")]
    for step, beside in enumerate(thread_map(lambda span: count_stretch(ids, trie, *span), spans, workers)):
        for side, (keys, counts) in zip(sides, beside):
            side.add(keys, counts)
        if progress is not None:
            progress(step + 1, len(spans))
    (occurrences, left), (_, right) = (side.measured(workers) for side in sides)
    return occurrences, entropy(occurrences, left), entropy(occurrences, right)


def count_stretch(ids: Ids, trie: Trie, start: int, stop: int) -> list[Counts]:
    """Left and right neighbours of the words that begin in a stretch of ids, each counted and sorted by word."""
    sides: tuple[list[NDArray], list[NDArray]] = ([], [])
    kind = key_kind(trie)
    for first in range(start, stop, CHUNK):
        length = min(CHUNK, stop - first)
        last = first + length + trie.longest + 1
        block = ids.read(first - 1, last) if first else np.concatenate([np.zeros(1, np.uint16), ids.read(0, last)])
        for n, at, word in trie.occurrences(block[1:], length):
            word = word.astype(kind)
            word <<= kind(16)
            for side, beside in zip(sides, (block.take(at), block[n + 1 :].take(at))):
                side.append(word | beside)
    return [_counted(side, kind) for side in sides]


def key_kind(trie: Trie) -> type[np.unsignedinteger]:
    """What holds a word's number and a neighbour's id."""
    return np.uint32 if trie.size < 2**16 else np.uint64


def merge_range(parts: list[Counts]) -> tuple[int, NDArray[np.int64], NDArray[np.float64]]:
    """Partial counts of the neighbours of a range of words made into the first of these words, and for it and those
    that follow the occurrences and the sum of c ln c over the neighbours. The parts, at least one, are emptied."""
    keys, counts = _merged(parts)
    word = (keys >> keys.dtype.type(16)).astype(np.int64)
    # The words of a range stand beside each other: what is added up is as long as the range.
    low, beside = int(word[0]), (keys & keys.dtype.type(0xFFFF)) != 0
    every = np.bincount(word - low, counts)
    inside = np.bincount((word - low)[beside], (counts * np.log(counts))[beside], minlength=len(every))
    return low, every.astype(np.int64), inside.astype(np.float64)


def entropy(occurrences: NDArray[np.int64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of neighbours, in nats, out of what `merge_range` adds up."""
    return np.maximum(0.0, np.log(occurrences) - sums / occurrences)


def _counted(parts: list[NDArray], kind: type) -> Counts:
    keys = np.concatenate([np.zeros(0, kind), *parts])
    parts.clear()
    keys.sort()
    starts, length = _starts(keys), len(keys)
    keys = keys[starts]
    return keys, np.diff(starts, append=length).astype(np.uint32)


def _starts(keys: NDArray) -> NDArray[np.int64]:
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return np.flatnonzero(new)


class _Neighbours:
    """Counts of (word, neighbour), apart for ranges of words; many of them are merged, or go to disk."""

    def __init__(self, words: int, held: int | None, path: Path) -> None:
        self._words, self._limit, self._path = words, held, path
        self._bounds = np.arange(1, RANGES) * words // RANGES << 16
        self._parts: list[list[Counts]] = [[] for _ in range(RANGES)]
        self._held, self._merge_at = 0, HELD
        self._kind: np.dtype = np.dtype(np.uint32)

    def add(self, keys: NDArray, counts: NDArray) -> None:
        self._kind = keys.dtype
        cuts = [0, *np.searchsorted(keys, self._bounds.astype(keys.dtype)).tolist(), len(keys)]
        for parts, first, last in zip(self._parts, cuts, cuts[1:]):
            if first < last:
                parts.append((keys[first:last], counts[first:last]))
        self._held += len(keys)
        if self._limit is not None and self._held > self._limit:
            for i, parts in enumerate(self._parts):
                if not parts:
                    continue
                for place, kind in enumerate(("keys", "counts")):
                    with open(self._file(i, kind), "ab") as file:
                        for part in parts:
                            file.write(part[place].tobytes())
                parts.clear()
            self._held = 0
        elif self._limit is None and self._held > self._merge_at:
            self._parts = [[_merged(parts)] if parts else [] for parts in self._parts]
            self._held = sum(len(keys) for parts in self._parts for keys, _ in parts)
            self._merge_at = max(HELD, 2 * self._held)

    def _file(self, i: int, kind: str) -> Path:
        return self._path.with_name(f"{self._path.name}-{kind}-{i}")

    def measured(self, workers: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Occurrences of each word, and its sum over the neighbours."""
        occurrences, sums = np.zeros(self._words, np.int64), np.zeros(self._words)
        for low, every, inside in filter(None, thread_map(self._merged_range, range(RANGES), workers)):
            occurrences[low : low + len(every)] = every
            sums[low : low + len(every)] = inside
        return occurrences, sums

    def _merged_range(self, i: int) -> tuple[int, NDArray[np.int64], NDArray[np.float64]] | None:
        parts = self._parts[i]
        if self._file(i, "keys").exists():
            files = [(self._file(i, kind), dtype) for kind, dtype in (("keys", self._kind), ("counts", np.uint32))]
            parts.append((np.fromfile(*files[0]), np.fromfile(*files[1])))
            for path, _ in files:
                path.unlink()
        return merge_range(parts) if parts else None


def _merged(parts: list[Counts]) -> Counts:
    """Sorted counts out of several; the parts are emptied."""
    keys = np.concatenate([keys for keys, _ in parts])
    counts = np.concatenate([counts for _, counts in parts])
    parts.clear()
    order = np.argsort(keys, kind="stable")  # made for parts that are sorted already
    keys = keys.take(order)
    starts = _starts(keys)
    return keys.take(starts), np.add.reduceat(counts.take(order), starts, dtype=np.int64)
