"""Counting n-grams by sorting: up to four ids stand side by side in a number of 64 bits, and equal ones meet.

The first symbol decides the bucket, so that a bucket at a time is in memory, and one sort of it gives every shorter
n-gram too: they are prefixes. Where the ids themselves lie on disk, sorted runs of (n-gram, count) go to a file for
each bucket and are merged from there. Both ways count the same, whatever the buckets. The two functions of the second
way, `count_stretch` and `merge_range`, are also what a cluster runs (see `maskplay.words.shards`).
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskplay.words.parallel import thread_map
from maskplay.words.symbols import Ids

U = np.uint64
CHUNK = 2**18  # ids looked at together: they and what is made of them stay in the cache
RUN = 2**21  # n-grams of a sorted run on disk
BUCKET = 2**22  # n-grams of a bucket in memory, of which each worker has one; at least, if all workers have some
LEAST = 2**19  # of a bucket
BUCKETS = 64  # at most: for each of them all ids are looked at
BYTES = 28  # which a bucket takes for each of its n-grams while it is counted
MERGED_BYTES = 56  # the same for a bucket that is merged from runs

Keys = NDArray[np.uint64]
Counts = NDArray[np.int64]
Partial = tuple[Keys, NDArray]  # n-grams in order, and how often each was met


@dataclass(frozen=True, slots=True)
class Rule:
    """Which n-grams are kept: those inside a run.

    Attributes:
        bits: of an id; `order` times as many must fit 64. Greater ids end a run.
        order: n of the longest.
        least: how often they occur.
        lower: keep those of 2 … `order` - 1 as well; otherwise only whole ones of `order`.
        unwanted: an id with which no n-gram shall end.
    """

    bits: int
    order: int
    least: int
    lower: bool
    unwanted: int = 0

    @property
    def orders(self) -> range:
        """Each n, falling."""
        return range(self.order, 1 if self.lower else self.order - 1, -1)


@dataclass(frozen=True, slots=True)
class Grams:
    """Distinct n-grams in order with their counts: `order` ids of `bits` bits each, the first one highest."""

    order: int
    bits: int
    keys: Keys
    counts: Counts

    def ids(self) -> NDArray[np.int64]:
        """As a table (n-gram, place)."""
        return unpacked(self.keys, self.order, self.bits)

    def count(self, keys: Keys) -> Counts:
        """Counts of some n-grams; 0 where there is none."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.counts[at], 0)


def unpacked(keys: Keys, order: int, bits: int) -> NDArray[np.int64]:
    """The ids in packed keys, a row each."""
    shifts = (np.arange(order - 1, -1, -1) * bits).astype(np.uint64)
    return ((keys[:, None] >> shifts) & U((1 << bits) - 1)).astype(np.int64)


def count_grams(
    ids: Ids,
    firsts: Counts,
    rule: Rule,
    *,
    workers: int = 1,
    memory: int | None = None,
    folder: Path | None = None,
    progress: Callable[[int, int], object] | None = None,
    held: Callable[[int], object] | None = None,
) -> dict[int, Grams]:
    """The n-grams of a corpus.

    Args:
        ids: of the corpus; 0 ends a run.
        firsts: how often each id occurs, by id; [0] is 0.
        rule: which n-grams.
        workers: threads.
        memory: bytes for all that is counted at once.
        folder: where runs may be put when `ids` lie on disk.
        progress: is told how much of how much is done.
        held: is told how many n-grams are held, which it may find too many.

    Returns:
        The n-grams by their n.
    """

    bits, order = rule.bits, rule.order
    # On disk too when one symbol is so frequent that its bucket would not fit.
    most = int(firsts.max(initial=0))  # which a bucket may have above its size
    share = None if memory is None else memory // BYTES // workers
    if share is None or ids.path is None and 2 * most <= share:
        size = max(min(BUCKET, max(LEAST, ids.length // (4 * workers))), ids.length // BUCKETS)
        buckets, sizes = _edges(firsts, size if share is None else min(size, share - most))
        jobs = list(zip(buckets, buckets[1:], sizes))
        results = thread_map(lambda job: _kept(_bucket(ids, *job, bits, order), None, rule), jobs, workers)
        done, steps = 0, len(jobs)
    else:
        assert memory is not None and folder is not None
        runs = _Runs(folder, ids, bits, order, memory, workers)
        runs.write(workers, progress)
        results = thread_map(lambda i: merge_range(*runs.taken(i), rule), range(runs.count), workers)
        done, steps = runs.written, runs.written + runs.count
    parts = []
    for step, found in enumerate(results):
        parts.append(found)
        if held is not None:
            held(sum(len(keys) for part in parts for keys, _ in part))
        if progress is not None:
            progress(done + step + 1, steps)
    return joined(parts, rule)


def count_stretch(ids: Ids, start: int, stop: int, bits: int, order: int) -> Partial:
    """The n-grams that begin in a stretch of ids, counted and sorted; behind the end of a run they hold zeros."""
    stop = min(stop, ids.length)
    keys = packed(ids, start, stop, bits, order)
    keys.sort()
    starts = _starts(keys)
    return keys[starts], np.diff(starts, append=len(keys)).astype(np.uint32)


def merge_range(keys: Keys, counts: NDArray, rule: Rule) -> list[Partial]:
    """What is kept of a range of n-grams whose partial counts are put one behind another, by falling n."""
    order = np.argsort(keys)
    return _kept(keys[order], counts[order].astype(np.int64), rule)


def joined(ranges: list[list[Partial]], rule: Rule) -> dict[int, Grams]:
    """N-grams by their n out of those of each range, in order."""
    found, bits = {}, rule.bits
    for place, n in enumerate(rule.orders):
        keys = [np.zeros(0, np.uint64), *(parts[place][0] for parts in ranges)]
        counts = [np.zeros(0, np.int64), *(parts[place][1] for parts in ranges)]
        found[n] = Grams(n, bits, np.concatenate(keys), np.concatenate(counts))
    return found


def _kept(keys: NDArray, counts: Counts | None, rule: Rule) -> list[Partial]:
    """What is kept of sorted n-grams, each counted once where no counts are given."""
    starts, length = _starts(keys), len(keys)
    keys = keys[starts].astype(np.uint64, copy=False)  # lets go of all others before more memory is asked for
    counts = np.diff(starts, append=length) if counts is None else np.add.reduceat(counts, starts)
    found = []
    for n in rule.orders:
        if n < rule.order:
            keys = keys >> U(rule.bits)
            starts = _starts(keys)
            keys, counts = keys[starts], np.add.reduceat(counts, starts)
        last = keys & U((1 << rule.bits) - 1)
        wanted = (counts >= rule.least) & (last != 0) & (last != rule.unwanted)
        found.append((keys[wanted], counts[wanted]))
    return found


def _starts(keys: NDArray) -> NDArray[np.int64]:
    """Where each distinct key of a sorted array begins."""
    new = np.empty(len(keys), bool)
    new[:1] = True
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return np.flatnonzero(new)


def _edges(firsts: Counts, size: int) -> tuple[list[int], list[int]]:
    """Buckets of first ids (low, high] with about `size` n-grams, and how many each has."""
    sums = np.cumsum(firsts)
    total = int(sums[-1])
    count = max(1, -(-total // max(1, size)))
    inner = np.searchsorted(sums, total * np.arange(1, count) / count)
    edges = np.unique(np.concatenate([[0], inner, [len(firsts) - 1]]))
    return edges.tolist(), np.diff(sums[edges]).tolist()


def _bucket(ids: Ids, low: int, high: int, size: int, bits: int, order: int) -> NDArray:
    """All n-grams whose first id lies in (low, high], sorted; behind the end of a run they hold zeros."""
    keys, filled = np.empty(size, np.uint32 if order * bits <= 32 else np.uint64), 0  # half the bytes, half the time
    for start in range(0, ids.length, CHUNK):
        piece = _fitting(ids.read(start, min(start + CHUNK, ids.length) + order - 1), bits)
        first = piece[: len(piece) - order + 1]
        # Unsigned numbers wrap: one comparison for both ends.
        at = np.flatnonzero(np.subtract(first, np.uint16(low + 1)) < np.uint16(high - low))
        _pack(piece, at, bits, order, keys[filled : filled + len(at)])
        filled += len(at)
    keys = keys[:filled]
    keys.sort()
    return keys


def _fitting(piece: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """Ids, where those that do not fit end a run: of symbols too rare for any n-gram that is kept."""
    return np.where(piece >> bits, np.uint16(0), piece) if bits < 16 and piece.max(initial=0) >> bits else piece


def packed(ids: Ids, start: int, stop: int, bits: int, order: int) -> Keys:
    """The n-grams that begin from `start` to `stop`, as they stand."""
    piece = _fitting(ids.read(start, stop + order - 1), bits)
    at = np.flatnonzero(piece[: stop - start])
    keys = np.empty(len(at), np.uint64)
    _pack(piece, at, bits, order, keys)
    return keys


def _pack(piece: NDArray[np.uint16], at: NDArray[np.int64], bits: int, order: int, out: NDArray) -> None:
    """Put the n-grams that begin at some places of a piece into `out`."""
    out[:] = piece.take(at)
    inside = None
    for place in range(1, order):
        following = piece[place:].take(at)
        if inside is not None:
            following *= inside
        inside = following != 0
        out <<= out.dtype.type(bits)
        out |= following


class _Runs:
    """Sorted runs of n-grams on disk, a file for each bucket.

    Buckets are cut where the first two ids change, by a sample of the corpus, so that even the most frequent character
    has its n-grams in several.
    """

    def __init__(self, folder: Path, ids: Ids, bits: int, order: int, memory: int, workers: int) -> None:
        self.folder, self.ids, self.bits, self.order = folder, ids, bits, order
        self.run = min(RUN, max(2**14, memory // workers // BYTES))
        self.count = max(1, -(-ids.length * MERGED_BYTES * workers // memory))
        stride = max(1, ids.length // 2**20)
        sample = np.concatenate([self._sample(start) for start in range(0, ids.length, 2**12 * stride)])
        sample.sort()
        pair = U(bits * max(0, order - 2))
        inner = sample[np.arange(1, self.count) * len(sample) // self.count] if len(sample) else sample
        self.edges = np.unique(inner >> pair << pair)
        self.count = len(self.edges) + 1
        self._locks = [threading.Lock() for _ in range(self.count)]

    def _sample(self, start: int) -> Keys:
        return packed(self.ids, start, min(start + 2**12, self.ids.length), self.bits, self.order)

    @property
    def written(self) -> int:
        """How many runs there are."""
        return -(-self.ids.length // self.run)

    def write(self, workers: int, progress: Callable[[int, int], object] | None) -> None:
        starts = range(0, self.ids.length, self.run)
        for step, _ in enumerate(thread_map(self._write_run, starts, workers)):
            if progress is not None:
                progress(step + 1, self.written + self.count)

    def _write_run(self, start: int) -> None:
        keys, counts = count_stretch(self.ids, start, start + self.run, self.bits, self.order)
        cuts = [0, *np.searchsorted(keys, self.edges).tolist(), len(keys)]
        for i, (first, last) in enumerate(zip(cuts, cuts[1:])):
            if first < last:
                with self._locks[i]:
                    for kind, array in (("keys", keys), ("counts", counts)):
                        with open(self._path(i, kind), "ab") as file:
                            file.write(array[first:last].tobytes())

    def _path(self, i: int, kind: str) -> Path:
        return self.folder / f"{kind}-{i}"

    def taken(self, i: int) -> Partial:
        """What was put into a bucket, one run behind another; its files go."""
        if not self._path(i, "keys").exists():
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        keys = np.fromfile(self._path(i, "keys"), np.uint64)
        counts = np.fromfile(self._path(i, "counts"), np.uint32)
        for kind in ("keys", "counts"):
            self._path(i, kind).unlink()
        return keys, counts
