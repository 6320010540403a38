"""Quantized models of every kind come back from a `.keras` file with the same numbers."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from maskplay import layers
from maskplay.config import Config
from maskplay.encoder import Encoder
from maskplay.language_model import LanguageModel
from quantization import to_int8

TINY = Config(vocab_size=11, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16, max_positions=16)
TOKENS = np.array([[5, 6, 7, 0, 0], [1, 2, 3, 4, 5]], "int32")
X = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")


def graph() -> keras.Model:
    """Layers that a `LanguageModel` has inside, each on its own."""
    return Encoder(TINY.but(embedding_size=4)).graph()


def encoder() -> keras.Model:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    return keras.Model({"tokens": tokens}, Encoder(TINY)(tokens))


def language_model() -> keras.Model:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    return keras.Model({"tokens": tokens}, LanguageModel(TINY)(tokens)["mlm"])


def parts() -> keras.Model:
    x = keras.Input((5, 8))
    each = [
        layers.FeedForward(16),
        layers.GatedAttention(16, 4),
        layers.ReplacedTokens(),
        layers.TokenScores(11, False),
    ]
    each += [layers.AttentionPooling(), layers.Attention(2, 4)]
    return keras.Model(x, [*(layer(x) for layer in each), layers.NextSentence()(layers.Pooler(8)(x))])


@pytest.mark.parametrize("make", [graph, encoder, language_model, parts])
def test_what_is_quantized_comes_back(make: Any, tmp_path: Path) -> None:
    model = to_int8(make())
    x = X if make is parts else {"tokens": TOKENS, "segments": TOKENS * 0}
    x = {name: x[name] for name in model.input} if isinstance(x, dict) else x
    model.save(tmp_path / "model.keras")
    back = keras.saving.load_model(tmp_path / "model.keras")
    kinds = [[keras.backend.standardize_dtype(weight.dtype) for weight in each.weights] for each in (model, back)]
    assert kinds[0] == kinds[1] and kinds[0].count("int8") > 5
    for one, other in zip(*(keras.tree.flatten(each(x)) for each in (model, back))):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))
