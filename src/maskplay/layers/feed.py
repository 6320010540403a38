"""The feed-forward sub-layer: widen, activate (or gate), narrow. Gates: "GLU Variants" (arXiv:2002.05202)."""

from typing import Any

import keras
from keras import ops

from maskplay.config import ACTIVATIONS, GATED
from maskplay.errors import UserError
from maskplay.layers.activation import activation
from maskplay.layers.initializer import Normal
from maskplay.layers.quantized import quantized_parts


@keras.saving.register_keras_serializable(package="maskplay")
class FeedForward(keras.layers.Layer):
    """outer(act(inner(x))), position by position; gated: outer(act(gate(x)) · inner(x)).

    Args:
        inner_size: width in the middle.
        activation: one of `config.ACTIVATIONS`, or of them with "gated_" in front.
        use_bias: whether the linear maps have a bias.
        initializer_range: standard deviation of fresh kernels.

    Shapes: `(…, hidden)` to the same.

    Raises:
        UserError: another activation.

    Example:
        >>> FeedForward(16)(ops.ones((1, 3, 8))).shape
        (1, 3, 8)
    """

    def __init__(
        self,
        inner_size: int,
        activation: str = "gelu",
        initializer_range: float = 0.02,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if activation not in ACTIVATIONS + GATED:
            known = ", ".join(ACTIVATIONS + GATED)
            raise UserError(f"feed-forward activation: expected one of {known}, found {activation!r:.60}")
        self.inner_size = inner_size
        self.activation = activation
        self.initializer_range = initializer_range
        self.use_bias = use_bias

    @property
    def gated(self) -> bool:
        return self.activation.startswith("gated_")

    def build(self, input_shape: Any) -> None:
        for name in ("gate", "inner", "outer") if self.gated else ("inner", "outer"):
            dense = keras.layers.Dense(
                input_shape[-1] if name == "outer" else self.inner_size,
                use_bias=self.use_bias,
                kernel_initializer=Normal(stddev=self.initializer_range),
                dtype=self.dtype_policy,
                name=name,
            )
            dense.build((*input_shape[:-1], self.inner_size) if name == "outer" else input_shape)
            setattr(self, name, dense)

    def call(self, x: Any) -> Any:
        # Flat: under JAX a kernel's gradient over two token axes is a transposing copy and a slower product.
        flat = ops.reshape(x, (-1, x.shape[-1]))
        act = activation(self.activation.removeprefix("gated_"))
        middle = act(self.gate(flat)) * self.inner(flat) if self.gated else act(self.inner(flat))
        return ops.reshape(self.outer(middle), ops.shape(x))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **quantized_parts(self),
            "inner_size": self.inner_size,
            "activation": self.activation,
            "initializer_range": self.initializer_range,
            "use_bias": self.use_bias,
        }
