"""What stands on an encoder: BERT's pooler, its next-sentence classifier and its masked-token scores, ELECTRA's
discriminator, and a language model's plain scores.

Scores are logits. Sources: BERT (arXiv:1810.04805), ELECTRA (arXiv:2003.10555).
"""

from typing import Any

import keras
from keras import ops

from maskplay.layers.activation import activation
from maskplay.layers.initializer import Normal
from maskplay.layers.norm import LayerNorm
from maskplay.layers.quantized import quantized_parts


@keras.saving.register_keras_serializable(package="maskplay")
class Pooler(keras.layers.Layer):
    """act(W h) of the first token: `(batch, length, hidden)` to `(batch, hidden)`.

    Args:
        size: width of the result.
        activation: "tanh" (BERT) or "linear" (SimBERT).
        initializer_range: standard deviation of the fresh kernel.

    Example:
        >>> Pooler(8)(ops.ones((2, 3, 8))).shape
        (2, 8)
    """

    def __init__(self, size: int, activation: str = "tanh", initializer_range: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.activation = activation
        self.initializer_range = initializer_range
        self.dense = keras.layers.Dense(
            size,
            kernel_initializer=Normal(stddev=initializer_range),
            dtype=self.dtype_policy,
            name="dense",
        )

    def build(self, input_shape: Any) -> None:
        self.dense.build((input_shape[0], input_shape[-1]))

    def call(self, hidden: Any) -> Any:
        return activation(self.activation)(self.dense(hidden[:, 0]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.size)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **quantized_parts(self),
            "size": self.size,
            "activation": self.activation,
            "initializer_range": self.initializer_range,
        }


@keras.saving.register_keras_serializable(package="maskplay")
class NextSentence(keras.layers.Layer):
    """Does the second text follow the first? Pooled `(batch, hidden)` to logits `(batch, 2)`; index 0 = it does.

    Example:
        >>> NextSentence()(ops.ones((2, 8))).shape
        (2, 2)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2, dtype=self.dtype_policy, name="dense")

    def build(self, input_shape: Any) -> None:
        self.dense.build(input_shape)

    def call(self, pooled: Any) -> Any:
        return self.dense(pooled)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], 2)

    def get_config(self) -> dict[str, Any]:
        # Written out: Keras refuses to record for itself that a dtype policy was given.
        return {**super().get_config(), **quantized_parts(self)}


@keras.saving.register_keras_serializable(package="maskplay")
class MaskedTokens(keras.layers.Layer):
    """Which token stands here? Transform, normalize, compare with the encoder's own token table, add a bias.

    The table is tied, not copied: `call` takes the encoder's `Embedding` layer's `unembed`.

    Args:
        vocab_size: number of tokens.
        size: width of the token vectors.
        activation: of the transform, one of `config.ACTIVATIONS`.
        norm_epsilon: of its layer normalization.
        initializer_range: standard deviation of the fresh kernel.
        condition_size: width of the vector that conditions it, None = no condition.

    Shapes: `(batch, length, hidden)` to logits `(batch, length, vocab_size)`; condition `(batch, condition_size)`.

    Example:
        >>> table = keras.layers.ReversibleEmbedding(10, 8)
        >>> table.build()
        >>> MaskedTokens(10, 8)(ops.ones((1, 3, 8)), unembed=lambda x: table(x, reverse=True)).shape
        (1, 3, 10)
    """

    def __init__(
        self,
        vocab_size: int,
        size: int,
        activation: str = "gelu",
        norm_epsilon: float = 1e-12,
        initializer_range: float = 0.02,
        condition_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.size = size
        self.activation = activation
        self.norm_epsilon = norm_epsilon
        self.initializer_range = initializer_range
        self.transform = keras.layers.Dense(
            size,
            kernel_initializer=Normal(stddev=initializer_range),
            dtype=self.dtype_policy,
            name="transform",
        )
        self.condition_size = condition_size
        self.norm = LayerNorm(norm_epsilon, condition_size, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any) -> None:
        self.transform.build(input_shape)
        self.norm.build((*input_shape[:-1], self.size))
        self.bias = self.add_weight(shape=(self.vocab_size,), initializer="zeros", name="bias")

    def transformed(self, hidden: Any, condition: Any = None) -> Any:
        """What is compared with the table: `(batch, length, hidden)` to `(batch, length, size)`."""
        flat = ops.reshape(hidden, (-1, hidden.shape[-1]))  # as in `FeedForward`
        inner = activation(self.activation)(self.transform(flat))
        if condition is None:
            return ops.reshape(self.norm(inner), (*ops.shape(hidden)[:-1], self.size))
        return self.norm(ops.reshape(inner, (-1, ops.shape(hidden)[1], self.size)), condition)

    def call(self, hidden: Any, unembed: Any, condition: Any = None) -> Any:
        inner = self.transformed(hidden, condition)
        scores = unembed(ops.reshape(inner, (-1, self.size)))
        scores = scores + ops.cast(self.bias, scores.dtype)
        return ops.reshape(scores, (*ops.shape(hidden)[:-1], self.vocab_size))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **quantized_parts(self),
            "vocab_size": self.vocab_size,
            "size": self.size,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "initializer_range": self.initializer_range,
            "condition_size": self.condition_size,
        }


@keras.saving.register_keras_serializable(package="maskplay")
class ReplacedTokens(keras.layers.Layer):
    """Was this token replaced? Transform, then one number: `(batch, length, hidden)` to logits `(batch, length)`.

    Args:
        activation: of the transform, one of `config.ACTIVATIONS`.
        initializer_range: standard deviation of fresh kernels.

    Example:
        >>> ReplacedTokens()(ops.ones((2, 3, 8))).shape
        (2, 3)
    """

    def __init__(self, activation: str = "gelu", initializer_range: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation
        self.initializer_range = initializer_range

    def build(self, input_shape: Any) -> None:
        for name, size in (("transform", input_shape[-1]), ("output", 1)):
            kernel = Normal(stddev=self.initializer_range)
            dense = keras.layers.Dense(size, kernel_initializer=kernel, dtype=self.dtype_policy, name=name)
            dense.build(input_shape)
            setattr(self, f"{name}_dense", dense)

    def call(self, hidden: Any) -> Any:
        return self.output_dense(activation(self.activation)(self.transform_dense(hidden)))[..., 0]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[:-1]

    def get_config(self) -> dict[str, Any]:
        config = {"activation": self.activation, "initializer_range": self.initializer_range}
        return {**super().get_config(), **quantized_parts(self), **config}


@keras.saving.register_keras_serializable(package="maskplay")
class TokenScores(keras.layers.Layer):
    """Which token comes (or stands) here? The product with a table, nothing else.

    Args:
        vocab_size: number of tokens.
        tied: the table is the encoder's own, which `call` takes as its `Embedding` layer's `unembed`; False: a kernel.
        scale: factor on the hidden states.
        initializer_range: standard deviation of the fresh kernel.

    Shapes: `(batch, length, hidden)` to logits `(batch, length, vocab_size)`.

    Example:
        >>> TokenScores(10, tied=False)(ops.ones((1, 3, 8))).shape
        (1, 3, 10)
    """

    def __init__(
        self, vocab_size: int, tied: bool = True, scale: float = 1.0, initializer_range: float = 0.02, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.tied = tied
        self.scale = scale
        self.initializer_range = initializer_range

    def build(self, input_shape: Any) -> None:
        if not self.tied:
            self.output_dense = keras.layers.Dense(
                self.vocab_size,
                use_bias=False,
                kernel_initializer=Normal(stddev=self.initializer_range),
                dtype=self.dtype_policy,
                name="output",
            )
            self.output_dense.build(input_shape)

    def call(self, hidden: Any, unembed: Any = None) -> Any:
        flat = ops.reshape(hidden, (-1, hidden.shape[-1])) * self.scale  # flat as in `FeedForward`
        scores = unembed(flat) if self.tied else self.output_dense(flat)
        return ops.reshape(scores, (*ops.shape(hidden)[:-1], self.vocab_size))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **quantized_parts(self),
            "vocab_size": self.vocab_size,
            "tied": self.tied,
            "scale": self.scale,
            "initializer_range": self.initializer_range,
        }
