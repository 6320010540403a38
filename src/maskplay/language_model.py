"""An encoder with the heads it was pretrained with: the network inside every checkpoint.

Knows no files and no text: `maskplay.load` returns it together with its tokenizer.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from maskplay import masks
from maskplay.config import Config
from maskplay.encoder import Encoder
from maskplay.errors import UserError
from maskplay.layers.heads import MaskedTokens, NextSentence, Pooler

HEADS = ("pooler", "nsp", "mlm")


@keras.saving.register_keras_serializable(package="maskplay")
class LanguageModel(keras.Model):
    """An encoder and the heads that stand on it.

    Args:
        config: a `Config`, or its dictionary.
        heads: some of "pooler", "nsp" (needs the pooler) and "mlm".

    Call arguments: those of `Encoder`, and
        at: ints `(batch, positions)`: score masked tokens only at these places, which saves most of the head's work.

    Returns: a dictionary with "hidden" `(batch, length, hidden)` and, for the heads there are, "pooled"
    `(batch, hidden)`, "nsp" logits `(batch, 2)`, "mlm" logits `(batch, length or positions, vocab_size)`.

    Raises:
        UserError: an unknown head, or "nsp" without "pooler".

    Example:
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16)
        >>> model = LanguageModel(tiny)
        >>> {name: value.shape for name, value in model(ops.array([[5, 6, 7]])).items()}
        {'hidden': (1, 3, 8), 'pooled': (1, 8), 'nsp': (1, 2), 'mlm': (1, 3, 10)}
    """

    def __init__(self, config: Config | dict[str, Any], heads: Sequence[str] = HEADS, **kwargs: Any) -> None:
        kwargs.setdefault("name", "language_model")
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, Config) else Config.from_dict(config)
        if unknown := [head for head in heads if head not in HEADS]:
            raise UserError(f"expected heads among {', '.join(HEADS)}, found {', '.join(unknown)}")
        if "nsp" in heads and "pooler" not in heads:
            raise UserError("the head 'nsp' reads the pooler: ask for heads=('pooler', 'nsp', …)")
        self.heads = tuple(head for head in HEADS if head in heads)
        policy, size, spread = self.dtype_policy, config.size_of_embedding, config.initializer_range
        self.encoder = Encoder(config, dtype=policy)
        self.pooler = self.nsp = self.mlm = None
        if "pooler" in heads:
            self.pooler = Pooler(config.hidden_size, config.pooler_activation, spread, dtype=policy, name="pooler")
        if "nsp" in heads:
            self.nsp = NextSentence(dtype=policy, name="nsp")
        if "mlm" in heads:
            self.mlm = MaskedTokens(
                config.vocab_size, size, config.activation, config.norm_epsilon, spread, dtype=policy, name="mlm"
            )

    def build(self, input_shape: Any = None) -> None:
        if not self.encoder.built:
            self.encoder.build()
        hidden = (None, None, self.config.hidden_size)
        for head, shape in ((self.pooler, hidden), (self.nsp, hidden[1:]), (self.mlm, hidden)):
            if head is not None and not head.built:
                head.build(shape)
        self.built = True

    def call(
        self,
        tokens: Any,
        segments: Any = None,
        positions: Any = None,
        valid: Any = None,
        documents: Any = None,
        order: Any = None,
        mask: masks.Mask | None = masks.padding(),
        at: Any = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        hidden = self.encoder(
            tokens,
            segments=segments,
            positions=positions,
            valid=valid,
            documents=documents,
            order=order,
            mask=mask,
            training=training,
        )
        results = {"hidden": hidden}
        if self.pooler is not None:
            results["pooled"] = self.pooler(hidden)
        if self.nsp is not None:
            results["nsp"] = self.nsp(results["pooled"])
        if self.mlm is not None:
            results["mlm"] = self.score(hidden if at is None else ops.take_along_axis(hidden, at[..., None], axis=1))
        return results

    def score(self, hidden: Any) -> Any:
        """Masked-token logits `(batch, positions, vocab_size)` of hidden states `(batch, positions, hidden)`."""
        if self.mlm is None:
            raise UserError("this model has no masked-token head, so it cannot score tokens")
        return self.mlm(hidden, unembed=self.encoder.embedding.unembed)

    def compute_output_spec(self, tokens: Any, *facts: Any, at: Any = None, **others: Any) -> dict[str, Any]:
        # By hand: backends that infer shapes by tracing cannot take a rule as an argument.
        hidden = self.encoder.compute_output_spec(tokens)
        batch, length, _ = hidden.shape
        results = {"hidden": hidden}
        if self.pooler is not None:
            results["pooled"] = keras.KerasTensor((batch, self.config.hidden_size), dtype=self.compute_dtype)
        if self.nsp is not None:
            results["nsp"] = keras.KerasTensor((batch, 2), dtype=self.compute_dtype)
        if self.mlm is not None:
            shape = (batch, length if at is None else at.shape[1], self.config.vocab_size)
            # The token table is not rounded to half precision, so neither are the scores.
            dtype = keras.backend.result_type(self.compute_dtype, self.variable_dtype)
            results["mlm"] = keras.KerasTensor(shape, dtype=dtype)
        return results

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict(), "heads": list(self.heads)}


def named_weights(layer: keras.layers.Layer) -> dict[str, Any]:
    """A built layer's weights by their path below it, such as `block_0/attention/query/kernel`.

    Example:
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16)
        >>> model = LanguageModel(tiny, heads=["mlm"])
        >>> model.build()
        >>> [name for name in named_weights(model) if name.startswith("mlm")]
        ['mlm/bias', 'mlm/transform/kernel', 'mlm/transform/bias', 'mlm/norm/gamma', 'mlm/norm/beta']
    """
    return {weight.path.removeprefix(f"{layer.path}/"): weight for weight in layer.weights}
