"""Tiger: the sign of the momentum, at a rate that fits each weight's size. One slot per weight."""

import re
from typing import Any

import keras
from keras import ops

from maskplay import _backend
from maskplay.errors import UserError, within
from maskplay.optimizers.wrapper import GAINS_AND_BIASES

__all__ = ["Tiger"]

SMALLEST = 1e-3  # of the size; weights that begin as 0 would never leave it


@keras.saving.register_keras_serializable(package="maskplay")
class Tiger(keras.optimizers.Optimizer):
    """m ← beta m + (1 - beta) g, then θ ← θ - rate · size · (sign(m) + weight_decay θ).

    The size is the root mean square of θ, for embeddings that of each row, and never below 0.001 (the post has no such
    bound). Gains and biases, told by their names, have the size 0.5 and no decay. On a step where a weight's
    gradient is not finite its momentum waits, and the weight shrinks by a hundredth towards 0, a gain towards 1.
    Source: kexue.fm/archives/9512; its accumulation without a buffer is here Keras' own, with one.

    Args:
        learning_rate: as a part of a weight's size; the post advises about 1e-3 at first and a decay to 0.
        beta: of the momentum.
        weight_decay: as in the formula; `exclude_from_decay` holds.
        shrink: what a weight is multiplied by in place of a step with an infinite gradient or NaN.
        **kwargs: the rest of what any Keras optimizer takes.

    Raises:
        UserError: beta or shrink outside 0 to 1.

    Example:
        >>> kernel = keras.Variable([[2.0, -2.0]], name="kernel")
        >>> optimizer = Tiger(0.25, weight_decay=0.0)
        >>> optimizer.apply([ops.array([[0.3, 0.7]])], [kernel])
        >>> kernel.numpy().tolist()
        [[1.5, -2.5]]
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta: float = 0.965,
        weight_decay: float | None = 0.01,
        shrink: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        for name, value in (("beta", beta), ("shrink", shrink)):
            if not within(value, 0, 1):
                raise UserError(f"Tiger: expected {name} from 0 to 1, found {value!r}")
        self.beta = beta
        self.shrink = shrink

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")
        # Under TensorFlow `update_step` gets variables that have lost their paths.
        self._paths = [variable.path for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        at = self._get_variable_index(variable)
        momentum, path = self._momentums[at], self._paths[at]
        vector = re.search(GAINS_AND_BIASES, path)
        gradient = ops.cast(_backend.dense(gradient), variable.dtype)
        weight = ops.convert_to_tensor(variable)
        finite = ops.all(ops.isfinite(gradient))

        moved = self.beta * momentum.value + (1 - self.beta) * ops.where(finite, gradient, 0)
        moved = ops.where(finite, moved, momentum.value)
        size, decay = 0.5, 0.0
        if not vector:
            size = self._size(weight, rows="embedding" in path.split("/")[-1])
            decay = (self.weight_decay or 0.0) if self._use_weight_decay(variable) else 0.0
        step = ops.cast(learning_rate, variable.dtype) * size * (ops.sign(moved) + decay * weight)
        rest = 1.0 if vector and vector["name"] in ("gamma", "scale") else 0.0
        new = ops.where(finite, weight - step, (weight - rest) * self.shrink + rest)
        self.assign(momentum, moved)
        self.assign(variable, new)

    def _size(self, weight: Any, rows: bool) -> Any:
        square = ops.mean(ops.square(weight), axis=-1, keepdims=True) if rows else ops.mean(ops.square(weight))
        return ops.maximum(ops.sqrt(square), SMALLEST)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Keras' place for decay, before the step; here it is a part of the step."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta, "shrink": self.shrink}
