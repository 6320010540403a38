"""Tiger against NumPy, with its decay, its sizes and its answer to NaN."""

import keras
import numpy as np

from maskplay.optimizers import Tiger, exclude_from_decay
from optimizers.fed import SHAPES, far, fed, feed, gradients

RATE, BETA, DECAY = 0.02, 0.9, 0.3


def tiger(weights: list[np.ndarray], steps: list[list[np.ndarray]], decays: list[float]) -> list[np.ndarray]:
    """For an embedding table, a kernel and a bias."""
    weights = [np.asarray(weight, "float64") for weight in weights]
    momentums = [np.zeros_like(weight) for weight in weights]
    for step in steps:
        for i, gradient in enumerate(step):
            momentums[i] = BETA * momentums[i] + (1 - BETA) * gradient
            rows = np.sqrt(np.mean(np.square(weights[i]), axis=-1, keepdims=True)) if i == 0 else None
            size = (rows, np.sqrt(np.mean(np.square(weights[i]))), 0.5)[i]
            weights[i] = weights[i] - RATE * size * (np.sign(momentums[i]) + decays[i] * weights[i])
    return weights


def test_as_numpy() -> None:
    model = fed(Tiger(RATE, BETA, DECAY))
    start, steps = model.get_weights(), gradients(8)
    assert far(feed(model, steps)[-1], tiger(start, steps, [DECAY, DECAY, 0.0])) < 1e-5


def test_accumulation_and_excluded_decay() -> None:
    model = fed(Tiger(RATE, BETA, DECAY, gradient_accumulation_steps=2))
    exclude_from_decay(model.optimizer, model, ["embeddings"])
    start, steps = model.get_weights(), gradients(6)
    joined = [[np.mean(each, axis=0) for each in zip(*steps[at : at + 2])] for at in (0, 2, 4)]
    assert far(feed(model, steps)[-1], tiger(start, joined, [0.0, DECAY, 0.0])) < 1e-5


def test_nan_shrinks_and_the_momentum_waits() -> None:
    shapes = {"query_gamma": (2,), "gamma_kernel": (2, 2)}  # which is no gamma: it begins at 0
    model = fed(Tiger(RATE, BETA, 0.0, shrink=0.5), shapes)
    start = model.get_weights()
    steps = gradients(2, shapes)
    broken = [each.copy() for each in steps[0]]
    for each in broken:
        each.flat[0] = np.nan
    after = feed(model, [broken])[-1]
    assert far(after, [(start[0] - 1) / 2 + 1, start[1] / 2]) < 1e-6
    last = feed(model, steps[1:])[-1]
    np.testing.assert_allclose(last[0], after[0] - RATE * 0.5 * np.sign(steps[1][0]), rtol=1e-5, atol=1e-6)


def test_weights_of_zeros_leave_zero() -> None:
    kernel = keras.Variable(np.zeros(SHAPES["block_0/feed/kernel"]), name="kernel")
    Tiger(1.0, weight_decay=None).apply([keras.ops.ones(kernel.shape)], [kernel])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(kernel), -1e-3, rtol=1e-5)
