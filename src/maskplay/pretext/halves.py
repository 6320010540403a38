"""A text in two parts: cut at a word, or at a sentence and perhaps in the wrong order, or with another's end.

Where it is asked whether the second part follows the first, both begin and end with a sentence: a mark in the middle of
one would tell. Sources: BERT's next sentence (arXiv:1810.04805), ALBERT's sentence order (arXiv:1909.11942).
"""

from collections.abc import Sequence

import numpy as np

from maskplay.pretext.targets import IGNORED, Part

__all__ = ["in_order", "split", "with_others"]

Pair = tuple[Part, Part]


def split(part: Part, draw: np.random.Generator, at: np.ndarray | None = None) -> tuple[Part, Part]:
    """A part as two, at a random word, or at one of some places.

    Args:
        part: token ids and which of them begin a word.
        draw: a generator.
        at: places where the second part may begin, ints; None or none = the words'.

    Example:
        >>> part = (np.array([7, 8, 9]), np.array([True, False, True]))
        >>> [ids.tolist() for ids, _ in split(part, np.random.default_rng(0))]
        [[7, 8], [9]]
    """
    ids, begins = part
    if at is None or not len(at):
        at = np.flatnonzero(begins[1:]) + 1
    cut = int(draw.choice(at)) if len(at) else max(1, len(ids) // 2)
    return (ids[:cut], begins[:cut]), (ids[cut:], begins[cut:])


def in_order(
    texts: Sequence[Part], sentences: Sequence[np.ndarray], draw: np.random.Generator
) -> tuple[list[Pair], np.ndarray]:
    """Texts in two parts, half of them in the wrong order (ALBERT).

    Args:
        texts: token ids and which of them begin a word, of each.
        sentences: where in each a further sentence begins, ints.
        draw: a generator.

    Returns:
        The parts, and int32 `(texts,)`: 1 = in the wrong order, 0 = not, -100 = one sentence, cut anyhow.

    Example:
        >>> text = (np.array([7, 8, 9, 6]), np.array([True, False, True, True]))
        >>> (pair,), wrong = in_order([text], [np.array([3])], np.random.default_rng(0))
        >>> [ids.tolist() for ids, _ in pair], wrong.tolist()
        ([[7, 8, 9], [6]], [0])
    """
    pairs = [split(text, draw, at) for text, at in zip(texts, sentences)]
    wrong = np.where([len(at) > 0 for at in sentences], draw.random(len(pairs)) < 0.5, IGNORED).astype("int32")
    return [(b, a) if bad == 1 else (a, b) for (a, b), bad in zip(pairs, wrong)], wrong


def with_others(
    texts: Sequence[Part], sentences: Sequence[np.ndarray], room: int, draw: np.random.Generator
) -> tuple[list[Pair], np.ndarray]:
    """Texts in two parts, of half of them the second part from another text (BERT).

    It is about as long as the true one, since length, too, would tell.

    Args:
        texts, sentences, draw: as for `in_order`; at least two.
        room: most tokens of both parts together.

    Returns:
        The parts, and int32 `(texts,)`: 1 = from another, 0 = its own, -100 = not to be asked: one sentence, cut
        anyhow, no sentence of the other that fits, or the same words in both.

    Example:
        >>> texts = [(np.array([7, 8, 9, 6]), np.ones(4, bool)), (np.array([5, 5, 4]), np.ones(3, bool))]
        >>> pairs, wrong = with_others(texts, [np.array([3]), np.array([2])], 8, np.random.default_rng(1))
        >>> [[ids.tolist() for ids, _ in pair] for pair in pairs], wrong.tolist()
        ([[[7, 8, 9], [6]], [[5, 5], [4]]], [0, 0])
    """
    pairs = [split(text, draw, at) for text, at in zip(texts, sentences)]
    drawn = draw.random(len(pairs)) < 0.5
    others = (np.arange(len(pairs)) + draw.integers(1, len(pairs), len(pairs))) % len(pairs)
    wrong = np.full(len(pairs), IGNORED, "int32")
    for i, ((a, b), other) in enumerate(zip(pairs, others.tolist())):
        # Looked for in any case: those that are right shall not be asked about where those that are wrong are not.
        end = _ending(texts[other], sentences[other], len(b[0]), room - len(a[0]))
        # And not where the same comes either way, as in a batch that has a row twice.
        if len(sentences[i]) and end is not None and not np.array_equal(end[0], b[0]):
            wrong[i] = drawn[i]
            pairs[i] = (a, end if drawn[i] else b)
    return pairs, wrong


def _ending(text: Part, sentences: np.ndarray, size: int, room: int) -> Part | None:
    """The last sentences of a text, about so many tokens; None where the last one is longer than the room."""
    ids, begins = text
    starts = np.append(0, sentences)
    starts = starts[len(ids) - starts <= room]
    if not len(starts):
        return None
    first = int(starts[np.abs(len(ids) - starts - size).argmin()])
    return ids[first:], begins[first:]
