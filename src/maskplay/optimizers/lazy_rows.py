"""Rows of an embedding that no example of a batch used stand still, with any optimizer."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import ops

from maskplay.errors import UserError
from maskplay.optimizers.wrapper import OptimizerWrapper, chain, listed, snapshot

__all__ = ["LazyRows"]

ACCUMULATOR = "gradient_accumulator"


@keras.saving.register_keras_serializable(package="maskplay")
class LazyRows(OptimizerWrapper):
    """Moves only the touched rows of some weights: those whose gradient is not all 0, in any batch of an accumulation.

    An optimizer with momentum or decay also moves the rows of words that did not occur. Here such rows keep their
    values, and so do the optimizer's slots for them. Touched rows get just what the inner optimizer did, which corrects
    its bias by the count of all steps. Source: kexue.fm/archives/6869.

    Args:
        inner: any Keras optimizer.
        patterns: regular expressions for the paths of the weights meant, of shape (rows, …), as `"embedding/token"`.
        freeze_slots: False: slots go on as if there were no such wrapper, the rule of the post.
        allow_partial: wrap optimizers whose slots mix rows (Adafactor, ScheduleFreeAdamW, Muon) all the same; only
            the weights and slots of the weights' shape then stand still.

    Raises:
        UserError: no pattern; or when training starts: one is found nowhere, a weight has no rows, or slots mix rows.
        NotImplementedError: under `tf.distribute` with several replicas, of which each would see other gradients; use
            `keras.distribution`.

    Example:
        >>> table = keras.Variable([[1.0], [1.0]], name="table")
        >>> optimizer = LazyRows(keras.optimizers.SGD(0.5, weight_decay=0.5), ["table"])
        >>> optimizer.apply([ops.array([[1.0], [0.0]])], [table])
        >>> table.numpy().tolist()
        [[0.25], [1.0]]
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        patterns: Iterable[str],
        freeze_slots: bool = True,
        allow_partial: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(inner, **kwargs)
        self.patterns = listed(patterns, "LazyRows")
        if not self.patterns:
            raise UserError("LazyRows: expected at least one pattern, as 'embedding/token', found none")
        self.freeze_slots = freeze_slots
        self.allow_partial = allow_partial

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        strategy = getattr(self, "_distribution_strategy", None)
        if strategy is not None and strategy.num_replicas_in_sync > 1:
            raise NotImplementedError("LazyRows: tf.distribute sums gradients too late; use keras.distribution")
        lazy = {i for places in self.matching(self.patterns, variables).values() for i in places}
        if not self.inner.built:
            self.inner.build(variables)
        # Names of the inner optimizer's variables; kept here, the variables would be saved twice.
        self._slots: dict[int, set[tuple[str, int]]] = {}
        for i, variable in enumerate(variables):
            if i in lazy:
                if len(variable.shape) < 2:
                    shape = tuple(variable.shape)
                    raise UserError(f"LazyRows: expected weights of shape (rows, …), found {shape}: {variable.path}")
                self._slots[i] = self._slots_of(variable, variables)
        super().build(variables)
        accumulates = any(each.gradient_accumulation_steps for each in chain(self.inner))
        self._seen: dict[int, keras.Variable] = {}
        for i in self._slots if accumulates else ():
            rows = (variables[i].shape[0], *[1] * (len(variables[i].shape) - 1))
            self._seen[i] = self.add_variable(rows, name=f"{_prefix(variables[i])}seen_rows")

    def _slots_of(self, variable: keras.Variable, variables: list[keras.Variable]) -> set[tuple[str, int]]:
        """The slots of a weight: by Keras, their names begin with the weight's path.

        Of several weights with one path, as two networks in one model have, the first owns the first of each name.
        """
        slots = []
        for each in chain(self.inner):
            mine = [own for own in each._trainable_variables if own.path == variable.path]
            place = next((i for i, own in enumerate(mine) if own is variable), None)
            if place is None:
                continue  # a MultiOptimizer gives it to another
            named: dict[str, list[keras.Variable]] = {}
            for slot in each._variables:
                owners = [v for v in variables if slot.name.startswith(_prefix(v))]
                owners = [v for v in owners if tuple(v.shape) == tuple(slot.shape)]
                owner = max(owners, key=lambda v: len(v.path), default=None)
                if owner is not None and owner.path == variable.path and not slot.name.endswith(ACCUMULATOR):
                    named.setdefault(slot.name, []).append(slot)
            for name, some in named.items():
                if len(some) != len(mine):
                    raise UserError(
                        f"LazyRows: {len(mine)} weights have the path {variable.path}, and {each.name} has "
                        f"{len(some)} slots {name}: not to be told apart; give their layers other names"
                    )
                slots.append(some[place])
        if not self.allow_partial:
            names = {slot.name for slot in slots}
            for each in chain(self.inner):
                if not any(own is variable for own in each._trainable_variables):
                    continue
                coupled = isinstance(each, keras.optimizers.Adafactor | keras.optimizers.ScheduleFreeAdamW)
                if isinstance(each, keras.optimizers.Muon):  # for what it leaves to Adam it has a second moment
                    coupled = f"{_prefix(variable)}velocity" not in names
                if coupled:
                    raise UserError(
                        f"LazyRows: {each.name} has state for {variable.path} in which rows mix; allow_partial=True to "
                        "let that state go on for all rows"
                    )
        owned = {id(slot) for slot in slots}
        return {name for name, slot in _named(self.inner.variables) if id(slot) in owned}

    def step(self, grads: list[Any], variables: list[keras.Variable]) -> None:
        lazy = []
        for grad, variable in zip(grads, variables):
            i = self._get_variable_index(variable)
            if i in self._slots and grad is not None:
                touched = _touched(grad)
                if i in self._seen:
                    touched = ops.logical_or(touched, self._seen[i].value > 0)
                slots = [slot for name, slot in _named(self.inner.variables) if name in self._slots[i]]
                slots *= self.freeze_slots
                kept = [variable, *slots]
                lazy.append((touched, self._seen.get(i), kept, [snapshot(each) for each in kept]))
        real = self.advance(grads, variables)
        for touched, seen, kept, old in lazy:
            moves = ops.logical_or(touched, ops.logical_not(real))
            for each, before in zip(kept, old):
                each.assign(ops.where(moves, each.value, before))
            if seen is not None:
                seen.assign(ops.cast(ops.logical_and(touched, ops.logical_not(real)), seen.dtype))

    def get_config(self) -> dict[str, Any]:
        own = {"freeze_slots": self.freeze_slots, "allow_partial": self.allow_partial}
        return {**super().get_config(), "patterns": list(self.patterns), **own}


def _named(variables: Iterable[keras.Variable]) -> Iterator[tuple[tuple[str, int], keras.Variable]]:
    """Variables with what tells them apart: the path, and which of those with this path."""
    times: Counter[str] = Counter()
    for variable in variables:
        yield (variable.path, times[variable.path]), variable
        times[variable.path] += 1


def _prefix(variable: keras.Variable) -> str:
    return variable.path.replace("/", "_") + "_"


def _touched(grad: Any) -> Any:
    """Which rows have any gradient: booleans (rows, 1, …)."""
    return ops.any(ops.not_equal(grad, 0), axis=tuple(range(1, len(grad.shape))), keepdims=True)
