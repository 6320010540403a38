"""What stands on an encoder: BERT's pooler, its next-sentence classifier and its masked-token scores.

Scores are logits. Source: BERT (arXiv:1810.04805).
"""

from typing import Any

import keras
from keras import ops

from maskplay.layers.activation import activation
from maskplay.layers.norm import LayerNorm


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
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=initializer_range),
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

    Shapes: `(batch, length, hidden)` to logits `(batch, length, vocab_size)`.

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
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=initializer_range),
            dtype=self.dtype_policy,
            name="transform",
        )
        self.norm = LayerNorm(norm_epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any) -> None:
        self.transform.build(input_shape)
        self.norm.build((*input_shape[:-1], self.size))
        self.bias = self.add_weight(shape=(self.vocab_size,), initializer="zeros", name="bias")

    def call(self, hidden: Any, unembed: Any) -> Any:
        flat = ops.reshape(hidden, (-1, hidden.shape[-1]))  # as in `FeedForward`
        scores = unembed(self.norm(activation(self.activation)(self.transform(flat))))
        scores = scores + ops.cast(self.bias, scores.dtype)
        return ops.reshape(scores, (*ops.shape(hidden)[:-1], self.vocab_size))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "size": self.size,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "initializer_range": self.initializer_range,
        }
