"""Activation functions by the names that a `Config` uses."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import ops

from maskplay import _backend
from maskplay.errors import UserError


def _gelu(x: Any) -> Any:
    """x Φ(x), the exact form."""
    if not _backend.fuses():
        return ops.gelu(x, approximate=False)
    # JAX's own goes through erfc, three times as slow on a CPU. One plus erf needs float32 to keep its small values.
    wide = ops.cast(x, "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32")
    return ops.cast(0.5 * wide * (1.0 + ops.erf(wide * math.sqrt(0.5))), x.dtype)


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": _gelu,
    "gelu_tanh": partial(ops.gelu, approximate=True),
    "relu": ops.relu,
    "silu": ops.silu,
    "tanh": ops.tanh,
    "linear": lambda x: x,
}


def activation(name: str) -> Callable[[Any], Any]:
    """The function a config names; `UserError` for a name that `Config` would have refused.

    Example:
        >>> float(activation("relu")(-1.0))
        0.0
    """
    if name not in _FUNCTIONS:
        raise UserError(f"activation: expected one of {', '.join(_FUNCTIONS)}, found {name!r:.60}")
    return _FUNCTIONS[name]
