"""Layer normalization, optionally conditioned on a vector, and its simplification that only divides by the length.

Sources: "Layer Normalization" (arXiv:1607.06450); the form with a condition, 条件Layer Normalization
(kexue.fm/archives/7124); "Root Mean Square Layer Normalization" (arXiv:1910.07467).
"""

from typing import Any

import keras
from keras import ops

from maskplay.config import Config
from maskplay.errors import UserError


@keras.saving.register_keras_serializable(package="maskplay")
class LayerNorm(keras.layers.Layer):
    """Normalize the last axis, then scale by gamma and shift by beta; a condition may move both.

    With a condition c, gamma becomes gamma + W c and beta becomes beta + V c, W and V starting at zero: a pretrained
    model is unchanged until training moves them. Statistics are taken in float32 whatever the policy.

    Args:
        epsilon: added to the variance.
        condition_size: width of the condition vector, None for plain layer normalization.

    Shapes: `(…, features)` to the same; condition `(batch, condition_size)`.

    Example:
        >>> LayerNorm(epsilon=1e-12)(ops.ones((2, 3, 8))).shape
        (2, 3, 8)
    """

    def __init__(self, epsilon: float = 1e-12, condition_size: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.condition_size = condition_size

    def build(self, input_shape: Any) -> None:
        features = input_shape[-1]
        self.gamma = self.add_weight(shape=(features,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(features,), initializer="zeros", name="beta")
        if self.condition_size is not None:
            shape = (self.condition_size, features)
            self.gamma_kernel = self.add_weight(shape=shape, initializer="zeros", name="gamma_kernel")
            self.beta_kernel = self.add_weight(shape=shape, initializer="zeros", name="beta_kernel")

    def call(self, x: Any, condition: Any = None) -> Any:
        if (condition is None) != (self.condition_size is None):
            expected = "none" if self.condition_size is None else f"(batch, {self.condition_size})"
            found = "none" if condition is None else tuple(condition.shape)
            raise UserError(f"{self.name}: expected a condition vector: {expected}, found {found}")
        kind = "float64" if self.compute_dtype == "float64" else "float32"
        x, gamma, beta = (ops.cast(value, kind) for value in (x, self.gamma, self.beta))
        if condition is None:
            return ops.cast(ops.layer_normalization(x, gamma, beta, epsilon=self.epsilon), self.compute_dtype)
        condition = ops.cast(condition, kind)
        shape = (-1, *(1,) * (len(x.shape) - 2), x.shape[-1])
        gamma = gamma + ops.reshape(ops.matmul(condition, ops.cast(self.gamma_kernel, kind)), shape)
        beta = beta + ops.reshape(ops.matmul(condition, ops.cast(self.beta_kernel, kind)), shape)
        return ops.cast(ops.layer_normalization(x, epsilon=self.epsilon) * gamma + beta, self.compute_dtype)

    def compute_output_shape(self, x_shape: Any, condition_shape: Any = None) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon, "condition_size": self.condition_size}


@keras.saving.register_keras_serializable(package="maskplay")
class RMSNorm(keras.layers.Layer):
    """Divide the last axis by its root mean square, then scale by gamma.

    The mean square is taken in float32 whatever the policy.

    Args:
        epsilon: added to the mean square.
        scale: multiply by a learned gamma (T5, LLaMA); False: no parameters (RoFormerV2, GAU-α).

    Shapes: `(…, features)` to the same.

    Example:
        >>> [round(float(x), 4) for x in RMSNorm(0.0)(ops.array([[3.0, 4.0]]))[0]]
        [0.8485, 1.1314]
    """

    def __init__(self, epsilon: float = 1e-6, scale: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.scale = scale

    def build(self, input_shape: Any) -> None:
        if self.scale:
            self.gamma = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gamma")

    def call(self, x: Any) -> Any:
        kind = "float64" if self.compute_dtype == "float64" else "float32"
        x = ops.cast(x, kind)
        x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(x * ops.cast(self.gamma, kind) if self.scale else x, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon, "scale": self.scale}


def conditioned(norm: keras.layers.Layer, x: Any, condition: Any) -> Any:
    """What a normalization makes of x, under a condition if there is one: not every kind takes it."""
    return norm(x) if condition is None else norm(x, condition)


def norm_of(config: Config, **kwargs: Any) -> keras.layers.Layer:
    """The normalization that a config names; keyword arguments are Keras' own (`name`, `dtype`).

    Example:
        >>> norm_of(Config(vocab_size=10, norm="unit"), name="norm").scale
        False
    """
    if config.norm == "layer":
        return LayerNorm(config.norm_epsilon, config.condition_size, **kwargs)
    return RMSNorm(config.norm_epsilon, scale=config.norm == "rms", **kwargs)
