"""From a sequence to one vector, over the tokens that are real: masked mean, maximum, attention, and their softmax.

Sources: 层中层与mask (kexue.fm/archives/6810); attention pooling of the DGCNN reader (kexue.fm/archives/5409).
"""

from typing import Any

import keras
from keras import ops

from maskplay.layers.quantized import quantized_parts


def masked_softmax(scores: Any, valid: Any = None, axis: int = -1) -> Any:
    """Softmax over what is valid; exactly 0 elsewhere, and everywhere where nothing is valid, with finite gradients.

    Args:
        scores: floats of any shape.
        valid: booleans broadcastable to it, None = everything.
        axis: over which to normalize.

    Returns:
        Floats of the shape of `scores`, at least float32.

    Example:
        >>> masked_softmax(ops.array([1.0, 1.0, 5.0]), ops.array([True, True, False])).tolist()
        [0.5, 0.5, 0.0]
    """
    kind = "float64" if keras.backend.standardize_dtype(scores.dtype) == "float64" else "float32"
    scores = ops.cast(scores, kind)
    if valid is None:
        return ops.softmax(scores, axis=axis)
    # A finite floor keeps the softmax and its gradient finite where nothing is valid; `where` makes it exact.
    scores = ops.where(valid, scores, ops.full_like(scores, -1e30))
    return ops.where(valid, ops.softmax(scores, axis=axis), ops.zeros_like(scores))


class _Pool(keras.layers.Layer):
    """`(batch, length, features)` with `valid (batch, length)`, None = all, to `(batch, features)`.

    Without `valid` Keras' own mask counts, which layers such as `Embedding(mask_zero=True)` hand on; encoders here have
    none. Subclasses say how in `pooled`, where `valid` is bools `(batch, length, 1)` or None.
    """

    def call(self, x: Any, valid: Any = None, mask: Any = None) -> Any:
        valid = mask if valid is None else valid
        return self.pooled(x, None if valid is None else ops.not_equal(valid, 0)[..., None])

    def pooled(self, x: Any, valid: Any) -> Any:
        raise NotImplementedError

    def compute_output_shape(self, x_shape: Any, valid_shape: Any = None) -> Any:
        return (x_shape[0], x_shape[-1])

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return super().get_config()  # written out: see NextSentence


@keras.saving.register_keras_serializable(package="maskplay")
class MaskedMean(_Pool):
    """The mean of the valid tokens' vectors; 0 where there are none.

    Shapes: `(batch, length, features)` and `valid (batch, length)`, None = those of Keras' mask, or all, to `(batch,
    features)`.

    Example:
        >>> x = ops.reshape(ops.array([1.0, 0.0, 3.0, 4.0, 5.0, 9.0]), (1, 6, 1))
        >>> round(float(MaskedMean()(x, valid=ops.array([[1, 1, 1, 1, 1, 0]]))[0, 0]), 3)
        2.6
    """

    def pooled(self, x: Any, valid: Any) -> Any:
        if valid is None:
            valid = ops.ones((*ops.shape(x)[:2], 1), "bool")
        wide = ops.cast(x, "float64" if self.compute_dtype == "float64" else "float32")
        total = ops.sum(ops.where(valid, wide, ops.zeros_like(wide)), axis=1)
        count = ops.maximum(ops.sum(ops.cast(valid, wide.dtype), axis=1), 1)
        return ops.cast(total / count, self.compute_dtype)


@keras.saving.register_keras_serializable(package="maskplay")
class MaskedMax(_Pool):
    """The largest value of each feature among the valid tokens; 0 where there are none.

    Shapes: `(batch, length, features)` and `valid (batch, length)`, None = those of Keras' mask, or all, to `(batch,
    features)`.

    Example:
        >>> x = ops.reshape(ops.array([-3.0, -2.0, 0.0]), (1, 3, 1))
        >>> MaskedMax()(x, valid=ops.array([[1, 1, 0]])).tolist()
        [[-2.0]]
    """

    def pooled(self, x: Any, valid: Any) -> Any:
        if valid is None:
            return ops.max(x, axis=1)
        largest = ops.max(ops.where(valid, x, ops.full_like(x, float("-inf"))), axis=1)
        return ops.where(ops.any(valid, axis=1), largest, ops.zeros_like(largest))


@keras.saving.register_keras_serializable(package="maskplay")
class AttentionPooling(_Pool):
    """A learned weighted mean: weights softmax(aᵀ tanh(W x)) over the valid tokens; 0 where there are none.

    Args:
        size: rows of W, None = the number of features.

    Shapes: `(batch, length, features)` and `valid (batch, length)`, None = those of Keras' mask, or all, to `(batch,
    features)`.

    Example:
        >>> AttentionPooling()(ops.ones((2, 3, 8)), valid=ops.array([[1, 1, 0], [1, 0, 0]])).shape
        (2, 8)
    """

    def __init__(self, size: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.score = keras.layers.Dense(1, use_bias=False, dtype=self.dtype_policy, name="score")

    def build(self, input_shape: Any) -> None:
        size = self.size or input_shape[-1]
        self.inner = keras.layers.Dense(size, "tanh", use_bias=False, dtype=self.dtype_policy, name="inner")
        self.inner.build(input_shape)
        self.score.build((*input_shape[:-1], size))

    def pooled(self, x: Any, valid: Any) -> Any:
        weights = ops.cast(masked_softmax(self.score(self.inner(x)), valid, axis=1), self.compute_dtype)
        if valid is not None:
            x = ops.where(valid, x, ops.zeros_like(x))
        return ops.sum(weights * x, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **quantized_parts(self), "size": self.size}
