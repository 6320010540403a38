"""Classify: what a training, a prediction or an evaluation leaves behind, also one that ends early."""

import keras
import numpy as np
import pytest

import maskplay as mp
from plays.test_classify import numbers, play, reviews


class Stop(keras.callbacks.Callback):
    """Ctrl-C in the third batch."""

    def on_predict_batch_end(self, batch: int, logs: object = None) -> None:
        if batch == 2:
            raise KeyboardInterrupt

    on_test_batch_end = on_predict_batch_end


def test_what_ends_early_leaves_the_weights_where_they_are() -> None:
    """Keras takes them out of a model under JAX while it predicts or evaluates."""
    model = play()
    texts, arrays = ["这个好", "差"], {"tokens": np.full((40, 5), 6), "segments": np.zeros((40, 5), "int32")}
    wanted = model.probabilities(texts)
    for ending in (
        lambda: model.predict(arrays, 4, verbose=0, callbacks=[Stop()]),
        lambda: model.evaluate(arrays, np.zeros(40), 4, verbose=0, callbacks=[Stop()]),
        lambda: model.predict({name: np.zeros((4, 65), "int32") for name in arrays}, verbose=0),  # too long
    ):
        with pytest.raises((KeyboardInterrupt, mp.UserError)):
            ending()
        np.testing.assert_array_equal(model.probabilities(texts), wanted)
    (before,) = numbers([model.classifier.kernel])
    model.fit(reviews(32), epochs=1, verbose=0)
    assert abs(numbers([model.classifier.kernel])[0] - before).max() > 1e-3


def test_each_fit_goes_on_with_the_order_of_examples() -> None:
    data, ends = reviews(64), []
    for epochs in ([{"epochs": 3}], [{}] * 3, [{"epochs": 1}, {"epochs": 3, "initial_epoch": 1}], None):
        model = play(dropout=0.0)
        for options in epochs or ():
            model.fit(data, batch_size=16, verbose=0, **options)
        for _ in range(0 if epochs else 3):
            model.fit(model.batches(data, 16), verbose=0)  # the first order each time
        ends.append(numbers(model.trainable_weights))
    for other in ends[1:3]:
        for found, wanted in zip(other, ends[0]):
            np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert max(abs(a - b).max() for a, b in zip(ends[3], ends[0])) > 1e-4


def test_weights_that_are_no_numbers_are_told() -> None:
    model = play()
    model.classifier.bias.assign([np.nan, 0.0])
    with pytest.raises(mp.UserError, match="2 of 2 texts get no numbers: training diverged, or weights are damaged"):
        model.predict(["好", "坏"])
