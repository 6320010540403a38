"""From token ids to vectors: token (+ segment) (+ position), normalized, dropped out, projected when factorised."""

from typing import Any

import keras
from keras import ops

from maskplay.config import TABLES, Config
from maskplay.errors import UserError
from maskplay.layers.initializer import Normal
from maskplay.layers.norm import conditioned, norm_of
from maskplay.layers.position import LearnedPosition
from maskplay.layers.quantized import quantized_parts


@keras.saving.register_keras_serializable(package="maskplay")
class Embedding(keras.layers.Layer):
    """The sum of a token's vectors, finished as `config.embedding` says.

    Args:
        config: a `Config`, or its dictionary.

    Call arguments: tokens, segments (default all 0) and positions (default 0, 1, …), ints `(batch, length)`, and a
        condition `(batch, condition_size)` where the config has one.

    Returns: `(batch, length, hidden_size)`.

    Raises:
        UserError: more tokens than the model has positions for.

    Example:
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16)
        >>> Embedding(tiny)(ops.ones((1, 3), "int32")).shape
        (1, 3, 8)
    """

    def __init__(self, config: Config | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, Config) else Config.from_dict(config)
        policy, size = self.dtype_policy, config.size_of_embedding
        # Where vectors are added: behind the projection when that comes first.
        self.width = config.hidden_size if config.embedding == "projected_first" else size
        self.token = keras.layers.ReversibleEmbedding(
            config.vocab_size, size, embeddings_initializer=_normal(config), dtype=policy, name="token"
        )
        self.segment: Any = None
        self.position: Any = None
        self.norm: Any = None
        self.projection: Any = None
        if config.num_segments:
            self.segment = keras.layers.Embedding(
                config.num_segments, self.width, embeddings_initializer=_normal(config), dtype=policy, name="segment"
            )
        if config.position in TABLES:
            self.position = LearnedPosition(
                config.max_positions,
                self.width,
                hierarchical=config.position == "hierarchical",
                initializer_range=config.initializer_range,
                dtype=policy,
                name="position",
            )
        if config.embedding != "plain":
            self.norm = norm_of(config, dtype=policy, name="norm")
        self.dropout = keras.layers.Dropout(config.dropout, dtype=policy, name="dropout")
        if config.embedding_size is not None:
            self.projection = keras.layers.Dense(
                config.hidden_size,
                use_bias=config.has_bias and config.embedding != "projected_first",
                kernel_initializer=_normal(config),
                dtype=policy,
                name="projection",
            )

    def build(self, input_shape: Any = None) -> None:
        for layer in (self.token, self.segment, self.position):
            if layer is not None:
                layer.build((None, None))
        if self.norm is not None:
            self.norm.build((None, None, self.width))
        if self.projection is not None:
            self.projection.build((None, None, self.config.size_of_embedding))

    def call(self, tokens: Any, segments: Any = None, positions: Any = None, condition: Any = None) -> Any:
        total = self.token(tokens)
        first = self.config.embedding == "projected_first"
        if first:
            total = self.projection(total)
        if self.segment is not None:
            total = total + self.segment(ops.zeros_like(tokens) if segments is None else segments)
        elif self.config.num_segments is None and segments is not None:
            total = total + self.token(segments)
        if self.position is not None:
            if positions is None:
                length, longest = tokens.shape[1], self.config.longest
                if length is not None and longest is not None and length > longest:
                    raise UserError(
                        f"expected at most {longest} tokens (the model's positions), found {length}: cut the text, or "
                        "load the checkpoint with position='hierarchical', or with more max_positions"
                    )
                positions = ops.arange(ops.shape(tokens)[1])
            where = self.position(positions + self.config.first_position)
            total = total + (where[None] if len(where.shape) == 2 else where)
        if self.norm is not None:
            total = conditioned(self.norm, total, condition)
        total = self.dropout(total)
        return total if self.projection is None or first else self.projection(total)

    def unembed(self, x: Any) -> Any:
        """Scores over the vocabulary with the token table, tied: `(…, embedding)` to `(…, vocab_size)`.

        Where tokens are projected first, x is `(…, hidden)` and goes back through the same projection.
        """
        return self.token(self.before_table(x), reverse=True)

    def before_table(self, x: Any) -> Any:
        """What is compared with the token table itself: `(…, embedding or hidden)` to `(…, embedding)`."""
        if self.config.embedding != "projected_first":
            return x
        # The kernel as the layer applies it, also when it is quantized or has LoRA beside it.
        kernel = self.projection(ops.eye(self.config.size_of_embedding, dtype=x.dtype))
        return ops.matmul(x, ops.transpose(ops.cast(kernel, x.dtype)))

    @property
    def table(self) -> Any:
        """The token table `(vocab_size, embedding)`, LoRA included.

        Raises:
            UserError: it is quantized.
        """
        if self.token.quantization_mode is not None:
            raise UserError("the token table is quantized: train first, quantize then")
        return ops.convert_to_tensor(self.token.embeddings)

    def compute_output_shape(self, tokens_shape: Any, **others: Any) -> Any:
        return (*tokens_shape, self.config.hidden_size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **quantized_parts(self), "config": self.config.to_dict()}


def _normal(config: Config) -> Normal:  # one for each table: what one draws it draws again
    return Normal(stddev=config.initializer_range)
