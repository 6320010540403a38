"""Cross-entropy of tokens: the loss of every play that predicts one of many classes at each place.

The log-sum-exp of the logits minus the logit picked by the label. Keras' own form builds, under JAX, a one-hot as large
as the logits, `(batch, length, vocabulary)`; here the right logit is gathered. The numbers are the same. Where classes
are a whole vocabulary, `token_losses` finds them without the logits ever being in memory together.
"""

from inspect import signature
from typing import Any

import keras
from keras import ops

from maskplay.errors import UserError

__all__ = ["TokenAccuracy", "TokenCrossEntropy", "of_logits", "token_losses"]


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
        return super().__call__(labels, y_pred, _weights(labels, self.ignore_class, sample_weight, self.dtype))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels = ops.cast(y_true, "int32")
        if self.ignore_class is not None:
            # What does not count is 0, with a gradient of 0, also where logits are infinite.
            ignored = ops.equal(labels, self.ignore_class)
            labels = ops.where(ignored, 0, labels)
            y_pred = ops.where(ignored[..., None], ops.zeros_like(y_pred), y_pred)
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
        right = self.right_of(labels, y_pred)
        counted = _weights(labels, self.ignore_class, sample_weight, self.dtype)
        self.right.assign_add(ops.sum(ops.cast(right, self.dtype) * counted))
        self.counted.assign_add(ops.sum(counted))

    def right_of(self, labels: Any, y_pred: Any) -> Any:
        return ops.equal(labels, ops.cast(ops.argmax(y_pred, axis=-1), "int32"))

    def result(self) -> Any:
        return ops.divide_no_nan(self.right, self.counted)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_class": self.ignore_class}


def _weights(labels: Any, ignore_class: int | None, sample_weight: Any, dtype: Any) -> Any:
    """What each token counts, in the labels' shape."""
    # Ones, too, so that `(batch,)` weights are summed once per token.
    counted = ops.ones_like(labels) if ignore_class is None else ops.not_equal(labels, ignore_class)
    counted = ops.cast(counted, dtype)
    if sample_weight is None:
        return counted
    sample_weight = ops.convert_to_tensor(sample_weight, dtype=dtype)
    for _ in range(len(labels.shape) - len(sample_weight.shape)):
        sample_weight = sample_weight[..., None]
    return counted * sample_weight


LOGITS, PARTS = 2**23, 32  # in memory at a time, about; but never more parts than this


def of_logits(loss: Any) -> Any:
    """A loss for outputs that are logits: by default, or under any of Keras' names for it, sparse cross-entropy.

    Args:
        loss: a loss, its name, its class or a function, as `keras.Model.compile` takes it; None for the default.

    Raises:
        UserError: it takes its input for probabilities.

    Example:
        >>> of_logits("sparse_categorical_crossentropy").from_logits
        True
    """
    found, sparse = keras.losses.get(loss), keras.losses.SparseCategoricalCrossentropy
    named = type(found) is sparse and found is not loss
    if found is None or named or found is keras.losses.sparse_categorical_crossentropy:
        return sparse(from_logits=True, reduction="mean_with_sample_weight")
    option = signature(found).parameters.get("from_logits")
    if not getattr(found, "from_logits", option is None or option.default):
        name = getattr(found, "__name__", type(found).__name__)
        raise UserError(f"loss: the outputs are logits; expected one made with from_logits=True, found {name} without")
    return found


def token_losses(x: Any, table: Any, bias: Any, labels: Any) -> Any:
    """Cross-entropy of each label under the logits x · table + bias, without ever holding all logits.

    Logits over a vocabulary are by far the largest thing that a step of pretraining makes. Here they are made for a few
    places of every row at a time (about eight million logits, or a thirty-second of all), read, and forgotten; going
    back they are made once more. Products are computed in the dtype of x, sums in float32 (float64 with it).

    Args:
        x: `(batch, places, width)`.
        table: `(vocab_size, width)`.
        bias: `(vocab_size,)`.
        labels: ints `(batch, places)`, -100 where there is none.

    Returns:
        `(batch, places, 2)`: the cross-entropy, and 1 where the highest logit is the label's, else 0 (this has no
        gradient); both 0 where there is no label.

    Source: the idea is Cut Your Losses' (arXiv:2411.09009) and older than it.

    Example:
        >>> x, table = ops.ones((1, 2, 3)), ops.array([[1.0, 0, 0], [0, 0, 0]])
        >>> found = token_losses(x, table, ops.zeros(2), [[0, -100]])
        >>> [[round(float(value), 4) for value in place] for place in found[0]]
        [[0.3133, 1.0], [0.0, 0.0]]
    """
    wide = keras.backend.result_type(x.dtype, "float32")
    vocab_size, (batch, places) = table.shape[0], ops.shape(x)[:2]
    # How many rows there will be a traced function may not know, nor how many places: then these are one part.
    together = 8
    if isinstance(batch, int) and isinstance(places, int):
        together = max(LOGITS // (vocab_size * batch), -(-places // PARTS))
    # Labels go in as floats: gradients with respect to integers are a special case of every backend.
    exact = ops.cast(labels, wide)

    def logits_of(x: Any, table: Any, bias: Any) -> Any:
        # Two axes: PyTorch repeats the table for each row of three.
        return ops.cast(ops.matmul(x, ops.transpose(table)) + ops.cast(bias, x.dtype), wide)

    def parts(*tensors: Any) -> list[list[Any]]:
        """Of each tensor some places of every row, one behind the other."""
        starts = range(0, places, together) if isinstance(places, int) else ()
        stretches = [slice(i, i + together) for i in starts] or [slice(None)]
        return [[ops.reshape(t[:, stretch], (-1, *t.shape[2:])) for t in tensors] for stretch in stretches]

    def whole(found: list[Any]) -> Any:
        """Such parts as one tensor `(batch, places, …)` again."""
        return ops.concatenate([ops.reshape(part, (batch, -1, *part.shape[1:])) for part in found], axis=1)

    @ops.custom_gradient
    def losses(x: Any, table: Any, bias: Any, exact: Any) -> Any:
        ids = ops.cast(exact, "int32")
        counted = ops.cast(ids >= 0, wide)
        ids = ops.maximum(ids, 0)
        near, numbers = ops.cast(table, x.dtype), ops.arange(vocab_size, dtype="float32")
        found = []
        for x_, ids_, counted_ in parts(x, ids, counted):
            logits = logits_of(x_, near, bias)
            cost = -ops.take_along_axis(ops.log_softmax(logits), ids_[:, None], axis=-1)[:, 0]
            # The first of the highest: on a CPU XLA is slow with argmax, and with a minimum of ints.
            highest = ops.equal(logits, ops.max(logits, axis=-1, keepdims=True))
            right = ops.equal(ops.cast(ops.min(ops.where(highest, numbers, vocab_size), axis=-1), "int32"), ids_)
            found.append(ops.stack([cost * counted_, ops.cast(right, wide) * counted_], axis=-1))

        def gradient(*args: Any, upstream: Any = None) -> tuple[Any, ...]:
            slope = (args[0] if upstream is None else upstream)[..., 0] * counted
            # Anew: PyTorch takes what was made above for constants, should this slope be derived once more.
            near = ops.cast(table, x.dtype)
            towards, of_table, of_bias = [], 0.0, 0.0
            for x_, slope_ in parts(x, slope):
                chances = ops.cast(ops.exp(ops.log_softmax(logits_of(x_, near, bias))), x.dtype)
                slope_ = ops.cast(slope_, x.dtype)[:, None]
                towards.append(ops.matmul(chances, near) * slope_)
                # The slope goes to the narrow side of both products.
                of_both = ops.matmul(ops.transpose(chances), ops.concatenate([x_ * slope_, slope_], axis=1))
                of_table = of_table + ops.cast(of_both[:, :-1], wide)
                of_bias = of_bias + ops.cast(of_both[:, -1], wide)
            # What the labels themselves pull, row by row of the table.
            own = ops.cast(slope, x.dtype)[..., None]
            of_x = whole(towards) - ops.take(near, ids, axis=0) * own
            rows, flat_ids = ops.reshape(ops.cast(x * own, wide), (-1, x.shape[-1])), ops.reshape(ids, (-1,))
            of_table = of_table - ops.segment_sum(rows, flat_ids, vocab_size)
            of_bias = of_bias - ops.segment_sum(ops.reshape(slope, (-1,)), flat_ids, vocab_size)
            return of_x, ops.cast(of_table, table.dtype), ops.cast(of_bias, bias.dtype), ops.zeros_like(exact)

        return whole(found), gradient

    given = map(ops.convert_to_tensor, (x, table, bias, exact))
    # Reshaped: TensorFlow, if not compiled, would pass variables on as such, and want their gradients apart.
    return losses(*(ops.reshape(each, ops.shape(each)) for each in given))
