"""Token by token: each step feeds what was chosen and asks for the next scores. Knows no model, only a step."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
from keras import ops

Step = Callable[[Any, Any], tuple[Any, Any]]


def greedy(step: Step, first: np.ndarray, cache: Any, max_new: int, stop: Collection[int] = ()) -> Iterator[int]:
    """The likeliest token each time, until one of `stop` or `max_new` tokens.

    Args:
        step: feeds ints `(1, length)` to a model with its cache; returns the last token's scores `(1, vocab_size)` and
            the new cache.
        first: the tokens to begin with, ints `(length,)`.
        cache: the model's, with room for `length + max_new - 1` tokens.
        max_new: most tokens to choose.
        stop: tokens that end the text; they are not given out.

    Yields:
        Chosen ids.

    Example:
        >>> def follow(tokens, cache):  # a model that counts
        ...     return ops.one_hot(tokens[:, -1] + 1, 10), cache
        >>> list(greedy(follow, np.array([3, 4]), None, 9, stop=[8]))
        [5, 6, 7]
    """
    tokens = np.asarray(first, "int32")[None]
    for _ in range(max_new):
        scores, cache = step(ops.convert_to_tensor(tokens), cache)
        chosen = int(ops.argmax(scores[0]))
        if chosen in stop:
            return
        yield chosen
        tokens = np.array([[chosen]], "int32")
