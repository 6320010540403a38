"""Gradients inside a computation, alike on every backend: eager, in a compiled step, and gradients of gradients.

`fit` differentiates a loss once, by means of each backend's own. A loss that itself contains a gradient (a penalty on
slopes, a perturbation in the worst direction, score matching) takes it from here, and no step is written per backend.
"""

from collections.abc import Callable
from typing import Any

from keras import ops, tree

from maskplay import _backend

__all__ = ["gradient", "value_and_gradient"]


def value_and_gradient(function: Callable[[Any], Any], x: Any, again: bool = True) -> tuple[Any, Any]:
    """A function's value, and its gradient.

    Args:
        function: takes what `x` is; returns a scalar, or a tuple that begins with one and has anything after it. It
            may read variables; what it must hand out, it returns.
        x: a float tensor, or a structure (list, tuple, dictionary) of such.
        again: whether value and gradient will be differentiated once more. False spares PyTorch the memory for it;
            results then count as constants there, so stop their gradient for the others.

    Returns:
        (what the function returned, the partial derivatives: tensors, structured and shaped as `x`). Where the
        function does not depend on a tensor, zeros.

    Example:
        >>> (value, rest), slope = value_and_gradient(lambda x: (ops.sum(x * x), "squares"), ops.array([1.0, 2.0]))
        >>> float(value), rest, ops.convert_to_numpy(slope).tolist()
        (5.0, 'squares', [2.0, 4.0])
    """
    flat = [ops.convert_to_tensor(tensor) for tensor in tree.flatten(x)]
    result, slopes = _backend.value_and_gradient(lambda flat: function(tree.pack_sequence_as(x, flat)), flat, again)
    return result, tree.pack_sequence_as(x, slopes)


def gradient(function: Callable[[Any], Any], x: Any, again: bool = True) -> Any:
    """A function's gradient; arguments and result as for `value_and_gradient`.

    Example:
        >>> cube = lambda x: ops.sum(x**3)
        >>> slope = lambda x: ops.sum(gradient(cube, x))
        >>> ops.convert_to_numpy(gradient(slope, ops.array([1.0, 2.0]))).tolist()  # 6 x
        [6.0, 12.0]
    """
    return value_and_gradient(function, x, again)[1]
