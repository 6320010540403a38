"""How often everything occurs: n-grams of characters by sorting, and the words of any tokenizer by many processes.

When can n processes count more than n times as fast as a loop? Only when the algorithm changes: n-grams packed into
numbers and sorted leave a dictionary far behind in one process. Around a Python tokenizer the loop stays a loop; there
each worker reads a range of the files itself and fills one dictionary, and the dictionaries are merged once, since
sending and merging one for each batch costs more than it saves. See https://kexue.fm/archives/7031 (the question).
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskplay import corpus
from maskplay.corpus.places import check_field
from maskplay.errors import UserError, whole_number
from maskplay.storage import new_file
from maskplay.words.budget import Budget
from maskplay.words.cutting import Segmenter, groups
from maskplay.words.engine import engine
from maskplay.words.found import ROWS, checked_ending, escaped, parquet_file
from maskplay.words.grams import Grams, Rule, unpacked
from maskplay.words.parallel import checked_workers, parallel_map
from maskplay.words.reader import Reader
from maskplay.words.symbols import MOST, Alphabet, Kept

EVERYTHING = [(0, ord("\n") - 1), (ord("\n") + 1, 0x10FFFF)]  # characters; a line end ends a run
ANY = 4  # characters of an n-gram whose ids fit 64 bits, however many different ones there are
BATCH = 2**20  # characters of lines that are sent to a worker where it cannot read them itself
LARGE_BATCH = 2**23  # the same where most words are new: to merge a dictionary costs as much as to count what is in it
SAMPLE, MOSTLY_NEW = 2**16, 0.4  # characters that are looked at, and the share of different words from which it is so
FORMATS = (".tsv", ".parquet")

Tokenizer = Callable[[str], Iterable[str]]
Progress = Callable[[str, int, int], object]


class Count(NamedTuple):
    """A text and how often it occurs.

    Example:
        >>> Count("一", 3).count
        3
    """

    text: str
    count: int


class Counts:
    """Counts of distinct texts, the most frequent first, equally frequent ones in the order of their characters.

    Attributes:
        count: how often each occurs, int64 of shape (texts,).

    Example:
        >>> counts = count(iter(["一二一二一"]), n=2)
        >>> list(counts)
        [Count(text='一二', count=2), Count(text='二一', count=2)]
        >>> counts, "一二" in counts
        (Counts(different=2, total=4), True)
    """

    def __init__(self, count: NDArray[np.int64], texts: Callable[[int, int], list[str]]) -> None:
        self.count = count
        self._texts = texts

    def __len__(self) -> int:
        return len(self.count)

    def __repr__(self) -> str:
        return f"Counts(different={len(self)}, total={self.total})"

    def __contains__(self, text: object) -> bool:
        return any(text in texts for texts, _ in self._parts())

    def __iter__(self) -> Iterator[Count]:
        for texts, counts in self._parts():
            yield from map(Count, texts, counts)

    def _parts(self) -> Iterator[tuple[list[str], list[int]]]:
        for start in range(0, len(self), ROWS):
            stop = min(start + ROWS, len(self))
            yield self._texts(start, stop), self.count[start:stop].tolist()

    def counts(self) -> dict[str, int]:
        """Each text's count."""
        return {text: count for texts, counts in self._parts() for text, count in zip(texts, counts)}

    @property
    def total(self) -> int:
        """How often they occur together; what `min_count` left out does not count."""
        return int(self.count.sum())

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file, whole or not at all.

        Args:
            path: ends in `.tsv` (a header, then text and count; a tab, return, line feed or backslash in a text is
                written as \\t, \\r, \\n, \\\\) or `.parquet` (needs pyarrow).

        Raises:
            UserError: another ending.
            MissingExtra: pyarrow is not installed.
        """
        if checked_ending(path, FORMATS) == ".parquet":
            # Half a surrogate pair, which no file holds, becomes a question mark, as below.
            parts = self._parts()
            rows = ([[text.encode("utf-8", "replace").decode() for text in texts], counts] for texts, counts in parts)
            parquet_file(path, {"text": str, "count": int}, rows)
            return
        with new_file(path) as file:
            file.write(b"text\tcount\n")
            for texts, counts in self._parts():
                lines = "".join(f"{escaped(text)}\t{count}\n" for text, count in zip(texts, counts))
                file.write(lines.encode("utf-8", "replace"))


def count(
    sources: corpus.Sources,
    *,
    n: int | None = None,
    tokenizer: Tokenizer | None = None,
    min_count: int = 1,
    field: str = "text",
    workers: int = 1,
    start_method: str | None = None,
    memory: int | str | None = None,
    folder: str | os.PathLike[str] | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Counts:
    """Count the n-grams of characters, or the words, of a corpus.

    Args:
        sources: files, folders, patterns, or texts; see `maskplay.corpus.lines`.
        n: characters of an n-gram; all characters count, none reaches over a line end (or over half a surrogate pair,
            which Python's texts may hold and files do not). From 1 on, as far as n ids of the characters that occur
            `min_count` times or more fit 64 bits: 4 always, 5 of up to 4,095 characters, 6 of up to 1,023.
        tokenizer: instead of n: a function from a line without its end to its words.
        min_count: leave out what is rarer.
        field: of JSON lines.
        workers: threads for n-grams; processes for a tokenizer, which then must be importable.
        start_method: of a tokenizer's processes: fork, spawn or forkserver; default what `multiprocessing` is set to.
        memory, folder, cluster: of n-grams, as for `maskplay.words.discover`. (The different n-grams themselves, which
            are the result, have to fit.)
        progress: called with a step's name, how much of it is done, and of how much.

    Raises:
        UserError: an option or a place makes no sense, or n is too large for so many characters.
        DataError: a file is damaged; one line with its name and the line.
        Exception: whatever the tokenizer raises.

    Example:
        >>> list(count(iter(["a b a", "b a"]), tokenizer=str.split))
        [Count(text='a', count=3), Count(text='b', count=2)]
    """
    if (n is None) == (tokenizer is None):
        raise UserError("expected either n or a tokenizer")
    min_count = whole_number("min_count", min_count, 1)
    workers = checked_workers(workers)
    tell = progress or (lambda step, done, of: None)
    check_field(sources, field)
    if tokenizer is not None:
        if not callable(tokenizer):
            raise UserError(f"tokenizer: expected a function from a line to its words, found {tokenizer!r:.40}")
        for name, value in (("cluster", cluster), ("memory", memory), ("folder", folder)):
            if value is not None:
                raise UserError(f"{name}: it is for n-grams; the words of a tokenizer are counted in memory here")
        return _count_words(sources, tokenizer, min_count, field, workers, start_method, tell)
    if start_method is not None:
        raise UserError("start_method: it is for processes; n-grams are counted by threads")
    n = whole_number("n", n, 1)
    reading = partial(_reader, field, n > ANY)
    budget = Budget(memory, 1 if cluster is not None else workers)
    with engine(reading, sources, workers, folder, cluster, budget, tell) as counter:
        alphabet = counter.read()
        bits = max(1, len(alphabet).bit_length())
        if len(alphabet) == MOST:
            raise UserError(f"n: a corpus of more than {MOST - 1:,} different characters cannot be counted")
        if n * bits > 64:  # the frequent ones, of which all that is kept is made, come first
            often = int(np.count_nonzero(alphabet.counts >= min_count))
            bits = max(1, often.bit_length())
            if n * bits > 64:
                raise UserError(
                    f"n: {n} of {often} different characters that occur {min_count} times or more do not fit 64 bits; "
                    "expected a smaller n or a greater min_count"
                )
        if n == 1:
            grams = Grams(1, bits, np.arange(1, len(alphabet) + 1, dtype=np.uint64), alphabet.counts[1:])
        else:
            grams = counter.grams(Rule(bits, n, min_count, lower=False))[n]
    return _sorted_grams(grams, alphabet, min_count)


def _reader(field: str, frequent_first: bool, sources: corpus.Sources, folder: Path, budget: Budget) -> Reader:
    return Reader(sources, Kept(EVERYTHING), field, folder, budget, frequent_first)


def _sorted_grams(grams: Grams, alphabet: Alphabet, least: int) -> Counts:
    points = np.array([0, *map(ord, alphabet.symbols[1:])], np.uint32)
    if grams.order > ANY:  # shorter n-grams come in the order of their text
        by_text = _by_text(grams, points)
        grams = Grams(grams.order, grams.bits, grams.keys[by_text], grams.counts[by_text])
    order = _falling(grams.counts)
    order = order[: np.count_nonzero(grams.counts >= least)]
    texts = partial(_texts_of_keys, grams.keys[order], grams.order, grams.bits, points, "\0" in alphabet.symbols)
    return Counts(grams.counts[order], texts)


def _texts_of_keys(
    keys: NDArray[np.uint64], n: int, bits: int, points: NDArray[np.uint32], zeros: bool, start: int, stop: int
) -> list[str]:
    found = np.ascontiguousarray(points[unpacked(keys[start:stop], n, bits)])
    if zeros:  # which NumPy takes for the end of a text
        return [row.tobytes().decode("utf-32-le") for row in found]
    return found.view(f"<U{n}")[:, 0].tolist()


def _by_text(grams: Grams, points: NDArray[np.uint32]) -> NDArray[np.int64]:
    """N-grams in the order of their characters: of keys in which each has its rank instead of its id."""
    ranks = np.argsort(np.argsort(points[: 1 << grams.bits], kind="stable")).astype(np.uint64)
    keys = np.zeros_like(grams.keys)
    for place in range(grams.order):
        shift = np.uint64(place * grams.bits)
        keys |= ranks[(grams.keys >> shift) & np.uint64((1 << grams.bits) - 1)] << shift
    return np.argsort(keys)


def _falling(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places by falling count, those of equal counts as they come."""
    most = 2**16 - 1
    short = np.minimum(counts, most).astype(np.uint16)  # which NumPy sorts in linear time
    order = np.argsort(most - short, kind="stable")
    frequent = order[: np.count_nonzero(short == most)]
    order[: len(frequent)] = frequent[np.argsort(-counts[frequent], kind="stable")]
    return order


def _count_words(
    sources: corpus.Sources,
    tokenizer: Tokenizer,
    least: int,
    field: str,
    workers: int,
    start_method: str | None,
    tell: Progress,
) -> Counts:
    groups = corpus.parts(sources, workers) if corpus.are_places(sources) else []
    if any(part.path == corpus.STDIN for group in groups for part in group):
        groups = []  # processes have none
    work: Callable = partial(_words_of_files, tokenizer, field)
    items: Iterable = groups
    if len(groups) < min(2, workers):  # one packed file, or texts from Python: read here, sent in batches
        work, items = partial(_words_of_lines, tokenizer), _batches(corpus.lines(sources, field), tokenizer)
    if workers == 1 and not groups:
        work, items = partial(_words_of_lines, tokenizer), [corpus.lines(sources, field)]
    found: Counter[str] = Counter()
    step, parts = 0, len(groups) if items is groups else 0  # how many batches will come nobody knows
    for step, some in enumerate(parallel_map(work, items, workers, start_method=start_method), 1):
        found.update(some)
        tell("counting", step, parts or step + 1)
    if not parts:
        tell("counting", step, step)
    rows = sorted((-count, text) for text, count in found.items() if count >= least)
    texts = [text for _, text in rows]
    return Counts(np.array([-count for count, _ in rows], np.int64), partial(_texts_of_list, texts))


def _texts_of_list(texts: list[str], start: int, stop: int) -> list[str]:
    return texts[start:stop]


def _words_of_files(tokenizer: Tokenizer, field: str, parts: list[corpus.Part]) -> Counter[str]:
    return _words_of_lines(tokenizer, corpus.lines(parts, field))


def _words_of_lines(tokenizer: Tokenizer, lines: Iterable[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    if isinstance(tokenizer, Segmenter):  # whose words are the whole line, white space too
        for some in groups(lines):
            for words in tokenizer.many(some):
                found.update(word for word in words if not word.isspace())
        return found
    for line in lines:
        found.update(iter(tokenizer(line)))
    if others := [word for word in found if not isinstance(word, str)]:
        raise UserError(f"tokenizer: expected words, which are texts, found {others[0]!r:.60}")
    return found


def _batches(lines: Iterator[str], tokenizer: Tokenizer) -> Iterator[list[str]]:
    first, seen = [], 0
    for line in lines:
        first.append(line)
        seen += len(line)
        if seen > SAMPLE:
            break
    size = BATCH if _share_of_new(tokenizer, first) < MOSTLY_NEW else LARGE_BATCH
    batch, length = [], 0
    for line in chain(first, lines):
        batch.append(line)
        length += len(line)
        if length > size:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _share_of_new(tokenizer: Tokenizer, lines: list[str]) -> float:
    """Different words by all words of some lines."""
    try:
        found = _words_of_lines(tokenizer, lines)
    except Exception:  # a worker will meet it, and say where
        return 0.0
    return len(found) / max(1, found.total())
