"""Cross-entropy of tokens: the loss of every play that predicts one of many classes at each place.

The log-sum-exp of the logits minus the logit picked by the label. Keras' own form builds, under JAX, a one-hot as large
as the logits, `(batch, length, vocabulary)`; here the right logit is gathered. The numbers are the same.
"""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="maskplay")
class TokenCrossEntropy(keras.losses.Loss):
    """Mean cross-entropy of integer labels under logits, over the tokens that count.

    Every token has a weight m, 0 where the label is `ignore_class`; the loss is Σ m·ce / Σ m, and 0 (with zero
    gradients) where nothing counts. Computed in at least float32 whatever the dtype of the logits.

    Args:
        ignore_class: the label of tokens that are not predicted, None if all are.
        reduction: how tokens become one number, as `keras.losses.Loss`; "none" returns m·ce per token.

    Call arguments:
        y_true: ints `(batch, length)`, each below the number of classes or `ignore_class`.
        y_pred: logits `(batch, length, classes)`. Any number of axes may precede the classes.
        sample_weight: optional weights, `(batch,)` or `(batch, length)`.

    Example:
        >>> logits = ops.array([[[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]])
        >>> round(float(TokenCrossEntropy()([[0, -100, -100]], logits)), 4)
        0.6931
    """

    def __init__(
        self,
        ignore_class: int | None = -100,
        reduction: str = "mean_with_sample_weight",
        name: str = "token_cross_entropy",
        dtype: Any = None,
    ) -> None:
        # Keras hands labels over in this dtype, and half precision would round those above 2048.
        wide = "float64" if keras.config.floatx() == "float64" else "float32"
        super().__init__(name=name, reduction=reduction, dtype=dtype or wide)
        self.ignore_class = ignore_class

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        labels = ops.convert_to_tensor(y_true)
        if len(labels.shape) == len(y_pred.shape):
            labels = ops.squeeze(labels, axis=-1)
        if sample_weight is not None:
            sample_weight = ops.convert_to_tensor(sample_weight, dtype=self.dtype)
            for _ in range(len(labels.shape) - len(sample_weight.shape)):
                sample_weight = sample_weight[..., None]
        # Ones, too, so that `(batch,)` weights are summed once per token.
        counted = ops.ones_like(labels) if self.ignore_class is None else ops.not_equal(labels, self.ignore_class)
        counted = ops.cast(counted, self.dtype)
        return super().__call__(labels, y_pred, counted if sample_weight is None else counted * sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels = ops.cast(y_true, "int32")
        if self.ignore_class is not None:
            labels = ops.where(ops.equal(labels, self.ignore_class), 0, labels)
        picked = ops.take_along_axis(y_pred, labels[..., None], axis=-1)[..., 0]
        return ops.logsumexp(y_pred, axis=-1) - picked

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="maskplay")
class TokenAccuracy(keras.metrics.Metric):
    """Share of the tokens that count whose highest logit is the right one, over all batches.

    Args:
        ignore_class: the label of tokens that are not predicted, None if all are.

    `update_state` takes labels, logits and weights as `TokenCrossEntropy` does.

    Example:
        >>> accuracy = TokenAccuracy()
        >>> accuracy.update_state([[0, 1, -100]], ops.array([[[5.0, 0.0], [5.0, 0.0], [5.0, 0.0]]]))
        >>> float(accuracy.result())
        0.5
    """

    def __init__(self, ignore_class: int | None = -100, name: str = "token_accuracy", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.ignore_class = ignore_class
        self.right = self.add_variable(shape=(), initializer="zeros", name="right")
        self.counted = self.add_variable(shape=(), initializer="zeros", name="counted")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        labels = ops.cast(y_true, "int32")
        if len(labels.shape) == len(y_pred.shape):
            labels = ops.squeeze(labels, axis=-1)
        right = ops.equal(labels, ops.cast(ops.argmax(y_pred, axis=-1), "int32"))
        counted = ops.ones_like(labels) if self.ignore_class is None else ops.not_equal(labels, self.ignore_class)
        counted = ops.cast(counted, self.dtype)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, self.dtype)
            for _ in range(len(labels.shape) - len(sample_weight.shape)):
                sample_weight = sample_weight[..., None]
            counted = counted * sample_weight
        self.right.assign_add(ops.sum(ops.cast(right, self.dtype) * counted))
        self.counted.assign_add(ops.sum(counted))

    def result(self) -> Any:
        return ops.divide_no_nan(self.right, self.counted)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_class": self.ignore_class}
