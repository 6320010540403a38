"""An exponential moving average of the weights, for evaluation, that keeps step with real steps."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from maskplay.errors import UserError, within
from maskplay.optimizers.wrapper import OptimizerWrapper, snapshot

__all__ = ["Average"]


@keras.saving.register_keras_serializable(package="maskplay")
class Average(OptimizerWrapper):
    """Averages the weights as they are after each real step; training itself does not notice.

    Keras' own `use_ema=` also averages on the calls that only accumulate gradients, and does not see what wrappers
    around it do. Put this one outermost. The average a after step n of the weights θ₁ … θₙ is
    Σ mⁿ⁻ⁱ θᵢ / Σ mⁿ⁻ⁱ. Source: kexue.fm/archives/6575.

    Args:
        inner: any Keras optimizer.
        momentum: m, 0 to below 1; the average spans about 1 / (1 - m) steps.
        debias: False: a starts as the weights are before training and each step is a ← m a + (1 - m) θ, as in the post.

    Raises:
        UserError: the momentum is out of range; or, when training starts, weights of half precision.

    Example:
        >>> layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        >>> model = keras.Sequential([keras.Input((1,)), layer])
        >>> optimizer = Average(keras.optimizers.SGD(1.0), momentum=0.5)
        >>> for _ in range(2):  # θ = 2, then 3
        ...     optimizer.apply([-ops.ones((1, 1))], model.trainable_variables)
        >>> with optimizer.average_weights(model):
        ...     round(model.get_weights()[0].item(), 3)  # (0.5 * 2 + 3) / 1.5
        2.667
        >>> model.get_weights()[0].item()
        3.0
    """

    def __init__(
        self, inner: keras.optimizers.Optimizer, momentum: float = 0.999, debias: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(inner, **kwargs)
        if not within(momentum, 0, 1) or momentum == 1:
            raise UserError(f"Average: expected a momentum from 0 to below 1, found {momentum!r}")
        self.momentum = momentum
        self.debias = debias

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            for variable in variables:
                if variable.dtype in ("float16", "bfloat16"):  # in which a + (1 - m)(θ - a) is a
                    raise UserError(
                        f"{self.name}: expected weights of float32 (mixed precision has them), found {variable.dtype}"
                    )
            super().build(variables)
            self._averages = self.slots("running_average")

    def step(self, grads: list[Any], variables: list[keras.Variable]) -> None:
        real = self.advance(grads, variables)
        share = self._share()
        for variable, average in zip(self._trainable_variables, self._averages):
            if average is not None:
                part = ops.cast(share, average.dtype)
                new = (1 - part) * average.value + part * variable.value
                average.assign(ops.where(real, new, average.value))

    def _share(self) -> Any:
        """The newest weights' share, (1 - m) / (1 - mⁿ), so that what is stored is the average itself."""
        if not self.debias or not self.momentum:
            return 1 - self.momentum
        steps = ops.cast(ops.maximum(self.real_steps, 1), "float32")
        share = (self.momentum - 1) / ops.expm1(steps * math.log(self.momentum))
        return ops.where(ops.equal(steps, 1), 1.0, share)  # the first one exactly

    @contextmanager
    def average_weights(self, model: keras.Model) -> Iterator[None]:
        """Within the `with` block the model has the averages as its weights; after it, its own to the last bit.

        Args:
            model: the one this optimizer trains.

        Raises:
            UserError: the optimizer has not trained this model.
        """
        known = {id(variable) for variable in self._trainable_variables}
        if not known or any(id(variable) not in known for variable in model.trainable_variables):
            raise UserError(f"{self.name}: holds no averages of {model.name}; train it with this optimizer first")
        kept = [snapshot(variable) for variable in self._trainable_variables]
        try:
            for variable, average in zip(self._trainable_variables, self._averages):
                if average is not None:
                    variable.assign(snapshot(average))
            yield
        finally:
            for variable, value in zip(self._trainable_variables, kept):
                variable.assign(value)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "debias": self.debias}
