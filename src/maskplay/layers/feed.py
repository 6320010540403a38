"""The feed-forward sub-layer: widen, activate, narrow."""

from typing import Any

import keras
from keras import ops

from maskplay.layers.activation import activation


@keras.saving.register_keras_serializable(package="maskplay")
class FeedForward(keras.layers.Layer):
    """outer(act(inner(x))), position by position.

    Args:
        inner_size: width in the middle.
        activation: one of `config.ACTIVATIONS`.
        initializer_range: standard deviation of fresh kernels.

    Shapes: `(…, hidden)` to the same.

    Example:
        >>> FeedForward(16)(ops.ones((1, 3, 8))).shape
        (1, 3, 8)
    """

    def __init__(
        self, inner_size: int, activation: str = "gelu", initializer_range: float = 0.02, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.inner_size = inner_size
        self.activation = activation
        self.initializer_range = initializer_range

    def build(self, input_shape: Any) -> None:
        for name, width in (("inner", self.inner_size), ("outer", input_shape[-1])):
            kernel = keras.initializers.TruncatedNormal(stddev=self.initializer_range)
            setattr(
                self, name, keras.layers.Dense(width, kernel_initializer=kernel, dtype=self.dtype_policy, name=name)
            )
        self.inner.build(input_shape)
        self.outer.build((*input_shape[:-1], self.inner_size))

    def call(self, x: Any) -> Any:
        # Flat: under JAX a kernel's gradient over two token axes is a transposing copy and a slower product.
        flat = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(self.outer(activation(self.activation)(self.inner(flat))), ops.shape(x))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "inner_size": self.inner_size,
            "activation": self.activation,
            "initializer_range": self.initializer_range,
        }
