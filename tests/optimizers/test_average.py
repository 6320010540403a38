"""Averages against NumPy, and the weights swapped and restored."""

import keras
import numpy as np
import pytest

from maskplay import _backend
from maskplay.errors import UserError
from maskplay.optimizers import Average
from optimizers.fed import far, fed, feed, gradients, same


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.9999])
def test_the_debiased_average(momentum: float) -> None:
    model = fed(Average(keras.optimizers.SGD(0.1), momentum))
    steps = gradients(6)
    after = feed(model, steps[:1])
    with model.optimizer.average_weights(model):
        assert same(model.get_weights(), after[0])  # of one, exactly
    after += feed(model, steps[1:])
    shares = np.array([momentum ** (5 - i) if momentum else float(i == 5) for i in range(6)])
    wanted = [sum(share * weight for share, weight in zip(shares, each)) / shares.sum() for each in zip(*after)]
    with model.optimizer.average_weights(model):
        assert far(model.get_weights(), wanted) < 1e-6


def test_an_average_from_the_first_weights_on() -> None:
    model = fed(Average(keras.optimizers.SGD(0.1), 0.8, debias=False))
    wanted = model.get_weights()
    for weights in feed(model, gradients(5)):
        wanted = [0.8 * a + 0.2 * theta for a, theta in zip(wanted, weights)]
    with model.optimizer.average_weights(model):
        assert far(model.get_weights(), wanted) < 1e-6


def test_weights_are_restored_to_the_bit_even_after_an_error() -> None:
    model = fed(Average(keras.optimizers.SGD(0.1), 0.8))
    before = feed(model, gradients(3))[-1]
    with pytest.raises(KeyError), model.optimizer.average_weights(model):
        assert not same(before, model.get_weights())
        raise KeyError
    assert same(before, model.get_weights())
    feed(model, gradients(1))  # goes on


def test_evaluated_within_fit() -> None:
    """A callback may swap while Keras holds the weights elsewhere, as under JAX."""

    class Evaluate(keras.callbacks.Callback):
        losses = []

        def on_epoch_end(self, epoch, logs=None):
            with self.model.optimizer.average_weights(self.model):
                self.losses.append((self.model.evaluate(x, y, verbose=0), self.model.get_weights()))

    x, y = np.eye(3, dtype="float32"), np.zeros((3, 1), "float32")
    runs = []
    for callbacks in ([Evaluate()], []):
        _backend.seed(3)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
        model.compile(Average(keras.optimizers.SGD(0.5), 0.5), "mse")
        model.fit(x, y, epochs=3, verbose=0, shuffle=False, callbacks=callbacks)
        runs.append(model)
    assert same(runs[0].get_weights(), runs[1].get_weights())
    with runs[1].optimizer.average_weights(runs[1]):
        assert same(Evaluate.losses[-1][1], runs[1].get_weights())
        assert Evaluate.losses[-1][0] == pytest.approx(float(np.mean(np.square(runs[1].get_weights()[0]))), rel=1e-5)


def test_weights_of_half_precision_are_refused() -> None:
    weight = keras.Variable([1.0], dtype="bfloat16")
    with pytest.raises(UserError, match="expected weights of float32 .*, found bfloat16"):
        Average(keras.optimizers.SGD(0.1)).build([weight])


def test_a_model_it_never_trained_is_refused() -> None:
    with pytest.raises(UserError, match="holds no averages"):
        with Average(keras.optimizers.SGD(0.1)).average_weights(fed(keras.optimizers.SGD(0.1))):
            pass
