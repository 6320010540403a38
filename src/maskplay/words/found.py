"""The words that were found: columns in NumPy, rows in Python, files for others."""

import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from maskplay.errors import MissingExtra, UserError, within
from maskplay.storage import new_file

FORMATS = (".tsv", ".parquet", ".txt")
ROWS = 2**16  # turned into Python's objects at a time
ESCAPES = {"\\": r"\\", "\t": r"\t", "\r": r"\r", "\n": r"\n"}  # what would break a table, and how it is written
PLAIN, WRITTEN = {written: plain for plain, written in ESCAPES.items()}, str.maketrans(ESCAPES)


class Word(NamedTuple):
    """One word.

    Attributes:
        word: its text.
        frequency: how often it stands by itself when the corpus is cut.
        occurrences: how often it occurs at all, inside longer words too.
        cohesion: nats by which it is more frequent than any split of it explains; of a word longer than the n-grams
            counted, the least of those in it. nan for single characters.
        left_freedom, right_freedom: entropy of its neighbours, nats. nan for single characters.
        score: cohesion per place between its characters, plus the lesser freedom. nan for single characters.

    Example:
        >>> Word("宇宙", 4, 4, 1.9, 1.4, 1.4, 3.3).word
        '宇宙'
    """

    word: str
    frequency: int
    occurrences: int
    cohesion: float
    left_freedom: float
    right_freedom: float
    score: float


@dataclass(frozen=True, eq=False)
class Found:
    """Words in columns, the most frequent first, equally frequent ones in the order of their characters.

    Attributes:
        word … score: a column each, as `Word` says; all arrays have the length (words,).
        characters: of the corpus, as far as they were counted.
        min_count: the least frequency that was asked for.

    Example:
        >>> import maskplay as mp
        >>> found = mp.words.discover(iter(["宇宙洪荒", "宇宙"]), min_count=2, cohesion=(0.5,), min_length=2)
        >>> len(found), found[0].word, found.frequency, found[:10].counts()
        (1, '宇宙', array([2]), {'宇宙': 2})
        >>> found[found.frequency > 2]  # those for which a column says so
        Found(words=0, characters=6, min_count=2)
    """

    word: NDArray[Any]
    frequency: NDArray[np.int64]
    occurrences: NDArray[np.int64]
    cohesion: NDArray[np.float64]
    left_freedom: NDArray[np.float64]
    right_freedom: NDArray[np.float64]
    score: NDArray[np.float64]
    characters: int
    min_count: int

    def __len__(self) -> int:
        return len(self.word)

    def __repr__(self) -> str:
        return f"Found(words={len(self)}, characters={self.characters}, min_count={self.min_count})"

    def __iter__(self) -> Iterator[Word]:
        return map(Word, *(getattr(self, name).tolist() for name in Word._fields))

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and bool((self.word == word).any())

    @overload
    def __getitem__(self, place: int) -> Word: ...

    @overload
    def __getitem__(self, place: slice | NDArray) -> "Found": ...

    def __getitem__(self, place: int | slice | NDArray) -> "Word | Found":
        if isinstance(place, (int, np.integer)):
            return Word(self.word[place], *(getattr(self, name)[place].item() for name in Word._fields[1:]))
        return replace(self, **{name: getattr(self, name)[place] for name in Word._fields})

    def counts(self) -> dict[str, int]:
        """Each word's frequency."""
        return dict(zip(self.word.tolist(), self.frequency.tolist()))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file, whole or not at all; its ending decides the format.

        Args:
            path: `.tsv` (a header, then the columns in the order of `Word`), `.parquet` (needs pyarrow), or `.txt`, a
                user dictionary of jieba: "word frequency" a line, of two characters or more. (jieba takes these
                frequencies over its own: leave out the words it knows, `known="jieba"`. Words of letters and digits
                alone are left out: jieba keeps those together, and with 20 as a word would cut 2010 in two.)

        Raises:
            UserError: another ending.
            MissingExtra: pyarrow is not installed.
        """
        ending = checked_ending(path, FORMATS)
        if ending == ".parquet":
            columns = [getattr(self, name) for name in Word._fields]
            parts = ([column[i : i + ROWS].tolist() for column in columns] for i in range(0, len(self), ROWS))
            parquet_file(path, Word.__annotations__, parts)
            return
        with new_file(path) as file:
            if ending == ".tsv":
                file.write(("\t".join(Word._fields) + "\n").encode())
            for row in self:
                if ending == ".tsv":
                    figures = "\t".join(f"{value:.4f}" for value in row[3:])
                    file.write(f"{row.word}\t{row.frequency}\t{row.occurrences}\t{figures}\n".encode())
                elif len(row.word) > 1 and not row.word.isascii():
                    file.write(f"{row.word} {row.frequency}\n".encode())


def checked_ending(path: str | os.PathLike[str], formats: tuple[str, ...]) -> str:
    """The ending of a file to write.

    Raises:
        UserError: it is none of the formats'.

    Example:
        >>> checked_ending("words.tsv", FORMATS)
        '.tsv'
    """
    ending = Path(path).suffix.lower()
    if ending not in formats:
        raise UserError(f"{os.fspath(path)}: expected a name that ends in {', '.join(formats)}")
    if Path(path).is_dir():
        raise UserError(f"{os.fspath(path)}: expected a file to write, found a folder")
    if ending == ".parquet":
        _pyarrow()
    return ending


def escaped(word: str) -> str:
    r"""A word as a table has it, on one line and in one column.

    Example:
        >>> print(escaped("a\tb"))
        a\tb
    """
    return word.translate(WRITTEN)


def unescaped(written: str) -> str:
    r"""The word that `escaped` has written so.

    Example:
        >>> unescaped(escaped("a\tb")) == "a\tb"
        True
    """
    return re.sub(r"\\[\\trn]", lambda found: PLAIN[found[0]], written) if "\\" in written else written


def _pyarrow() -> Any:
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise MissingExtra("writing Parquet", "parquet") from None


def parquet_file(path: str | os.PathLike[str], kinds: Mapping[str, type], parts: Iterable[list[list]]) -> None:
    """Write columns as a Parquet file, whole or not at all.

    Args:
        path: the file.
        kinds: of each column, by name: str, int, float.
        parts: some rows of every column at a time.
    """
    arrow = _pyarrow()
    types = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    schema = arrow.schema([(name, types[kind]) for name, kind in kinds.items()])
    with new_file(path) as file, arrow.parquet.ParquetWriter(file, schema) as writer:
        for columns in parts:
            writer.write_batch(arrow.record_batch(columns, schema=schema))


def counted(words: Any, what: str) -> Mapping[str, float]:
    """Words with their counts, whichever of this package's objects holds them.

    Raises:
        UserError: it holds none, or something else is among them.

    Example:
        >>> counted({"天地": 2}, "the words")
        {'天地': 2}
    """
    counts = getattr(words, "counts", None)  # a method of what was found or counted, an attribute of a vocabulary
    counts = words if counts is None else counts() if callable(counts) else counts
    if not isinstance(counts, Mapping):
        raise UserError(
            f"{what}: expected words with their counts, found {words!r:.60}; of a file read_vocabulary makes them"
        )
    for word, count in counts.items():
        if not isinstance(word, str) or not within(count, 0, sys.float_info.max):
            raise UserError(f"{what}: expected words with counts from 0 on, found {count!r:.40} of {word!r:.40}")
    return counts
