"""Muon is Keras' own in full precision, and near it where products are in half precision."""

import keras
import numpy as np
import pytest

from maskplay.optimizers import Muon


def step(made, gradient: np.ndarray, policy: str = "float32") -> np.ndarray:
    """What one step adds to a kernel."""
    keras.config.set_dtype_policy(policy)
    try:
        kernel = keras.Variable(np.zeros(gradient.shape, "float32"), name="kernel")
        optimizer = made(learning_rate=1.0, weight_decay=0.0)
        optimizer.build([kernel])
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        return keras.ops.convert_to_numpy(kernel.value)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (9, 5)])
def test_in_full_precision_it_is_keras_own(shape) -> None:
    gradient = np.random.default_rng(0).normal(size=shape).astype("float32")
    theirs = step(keras.optimizers.Muon, gradient)
    np.testing.assert_allclose(step(Muon, gradient), theirs, atol=1e-5)
    # Steps are as long in every direction: singular values come near to each other.
    sizes = np.linalg.svd(theirs)[1]
    assert sizes.max() < 2 * sizes.min() and np.linalg.cond(gradient) > 2.5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])  # squares of either end do not fit into float16
def test_in_half_precision_it_comes_near(policy: str, scale: float) -> None:
    gradient = scale * np.random.default_rng(1).normal(size=(16, 24)).astype("float32")
    ours, theirs = step(Muon, gradient, policy), step(keras.optimizers.Muon, gradient)
    assert (ours * theirs).sum() / np.sqrt((ours**2).sum() * (theirs**2).sum()) > 0.999
    assert np.abs(ours).max() < 2 * np.abs(theirs).max() and np.abs(ours - theirs).max() > 1e-6
