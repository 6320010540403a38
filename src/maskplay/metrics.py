"""How good answers are: accuracy and macro F1, of labels of any kind."""

from typing import Any

import numpy as np

from maskplay.errors import UserError

__all__ = ["accuracy", "confusion", "macro_f1"]


def confusion(truth: Any, guesses: Any) -> tuple[np.ndarray, np.ndarray]:
    """How often each label was taken for each.

    Args:
        truth: the right labels, `(n,)`, numbers or strings, at least one.
        guesses: as many predicted labels.

    Returns:
        The labels that occur on either side, sorted, `(k,)`, and the counts, int64 `(k, k)`: row = the right label,
        column = the predicted one.

    Raises:
        UserError: no labels, or not as many of both.

    Example:
        >>> labels, counts = confusion(["neg", "pos", "pos"], ["neg", "neg", "pos"])
        >>> labels.tolist(), counts.tolist()
        (['neg', 'pos'], [[1, 0], [1, 1]])
    """
    labels, right, found = _numbered(truth, guesses)
    pairs = right * len(labels) + found
    return labels, np.bincount(pairs, minlength=len(labels) ** 2).reshape(len(labels), len(labels))


def _numbered(truth: Any, guesses: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The labels that occur, and both sides as places among them."""
    truth, guesses = np.asarray(truth), np.asarray(guesses)
    if truth.ndim != 1 or truth.shape != guesses.shape or not len(truth):
        raise UserError(f"expected as many guesses as labels, at least one, found {guesses.shape} and {truth.shape}")
    labels, places = np.unique(np.concatenate([truth, guesses]), return_inverse=True)
    return labels, places[: len(truth)], places[len(truth) :]


def accuracy(truth: Any, guesses: Any) -> float:
    """The share of right answers, 0 to 1.

    Example:
        >>> accuracy([0, 1, 1, 1], [0, 1, 0, 1])
        0.75
    """
    _, right, found = _numbered(truth, guesses)
    return float((right == found).mean())


def macro_f1(truth: Any, guesses: Any) -> float:
    """The plain mean of every label's F1 (harmonic mean of precision and recall), 0 to 1.

    Over the labels that occur on either side; one never guessed right counts 0.

    Example:
        >>> round(macro_f1([0, 1, 1, 1], [0, 1, 0, 1]), 4)
        0.7333
    """
    labels, right, found = _numbered(truth, guesses)
    hits, true, guessed = (np.bincount(some, minlength=len(labels)) for some in (right[right == found], right, found))
    return float((2 * hits / (true + guessed)).mean())
