"""GELU, which is written out where the backend fuses: values and slopes against float64."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from gradients import gradient
from maskplay.errors import UserError
from maskplay.layers.activation import activation
from maskplay.layers.feed import FeedForward
from maskplay.layers.heads import Pooler

X = np.concatenate([np.linspace(-40, 40, 4001), [-1e4, -5.5, -0.0, 0.0, 1e-20, 1e4]]).astype("float32")
PHI = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in X.astype("float64")])
WIDE = X.astype("float64")


def test_gelu_is_exact() -> None:
    values = ops.convert_to_numpy(activation("gelu")(ops.convert_to_tensor(X)))
    np.testing.assert_allclose(values, WIDE * PHI, rtol=3e-7, atol=1e-6)  # PyTorch's own is 6e-7 off


def test_gelu_has_the_right_slope() -> None:
    slope = PHI + WIDE * np.exp(-np.minimum(WIDE * WIDE, 1400) / 2) / math.sqrt(2 * math.pi)
    found = gradient(lambda x: ops.sum(activation("gelu")(x)), X)
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_gelu_keeps_small_values_in_half_precision(kind: str) -> None:
    x = ops.cast(np.array([-3.0, -2.0, -1.0, 0.125, 2.0], "float32"), kind)
    result = activation("gelu")(x)
    assert keras.backend.standardize_dtype(result.dtype) == kind
    exact = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in (-3.0, -2.0, -1.0, 0.125, 2.0)]
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(result, "float32")), exact, rtol=0.03)


def test_other_activations_are_told() -> None:
    for wrong in ("swish", "gated_mish", ops.gelu):
        with pytest.raises(UserError, match="feed-forward activation: expected one of gelu, .*, gated_linear, found "):
            FeedForward(16, wrong)
    with pytest.raises(UserError, match="activation: expected one of gelu, .*, linear, found 'swish'"):
        Pooler(8, "swish")(X[None, :8, None])
