"""Layer adaptation: each weight moves in proportion to its own length. LAMB and LARS around any optimizer."""

import re
from collections.abc import Sequence
from math import inf
from typing import Any

import keras
from keras import ops

from maskplay.errors import UserError, within
from maskplay.optimizers.schedules import Modified, WithoutBiasCorrection
from maskplay.optimizers.wrapper import GAINS_AND_BIASES, OptimizerWrapper, leaves, listed, snapshot

__all__ = ["LayerAdaptation"]


@keras.saving.register_keras_serializable(package="maskplay")
class LayerAdaptation(OptimizerWrapper):
    """Rescales the step of each weight to the length rate · ‖θ‖; its direction stays the inner optimizer's.

    Around `Adam(weight_decay=…)` it is LAMB as published (arXiv:1904.00962), with the decay inside the ratio, where
    Keras' `Lamb` has it outside; around `SGD` it is LARS (arXiv:1708.03888). A weight that is 0, or does not move, is
    left to the inner optimizer. Source: kexue.fm/archives/7094.

    Args:
        inner: any Keras optimizer with one learning rate.
        exclude: regular expressions, or one; weights in whose paths one is found keep the inner step. By default biases
            and the gains of normalizations; None: no weight.
        limits: least and greatest ‖θ‖ that the ratio reckons with; None: whatever it is.

    Raises:
        UserError: the inner optimizer has no single learning rate, or one with `WithoutBiasCorrection`, which would
            lengthen the step; or limits that are not 0 ≤ least ≤ greatest.

    Example:
        >>> weight = keras.Variable([3.0, 4.0])
        >>> optimizer = LayerAdaptation(keras.optimizers.SGD(0.1))
        >>> optimizer.apply([ops.array([0.0, 7.0])], [weight])  # of length 0.1 · 5
        >>> weight.numpy().tolist()
        [3.0, 3.5]
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        exclude: str | Sequence[str] | None = (GAINS_AND_BIASES,),
        limits: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inner, **kwargs)
        if not hasattr(inner, "learning_rate"):
            raise UserError(f"LayerAdaptation: {inner.name} has no learning rate of its own; wrap what is inside it")
        pair = isinstance(limits, list | tuple) and len(limits) == 2 and all(within(each, 0, inf) for each in limits)
        if limits is not None and (not pair or limits[0] > limits[1]):
            raise UserError(f"LayerAdaptation: expected limits (least, greatest) from 0, found {limits!r}")
        for each in leaves(inner):
            schedule = getattr(each, "_learning_rate", None)
            while isinstance(schedule, Modified):
                if isinstance(schedule, WithoutBiasCorrection):
                    raise UserError("LayerAdaptation: WithoutBiasCorrection would lengthen its steps; leave it out")
                schedule = schedule.base
        self.exclude = tuple(listed(exclude, "LayerAdaptation"))
        self.limits = None if limits is None else (limits[0], limits[1])

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            patterns = [pattern for pattern in self.exclude if pattern != GAINS_AND_BIASES]
            found = self.matching(patterns, variables)  # one that the user gave must be found somewhere
            excluded = {i for places in found.values() for i in places}
            if GAINS_AND_BIASES in self.exclude:
                excluded |= {i for i, v in enumerate(variables) if re.search(GAINS_AND_BIASES, v.path)}
            super().build(variables)
            self._adapted = [
                i not in excluded and not getattr(v, "overwrite_with_gradient", False)  # whose change is no step
                for i, v in enumerate(variables)
            ]

    def step(self, grads: list[Any], variables: list[keras.Variable]) -> None:
        adapted = [variable for variable in variables if self._adapted[self._get_variable_index(variable)]]
        old = [snapshot(variable) for variable in adapted]
        rate = ops.copy(ops.convert_to_tensor(self.learning_rate))  # of this step, which moves a schedule on
        real = self.advance(grads, variables)
        for variable, before in zip(adapted, old):
            self.put(variable, before + self._rescaled(before, variable.value - before, rate), real)

    def _rescaled(self, before: Any, change: Any, rate: Any) -> Any:
        length, moved = _norm(before), _norm(change)
        moves = ops.logical_and(length > 0, moved > 0)
        if self.limits is not None:
            length = ops.clip(length, *self.limits)
        ratio = length * ops.cast(rate, length.dtype) / ops.where(moves, moved, 1.0)
        return change * ops.cast(ops.where(moves, ratio, 1.0), change.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "exclude": list(self.exclude), "limits": self.limits}


def _norm(x: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(ops.cast(x, "float32"))))
