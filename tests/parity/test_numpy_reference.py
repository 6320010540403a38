"""Our encoder against a second one, written in NumPy float64 straight from the formulas.

x = LN(token + segment + position)                          BERT, arXiv:1810.04805
x = LN(x + Attention(x));  x = LN(x + W2 act(W1 x))         in every block
Attention: softmax over the visible keys of q.k / sqrt(d)   arXiv:1706.03762
RoFormer turns the pairs (2i, 2i + 1) of q and k at place m by m * 10000^(-2i/d)   arXiv:2104.09864
"""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

import maskplay as mp
from parity.closeness import assert_within

BASE = {
    "vocab_size": 60, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64, "max_positions": 40,
}  # fmt: skip
MODELS = {
    "bert": {},
    "tanh gelu": {"activation": "gelu_tanh"},
    "relu, large epsilon": {"activation": "relu", "norm_epsilon": 0.1},
    "wide heads": {"head_size": 12},
    "factorised": {"embedding_size": 8},
    "no segments": {"num_segments": 0},
    "long": {"position": "hierarchical", "max_positions": 5},
    "roformer": {"position": "rotary"},
    "roformer, factorised, narrow heads": {"position": "rotary", "embedding_size": 8, "head_size": 4},
}


class Reference:
    """The encoder of ``config`` with the weights ``w``, path -> float64 array."""

    def __init__(self, config: mp.Config, w: dict[str, np.ndarray]):
        self.config, self.w = config, w

    def __call__(self, tokens: np.ndarray, segments: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """Ids (batch, length) and booleans (batch, query, key) to (batch, length, hidden)."""
        config, w = self.config, self.w
        x = w["embedding/token/embeddings"][tokens]
        if config.num_segments:
            x = x + w["embedding/segment/embeddings"][segments]
        if config.position in ("learned", "hierarchical"):
            x = x + np.stack([self.place(index) for index in range(tokens.shape[1])])
        x = self.norm("embedding/norm", x)
        if "embedding/projection/kernel" in w:
            x = self.dense("embedding/projection", x)
        for index in range(config.num_layers):
            block = f"block_{index}"
            x = self.norm(f"{block}/attention_norm", x + self.attention(f"{block}/attention", x, visible))
            inner = self.act(self.dense(f"{block}/feed/inner", x))
            x = self.norm(f"{block}/feed_norm", x + self.dense(f"{block}/feed/outer", inner))
        return x

    def dense(self, path: str, x: np.ndarray) -> np.ndarray:
        return x @ self.w[f"{path}/kernel"] + self.w[f"{path}/bias"]

    def norm(self, path: str, x: np.ndarray) -> np.ndarray:
        spread = np.sqrt(x.var(axis=-1, keepdims=True) + self.config.norm_epsilon)
        return (x - x.mean(axis=-1, keepdims=True)) / spread * self.w[f"{path}/gamma"] + self.w[f"{path}/beta"]

    def act(self, x: np.ndarray) -> np.ndarray:
        if self.config.activation == "relu":
            return x * (x > 0)
        if self.config.activation == "gelu_tanh":
            return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    def place(self, index: int) -> np.ndarray:
        """One position vector; hierarchical: alpha * u[tens] + (1 - alpha) * u[ones]."""
        table = self.w["embedding/position/embeddings"]
        if self.config.position == "learned":
            return table[index]
        base = (table - 0.4 * table[0]) / 0.6
        return 0.4 * base[index // len(table)] + 0.6 * base[index % len(table)]

    def attention(self, path: str, x: np.ndarray, visible: np.ndarray) -> np.ndarray:
        batch, length, _ = x.shape
        q, k, v = (
            self.dense(f"{path}/{name}", x).reshape(batch, length, self.config.num_heads, -1)
            for name in ("query", "key", "value")
        )
        if self.config.position == "rotary":
            q, k = self.turn(q), self.turn(k)
        read = np.zeros_like(v)
        for b, h, i in np.ndindex(batch, self.config.num_heads, length):
            seen = np.flatnonzero(visible[b, i])
            if len(seen):  # a row that sees nothing reads nothing
                scores = k[b, seen, h] @ q[b, i, h] / math.sqrt(q.shape[-1])
                weights = np.exp(scores - scores.max())
                read[b, i, h] = weights / weights.sum() @ v[b, seen, h]
        return self.dense(f"{path}/output", read.reshape(batch, length, -1))

    def turn(self, x: np.ndarray) -> np.ndarray:
        """Each pair of channels is a complex number, multiplied by exp(i * angle)."""
        size = x.shape[-1]
        angles = np.arange(x.shape[1])[:, None] * 10000.0 ** (-np.arange(0, size, 2) / size)
        turned = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None]
        return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def redraw(encoder: keras.layers.Layer, seed: int) -> dict[str, np.ndarray]:
    """Give a built encoder weights that all matter; path relative to the encoder -> the same weights in float64."""
    random = np.random.default_rng(seed)
    drawn = {}
    for weight in encoder.weights:
        noise = random.standard_normal(tuple(weight.shape))
        if weight.path.endswith("gamma"):
            noise = 1 + 0.25 * noise
        else:
            noise *= 1.3 / weight.shape[0] ** 0.5 if weight.path.endswith("kernel") else 0.4
        weight.assign(noise.astype("float32"))
        drawn[weight.path.removeprefix(f"{encoder.name}/")] = noise.astype("float32").astype("float64")
    return drawn


TOKENS = np.zeros((4, 12), "int32")
SEGMENTS = np.zeros((4, 12), "int32")
for row, (source, target) in enumerate([(7, 5), (2, 3), (5, 6), (1, 1)]):
    TOKENS[row, : source + target] = np.random.default_rng(row).integers(1, BASE["vocab_size"], source + target)
    SEGMENTS[row, source : source + target] = 1
VALID = TOKENS != 0
PLACES = np.arange(TOKENS.shape[1])
STRUCTURES = {
    "padding()": np.ones((1, 12, 12), bool),
    "causal() & padding()": (PLACES[None] <= PLACES[:, None])[None],
    # A source token sees the source; a target token sees the source and the target up to itself.
    "prefix() & padding()": (SEGMENTS[:, None, :] == 0) | ((SEGMENTS[:, :, None] == 1) & (PLACES <= PLACES[:, None])),
}


@pytest.mark.parametrize("mask", STRUCTURES)
@pytest.mark.parametrize("model", MODELS)
def test_encoder_equals_the_formulas(model: str, mask: str) -> None:
    config = mp.Config(**(BASE | MODELS[model]))
    encoder = mp.Encoder(config)
    segments = SEGMENTS if config.num_segments or "prefix" in mask else None
    rule = mp.masks.parse(mask)
    encoder(TOKENS, segments=segments, mask=rule)  # builds the weights
    weights = redraw(encoder, seed=len(model))
    theirs = Reference(config, weights)(TOKENS, SEGMENTS, STRUCTURES[mask] & VALID[:, None, :])
    ours = encoder(TOKENS, segments=segments, mask=rule)
    assert_within(1e-5, f"{model}, {mask}", ours, theirs, VALID)


def test_the_formulas_can_fail() -> None:
    """A wrong angle, epsilon or activation is far outside the tolerance: the weights tell models apart."""
    random = np.random.default_rng(0)
    config = mp.Config(**BASE, position="rotary")
    encoder = mp.Encoder(config)
    encoder(TOKENS, segments=SEGMENTS)
    weights = redraw(encoder, seed=1)
    visible = np.broadcast_to(VALID[:, None, :], (4, 12, 12))
    right = Reference(config, weights)(TOKENS, SEGMENTS, visible)
    for change in ({"position": "none"}, {"norm_epsilon": 1e-3}, {"activation": "gelu_tanh"}):
        wrong = Reference(config.but(**change), weights)(TOKENS, SEGMENTS, visible)
        assert np.abs(wrong - right)[VALID].max() > 1e-4, change
    for path in weights:
        moved = weights | {path: weights[path] + 0.01 * random.standard_normal(weights[path].shape)}
        gap = np.abs(Reference(config, moved)(TOKENS, SEGMENTS, visible) - right)[VALID].max()
        # Softmax forgets what all keys share, so the key bias alone cannot matter without rotation; with it, it does.
        assert gap > 1e-4, path
