"""Muon that orthogonalises in the precision that the policy computes in, as its inventors do in bfloat16."""

from typing import Any

import keras
from keras import ops

__all__ = ["Muon"]


@keras.saving.register_keras_serializable(package="maskplay")
class Muon(keras.optimizers.Muon):
    """Keras' Muon; under a mixed policy its Newton-Schulz iterations are in half precision, too.

    They are products of matrices and only have to come near an orthogonal one. Under `float32` this is Keras' own.

    Source: Jordan 2024 (kellerjordan.github.io/posts/muon), arXiv:2502.16982 for the scale of its steps.

    Example:
        >>> kernel = keras.Variable([[3.0, 0.0], [0.0, 4.0]])
        >>> optimizer = Muon(0.1)
        >>> optimizer.build([kernel])
        >>> optimizer.apply([ops.array([[1.0, 0.0], [0.0, 2.0]])])
        >>> [[round(float(x), 2) for x in row] for row in kernel.numpy()]
        [[2.97, 0.0], [0.0, 3.98]]
    """

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        inside = keras.config.dtype_policy().compute_dtype
        # Scaled in full precision first: the norm of a long gradient may not fit into float16.
        x = x / (ops.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
        return ops.cast(super().zeropower_via_newtonschulz5(ops.cast(x, inside), steps), x.dtype)
