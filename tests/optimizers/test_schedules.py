"""Schedules against NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from maskplay.optimizers import MicroStepSchedule, PiecewiseLinear, WithoutBiasCorrection
from optimizers.fed import fed, feed, gradients


@pytest.mark.parametrize(
    ("knots", "full"),
    [
        ({10: 1.0, 30: 0.1}, {0: 0.0, 10: 1.0, 30: 0.1}),
        ({30: 0.1, 10: 1.0}, {0: 0.0, 10: 1.0, 30: 0.1}),
        ({0: 0.3, 7: 0.9, 8: 0.2}, {0: 0.3, 7: 0.9, 8: 0.2}),
        ({0: 1.0}, {0: 1.0}),
        ({3: 1.0}, {0: 0.0, 3: 1.0}),
    ],
)
def test_piecewise_linear_is_interpolation(knots: dict[int, float], full: dict[int, float]) -> None:
    steps = np.arange(max(full) + 11)
    found = np.broadcast_to(ops.convert_to_numpy(PiecewiseLinear(1.0, knots)(steps)), steps.shape)
    assert np.abs(found - np.interp(steps, list(full), list(full.values()))).max() <= np.finfo("float32").eps
    assert (found[1:] > 0).all() and (found[0] > 0) == (full[0] > 0)


def test_a_schedule_as_base() -> None:
    decay = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.1)
    schedule = PiecewiseLinear(decay, {4: 1})
    assert [float(schedule(ops.array(step))) for step in (0, 2, 4)] == pytest.approx(
        [0, 0.5 * float(decay(2)), float(decay(4))]
    )


@pytest.mark.parametrize(
    "made",
    [
        lambda: PiecewiseLinear(0.1, {2: 1, 5: 0}),
        lambda: PiecewiseLinear(np.float32(0.1), {np.int64(2): 1, 5: np.float32(0.5)}),
        lambda: MicroStepSchedule(PiecewiseLinear(keras.optimizers.schedules.CosineDecay(0.1, 9), {2: 1, 5: 0.5}), 3),
        lambda: WithoutBiasCorrection(MicroStepSchedule(0.1, 3), 0.8, 0.9),
    ],
)
def test_configs_survive_json(made) -> None:
    optimizer = keras.optimizers.SGD(made())
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    twin = keras.models.model_from_json(model.to_json())
    schedule = twin.optimizer._learning_rate
    assert schedule.get_config() == made().get_config()
    for step in (0, 3, 4, 20):
        assert float(schedule(step)) == float(made()(step))


def test_adam_without_bias_correction() -> None:
    steps = gradients(12)
    model = fed(keras.optimizers.Adam(WithoutBiasCorrection(0.01), epsilon=1e-12))
    weight = np.asarray(model.get_weights()[0], "float64")
    m = v = 0.0
    for step in steps:
        m, v = 0.9 * m + 0.1 * step[0], 0.999 * v + 0.001 * np.square(step[0], dtype="float64")
        weight = weight - 0.01 * m / np.sqrt(v)
    np.testing.assert_allclose(feed(model, steps)[-1][0], weight, rtol=1e-4, atol=1e-5)
