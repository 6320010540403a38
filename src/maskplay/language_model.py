"""An encoder with the heads it was pretrained with: the network inside every checkpoint.

Knows no files and no text: `maskplay.load` returns it together with its tokenizer.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from maskplay import _backend, masks
from maskplay.config import Config
from maskplay.encoder import Encoder, as_array, as_ids
from maskplay.errors import UserError
from maskplay.layers.heads import MaskedTokens, NextSentence, Pooler, ReplacedTokens, TokenScores
from maskplay.layers.quantized import quantized_parts
from maskplay.losses import token_losses
from maskplay.model import Model

HEADS = ("pooler", "nsp", "mlm", "rtd", "lm")
SCORES = ("mlm", "lm")  # heads that score tokens


def known_heads(heads: Iterable[str]) -> tuple[str, ...]:
    """Names of heads as a tuple; `UserError` where one is unknown."""
    if isinstance(heads, str):
        raise UserError(f"heads: expected a list such as ['mlm'], found the text {heads!r:.40}")
    heads = tuple(heads)
    if unknown := [head for head in heads if head not in HEADS]:
        raise UserError(f"expected heads among {', '.join(HEADS)}, found {', '.join(map(str, unknown))}")
    return heads


@keras.saving.register_keras_serializable(package="maskplay")
class LanguageModel(Model):
    """An encoder and the heads that stand on it; where the config has decoder layers, a decoder between them.

    Args:
        config: a `Config`, or its dictionary.
        heads: some of "pooler", "nsp" (needs the pooler), "mlm" (BERT's masked-token scores), "rtd" (ELECTRA's
            replaced-token detection) and "lm" (plain scores, tied or not: GPT, T5, LLaMA, RoFormerV2).

    Call arguments, those that are arrays also in one dictionary (as `fit` hands them on): those of `Encoder`, and
        at: ints `(batch, positions)`: score tokens only at these places, which saves most of the head's work.
        labels: ints `(batch, length or positions)`, -100 for none: instead of logits, the loss of each; see below.
        decoder_tokens: ints `(batch, target)`, where there is a decoder; its output is then what heads stand on.
        decoder_mask: who sees whom among them, default `masks.causal()`.
        decoder_valid: bools `(batch, target)`, for a `decoder_mask` with padding.

    Returns: a dictionary with "hidden" `(batch, length, hidden)` and, for the heads there are, "pooled"
    `(batch, hidden)`, "nsp" logits `(batch, 2)`, "mlm" or "lm" logits `(batch, length or positions, vocab_size)`, "rtd"
    logits `(batch, length)`; with a decoder also "encoded", the encoder's output. With labels "mlm" or "lm" is `(batch,
    length or positions, 2)`, found without holding the logits: see `maskplay.losses.token_losses`.

    Raises:
        UserError: an unknown head, "nsp" without "pooler", a tied "lm" over a token table of another width, no decoder
            tokens where there is a decoder, or places that no token has.

    Example:
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16)
        >>> model = LanguageModel(tiny)
        >>> {name: value.shape for name, value in model(ops.array([[5, 6, 7]])).items()}
        {'hidden': (1, 3, 8), 'pooled': (1, 8), 'nsp': (1, 2), 'mlm': (1, 3, 10)}
    """

    def __init__(
        self, config: Config | dict[str, Any], heads: Sequence[str] = ("pooler", "nsp", "mlm"), **kwargs: Any
    ) -> None:
        kwargs.setdefault("name", "language_model")
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, Config) else Config.from_dict(config)
        heads = known_heads(heads)
        if "nsp" in heads and "pooler" not in heads:
            raise UserError("the head 'nsp' reads the pooler: ask for heads=('pooler', 'nsp', …)")
        if config.num_decoder_layers and set(heads) - {"lm"}:
            raise UserError(f"expected no head but 'lm' on a decoder, found {', '.join(heads)}")
        self.heads = tuple(head for head in HEADS if head in heads)
        policy, spread = self.dtype_policy, config.initializer_range
        self.encoder = Encoder(config, dtype=policy)
        self.decoder = self.pooler = self.nsp = self.mlm = self.rtd = self.lm = None
        if config.num_decoder_layers:
            own = config.but(num_layers=config.num_decoder_layers, num_decoder_layers=0)
            self.decoder = Encoder(own, cross=True, embedding=self.encoder.embedding, dtype=policy)
        if "pooler" in heads:
            self.pooler = Pooler(config.hidden_size, config.pooler_activation, spread, dtype=policy, name="pooler")
        if "nsp" in heads:
            self.nsp = NextSentence(dtype=policy, name="nsp")
        if "mlm" in heads:
            self.mlm = MaskedTokens(
                config.vocab_size,
                self.encoder.embedding.width,
                config.activation.removeprefix("gated_"),
                config.norm_epsilon,
                spread,
                config.condition_size,
                dtype=policy,
                name="mlm",
            )
        if "rtd" in heads:
            self.rtd = ReplacedTokens(config.activation.removeprefix("gated_"), spread, dtype=policy, name="rtd")
        if "lm" in heads:
            scale = config.hidden_size**-0.5 if config.scores.endswith("_scaled") else 1.0
            tied = config.scores.startswith("tied")
            if tied and self.encoder.embedding.width != config.hidden_size:
                raise UserError(
                    f"the head 'lm' compares vectors of hidden_size {config.hidden_size} with the token table, whose "
                    f"embedding_size is {config.embedding_size}: ask for scores='own', for embedding_size=None, or for "
                    "the head 'mlm'"
                )
            self.lm = TokenScores(config.vocab_size, tied, scale, spread, dtype=policy, name="lm")

    def build(self, input_shape: Any = None) -> None:
        for stack in (self.encoder, self.decoder):
            if stack is not None and not stack.built:
                stack.build()
        hidden = (None, None, self.config.hidden_size)
        for head in (self.pooler, self.nsp, self.mlm, self.rtd, self.lm):
            if head is not None and not head.built:
                head.build(hidden[1:] if head is self.nsp else hidden)
        self.built = True

    def __call__(self, tokens: Any, *facts: Any, **options: Any) -> Any:
        if isinstance(tokens, Mapping):
            if "tokens" not in tokens:
                raise UserError(f"expected a dictionary with 'tokens', found {', '.join(map(str, tokens)) or 'none'}")
            first: Any = {name: as_array(ids) for name, ids in tokens.items()} | {"tokens": as_ids(tokens["tokens"])}
        else:
            first = as_ids(tokens)
        options = {name: as_array(ids) for name, ids in options.items()}
        return super().__call__(first, *map(as_array, facts), **options)

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
        labels: Any = None,
        condition: Any = None,
        decoder_tokens: Any = None,
        decoder_mask: masks.Mask | None = None,
        decoder_valid: Any = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        if isinstance(tokens, Mapping):
            return self.call(**tokens, mask=mask, decoder_mask=decoder_mask, training=training)
        if (decoder_tokens is None) == (self.decoder is not None):
            wanted = "none" if self.decoder is None else "some: this has a decoder"
            raise UserError(f"decoder_tokens: expected {wanted}")
        _check_places(at, tokens if self.decoder is None else decoder_tokens)
        hidden = self.encoder(
            tokens,
            segments=segments,
            positions=positions,
            valid=valid,
            documents=documents,
            order=order,
            mask=mask,
            condition=condition,
            training=training,
        )
        results = {"hidden": hidden}
        if self.decoder is not None:
            if valid is None:
                valid = self.encoder.valid(tokens)
            hidden = self.decoder(
                decoder_tokens,
                valid=decoder_valid,
                mask=masks.causal() if decoder_mask is None else decoder_mask,
                memory=hidden,
                memory_valid=valid,
                condition=condition,
                training=training,
            )
            results = {"hidden": hidden, "encoded": results["hidden"]}
        if self.pooler is not None:
            results["pooled"] = self.pooler(hidden)
        if self.nsp is not None:
            results["nsp"] = self.nsp(results["pooled"])
        if self.rtd is not None:
            results["rtd"] = self.rtd(hidden)
        if self.mlm is not None or self.lm is not None:
            name = "lm" if self.mlm is None else "mlm"
            places = hidden if at is None else ops.take_along_axis(hidden, at[..., None], axis=1)
            if labels is None:
                results[name] = self.score(places, condition)
            else:
                results[name] = self.token_losses(places, labels, condition)
        return results

    def score(self, hidden: Any, condition: Any = None) -> Any:
        """Token logits `(batch, positions, vocab_size)` of hidden states `(batch, positions, hidden)`."""
        unembed = self.encoder.embedding.unembed
        if self.mlm is not None:
            return self.mlm(hidden, unembed=unembed, condition=condition)
        if self.lm is not None:
            return self.lm(hidden, unembed=unembed)
        raise UserError("this model has no head that scores tokens ('mlm' or 'lm')")

    def token_losses(self, hidden: Any, labels: Any, condition: Any = None) -> Any:
        """`(batch, positions, 2)` of hidden states `(batch, positions, hidden)` and their labels."""
        embedding = self.encoder.embedding
        if self.mlm is not None:
            return token_losses(
                embedding.before_table(self.mlm.transformed(hidden, condition)), embedding.table, self.mlm.bias, labels
            )
        if self.lm is None:
            raise UserError("this model has no head that scores tokens ('mlm' or 'lm')")
        hidden = hidden * self.lm.scale
        if self.lm.tied:
            hidden, table = embedding.before_table(hidden), embedding.table
        else:
            table = ops.transpose(self.lm.output_dense.kernel)
        return token_losses(hidden, table, ops.zeros(self.config.vocab_size), labels)

    def compute_output_spec(
        self, tokens: Any, *facts: Any, at: Any = None, labels: Any = None, decoder_tokens: Any = None, **others: Any
    ) -> dict[str, Any]:
        # By hand: backends that infer shapes by tracing cannot take a rule as an argument.
        if isinstance(tokens, Mapping):
            return self.compute_output_spec(**tokens)
        hidden = self.encoder.compute_output_spec(tokens)
        results = {"hidden": hidden}
        if self.decoder is not None:
            hidden = self.decoder.compute_output_spec(decoder_tokens)
            results = {"hidden": hidden, "encoded": results["hidden"]}
        batch, length, _ = hidden.shape
        if self.pooler is not None:
            results["pooled"] = keras.KerasTensor((batch, self.config.hidden_size), dtype=self.compute_dtype)
        if self.nsp is not None:
            results["nsp"] = keras.KerasTensor((batch, 2), dtype=self.compute_dtype)
        if self.rtd is not None:
            results["rtd"] = keras.KerasTensor((batch, length), dtype=self.compute_dtype)
        if self.mlm is not None or self.lm is not None:
            classes = self.config.vocab_size if labels is None else 2
            shape = (batch, length if at is None else at.shape[1], classes)
            # The token table is not rounded to half precision, so neither are the scores.
            tied = self.lm is None or self.lm.tied or labels is not None
            dtype = keras.backend.result_type(self.compute_dtype, self.variable_dtype) if tied else self.compute_dtype
            results["lm" if self.mlm is None else "mlm"] = keras.KerasTensor(shape, dtype=dtype)
        return results

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def export(self, filepath: Any, *args: Any, input_signature: Any = None, **kwargs: Any) -> None:
        """As `keras.Model.export`; by default of tokens and, where the model has them, segments of any shape.

        Raises:
            UserError: under JAX or PyTorch without an `input_signature`.
        """
        input_signature = input_signature or list(token_specs(self.config).values())
        super().export(filepath, *args, input_signature=input_signature, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = {"config": self.config.to_dict(), "heads": list(self.heads)}
        return {**super().get_config(), **quantized_parts(self), **config}


def _check_places(at: Any, tokens: Any) -> None:
    """Say which places to be scored there are not, where they are known: backends answer NaN, or another place."""
    values = None if at is None or len(tokens.shape) != 2 else _backend.known(at)  # the encoder tells of odd tokens
    length = None if values is None else tokens.shape[1]
    if values is None or length is None or not values.size:
        return
    if values.ndim != 2 or values.min() < 0 or values.max() >= length:
        found = f"{values.tolist()}"[:60]
        raise UserError(f"at: expected places (batch, positions) from 0 to {length - 1}, found {found}")


def token_specs(config: Config) -> dict[str, keras.InputSpec]:
    """What an export is told of a network's inputs: "tokens" and perhaps "segments", ints `(batch, length)`, any sizes.

    Raises:
        UserError: the backend exports for one length only.
    """
    _backend.check_exports()
    names = ["tokens", "segments"] if (config.num_segments or 0) > 1 else ["tokens"]
    return {name: keras.InputSpec(shape=(None, None), dtype="int32", name=name) for name in names}


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


def weight_values(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """What `named_weights` holds, as float32; the narrow kernels of Keras' `enable_lora` are added to the wide one.

    Example:
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16)
        >>> model = LanguageModel(tiny, heads=["mlm"])
        >>> model.build()
        >>> weight_values(model)["mlm/bias"].shape
        (10,)
    """
    merged = {}
    for part in layer._flatten_layers():
        if getattr(part, "lora_enabled", False):
            name = "kernel" if hasattr(part, "_kernel") else "embeddings"
            merged[id(getattr(part, f"_{name}"))] = getattr(part, name)
    return {
        path: np.asarray(ops.convert_to_numpy(merged.get(id(weight), weight)), "float32")
        for path, weight in named_weights(layer).items()
        if "/lora_" not in path
    }
