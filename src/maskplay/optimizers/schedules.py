"""Learning rates by the step: what Keras' schedules lack. Each takes a number or another schedule as its base."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import keras
from keras import ops

from maskplay.errors import UserError, whole_number, within

__all__ = ["MicroStepSchedule", "PiecewiseLinear", "WithoutBiasCorrection"]

Base = float | keras.optimizers.schedules.LearningRateSchedule


class Modified(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule on top of a base."""

    def __init__(self, base: Base) -> None:
        if isinstance(base, dict):  # as saved
            base = keras.saving.deserialize_keras_object(base)
        if not isinstance(base, Real | keras.optimizers.schedules.LearningRateSchedule) or isinstance(base, bool):
            raise UserError(f"{type(self).__name__}: expected a rate or a schedule, found {base!r}")
        self.base = float(base) if isinstance(base, Real) else base  # NumPy's numbers are no JSON

    def rate(self, step: Any) -> Any:
        """The base's rate, a float32 tensor."""
        return ops.cast(self.base if isinstance(self.base, float) else self.base(step), "float32")

    def get_config(self) -> dict[str, Any]:
        number = isinstance(self.base, float)
        return {"base": self.base if number else keras.saving.serialize_keras_object(self.base)}


@keras.saving.register_keras_serializable(package="maskplay")
class PiecewiseLinear(Modified):
    """A rate that runs in straight lines from knot to knot and stays after the last: warm-up and decay in one.

    Args:
        base: the rate at a multiplier of 1, or a schedule.
        knots: steps and what the base is multiplied by there. Without a knot at 0 the multiplier starts at 0.

    Raises:
        UserError: no knots, or a step below 0; a base that is neither a rate nor a schedule.

    Example:
        >>> schedule = PiecewiseLinear(1e-3, {1000: 1, 2000: 0.1})
        >>> [round(float(schedule(step)), 6) for step in (0, 500, 1000, 1500, 9999)]
        [0.0, 0.0005, 0.001, 0.00055, 0.0001]
    """

    def __init__(self, base: Base, knots: Mapping[int, float]) -> None:
        super().__init__(base)
        try:  # JSON has only text as keys
            self.knots = {int(step): float(multiplier) for step, multiplier in knots.items()}
            whole = all(isinstance(step, str) or step == int(step) for step in knots)
        except (AttributeError, TypeError, ValueError, OverflowError):
            self.knots, whole = {}, False
        if not self.knots or not whole or min(self.knots) < 0 or not all(map(math.isfinite, self.knots.values())):
            found = f"found {knots!r:.80}"
            raise UserError(f"PiecewiseLinear: expected {{step: multiplier}} with whole steps from 0, {found}")

    def __call__(self, step: Any) -> Any:
        knots = sorted({0: 0.0, **self.knots}.items())
        now = ops.convert_to_tensor(step)
        multiplier = ops.cast(knots[-1][1], "float32")
        for (start, left), (end, right) in reversed(list(zip(knots, knots[1:]))):
            part = ops.cast(now - start, "float32") / (end - start)
            multiplier = ops.where(now < end, left + (right - left) * part, multiplier)
        return self.rate(step) * multiplier

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "knots": {str(step): multiplier for step, multiplier in self.knots.items()}}


@keras.saving.register_keras_serializable(package="maskplay")
class MicroStepSchedule(Modified):
    """A schedule in real steps for an optimizer that accumulates gradients, to which Keras shows each call as a step.

    Args:
        base: the schedule, in real steps.
        steps: `gradient_accumulation_steps` of the optimizer.

    Raises:
        UserError: `steps` is below 1; a base that is neither a rate nor a schedule.

    Example:
        >>> schedule = MicroStepSchedule(PiecewiseLinear(1.0, {2: 1}), steps=4)
        >>> [float(schedule(call)) for call in (0, 3, 4, 8)]
        [0.0, 0.0, 0.5, 1.0]
    """

    def __init__(self, base: Base, steps: int) -> None:
        super().__init__(base)
        self.steps = whole_number("steps", steps, 1)

    def __call__(self, step: Any) -> Any:
        return self.rate(ops.floor_divide(ops.convert_to_tensor(step), self.steps))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "steps": self.steps}


@keras.saving.register_keras_serializable(package="maskplay")
class WithoutBiasCorrection(Modified):
    """A rate that cancels the bias correction of Adam, for Adam as BERT was trained with.

    Adam multiplies the rate of step t, counted from 1, by √(1 - β₂ᵗ) / (1 - β₁ᵗ); this schedule by the inverse.
    Decoupled weight decay, which has no such correction, is multiplied too: up to 7 times, in the first steps, where
    warm-up makes it nothing. Around it goes `MicroStepSchedule` if gradients are accumulated.

    Args:
        base: a rate or a schedule.
        beta_1: the optimizer's.
        beta_2: the optimizer's.

    Raises:
        UserError: a base that is neither a rate nor a schedule, or a beta that is none.

    Example:
        >>> weight = keras.Variable([0.0])
        >>> optimizer = keras.optimizers.Adam(WithoutBiasCorrection(1.0), epsilon=1e-12)
        >>> optimizer.apply([ops.ones(1)], [weight])  # m / √v = 0.1 / √0.001
        >>> round(float(weight.numpy()[0]), 3)
        -3.162
    """

    def __init__(self, base: Base, beta_1: float = 0.9, beta_2: float = 0.999) -> None:
        super().__init__(base)
        if not all(within(beta, 0, 1) and beta < 1 for beta in (beta_1, beta_2)):
            raise UserError(f"WithoutBiasCorrection: expected betas from 0 to below 1, found {beta_1!r} and {beta_2!r}")
        self.beta_1 = beta_1
        self.beta_2 = beta_2

    def __call__(self, step: Any) -> Any:
        count = ops.cast(ops.convert_to_tensor(step) + 1, "float32")
        return self.rate(step) * (1 - self.beta_1**count) / ops.sqrt(1 - self.beta_2**count)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2}
