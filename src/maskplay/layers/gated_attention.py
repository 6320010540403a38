"""The gated attention unit: attention with one head and the feed-forward layer in one.

Source: "Transformer Quality in Linear Time" (arXiv:2202.10447); GAU-α 门控注意力单元 (kexue.fm/archives/9052), whose
softmax grows sharper with the number of tokens seen (kexue.fm/archives/9019).
"""

import math
from typing import Any

import keras
from keras import ops

from maskplay.layers.activation import activation
from maskplay.layers.attention import extended
from maskplay.layers.initializer import Normal
from maskplay.layers.pool import masked_softmax
from maskplay.layers.quantized import quantized_parts

SHORTEST, USUAL = 16, 512  # fewer tokens count as so many; so many leave the scores as they are


@keras.saving.register_keras_serializable(package="maskplay")
class GatedAttention(keras.layers.Layer):
    """outer(u · A v) with u, v and the base of queries and keys from one map of the input.

    A = softmax(q kᵀ / √key_size · ln n / ln 512) where n is how many tokens the query sees, at least 16.

    Args:
        inner_size: width of the gate u and of the values v.
        key_size: width of queries and keys.
        activation: of the inner map, one of `config.ACTIVATIONS`.
        position: a layer that turns queries and keys, such as `Rotary`; None for none here.
        dropout: rate on the probabilities while training.
        initializer_range: standard deviation of fresh kernels.
        use_bias: whether maps, queries and keys have a bias.

    Call arguments and results: as `Attention`, without memory, bias and relative vectors; one head.

    Example:
        >>> GatedAttention(16, 4)(ops.ones((1, 3, 8)), causal=True).shape
        (1, 3, 8)
    """

    def __init__(
        self,
        inner_size: int,
        key_size: int,
        activation: str = "silu",
        position: keras.layers.Layer | None = None,
        dropout: float = 0.0,
        initializer_range: float = 0.02,
        use_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inner_size = inner_size
        self.key_size = key_size
        self.activation = activation
        self.position = position
        self.rate = dropout
        self.initializer_range = initializer_range
        self.use_bias = use_bias
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape: Any) -> None:
        for name, before, after in (
            ("inner", input_shape[-1], 2 * self.inner_size + self.key_size),
            ("outer", self.inner_size, input_shape[-1]),
        ):
            kernel = Normal(stddev=self.initializer_range)
            dense = keras.layers.Dense(
                after, use_bias=self.use_bias, kernel_initializer=kernel, dtype=self.dtype_policy, name=name
            )
            dense.build((None, before))
            setattr(self, name, dense)
        for name in ("query", "key"):
            scale = self.add_weight(shape=(self.key_size,), initializer="ones", name=f"{name}_gamma")
            setattr(self, f"{name}_gamma", scale)
            if self.use_bias:
                shift = self.add_weight(shape=(self.key_size,), initializer="zeros", name=f"{name}_beta")
                setattr(self, f"{name}_beta", shift)

    def call(
        self,
        x: Any,
        visible: Any = None,
        causal: bool = False,
        positions: Any = None,
        cache: dict[str, Any] | None = None,
        start: Any = None,
        details: bool = False,
        training: bool | None = None,
    ) -> Any:
        length = ops.shape(x)[1]
        inner = activation(self.activation)(self.inner(ops.reshape(x, (-1, x.shape[-1]))))
        inner = ops.reshape(inner, (-1, length, inner.shape[-1]))
        gate, value = inner[..., : self.inner_size], inner[..., self.inner_size : 2 * self.inner_size]
        query, key = (self._scaled(inner[..., 2 * self.inner_size :], name)[:, :, None] for name in ("query", "key"))
        value = value[:, :, None]  # with an axis of one head, as caches and rotary positions have it
        if self.position is not None:
            if positions is None:
                positions = ops.arange(length)
            query, key = self.position(query, positions), self.position(key, positions)
        query = query / math.sqrt(self.key_size)
        if cache is not None:
            cache = extended(cache, key, value, start)
            key, value = cache["keys"], cache["values"]
        if causal:
            at = ops.arange(length)
            visible = (at[None, :] <= at[:, None])[None, None]
        scores = ops.einsum("bqhd,bkhd->bhqk", query, key)
        wide = "float64" if self.compute_dtype == "float64" else "float32"
        if visible is None:
            seen = ops.cast(ops.shape(key)[1], wide)
        else:
            seen = ops.sum(ops.cast(visible, wide), axis=-1, keepdims=True)
        sharpness = ops.log(ops.maximum(seen, SHORTEST)) / math.log(USUAL)
        probabilities = ops.cast(masked_softmax(ops.cast(scores, wide) * sharpness, visible), self.compute_dtype)
        mixed = ops.einsum("bhqk,bkhd->bqhd", self.dropout(probabilities, training=training), value)[:, :, 0]
        output = self.outer(ops.reshape(gate * mixed, (-1, self.inner_size)))
        output = ops.reshape(output, (-1, length, output.shape[-1]))
        return (output, cache or {}, probabilities, scores) if details or cache is not None else output

    def _scaled(self, x: Any, name: str) -> Any:
        x = x * ops.cast(getattr(self, f"{name}_gamma"), x.dtype)
        return x + ops.cast(getattr(self, f"{name}_beta"), x.dtype) if self.use_bias else x

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **quantized_parts(self),
            "inner_size": self.inner_size,
            "key_size": self.key_size,
            "activation": self.activation,
            "position": keras.saving.serialize_keras_object(self.position),
            "dropout": self.rate,
            "initializer_range": self.initializer_range,
            "use_bias": self.use_bias,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GatedAttention":
        return cls(**{**config, "position": keras.saving.deserialize_keras_object(config["position"])})
