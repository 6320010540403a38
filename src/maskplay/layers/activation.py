"""Activation functions by the names that a `Config` uses."""

from collections.abc import Callable
from functools import partial
from typing import Any

from keras import ops

_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": partial(ops.gelu, approximate=False),
    "gelu_tanh": partial(ops.gelu, approximate=True),
    "relu": ops.relu,
    "silu": ops.silu,
    "tanh": ops.tanh,
    "linear": lambda x: x,
}


def activation(name: str) -> Callable[[Any], Any]:
    """The function a config names; `KeyError` for a name that `Config` would have refused.

    Example:
        >>> float(activation("relu")(-1.0))
        0.0
    """
    return _FUNCTIONS[name]
