"""Every layer that `maskplay.layers` shows keeps the contract; a new one without a line here fails the last test."""

import inspect
from typing import Any

import keras
import numpy as np
import pytest

from contracts import check_layer
from maskplay import layers, masks
from maskplay.config import Config

TINY = Config(vocab_size=11, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, max_positions=16)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 5, 8)).astype("float32")
TOKENS = np.array([[5, 6, 7, 0, 0], [1, 2, 3, 4, 5]], "int32")
VALID = TOKENS != 0
SEGMENTS = np.array([[0, 0, 1, 0, 0], [0, 1, 1, 1, 1]], "int32")
PLACES = np.array([[0, 1, 2, 3, 4], [4, 0, 3, 1, 2]], "int32")

CASES: dict[str, tuple[keras.layers.Layer, tuple[np.ndarray, ...], dict[str, Any]]] = {
    "Attention": (layers.Attention(2, 4), (X,), {}),
    "Attention, everything": (
        layers.Attention(2, 4, output_size=6, position=layers.Rotary(), dropout=0.1),
        (X,),
        {"causal": True, "positions": PLACES},
    ),
    "AttentionPooling": (layers.AttentionPooling(3), (X,), {"valid": VALID}),
    "Embedding": (layers.Embedding(TINY), (TOKENS,), {"segments": SEGMENTS, "positions": PLACES}),
    "Embedding, factorised": (layers.Embedding(TINY.but(embedding_size=4, num_segments=0)), (TOKENS,), {}),
    "FeedForward": (layers.FeedForward(16, "gelu_tanh"), (X,), {}),
    "LayerNorm": (layers.LayerNorm(1e-6), (X,), {}),
    "LayerNorm, conditional": (layers.LayerNorm(condition_size=8), (X,), {"condition": X[:, 0]}),
    "LearnedPosition": (layers.LearnedPosition(5, 8), (PLACES,), {}),
    "LearnedPosition, hierarchical": (layers.LearnedPosition(3, 8, hierarchical=True), (PLACES,), {}),
    "LearningRateMultiplier": (layers.LearningRateMultiplier(layers.FeedForward(16), 100.0), (X,), {}),
    "MaskedMax": (layers.MaskedMax(), (X,), {"valid": VALID}),
    "MaskedMean": (layers.MaskedMean(), (X,), {"valid": VALID}),
    "NextSentence": (layers.NextSentence(), (X[:, 0],), {"dynamic": False}),
    "Pooler": (layers.Pooler(6, "linear"), (X,), {}),
    "Rotary": (layers.Rotary(), (X.reshape(2, 5, 2, 4),), {"positions": PLACES}),
    "Rotary, halves": (layers.Rotary(100.0, interleaved=False), (X.reshape(2, 5, 2, 4),), {"positions": PLACES}),
    "Visibility": (layers.Visibility(), (TOKENS,), {"segments": SEGMENTS, "mask": masks.prefix() & masks.padding()}),
}
# MaskedTokens is called with a function, the tied table; tests/test_encoder.py runs it inside its LanguageModel.
ELSEWHERE = {"MaskedTokens"}


@pytest.mark.parametrize("case", CASES)
def test_contract(case: str) -> None:
    layer, inputs, kwargs = CASES[case]
    assert type(layer).__name__ == case.split(",")[0]
    check_layer(layer, *inputs, **kwargs)


def test_every_public_layer_has_a_contract() -> None:
    public = {name for name in layers.__all__ if inspect.isclass(getattr(layers, name))}
    assert public == {case.split(",")[0] for case in CASES} | ELSEWHERE
