"""Optimizers with their schedules: up for a tenth of the steps, down to 0, and no decay of norms and biases."""

import keras
import numpy as np
import pytest

import maskplay as mp
from maskplay.errors import UserError
from maskplay.optimizers import adamw, lamb, muon


def rates_of(optimizer: keras.optimizers.Optimizer, steps: int) -> list[float]:
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    optimizer.build(layer.trainable_variables)
    rates = []
    for step in range(steps):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    return rates


@pytest.mark.parametrize("made", [adamw, lamb, muon])
@pytest.mark.parametrize("steps", [1, 9, 11])
def test_the_rate_rises_and_falls(made, steps: int) -> None:
    optimizer = made(1e-3, steps)
    rates = rates_of(optimizer, steps)
    assert max(rates) == pytest.approx(1e-3) and int(np.argmax(rates)) == steps // 10
    optimizer.iterations.assign(steps)
    assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("made", [adamw, lamb, muon])
def test_the_rate_may_stay_and_fall_at_the_end(made) -> None:
    expected = [0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    np.testing.assert_allclose(rates_of(made(1.0, 10, warmup=2, decay=4), 11), expected, atol=1e-6)
    np.testing.assert_allclose(rates_of(made(1.0, 4, warmup=0, decay=0), 5), 1, atol=1e-6)
    # Until it falls nothing depends on the length of the training.
    assert rates_of(made(1.0, 99, warmup=2, decay=4), 7) == rates_of(made(1.0, 10, warmup=2, decay=4), 7)
    with pytest.raises(UserError, match="a rise and a decay within 10 steps, found 7 and 4 steps"):
        made(1.0, 10, warmup=7, decay=4)


@pytest.mark.parametrize("made", [adamw, lamb, muon])
def test_batches_make_one_step_together(made) -> None:
    draw, found = np.random.default_rng(0), []
    grads = [[draw.normal(size=shape).astype("float32") for shape in ((3, 2), (2,))] for _ in range(4)]
    for accumulate in (2, 1):
        keras.utils.set_random_seed(0)
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        optimizer = made(0.1, 4, warmup=0, decay=0, accumulate=accumulate)
        optimizer.build(layer.trainable_variables)
        for i in range(0, 4, 1 if accumulate == 2 else 2):
            before = keras.ops.convert_to_numpy(layer.kernel)
            given = grads[i] if accumulate == 2 else [(a + b) / 2 for a, b in zip(grads[i], grads[i + 1])]
            optimizer.apply([keras.ops.convert_to_tensor(grad) for grad in given], layer.trainable_variables)
            moved = np.abs(keras.ops.convert_to_numpy(layer.kernel) - before).max()
            assert (moved == 0) == (accumulate == 2 and i % 2 == 0)
        found.append(keras.ops.convert_to_numpy(layer.kernel))
    np.testing.assert_allclose(*found, atol=2e-6)


@pytest.mark.parametrize(
    "given, told",
    [
        ({"decay": -5}, "decay: expected a whole number from 0 on, found -5"),
        ({"warmup": -1}, "warmup: expected a whole number from 0 on, found -1"),
        ({"steps": 0}, "steps: expected a whole number from 1 on, found 0"),
        ({"steps": "9"}, "steps: expected a whole number from 1 on, found '9'"),
        ({"rate": -1.0}, "rate: expected a number of at least 0, found -1.0"),
        ({"rate": "1e-3"}, "rate: expected a number of at least 0, found '1e-3'"),
        ({"accumulate": 0}, "accumulate: expected a whole number from 1 on, found 0"),
        ({"accumulate": 2}, "steps: expected a multiple of accumulate, 2; found 9"),
        ({"accumulate": 16}, "steps: expected a multiple of accumulate, 16; found 9"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(given: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        adamw(**{"rate": 1e-3, "steps": 9, **given})


def test_only_whole_names_are_spared() -> None:
    names = ["bias", "gamma", "beta", "scale", "query_gamma", "key_beta", "gamma_kernel", "bias_table"]
    layer = keras.layers.Layer(name="beta_head")
    weights = [layer.add_weight(shape=(2, 2), name=name, initializer="ones") for name in names]
    optimizer = adamw(0.5, 1, warmup=0)
    optimizer.build(weights)
    optimizer.apply([keras.ops.zeros((2, 2)) for _ in weights])
    still = [bool((keras.ops.convert_to_numpy(weight) == 1).all()) for weight in weights]
    assert still == [True] * 6 + [False] * 2


def test_muon_leaves_scores_to_adamw() -> None:
    llama = mp.families.family("llama").config
    network = mp.LanguageModel(llama.but(vocab_size=9, hidden_size=8, num_layers=1, num_heads=2), ["lm"])
    network.build()
    optimizer = muon(0.1, 2)
    optimizer.build(network.trainable_variables)
    velocities = dict(zip([weight.path for weight in network.trainable_variables], optimizer.adam_velocities))
    by_muon = {path.rpartition("encoder/")[2] for path, velocity in velocities.items() if velocity is None}
    assert "block_0/feed/inner/kernel" in by_muon and "block_0/attention/query/kernel" in by_muon
    assert velocities["language_model/lm/output/kernel"] is not None


@pytest.mark.parametrize("made", [adamw, muon])
def test_biases_do_not_decay(made) -> None:
    optimizer = made(0.5, 1)
    layer = keras.layers.Dense(2, kernel_initializer="ones", bias_initializer="ones")
    layer.build((None, 3))
    optimizer.build(layer.trainable_variables)
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in layer.trainable_variables])
    kernel, bias = (keras.ops.convert_to_numpy(variable) for variable in (layer.kernel, layer.bias))
    assert (bias == 1).all() and (kernel < 1).all()
