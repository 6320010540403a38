"""What every optimizer of ours owes its users: configs, exact resumption, any nesting, compiled, in half precision."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from maskplay import _backend
from maskplay.errors import UserError
from maskplay.optimizers import (
    GAINS_AND_BIASES,
    Average,
    LayerAdaptation,
    LazyRows,
    Lookahead,
    Muon,
    OptimizerWrapper,
    ParameterRates,
    PiecewiseLinear,
    Tiger,
    WithoutBiasCorrection,
    exclude_from_decay,
)
from maskplay.optimizers.wrapper import chain
from optimizers.fed import arrays, fed, feed, gradients, same

Made = Callable[[], keras.optimizers.Optimizer]


def adam(**kwargs) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(0.01, weight_decay=0.1, **kwargs)


def stack() -> keras.optimizers.Optimizer:
    """All of them in the recommended order, with accumulation and a schedule."""
    inner = keras.optimizers.Adam(
        PiecewiseLinear(0.1, {4: 1, 12: 0.1}), weight_decay=0.1, gradient_accumulation_steps=2
    )
    inner = ParameterRates(LayerAdaptation(inner), {"bias": 2.0})
    return Average(Lookahead(LazyRows(inner, ["embeddings"]), sync_period=2), momentum=0.9)


def two() -> keras.optimizers.Optimizer:
    optimizers = keras.optimizers.OptimizerMap(adam(), {".*bias": keras.optimizers.SGD(0.1, momentum=0.9)})
    return Average(Lookahead(LazyRows(keras.optimizers.MultiOptimizer(optimizers), ["embeddings"]), 2), 0.9)


# Each with the number of its variables for three weights; Adam alone has 2 + 2 * 3.
MADE: dict[str, tuple[Made, int]] = {
    "wrapper": (lambda: OptimizerWrapper(adam()), 9),
    "lookahead": (lambda: Lookahead(adam(), 3, 0.5), 12),
    "average": (lambda: Average(keras.optimizers.SGD(0.1, momentum=0.9), 0.9), 9),
    "layers": (lambda: LayerAdaptation(adam()), 9),
    "rows": (lambda: LazyRows(adam(gradient_accumulation_steps=2), ["embeddings"]), 13),
    "rates": (lambda: ParameterRates(adam(), {"kernel": 0.5, "block_0": 2.0}), 9),
    "muon": (lambda: Muon(0.01, gradient_accumulation_steps=3), 10),
    "tiger": (lambda: Tiger(0.01, gradient_accumulation_steps=3), 8),
    "stack": (stack, 22),
    "two": (two, 20),
}


@pytest.mark.parametrize("name", MADE)
def test_the_config_says_everything(name: str) -> None:
    made = MADE[name][0]()
    config = made.get_config()
    assert keras.optimizers.serialize(type(made).from_config(config)) == keras.optimizers.serialize(made)
    assert made.get_config() == config  # from_config left it alone
    twin = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert [type(each) for each in chain(twin)] == [type(each) for each in chain(made)]


@pytest.mark.parametrize("name", MADE)
def test_a_saved_run_goes_on_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    made, count = MADE[name]
    model = fed(made())
    steps = gradients(13)
    feed(model, steps[:7])
    model.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert same(arrays(loaded.optimizer.variables), arrays(model.optimizer.variables))
    assert same(feed(loaded, steps[7:])[-1], feed(model, steps[7:])[-1])
    assert same(arrays(loaded.optimizer.variables), arrays(model.optimizer.variables))
    # T3: no model weight among the variables, none twice.
    variables = model.optimizer.variables
    assert len(variables) == len({id(each) for each in variables}) == count, [each.path for each in variables]
    assert not {id(each) for each in variables} & {id(each) for each in model.weights}


@pytest.mark.parametrize(
    "made",
    [
        lambda: ParameterRates(adam(), {"^m/head/": 2.0, "bias": 0.5}),
        lambda: LazyRows(adam(), ["^m/token/"]),
        lambda: LayerAdaptation(adam(), exclude=["^m/token", GAINS_AND_BIASES]),
    ],
    ids=["rates", "rows", "layers"],
)
def test_patterns_mean_the_weights_they_found(made: Made, tmp_path: Path) -> None:
    """A Sequential that was loaded has paths without its name, which the patterns have."""
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(9, 4, name="token"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1, name="head"),
        ],
        name="m",
    )
    model.compile(made(), "mse")
    batch = np.arange(12).reshape(4, 3) % 7, np.ones((4, 1), "float32")
    model.train_on_batch(*batch)
    model.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    for each in (model, loaded):
        each.train_on_batch(*batch)
    assert same(loaded.get_weights(), model.get_weights())
    assert same(arrays(loaded.optimizer.variables), arrays(model.optimizer.variables))
    # They hold for these weights alone, and again when it is saved before it trains.
    again = keras.optimizers.deserialize(keras.optimizers.serialize(loaded.optimizer))
    assert again.get_config() == loaded.optimizer.get_config()
    with pytest.raises(UserError, match="is found in no weight's path"):
        again.build([keras.Variable(np.ones((2, 2)), name="kernel")])


def test_a_config_with_other_patterns_means_those() -> None:
    """What the old ones found, for weights of the same shapes, says nothing of them."""
    for made, name, other in (
        (ParameterRates(adam(), {"embeddings": 2.0}), "factors", {"kernel": 0.0}),
        (LazyRows(adam(), ["embeddings"]), "patterns", ["kernel"]),
    ):
        variables = fed(adam()).trainable_variables
        made.build(variables)
        changed = type(made).from_config({**made.get_config(), name: other})
        changed.build(variables)
        assert changed.get_config()["found"]["places"] == {"kernel": [1]}


def test_weights_beside_another_optimizer_are_loaded(tmp_path: Path) -> None:
    model = fed(Average(adam(), 0.9))
    feed(model, gradients(2))
    model.save_weights(tmp_path / "a.weights.h5")
    for other in (Average(adam(), 0.9), Lookahead(adam(), 2)):  # one is not built yet, the other has other variables
        twin = fed(other)
        with pytest.warns(UserWarning, match="so none is loaded"):
            twin.load_weights(tmp_path / "a.weights.h5")
        assert same(twin.get_weights(), model.get_weights())


@pytest.mark.parametrize("name", ["layers"])
def test_compiled_is_eager(name: str) -> None:
    compiled, eager = fed(MADE[name][0]()), fed(MADE[name][0]())
    steps = gradients(3)
    optimizer = eager.optimizer
    optimizer.build(eager.trainable_variables)
    for step in steps:
        optimizer.apply([keras.ops.convert_to_tensor(each) for each in step], eager.trainable_variables)
    for a, b in zip(feed(compiled, steps)[-1], eager.get_weights()):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["stack", "two"])
def test_a_gradient_that_is_not_finite_changes_nothing_in_mixed_float16(name: str) -> None:
    model = fed(keras.optimizers.LossScaleOptimizer(MADE[name][0](), initial_scale=8.0))
    model.dtype_policy = keras.DTypePolicy("mixed_float16")
    steps = gradients(6)
    feed(model, steps[:3])
    before = arrays(model.optimizer.inner_optimizer.variables) + model.get_weights()
    broken = [each.copy() for each in steps[3]]
    broken[0][1, 1] = np.inf
    feed(model, [broken])
    assert same(before, arrays(model.optimizer.inner_optimizer.variables) + model.get_weights())
    scale = float(model.optimizer.dynamic_scale)
    assert scale == 4.0
    feed(model, steps[4:])
    assert not same(before[-3:], model.get_weights())
    assert all(np.isfinite(each).all() for each in model.get_weights())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_fit_in_half_precision_learns(policy: str) -> None:
    _backend.seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(6, 8, dtype=policy),
            keras.layers.GlobalAveragePooling1D(dtype=policy),
            keras.layers.Dense(1, dtype=policy),
        ]
    )
    optimizer = Average(
        Lookahead(LazyRows(ParameterRates(keras.optimizers.Adam(0.1), {"bias": 2}), ["embeddings"])), 0.9
    )
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "mse")
    x = np.random.default_rng(0).integers(0, 6, (16, 4))
    y = (x == 1).mean(axis=1, keepdims=True)
    losses = model.fit(x, y, batch_size=8, epochs=12, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]


def test_a_loss_scale_factor_of_the_inner_optimizer_holds() -> None:
    plain, scaled = (fed(Lookahead(keras.optimizers.SGD(0.1, loss_scale_factor=factor), 2)) for factor in (None, 64.0))
    steps = gradients(3)
    for a, b in zip(feed(plain, steps)[-1], feed(scaled, steps)[-1]):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    # LossScaleOptimizer takes it over.
    wrapper = Lookahead(keras.optimizers.SGD(0.1, loss_scale_factor=64.0))
    keras.optimizers.LossScaleOptimizer(wrapper)
    assert wrapper.inner.loss_scale_factor is None and wrapper.loss_scale_factor is None


def test_the_rate_can_be_read_and_set_from_outside() -> None:
    wrapper = Average(Lookahead(keras.optimizers.SGD(0.5)))
    wrapper.learning_rate = 0.25
    assert float(wrapper.learning_rate) == float(wrapper.inner.inner.learning_rate) == 0.25
    model = fed(wrapper)
    before = [each.copy() for each in arrays(model.weights)] if model.built else []
    steps = gradients(1)
    after = feed(model, steps)[-1]
    for old, new, gradient in zip(before, after, steps[0]):
        np.testing.assert_allclose(new, old - 0.25 * gradient, rtol=1e-5, atol=1e-6)


def test_a_constraint_holds_for_what_a_wrapper_does() -> None:
    weight = keras.Variable([1.0, 1.0])
    weight.constraint = keras.constraints.NonNeg()
    optimizer = ParameterRates(keras.optimizers.SGD(0.5), {"variable": 4.0})
    optimizer.apply([keras.ops.array([1.0, -1.0])], [weight])
    assert arrays([weight])[0].tolist() == [0.0, 3.0]


def test_what_cannot_be_wrapped_is_said() -> None:
    assert LayerAdaptation(adam(), exclude=None).exclude == ()
    assert LazyRows(adam(), (name for name in ["token"])).patterns == ["token"]
    with pytest.raises(UserError, match="goes outside"):
        Lookahead(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)))
    with pytest.raises(UserError, match="expected a Keras optimizer"):
        Lookahead("adam")
    with pytest.raises(UserError, match="clipnorm; give it to the inner"):
        Lookahead(keras.optimizers.SGD(0.1), clipnorm=1.0)
    with pytest.raises(UserError, match="no learning rate"):
        LayerAdaptation(keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))))
    with pytest.raises(UserError, match="found in no weight's path"):
        fed(LazyRows(adam(), ["tokn"])).optimizer.build(fed(adam()).trainable_variables)
    with pytest.raises(UserError, match="not a regular expression"):
        ParameterRates(adam(), {"(": 2.0}).build(fed(adam()).trainable_variables)
    with pytest.raises(UserError, match="use_ema inside it; put mp.optimizers.Average around"):
        LayerAdaptation(keras.optimizers.SGD(0.1, use_ema=True))
    chosen = {True: keras.optimizers.SGD(0.1), False: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)}
    by_function = keras.optimizers.MultiOptimizer(lambda variable: chosen["bias" in variable.path])
    with pytest.raises(UserError, match=r"expected one gradient_accumulation_steps, found \[1, 2\] inside"):
        Lookahead(by_function).build(fed(adam()).trainable_variables)
    for wrong in (
        lambda: Lookahead(adam(), 0),
        lambda: Lookahead(adam(), 5, 1.5),
        lambda: Lookahead(adam(), 5, "0.5"),
        lambda: Average(adam(), None),
        lambda: ParameterRates(adam(), {"x": "2"}),
        lambda: LayerAdaptation(adam(), limits=5.0),
        lambda: Tiger(beta=None),
        lambda: PiecewiseLinear(0.1, {"x": 1}),
        lambda: PiecewiseLinear(0.1, {0.5: 1, 0.7: 0.2}),
        lambda: PiecewiseLinear(0.1, {1: float("nan")}),
        lambda: Average(adam(), 1.0),
        lambda: ParameterRates(adam(), {"x": -1.0}),
        lambda: LayerAdaptation(adam(), limits=(2.0, 1.0)),
        lambda: Tiger(beta=2.0),
        lambda: PiecewiseLinear(0.1, {}),
        lambda: WithoutBiasCorrection(0.1, beta_2=1.0),
        lambda: LazyRows(adam(), None),
        lambda: LazyRows(adam(), [1]),
        lambda: LayerAdaptation(adam(), exclude=3),
        lambda: ParameterRates.layer_decay(adam(), "0.9", 2),
        lambda: ParameterRates.layer_decay(adam(), 0.9, None),
        lambda: exclude_from_decay("adam", fed(adam()), "bias"),
    ):
        with pytest.raises(UserError, match="expected"):
            wrong()
