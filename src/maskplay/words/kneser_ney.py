"""Character n-gram models from raw text: interpolated Kneser-Ney smoothing with three discounts.

A sentence is what stands between white space and line ends, its two marks around it. The n-grams come from the counting
engine; all that follows is arithmetic on sorted columns. An n-gram below the highest order is weighed by how many
different characters stand before it, not by how often it occurs: 港 is frequent, but only behind 香.

Source: Chen and Goodman 1998, An Empirical Study of Smoothing Techniques for Language Modeling, section 3 (TR-10-98).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskplay import corpus
from maskplay.corpus.places import check_field
from maskplay.errors import UserError, whole_number
from maskplay.words.budget import Budget
from maskplay.words.grams import Grams, Rule, U, count_grams
from maskplay.words.ngram_model import BITS, END, NOWHERE, START, UNKNOWN, Level, NgramModel, marked
from maskplay.words.parallel import checked_workers
from maskplay.words.reader import BLOCK, Progress, Reader
from maskplay.words.symbols import Kept, Tally

BLANK = [i for i in range(0x3001) if chr(i).isspace() or i < 32]
TEXT = [(first + 1, last - 1) for first, last in zip(BLANK, [*BLANK[1:], 0x110000]) if first + 1 < last]
MARKS = (1, 2)  # codes of the marks, control characters that are not kept; first in order, they are the ids too
DISCOUNTS = (0.5, 1.0, 1.5)  # where a corpus is too small to estimate any


def train_ngrams(
    sources: corpus.Sources,
    *,
    order: int = 4,
    min_count: int = 2,
    field: str = "text",
    workers: int = 1,
    progress: Progress | None = None,
) -> NgramModel:
    """Train a character n-gram model.

    Args:
        sources: files, folders, patterns, or texts; see `maskplay.corpus.lines`.
        order: characters of the longest n-grams, from 2 on; as far as that many ids of the corpus' characters fit 64
            bits: 4 always, 5 up to 4,093 characters.
        min_count: n-grams of three and more characters that occur less often are left to their ends; with 1 a model
            takes several times the memory.
        field: of JSON lines.
        workers: threads.
        progress: called with a step's name, how much of it is done, and of how much.

    Raises:
        UserError: an option or a place makes no sense, or there is no text.
        DataError: a file is damaged; one line with its name and the line.

    Example:
        >>> model = train_ngrams(iter(["香港", "香港", "香江", "江水"]), order=2)
        >>> port, river = (float(10 ** model.levels[0].log_probs[model.symbols.index(x)]) for x in "港江")
        >>> port < river  # as frequent, but always behind the same one
        True
    """
    order, min_count = whole_number("order", order, 2), whole_number("min_count", min_count, 1)
    workers = checked_workers(workers)
    tell = progress or (lambda step, done, of: None)
    check_field(sources, field)
    # Without a limit for the memory nothing is put into files.
    alphabet, ids = SentenceReader(sources, Kept(TEXT), field, Path(), Budget(None)).read(workers, tell)
    if not alphabet.total:
        raise UserError("the corpus: expected some text, found none")
    bits = len(alphabet).bit_length()
    if order * bits > 64:
        raise UserError(
            f"order: {order} of {len(alphabet)} different characters do not fit 64 bits; expected at most {64 // bits}"
        )
    told = partial(tell, "counting")
    grams = count_grams(ids, alphabet.counts, Rule(bits, order, 1, lower=True), workers=workers, progress=told)
    return NgramModel(["", START, END, *alphabet.symbols[3:], UNKNOWN], _levels(grams, len(alphabet) + 1, min_count))


class SentenceReader(Reader):
    """Reads a corpus with a mark before each sentence and one behind it."""

    def texts(self, part: corpus.Sources) -> Iterator[str]:
        return _whole(corpus.blocks(part, self.field, BLOCK))

    def coded(self, text: str) -> tuple[tuple[NDArray, ...], Tally]:
        codes, found = self.kept.encode(text)
        codes = marked(codes, *MARKS)
        found.low[list(MARKS)] = np.count_nonzero(codes == MARKS[0])
        return (codes,), found


def _whole(blocks: Iterator[str]) -> Iterator[str]:
    """Blocks that end with a line."""
    held: list[str] = []
    for block in blocks:
        held.append(block)
        if block.endswith("\n"):
            yield "".join(held)
            held = []


def _levels(grams: dict[int, Grams], unknown: int, min_count: int) -> list[Level]:
    """The columns of each order. `unknown` is the id of what is not known, and the highest."""
    start, order, bits = MARKS[0], max(grams), grams[2].bits
    # Single characters: shares of the different pairs they end, and what is discounted for all alike.
    weights = np.bincount((grams[2].keys & _low(bits)).astype(np.int64), minlength=unknown + 1)
    discounts = _discounts(weights)[np.minimum(weights, 3)]
    probs = (weights - discounts + discounts.sum() / (unknown - 1)) / weights.sum()
    probs[[0, start]] = 0  # neither is ever predicted
    keys = np.arange(unknown + 1, dtype=U)  # packed n-grams of the level below, and where they stand there
    places = np.arange(unknown + 1, dtype=np.int64)
    packed, levels = keys[1:], []
    for n in range(2, order + 1):
        mine = grams[n]
        weights = _weights(mine, grams.get(n + 1), start)
        discounts = _discounts(weights)[np.minimum(weights, 3)]
        kept = mine.counts >= min_count if n > 2 else np.ones(len(weights), bool)
        heads, tails = mine.keys >> U(bits), np.searchsorted(keys, mine.keys & _low(bits * (n - 1)))
        starts = np.flatnonzero(np.diff(heads, prepend=U(0)))
        sizes, heads = np.diff(starts, append=len(heads)), np.searchsorted(keys, heads[starts])
        totals = np.add.reduceat(weights, starts)
        # What a context gives to the shorter one: its discounts, and all of what is not kept.
        left = np.add.reduceat(np.where(kept, discounts, weights), starts) / totals
        back_offs = np.ones(len(keys))
        back_offs[heads] = left
        levels.append(_level(packed, probs, back_offs, places))

        packed = np.repeat(places[heads], sizes)[kept].astype(np.uint64) << U(BITS) | mine.keys[kept] & _low(bits)
        probs = (weights - discounts) / np.repeat(totals, sizes) + np.repeat(left, sizes) * probs[tails]
        keys, places = mine.keys, np.where(kept, np.cumsum(kept), 0)
    levels.append(_level(packed, probs, np.ones(len(keys)), places))
    return levels


def _low(bits: int) -> np.uint64:
    return U((1 << bits) - 1)


def _weights(grams: Grams, longer: Grams | None, start: int) -> NDArray[np.int64]:
    """How many different characters stand before each n-gram; how often it occurs where none does, or none is known."""
    if longer is None:
        return grams.counts
    ends, weights = np.unique(longer.keys & _low(grams.bits * grams.order), return_counts=True)
    found = grams.counts.copy()
    found[np.searchsorted(grams.keys, ends)] = weights
    return found


def _discounts(weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """What is taken from a weight of 0, 1, 2, and 3 or more: Chen and Goodman's estimates."""
    ones, twos, threes, fours = np.bincount(np.minimum(weights, 5), minlength=6)[1:5].tolist()
    if not (ones and twos and threes and fours):
        return np.array([0.0, *DISCOUNTS])
    share = ones / (ones + 2 * twos)
    found = [1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes]
    sound = all(0 < discount <= weight for weight, discount in enumerate(found, 1))
    return np.array([0.0, *(found if sound else DISCOUNTS)])


def _level(
    packed: NDArray[np.uint64], probs: NDArray[np.float64], back_offs: NDArray[np.float64], places: NDArray[np.int64]
) -> Level:
    """Columns of those that have a place."""
    there = places > 0
    columns = []
    for values in (probs[there], back_offs[there]):
        logs = np.log10(values, out=np.full(len(values), NOWHERE), where=values > 0)
        columns.append(np.concatenate([[0.0], logs]).astype(np.float32))
    columns[0][0] = NOWHERE
    return Level(packed, *columns)
