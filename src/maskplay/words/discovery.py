"""New words from raw text, after Su Jianlin's method: n-grams that hold together, and what is left when text is cut
where none lies across.

An n-gram is cohesive when it is more frequent than any way to split it explains. Text is cut wherever no cohesive
n-gram lies across the place, the pieces are counted, and a last look removes those that came about by chance.
Sources: https://kexue.fm/archives/4256 (the method), https://kexue.fm/archives/6920 (the program).
"""

import math
import os
import re
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskplay import corpus
from maskplay.corpus.places import check_field, stem
from maskplay.errors import MissingExtra, UserError, whole_number, within
from maskplay.words import original
from maskplay.words.budget import COUNT_BYTES, MEMBER_BYTES, WINDOW_BYTES, WORD_BYTES, Budget
from maskplay.words.candidates import Candidates
from maskplay.words.cutting import HAN
from maskplay.words.engine import engine
from maskplay.words.found import Found, counted
from maskplay.words.grams import Grams, Rule, unpacked
from maskplay.words.parallel import checked_workers
from maskplay.words.reader import OriginalReader, Progress, Reader
from maskplay.words.symbols import MOST, Kept
from maskplay.words.trie import Trie

COHESION = (2.0, 4.0, 6.0)  # nats, for n-grams of 2, 3, 4; the original's
ALPHANUMERIC = [(ord("0"), ord("9")), (ord("a"), ord("z")), (ord("A"), ord("Z"))]
MODES = ("exact", "faithful")
HEADER = re.compile(r"(word|text)(\t\D.*)?")  # of a table, whose second column would else begin with a count


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
    known: str | os.PathLike[str] | Iterable[str] | Found = (),
    not_first: str = "",
    not_last: str = "",
    runs: bool = False,
    field: str = "text",
    workers: int = 1,
    memory: int | str | None = None,
    folder: str | os.PathLike[str] | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Found:
    """Find the words of a corpus.

    Chinese characters (of all planes), ASCII letters and digits are counted; anything else, spaces too, ends a run, and
    no word reaches over it. The result is the same whatever the order of the lines, `workers`, `memory` and `cluster`
    are.

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
        known: words to leave out: an iterable, what was found or counted elsewhere, a file with one a line (what
            follows a tab, or a space where there is no tab, is ignored), or "jieba" for its dictionary.
        not_first, not_last: characters with which no word may begin or end, "的了" for instance.
        runs: keep each run of ASCII letters and digits whole, as one symbol ("iPhone15"); exact mode only.
        field: of JSON lines.
        workers: threads (the work is NumPy's, which lets them run at once); processes with `cluster="local"`.
        memory: most bytes for the whole process, a number or "1G"; beyond it work goes through files. Default: all that
            it takes, about 2 bytes for each byte of the corpus. Each further worker takes 12 MB of it. On a cluster, of
            each worker.
        folder: where such files go, in a folder that is removed at the end; default the system's place for them. On a
            cluster, a folder that all machines share, or a URL that fsspec knows ("s3://bucket/scratch").
        cluster: count on a Ray cluster, whose machines must see the sources: "local" starts one on this machine, "auto"
            joins one that runs here; or the address of its head, "host:port" or "ray://host:port".
        progress: called with a step's name, how much of it is done, and of how much.

    Raises:
        UserError: an option or a place makes no sense, or `memory` is too small.
        DataError: a file is damaged; one line with its name and the line.
        MissingExtra: `cluster` without Ray.

    Example:
        >>> text = ["天地玄黄", "宇宙，玄黄", "宇宙洪荒", "天地，宇宙"]
        >>> for word in discover(iter(text), min_count=2, min_length=2, cohesion=(1.0,)):
        ...     print(word.word, word.frequency)
        宇宙 3
        天地 2
        玄黄 2
    """
    if mode not in MODES:
        raise UserError(f"mode: expected {' or '.join(MODES)}, found {mode!r:.40}")
    faithful = mode == "faithful"
    least_cohesion = _checked_cohesion(cohesion, faithful)
    if min_count is not None:
        min_count = whole_number("min_count", min_count, 1)
    if not within(min_freedom, 0, sys.float_info.max):
        raise UserError(f"min_freedom: expected nats from 0 on, found {min_freedom!r:.40}")
    if not within(min_alone, 0, 1):
        raise UserError(f"min_alone: expected a share from 0 to 1, found {min_alone!r:.40}")
    min_length = whole_number("min_length", min_length, 1)
    if max_length is not None and whole_number("max_length", max_length, 1) < min_length:
        raise UserError(f"max_length: expected at least min_length, {min_length}, found {max_length!r:.40}")
    for name, edge in (("not_first", not_first), ("not_last", not_last)):
        if not isinstance(edge, str):
            raise UserError(f"{name}: expected a text of the characters, found {edge!r:.40}")
    if faithful and runs:
        raise UserError("runs: the original cuts no text into runs; use mode='exact'")
    unknown = _checked_known(known)
    workers = checked_workers(workers)
    threads = 1 if cluster is not None else workers
    budget = Budget(memory, threads)
    tell = progress or (lambda step, done, of: None)
    check_field(sources, field)
    with engine(partial(_reader, faithful, runs, field), sources, workers, folder, cluster, budget, tell) as counter:
        alphabet = counter.read()
        least = min_count or (32 if faithful else default_min_count(alphabet.total))
        if alphabet.lost >= least:
            raise UserError(
                f"min_count: more than {MOST:,} different symbols occur {least} times or more; expected a greater one"
                + (", or runs that are not kept whole" if runs else "")
            )
        order = len(least_cohesion) + 1
        bits = max(1, len(alphabet).bit_length())
        often = int(np.count_nonzero(alphabet.counts >= least))
        if order * bits > 64 and not faithful:  # the frequent ones, of which all that is kept is made, come first
            bits = max(1, often.bit_length())
        if order * bits > 64:
            raise UserError(
                f"cohesion: n-grams of {order} out of {often} different symbols that occur {least} times or more do "
                f"not fit 64 bits; expected at most {64 // bits - 1} thresholds, or a greater min_count"
            )
        if faithful:
            marks = (original.START, original.END)  # of which a corpus without text has none
            start, end = (alphabet.symbols.index(mark) if mark in alphabet.symbols else 0 for mark in marks)
            windows = counter.grams(Rule(bits, order, least, lower=False, unwanted=start))[order]
            budget.check(len(windows.keys), WINDOW_BYTES, f"windows occur {least} times or more")
            total, grams = original.gram_counts(windows, start, end)
            characters = alphabet.total - int(alphabet.counts[[start, end]].sum())
            single = np.zeros(len(alphabet) + 1, np.int64)
            single[grams[1].keys.astype(np.int64)] = grams[1].counts
        else:
            grams = counter.grams(Rule(bits, order, least, lower=True))
            total = characters = alphabet.total
            single = np.where(alphabet.counts >= least, alphabet.counts, 0)
        members = {n: _cohesive(grams, n, single, total, least_cohesion[n - 2]) for n in range(2, order + 1)}
        del grams
        each = MEMBER_BYTES + COUNT_BYTES * threads
        budget.check(sum(len(keys) for keys, _ in members.values()), each, "n-grams hold together")
        trie = Trie({n: unpacked(keys, n, bits) for n, (keys, _) in members.items()})
        tokens = counter.tokens(trie, order)
        budget.check(tokens.frequent(least), WORD_BYTES, f"tokens occur {least} times or more")
        words = Candidates(alphabet, members, tokens, bits, order, least)
        words.keep(min_length, math.inf if max_length is None else max_length, unknown, not_first, not_last)
        occurrences, left, right = counter.measure(words.trie())
        return words.table(alphabet, occurrences, left, right, min_freedom, min_alone, least, characters)


def _reader(
    faithful: bool, runs: bool, field: str, sources: corpus.Sources, folder: Path, budget: Budget
) -> OriginalReader | Reader:
    if faithful:
        return OriginalReader(sources, field, folder, budget)
    return Reader(sources, Kept([*ALPHANUMERIC, *HAN], runs), field, folder, budget, frequent_first=True)


def default_min_count(characters: int) -> int:
    """The least frequency of a word in a corpus of so many characters.

    Example:
        >>> default_min_count(1_000_000), default_min_count(33_000_000), default_min_count(500_000_000)
        (10, 32, 72)
    """
    size = characters / 10_000_000 if characters < 10_000_000 else max(1.0, characters / 100_000_000)
    return max(2, round(32 * math.sqrt(size)))


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


def _checked_cohesion(cohesion: Iterable[float], faithful: bool) -> list[float]:
    try:
        values = [] if isinstance(cohesion, str) else [float(value) for value in cohesion]
    except (TypeError, ValueError):
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise UserError(f"cohesion: expected a list of numbers, the first for n-grams of 2, found {cohesion!r:.60}")
    if faithful and len(values) != original.ORDER - 1:
        raise UserError(f"cohesion: the original has {original.ORDER - 1} thresholds, found {len(values)}")
    return values


def _checked_known(known: str | os.PathLike[str] | Iterable[str] | Found) -> set[str]:
    if isinstance(known, str) and known == "jieba":
        try:
            import jieba
        except ImportError:
            raise MissingExtra("leaving out jieba's words", "words") from None
        known = Path(jieba.__file__).with_name("dict.txt")
    if isinstance(known, Found) or hasattr(known, "counts"):  # what was found or counted
        return {*counted(known, "known")}
    if isinstance(known, (str, os.PathLike)):
        lines = [line for line in corpus.lines(corpus.file(known)) if line.strip()]
        header = stem(Path(known)).endswith(".tsv") and HEADER.fullmatch("".join(lines[:1])) is not None
        return {line.split("\t" if "\t" in line else None, 1)[0] for line in lines[header:]}
    if not isinstance(known, Iterable):
        raise UserError(f"known: expected words or a file of them, found {known!r:.60}")
    words = set(known)
    if others := [word for word in words if not isinstance(word, str)]:
        raise UserError(f"known: expected words, found {others[0]!r:.60}")
    return words
