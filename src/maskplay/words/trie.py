"""Finding every occurrence of many words at once, in NumPy: a trie whose levels are hash tables.

The first level knows pairs of ids; each further one knows (place reached, next id). A block of text is looked up as a
whole, level by level, with ever fewer places left. A table never changes, so it can afford to be simple: the first key
to claim a place has it, and the few others stand in a sorted list beside it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

ROOM = 8  # places of a table for each of its keys, where speed counts more than memory
FACTOR = 0x9E3779B97F4A7C15  # of Fibonacci hashing: 2**64 divided by the golden ratio


class Table:
    """A fixed set of distinct numbers; each has the index at which it was given.

    Args:
        keys: uint32 or uint64, sorted; the highest number of their kind is not among them.
        room: places for each key, 13 bytes and up; fewer of them make finding slower.

    Example:
        >>> at, index = Table(np.array([5, 7], np.uint32)).find(np.array([7, 6, 5, 7], np.uint32))
        >>> at.tolist(), index.tolist()
        ([0, 2, 3], [1, 0, 1])
    """

    def __init__(self, keys: NDArray, room: int = ROOM) -> None:
        self.keys = keys
        width = keys.dtype.itemsize * 8
        power = max(4, (len(keys) * room).bit_length())
        self._factor = keys.dtype.type(FACTOR >> (64 - width) | 1)
        self._shift = keys.dtype.type(width - power)
        self._nothing = keys.dtype.type(2**width - 1)
        self._table = np.full(2**power, self._nothing, keys.dtype)
        places = self._places(keys)
        self._table[places] = keys
        late = self._table[places] != keys
        self._late = keys[late]
        self._crowded = np.zeros(2**power, bool)
        self._crowded[places[late]] = True
        self._index = np.zeros(2**power, np.int32)
        self._index[places[~late]] = np.flatnonzero(~late)
        self._late_index = np.flatnonzero(late).astype(np.int32)

    def _places(self, keys: NDArray) -> NDArray:
        return (keys * self._factor) >> self._shift

    def find(self, wanted: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Where in `wanted` numbers of the set stand, in order, and which ones."""
        places = self._places(wanted)
        there = self._table.take(places)
        same = there == wanted
        at = np.flatnonzero(same)
        index = self._index.take(places.take(at))
        if len(self._late):
            other = np.flatnonzero(~same & (there != self._nothing))
            other = other[self._crowded.take(places.take(other))]
            if len(other):
                rank = np.searchsorted(self._late, wanted[other])
                rank[rank == len(self._late)] = 0
                found = self._late[rank] == wanted[other]
                at = np.concatenate([at, other[found]])
                order = np.argsort(at, kind="stable")
                at, index = at[order], np.concatenate([index, self._late_index[rank[found]]])[order]
        return at, index


class Trie:
    """Words of two symbols or more.

    Args:
        words: for each length a table (words, length) of ids.

    A word's number counts through the lengths from the shortest on, and within each as given.

    Example:
        >>> trie = Trie({2: np.array([[1, 2]]), 3: np.array([[1, 2, 3]])})
        >>> block = np.array([1, 2, 3, 1, 2, 0, 0, 0], np.uint16)
        >>> [(n, at.tolist(), word.tolist()) for n, at, word in trie.occurrences(block, 5)]
        [(2, [0, 3], [0, 0]), (3, [0], [1])]
    """

    def __init__(self, words: dict[int, NDArray]) -> None:
        self.size = sum(map(len, words.values()))
        self.longest = max((n for n, some in words.items() if len(some)), default=1)
        self._levels: list[tuple[Table, NDArray[np.int32], NDArray[np.bool_]]] = []
        lengths = sorted(words)
        numbers = np.cumsum([0, *(len(words[n]) for n in lengths)])
        reached = {n: words[n][:, 0].astype(np.uint64) for n in lengths}
        for level in range(2, self.longest + 1):
            here = [n for n in lengths if n >= level and len(words[n])]
            steps = {n: (reached[n] << np.uint64(16)) | words[n][:, level - 1].astype(np.uint64) for n in here}
            keys, places = np.unique(np.concatenate([steps[n] for n in here]), return_inverse=True)
            word, more = np.full(len(keys), -1, np.int32), np.zeros(len(keys), bool)
            start = 0
            for n in here:
                reached[n] = places[start : start + len(words[n])].astype(np.uint64)
                start += len(words[n])
                if n == level:
                    word[reached[n]] = numbers[lengths.index(n)] + np.arange(len(words[n]))
                else:
                    more[reached[n]] = True
            self._levels.append((Table(keys.astype(np.uint32) if level == 2 else keys), word, more))

    def occurrences(
        self, block: NDArray[np.uint16], length: int
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int32]]]:
        """For n from 2 on: n, where words of n symbols begin in the block's first `length` ids, and which they are; no
        further than words so long begin anywhere.

        The block goes on for at least `longest` ids behind `length`.
        """
        if not self._levels:
            return
        pairs = block[:length].astype(np.uint32)
        pairs <<= np.uint32(16)
        pairs |= block[1 : length + 1]
        at, reached = self._levels[0][0].find(pairs)
        for n, (_, word, more) in enumerate(self._levels, start=2):
            number = word.take(reached)
            ends = np.flatnonzero(number >= 0)
            yield n, at.take(ends), number.take(ends)
            if n - 1 == len(self._levels) or not len(at):
                return
            on = np.flatnonzero(more.take(reached))
            at = at.take(on)
            steps = reached.take(on).astype(np.uint64)
            steps <<= np.uint64(16)
            steps |= block[n:].take(at)
            found, reached = self._levels[n - 1][0].find(steps)
            at = at.take(found)
