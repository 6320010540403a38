"""The only softmax(QKᵀ)V of the library, and the layer that evaluates a mask once per call for all of them.

A row that sees nothing gives 0, with finite gradients. Where it is exact the computation goes through
`keras.ops.dot_product_attention` (fused kernels); dropout on the probabilities and requested attention maps need the
probabilities themselves and take the written-out path, which gives the same numbers.
"""

import math
from typing import Any

import keras
from keras import ops

from maskplay import masks
from maskplay.layers.pool import masked_softmax


@keras.saving.register_keras_serializable(package="maskplay")
class Visibility(keras.layers.Layer):
    """Evaluate a static mask over the facts of a call, for attention layers to apply.

    Args:
        pad_id: where `valid` is not given, tokens with this id are padding.

    Shapes: tokens and facts `(batch, length)`; returns booleans broadcastable to `(batch, 1, length, length)`.

    Example:
        >>> Visibility()(ops.ones((2, 3), "int32"), mask=masks.causal()).shape
        (1, 1, 3, 3)
    """

    def __init__(self, pad_id: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pad_id = pad_id

    def call(
        self,
        tokens: Any,
        segments: Any = None,
        valid: Any = None,
        documents: Any = None,
        order: Any = None,
        mask: masks.Mask | None = None,
    ) -> Any:
        if valid is None:
            valid = ops.not_equal(tokens, self.pad_id)
        facts = masks.Facts(ops.shape(tokens)[1], segments, order, documents, valid)
        return per_head((mask or masks.padding()).sees(facts, None, ops))

    def compute_output_spec(self, tokens: Any, *facts: Any, **others: Any) -> Any:
        # By hand: backends that infer shapes by tracing cannot take a rule as an argument.
        return keras.KerasTensor((None, 1, None, tokens.shape[1]), dtype="bool")

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pad_id": self.pad_id}


def per_head(visible: Any) -> Any:
    """`(queries, keys)` or `(batch, queries, keys)` with the axes that attention scores have: `(batch, 1, …)`."""
    return visible[None, None] if len(visible.shape) == 2 else visible[:, None]


@keras.saving.register_keras_serializable(package="maskplay")
class Attention(keras.layers.Layer):
    """Multi-head self-attention over what each token may see.

    Args:
        num_heads: number of heads.
        head_size: width of a head.
        output_size: width of the result, None = that of the input.
        position: a layer `(x, positions) -> x` that turns queries and keys, such as `Rotary`; None for none here.
        dropout: rate on the probabilities while training.
        initializer_range: standard deviation of fresh kernels.

    Call arguments:
        x: `(batch, queries, hidden)`.
        visible: booleans broadcastable to `(batch, 1, queries, keys)`, None = everything is seen.
        causal: a token sees itself and the past (exclusive with `visible`).
        positions: ints `(queries,)` or `(batch, queries)` for `position`, default 0, 1, …
        cache: `{"keys", "values"}`, each `(batch, slots, heads, head_size)`; with `start`, this call's keys and values
            are written at slots start, start + 1, …, and queries look at all slots (`visible` must say which are real).
        details: also return the probabilities `(batch, heads, queries, keys)`.

    Returns:
        `(batch, queries, output_size)`; with a cache or details a tuple `(output, cache | None, probabilities | None)`.

    Example:
        >>> Attention(2, 4)(ops.ones((1, 3, 8)), causal=True).shape
        (1, 3, 8)
    """

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        output_size: int | None = None,
        position: keras.layers.Layer | None = None,
        dropout: float = 0.0,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_size = head_size
        self.output_size = output_size
        self.position = position
        self.rate = dropout
        self.initializer_range = initializer_range
        width = num_heads * head_size
        self.query, self.key, self.value = (
            keras.layers.Dense(width, kernel_initializer=_normal(initializer_range), dtype=self.dtype_policy, name=name)
            for name in ("query", "key", "value")
        )
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape: Any) -> None:
        self.output_dense = keras.layers.Dense(
            self.output_size or input_shape[-1],
            kernel_initializer=_normal(self.initializer_range),
            dtype=self.dtype_policy,
            name="output",
        )
        for dense in (self.query, self.key, self.value):
            dense.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self.num_heads * self.head_size))

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
        if causal and (visible is not None or cache is not None):
            raise ValueError(f"{self.name}: causal=True stands alone; combine rules in the mask instead")
        # Flat: under JAX a kernel's gradient over two token axes is a transposing copy and a slower product.
        flat, length = ops.reshape(x, (-1, x.shape[-1])), ops.shape(x)[1]
        query, key, value = (
            ops.reshape(dense(flat), (-1, length, self.num_heads, self.head_size))
            for dense in (self.query, self.key, self.value)
        )
        if self.position is not None:
            if positions is None:
                positions = ops.arange(length)
            query, key = self.position(query, positions), self.position(key, positions)
        # Scaled here: in half precision the plain product of long vectors may overflow.
        query = query / math.sqrt(self.head_size)
        if cache is not None:
            cache = {
                "keys": ops.slice_update(cache["keys"], (0, start, 0, 0), ops.cast(key, cache["keys"].dtype)),
                "values": ops.slice_update(cache["values"], (0, start, 0, 0), ops.cast(value, cache["values"].dtype)),
            }
            key, value = cache["keys"], cache["values"]
        if details or (training and self.rate):
            mixed, probabilities = self._written_out(query, key, value, visible, causal, training)
        else:
            # A mask that differs between examples must not reach TPU flash attention, which reads one for the batch.
            mixed, probabilities = (
                ops.dot_product_attention(
                    query,
                    key,
                    value,
                    mask=visible,
                    scale=1.0,
                    is_causal=causal,
                    flash_attention=None if visible is None else False,
                ),
                None,
            )
            if visible is not None:
                # Kernels spread a row that sees nothing evenly; by the library's rule it is 0.
                alive = ops.transpose(ops.any(visible, axis=-1, keepdims=True), (0, 2, 1, 3))
                mixed = ops.where(alive, mixed, ops.zeros_like(mixed))
        output = self.output_dense(ops.reshape(mixed, (-1, self.num_heads * self.head_size)))
        output = ops.reshape(output, (-1, length, output.shape[-1]))
        return (output, cache, probabilities) if details or cache is not None else output

    def _written_out(
        self, query: Any, key: Any, value: Any, visible: Any, causal: bool, training: bool | None
    ) -> tuple[Any, Any]:
        scores = ops.einsum("bqhd,bkhd->bhqk", query, key)
        if causal:
            at = ops.arange(ops.shape(query)[1])
            visible = (at[None, :] <= at[:, None])[None, None]
        probabilities = ops.cast(masked_softmax(scores, visible), self.compute_dtype)
        dropped = self.dropout(probabilities, training=training)
        return ops.einsum("bhqk,bkhd->bqhd", dropped, value), probabilities

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "output_size": self.output_size,
            "position": keras.saving.serialize_keras_object(self.position),
            "dropout": self.rate,
            "initializer_range": self.initializer_range,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Attention":
        return cls(**{**config, "position": keras.saving.deserialize_keras_object(config["position"])})


def _normal(stddev: float) -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=stddev)
