"""Rates by path: as if the rate itself had been another."""

import keras
import numpy as np
import pytest

import maskplay as mp
from maskplay.errors import UserError
from maskplay.optimizers import ParameterRates
from optimizers.fed import far, fed, feed, gradients


def test_a_factor_is_another_rate() -> None:
    steps = gradients(3)

    def sgd(rate: float) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(rate, momentum=0.9, weight_decay=0.1)

    model = fed(ParameterRates(sgd(0.1), {"kernel": 2.0, "block_0": 0.5, "bias": 0.0}))
    start = model.get_weights()
    found = feed(model, steps)[-1]
    plain = feed(fed(sgd(0.1)), steps)[-1]
    assert np.array_equal(found[0], plain[0])  # no pattern found
    assert far([found[1]], [plain[1]]) < 1e-6  # 2 · 0.5
    assert np.array_equal(found[2], start[2])  # frozen
    doubled = feed(fed(ParameterRates(sgd(0.1), {"embeddings|feed": 2.0})), steps)[-1]
    assert far(doubled, feed(fed(sgd(0.2)), steps)[-1]) < 1e-6


def test_what_keras_writes_itself_has_no_step() -> None:
    written = keras.Variable([1.0, 1.0], name="kernel_scale")
    written.overwrite_with_gradient = True  # as the scales of float8 have it
    ParameterRates(keras.optimizers.SGD(0.1), {"kernel": 0.5}).apply([keras.ops.array([0.0, 7.0])], [written])
    assert written.numpy().tolist() == [0.0, 7.0]


@pytest.mark.parametrize("position", ["learned", "buckets"])
def test_layer_decay_on_our_own_models(position: str) -> None:
    config = mp.Config(
        vocab_size=9, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=8, max_positions=8, dropout=0.0
    ).but(position=position, num_buckets=8)
    network = mp.LanguageModel(config, heads=("mlm",))
    network(keras.Input((4,), dtype="int32"))
    weights = network.trainable_variables
    optimizer = ParameterRates.layer_decay(keras.optimizers.SGD(1.0), 0.5, blocks=2)
    before = [np.array(weight) for weight in map(keras.ops.convert_to_numpy, weights)]
    optimizer.apply([keras.ops.ones(weight.shape) for weight in weights], weights)
    wanted = {"embedding/": 0.125, "relative/": 0.125, "block_0/": 0.25, "block_1/": 0.5}
    assert any("encoder/relative/" in weight.path for weight in weights) == (position == "buckets")
    for weight, old in zip(weights, before):
        factor = next((value for name, value in wanted.items() if f"encoder/{name}" in weight.path), 1.0)
        np.testing.assert_allclose(old - keras.ops.convert_to_numpy(weight), factor, rtol=1e-5, err_msg=weight.path)
    with pytest.raises(UserError, match="block_2"):
        ParameterRates.layer_decay(keras.optimizers.SGD(1.0), 0.5, blocks=3).build(weights)
    # Frozen from below on is fine; nothing of it is not.
    low = ("encoder/embedding/", "encoder/relative/", "encoder/block_0/")
    above = [weight for weight in weights if not any(name in weight.path for name in low)]
    ParameterRates.layer_decay(keras.optimizers.SGD(1.0), 0.5, blocks=2).build(above)
    with pytest.raises(UserError, match="embedding"):
        ParameterRates.layer_decay(keras.optimizers.SGD(1.0), 0.5, blocks=2).build([weights[-1]])
    shared = mp.LanguageModel(config.but(num_blocks=1), heads=("mlm",))  # as ALBERT
    shared.build()
    ParameterRates.layer_decay(keras.optimizers.SGD(1.0), 0.5, shared.config.blocks).build(shared.trainable_variables)


def test_layer_decay_takes_numbers_of_numpy() -> None:
    made = ParameterRates.layer_decay(keras.optimizers.SGD(1.0), np.float32(0.5), np.int64(2))
    assert made.factors == ParameterRates.layer_decay(keras.optimizers.SGD(1.0), 0.5, 2).factors
    assert {type(factor) for factor in made.factors.values()} == {float}


def test_factors_are_a_dictionary() -> None:
    with pytest.raises(UserError, match="expected factors by pattern"):
        ParameterRates(keras.optimizers.SGD(0.1), [("kernel", 0.5)])
