"""Where a token stands: a learned table, the same table read hierarchically, and rotary positions.

Sources: hierarchical decomposition 层次分解位置编码 (kexue.fm/archives/7947); rotary positions 旋转式位置编码, RoPE
(kexue.fm/archives/8265, arXiv:2104.09864).
"""

from typing import Any

import keras
import numpy as np
from keras import ops

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
            initializer=keras.initializers.TruncatedNormal(stddev=self.initializer_range),
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

    def call(self, x: Any, positions: Any) -> Any:
        size = x.shape[-1]
        kind = "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"
        frequencies = self.base ** (-np.arange(0, size, 2, dtype="float64") / size)
        angles = ops.cast(positions, kind)[..., None] * ops.convert_to_tensor(frequencies, kind)
        if len(angles.shape) == 2:
            angles = angles[None]
        cosine, sine = ops.cos(angles)[..., None, :], ops.sin(angles)[..., None, :]
        wide = ops.cast(x, kind)
        if self.interleaved:
            pairs = ops.reshape(wide, (*ops.shape(x)[:-1], size // 2, 2))
            one, two = pairs[..., 0], pairs[..., 1]
        else:
            one, two = wide[..., : size // 2], wide[..., size // 2 :]
        turned = [one * cosine - two * sine, two * cosine + one * sine]
        if self.interleaved:
            turned = ops.reshape(ops.stack(turned, axis=-1), ops.shape(x))
        else:
            turned = ops.concatenate(turned, axis=-1)
        return ops.cast(turned, x.dtype)

    def compute_output_shape(self, x_shape: Any, positions_shape: Any = None) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "base": self.base, "interleaved": self.interleaved}
