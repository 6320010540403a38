"""Words and how often each occurs: a model in which every word is drawn by itself, and how it is made better.

A text is cut into the words of the greatest probability together. Expectation maximisation counts every word anew over
all ways to cut a corpus, each as probable as the words now say: the corpus becomes more probable each time, and a word
that lived on others' occurrences fades. Source: Kudo 2018, arXiv:1804.10959, section 3.2, for its unigram model.
"""

import math
import os
import sys
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from maskplay import corpus
from maskplay.errors import DataError, UserError, within
from maskplay.words.cutting import Segmenter, batches, chinese, code_points, pieces
from maskplay.words.found import Found, counted, unescaped
from maskplay.words.lattice import Runs, Scores, best_words, expected_words
from maskplay.words.ngram_model import gathered
from maskplay.words.symbols import MOST
from maskplay.words.trie import Trie

LONG = 256  # characters of a run from which on it is worth while to look where it falls apart
HALF = 0.5  # how often a character that is no word counts as seen
MOST_WORDS, LONGEST = 2**24, 100  # of a file
MOST_COUNTED = 1e300  # of a word: so many words of it can be added up


class Vocabulary(Segmenter):
    """Words with their counts; it cuts text into the most probable ones.

    Args:
        counts: how often each word occurs, numbers above 0, or what was found or counted. Words with anything
            but Chinese characters in them are passed over: letters and digits stay together anyway.
        unknown: natural log of the probability of a character that is no word; default as if half of one had been seen
            (where counts are shares, which add up to 1, half of the rarest word).

    Attributes:
        counts: those that are used.

    Raises:
        UserError: there is no such word, a count is no number above 0, or `unknown` is infinite.

    Example:
        >>> words = Vocabulary({"北京": 5, "大学": 5, "北京大学": 3, "大": 2, "学": 1})
        >>> words("北京大学，大学生")
        ['北京大学', '，', '大学', '生']
    """

    def __init__(self, counts: Mapping[str, float] | Found, *, unknown: float | None = None) -> None:
        counts = counted(counts, "the vocabulary")
        self.counts = {word: float(count) for word, count in counts.items() if chinese(word)}
        if not self.counts:
            raise UserError(f"the vocabulary: expected Chinese words, found none in {len(counts)} entries")
        for word, count in self.counts.items():
            if not 0 < count < MOST_COUNTED:
                raise UserError(f"the vocabulary: expected counts above 0, found {count} of {word!r:.40}")
        whole = math.fsum(self.counts.values())
        total = math.log(whole)
        least = math.log(min(self.counts.values())) if whole < 1.5 else 0.0  # shares add up to one
        self.unknown = math.log(HALF) + least - total if unknown is None else unknown
        if not within(self.unknown, -sys.float_info.max, sys.float_info.max):
            raise UserError(f"unknown: expected the log of a probability, a finite number, found {unknown}")
        symbols = sorted(set("".join(self.counts)))
        if len(symbols) > MOST:
            raise UserError(f"the vocabulary: expected at most {MOST} different characters, found {len(symbols)}")
        self._ids = np.zeros(0x110000, np.uint16)
        self._ids[[ord(symbol) for symbol in symbols]] = np.arange(1, len(symbols) + 1)
        by_length: dict[int, list[str]] = {}
        for word in self.counts:
            by_length.setdefault(len(word), []).append(word)
        longer = {n: by_length[n] for n in sorted(by_length) if n > 1}
        self._longer = [word for words in longer.values() for word in words]
        rows = {n: self._ids[code_points("".join(words))].reshape(-1, n) for n, words in longer.items()}
        self._lengths = [1, *longer]
        self._trie = Trie(rows)
        self._logs = np.array([-math.inf, *(math.log(self.counts[word]) - total for word in self._longer)])
        self._single = np.full(len(symbols) + 1, self.unknown)
        for word in by_length.get(1, ()):
            self._single[self._ids[ord(word)]] = math.log(self.counts[word]) - total

    def __repr__(self) -> str:
        return f"Vocabulary(words={len(self.counts)})"

    def apart(
        self, points: NDArray[np.uint32], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if not len(starts) or lengths.max() < LONG:
            return starts, lengths
        # Where no word lies across, one ends whatever stands around it.
        block = np.concatenate([self._ids.take(points), np.zeros(self._trie.longest + 1, np.uint16)])
        across = np.zeros(len(block) + 1, np.int32)  # how many more words lie across this place than across the last
        for n, at, _ in self._trie.occurrences(block, len(points)):
            across[at + 1] += 1
            across[at + n] -= 1
        inside = np.zeros(len(points) + 1, np.int32)
        inside[starts] += 1
        inside[starts + lengths] -= 1
        begins = (np.cumsum(across)[: len(points)] == 0) & (np.cumsum(inside)[:-1] > 0)
        begins[starts] = True
        cuts = np.flatnonzero(begins)
        ends = np.zeros(len(points) + 1, bool)
        ends[starts + lengths] = True
        ends[cuts] = True
        stops = np.flatnonzero(ends)
        return cuts, stops[np.searchsorted(stops, cuts, "right")] - cuts

    def cut(self, points: NDArray[np.uint32], runs: Runs) -> NDArray[np.bool_]:
        return best_words(self._scores(self._found(points, runs)), runs)

    def refined(self, sources: corpus.Sources, field: str = "text") -> tuple["Vocabulary", float]:
        """One round of expectation maximisation.

        Args:
            sources: files, folders, patterns, or texts; see `maskplay.corpus.lines`.
            field: of JSON lines.

        Returns:
            The words with what they are expected to occur, and how probable the corpus was by the old ones, as natural
            log.

        Raises:
            UserError: none of the words occurs in the text.

        Example:
            >>> words = Vocabulary({"天地": 1, "地人": 1, "天": 1, "地": 1, "人": 1})
            >>> texts = ["天地天地人", "天地"]
            >>> for _ in range(3):
            ...     words, likelihood = words.refined(iter(texts))
            ...     print(round(likelihood, 2))
            -5.28
            -3.89
            -2.96
        """
        longer, single, likelihood = np.zeros(len(self._logs)), np.zeros(len(self._single)), 0.0
        for text in gathered(corpus.lines(sources, field)):
            points = code_points(text)
            _, starts, lengths = pieces(points, np.array([0, len(points)]))
            starts, lengths = self.apart(points, starts, lengths)
            for some in batches(starts, lengths):
                first, last = starts[some][0], starts[some][-1] + lengths[some][-1]
                runs = Runs(starts[some] - first, lengths[some])
                found = self._found(points[first:last], runs)
                expected, log = expected_words(self._scores(found), runs)
                likelihood += log
                single += np.bincount(found[1], expected[1], minlength=len(single))
                for n in self._lengths[1:]:
                    longer += np.bincount(found[n], expected[n], minlength=len(longer))
        # Characters that are no words keep their cost, or the likelihood could fall.
        counts = dict(zip(self._longer, longer[1:].tolist()))
        counts |= {word: single[self._ids[ord(word)]].item() for word in self.counts if len(word) == 1}
        kept = {word: counts[word] for word in self.counts if counts[word] > 0}
        if not kept:
            raise UserError("the text: expected some of the vocabulary's words, found none")
        return Vocabulary(kept, unknown=self.unknown), likelihood

    def _found(self, points: NDArray[np.uint32], runs: Runs) -> dict[int, NDArray]:
        """For each length which word begins at each place, in the order of `runs.places`; of characters their ids."""
        ids = self._ids.take(points)
        found: dict[int, NDArray] = {1: ids[runs.places]}
        block = np.concatenate([ids, np.zeros(self._trie.longest + 1, np.uint16)])
        words = {n: (at, word) for n, at, word in self._trie.occurrences(block, len(ids))}
        for n in self._lengths[1:]:
            flat = np.zeros(len(ids), np.int32)
            if n in words:
                at, word = words[n]
                flat[at] = word + 1
            found[n] = flat[runs.places]
        return found

    def _scores(self, found: dict[int, NDArray]) -> Scores:
        return {n: (self._single if n == 1 else self._logs).take(words) for n, words in found.items()}


def read_vocabulary(path: str | os.PathLike[str]) -> dict[str, float]:
    """Words and counts from a file: what `maskplay words discover` writes, or any with "word count" a line.

    Args:
        path: fields are divided by tabs or blanks, what follows the second is passed over; the first line may be a
            header. Where tabs divide them, \\t, \\r, \\n and \\\\ in a word are read as `Counts.write` writes them.
            Packed files are understood. Words of more than 100 characters are passed over.

    Raises:
        DataError: a line is not a word and its count, or a word comes twice; it is named.
        UserError: there is no such file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "words.txt"
        >>> _ = path.write_text("天地 12 n\\n宇宙 3\\n", encoding="utf-8")
        >>> read_vocabulary(path)
        {'天地': 12.0, '宇宙': 3.0}
    """
    counts: dict[str, float] = {}
    for number, line in enumerate(corpus.lines(corpus.file(path)), 1):
        fields = line.split("\t" if "\t" in line else None, 2)
        if not fields:
            continue
        try:
            count = float(fields[1])
        except (IndexError, ValueError):
            if number == 1 and len(fields) > 1:
                continue  # a header
            count = math.nan
        if not 0 < count < MOST_COUNTED:
            raise DataError(f"{path}, line {number}: expected a word and its count, found {line!r:.60}")
        word = unescaped(fields[0]) if "\t" in line else fields[0]
        if len(word) > LONGEST:
            continue
        if word in counts:
            raise DataError(f"{path}, line {number}: the word {word!r:.40} was there before")
        if len(counts) == MOST_WORDS:
            raise DataError(f"{path}, line {number}: expected at most {MOST_WORDS:,} words")
        counts[word] = count
    if not counts:
        raise DataError(f"{path}: expected words and their counts, found none")
    return counts
