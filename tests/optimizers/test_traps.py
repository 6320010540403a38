"""Traps of Keras that wrappers must not step into, each named in one test.

T3 (variables counted twice) is in test_contract.py, T4 (IndexedSlices) in test_lazy_rows.py, T7 (the clock under
accumulation) in test_accumulation.py.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import maskplay.optimizers
from maskplay import _backend
from maskplay.errors import UserError
from maskplay.optimizers import Average, LayerAdaptation, Lookahead, exclude_from_decay
from maskplay.optimizers.wrapper import OptimizerWrapper, snapshot
from optimizers.fed import arrays, far, fed, feed, gradients


def test_t1_values_not_variables_reach_the_operations() -> None:
    variable = keras.Variable([1.0, 2.0])
    wrapper = OptimizerWrapper(keras.optimizers.SGD(0.1))
    wrapper.put(variable, ops.array([5.0, 6.0]), ops.array(False))
    assert arrays([variable])[0].tolist() == [1.0, 2.0]
    wrapper.put(variable, ops.array([5.0, 6.0]), ops.array(True))
    assert arrays([variable])[0].tolist() == [5.0, 6.0]


def test_t2_a_snapshot_is_no_alias() -> None:
    variable = keras.Variable([1.0, 2.0])
    kept = snapshot(variable)
    variable.assign_add([1.0, 1.0])
    keras.optimizers.SGD(1.0).apply([ops.ones(2)], [variable])
    variable.assign([7.0, 7.0])
    assert ops.convert_to_numpy(kept).tolist() == [1.0, 2.0]


def test_t5_spectral_normalization_of_keras_is_not_the_papers() -> None:
    """What Keras stores after training is no kernel of norm 1, and the layer computes with it."""
    layer = keras.layers.SpectralNormalization(keras.layers.Dense(4, use_bias=False))
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    _backend.seed(0)
    random = np.random.default_rng(0)
    model.fit(random.normal(size=(32, 4)), 3 * random.normal(size=(32, 4)), batch_size=8, verbose=0)
    norm = np.linalg.norm(ops.convert_to_numpy(layer.layer.kernel), 2)
    assert abs(norm - 1) > 0.02
    sources = Path(maskplay.optimizers.__file__).parents[1].rglob("*.py")
    assert not [path for path in sources if "SpectralNormalization" in path.read_text("utf-8")]


def test_t6_decay_is_excluded_by_path() -> None:
    def decayed(exclude) -> list[bool]:
        optimizer = Average(Lookahead(keras.optimizers.AdamW(0.5, weight_decay=0.5)))
        model = fed(optimizer)
        exclude(optimizer, model)
        optimizer.build(model.trainable_variables)
        before = model.get_weights()
        optimizer.apply([ops.zeros(weight.shape) for weight in model.weights], model.trainable_variables)
        return [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]

    # In Keras the name of a layer excludes nothing, and nothing tells; but TensorFlow's names are longer.
    if keras.config.backend() != "tensorflow":
        assert decayed(lambda optimizer, _: optimizer.exclude_from_weight_decay(var_names=["block_0"])) == [True] * 3
    assert decayed(lambda optimizer, _: optimizer.exclude_from_weight_decay(var_names=["bias"])) == [True, True, False]
    found = []
    assert decayed(lambda *both: found.extend(exclude_from_decay(*both, ["block_0/"]))) == [True, False, False]
    assert found == ["fed/block_0/feed/kernel", "fed/block_0/feed/bias"]
    with pytest.raises(UserError, match="norm"):
        decayed(lambda *both: exclude_from_decay(*both, ["norm/"]))
    with pytest.raises(UserError, match="nothing to decay"):
        decayed(lambda *both: exclude_from_decay(*both, ["fed/"]))
    with pytest.raises(UserError, match="no weights yet"):
        exclude_from_decay(keras.optimizers.SGD(0.1), keras.Sequential([keras.layers.Dense(1)]), ["bias"])


def test_t6_also_inside_a_multi_optimizer() -> None:
    inside = keras.optimizers.SGD(0.5, weight_decay=0.5), keras.optimizers.SGD(0.5, weight_decay=0.5)
    optimizer = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(inside[0], {".*block_0.*": inside[1]}))
    model = fed(optimizer)
    exclude_from_decay(optimizer, model, ["kernel"])
    optimizer.build(model.trainable_variables)
    before = model.get_weights()
    optimizer.apply([ops.zeros(weight.shape) for weight in model.weights], model.trainable_variables)
    assert [np.array_equal(a, b) for a, b in zip(before, model.get_weights())] == [False, True, False]


def test_t6_also_where_a_function_chooses_the_optimizer() -> None:
    inside = {block: keras.optimizers.SGD(0.5, weight_decay=0.5) for block in (True, False)}
    optimizer = Lookahead(keras.optimizers.MultiOptimizer(lambda variable: inside["block_0" in variable.path]), 9)
    model = fed(optimizer)
    with pytest.raises(UserError, match="leave sgd.* nothing to decay"):  # of its two both
        exclude_from_decay(optimizer, model, ["block_0"])
    exclude_from_decay(optimizer, model, ["kernel"])
    assert not optimizer.built  # Lookahead's slow weights are those that training begins with
    before = model.get_weights()
    optimizer.apply([ops.zeros(weight.shape) for weight in model.weights], model.trainable_variables)
    assert [np.array_equal(a, b) for a, b in zip(before, model.get_weights())] == [False, True, False]


def test_t8_nothing_stands_on_stateless_apply() -> None:
    files = list(Path(maskplay.optimizers.__file__).parent.glob("*.py"))
    assert len(files) > 5 and not [path.name for path in files if "stateless" in path.read_text("utf-8")]


def test_the_order_of_wrappers_matters() -> None:
    steps = gradients(4)

    def after(made) -> list[np.ndarray]:
        return feed(fed(made(keras.optimizers.Adam(0.05))), steps)[-1]

    outside = after(lambda adam: Lookahead(LayerAdaptation(adam), 2))
    inside = after(lambda adam: LayerAdaptation(Lookahead(adam, 2)))
    assert far(outside, inside) > 1e-3


def test_nested_in_itself() -> None:
    """Each of two Lookaheads has slow weights of its own."""
    steps = gradients(3)
    model = fed(Lookahead(Lookahead(keras.optimizers.SGD(0.1), 1, 0.5), 1, 0.25))
    theta, inside, outside = (model.get_weights() for _ in range(3))
    for step in steps:
        theta = [weight - 0.1 * gradient for weight, gradient in zip(theta, step)]
        inside = [(slow + weight) / 2 for slow, weight in zip(inside, theta)]
        outside = theta = [0.75 * slow + 0.25 * weight for slow, weight in zip(outside, inside)]
    assert far(feed(model, steps)[-1], theta) < 1e-6
