"""Words that two methods agree on: found by their cohesion, and cut out of the text by a segmenter as well.

Cohesion keeps frequent phrases (he stressed, this week) and pieces of names, because it looks at an n-gram alone. A
segmenter weighs a word against its neighbours in every sentence, so what it hardly ever cuts out is seldom a word.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

import numpy as np

from maskplay import corpus
from maskplay.errors import UserError, within
from maskplay.words.cutting import Segmenter, chinese
from maskplay.words.found import Found, Word
from maskplay.words.ngram_model import NgramModel
from maskplay.words.segmenting import segment

LEAST = 0.1  # of a word's occurrences


def agreed(
    found: Found,
    sources: corpus.Sources,
    by: Segmenter | NgramModel | Mapping[str, float],
    *,
    least: float = LEAST,
    field: str = "text",
    workers: int = 1,
) -> Found:
    """The found words that a segmenter cuts out of the text too.

    Single characters stay, and words with letters or digits, about which no segmenter decides.

    Args:
        found: what `discover` found.
        sources: the texts, as for `discover`; they are read once more.
        by: an n-gram model, words with counts, or any `Segmenter`. A model trained on the same texts will do.
        least: share of a word's occurrences that must be cut out as this word, from 0 to 1.
        field: of JSON lines.
        workers: processes.

    Raises:
        UserError: `least` is no share, a place makes no sense, or the texts are gone (an iterator that `discover` has
            used up).

    Example:
        >>> from maskplay.words import discover
        >>> texts = ["天地玄黄", "宇宙，玄黄", "宇宙洪荒", "天地，宇宙"]
        >>> found = discover(iter(texts), min_count=2, min_length=2, cohesion=(1.0,))
        >>> [row.word for row in agreed(found, iter(texts), {"宇宙": 3, "天地玄黄": 1, "玄黄": 2})]
        ['宇宙', '玄黄']
    """
    if not within(least, 0, 1):
        raise UserError(f"least: expected a share from 0 to 1, found {least!r:.40}")
    if not isinstance(found, Found):
        raise UserError(f"found: expected what discover found, found {found!r:.40}")
    words = found.word.tolist()
    asked = {word for word in words if len(word) > 1 and chinese(word)}
    lines = segment(sources, by, field=field, workers=workers)
    first = next(lines, None)
    if first is None and found.characters:
        raise UserError("sources: expected the texts in which the words were found, found none; give them anew")
    cut = Counter(filter(asked.__contains__, chain.from_iterable(chain([first or []], lines))))
    times = zip(words, found.occurrences.tolist())
    wanted = np.array([word not in asked or cut[word] / all_ >= least for word, all_ in times], bool)
    return replace(found, **{name: getattr(found, name)[wanted] for name in Word._fields})
