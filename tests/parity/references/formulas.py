"""The parts of transformers, written out in NumPy for one text at a time, in float64.

Arrays are (length, width); heads come first where there are any: (heads, length, size).
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gamma + beta


def rms_norm(x: Array, epsilon: float, gamma: Array | float = 1.0) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * gamma


def gelu(x: Array) -> Array:
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x: Array) -> Array:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def angles(length: int, size: int, base: float = 10000.0) -> Array:
    """Rotary angles (length, size / 2)."""
    return np.arange(length)[:, None] * base ** (-np.arange(0, size, 2) / size)


def turn_pairs(x: Array, base: float = 10000.0) -> Array:
    """Rotary positions on neighbouring channels (2i, 2i + 1): each pair is a complex number."""
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles(x.shape[-2], x.shape[-1], base))
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


def turn_halves(x: Array, base: float = 10000.0) -> Array:
    """Rotary positions on channels that lie half a head apart (i, i + size / 2)."""
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles(x.shape[-2], x.shape[-1], base))
    return np.concatenate([turned.real, turned.imag], -1)


def split(x: Array, heads: int) -> Array:
    """(length, heads * size) -> (heads, length, size)."""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def merge(x: Array) -> Array:
    """(heads, length, size) -> (length, heads * size)."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def attend(query: Array, key: Array, value: Array, causal: bool) -> Array:
    """Scaled dot products; key and value heads may be fewer, each then serves a run of query heads."""
    share = len(query) // len(key)
    key, value = np.repeat(key, share, axis=0), np.repeat(value, share, axis=0)
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
    if causal:
        scores = np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf)
    return softmax(scores) @ value
