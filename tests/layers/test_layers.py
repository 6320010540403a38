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
DISTANCES = PLACES[:, None, :] - PLACES[:, :, None]
VISIBLE = (PLACES[:, None, :] <= PLACES[:, :, None])[:, None]
MEMORY = RANDOM.normal(size=(2, 3, 8)).astype("float32")
BIAS = RANDOM.normal(size=(1, 2, 5, 5)).astype("float32")
RELATIVE = RANDOM.normal(size=(1, 5, 5, 4)).astype("float32")

CASES: dict[str, tuple[keras.layers.Layer, tuple[np.ndarray, ...], dict[str, Any]]] = {
    "Attention": (layers.Attention(2, 4), (X,), {}),
    "Attention, everything": (
        layers.Attention(2, 4, output_size=6, position=layers.Rotary(), dropout=0.1),
        (X,),
        {"causal": True, "positions": PLACES},
    ),
    "Attention, biased": (layers.Attention(2, 4, scaled=False, use_bias=False), (X,), {"bias": BIAS, "dynamic": False}),
    "Attention, few keys": (
        layers.Attention(4, 2, num_kv_heads=2, key_size=3),
        (X,),
        {"visible": VISIBLE, "dynamic": False},
    ),
    "Attention, memory": (layers.Attention(2, 4), (X,), {"memory": MEMORY}),
    "Attention, relative": (layers.Attention(2, 4), (X,), {"relative": RELATIVE, "dynamic": False}),
    "AttentionPooling": (layers.AttentionPooling(3), (X,), {"valid": VALID}),
    "Block": (layers.Block(TINY), (X,), {"visible": VISIBLE, "dynamic": False}),
    "Block, cross": (layers.Block(TINY.but(norm_at="pre"), cross=True), (X,), {"memory": MEMORY, "causal": True}),
    "Embedding": (layers.Embedding(TINY), (TOKENS,), {"segments": SEGMENTS, "positions": PLACES}),
    "Embedding, factorised": (layers.Embedding(TINY.but(embedding_size=4, num_segments=0)), (TOKENS,), {}),
    "Embedding, plain": (
        layers.Embedding(TINY.but(embedding="plain", num_segments=None)),
        (TOKENS,),
        {"segments": TOKENS},
    ),
    "Embedding, projected first": (
        layers.Embedding(TINY.but(embedding_size=4, embedding="projected_first")),
        (TOKENS,),
        {"segments": SEGMENTS},
    ),
    "FeedForward": (layers.FeedForward(16, "gelu_tanh"), (X,), {}),
    "FeedForward, gated": (layers.FeedForward(16, "gated_silu", use_bias=False), (X,), {}),
    "GatedAttention": (layers.GatedAttention(16, 4, position=layers.Rotary()), (X,), {"causal": True}),
    "GatedAttention, biased": (
        layers.GatedAttention(16, 4, use_bias=True),
        (X,),
        {"visible": VISIBLE, "dynamic": False},
    ),
    "LayerNorm": (layers.LayerNorm(1e-6), (X,), {}),
    "LayerNorm, conditional": (layers.LayerNorm(condition_size=8), (X,), {"condition": X[:, 0]}),
    "LearnedPosition": (layers.LearnedPosition(5, 8), (PLACES,), {}),
    "LearnedPosition, hierarchical": (layers.LearnedPosition(3, 8, hierarchical=True), (PLACES,), {}),
    "LearningRateMultiplier": (layers.LearningRateMultiplier(layers.FeedForward(16), 100.0), (X,), {}),
    "MaskedMax": (layers.MaskedMax(), (X,), {"valid": VALID}),
    "MaskedMean": (layers.MaskedMean(), (X,), {"valid": VALID}),
    "NextSentence": (layers.NextSentence(), (X[:, 0],), {"dynamic": False}),
    "Places": (layers.Places(), (TOKENS,), {}),
    "Pooler": (layers.Pooler(6, "linear"), (X,), {}),
    "RMSNorm": (layers.RMSNorm(1e-6), (X,), {}),
    "RMSNorm, without parameters": (layers.RMSNorm(1e-6, scale=False), (X,), {}),
    "RelativeBias": (layers.RelativeBias(2, 8, 4), (DISTANCES,), {"dynamic": False}),
    "RelativeSinusoids": (layers.RelativeSinusoids(3, 8), (DISTANCES,), {"dynamic": False}),
    "ReplacedTokens": (layers.ReplacedTokens(), (X,), {}),
    "Rotary": (layers.Rotary(), (X.reshape(2, 5, 2, 4),), {"positions": PLACES}),
    "Rotary, halves": (layers.Rotary(100.0, interleaved=False), (X.reshape(2, 5, 2, 4),), {"positions": PLACES}),
    "TokenScores": (layers.TokenScores(11, tied=False, scale=0.5), (X,), {}),
    "Visibility": (layers.Visibility(), (TOKENS,), {"segments": SEGMENTS, "mask": masks.prefix() & masks.padding()}),
}
# MaskedTokens is called with a function, the tied table; tests/test_encoder.py runs it inside its LanguageModel.
ELSEWHERE = {"MaskedTokens"}


@pytest.mark.parametrize("case", CASES)
def test_contract(case: str) -> None:
    layer, inputs, kwargs = CASES[case]
    assert type(layer).__name__ == case.split(",")[0]
    check_layer(layer, *inputs, **kwargs)


def test_a_layer_given_its_policy_tells_its_config() -> None:
    """As networks make them; Keras refuses to record for itself a dtype that came as an object."""
    policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    for kind in (layers.NextSentence, layers.Places, layers.Visibility, layers.MaskedMean):
        layer = kind(dtype=policy)
        assert kind.from_config(layer.get_config()).dtype_policy.name == "mixed_bfloat16"


def test_every_public_layer_has_a_contract() -> None:
    public = {name for name in layers.__all__ if inspect.isclass(getattr(layers, name))}
    assert public == {case.split(",")[0] for case in CASES} | ELSEWHERE
