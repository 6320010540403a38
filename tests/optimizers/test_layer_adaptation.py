"""LAMB and LARS: against Keras' Lamb where they agree, and NumPy where Keras' is another."""

import keras
import numpy as np
import pytest

from maskplay.errors import UserError
from maskplay.optimizers import LayerAdaptation, PiecewiseLinear, WithoutBiasCorrection
from optimizers.fed import far, fed, feed, gradients

RATE, DECAY = 1e-2, 0.1


def lamb(weights: list[np.ndarray], steps: list[list[np.ndarray]], decay: float) -> list[np.ndarray]:
    """The paper's algorithm 2, in float64."""
    weights = [np.asarray(w, "float64") for w in weights]
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for t, step in enumerate(steps, 1):
        for i, g in enumerate(step):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * np.square(g, dtype="float64")
            u = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-7) + decay * weights[i]
            weights[i] = weights[i] - RATE * np.linalg.norm(weights[i]) / np.linalg.norm(u) * u
    return weights


def test_without_decay_as_keras_lamb() -> None:
    steps = gradients(20)
    ours, theirs = fed(LayerAdaptation(keras.optimizers.Adam(RATE), exclude=())), fed(keras.optimizers.Lamb(RATE))
    assert far(feed(ours, steps)[-1], feed(theirs, steps)[-1]) < 1e-4


def test_with_decay_as_the_paper() -> None:
    steps = gradients(20)
    ours = fed(LayerAdaptation(keras.optimizers.Adam(RATE, weight_decay=DECAY), exclude=()))
    start = ours.get_weights()
    found = feed(ours, steps)[-1]
    assert far(found, lamb(start, steps, DECAY)) < 1e-5
    assert far(found, feed(fed(keras.optimizers.Lamb(RATE, weight_decay=DECAY)), steps)[-1]) > 1e-3


def test_a_step_is_as_long_as_the_rate_says() -> None:
    for inner in (keras.optimizers.SGD(RATE, momentum=0.9), keras.optimizers.Adam(RATE)):
        model = fed(LayerAdaptation(inner))
        trail = [model.get_weights(), *feed(model, gradients(3))]
        for old, new in zip(trail, trail[1:]):
            for a, b in zip(old[:2], new[:2]):
                np.testing.assert_allclose(np.linalg.norm(b - a), RATE * np.linalg.norm(a), rtol=1e-5)
    # Biases are left to the inner optimizer, where all entries of Adam's first step are as long.
    np.testing.assert_allclose(np.abs(trail[1][2] - trail[0][2]), RATE, rtol=1e-3)


def test_the_scale_of_the_loss_is_nothing() -> None:
    steps = gradients(3)
    louder = [[1000 * each for each in step] for step in steps]
    ours, scaled = (fed(LayerAdaptation(keras.optimizers.Adam(RATE, epsilon=1e-12), exclude=())) for _ in range(2))
    assert far(feed(ours, steps)[-1], feed(scaled, louder)[-1]) < 1e-6


def test_a_weight_of_zeros_and_limits() -> None:
    zero, long = keras.Variable(np.zeros(2)), keras.Variable([30.0, 40.0])
    optimizer = LayerAdaptation(keras.optimizers.SGD(0.5), limits=(1.0, 10.0))
    optimizer.apply([keras.ops.array([2.0, 0.0])] * 2, [zero, long])
    assert zero.numpy().tolist() == [-1.0, 0.0]
    np.testing.assert_allclose(long.numpy(), [25.0, 40.0], rtol=1e-6)


def test_what_is_left_to_the_inner_optimizer() -> None:
    kernel, gain = keras.Variable([3.0, 4.0], name="kernel"), keras.Variable([3.0, 4.0], name="gain")
    written = keras.Variable([1.0, 1.0], name="kernel_scale")
    written.overwrite_with_gradient = True  # as the scales of float8 have it
    optimizer = LayerAdaptation(keras.optimizers.SGD(0.1), exclude="gain")
    optimizer.apply([keras.ops.array([0.0, 7.0])] * 3, [kernel, gain, written])
    np.testing.assert_allclose(kernel.numpy(), [3.0, 3.5], rtol=1e-6)
    np.testing.assert_allclose(gain.numpy(), [3.0, 3.3], rtol=1e-6)
    assert written.numpy().tolist() == [0.0, 7.0]
    for rate in (WithoutBiasCorrection(RATE), PiecewiseLinear(WithoutBiasCorrection(RATE), {9: 1})):
        with pytest.raises(UserError, match="WithoutBiasCorrection would lengthen its steps"):
            LayerAdaptation(keras.optimizers.Adam(rate))


def test_a_pattern_that_is_part_of_the_default_must_be_found_too() -> None:
    with pytest.raises(UserError, match="the pattern 'gamma' is found in no weight's path"):
        LayerAdaptation(keras.optimizers.SGD(0.1), exclude="gamma").build([keras.Variable([3.0], name="kernel")])


def test_a_rate_of_0_stands_still() -> None:
    weight = keras.Variable([3.0, 4.0])
    optimizer = LayerAdaptation(keras.optimizers.SGD(keras.optimizers.schedules.PolynomialDecay(0.0, 2, 1.0)))
    optimizer.apply([keras.ops.ones(2)], [weight])
    assert weight.numpy().tolist() == [3.0, 4.0]
    optimizer.apply([keras.ops.ones(2)], [weight])  # with the schedule's second rate, 0.5
    np.testing.assert_allclose(np.linalg.norm(weight.numpy() - [3, 4]), 0.5 * 5, rtol=1e-5)
