"""Lookahead: fast weights explore, slow weights follow them every few steps."""

from typing import Any

import keras
from keras import ops

from maskplay.errors import UserError, whole_number, within
from maskplay.optimizers.wrapper import OptimizerWrapper

__all__ = ["Lookahead"]


@keras.saving.register_keras_serializable(package="maskplay")
class Lookahead(OptimizerWrapper):
    """Every `sync_period` steps the weights θ go back to slow weights φ, which have moved a part of the way to θ.

    φ ← φ + slow_step (θ - φ), then θ ← φ; φ starts as the weights are when training starts. The inner optimizer keeps
    its moments. Source: arXiv:1907.08610; kexue.fm/archives/6869.

    Args:
        inner: any Keras optimizer.
        sync_period: real steps from one synchronization to the next.
        slow_step: how much of the way, 0 to 1; with 1 nothing but the inner optimizer is left.

    Raises:
        UserError: a period below 1, or a step outside 0 to 1.

    Example:
        >>> weight = keras.Variable([0.0])
        >>> optimizer = Lookahead(keras.optimizers.SGD(1.0), sync_period=2, slow_step=0.5)
        >>> for _ in range(2):
        ...     optimizer.apply([-ops.ones(1)], [weight])
        ...     print(weight.numpy().tolist())
        [1.0]
        [1.0]
    """

    def __init__(
        self, inner: keras.optimizers.Optimizer, sync_period: int = 5, slow_step: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(inner, **kwargs)
        if not within(slow_step, 0, 1):
            raise UserError(f"Lookahead: expected a slow_step from 0 to 1, found {slow_step!r}")
        self.sync_period = whole_number("sync_period", sync_period, 1)
        self.slow_step = slow_step

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self._slow = self.slots("slow")

    def step(self, grads: list[Any], variables: list[keras.Variable]) -> None:
        real = self.advance(grads, variables)
        sync = ops.logical_and(real, ops.equal(self.real_steps % self.sync_period, 0))
        moving = {self._get_variable_index(variable) for variable in variables}  # not what was frozen since
        for i, (variable, slow) in enumerate(zip(self._trainable_variables, self._slow)):
            if slow is not None:
                if i in moving:
                    # In this form a step of 1 gives θ to the last bit.
                    target = (1 - self.slow_step) * slow.value + self.slow_step * variable.value
                    self.put(variable, target, sync)
                slow.assign(ops.where(sync, variable.value, slow.value))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sync_period": self.sync_period, "slow_step": self.slow_step}
