"""AdamW with its schedule: up for a tenth of the steps, down to 0, and no decay of norms and biases."""

import keras
import numpy as np
import pytest

from maskplay.optimizers import adamw


@pytest.mark.parametrize("steps", [1, 9, 11])
def test_the_rate_rises_and_falls(steps: int) -> None:
    optimizer = adamw(1e-3, steps)
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    optimizer.build(layer.trainable_variables)
    rates = []
    for step in range(steps):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert max(rates) == pytest.approx(1e-3) and int(np.argmax(rates)) == steps // 10
    optimizer.iterations.assign(steps)
    assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-9)


def test_biases_do_not_decay() -> None:
    optimizer = adamw(0.5, 1)
    layer = keras.layers.Dense(2, kernel_initializer="ones", bias_initializer="ones")
    layer.build((None, 3))
    optimizer.build(layer.trainable_variables)
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in layer.trainable_variables])
    kernel, bias = (keras.ops.convert_to_numpy(variable) for variable in (layer.kernel, layer.bias))
    assert (bias == 1).all() and (kernel < 1).all()
