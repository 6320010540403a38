"""How weights begin: drawn from BERT's truncated normal distribution, unless a file is about to fill them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

_filled = ContextVar("filled", default=False)


@contextmanager
def to_be_filled(filled: bool = True) -> Iterator[None]:
    """Weights made in here begin as zeros: a hundred million numbers that are overwritten cost seconds to draw.

    Args:
        filled: False = as without it.

    Example:
        >>> with to_be_filled():
        ...     Normal(stddev=0.02)((2,)).tolist()
        [0.0, 0.0]
    """
    before = _filled.set(filled)
    try:
        yield
    finally:
        _filled.reset(before)


@keras.saving.register_keras_serializable(package="maskplay")
class Normal(keras.initializers.TruncatedNormal):
    """Keras' `TruncatedNormal`, as BERT's weights begin (arXiv:1810.04805), but zeros inside `to_be_filled`.

    Example:
        >>> 0.04 > float(ops.max(Normal(stddev=0.02)((10000,)))) > 0.03
        True
    """

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return ops.zeros(shape, dtype) if _filled.get() else super().__call__(shape, dtype)
