"""Training that does not trust its own numbers: adversarial embeddings, penalties on slopes, dropout made consistent.

Each trick turns a loss into another one; `regularize` hangs them on a model's `compute_loss`, which Keras asks for the
loss of a training step on every backend. `fit` stays Keras' own, compiled; evaluating, predicting and saving know
nothing of it. What is perturbed is the table of embeddings, as in kexue.fm/archives/7234: all places of a token move
together, and any model that looks embeddings up in a table can have it.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import keras
from keras import ops, tree

from maskplay.autodiff import value_and_gradient
from maskplay.errors import UserError, whole_number, within
from maskplay.optimizers.wrapper import listed, paths_matching

SCALE = 2.0**10  # of scores whose gradient goes through float16

__all__ = ["FGM", "GradientPenalty", "RDrop", "Step", "Trick", "VirtualAdversarial", "regularize"]


def regularize(model: keras.Model, *tricks: "Trick") -> keras.Model:
    """From now on `model.fit` trains it with these tricks, instead of any from before; none = plainly again.

    The model stays what it is; call this before or after `compile`. The tricks are not saved with it: a model loaded
    again trains plainly until told otherwise. The loss shown while training is the one that is trained; metrics, and
    the losses of single outputs, are those of the plain pass.

    Each further pass through the model draws its own dropout, and leaves nothing behind: moving statistics are those of
    the plain pass. What layers add to the loss, and regularizers of weights, count in every pass.

    Args:
        model: any Keras model whose `compute_loss` takes `training`, as that of `keras.Model` does.
        *tricks: each works on the loss as the ones before it have made it. `RDrop(), FGM(…)` perturbs both passes of
            R-Drop alike.

    Returns:
        The same model.

    Raises:
        UserError: what is given is no trick, the model's own `compute_loss` does not know when it is training, or a
            trick compares the outputs of a `Pretrain` that computes losses instead.

    Example:
        >>> model = keras.Sequential([keras.layers.Embedding(9, 4, name="token"), keras.layers.GlobalMaxPooling1D()])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = regularize(model, FGM("token/", 0.5)).fit(ops.ones((8, 3)), ops.zeros(8), verbose=0)
    """
    for trick in tricks:
        if not isinstance(trick, Trick):
            raise UserError(f"regularize: expected FGM(…), RDrop(…) or the like, found {trick!r}")
        if trick.compares and not getattr(model, "logits", True):
            raise UserError(f"{type(trick).__name__} compares scores; make Pretrain with logits=True to have them")
    plain = type(model).compute_loss  # the class's: tricks from before are gone
    if "training" not in inspect.signature(plain).parameters:
        raise UserError(f"{type(model).__name__}.compute_loss must take `training`, or evaluating would use the tricks")

    def compute_loss(
        x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        # First, while the layers still know what this pass has added to the loss; and only once, because it counts.
        value = plain(model, x, y, y_pred, sample_weight, training=training)
        if not training:
            return value

        def loss(outputs: Any) -> Any:
            return value if outputs is y_pred else plain(model, x, y, outputs, sample_weight, training=True)

        step = Step(model, x, sample_weight, loss)
        for trick in tricks:
            step = step.under(trick)
        return step.loss(y_pred)

    noise = [trick.noise for trick in tricks if trick.noise is not None]
    _keep_noise(model, noise)
    compute_loss.noise = noise  # pyrefly: ignore[missing-attribute]
    model.compute_loss = compute_loss
    model.train_function = None  # as after `compile`: the next step is traced anew
    return model


@dataclass(frozen=True)
class Step:
    """A training step as a trick sees it: the model, a batch, and the loss of outputs as the tricks before left it.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([ops.array([[3.0], [4.0]])])
        >>> step = Step(model, ops.array([[1.0, 1.0]]), None, loss=lambda outputs: ops.sum(outputs))
        >>> float(step.passed(step.loss)), float(step.passed(step.loss, model.weights, [ops.ones((2, 1))]))
        (7.0, 2.0)
    """

    model: keras.Model
    x: Any
    sample_weight: Any
    loss: Callable[[Any], Any]

    def under(self, trick: "Trick") -> "Step":
        """The step for the next trick, which finds this one in the loss."""
        return replace(self, loss=lambda outputs: trick.loss(self, outputs))

    def tables(self, patterns: Sequence[str], owner: str) -> list[keras.Variable]:
        """The weights in whose paths one of the patterns is found."""
        weights = self.model.weights
        found = set().union(*paths_matching(patterns, weights, owner).values())
        return [weight for weight in weights if weight.path in found]

    def passed(
        self, score: Callable[[Any], Any], tables: Sequence[Any] = (), values: Sequence[Any] = (), training: bool = True
    ) -> Any:
        """The score (any function) of the model's outputs while its tables hold these values."""
        result, drawn = self._pass(score, tables, values, training)
        self._draw_on(drawn)
        return result

    def slopes(
        self,
        score: Callable[[Any], Any],
        tables: Sequence[Any],
        values: Sequence[Any],
        training: bool = True,
        again: bool = False,
    ) -> tuple[Any, list[Any]]:
        """The same, a scalar, and its gradient with respect to the values: a constant, but with `again`."""
        # Keras scales the loss after it has it: what float16 would lose of this gradient is kept here.
        scale = SCALE if self.model.compute_dtype == "float16" else 1.0

        def scaled(values: list[Any]) -> tuple[Any, list[Any]]:
            result, drawn = self._pass(score, tables, values, training)
            return result * scale, drawn

        (result, drawn), slopes = value_and_gradient(scaled, list(values), again)
        self._draw_on(drawn)
        slopes = [slope / scale for slope in slopes]
        return result / scale, slopes if again else [ops.stop_gradient(slope) for slope in slopes]

    def _pass(
        self, score: Callable[[Any], Any], tables: Sequence[Any], values: Sequence[Any], training: bool
    ) -> tuple[Any, list[Any]]:
        """The score, and where the generators are now. It leaves no trace itself: within a gradient it must not."""
        model = self.model
        # The scope hides the one around it, in which under JAX the values of this step are, so all are handed on.
        held = [(variable, variable.value) for variable in [*model.variables, *model.metrics_variables]]
        given, model._losses_override = model._losses_override, []  # JAX: what the layers added in the plain pass
        try:
            with keras.StatelessScope([*held, *zip(tables, values)], collect_losses=True) as scope:
                extra = {"training": training} if model._call_has_training_arg else {}
                result = score(model(self.x, **extra))
        finally:
            model._losses_override = given
        return result, [scope.get_current_value(state) for state in self._generators]

    def _draw_on(self, drawn: list[Any]) -> None:
        for state, value in zip(self._generators, drawn):
            state.assign(value)

    @property
    def _generators(self) -> list[keras.Variable]:
        """The states of random generators: what a model's variables have beyond its weights."""
        weights = {id(weight) for weight in self.model.weights}
        return [variable for variable in self.model.variables if id(variable) not in weights]


class Trick:
    """Turns the loss of a training step into another; subclasses say how in `loss`.

    Attributes:
        noise: a generator of random numbers, if it needs one. It is kept with the model's, so that it moves on.
        compares: whether it compares outputs as distributions, which they then have to be.

    Example:
        >>> class Twice(Trick):
        ...     def loss(self, step, outputs):
        ...         return (step.loss(outputs) + step.passed(step.loss)) / 2  # the mean under two dropouts
        >>> model = regularize(keras.Sequential([keras.layers.Dense(2)]), Twice())
    """

    noise: keras.random.SeedGenerator | None = None
    compares: ClassVar[bool] = False

    def loss(self, step: Step, outputs: Any) -> Any:
        """The loss to be trained, a scalar, where `outputs` are those of the plain pass."""
        raise NotImplementedError


@dataclass(frozen=True)
class FGM(Trick):
    """Fast gradient method: train under the perturbation of the embeddings that hurts most, to first order.

    The loss trained is L(E + ε g/‖g‖), where g = ∂L/∂E for the table E: that one alone, as in the post (and
    bert4keras' `adversarial_training`), not its sum with L(E), which other implementations take. Each table that the
    patterns find is moved by its own ε g/‖g‖. A step costs two.

    Args:
        patterns: regular expressions looked for in the paths of weights; or one of them.
        epsilon: the length of the perturbation, over the whole table.

    Source: "对抗训练浅谈：意义、方法和思考" (kexue.fm/archives/7234), after arXiv:1605.07725.

    Example:
        >>> FGM("embedding/token")
        FGM(patterns=('embedding/token',), epsilon=1.0)
    """

    patterns: str | Sequence[str]
    epsilon: float = 1.0

    def __post_init__(self) -> None:
        _check(self, patterns=True, at_least_0=("epsilon",))

    def loss(self, step: Step, outputs: Any) -> Any:
        tables = step.tables(self.patterns, "FGM")
        values = [table.value for table in tables]
        _, slopes = step.slopes(step.loss, tables, values)
        return step.passed(step.loss, tables, [e + self.epsilon * _unit(g) for e, g in zip(values, slopes)])


@dataclass(frozen=True)
class GradientPenalty(Trick):
    """Train L + λ/2 ‖∂L/∂E‖²: flat where a perturbation of the embeddings E would go.

    To first order this is what training under the perturbation λ/2 ∂L/∂E comes to, as the post shows. The squares are
    summed over all tables. A step costs about three, and its second derivatives need attention that is not fused: on a
    GPU `keras.config.disable_flash_attention()`.

    Args:
        patterns: regular expressions looked for in the paths of weights; or one of them.
        weight: λ.

    Source: "对抗训练浅谈：意义、方法和思考" (kexue.fm/archives/7234), section "梯度惩罚".

    Example:
        >>> GradientPenalty(["embedding/token", "embedding/segment"], weight=0.5).weight
        0.5
    """

    patterns: str | Sequence[str]
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check(self, patterns=True, at_least_0=("weight",))

    def loss(self, step: Step, outputs: Any) -> Any:
        tables = step.tables(self.patterns, "GradientPenalty")
        value, slopes = step.slopes(step.loss, tables, [table.value for table in tables], again=True)
        penalty = sum(ops.sum(ops.square(ops.cast(slope, value.dtype))) for slope in slopes)
        return value + self.weight / 2 * penalty


@dataclass(frozen=True)
class VirtualAdversarial(Trick):
    """Virtual adversarial training: outputs p shall not turn under the perturbation that turns them most.

    Added to the loss is λ KL(p(E) ‖ p(E + ε u)), where p(E) is held fixed. The direction u comes from noise by power
    iteration, u ← unit of ∂KL(p(E) ‖ p(E + ξ u))/∂E. The passes for it are made as in inference, without dropout, which
    would drown the effect of a small ξ. A step costs one more, a forward pass for p(E), and one an iteration.

    It needs no labels and takes every row alike. Texts without labels go into the same batches, with any label and a
    sample weight of 0, and a loss that divides by the weights (`reduction="mean_with_sample_weight"`, the default of
    `Classify`).

    Args:
        patterns: regular expressions looked for in the paths of weights; or one of them.
        xi: the length of the trial step, ξ.
        epsilon: the length of the perturbation, ε.
        weight: λ.
        iterations: of the power iteration, at least 1; each costs a step.
        from_logits: whether outputs are logits `(…, classes)`; otherwise probabilities. Each output has at least two.
        seed: of the noise.

    Source: "泛化性乱弹：从随机噪声、梯度惩罚到虚拟对抗训练" (kexue.fm/archives/7466), after arXiv:1704.03976.

    Example:
        >>> VirtualAdversarial("embedding/token", iterations=2).xi
        10.0
    """

    patterns: str | Sequence[str]
    xi: float = 10.0
    epsilon: float = 1.0
    weight: float = 1.0
    iterations: int = 1
    from_logits: bool = True
    seed: int | None = None
    compares: ClassVar[bool] = True
    noise: Any = field(init=False, repr=False, compare=False)  # pyrefly: ignore[bad-override]

    def __post_init__(self) -> None:
        _check(self, patterns=True, at_least_0=("xi", "epsilon", "weight"))
        object.__setattr__(self, "iterations", whole_number("iterations", self.iterations, 1))
        if self.seed is not None:
            object.__setattr__(self, "seed", whole_number("seed", self.seed, 0))
        object.__setattr__(self, "noise", keras.random.SeedGenerator(self.seed))

    def loss(self, step: Step, outputs: Any) -> Any:
        value = step.loss(outputs)
        tables = step.tables(self.patterns, "VirtualAdversarial")
        values = [table.value for table in tables]

        def moved(length: float, direction: Sequence[Any]) -> list[Any]:
            return [e + length * _unit(u) for e, u in zip(values, direction)]

        def divergence(outputs: Any) -> Any:
            return _divergence(fixed, outputs, self.from_logits)

        fixed = tree.map_structure(ops.stop_gradient, step.passed(lambda outputs: outputs, training=False))
        direction = [keras.random.normal(table.shape, dtype=table.dtype, seed=self.noise) for table in tables]
        for _ in range(self.iterations):
            _, direction = step.slopes(divergence, tables, moved(self.xi, direction), training=False)
        return value + self.weight * step.passed(divergence, tables, moved(self.epsilon, direction), training=False)


@dataclass(frozen=True)
class RDrop(Trick):
    """Two passes with two dropouts shall agree: (L₁ + L₂)/2 + α/4 (KL(p₁ ‖ p₂) + KL(p₂ ‖ p₁)).

    The plain pass is the first one. For the second the model runs once more on the same batch, so data and metrics are
    those of plain training. A step costs two, as with every row twice in a batch, which is how the post does it.

    The divergence is the mean over rows, or over the places of outputs `(batch, length, classes)`, under sample weights
    as in the loss. Places whose label is ignored count, unless their weight is 0.

    Args:
        weight: α.
        from_logits: whether outputs are logits `(…, classes)`; otherwise probabilities. Each output has at least two.

    Source: arXiv:2106.14448; in this scale "又是Dropout两次！这次它做到了有监督任务的SOTA" (kexue.fm/archives/8496).

    Example:
        >>> RDrop()
        RDrop(weight=4.0, from_logits=True)
    """

    weight: float = 4.0
    from_logits: bool = True
    compares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self, at_least_0=("weight",))

    def loss(self, step: Step, outputs: Any) -> Any:
        first = step.loss(outputs)

        def score(others: Any) -> tuple[Any, Any]:
            there = _divergence(outputs, others, self.from_logits, step.sample_weight)
            back = _divergence(others, outputs, self.from_logits, step.sample_weight)
            return step.loss(others), there + back

        second, apart = step.passed(score)
        return (first + second) / 2 + self.weight / 4 * apart


class _Divergence(keras.losses.Loss):
    """KL(p ‖ q) at each place, from log-probabilities; how places become one number is Keras' own."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.sum(ops.exp(y_true) * (y_true - y_pred), axis=-1)


class _Logarithms(keras.layers.Layer):
    """Log-probabilities of outputs. A layer, because so Keras hands on what it knows of padding, for the mean."""

    def __init__(self, from_logits: bool) -> None:
        super().__init__(name="logarithms", dtype=keras.config.floatx())
        self.from_logits, self.supports_masking = from_logits, True

    def call(self, inputs: Any) -> Any:
        if self.from_logits:
            return ops.log_softmax(inputs)
        return ops.log(ops.maximum(inputs, keras.config.epsilon()))


def _divergence(p: Any, q: Any, from_logits: bool, sample_weight: Any = None) -> Any:
    """The mean KL(p ‖ q), summed over a model's outputs."""
    logarithms = _Logarithms(from_logits)
    mean = _Divergence(name="divergence", reduction="mean_with_sample_weight")
    weights = tree.flatten(sample_weight)  # one for all outputs, or one for each
    total = 0.0
    for i, (one, other) in enumerate(zip(tree.flatten(p), tree.flatten(q))):
        if one.shape[-1] < 2:
            raise UserError(f"outputs: expected scores of at least 2 classes, found shape {tuple(one.shape)}")
        total += mean(logarithms(one), logarithms(other), weights[i if len(weights) > 1 else 0])
    return total


def _unit(tensor: Any) -> Any:
    """A tensor at length 1; one of zeros as it is."""
    wide = ops.cast(tensor, keras.config.floatx())  # squares of half precision overflow
    return ops.cast(wide / ops.maximum(ops.sqrt(ops.sum(ops.square(wide))), 1e-12), tensor.dtype)


def _check(trick: Any, patterns: bool = False, at_least_0: Sequence[str] = ()) -> None:
    kind = type(trick).__name__
    if patterns:
        given = tuple(listed(trick.patterns, kind))
        if not given:
            raise UserError(f"{kind}: expected patterns for the paths of embeddings, found {trick.patterns!r}")
        object.__setattr__(trick, "patterns", given)
    for name in at_least_0:
        number = getattr(trick, name)
        if not within(number, 0, sys.float_info.max):
            raise UserError(f"{kind}: expected {name} to be a number from 0 up, found {number!r}")


def _keep_noise(model: keras.Model, generators: Sequence[keras.random.SeedGenerator]) -> None:
    """Count generators as the model's own, instead of those from before: a compiled step moves only a model's state."""
    # Keras locks the list when a model is built. They are in no attribute but this one, so that no file holds them.
    tracker = model._tracker
    locked = tracker.locked
    tracker.unlock()
    for old in getattr(model.compute_loss, "noise", ()):
        tracker.untrack(old)
    for new in generators:
        tracker.add_to_store("seed_generators", new)
    if locked:
        tracker.lock()
