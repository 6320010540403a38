"""The one encoder. What it is told to be is a `Config`; what it is told to do is the mask of each call.

One set of weights serves BERT's two-way reading, a language model, seq2seq and permuted language modelling: only the
`mask` argument changes. Sub-layers have fixed names, so weights have fixed paths (`block_0/attention/query/kernel`).
"""

from typing import Any

import keras
from keras import ops

from maskplay import masks
from maskplay.config import Config
from maskplay.errors import UserError
from maskplay.layers.attention import Attention, Visibility, per_head
from maskplay.layers.embedding import Embedding
from maskplay.layers.feed import FeedForward
from maskplay.layers.norm import LayerNorm
from maskplay.layers.position import Rotary


@keras.saving.register_keras_serializable(package="maskplay")
class Block(keras.layers.Layer):
    """Attention, then feed-forward, each added to its input and normalized afterwards (post-norm, as BERT).

    Args:
        config: a `Config`, or its dictionary.

    Call arguments and results as `Attention`.

    Example:
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16)
        >>> Block(tiny)(ops.ones((1, 3, 8))).shape
        (1, 3, 8)
    """

    def __init__(self, config: Config | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, Config) else Config.from_dict(config)
        policy = self.dtype_policy
        self.attention = Attention(
            config.num_heads,
            config.size_per_head,
            position=Rotary(dtype=policy, name="rotary") if config.position == "rotary" else None,
            dropout=config.attention_dropout,
            initializer_range=config.initializer_range,
            dtype=policy,
            name="attention",
        )
        self.attention_norm = LayerNorm(config.norm_epsilon, dtype=policy, name="attention_norm")
        self.feed = FeedForward(
            config.intermediate_size, config.activation, config.initializer_range, dtype=policy, name="feed"
        )
        self.feed_norm = LayerNorm(config.norm_epsilon, dtype=policy, name="feed_norm")
        self.dropout = keras.layers.Dropout(config.dropout, dtype=policy, name="dropout")

    def build(self, input_shape: Any = None) -> None:
        for layer in (self.attention, self.attention_norm, self.feed, self.feed_norm):
            if not layer.built:
                layer.build((None, None, self.config.hidden_size))

    def call(
        self,
        x: Any,
        visible: Any = None,
        causal: bool = False,
        positions: Any = None,
        cache: dict[str, Any] | None = None,
        start: Any = None,
        details: bool = False,
        training: bool | None = None,
    ) -> Any:
        mixed = self.attention(
            x,
            visible=visible,
            causal=causal,
            positions=positions,
            cache=cache,
            start=start,
            details=details,
            training=training,
        )
        mixed, *extras = mixed if isinstance(mixed, tuple) else (mixed,)
        x = self.attention_norm(x + self.dropout(mixed, training=training))
        x = self.feed_norm(x + self.dropout(self.feed(x), training=training))
        return (x, *extras) if extras else x

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict()}


@keras.saving.register_keras_serializable(package="maskplay")
class Encoder(keras.layers.Layer):
    """A stack of blocks over an embedding.

    Args:
        config: a `Config`, or its dictionary.

    Call arguments, all ints `(batch, length)` unless said:
        tokens: token ids.
        segments: segment ids, default all 0; also the fact that `masks.prefix()` reads.
        positions: places for learned or rotary positions, also `(length,)`; default 0, 1, … (with a cache: counted on).
        valid: bools, False for padding; default: tokens that are not `config.pad_id`.
        documents: document numbers, for `masks.documents()`.
        order: each token's place in a drawn order, for `masks.permuted()`.
        mask: who sees whom, a static rule of `maskplay.masks`; default `masks.padding()`.
        cache: from `new_cache`, for decoding step by step.
        details: also return every block's hidden states and attention probabilities.

    Returns:
        Hidden states `(batch, length, hidden)` in the compute dtype; with a cache `(hidden, cache)`; with details a
        dictionary: "hidden", "states" (a list, embedding first, each `(batch, length, hidden)`), "attentions" (a list,
        each `(batch, heads, length, length)`).

    Raises:
        UserError: a fact the mask needs is missing, or there are more tokens than positions.

    Example:
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16)
        >>> encoder = Encoder(tiny)
        >>> tokens = ops.array([[5, 6, 7, 0]])
        >>> encoder(tokens, mask=masks.causal()).shape
        (1, 4, 8)
    """

    def __init__(self, config: Config | dict[str, Any], **kwargs: Any) -> None:
        kwargs.setdefault("name", "encoder")
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, Config) else Config.from_dict(config)
        policy = self.dtype_policy
        self.embedding = Embedding(config, dtype=policy, name="embedding")
        self.visibility = Visibility(config.pad_id, name="visibility")
        self.blocks = [Block(config, dtype=policy, name=f"block_{i}") for i in range(config.num_layers)]

    def build(self, input_shape: Any = None) -> None:
        for layer in (self.embedding, *self.blocks):
            if not layer.built:
                layer.build((None, None))

    def call(
        self,
        tokens: Any,
        segments: Any = None,
        positions: Any = None,
        valid: Any = None,
        documents: Any = None,
        order: Any = None,
        mask: masks.Mask | None = masks.padding(),
        cache: dict[str, Any] | None = None,
        details: bool = False,
        training: bool | None = None,
    ) -> Any:
        mask = masks.padding() if mask is None else mask
        if not isinstance(mask, masks.Mask):
            raise UserError(f"mask: expected a rule such as maskplay.masks.causal(), found {type(mask).__name__}")
        tokens, segments, positions, valid, documents, order = (
            ops.convert_to_tensor(ids) if isinstance(ids, list | tuple) else ids
            for ids in (tokens, segments, positions, valid, documents, order)
        )
        kind = keras.backend.standardize_dtype(tokens.dtype)
        if len(tokens.shape) != 2 or "float" in kind:
            # Floats are refused because half precision would round ids above 2048.
            raise UserError(f"tokens: expected integers (batch, length), found {kind} {tuple(tokens.shape)}")
        if cache is not None:
            if details:
                raise UserError("details and a cache exclude each other: ask for details in a full pass")
            return self._continue(tokens, segments, positions, valid, documents, order, mask, cache)
        kind, visible = mask.plan().kind, None
        if kind not in ("full", "causal"):
            visible = self.visibility(
                tokens, segments=segments, valid=valid, documents=documents, order=order, mask=mask
            )
        x = self.embedding(tokens, segments=segments, positions=positions)
        states, attentions = [x], []
        for block in self.blocks:
            x = block(
                x, visible=visible, causal=kind == "causal", positions=positions, details=details, training=training
            )
            if details:
                x, _, attention = x
                states.append(x)
                attentions.append(attention)
        return {"hidden": x, "states": states, "attentions": attentions} if details else x

    def new_cache(self, batch: int, length: int) -> dict[str, Any]:
        """An empty cache for decoding up to `length` tokens: keys and values of every block, and the tokens' facts.

        Pass it as `cache=` and go on with the one that the call returns; everything has a fixed shape, so the step
        compiles once. A token is encoded when it is fed and never again: feed those that see each other, such as the
        source under `masks.prefix()`, in one call.

        Args:
            batch: number of sequences.
            length: slots, the most tokens that will ever be fed. A call that needs more raises `UserError`, except in
                compiled code, which cannot tell.

        Raises:
            UserError: more slots than the model has positions.

        Example:
            >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16)
            >>> encoder = Encoder(tiny)
            >>> cache = encoder.new_cache(1, 4)
            >>> hidden, cache = encoder(ops.array([[5, 6]]), mask=masks.causal(), cache=cache)
            >>> hidden, cache = encoder(ops.array([[7]]), mask=masks.causal(), cache=cache)
            >>> hidden.shape, int(cache["length"])
            ((1, 1, 8), 3)
        """
        if self.config.longest is not None and length > self.config.longest:
            raise UserError(
                f"expected a cache of at most {self.config.longest} tokens (the model's positions), found {length}"
            )
        shape = (batch, length, self.config.num_heads, self.config.size_per_head)
        return {
            "length": ops.zeros((), "int32"),
            "facts": {
                name: ops.zeros((batch, length), "int32") for name in ("segments", "order", "documents", "valid")
            },
            "blocks": [
                {name: ops.zeros(shape, self.compute_dtype) for name in ("keys", "values")} for _ in self.blocks
            ],
        }

    def _continue(
        self,
        tokens: Any,
        segments: Any,
        positions: Any,
        valid: Any,
        documents: Any,
        order: Any,
        mask: masks.Mask,
        cache: dict[str, Any],
    ) -> Any:
        """Feed more tokens after those in the cache; the cache keeps its keys' facts, so any rule works."""
        start, count, slots = cache["length"], ops.shape(tokens)[1], cache["facts"]["valid"].shape[1]
        try:
            room = slots - int(start)
        except TypeError:  # being traced
            room = slots
        if isinstance(count, int) and count > room:
            raise UserError(f"the cache has {slots} slots and room for {room} more tokens, found {count}")
        at = start + ops.arange(count, dtype="int32")
        if positions is None:
            positions = at
        valid = ops.not_equal(tokens, self.config.pad_id) if valid is None else valid
        given = {"segments": segments, "order": order, "documents": documents, "valid": valid}
        facts = {
            name: known if given[name] is None else ops.slice_update(known, (0, start), ops.cast(given[name], "int32"))
            for name, known in cache["facts"].items()
        }
        rule = masks.Facts(slots, **{name: None if given[name] is None else facts[name] for name in facts})
        written = ops.arange(slots, dtype="int32") < start + count
        visible = ops.logical_and(per_head(mask.sees(rule, at, ops)), written)
        x = self.embedding(tokens, segments=segments, positions=positions)
        blocks = []
        for block, past in zip(self.blocks, cache["blocks"], strict=True):
            x, past, _ = block(x, visible=visible, positions=positions, cache=past, start=start)
            blocks.append(past)
        return x, {"length": start + count, "facts": facts, "blocks": blocks}

    def graph(self, mask: masks.Mask | None = None) -> keras.Model:
        """A functional view that shares the weights, for layer surgery and sub-models by name.

        Its layers are called `embedding`, `visibility`, `block_0`, `block_1`, …; its inputs `tokens`, `segments` (if
        the model has segments) and the facts the mask needs beyond those.

        Example:
            >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16)
            >>> [layer.name for layer in Encoder(tiny).graph().layers]
            ['tokens', 'segments', 'embedding', 'visibility', 'block_0', 'block_1']
        """
        mask = mask or masks.padding()
        if not self.built:
            self.build()
        names = ["segments"] if self.config.num_segments else []
        names += [name for name in sorted(mask.needs) if name not in ("valid", *names)]
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("tokens", *names)}
        return keras.Model(inputs, self.call(**inputs, mask=mask), name=self.name)

    def compute_output_spec(
        self, tokens: Any, *facts: Any, cache: Any = None, details: bool = False, **others: Any
    ) -> Any:
        # By hand: backends that infer shapes by tracing cannot take a rule as an argument.
        batch, length = tokens.shape
        states = keras.KerasTensor((batch, length, self.config.hidden_size), dtype=self.compute_dtype)
        if details:
            attention = keras.KerasTensor((batch, self.config.num_heads, length, length), dtype=self.compute_dtype)
            count = self.config.num_layers
            return {"hidden": states, "states": [states] * (count + 1), "attentions": [attention] * count}
        return states if cache is None else (states, cache)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict()}


def submodel(model: keras.Model, inputs: str | list[str], outputs: str | list[str]) -> keras.Model:
    """The part of a functional model between named layers, sharing its weights.

    Args:
        model: functional, such as `encoder.graph()`.
        inputs: layers to cut *behind*: what they put out becomes the part's input.
        outputs: layers whose output the part returns.

    Raises:
        UserError: no such layer, or the outputs need more than the given inputs.

    Example:
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=3, num_heads=2, intermediate_size=16)
        >>> graph = Encoder(tiny).graph(mask=masks.full())
        >>> submodel(graph, "block_0", "block_2")(ops.ones((1, 4, 8))).shape
        (1, 4, 8)
    """

    def outputs_of(names: str | list[str]) -> Any:
        found = []
        for name in [names] if isinstance(names, str) else names:
            try:
                found.append(model.get_layer(name).output)
            except ValueError:
                known = ", ".join(layer.name for layer in model.layers)
                raise UserError(f"{model.name}: no layer called {name!r}; there are {known}") from None
        return found[0] if isinstance(names, str) else found

    try:
        return keras.Model(outputs_of(inputs), outputs_of(outputs))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{model.name}: {outputs} cannot be computed from {inputs} alone ({error})") from None
