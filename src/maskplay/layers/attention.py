"""The only softmax(QKᵀ)V of the library, and the layer that evaluates a mask once per call for all of them.

A row that sees nothing gives 0, with finite gradients. Where it is exact the computation goes through
`keras.ops.dot_product_attention` (fused kernels); dropout on the probabilities and requested attention maps need the
probabilities themselves and take the written-out path, which gives the same numbers; so does training under PyTorch on
a CPU, where the fused kernel's way back is slow, and float16 where the kernel does not know it (JAX on a CPU).
"""

import math
from typing import Any

import keras
from keras import ops

from maskplay import _backend, masks
from maskplay.layers.initializer import Normal
from maskplay.layers.pool import masked_softmax
from maskplay.layers.quantized import quantized_parts


@keras.saving.register_keras_serializable(package="maskplay")
class Visibility(keras.layers.Layer):
    """Evaluate a static mask over the facts of a call, for attention layers to apply.

    Args:
        pad_id: where `valid` is not given, tokens with this id are padding; None = none are.

    Shapes: tokens and facts `(batch, length)`; returns booleans broadcastable to `(batch, 1, length, length)`.

    Example:
        >>> Visibility()(ops.ones((2, 3), "int32"), mask=masks.causal()).shape
        (1, 1, 3, 3)
    """

    def __init__(self, pad_id: int | None = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pad_id = pad_id
        self.built = True  # no weights

    def call(
        self,
        tokens: Any,
        segments: Any = None,
        valid: Any = None,
        documents: Any = None,
        order: Any = None,
        mask: masks.Mask | None = None,
    ) -> Any:
        valid = self.valid(tokens) if valid is None else valid
        facts = masks.Facts(ops.shape(tokens)[1], segments, order, documents, valid)
        return per_head((masks.padding() if mask is None else mask).sees(facts, None, ops))

    def valid(self, tokens: Any) -> Any:
        """Which tokens are real where nobody says so: bools of the same shape."""
        return ops.ones_like(tokens, "bool") if self.pad_id is None else ops.not_equal(tokens, self.pad_id)

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
    """Multi-head attention over what each token may see, among the tokens themselves or over a memory.

    Args:
        num_heads: number of heads.
        head_size: width of a head.
        output_size: width of the result, None = that of the input.
        position: a layer `(x, positions) -> x` that turns queries and keys, such as `Rotary`; None for none here.
        dropout: rate on the probabilities while training.
        initializer_range: standard deviation of fresh kernels.
        num_kv_heads: heads of keys and values, each serving num_heads / num_kv_heads of the queries'; None = num_heads.
        key_size: width of a head's queries and keys; None = head_size.
        use_bias: whether the linear maps have a bias.
        scaled: divide scores by √key_size (T5 does not).

    Call arguments:
        x: `(batch, queries, hidden)`.
        memory: `(batch, keys, hidden)`, what is looked at; None = x itself.
        visible: booleans broadcastable to `(batch, 1, queries, keys)`, None = everything is seen.
        causal: a token sees itself and the past (exclusive with `visible`).
        positions: ints `(queries,)` or `(batch, queries)` for `position`, default 0, 1, …
        bias: added to the scores, broadcastable to `(batch, heads, queries, keys)`, such as `RelativeBias` gives.
        relative: a vector for each pair, added to keys and to values, broadcastable to
            `(batch, queries, keys, head_size)`, such as `RelativeSinusoids` gives.
        cache: `{"keys", "values"}`, each `(batch, slots, heads, head_size)`; with `start`, this call's keys and values
            are written at slots start, start + 1, …, and queries look at all slots (`visible` must say which are real).
            Without `start` the cache holds a memory's (`remember`), and nothing is written.
        details: also return the probabilities and the scores without the bias, both `(batch, heads, queries, keys)`.

    Returns:
        `(batch, queries, output_size)`; with a cache or details a tuple
        `(output, cache, probabilities | None, scores | None)`, the cache empty where none was given.

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
        num_kv_heads: int | None = None,
        key_size: int | None = None,
        use_bias: bool = True,
        scaled: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_size = head_size
        self.output_size = output_size
        self.position = position
        self.rate = dropout
        self.initializer_range = initializer_range
        self.num_kv_heads = num_kv_heads or num_heads
        self.key_size = key_size or head_size
        self.use_bias = use_bias
        self.scaled = scaled
        self.query = self._dense(num_heads * self.key_size, "query")
        self.key = self._dense(self.num_kv_heads * self.key_size, "key")
        self.value = self._dense(self.num_kv_heads * head_size, "value")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def _dense(self, width: int, name: str) -> keras.layers.Dense:
        kernel = Normal(stddev=self.initializer_range)
        return keras.layers.Dense(
            width, use_bias=self.use_bias, kernel_initializer=kernel, dtype=self.dtype_policy, name=name
        )

    def build(self, input_shape: Any) -> None:
        self.output_dense = self._dense(self.output_size or input_shape[-1], "output")
        for dense in (self.query, self.key, self.value):
            dense.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self.num_heads * self.head_size))

    def remember(self, memory: Any) -> dict[str, Any]:
        """A memory's keys and values, to be given as `cache` to calls that look at nothing else."""
        return {
            "keys": self._heads(self.key, memory, self.key_size, self.num_kv_heads),
            "values": self._heads(self.value, memory, self.head_size, self.num_kv_heads),
        }

    def _heads(self, dense: keras.layers.Dense, x: Any, size: int, heads: int) -> Any:
        # Flat: under JAX a kernel's gradient over two token axes is a transposing copy and a slower product.
        return ops.reshape(dense(ops.reshape(x, (-1, x.shape[-1]))), (-1, ops.shape(x)[1], heads, size))

    def call(
        self,
        x: Any,
        memory: Any = None,
        visible: Any = None,
        causal: bool = False,
        positions: Any = None,
        bias: Any = None,
        relative: Any = None,
        cache: dict[str, Any] | None = None,
        start: Any = None,
        details: bool = False,
        training: bool | None = None,
    ) -> Any:
        if causal and (visible is not None or cache is not None or memory is not None):
            raise ValueError(f"{self.name}: causal=True stands alone; combine rules in the mask instead")
        length = ops.shape(x)[1]
        query = self._heads(self.query, x, self.key_size, self.num_heads)
        if cache is not None and start is None:
            key, value = cache["keys"], cache["values"]
        else:
            key, value = self.remember(x if memory is None else memory).values()
        if self.position is not None:
            if positions is None:
                positions = ops.arange(length)
            query, key = self.position(query, positions), self.position(key, positions)
        if self.scaled:
            # Scaled here: in half precision the plain product of long vectors may overflow.
            query = query / math.sqrt(self.key_size)
        if cache is not None and start is not None:
            cache = extended(cache, key, value, start)
            key, value = cache["keys"], cache["values"]
        if self.num_kv_heads != self.num_heads:
            share = self.num_heads // self.num_kv_heads
            key, value = ops.repeat(key, share, axis=2), ops.repeat(value, share, axis=2)
        written_out = bias is not None or relative is not None or self.key_size != self.head_size
        written_out = written_out or not _backend.attends_in(keras.backend.standardize_dtype(query.dtype))
        if written_out or details or (training and (self.rate or _backend.learns_faster_written_out(query))):
            mixed, probabilities, scores = self._written_out(
                query, key, value, visible, causal, bias, relative, training
            )
        else:
            # A mask that differs between examples must not reach TPU flash attention, which reads one for the batch.
            probabilities = scores = None
            mixed = ops.dot_product_attention(
                query,
                key,
                value,
                mask=visible,
                scale=1.0,
                is_causal=causal,
                flash_attention=None if visible is None else False,
            )
            if visible is not None:
                # Kernels spread a row that sees nothing evenly; by the library's rule it is 0.
                alive = ops.transpose(ops.any(visible, axis=-1, keepdims=True), (0, 2, 1, 3))
                mixed = ops.where(alive, mixed, ops.zeros_like(mixed))
        output = self.output_dense(ops.reshape(mixed, (-1, self.num_heads * self.head_size)))
        output = ops.reshape(output, (-1, length, output.shape[-1]))
        if details or cache is not None:
            # An empty cache, not None: a functional model's layers may put out nothing but tensors.
            return (output, cache or {}, probabilities, scores) if details else (output, cache, None, None)
        return output

    def _written_out(
        self,
        query: Any,
        key: Any,
        value: Any,
        visible: Any,
        causal: bool,
        bias: Any,
        relative: Any,
        training: bool | None,
    ) -> tuple[Any, Any, Any]:
        scores = ops.einsum("bqhd,bkhd->bhqk", query, key)
        if relative is not None:
            scores = scores + ops.transpose(ops.matmul(query, ops.swapaxes(relative, -1, -2)), (0, 2, 1, 3))
        biased = scores if bias is None else scores + ops.cast(bias, scores.dtype)
        if causal:
            at = ops.arange(ops.shape(query)[1])
            visible = (at[None, :] <= at[:, None])[None, None]
        probabilities = ops.cast(masked_softmax(biased, visible), self.compute_dtype)
        dropped = self.dropout(probabilities, training=training)
        mixed = ops.einsum("bhqk,bkhd->bqhd", dropped, value)
        if relative is not None:
            mixed = mixed + ops.matmul(ops.transpose(dropped, (0, 2, 1, 3)), relative)
        return mixed, probabilities, scores

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **quantized_parts(self),
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "output_size": self.output_size,
            "position": keras.saving.serialize_keras_object(self.position),
            "dropout": self.rate,
            "initializer_range": self.initializer_range,
            "num_kv_heads": self.num_kv_heads,
            "key_size": self.key_size,
            "use_bias": self.use_bias,
            "scaled": self.scaled,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Attention":
        return cls(**{**config, "position": keras.saving.deserialize_keras_object(config["position"])})


def extended(cache: dict[str, Any], key: Any, value: Any, start: Any) -> dict[str, Any]:
    """A cache `(batch, length, heads, size)` with new keys and values in it from the place `start` on."""
    return {
        name: ops.slice_update(cache[name], (0, start, 0, 0), ops.cast(new, cache[name].dtype))
        for name, new in (("keys", key), ("values", value))
    }
