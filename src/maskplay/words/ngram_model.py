"""Character n-gram models: how probable each character is after those before it.

What is known of an n-gram stands in columns of its level, and its place there is found from the place of its first
n - 1 characters: n-grams of any order need one number of 64 bits each. A whole text is looked up at once, level by
level, and gives every character's probability after no, one, two, … others, which is what segmenting asks for.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskplay.errors import UserError
from maskplay.words.trie import Table

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
NOWHERE = -100.0  # log10 of what a model has no probability for at all
BITS = 21  # of an id in a key; Unicode has fewer characters than that
BATCH = 2**18  # characters looked up together


@dataclass
class Level:
    """The n-grams of one order in the order of their keys.

    Attributes:
        keys: place of the first n - 1 ids on the level below, from 1 on, then the last id; uint64 `(n-grams,)`.
        log_probs, back_offs: base 10, float32 `(n-grams + 1,)`; the first one is of what is not there.
    """

    keys: NDArray[np.uint64]
    log_probs: NDArray[np.float32]
    back_offs: NDArray[np.float32]

    @cached_property
    def _table(self) -> Table:
        return Table(self.keys, room=2)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_table"}  # made anew where it is used

    def places(self, before: NDArray[np.int64], ids: NDArray) -> NDArray[np.int64]:
        """Places of n-grams, from 1 on, by the place of their beginning and their last id; 0 where there is none."""
        found = np.zeros(len(ids), np.int64)
        there = np.flatnonzero(before)
        at, index = self._table.find((before[there] << BITS | ids[there]).astype(np.uint64))
        found[there[at]] = index + 1
        return found


class NgramModel:
    """A character n-gram model with back-off, as ARPA files hold it.

    Args:
        symbols: texts by id: "", `<s>`, `</s>`, the characters in order, `<unk>`.
        levels: from single characters on; the first has the ids for keys.

    Attributes:
        order: characters of the longest n-grams.

    Example:
        >>> from maskplay.words.kneser_ney import train_ngrams
        >>> model = train_ngrams(iter(["天地玄黄", "天地人"] * 9), order=3)
        >>> model
        NgramModel(order=3, ngrams=[8, 7, 6])
        >>> round(float(10 ** model.scores(model.ids("天地"))[1, 1]), 2)  # 地 after 天
        0.57
    """

    def __init__(self, symbols: list[str], levels: list[Level]) -> None:
        self.symbols, self.levels = symbols, levels

    def __repr__(self) -> str:
        return f"NgramModel(order={self.order}, ngrams={[len(level.keys) for level in self.levels]})"

    @property
    def order(self) -> int:
        return len(self.levels)

    @cached_property
    def id_of(self) -> NDArray[np.int32]:
        """The id of each code point, int32; 0 for white space, which ends a sentence."""
        ids = np.full(0x110000, len(self.symbols) - 1, np.int32)
        ids[[i for i in range(0x3001) if chr(i).isspace()]] = 0
        ids[[ord(symbol) for symbol in self.symbols[3:-1]]] = np.arange(3, len(self.symbols) - 1)
        return ids

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "id_of"}  # made anew as well

    def ids(self, text: str) -> NDArray[np.int32]:
        """The ids of a text's characters, int32 `(characters,)`.

        Example:
            >>> from maskplay.words.kneser_ney import train_ngrams
            >>> model = train_ngrams(iter(["天地玄黄"]))
            >>> [model.symbols[i] for i in model.ids("天 人")]
            ['天', '', '<unk>']
        """
        return self.id_of.take(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32))

    def scores(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """log10 of the probability of each id after the k ids before it, k from 0 to order - 1.

        Args:
            ids: int32 `(length,)`; over a 0 nothing is known.

        Returns:
            float32 `(order, length)`; where fewer than k ids stand before, as many as there are.
        """
        ids = np.asarray(ids)
        scores = np.empty((self.order, len(ids)), np.float32)
        # The n-grams that begin at each place, and what is left to say of their last ids.
        places = ids.astype(np.int64)
        scores[0] = self.levels[0].log_probs.take(places)
        for n in range(2, self.order + 1):
            shorter, here = self.levels[n - 2], self.levels[n - 1]
            before, places = places[:-1], here.places(places[:-1], ids[n - 1 :])
            scores[n - 1] = scores[n - 2]
            tail = scores[n - 1, n - 1 :]
            tail += shorter.back_offs.take(before)
            np.copyto(tail, here.log_probs.take(places), where=places > 0)
        return scores

    def ngrams(self, order: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ids of the n-grams at some places of a level, int64 `(places, order)`."""
        ids = np.empty((len(places), order), np.int64)
        for n in range(order, 0, -1):
            keys = self.levels[n - 1].keys.take(places - 1)
            ids[:, n - 1], places = keys & np.uint64(2**BITS - 1), (keys >> np.uint64(BITS)).astype(np.int64)
        return ids

    def perplexity(self, lines: Iterable[str]) -> float:
        """Of texts, per character and sentence end: 10 to the mean of their negative log10 probability.

        Sentences end with lines and white space; characters that are not known count as `<unk>`.

        Raises:
            UserError: `lines` is one text.

        Example:
            >>> from maskplay.words.kneser_ney import train_ngrams
            >>> model = train_ngrams(iter(["天地玄黄"] * 9))
            >>> model.perplexity(["天地玄黄"]) < model.perplexity(["黄玄地天"])
            True
        """
        if isinstance(lines, str):
            text = repr(lines[:40])
            raise UserError(f"expected lines, found one text: write [{text}], or maskplay.corpus.lines({text})")
        total, count = 0.0, 0
        for text in gathered(lines):
            ids = marked(self.ids(text), 1, 2)
            asked = ids > 1
            total += float(self.scores(ids)[-1][asked].sum(dtype=np.float64))
            count += int(np.count_nonzero(asked))
        return 10 ** (-total / count) if count else float("nan")


def gathered(lines: Iterable[str]) -> Iterator[str]:
    """Lines in blocks that are worth NumPy's while."""
    some, length = [], 0
    for line in lines:
        some += [line, "\n"]
        length += len(line) + 1
        if length >= BATCH:
            yield "".join(some)
            some, length = [], 0
    yield "".join(some)


def marked(ids: NDArray, start: int, end: int) -> NDArray:
    """Each run of ids above 0 with a mark before it and one behind it, and a 0 behind that.

    Example:
        >>> marked(np.array([0, 7, 8, 0, 0, 9]), 1, 2).tolist()
        [1, 7, 8, 2, 0, 1, 9, 2, 0]
    """
    inside = np.concatenate([[False], ids > 0, [False]])
    wanted = inside[1:] | inside[:-1]  # each id, and the first 0 behind a run
    ids = np.append(ids, ids.dtype.type(0))[wanted]
    ends = np.flatnonzero(ids == 0)
    found = np.repeat(ids, np.where(ids == 0, 3, 1))
    ends = ends + 2 * np.arange(len(ends))
    found[ends] = end
    found[ends + 2] = start
    return np.concatenate([found[:0] if not len(ends) else np.array([start], ids.dtype), found[:-1]])
