"""What all ways to cut text into words share: which characters are in question at all, and work on many texts at once.

Chinese characters in a row are cut by whoever knows how; letters and digits stay together (iPhone15, 3.5%, O'Reilly),
with the marks behind them (accents written apart), white space too, and any other character stands alone. Joined, the
words are the text.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cache
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from maskplay.errors import UserError
from maskplay.words.lattice import Runs

HAN = [(0x3007, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)]
EAST_ASIAN = [(0x2E80, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF)]  # whose letters are no parts of an alphabet's words
OTHER, SPACE, LETTER, CHINESE = range(4)
INSIDE, BEHIND = ".．·'’", "%％"  # what belongs to a word between two of its letters or digits, and behind them
BATCH = 2**17  # characters that are cut together


class Segmenter(ABC):
    """Cuts text into words; a subclass says how Chinese is cut. Called with a text, it gives a list of words.

    Example:
        >>> class Characters(Segmenter):
        ...     def cut(self, points, runs):
        ...         return np.ones(len(runs.places), bool)
        >>> Characters()("用iPhone 15拍3.5%！")
        ['用', 'iPhone', ' ', '15', '拍', '3.5%', '！']
    """

    def __call__(self, text: str) -> list[str]:
        return self.many([text])[0]

    @abstractmethod
    def cut(self, points: NDArray[np.uint32], runs: Runs) -> NDArray[np.bool_]:
        """Which Chinese characters begin a word, in the order of `runs.places`.

        Args:
            points: code points of a text.
            runs: where Chinese stands in it.
        """

    def apart(
        self, points: NDArray[np.uint32], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts and lengths of the Chinese in a text, cut where certainly a word ends; by default as they are.

        Many short runs are cut at once (`lattice`), a long one character by character.
        """
        return starts, lengths

    def many(self, texts: Iterable[str]) -> list[list[str]]:
        """The words of several texts: much faster than one at a time.

        Args:
            texts: all are held together; `maskplay.words.segment` streams any number of them.

        Raises:
            UserError: they are one text, or one of them is no string.
        """
        if isinstance(texts, str):
            raise UserError(f"expected texts, found one: write [{texts[:40]!r}]")
        texts = list(texts)  # which may come from a generator
        if others := [i for i, text in enumerate(texts) if not isinstance(text, str)]:
            raise UserError(f"text {others[0]}: expected a string, found {type(texts[others[0]]).__name__}")
        whole = "".join(texts)
        points = code_points(whole)
        ends = np.cumsum([0, *map(len, texts)])
        begins, starts, lengths = pieces(points, ends)
        starts, lengths = self.apart(points, starts, lengths)
        for some in batches(starts, lengths):
            first, last = starts[some][0], starts[some][-1] + lengths[some][-1]
            runs = Runs(starts[some] - first, lengths[some])
            begins[first + runs.places] = self.cut(points[first:last], runs)
        cuts = np.flatnonzero(begins)
        edges, places = np.searchsorted(cuts, ends).tolist(), cuts.tolist()
        words = [whole[a:b] for a, b in zip(places, places[1:])]
        return [words[a:b] for a, b in zip(edges, edges[1:])]


def code_points(text: str) -> NDArray[np.uint32]:
    """A text as numbers.

    Example:
        >>> code_points("一a").tolist()
        [19968, 97]
    """
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def chinese(word: str) -> bool:
    """Whether a word is made of Chinese characters alone.

    Example:
        >>> chinese("天地"), chinese("T恤")
        (True, False)
    """
    return bool(word) and bool((_kinds()[0].take(code_points(word)) == CHINESE).all())


def pieces(
    points: NDArray[np.uint32], ends: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Texts cut where the kind of character changes.

    Args:
        points: code points of texts, one after the other.
        ends: where each begins, and the end.

    Returns:
        Which characters begin a piece, with True behind the last; starts and lengths of the Chinese pieces.

    Example:
        >>> begins, starts, lengths = pieces(code_points("一二ab三"), np.array([0, 5]))
        >>> begins.tolist(), starts.tolist(), lengths.tolist()
        ([True, False, True, False, True, True], [0, 4], [2, 1])
    """
    kinds = _kinds()[0].take(points)
    edges = np.zeros(len(points) + 1, bool)
    edges[ends] = True
    around = _kinds()[1].take(points)
    inside, behind, marks = (np.flatnonzero(around == what) for what in (1, 2, 3))
    kinds[_of_letters(marks, kinds, edges)] = LETTER
    inside = inside[~edges[inside] & ~edges[inside + 1]]
    inside = inside[(kinds[inside - 1] == LETTER) & (kinds[inside + 1] == LETTER)]
    behind = behind[~edges[behind]]
    kinds[behind[kinds[behind - 1] == LETTER]] = LETTER
    kinds[inside] = LETTER
    begins = edges
    begins[1:-1] |= (kinds[1:] != kinds[:-1]) | (kinds[1:] == OTHER)
    starts = np.flatnonzero(begins)
    starts, lengths = starts[:-1], np.diff(starts)
    chinese = kinds[starts] == CHINESE
    return begins, starts[chinese], lengths[chinese]


def _of_letters(marks: NDArray[np.int64], kinds: NDArray[np.uint8], edges: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The places of those marks before whose row a letter stands in the same text."""
    first = (np.diff(marks, prepend=-1) > 1) | edges[marks]
    starts = marks[first]
    return marks[(~edges[starts] & (kinds[starts - 1] == LETTER))[np.cumsum(first) - 1]]


def batches(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[slice]:
    """Runs that follow each other, in groups of not many more than `BATCH` characters.

    Example:
        >>> batches(np.array([0, 10, BATCH]), np.array([2, 3, 4]))
        [slice(0, 2, None), slice(2, 3, None)]
    """
    edges = np.flatnonzero(np.diff(starts // BATCH, prepend=-1)).tolist()
    return [slice(a, b) for a, b in zip(edges, [*edges[1:], len(starts)])]


def groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in lists that are worth NumPy's while: what `Segmenter.many` takes at a time.

    Raises:
        UserError: one is no string.

    Example:
        >>> list(groups(["一二", "三"]))
        [['一二', '三']]
    """
    some: list[str] = []
    length = 0
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"text {i}: expected a string, found {type(text).__name__}")
        some.append(text)
        length += len(text) + 1
        if length > BATCH:
            yield some
            some, length = [], 0
    if some:
        yield some


@cache
def _kinds() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """For each code point its kind, and what it is around letters: 1 inside, 2 behind, 3 a mark on one."""
    kinds, marks = np.zeros(0x110000, np.uint8), np.zeros(0x110000, np.uint8)
    kinds[[i for i in range(0x20000) if chr(i).isalnum()]] = LETTER  # from there on all are Chinese
    marks[[i for i in range(0x20000) if category(chr(i)).startswith("M")]] = 3
    for first, last in EAST_ASIAN:
        kinds[first : last + 1] = OTHER
    for first, last in HAN:
        kinds[first : last + 1] = CHINESE
    kinds[[i for i in range(0x3001) if chr(i).isspace()]] = SPACE
    for mark, characters in enumerate((INSIDE, BEHIND), 1):
        marks[[ord(character) for character in characters]] = mark
    return kinds, marks
