"""New words from raw text, after Su Jianlin's method: n-grams that hold together, and what is left when text is cut
where none lies across.

An n-gram is cohesive when it is more frequent than any way to split it explains. Text is cut wherever no cohesive
n-gram lies across the place, the pieces are counted, and a last look removes those that came about by chance.
Sources: https://kexue.fm/archives/4256 (the method), https://kexue.fm/archives/6920 (the program).
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskplay import corpus
from maskplay.errors import MissingExtra, UserError
from maskplay.words import freedom, original
from maskplay.words.budget import Budget
from maskplay.words.found import Found
from maskplay.words.grams import Grams, count_grams, unpacked
from maskplay.words.parallel import checked_workers, thread_map
from maskplay.words.symbols import Alphabet, Ids, Kept, Spool, Tally
from maskplay.words.tokens import Tokens, count_tokens
from maskplay.words.trie import Trie

COHESION = (2.0, 4.0, 6.0)  # nats, for n-grams of 2, 3, 4; the original's
HAN = [(0x3007, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)]
ALPHANUMERIC = [(ord("0"), ord("9")), (ord("a"), ord("z")), (ord("A"), ord("Z"))]
MODES = ("exact", "faithful")
BLOCK = 2**20  # characters encoded at a time

Progress = Callable[[str, int, int], object]


def discover(
    sources: corpus.Sources,
    *,
    mode: str = "exact",
    min_count: int | None = None,
    cohesion: Iterable[float] = COHESION,
    min_freedom: float = 0.0,
    min_alone: float = 0.0,
    min_length: int = 1,
    max_length: int | None = None,
    known: str | os.PathLike[str] | Iterable[str] = (),
    not_first: str = "",
    not_last: str = "",
    runs: bool = False,
    field: str = "text",
    workers: int = 1,
    memory: int | str | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Found:
    """Find the words of a corpus.

    Chinese characters (of all planes), ASCII letters and digits are counted; anything else, spaces too, ends a run, and
    no word reaches over it. The result is the same whatever the order of the lines, `workers` and `memory` are.

    Args:
        sources: files, folders, patterns, or texts; see `maskplay.corpus.lines`.
        mode: "exact" counts n-grams as they are. "faithful" counts like the original program, whose words and counts it
            gives (see `maskplay.words.original`): spaces are passed over in counting, only U+4E00 to U+9FA5, ASCII
            letters and digits are kept.
        min_count: the least frequency. Default: 32 for corpora of 10 to 100 million characters (and in faithful mode
            always); outside it changes with the square root of their size, down to 2.
        cohesion: least cohesion, in nats, of n-grams of 2, 3, 4, …; their number sets the greatest n. A ratio of
            probabilities, so it need not change with the corpus.
        min_freedom: least entropy, in nats, of both sides; 1.5 removes most pieces of words.
        min_alone: least share of a word's occurrences outside longer words; 0.1 removes most nested pieces.
        min_length, max_length: characters of a word. (Single characters are found too, with nan for what only longer
            ones have.)
        known: words to leave out: an iterable, a file with one a line (what follows a space or tab is ignored), or
            "jieba" for its dictionary.
        not_first, not_last: characters with which no word may begin or end, "的了" for instance.
        runs: keep each run of ASCII letters and digits whole, as one symbol ("iPhone15"); exact mode only.
        field: of JSON lines.
        workers: threads (the work is NumPy's, which lets them run at once).
        memory: most bytes for the whole process, a number or "1G"; beyond it work goes through files. Default: all that
            it takes, about 2 bytes for each byte of the corpus.
        folder: where such files go, in a folder that is removed at the end; default the system's place for them.
        progress: called with a step's name, how much of it is done, and of how much.

    Raises:
        UserError: an option or a place makes no sense, or `memory` is too small.
        DataError: a file is damaged; one line with its name and the line.

    Example:
        >>> text = ["天地玄黄宇宙洪荒", "宇宙之大玄黄之色", "天高地迥觉宇宙之无穷", "玄黄宇宙"]
        >>> for word in discover(iter(text), min_count=2, cohesion=(1.0,), min_length=2):
        ...     print(word.word, word.frequency)
        宇宙 4
        玄黄 3
    """
    if mode not in MODES:
        raise UserError(f"mode: expected {' or '.join(MODES)}, found {mode!r:.40}")
    faithful = mode == "faithful"
    least_cohesion = _checked_cohesion(cohesion, faithful)
    if min_count is not None and (not isinstance(min_count, int) or min_count < 1):
        raise UserError(f"min_count: expected a number from 1 on, found {min_count!r:.40}")
    if faithful and runs:
        raise UserError("runs: the original cuts no text into runs; use mode='exact'")
    unknown = _checked_known(known)
    workers = checked_workers(workers)
    budget = Budget(memory)
    tell = progress or (lambda step, done, of: None)
    holder = Path(tempfile.mkdtemp(prefix=".maskplay-words-", dir=folder))
    try:
        reader = _Reader(sources, faithful, runs, field, holder, budget)
        alphabet, ids = reader.read(workers, tell)
        least = min_count or (32 if faithful else default_min_count(alphabet.total))
        order = len(least_cohesion) + 1
        bits = max(1, len(alphabet).bit_length())
        if order * bits > 64:
            raise UserError(
                f"cohesion: {order} thresholds' n-grams of {len(alphabet)} different symbols do not fit 64 bits; "
                f"expected at most {64 // bits - 1} thresholds"
            )
        if faithful:
            total, single, grams = reader.original_counts(alphabet, bits, least, workers, tell)
        else:
            grams = count_grams(
                ids,
                alphabet.counts,
                bits,
                order,
                least,
                lower=True,
                workers=workers,
                memory=budget.part(2),
                folder=holder,
                progress=lambda done, of: tell("counting", done, of),
            )
            total, single = alphabet.total, np.where(alphabet.counts >= least, alphabet.counts, 0)
        members = {n: _cohesive(grams, n, single, total, least_cohesion[n - 2]) for n in range(2, order + 1)}
        del grams
        trie = Trie({n: unpacked(keys, n, bits) for n, (keys, _) in members.items()})
        tokens = count_tokens(
            ids, trie, order, len(alphabet), workers, lambda done, of: tell("cutting", done, of)
        )
        words = _Words(alphabet, members, tokens, bits, order, least)
        words.keep(min_length, max_length or math.inf, unknown, not_first, not_last)
        occurrences, left, right = freedom.measure(
            ids, words.trie(), workers, budget.part(4), lambda done, of: tell("measuring", done, of)
        )
        return words.table(
            alphabet.counts, occurrences, left, right, min_freedom, min_alone, alphabet.total, least
        )
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def default_min_count(characters: int) -> int:
    """The least frequency of a word in a corpus of so many characters.

    Example:
        >>> default_min_count(1_000_000), default_min_count(33_000_000), default_min_count(500_000_000)
        (10, 32, 72)
    """
    size = characters / 10_000_000 if characters < 10_000_000 else max(1.0, characters / 100_000_000)
    return max(2, round(32 * math.sqrt(size)))


class _Reader:
    """Text to ids: counted while it is read, numbered when all is known."""

    def __init__(
        self, sources: corpus.Sources, faithful: bool, runs: bool, field: str, folder: Path, budget: Budget
    ) -> None:
        self.sources, self.faithful, self.field, self.folder, self.budget = sources, faithful, field, folder, budget
        self.kept = Kept(original.RANGES if faithful else [*ALPHANUMERIC, *HAN], runs)
        limit = budget.part(8 if faithful else 4)
        self.spool = Spool(folder / "codes", limit)
        self.windows = Spool(folder / "windows", limit)
        self.tally = Tally()

    def read(self, workers: int, tell: Progress) -> tuple[Alphabet, Ids]:
        """The symbols of the corpus and its ids."""
        if corpus.are_places(self.sources):
            parts: list = corpus.parts(self.sources, 16 * workers)
        else:
            parts = [self.sources]
        if self.faithful:
            before = np.full(original.ORDER - 1, ord(original.START), np.uint16)  # the first line
            self.windows.add(before)
            self.tally += Tally(np.bincount(before, minlength=65536))
        for step, tally in enumerate(thread_map(self._read, parts, workers)):
            self.tally += tally
            tell("reading", step + 1, len(parts))
        alphabet = Alphabet(self.kept, self.tally)
        return alphabet, self._ids(self.spool, alphabet)

    def _read(self, part: corpus.Sources) -> Tally:
        tally = Tally()
        if self.faithful:
            for text in original.cleaned(corpus.lines(part, self.field)):
                codes, padded, found = original.encode(self.kept, text)
                self.spool.add(codes)
                self.windows.add(padded)
                tally += found
        else:
            for text in self.kept.whole(corpus.blocks(part, self.field, BLOCK)):
                codes, found = self.kept.encode(text)
                self.spool.add(codes)
                tally += found
        return tally

    def _ids(self, spool: Spool, alphabet: Alphabet) -> Ids:
        return Ids(map(alphabet.ids, spool.take()), spool.length, spool.limit, spool.path.with_suffix(".ids"))

    def original_counts(
        self, alphabet: Alphabet, bits: int, least: int, workers: int, tell: Progress
    ) -> tuple[int, NDArray[np.int64], dict[int, Grams]]:
        """What the original counts: a total, single symbols, and longer n-grams."""
        start, end = (alphabet.symbols.index(mark) for mark in (original.START, original.END))
        windows = count_grams(
            self._ids(self.windows, alphabet),
            alphabet.counts,
            bits,
            original.ORDER,
            least,
            lower=False,
            workers=workers,
            memory=self.budget.part(2),
            folder=self.folder,
            unwanted=start,
            progress=lambda done, of: tell("counting", done, of),
        )[original.ORDER]
        total, grams = original.gram_counts(windows, start, end)
        single = np.zeros(len(alphabet) + 1, np.int64)
        single[grams[1].keys.astype(np.int64)] = grams[1].counts
        return total, single, grams


def _cohesive(
    grams: dict[int, Grams], n: int, single: NDArray[np.int64], total: int, least: float
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """The n-grams that hold together, with their cohesion: the least ln(total·c(w) / (c(u)·c(v))) over splits w = uv.

    A side that was not counted is given the total, which is to say that it explains nothing.
    """
    mine = grams[n]
    ratios = np.full(len(mine.keys), np.inf)
    for head in range(1, n):
        bits = mine.bits * (n - head)  # of the tail
        heads, tails = mine.keys >> np.uint64(bits), mine.keys & np.uint64((1 << bits) - 1)
        sides = []
        for order, keys in ((head, heads), (n - head, tails)):
            counts = single[keys.astype(np.int64)] if order == 1 else grams[order].count(keys)
            sides.append(np.where(counts > 0, counts, total).astype(np.float64))
        ratios = np.minimum(ratios, float(total) * mine.counts / (sides[0] * sides[1]))
    values = np.log(ratios)
    wanted = values >= least
    return mine.keys[wanted], values[wanted]


class _Words:
    """What becomes of the tokens: rows of ids grouped by length, each with its count and cohesion."""

    def __init__(
        self,
        alphabet: Alphabet,
        members: dict[int, tuple[NDArray[np.uint64], NDArray[np.float64]]],
        tokens: Tokens,
        bits: int,
        order: int,
        least: int,
    ) -> None:
        self.alphabet = alphabet
        ids = np.flatnonzero(tokens.single >= least)
        self.rows: dict[int, NDArray] = {1: ids[:, None]}
        self.counts: dict[int, NDArray] = {1: tokens.single[ids]}
        self.cohesion: dict[int, NDArray] = {1: np.full(len(ids), np.nan)}
        start = 0
        for n, (keys, values) in members.items():
            counts = tokens.members[start : start + len(keys)]
            start += len(keys)
            some = np.flatnonzero(counts >= least)
            self.rows[n], self.counts[n] = unpacked(keys[some], n, bits), counts[some]
            self.cohesion[n] = values[some]
        longer: dict[int, list[tuple[bytes, int]]] = {}
        for token, count in tokens.longer.items():
            if count >= least:
                longer.setdefault(len(token) // 2, []).append((token, count))
        keys, values = members[order]
        shifts = (np.arange(order - 1, -1, -1) * bits).astype(np.uint64)
        for n, some in longer.items():
            rows = np.frombuffer(b"".join(token for token, _ in some), np.uint16).reshape(-1, n)
            windows = np.lib.stride_tricks.sliding_window_view(rows.astype(np.uint64), order, axis=1)
            places = np.searchsorted(keys, (windows << shifts).sum(-1, dtype=np.uint64))
            self.rows[n], self.counts[n] = rows.astype(np.int64), np.array([count for _, count in some])
            self.cohesion[n] = values[places].min(axis=1)
        self.texts = {n: [alphabet.text(row) for row in rows.tolist()] for n, rows in self.rows.items()}

    def keep(self, shortest: float, longest: float, known: set[str], not_first: str, not_last: str) -> None:
        """Leave out what is known, too short or long, or has a forbidden edge."""
        for n, texts in self.texts.items():
            wanted = [
                shortest <= len(text) <= longest
                and text not in known
                and text[0] not in not_first
                and text[-1] not in not_last
                for text in texts
            ]
            self._choose(n, np.flatnonzero(wanted))

    def _choose(self, n: int, places: NDArray[np.int64]) -> None:
        for columns in (self.rows, self.counts, self.cohesion):
            columns[n] = columns[n][places]
        self.texts[n] = [self.texts[n][place] for place in places.tolist()]

    def trie(self) -> Trie:
        """Of all words of more than one symbol."""
        return Trie({n: self.rows[n] for n in sorted(self.rows) if n > 1})

    def table(
        self,
        singles: NDArray[np.int64],
        occurrences: NDArray[np.int64],
        left: NDArray[np.float64],
        right: NDArray[np.float64],
        min_freedom: float,
        min_alone: float,
        characters: int,
        least: int,
    ) -> Found:
        """All columns together, the most frequent words first."""
        orders = sorted(self.rows)
        ones = len(self.rows[1])
        texts = [text for n in orders for text in self.texts[n]]
        frequency = np.concatenate([self.counts[n] for n in orders])
        cohesion = np.concatenate([self.cohesion[n] for n in orders])
        lengths = np.repeat(orders, [len(self.rows[n]) for n in orders])
        nothing = np.full(ones, np.nan)
        all_ = np.concatenate([singles[self.rows[1][:, 0]], occurrences])
        left, right = (np.concatenate([nothing, side]) for side in (left, right))
        score = cohesion / np.maximum(1, lengths - 1) + np.minimum(left, right)
        wanted = (lengths == 1) | (np.minimum(left, right) >= min_freedom)
        wanted &= frequency >= min_alone * all_
        order = [i for i in sorted(range(len(texts)), key=lambda i: (-frequency[i], texts[i])) if wanted[i]]
        columns = (column[order] for column in (frequency, all_, cohesion, left, right, score))
        word = np.array([texts[i] for i in order], dtype=np.dtypes.StringDType())
        return Found(word, *columns, characters=characters, min_count=least)


def _checked_cohesion(cohesion: Iterable[float], faithful: bool) -> list[float]:
    values = [float(value) for value in cohesion]
    if not values or not all(map(math.isfinite, values)):
        raise UserError(f"cohesion: expected numbers, the first for n-grams of 2, found {values}")
    if faithful and len(values) != original.ORDER - 1:
        raise UserError(f"cohesion: the original has {original.ORDER - 1} thresholds, found {len(values)}")
    return values


def _checked_known(known: str | os.PathLike[str] | Iterable[str]) -> set[str]:
    if known == "jieba":
        try:
            import jieba
        except ImportError:
            raise MissingExtra("leaving out jieba's words", "words") from None
        known = Path(jieba.__file__).with_name("dict.txt")
    if isinstance(known, (str, os.PathLike)):
        return {line.split()[0] for line in corpus.lines(known) if line.strip()}
    return set(known)
