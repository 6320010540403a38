"""What all optimizer wrappers share: an optimizer around an optimizer, of which it only sees steps.

The wrapper's variables are its own and the inner ones; rate, clock, loss scale and decay are the inner optimizer's. A
*real* step is one on which the inner clock moved: with `gradient_accumulation_steps=k` one call in k. Everything a
wrapper does happens on real steps only, by `ops.where`, so it compiles on every backend.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Self

import keras
from keras import ops

from maskplay import _backend
from maskplay.errors import UserError

__all__ = ["GAINS_AND_BIASES", "OptimizerWrapper"]

# In the paths of Keras' layers and ours (gamma_kernel is a kernel); TensorFlow may add :0.
GAINS_AND_BIASES = r"(^|[/_])(?P<name>bias|gamma|beta|scale)(:\d+)?$"


@keras.saving.register_keras_serializable(package="maskplay")
class OptimizerWrapper(keras.optimizers.Optimizer):
    """An optimizer that steps by another one; alone it changes nothing. Subclasses override `step`.

    Args:
        inner: any Keras optimizer but `LossScaleOptimizer`, which belongs around the wrappers (`compile` puts it there
            under mixed_float16).
        name: for error messages and saved files.

    Raises:
        UserError: `inner` is no such optimizer or has `use_ema` (`Average` goes around wrappers), or the wrapper got an
            argument that belongs to `inner` (`weight_decay`, `clipnorm`, …).

    Example:
        >>> class Halved(OptimizerWrapper):
        ...     def step(self, grads, variables):
        ...         old = [ops.copy(variable.value) for variable in variables]
        ...         real = self.advance(grads, variables)
        ...         for variable, before in zip(variables, old):
        ...             self.put(variable, (before + variable.value) / 2, real)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer = Halved(keras.optimizers.SGD(0.5))
        >>> optimizer.apply([ops.ones(2)], [weight])
        >>> weight.numpy().tolist()
        [0.75, 1.75]
    """

    def __init__(self, inner: keras.optimizers.Optimizer, name: str | None = None, **misplaced: Any) -> None:
        kind = type(self).__name__
        if not isinstance(inner, keras.optimizers.Optimizer):
            raise UserError(f"{kind}: expected a Keras optimizer to wrap, found {inner!r}")
        if isinstance(inner, keras.optimizers.LossScaleOptimizer):
            raise UserError(f"{kind}: LossScaleOptimizer goes outside: LossScaleOptimizer({kind}(…))")
        _check_leaves(kind, inner)
        if misplaced:
            raise UserError(f"{kind}: takes no {', '.join(misplaced)}; give it to the inner optimizer")
        # A callable rate, because a number would become a variable that nothing uses.
        super().__init__(learning_rate=lambda: inner.learning_rate, name=name)
        self.inner = inner
        self._found: dict[str, Any] | None = None  # what `matching` found, and for weights of which shapes

    def step(self, grads: list[Any], variables: list[keras.Variable]) -> None:
        """One call of the optimizer. A wrapper calls `advance` in the middle and keeps snapshots in local variables.

        Args:
            grads: one tensor or None for each variable.
            variables: those given to `apply`, all or some of those the optimizer was built for.
        """
        self.advance(grads, variables)

    def advance(self, grads: list[Any], variables: list[keras.Variable]) -> Any:
        """The inner optimizer's step; True, as a tensor, where it was a real one. Counts real steps."""
        # Of those at the bottom: a MultiOptimizer counts every call.
        clocks = lambda: [ops.convert_to_tensor(each.iterations) for each in leaves(self.inner)]  # noqa: E731
        before = [ops.copy(clock) for clock in clocks()]
        self.inner.apply(grads, variables)
        real = ops.any(ops.stack([ops.not_equal(now, then) for now, then in zip(clocks(), before)]))
        self._iterations.assign_add(ops.cast(real, self._iterations.dtype))
        return real

    @property
    def real_steps(self) -> Any:
        """Real steps so far, an integer tensor."""
        return ops.convert_to_tensor(self._iterations)

    def put(self, variable: keras.Variable, value: Any, real: Any) -> None:
        """Give a weight a new value, under its constraint, where the step was a real one."""
        value = ops.cast(value, variable.dtype)
        if variable.constraint is not None:
            value = variable.constraint(value)
        variable.assign(ops.where(real, value, variable.value))

    def slots(self, name: str) -> list[keras.Variable | None]:
        """One variable per weight that starts with the weight's value (as it is when the optimizer is built).

        None where Keras writes the gradient itself into the weight (scales of float8).
        """

        def slot(variable: keras.Variable) -> keras.Variable | None:
            if getattr(variable, "overwrite_with_gradient", False):
                return None
            made = self.add_variable_from_reference(variable, name=name)
            # A copy: two JAX variables that share a buffer cannot both be donated to a compiled step. And no
            # initializer, which Keras would compile for large weights on several devices, with the weight in it.
            made.assign(ops.cast(snapshot(variable), made.dtype))
            return made

        with _backend.untraced():
            return [slot(variable) for variable in self._trainable_variables]

    def matching(self, patterns: Iterable[str], variables: list[keras.Variable]) -> dict[str, list[int]]:
        """For each pattern the numbers of the weights in whose paths it is found, as by `paths_matching`.

        What was found once is saved and stays: a `Sequential` that was loaded has other paths, without its own name.
        """
        shapes, patterns = [list(variable.shape) for variable in variables], list(patterns)
        known: Any = self._found  # which says nothing of another network, or of patterns that a changed config has
        if known is None or known["shapes"] != shapes or not {*patterns} <= {*known["places"]}:
            found = paths_matching(patterns, variables, self.name)
            places = {name: [i for i, v in enumerate(variables) if v.path in paths] for name, paths in found.items()}
            known = self._found = {"shapes": shapes, "places": places}
        return {pattern: known["places"][pattern] for pattern in patterns}

    # What Keras calls

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the inner optimizer's variables; a subclass makes its own after `super().build(variables)`."""
        if not self.inner.built:
            self.inner.build(variables)
        _check_leaves(type(self).__name__, self.inner)  # a MultiOptimizer has made them only now
        super().build(variables)

    def apply(self, grads: Sequence[Any], trainable_variables: Iterable[keras.Variable] | None = None) -> None:
        # Rows that occur twice count as one: TensorFlow's slices would be squared one by one.
        grads = [_backend.dense(grad) for grad in grads]
        if not grads:
            return
        if not self.built:
            if trainable_variables is None:
                raise UserError(f"{self.name}: not built yet; call build(variables) or apply(grads, variables)")
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if len(grads) != len(variables):
            raise UserError(f"{self.name}: expected {len(variables)} gradients, one per weight, found {len(grads)}")
        self._check_variables_are_known(variables)
        self.step(grads, variables)

    @property
    def variables(self) -> list[keras.Variable]:
        return self._variables + self.inner.variables

    @property
    def iterations(self) -> Any:
        return self.inner.iterations

    @property
    def learning_rate(self) -> Any:
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner.learning_rate = learning_rate

    @property
    def loss_scale_factor(self) -> float | None:
        return self.inner.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor: float | None) -> None:
        if hasattr(self, "inner"):  # Keras sets it once before there is one
            self.inner.loss_scale_factor = factor

    def scale_loss(self, loss: Any) -> Any:
        return self.inner.scale_loss(loss)

    def finalize_variable_values(self, var_list: list[keras.Variable]) -> None:
        self.inner.finalize_variable_values(var_list)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        self.inner.exclude_from_weight_decay(var_list, var_names)

    def set_weights(self, weights: Sequence[Any]) -> None:
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    # Keras walks to the inner optimizer by itself, so each saves what is its own.

    def save_own_variables(self, store: Any) -> None:
        for i, variable in enumerate(self._variables):
            store[str(i)] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        if len(store.keys()) != len(self._variables):
            # As Keras' optimizers do: the weights beside it can be used all the same.
            warnings.warn(
                f"{self.name}: expected {len(self._variables)} saved variables, found {len(store.keys())}, so none is "
                "loaded; the file is of another optimizer, or this one is not built for the same weights yet",
                stacklevel=2,
            )
            return
        for i, variable in enumerate(self._variables):
            variable.assign(store[str(i)])

    def get_config(self) -> dict[str, Any]:
        config = {"name": self.name, "inner": keras.saving.serialize_keras_object(self.inner)}
        if self._found is not None:  # plain lists of those that Keras tracks
            shapes = [list(shape) for shape in self._found["shapes"]]
            places = {pattern: list(some) for pattern, some in self._found["places"].items()}
            config["found"] = {"shapes": shapes, "places": places}
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        # A copy, because Keras writes the objects it makes into the config it is given.
        inner = keras.saving.deserialize_keras_object(deepcopy(config["inner"]), custom_objects=custom_objects)
        made = cls(**{**{name: value for name, value in config.items() if name != "found"}, "inner": inner})
        made._found = config.get("found")
        return made


def _check_leaves(kind: str, inner: keras.optimizers.Optimizer) -> None:
    some = leaves(inner)
    accumulating = {each.gradient_accumulation_steps or 1 for each in some}
    if len(accumulating) > 1:
        raise UserError(f"{kind}: expected one gradient_accumulation_steps, found {sorted(accumulating)} inside")
    if any(each.use_ema for each in some):  # it would average, and write, what the wrapper then changes
        raise UserError(f"{kind}: use_ema inside it; put mp.optimizers.Average around it instead")


def snapshot(variable: keras.Variable) -> Any:
    """A variable's value of now; without the copy PyTorch's and TensorFlow's would change with the variable."""
    return ops.copy(ops.stop_gradient(variable.value))


def chain(optimizer: keras.optimizers.Optimizer) -> Iterator[keras.optimizers.Optimizer]:
    """An optimizer and all it works through, from the outside in: wrappers, loss scale, Keras' MultiOptimizer."""
    yield optimizer
    inside = getattr(optimizer, "inner", None) or getattr(optimizer, "inner_optimizer", None)
    for each in [inside] if inside is not None else getattr(optimizer, "optimizers", []):
        yield from chain(each)


def leaves(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Those that work through no other."""
    return [each for each in chain(optimizer) if len(list(chain(each))) == 1]


def listed(patterns: str | Iterable[str] | None, owner: str) -> list[str]:
    """Patterns as a list; one may stand alone, None is none."""
    given: list[Any] = [patterns]
    if patterns is None or isinstance(patterns, Iterable) and not isinstance(patterns, str):
        given = list(patterns or ())
    if not all(isinstance(pattern, str) for pattern in given):
        found = f"found {patterns!r:.80}"
        raise UserError(f"{owner}: expected regular expressions for paths, as 'embedding/token', {found}")
    return given


def paths_matching(patterns: Iterable[str], variables: Iterable[keras.Variable], owner: str) -> dict[str, list[str]]:
    """For each pattern the paths of the variables in which it is found (`re.search`).

    Raises:
        UserError: a pattern is not a regular expression, or is found nowhere: it would silently do nothing.
    """
    paths = [variable.path for variable in variables]
    found = {}
    for pattern in patterns:
        try:
            found[pattern] = [path for path in paths if re.search(pattern, path)]
        except re.error as error:
            raise UserError(f"{owner}: {pattern!r} is not a regular expression: {error}") from None
        if not found[pattern]:
            some = ", ".join(paths[:3])
            raise UserError(f"{owner}: the pattern {pattern!r} is found in no weight's path; paths are like {some}")
    return found
