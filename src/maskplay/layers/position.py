"""Where a token stands: a learned table, the same table read hierarchically, rotary positions, and relative ones.

Sources: hierarchical decomposition 层次分解位置编码 (kexue.fm/archives/7947); rotary positions 旋转式位置编码, RoPE
(kexue.fm/archives/8265, arXiv:2104.09864); clipped relative positions (arXiv:1803.02155) with the sinusoids of NEZHA
(arXiv:1909.00204); T5's buckets (arXiv:1910.10683).
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from maskplay.layers.initializer import Normal

ALPHA = 0.4  # the post's weight of the first digit


@keras.saving.register_keras_serializable(package="maskplay")
class LearnedPosition(keras.layers.Layer):
    """A table of position vectors; with `hierarchical=True` it serves `rows`² places instead of `rows`.

    Place i·rows + j gets alpha·u_i + (1 - alpha)·u_j with u = (p - alpha·p_0) / (1 - alpha) and alpha = 0.4, so the
    first `rows` places keep exactly the vectors of the table.

    Args:
        rows: size of the table.
        size: width of a vector.
        hierarchical: read places beyond the table as two digits.
        initializer_range: standard deviation of fresh vectors.

    Shapes: ints `(length,)` or `(batch, length)` to `(…, length, size)`.

    Example:
        >>> LearnedPosition(4, 8, hierarchical=True)(ops.arange(16)).shape
        (16, 8)
    """

    def __init__(
        self, rows: int, size: int, hierarchical: bool = False, initializer_range: float = 0.02, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rows = rows
        self.size = size
        self.hierarchical = hierarchical
        self.initializer_range = initializer_range

    def build(self, input_shape: Any = None) -> None:
        self.embeddings = self.add_weight(
            shape=(self.rows, self.size),
            initializer=Normal(stddev=self.initializer_range),
            name="embeddings",
        )

    def call(self, positions: Any) -> Any:
        table = ops.convert_to_tensor(self.embeddings)
        if not self.hierarchical:
            return ops.take(table, positions, axis=0)
        digits = (table - ALPHA * table[:1]) / (1 - ALPHA)
        first = ops.take(digits, positions // self.rows, axis=0)
        second = ops.take(digits, positions % self.rows, axis=0)
        return ALPHA * first + (1 - ALPHA) * second

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape, self.size)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rows": self.rows,
            "size": self.size,
            "hierarchical": self.hierarchical,
            "initializer_range": self.initializer_range,
        }


@keras.saving.register_keras_serializable(package="maskplay")
class Rotary(keras.layers.Layer):
    """Rotate channel pairs by an angle proportional to the place, so that a product of two depends on their distance.

    Pair i of a vector of size d at place m turns by m · base^(-2i/d). Angles are computed in float32 (float64 for
    float64 input) whatever the policy.

    Args:
        base: 10000 in the paper.
        interleaved: pairs are channels (2i, 2i+1), as in RoFormer; False: channels (i, i + d/2), as in LLaMA.

    Shapes: `(batch, length, heads, size)` with an even size, places `(length,)` or `(batch, length)`; to the same.

    Example:
        >>> Rotary()(ops.ones((1, 3, 2, 4)), ops.arange(3)).shape
        (1, 3, 2, 4)
    """

    def __init__(self, base: float = 10000.0, interleaved: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.base = base
        self.interleaved = interleaved
        self.built = True  # no weights; quantising a model asks this of every layer

    def call(self, x: Any, positions: Any) -> Any:
        size = x.shape[-1]
        kind = "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"
        frequencies = self.base ** (-np.arange(0, size, 2, dtype="float64") / size)
        angles = ops.cast(positions, kind)[..., None] * ops.convert_to_tensor(frequencies, kind)
        if len(angles.shape) == 2:
            angles = angles[None]
        # The two numbers that turn together, along an axis of their own: exchanged, one with the other sign.
        within = -1 if self.interleaved else -2
        shape = (size // 2, 2) if self.interleaved else (2, size // 2)
        pairs = ops.reshape(ops.cast(x, kind), (*ops.shape(x)[:-1], *shape))
        angles = ops.expand_dims(angles[..., None, :], within)
        signs = ops.convert_to_tensor([[-1.0, 1.0]] if self.interleaved else [[-1.0], [1.0]], kind)
        turned = pairs * ops.cos(angles) + ops.flip(pairs, axis=within) * (ops.sin(angles) * signs)
        turned = ops.reshape(turned, ops.shape(x))
        return ops.cast(turned, x.dtype)

    def compute_output_shape(self, x_shape: Any, positions_shape: Any = None) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "base": self.base, "interleaved": self.interleaved}


@keras.saving.register_keras_serializable(package="maskplay")
class Places(keras.layers.Layer):
    """0, 1, 2, … for as many tokens as there are: `(batch, length, …)` to ints `(1, length)`.

    Example:
        >>> Places()(ops.ones((2, 3))).tolist()
        [[0, 1, 2]]
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True

    def call(self, tokens: Any) -> Any:
        return ops.arange(ops.shape(tokens)[1], dtype="int32")[None]

    def compute_output_spec(self, tokens: Any) -> Any:
        return keras.KerasTensor((1, tokens.shape[1]), dtype="int32")

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return super().get_config()  # written out: see NextSentence


def distances(queries: Any, keys: Any) -> Any:
    """Key place minus query place: positive for keys that come later.

    Shapes: ints `(length,)` or `(batch, length)` to `(1 or batch, queries, keys)`.

    Example:
        >>> distances(ops.arange(2), ops.arange(3)).tolist()
        [[[0, 1, 2], [-1, 0, 1]]]
    """
    queries, keys = (x[None] if len(x.shape) == 1 else x for x in (queries, keys))
    return ops.cast(keys[:, None, :], "int32") - ops.cast(queries[:, :, None], "int32")


@keras.saving.register_keras_serializable(package="maskplay")
class RelativeSinusoids(keras.layers.Layer):
    """A fixed vector for every distance, alike beyond a limit: sines and cosines interleaved (NEZHA).

    Args:
        limit: the greatest distance told apart.
        size: width of a vector, even.

    Shapes: distances `(batch, queries, keys)` to `(batch, queries, keys, size)`.

    Example:
        >>> RelativeSinusoids(64, 8)(distances(ops.arange(3), ops.arange(3))).shape
        (1, 3, 3, 8)
    """

    def __init__(self, limit: int, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limit = limit
        self.size = size
        self.built = True

    def call(self, distance: Any) -> Any:
        # The table's row r stands for the distance r - limit, but its angles are those of the place r.
        angles = np.arange(2 * self.limit + 1)[:, None] * 10000.0 ** (-np.arange(0, self.size, 2) / self.size)
        table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(-1, self.size)
        rows = ops.clip(distance, -self.limit, self.limit) + self.limit
        return ops.take(ops.convert_to_tensor(table, self.compute_dtype), rows, axis=0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape, self.size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "limit": self.limit, "size": self.size}


@keras.saving.register_keras_serializable(package="maskplay")
class RelativeBias(keras.layers.Layer):
    """A learned number per head for every bucket of distances, to be added to attention scores (T5).

    Half of the buckets hold one distance each, the others grow with its logarithm up to `max_distance`.

    Args:
        num_heads: number of heads.
        num_buckets: rows of the table.
        max_distance: everything at least so far away is alike.
        two_way: keys after the query have buckets of their own; False: they share that of distance 0.
        initializer_range: standard deviation of fresh numbers.

    Shapes: distances `(batch, queries, keys)` to `(batch, heads, queries, keys)`.

    Example:
        >>> RelativeBias(2).buckets(ops.array([[[-200, -8, 0, 1, 200]]])).tolist()
        [[[15, 8, 0, 17, 31]]]
    """

    def __init__(
        self,
        num_heads: int,
        num_buckets: int = 32,
        max_distance: int = 128,
        two_way: bool = True,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.two_way = two_way
        self.initializer_range = initializer_range

    def build(self, input_shape: Any = None) -> None:
        self.embeddings = self.add_weight(
            shape=(self.num_buckets, self.num_heads),
            initializer=Normal(stddev=self.initializer_range),
            name="embeddings",
        )

    def buckets(self, distance: Any) -> Any:
        """The bucket of each distance (key minus query), ints of the same shape."""
        count = self.num_buckets // 2 if self.two_way else self.num_buckets
        back = -ops.cast(distance, "int32")
        offset = ops.where(back < 0, count, 0) if self.two_way else 0
        back = ops.abs(back) if self.two_way else ops.maximum(back, 0)
        exact = count // 2
        # float32 as the original: in other precisions a distance on a border may fall on its other side.
        far = ops.log(ops.cast(ops.maximum(back, 1), "float32") / exact) / math.log(self.max_distance / exact)
        far = ops.minimum(exact + ops.cast(far * (count - exact), "int32"), count - 1)
        return offset + ops.where(back < exact, back, far)

    def call(self, distance: Any) -> Any:
        table = ops.cast(ops.convert_to_tensor(self.embeddings), self.compute_dtype)
        return ops.transpose(ops.take(table, self.buckets(distance), axis=0), (0, 3, 1, 2))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.num_heads, *input_shape[1:])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_buckets": self.num_buckets,
            "max_distance": self.max_distance,
            "two_way": self.two_way,
            "initializer_range": self.initializer_range,
        }
