"""The one encoder, and its twin that looks at another's output. What it is told to be is a `Config`; what it is told to
do is the mask of each call.

One set of weights serves BERT's two-way reading, a language model, seq2seq and permuted language modelling: only the
`mask` argument changes. Sub-layers have fixed names, so weights have fixed paths (`block_0/attention/query/kernel`).
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from maskplay import _backend, masks
from maskplay.config import BUCKETS, Config
from maskplay.errors import UserError
from maskplay.layers.attention import Visibility, per_head
from maskplay.layers.block import Block
from maskplay.layers.embedding import Embedding
from maskplay.layers.norm import conditioned, norm_of
from maskplay.layers.position import Places, RelativeBias, RelativeSinusoids, distances
from maskplay.layers.quantized import quantized_parts
from maskplay.layers.remat import rematerialized

FACTS = ("segments", "positions", "documents", "order", "valid")


@keras.saving.register_keras_serializable(package="maskplay")
class Encoder(keras.layers.Layer):
    """A stack of blocks over an embedding; with `cross=True` its twin, a decoder that also looks at a memory.

    Args:
        config: a `Config`, or its dictionary.
        cross: whether every block looks at `memory` too.
        embedding: another encoder's embedding, to share it. Keras' own file would hold it twice, so saving to one is
            refused: `LanguageModel` with `num_decoder_layers` is an encoder with such a decoder, and is saved whole.

    Call arguments, all ints `(batch, length)` unless said:
        tokens: token ids.
        segments: segment ids, default all 0; also the fact that `masks.prefix()` reads.
        positions: places for positions of any kind, also `(length,)`; default 0, 1, … (with a cache: counted on).
        valid: bools, False for padding; default: tokens that are not `config.pad_id`.
        documents: document numbers, for `masks.documents()`.
        order: each token's place in a drawn order, for `masks.permuted()`.
        mask: who sees whom, a static rule of `maskplay.masks`; default `masks.padding()`.
        memory: `(batch, source, hidden)`, an encoder's output, with `cross=True`.
        memory_valid: bools `(batch, source)`, False for padding there; default all True.
        condition: `(batch, condition_size)`, for conditional layer normalization.
        cache: from `new_cache`, for decoding step by step.
        details: also return every block's hidden states and attention probabilities.

    Attributes:
        remat: True, set before `fit`, keeps of every block only what goes in and computes the rest again for the
            gradient: more rows fit into memory, each step takes longer. Models made by `graph()` do not.

    Returns:
        Hidden states `(batch, length, hidden)` in the compute dtype; with a cache `(hidden, cache)`; with details a
        dictionary: "hidden", "states" (a list, embedding first, each `(batch, length, hidden)`), "attentions" (a list,
        each `(batch, heads, length, length)`).

    Raises:
        UserError: a fact the mask needs is missing or misshapen, an id is out of range (where it is known: not in
            compiled code), or there are more tokens than positions.

    Example:
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16)
        >>> encoder = Encoder(tiny)
        >>> tokens = ops.array([[5, 6, 7, 0]])
        >>> encoder(tokens, mask=masks.causal()).shape
        (1, 4, 8)
    """

    def __init__(
        self,
        config: Config | dict[str, Any],
        cross: bool = False,
        embedding: Embedding | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", "decoder" if cross else "encoder")
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, Config) else Config.from_dict(config)
        self.cross = cross
        self.shares = embedding is not None
        self.remat = False
        policy = self.dtype_policy
        self.embedding = embedding or Embedding(config, dtype=policy, name="embedding")
        self.visibility = Visibility(config.pad_id, name="visibility")
        self.places = Places(name="places")
        self.relative: Any = None
        self.final_norm: Any = None
        if config.position == "relative":
            self.relative = RelativeSinusoids(config.max_positions, config.size_per_head, dtype=policy, name="relative")
        elif config.position in BUCKETS:
            self.relative = RelativeBias(
                config.num_heads,
                config.num_buckets,
                max_distance=config.max_positions,
                two_way=not cross,
                initializer_range=config.initializer_range,
                dtype=policy,
                name="relative",
            )
        self.blocks = [Block(config, cross, dtype=policy, name=f"block_{i}") for i in range(config.blocks)]
        if config.norm_at == "pre":
            self.final_norm = norm_of(config, dtype=policy, name="final_norm")

    def build(self, input_shape: Any = None) -> None:
        for layer in (self.embedding, *self.blocks):
            if not layer.built:
                layer.build((None, None))
        if self.relative is not None:
            self.relative.build((None, None, None))
        if self.final_norm is not None:
            self.final_norm.build((None, None, self.config.hidden_size))

    @property
    def layers_in_order(self) -> list[Block]:
        """The block of every layer: shared ones occur several times."""
        layers, blocks = self.config.num_layers, len(self.blocks)
        return [self.blocks[i * blocks // layers] for i in range(layers)]

    def __call__(self, tokens: Any, *facts: Any, **options: Any) -> Any:
        options = {name: as_array(ids) for name, ids in options.items()}
        return super().__call__(as_ids(tokens), *map(as_array, facts), **options)

    def call(
        self,
        tokens: Any,
        segments: Any = None,
        positions: Any = None,
        valid: Any = None,
        documents: Any = None,
        order: Any = None,
        mask: masks.Mask | None = masks.padding(),
        memory: Any = None,
        memory_valid: Any = None,
        condition: Any = None,
        cache: dict[str, Any] | None = None,
        details: bool = False,
        training: bool | None = None,
    ) -> Any:
        mask = masks.padding() if mask is None else mask
        facts = dict(zip(FACTS, (segments, positions, documents, order, valid)))
        self._check(tokens, facts, mask, condition, memory if cache is None else cache.get("memory"))
        if cache is not None:
            if details:
                raise UserError("details and a cache exclude each other: ask for details in a full pass")
            return self._continue(tokens, facts, mask, condition, cache)
        kind, visible = mask.plan().kind, None
        if kind not in ("full", "causal"):
            visible = self.visibility(
                tokens, segments=segments, valid=valid, documents=documents, order=order, mask=mask
            )
        x = self.embedding(tokens, segments=segments, positions=positions, condition=condition)
        shared = {"positions": positions, "condition": condition, "training": training}
        shared |= {"visible": visible, "causal": kind == "causal"}
        if self.relative is not None:
            here = self.places(tokens) if positions is None else positions
            shared |= self._relations(here, here)
            shared |= self._memory_bias(here, memory)
        if memory is not None:
            shared |= {"memory": memory, "memory_visible": _as_keys(memory_valid)}
        states, attentions = [x], []
        scores, residual = None, self.config.attention == "residual"
        for block in self.layers_in_order:
            if scores is not None:
                shared["bias"] = scores
            run = rematerialized(block) if self.remat and training else block
            x = run(x, details=details or residual, **shared)
            if details or residual:
                x, _, attention, last = x
                scores = last if residual else None
                states.append(x)
                attentions.append(attention)
        if self.final_norm is not None:
            x = conditioned(self.final_norm, x, condition)
            states[-1] = x
        return {"hidden": x, "states": states, "attentions": attentions} if details else x

    def _relations(self, queries: Any, keys: Any) -> dict[str, Any]:
        """What attention is told of distances: a bias, vectors, or nothing."""
        if self.relative is None:
            return {}
        name = "relative" if self.config.position == "relative" else "bias"
        return {name: self.relative(distances(queries, keys))}

    def _memory_bias(self, queries: Any, memory: Any) -> dict[str, Any]:
        if memory is None or self.config.position != "buckets_cross":
            return {}
        return {"memory_bias": self.relative(distances(queries, self.places(memory)))}

    def new_cache(self, batch: int, length: int, memory: Any = None, memory_valid: Any = None) -> dict[str, Any]:
        """An empty cache for decoding up to `length` tokens: keys and values of every layer, and the tokens' facts.

        Pass it as `cache=` and go on with the one that the call returns; everything has a fixed shape, so the step
        compiles once. A token is encoded when it is fed and never again: feed those that see each other, such as the
        source under `masks.prefix()`, in one call.

        Args:
            batch: number of sequences.
            length: slots, the most tokens that will ever be fed. A call that needs more raises `UserError`, except in
                compiled code, which cannot tell.
            memory, memory_valid: with `cross=True`, what every call will look at, as for a call.

        Raises:
            UserError: more slots than the model has positions, or no memory where one is needed.

        Example:
            >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16)
            >>> encoder = Encoder(tiny)
            >>> cache = encoder.new_cache(1, 4)
            >>> hidden, cache = encoder(ops.array([[5, 6]]), mask=masks.causal(), cache=cache)
            >>> hidden, cache = encoder(ops.array([[7]]), mask=masks.causal(), cache=cache)
            >>> hidden.shape, int(cache["length"])
            ((1, 1, 8), 3)
        """
        config = self.config
        if config.longest is not None and length > config.longest:
            raise UserError(
                f"expected a cache of at most {config.longest} tokens (the model's positions), found {length}"
            )
        if (memory is None) == self.cross:
            raise UserError(f"{self.name}: memory: expected {'one' if self.cross else 'none'}")
        heads, width = config.num_kv_heads or config.num_heads, config.size_per_head
        if config.attention == "gau":
            heads, width = 1, config.intermediate_size
        keys, values = (batch, length, heads, config.size_per_key), (batch, length, heads, width)
        cache = {
            "length": ops.zeros((), "int32"),
            "facts": {name: ops.zeros((batch, length), "int32") for name in FACTS},
            "blocks": [
                {"keys": ops.zeros(keys, self.compute_dtype), "values": ops.zeros(values, self.compute_dtype)}
                for _ in range(config.num_layers)
            ],
        }
        if memory is not None:
            if not self.built:
                self.build()
            memory = ops.convert_to_tensor(memory, self.compute_dtype)
            if memory_valid is None:
                memory_valid = ops.ones(ops.shape(memory)[:2], "bool")
            cache["memory"] = memory_valid
            for block, past in zip(self.layers_in_order, cache["blocks"], strict=True):
                past["memory"] = block.cross.remember(memory)
        return cache

    def _continue(
        self, tokens: Any, given: dict[str, Any], mask: masks.Mask, condition: Any, cache: dict[str, Any]
    ) -> Any:
        """Feed more tokens after those in the cache; the cache keeps its keys' facts, so any rule works."""
        start, count, slots = cache["length"], ops.shape(tokens)[1], ops.shape(cache["facts"]["valid"])[1]
        try:
            room = slots - int(start)
        except TypeError:  # being traced, and under TensorFlow perhaps for any number of slots
            room = slots
        if isinstance(count, int) and isinstance(room, int) and count > room:
            raise UserError(f"the cache has {slots} slots and room for {room} more tokens, found {count}")
        at = start + ops.arange(count, dtype="int32")
        positions = at if given["positions"] is None else given["positions"]
        valid = self.valid(tokens) if given["valid"] is None else given["valid"]
        new = {**given, "valid": valid, "positions": positions}
        new = {name: fact if fact is None else ops.broadcast_to(fact, ops.shape(tokens)) for name, fact in new.items()}
        facts = {
            name: past if new[name] is None else ops.slice_update(past, (0, start), ops.cast(new[name], "int32"))
            for name, past in cache["facts"].items()
        }
        told = {name: fact for name, fact in facts.items() if name != "positions" and new[name] is not None}
        written = ops.arange(slots, dtype="int32") < start + count
        visible = ops.logical_and(per_head(mask.sees(masks.Facts(slots, **told), at, ops)), written)
        x = self.embedding(tokens, segments=given["segments"], positions=positions, condition=condition)
        shared = {"visible": visible, "positions": positions, "condition": condition, "start": start}
        shared |= self._relations(positions, facts["positions"])
        if "memory" in cache:
            shared["memory_visible"] = _as_keys(cache["memory"])
            shared |= self._memory_bias(positions, cache["memory"])
        blocks, residual = [], self.config.attention == "residual"
        for block, past in zip(self.layers_in_order, cache["blocks"], strict=True):
            x, past, _, scores = block(x, cache=past, details=residual, **shared)
            if residual:
                shared["bias"] = scores
            blocks.append(past)
        if self.final_norm is not None:
            x = conditioned(self.final_norm, x, condition)
        return x, {**cache, "length": start + count, "facts": facts, "blocks": blocks}

    def valid(self, tokens: Any) -> Any:
        """Which tokens are real where nobody says so: bools of the same shape."""
        return self.visibility.valid(tokens)

    def _check(self, tokens: Any, facts: dict[str, Any], mask: Any, condition: Any, memory: Any) -> None:
        """Say in one line what a call got wrong; compiled code, where values are not known, is believed."""
        config = self.config
        if not isinstance(mask, masks.Mask):
            raise UserError(f"mask: expected a rule such as maskplay.masks.causal(), found {type(mask).__name__}")
        kind = keras.backend.standardize_dtype(tokens.dtype)
        if len(tokens.shape) != 2 or "float" in kind:
            # Floats are refused because half precision would round ids above 2048.
            raise UserError(f"tokens: expected integers (batch, length), found {kind} {tuple(tokens.shape)}")
        if tokens.shape[1] == 0:
            raise UserError("tokens: expected at least one in each row, found none")
        for name, fact in facts.items():
            if fact is None:
                continue
            shapes = [tuple(tokens.shape)] + [tuple(tokens.shape[1:])] * (name == "positions")
            one_for_all = name == "order" and fact.shape[-1] == 1 != tokens.shape[1]  # no place in an order is
            if one_for_all or not any(_alike(fact.shape, shape) for shape in shapes):
                raise UserError(f"{name}: expected the tokens' shape {shapes[0]}, found {tuple(fact.shape)}")
        if (memory is None) == self.cross:
            raise UserError(f"{self.name}: memory: expected {'one' if self.cross else 'none'}")
        wanted = None if config.condition_size is None else (tokens.shape[0], config.condition_size)
        if (condition is None) != (wanted is None) or not (wanted is None or _alike(condition.shape, wanted)):
            found = "none" if condition is None else tuple(condition.shape)
            raise UserError(f"condition: expected {wanted or 'none'}, found {found}")
        segments = config.vocab_size if config.num_segments is None else config.num_segments or None
        limits = {"tokens": config.vocab_size, "segments": segments, "positions": config.longest}
        for name, ids in (("tokens", tokens), *facts.items()):
            limit, values = limits.get(name), None if ids is None else _backend.known(ids)
            if limit is not None and values is not None and values.size:
                least, most = values.min(), values.max()
                if least < 0 or most >= limit:
                    raise UserError(f"{name}: expected ids from 0 to {limit - 1}, found {least if least < 0 else most}")

    def graph(self, mask: masks.Mask | None = None) -> keras.Model:
        """A functional view that shares the weights, for layer surgery and sub-models by name.

        Its layers are called `embedding`, `visibility`, `block_0`, `block_1`, …; its inputs `tokens`, `segments` (if
        the model has segments) and the facts the mask needs beyond those; `memory` and `condition` where they are
        needed.

        Example:
            >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16)
            >>> [layer.name for layer in Encoder(tiny).graph().layers]
            ['tokens', 'segments', 'embedding', 'visibility', 'block_0', 'block_1']
        """
        mask = masks.padding() if mask is None else mask
        if not self.built:
            self.build()
        names = ["segments"] if self.config.num_segments else []
        names += [name for name in sorted(mask.needs) if name not in ("valid", *names)]
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("tokens", *names)}
        if self.cross:
            inputs["memory"] = keras.Input((None, self.config.hidden_size), name="memory")
        if self.config.condition_size is not None:
            inputs["condition"] = keras.Input((self.config.condition_size,), name="condition")
        return keras.Model(inputs, self.call(**inputs, mask=mask), name=self.name)

    def compute_output_spec(
        self, tokens: Any, *facts: Any, cache: Any = None, details: bool = False, **others: Any
    ) -> Any:
        # By hand: backends that infer shapes by tracing cannot take a rule as an argument.
        batch, length = tokens.shape
        states = keras.KerasTensor((batch, length, self.config.hidden_size), dtype=self.compute_dtype)
        if details:
            heads = 1 if self.config.attention == "gau" else self.config.num_heads
            attention = keras.KerasTensor((batch, heads, length, length), dtype=self.compute_dtype)
            count = self.config.num_layers
            return {"hidden": states, "states": [states] * (count + 1), "attentions": [attention] * count}
        return states if cache is None else (states, cache)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        if self.shares:
            raise UserError(
                f"{self.name}: shares another encoder's embedding, which Keras' own file cannot say: save a "
                "LanguageModel with num_decoder_layers, or weights alone (save_weights)"
            )
        config = {"config": self.config.to_dict(), "cross": self.cross}
        return {**super().get_config(), **quantized_parts(self), **config}


def as_array(ids: Any) -> Any:
    """Lists of numbers as an array, which Keras wants; anything else as it is."""
    return np.asarray(ids) if isinstance(ids, list | tuple) else ids


def as_ids(tokens: Any) -> Any:
    """The same of tokens; `UserError` for text, which is none yet."""
    try:
        ids = as_array(tokens)
    except ValueError:  # NumPy's, of rows of several lengths
        raise UserError(f"tokens: expected rows of one length, found {str(tokens)[:40]}…: pad them") from None
    if isinstance(ids, str) or (isinstance(ids, np.ndarray) and ids.dtype.kind in "US"):
        raise UserError(f"tokens: expected ids, found the text {str(tokens)[:40]!r}: Tokenizer.encode gives ids")
    return ids


def _as_keys(valid: Any) -> Any:
    """`(batch, source)` as what every query and head may see, `(batch, 1, 1, source)`."""
    return None if valid is None else ops.cast(valid, "bool")[:, None, None]


def _alike(found: Any, wanted: Any) -> bool:
    """Whether shapes agree where both are known; an axis of 1 serves all."""
    return len(found) == len(wanted) and all(a in (b, 1) or None in (a, b) for a, b in zip(found, wanted))


def submodel(model: keras.Model, inputs: str | list[str], outputs: str | list[str]) -> keras.Model:
    """The part of a functional model between named layers, sharing its weights.

    Args:
        model: functional, such as `encoder.graph()`.
        inputs: layers to cut *after*: what they put out becomes the part's input.
        outputs: layers whose output the part returns.

    Raises:
        UserError: no such layer, or the outputs need more than the given inputs.

    Example:
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=3, num_heads=2, intermediate_size=16)
        >>> graph = Encoder(tiny).graph(mask=masks.full())
        >>> submodel(graph, "block_0", "block_2")(ops.ones((1, 4, 8))).shape
        (1, 4, 8)
    """

    # A layer's own `output` is that of its first graph, which need not be this one.
    nodes = {node.operation.name: node for some in model._nodes_by_depth.values() for node in some}

    def outputs_of(names: str | list[str]) -> Any:
        found = []
        for name in [names] if isinstance(names, str) else names:
            if name not in nodes:
                known = ", ".join(layer.name for layer in model.layers)
                raise UserError(f"{model.name}: no layer called {name!r}; there are {known}")
            found += nodes[name].outputs
        return found[0] if isinstance(names, str) and len(found) == 1 else found

    try:
        return keras.Model(outputs_of(inputs), outputs_of(outputs))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{model.name}: {outputs} cannot be computed from {inputs} alone ({error})") from None
