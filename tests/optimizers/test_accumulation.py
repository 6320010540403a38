"""Accumulated gradients are a big batch: Keras' own mechanism, and what counts its steps for schedules and averages."""

import keras
import numpy as np
import pytest

from maskplay import _backend
from maskplay.optimizers import Average, Lookahead, MicroStepSchedule
from optimizers.fed import arrays, far, fed, feed, gradients, same

K = 4


def clipped(**kwargs) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1, global_clipnorm=0.5, **kwargs)


def adam(**kwargs) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(1e-3, **kwargs)


def trained(optimizer: keras.optimizers.Optimizer, batch_size: int, norm: bool = False) -> list[np.ndarray]:
    """The weights after 5 * 32 examples."""
    _backend.seed(1)
    layers = [
        keras.layers.Dense(5, "tanh"),
        *([keras.layers.BatchNormalization()] if norm else []),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(optimizer, "mse")
    random = np.random.default_rng(0)
    model.fit(random.normal(size=(160, 3)), random.normal(size=(160, 1)), batch_size, shuffle=False, verbose=0)
    return arrays(model.trainable_variables)


@pytest.mark.parametrize("made", [adam, clipped])
def test_micro_batches_are_one_batch(made) -> None:
    assert (
        far(trained(Lookahead(made(gradient_accumulation_steps=K), 2), 32 // K), trained(Lookahead(made(), 2), 32))
        < 1e-6
    )


def test_not_with_batch_normalization() -> None:
    assert far(trained(adam(gradient_accumulation_steps=K), 32 // K, norm=True), trained(adam(), 32, norm=True)) > 1e-5


def test_a_schedule_and_an_average_in_real_steps() -> None:
    """T7: without `MicroStepSchedule` and with Keras' own average both are wrong."""
    decay = keras.optimizers.schedules.PolynomialDecay(0.1, 6, 0.0)
    micro = gradients(5 * K)
    real = [[np.mean(each, axis=0) for each in zip(*micro[at : at + K])] for at in range(0, len(micro), K)]

    def accumulated(schedule, **kwargs) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(schedule, gradient_accumulation_steps=K, **kwargs)

    wanted, found = (
        fed(Average(keras.optimizers.Adam(decay), 0.9)),
        fed(Average(accumulated(MicroStepSchedule(decay, K)), 0.9)),
    )
    trail = feed(wanted, real)
    assert far(trail[-1], feed(found, micro)[-1]) < 1e-6
    with wanted.optimizer.average_weights(wanted), found.optimizer.average_weights(found):
        averages = found.get_weights()
        assert far(wanted.get_weights(), averages) < 1e-6

    assert far(feed(fed(accumulated(decay)), micro)[-1], wanted.get_weights()) > 1e-2
    debiased = [v for v in wanted.optimizer.variables if v.name.endswith("running_average")]
    assert far(arrays(debiased), averages) < 1e-6
    keras_own = fed(accumulated(MicroStepSchedule(decay, K), use_ema=True, ema_momentum=0.9))
    feed(keras_own, micro)
    own = arrays(v for v in keras_own.optimizer.variables if v.name.endswith("average"))
    right = trail[0]
    for weights in trail[1:]:
        right = [0.9 * a + 0.1 * theta for a, theta in zip(right, weights)]
    assert far(own, right) > 1e-3


def test_nothing_moves_before_the_last_micro_batch() -> None:
    optimizer = Average(Lookahead(adam(gradient_accumulation_steps=K), 1), 0.5)
    model = fed(optimizer)
    optimizer.build(model.trainable_variables)
    before = model.get_weights() + arrays(v for v in optimizer.variables if v.name.endswith(("average", "slow")))
    micro = gradients(K)
    feed(model, micro[:-1])
    after = model.get_weights() + arrays(v for v in optimizer.variables if v.name.endswith(("average", "slow")))
    assert same(before, after) and int(optimizer.iterations) == 0 and int(optimizer.real_steps) == 0
    feed(model, micro[-1:])
    assert not same(before[:3], model.get_weights())
    assert int(optimizer.iterations) == int(optimizer.real_steps) == 1
