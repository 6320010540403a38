"""A layer trained faster by reparametrisation: Adam moves it `factor` times as far, plain descent `factor²` times."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from maskplay.errors import UserError
from maskplay.layers import LearningRateMultiplier

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(8, 4)).astype("float32")
Y = RANDOM.normal(size=(8, 3)).astype("float32")
KERNEL = RANDOM.normal(size=(4, 3)).astype("float32")


def numpy(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(x)


def moved(factor: float | None, optimizer: keras.optimizers.Optimizer) -> np.ndarray:
    """How far one step moves the kernel that is in effect, read off the outputs."""
    layer: keras.layers.Layer = keras.layers.Dense(3, use_bias=False)
    if factor is not None:
        layer = LearningRateMultiplier(layer, factor)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.set_weights([KERNEL / (factor or 1)])
    model.compile(optimizer, "mse")
    identity = np.eye(4, dtype="float32")
    before = numpy(model(identity))
    np.testing.assert_allclose(before, KERNEL, atol=1e-5)
    model.train_on_batch(X, Y)
    return numpy(model(identity)) - before


def test_adam_moves_factor_times_as_far() -> None:
    # A tiny epsilon: Adam's step is then free of the gradient's scale, as the reparametrisation assumes.
    plain = moved(None, keras.optimizers.Adam(1e-3, epsilon=1e-12))
    np.testing.assert_allclose(moved(20.0, keras.optimizers.Adam(1e-3, epsilon=1e-12)), 20 * plain, atol=5e-6)


def test_plain_descent_moves_factor_squared_times_as_far() -> None:
    plain = moved(None, keras.optimizers.SGD(1e-3))
    np.testing.assert_allclose(moved(4.0, keras.optimizers.SGD(1e-3)), 16 * plain, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(moved(2.0, keras.optimizers.SGD(1e-3)), 4 * plain, rtol=1e-3, atol=1e-6)


class Everything(keras.layers.Layer):
    """A layer with all that a wrapper can lose: moving statistics, randomness, a loss, a sub-layer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = keras.layers.BatchNormalization(momentum=0.5)
        self.dropout = keras.layers.Dropout(0.5, seed=1)

    def build(self, input_shape: Any) -> None:
        self.norm.build(input_shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        self.add_loss(ops.mean(x))
        return self.dropout(self.norm(x, training=training), training=training)


def test_the_wrapped_layer_behaves_as_before() -> None:
    bare, inner = Everything(), Everything()
    wrapped = LearningRateMultiplier(inner, 10.0)
    for x in (X, 2 * X + 1):
        np.testing.assert_allclose(numpy(wrapped(x, training=True)), numpy(bare(x, training=True)), atol=1e-5)
        assert len(wrapped.losses) == 1
        assert float(wrapped.losses[0]) == pytest.approx(float(bare.losses[0]), abs=1e-6)
    np.testing.assert_allclose(numpy(wrapped(X)), numpy(bare(X)), atol=1e-5)
    np.testing.assert_allclose(10 * numpy(inner.norm.moving_mean), numpy(bare.norm.moving_mean), atol=1e-5)


def test_a_loss_of_the_layer_counts_once_in_fit() -> None:
    def total(layer: keras.layers.Layer) -> float:
        inputs = keras.Input((4,))
        model = keras.Model(inputs, layer(inputs))
        model.compile("sgd", loss=None)
        return model.evaluate(X, verbose=0)

    assert total(LearningRateMultiplier(Everything(), 10.0)) == pytest.approx(float(X.mean()), abs=1e-6)


def test_freezing_and_saving_change_no_output(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    wrapper = LearningRateMultiplier(keras.layers.Dense(3), 50.0)
    model = keras.Model(inputs, wrapper(inputs))
    before = numpy(model(X))
    wrapper.trainable = False
    np.testing.assert_array_equal(numpy(model(X)), before)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(keras.models.load_model(tmp_path / "model.keras")(X)), before)


@pytest.mark.parametrize("factor", [0, -1.0, float("nan"), float("inf"), "10", True])
def test_impossible_factors(factor: Any) -> None:
    with pytest.raises(UserError, match="above 0"):
        LearningRateMultiplier(keras.layers.Dense(1), factor)


@pytest.mark.parametrize("change", [lambda layer: layer.quantize("int8"), lambda layer: layer.enable_lora(2)])
def test_what_is_no_multiple_is_refused(change: Any) -> None:
    """Scales beside kernels of whole numbers, and a product of two kernels, would silently come out wrong."""
    layer = keras.layers.Dense(3)
    wrapper = LearningRateMultiplier(layer, 10.0)
    wrapper(X)
    change(layer)
    with pytest.raises(UserError, match="found it quantized or with LoRA"):
        wrapper(X)
