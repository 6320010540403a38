"""The words of a field: those that its texts use more than texts in general do, by more than chance.

The logarithm of each word's odds ratio, both counts smoothed by a prior that knows how frequent the word is at all,
over its standard error: rare words must differ more to count as much.

Source: Monroe, Colaresi and Quinn 2008, Fightin' Words (doi:10.1093/pan/mpn018), section 3.5.
"""

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskplay.errors import UserError, within
from maskplay.storage import new_file
from maskplay.words.found import Found, checked_ending, counted, escaped


class Contrast(NamedTuple):
    """A word in two corpora.

    Attributes:
        word: its text.
        frequency: how often it is in the field's.
        general: how often in the other, as far as was counted there.
        log_odds: natural log of how much greater its odds are in the field.
        z: that over its standard error; beyond 2 it is hardly chance.
        share: of its occurrences, how many would be the field's if both were equally long, drawn towards a half where
            it is rarer than words are on average (kexue.fm/archives/6540).

    Example:
        >>> Contrast("算子", 40, 2, 2.5, 9.1, 0.8).word
        '算子'
    """

    word: str
    frequency: float
    general: float
    log_odds: float
    z: float
    share: float


def contrast(
    field: Mapping[str, float] | Found, general: Mapping[str, float] | Found, *, prior: float = 1000.0
) -> list[Contrast]:
    """Compare the words of a field with those of texts in general.

    Args:
        field: how often each word occurs in the field's texts, or what `discover` found in them.
        general: the same in others. A word that is missing on a side counts as 0 there. What `discover` found misses
            words that were too rare or stood in longer ones; better count the same words in both corpora:
            `count(texts, tokenizer=Vocabulary(found))`.
        prior: how many words the prior weighs, shared out as the words of both are; more of them draw rare words
            nearer to no difference.

    Returns:
        Each word that occurs in either, the field's own first: by z, equal ones in the order of their characters.

    Raises:
        UserError: nothing occurs on a side, a count is below 0, there is one word only, the prior is not above 0, or
            the figures are beyond what can be computed.

    Example:
        >>> for row in contrast({"的": 50, "算子": 20}, {"的": 500, "天气": 30}):
        ...     print(row.word, f"{row.z:.1f}")
        算子 3.9
        天气 -0.7
        的 -6.9
    """
    field, general = (counted(side, "contrast") for side in (field, general))
    words = sorted(word for word in {*field, *general} if field.get(word) or general.get(word))
    counts = np.array([[side.get(word, 0) for word in words] for side in (field, general)], np.float64)
    if len(words) < 2 or not counts.any(axis=1).all():
        raise UserError("contrast: expected counts of two words or more, some above 0 on both sides")
    if not within(prior, 0, sys.float_info.max) or not prior:
        raise UserError(f"prior: expected a number above 0, found {prior!r:.40}")
    with np.errstate(all="ignore"):
        share = counts.sum(axis=0) / counts.sum()
        seen = counts + prior * share
        odds = np.log(seen) - np.log(_others(seen))
        log_odds = odds[0] - odds[1]
        z = log_odds / np.sqrt((1 / seen).sum(axis=0))
        scaled = counts * [[1], [counts[0].sum() / counts[1].sum()]]
        both = scaled.sum(axis=0)
        part = (scaled[0] + both.mean() / 2) / (both + both.mean())
    if not np.isfinite([z, part]).all():
        raise UserError(f"prior: {prior!r:.40} and these counts are too great, too small or too far apart to compare")
    order = sorted(range(len(words)), key=lambda i: (-z[i], words[i]))
    return [Contrast(words[i], *(float(x) for x in (*counts[:, i], log_odds[i], z[i], part[i]))) for i in order]


def _others(seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of all others in a row; the whole sum less a great one would be rounded to nothing."""
    before, behind = (np.cumsum(np.pad(some, ((0, 0), (1, 0))), axis=1)[:, :-1] for some in (seen, seen[:, ::-1]))
    return before + behind[:, ::-1]


def write_contrast(rows: list[Contrast], path: str | os.PathLike[str]) -> None:
    """Write a `.tsv` file, a header and a row for each word, whole or not at all.

    Words are written as `Counts.write` writes texts.

    Raises:
        UserError: another ending.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "terms.tsv"
        >>> write_contrast([Contrast("算子", 40, 2, 2.5, 9.1, 0.8)], path)
        >>> path.read_text("utf-8").splitlines()[1].split("\\t")
        ['算子', '40', '2', '2.5000', '9.1000', '0.8000']
    """
    checked_ending(path, (".tsv",))
    with new_file(path) as file:
        file.write(("\t".join(Contrast._fields) + "\n").encode())
        for row in rows:
            figures = f"{row.frequency:.12g}\t{row.general:.12g}\t{row.log_odds:.4f}\t{row.z:.4f}\t{row.share:.4f}"
            file.write(f"{escaped(row.word)}\t{figures}\n".encode("utf-8", "replace"))
