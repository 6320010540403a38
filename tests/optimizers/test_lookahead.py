"""Lookahead against a loop in plain Python, and against the variance its paper computes."""

from typing import Any

import keras
import numpy as np
from keras import ops

from maskplay.optimizers import Lookahead
from optimizers.fed import Fed, arrays, far, fed, feed, gradients, passed, same


def test_thirteen_steps_as_a_plain_loop() -> None:
    steps = gradients(13)
    model = fed(Lookahead(keras.optimizers.Adam(0.1), 5, 0.5))
    start = model.get_weights()
    after = feed(model, steps)

    plain = fed(keras.optimizers.Adam(0.1))
    slow, fast = start, []
    for n, step in enumerate(steps, 1):
        fast.append(feed(plain, [step])[-1])
        if n % 5 == 0:
            slow = [phi + 0.5 * (theta - phi) for phi, theta in zip(slow, fast[-1])]
            plain.set_weights(slow)
        assert far(after[n - 1], plain.get_weights()) < 1e-6, n
    # Slow weights begin as the weights do, not as 0.
    assert far(after[4], [(a + b) / 2 for a, b in zip(start, fast[4])]) < 1e-6
    assert far(after[4], start) > 1e-3


def test_slow_and_fast_are_one_at_a_synchronization() -> None:
    model = fed(Lookahead(keras.optimizers.SGD(0.1, momentum=0.9), 3, 0.3))
    steps = gradients(4)
    feed(model, steps[:3])
    slow = arrays(v for v in model.optimizer.variables if v.name.endswith("_slow"))
    assert same(slow, model.get_weights())
    feed(model, steps[3:])
    assert same(slow, arrays(v for v in model.optimizer.variables if v.name.endswith("_slow")))
    assert not same(slow, model.get_weights())


def test_a_whole_step_is_the_inner_optimizer() -> None:
    steps = gradients(4)
    assert same(
        feed(fed(Lookahead(keras.optimizers.Adam(0.1), 2, 1.0)), steps)[-1],
        feed(fed(keras.optimizers.Adam(0.1)), steps)[-1],
    )


class Quadratic(Fed):
    """The loss Σ (θ - c)² / 2."""

    def call(self, c: Any) -> Any:
        return ops.sum(ops.square(self.fed[0].value - c), axis=1) / 2


def test_the_variance_on_a_noisy_quadratic() -> None:
    rate, k, alpha = 0.1, 5, 0.5
    r = 1 - rate
    sgd = rate**2 / (1 - r**2)
    own = alpha**2 * (1 - r ** (2 * k))
    wanted = sgd * own / (own + 2 * alpha * (1 - alpha) * (1 - r**k))
    assert round(wanted, 5) == 0.02331

    model = Quadratic({"theta": (20_000,)})
    model.compile(Lookahead(keras.optimizers.SGD(rate), k, alpha), passed)
    model.build((None, 20_000))
    random = np.random.default_rng(0)
    found = []
    for n in range(1, 301):
        model.train_on_batch(random.standard_normal((1, 20_000), "float32"), np.zeros(1))
        if n > 100 and n % 20 == 0:
            found.append(float(np.mean(np.square(model.get_weights()[0]))))
    assert abs(np.mean(found) / wanted - 1) < 0.02


def test_weights_that_were_frozen_stand_still() -> None:
    model = fed(Lookahead(keras.optimizers.SGD(0.1), 3, 0.5))
    optimizer, (frozen, *rest) = model.optimizer, model.fed
    optimizer.build(model.fed)
    steps = [[ops.convert_to_tensor(each) for each in step] for step in gradients(6)]
    optimizer.apply(steps[0], model.fed)
    before = arrays([frozen])
    for step in steps[1:3]:  # to the synchronization, without it
        optimizer.apply(step[1:], rest)
    assert same(before, arrays([frozen]))
    for step in steps[3:]:  # and when it moves again, the slow weights begin where it stood
        optimizer.apply([ops.zeros_like(step[0]), *step[1:]], model.fed)
    assert same(before, arrays([frozen]))
