"""Rematerialised blocks: the same numbers, gradients and dropout, and less memory."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from contracts import numbers
from gradients import kept_bytes
from maskplay import _backend, masks
from maskplay.autodiff import value_and_gradient
from maskplay.config import Config
from maskplay.encoder import Encoder
from maskplay.layers.remat import rematerialized

CONFIG = Config(
    vocab_size=20,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=32,
    max_positions=16,
    dropout=0.2,
    initializer_range=0.3,
)
TOKENS = np.array([[5, 6, 7, 8, 9, 3], [3, 4, 5, 6, 0, 0]], "int32")
MEMORY = np.random.default_rng(0).normal(size=(2, 4, 16)).astype("float32")
SEEN = {"memory": MEMORY, "memory_valid": np.array([[True] * 4, [True] * 2 + [False] * 2])}


def encoder(config: Config, remat: bool, **kwargs: Any) -> Encoder:
    keras.utils.set_random_seed(1)
    made = Encoder(config, **kwargs)
    made.build()
    made.remat = remat
    return made


CASES: dict[str, tuple[Config, dict[str, Any], dict[str, Any]]] = {
    "residual scores": (CONFIG.but(attention="residual"), {}, {}),
    "shared": (CONFIG.but(num_blocks=1), {}, {}),
    "memory": (CONFIG.but(num_layers=1), {"cross": True}, {**SEEN, "mask": masks.causal()}),
    "half": (CONFIG.but(num_layers=1), {"dtype": "mixed_bfloat16"}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_gradients_and_dropout_are_the_same(case: str) -> None:
    config, options, arguments = CASES[case]

    def found(remat: bool) -> list[np.ndarray]:
        made = encoder(config, remat, **options)

        def value(values: list[Any]) -> tuple[Any, Any]:
            held = [(state, state.value) for state in made.non_trainable_variables]
            with keras.StatelessScope([*held, *zip(made.trainable_weights, values)]):
                hidden = ops.cast(made(TOKENS, training=True, **arguments), "float32")
            return ops.mean(ops.tanh(hidden)), hidden

        step = _backend.compiled(lambda values: value_and_gradient(value, values), made.variables)
        keras.utils.set_random_seed(2)  # PyTorch's dropout
        return numbers(step([weight.value for weight in made.trainable_weights]))

    plain = found(False)
    assert all(np.abs(slope).any() for slope in plain[2:4])
    for expected, remat in zip(plain, found(True), strict=True):
        np.testing.assert_allclose(remat, expected, atol=1e-6 if case != "half" else 5e-2)


def test_compiled_fit_is_the_same() -> None:
    weights = []
    for remat in (False, True):
        inputs = keras.Input((6,), dtype="int32")
        hidden = keras.layers.GlobalAveragePooling1D()(encoder(CONFIG, remat)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        keras.utils.set_random_seed(2)
        model.fit(TOKENS, np.ones((2, 1)), batch_size=1, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    start = encoder(CONFIG, False).get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(weights[0], start)) > 1e-2
    for plain, remat in zip(*weights, strict=True):
        np.testing.assert_allclose(remat, plain, rtol=1e-5, atol=1e-5)


def test_less_is_kept() -> None:
    made = encoder(CONFIG.but(num_layers=3), False)

    def value() -> Any:
        return ops.mean(made(np.ones((32, 16), "int32"), training=True))

    plain = kept_bytes(value, made.trainable_weights)
    if plain is None:
        pytest.skip("this backend does not say")
    made.remat = True
    assert kept_bytes(value, made.trainable_weights) < plain / 2


def test_nothing_is_computed_twice_but_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    remat = keras.remat
    monkeypatch.setattr(keras, "remat", lambda function: calls.append(function) or remat(function))
    made = encoder(CONFIG, True)
    made(TOKENS, training=False)
    assert made.graph().count_params() == made.count_params()
    assert not calls
    made(TOKENS, training=True)
    assert len(calls) == CONFIG.num_layers


def test_any_layer_and_any_structure() -> None:
    class Mix(keras.layers.Layer):
        def call(self, pair, factor=1, scale=None):
            total = pair["a"] + factor * ops.cast(pair["b"], "float32")
            return {"sum": total, "count": ops.shape(total)[0], "scaled": [scale, None]}

    pair = {"a": ops.ones((2, 3)), "b": ops.array([[1, 2, 3]])}
    mixed = rematerialized(Mix())(pair, factor=2, scale=ops.ones(1))
    assert ops.convert_to_numpy(mixed["sum"]).tolist() == [[3, 5, 7], [3, 5, 7]]
    assert int(mixed["count"]) == 2 and mixed["scaled"][1] is None


def test_keras_masks_and_training_reach_the_layer() -> None:
    """Also where PyTorch and TensorFlow compute again, outside of any call."""

    class Halves(keras.layers.Layer):
        def __init__(self, remat: bool) -> None:
            super().__init__()
            self.remat, self.supports_masking = remat, True
            self.dropout, self.pool = keras.layers.Dropout(0.5, seed=1), keras.layers.GlobalAveragePooling1D()

        def call(self, x):
            run = rematerialized if self.remat else lambda layer: layer
            return run(self.pool)(run(self.dropout)(x))

        def compute_mask(self, inputs, previous_mask):
            return None

    tokens, weights = np.array([[1, 2, 0, 0], [2, 1, 2, 0]]), []
    for remat in (False, True):
        keras.utils.set_random_seed(1)
        table = keras.layers.Embedding(3, 8, mask_zero=True)
        model = keras.Sequential([keras.Input((4,), dtype="int32"), table, Halves(remat), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(1.0), "mse")
        keras.utils.set_random_seed(2)
        model.train_on_batch(tokens, np.ones((2, 1)))
        weights.append(model.get_weights())
    for plain, remat in zip(*weights, strict=True):
        np.testing.assert_allclose(remat, plain, atol=1e-6)
