"""Pretraining: a network learns from raw text, by what a part of a text says about the rest.

One set of weights, many objectives: masked words, next token, drawn order, second half after the first, order of two
halves, pairs that mean the same. They differ in inputs, labels and the mask of the call. Rows are packed without
padding; the mask `documents()` keeps what shares a row apart; only targets are scored, which for masked words saves
most of the head's work.

Sources: those of `maskplay.pretext`; "Transformer 如戏，全靠 Mask" (kexue.fm/archives/6933).
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from maskplay import pretext
from maskplay.errors import UserError, whole_number
from maskplay.losses import TokenAccuracy, TokenCrossEntropy
from maskplay.model import Model
from maskplay.objectives import OBJECTIVES, SIMILAR, TOKENS, check_network, check_objectives, check_rates
from maskplay.optimizers.wrapper import leaves
from maskplay.pretext.packing import checked_share
from maskplay.pretext.targets import AS_MASK, IGNORED

__all__ = ["Pretrain", "Steps"]

SCALE = 30.0  # what cosines of a batch's texts are multiplied with
DEV_ROWS = 512  # of an objective, for the figures on held-out text
SAMPLE = 2**20  # tokens by which the length of words is known


class _Cost(TokenCrossEntropy):
    """Of what `token_losses` has found already."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred[..., 0]


def _cost(target: str, loss: Any) -> _Cost:
    """A loss that was given for tokens, as one of what `token_losses` has found already."""
    if not isinstance(loss, TokenCrossEntropy) or loss.ignore_class != _Cost().ignore_class:
        raise UserError(f"loss of {target}: expected a TokenCrossEntropy, found {loss!r:.80}; logits=True takes any")
    return _Cost(reduction=loss.reduction)


class _Hits(TokenAccuracy):
    """Of what `token_losses` has found already."""

    def right_of(self, labels: Any, y_pred: Any) -> Any:
        return y_pred[..., 1]


def similarities(vectors: Any) -> Any:
    """How alike each text of a batch is to each other: `(batch, hidden)` to `(batch, batch)`, 30 times the cosine, and
    -1e9 for each and itself."""
    vectors = ops.cast(vectors, "float32")
    # A square of 1e-12 more: a vector of zeros, too, has a gradient.
    vectors = vectors * ops.rsqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True) + 1e-12)
    row = ops.arange(ops.shape(vectors)[0])
    return ops.where(row[:, None] == row, -1e9, SCALE * ops.matmul(vectors, ops.transpose(vectors)))


class Pretrain(Model):
    """A network that learns from text alone; what it learns stays in the network it was given.

    Args:
        bert: what `maskplay.load` returns, or anything with `.network` (a `LanguageModel`) and `.tokenizer`.
        objective: one of `OBJECTIVES`, or several with the weights of their losses, `{"mlm": 0.5, "unilm": 0.5}`.
        length: tokens of a row, special ones included; default the network's positions, at most 512.
        mask_rate: which share of the words the masked objectives hide.
        as_mask: which share of their tokens is shown as `[MASK]`; half of the others stay, half are exchanged (BERT).
        logits: whether outputs for tokens are logits over the whole vocabulary, which R-Drop and virtual adversarial
            training compare. By default they are the losses alone, and logits are never held.

    As a `keras.Model` it takes, for each objective, ints `(batch, length)` by name (see `Steps`) to a dictionary: for
    tokens `(batch, places or length, 2)`, the cross-entropy of each label and whether it had the highest score (without
    "labels" among the inputs, or with `logits=True`, logits `(…, vocab_size)`); for the order of halves logits
    `(batch, 2)`.

    Raises:
        UserError: an unknown objective, a network without the heads that one needs, a vocabulary without the special
            tokens, or more tokens than positions.

    Example:
        >>> import tempfile
        >>> from maskplay import pretext
        >>> from maskplay.config import Config
        >>> from maskplay.language_model import LanguageModel
        >>> from maskplay.pretrained import Pretrained
        >>> from maskplay.text.tokenizer import Tokenizer
        >>> lines = ["山高水长。", "风清月白。", "山清水秀。"] * 50
        >>> tokenizer = Tokenizer.from_characters(lines, max_size=100)
        >>> tiny = Config(vocab_size=100, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32)
        >>> play = Pretrain(Pretrained(LanguageModel(tiny, ["mlm"]), tokenizer), length=32)
        >>> corpus = pretext.prepare([lines], tempfile.mkdtemp() + "/tokens", tokenizer)
        >>> train, dev = play.steps(corpus, batch_size=8, steps=4)
        >>> history = play.fit(train, validation_data=dev, verbose=0)
        >>> sorted(history.history)
        ['accuracy', 'loss', 'val_accuracy', 'val_loss']
    """

    def __init__(
        self,
        bert: Any,
        objective: str | Mapping[str, float] = "mlm",
        length: int | None = None,
        mask_rate: float = 0.15,
        as_mask: float = AS_MASK,
        logits: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", "pretrain")
        super().__init__(autocast=False, **kwargs)  # a half-precision share of the tokens would be 0.2 % off
        if not hasattr(bert, "network") or not hasattr(bert, "tokenizer"):
            raise UserError(f"Pretrain: expected a network and its tokenizer, as mp.load returns, found {bert!r:.80}")
        self.network, self.tokenizer = bert.network, bert.tokenizer
        self.family: str = getattr(bert, "family", "network")
        objectives = {objective: 1.0} if isinstance(objective, str) else objective
        check_objectives(objectives)
        check_rates(mask_rate, as_mask)
        self.objectives = {name: float(weight) for name, weight in objectives.items()}  # Keras copies it
        config, heads = self.network.config, self.network.heads
        length = min(config.longest or 512, 512) if length is None else length
        check_network(self.objectives, config, heads, self.family, length)
        self.length = int(length)
        targets = {target for name in self.objectives for target in OBJECTIVES[name].scores}
        self.mask_rate, self.as_mask, self.logits = float(mask_rate), float(as_mask), logits
        scored = {head for name in self.objectives for head in OBJECTIVES[name].scores.values()}
        scored |= {"mlm" if "mlm" in heads else "lm"} | ({"pooler"} if scored & {"nsp", SIMILAR} else set())
        self._idle = [getattr(self.network, head) for head in heads if head not in scored]
        self.framing = pretext.Framing.of(self.tokenizer)
        self.mask_id: int = self.tokenizer.special("mask") if "mlm" in targets else -1
        special = {*self.tokenizer.ids(self.tokenizer.form.specials)}
        self.ordinary = np.array([i for i in range(len(self.tokenizer)) if i not in special], "int32")
        self.built = True

    # Heads that no objective scores are left as they are: where their gradient is 0, not None, they would decay.

    @property
    def trainable_variables(self) -> list[Any]:
        idle = {id(variable) for head in self._idle for variable in head.variables}
        return [variable for variable in super().trainable_variables if id(variable) not in idle]

    @property
    def non_trainable_variables(self) -> list[Any]:
        moving = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in moving]

    @property
    def trainable_weights(self) -> list[Any]:
        return self.trainable_variables

    def call(self, inputs: Mapping[str, Mapping[str, Any]], training: bool | None = None) -> dict[str, Any]:
        outputs = {}
        for name in self.objectives:
            objective = OBJECTIVES[name]
            given = {key: value for key, value in inputs[name].items() if key != "labels" or not self.logits}
            share = given.pop("share", None)
            found = self.network(**given, mask=objective.mask, training=training)
            tokens = found["mlm" if "mlm" in found else "lm"]
            if share is not None and "labels" in given:
                share = ops.cast(share, tokens.dtype)[:, None]
                tokens = ops.stack([tokens[..., 0] * share, tokens[..., 1]], axis=-1)
            if SIMILAR in objective.scores:
                found[SIMILAR] = similarities(found["pooled"])
            for target, head in objective.scores.items():
                outputs[target] = tokens if head == TOKENS else found[head]
        return outputs

    def compile(self, optimizer: Any = None, loss: Any = None, **kwargs: Any) -> None:
        """As `keras.Model.compile`; by default AdamW at 1e-4, and cross-entropy and accuracy over the targets alone.

        A loss for tokens is a `TokenCrossEntropy`, with any reduction; any other needs `logits=True`.
        """
        weights, losses, metrics = {}, {}, {}
        for name, weight in self.objectives.items():
            for target, head in OBJECTIVES[name].scores.items():
                done = head == TOKENS and not self.logits
                weights[target] = weight
                losses[target] = _Cost() if done else TokenCrossEntropy()
                metrics[target] = [(_Hits if done else TokenAccuracy)(name="accuracy")]
        kwargs.setdefault("loss_weights", weights)
        kwargs.setdefault("metrics", metrics)
        given = loss if isinstance(loss, dict) else dict.fromkeys(losses, loss)
        for target, own in losses.items():
            if (other := given.get(target)) is not None:
                losses[target] = _cost(target, other) if isinstance(own, _Cost) else other
        super().compile(optimizer or keras.optimizers.AdamW(1e-4), {**given, **losses}, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`; `x` is a `Steps`, as `steps` makes them. Compiles by default.

        Raises:
            UserError: `x` is text, or a `Steps` whose `accumulate` does not fit the optimizer or a loss.
        """
        given = args[0] if args else kwargs.get("x")
        if isinstance(given, str | list | tuple):
            raise UserError(f"fit: expected batches as steps() makes them of a prepared corpus, found {given!r:.80}")
        if not self.compiled:
            self.compile()
        if isinstance(given, Steps) and given.accumulate > 1:
            self._check_shares(given.accumulate)
        kwargs.setdefault("shuffle", False)  # Steps draws its own order
        return super().fit(*args, **kwargs)

    def _check_shares(self, accumulate: int) -> None:
        """Refuse a step of other batches, or losses that are no means: each batch's share would be a wrong factor."""
        found = {each.gradient_accumulation_steps or 1 for each in leaves(self.optimizer)}
        if found != {accumulate}:
            raise UserError(
                f"accumulate: the batches are made for steps of {accumulate}, the optimizer's gradient_accumulation_"
                f"steps is {' and '.join(map(str, sorted(found)))}; give both the same"
            )
        losses: Any = self.loss
        for target, loss in losses.items():
            if isinstance(loss, _Cost) and loss.reduction != _Cost().reduction:
                raise UserError(
                    f"loss of {target}: accumulate makes one mean of several; expected the reduction "
                    f"{_Cost().reduction!r}, found {loss.reduction!r}"
                )

    def steps(
        self, corpus: pretext.Prepared, batch_size: int = 32, steps: int = 1000, held_out: float = 0.005, **kwargs: Any
    ) -> tuple["Steps", "Steps"]:
        """Batches to train on, and batches of text that is held out from it.

        Args:
            corpus: prepared with this play's tokenizer.
            batch_size: rows of a batch.
            steps: batches of the whole run.
            held_out: which share of the corpus.
            **kwargs: everything else of `Steps`: seed, every, shard, accumulate.

        Raises:
            UserError: as `Steps` does, or nothing can be held out.
        """
        seed, held_out = whole_number("seed", kwargs.get("seed", 0), 0), checked_share(held_out)
        if not isinstance(corpus, pretext.Prepared):
            raise UserError(f"corpus: expected what mp.pretext.prepare makes of texts, found {corpus!r:.80}")
        if corpus.pairs and any(OBJECTIVES[name].pairs for name in self.objectives):  # a batch of them at least
            pairs, least = (len(corpus.documents) - 1) // 2, batch_size // 2
            if pairs <= least:
                raise UserError(f"simbert: expected more pairs than a batch has, {least}, found {pairs}")
            held_out = max(held_out, least / max(1, pairs))
        train, dev = pretext.held_out(corpus, held_out, seed)
        alike = {name: value for name, value in kwargs.items() if name not in ("every", "accumulate")}
        return (
            Steps(self, corpus, train, batch_size, steps, **kwargs),
            Steps(self, corpus, dev, batch_size, -(-DEV_ROWS // batch_size), fixed=True, **alike),
        )

    def save(self, *args: Any, **kwargs: Any) -> None:
        raise UserError("what is pretrained is the network: save what it was loaded as, bert.save(folder)")


class Steps(keras.utils.PyDataset):
    """Batches for `Pretrain`, drawn anew at every step from (seed, step) alone.

    A batch is `(inputs, labels)`. Inputs, for each objective: "tokens", "segments" (where the network has them),
    "positions", "documents", ints `(batch, length)`; masked: "at" `(batch, places)`; permuted: "order"; "labels", those
    of tokens; accumulated: "share", floats `(batch,)`. Labels by the name of the loss: `(batch, places or length)`,
    -100 where there is no target, `(batch, 1)` for the order of halves.

    Args:
        play: the `Pretrain` they are for.
        corpus: prepared with its tokenizer.
        spans: the sentences to use, as `pretext.held_out` gives them; None = all.
        batch_size: rows of a batch, over all processes.
        steps: batches of the whole run; whoever asks for further epochs gets further batches.
        every: batches of what Keras sees as an epoch; None = all.
        seed: of everything that is drawn.
        fixed: the same batches every epoch, each row at most once (unless there are too few for a batch): for figures.
        shard: `(rank, world)`, this process among how many; each gets its part of every batch.
        accumulate: of how many batches the optimizer makes one step, its `gradient_accumulation_steps`. The loss of
            each is then given its share of the tokens that they ask for together: one large batch, to rounding. (Orders
            of halves are the mean of the batches' means, and of "simbert" each batch is compared alone.)
        **kwargs: `workers` and its companions of `keras.utils.PyDataset`. For a run to the letter leave them: what
            several have read when `fit` begins Keras serves again, and in short epochs it counts as one.

    Attributes:
        epoch: which one is served, from 0; goes up when one ends, may be set.
        start: how many of its batches to skip; 0 again when it ends.
        tokens: tokens of a batch, special ones included, padding not, over all objectives.
        filled: which share of the rows is not padding.

    Raises:
        UserError: numbers that do not fit together, or a corpus of another vocabulary.
    """

    def __init__(
        self,
        play: Pretrain,
        corpus: pretext.Prepared,
        spans: Any = None,
        batch_size: int = 32,
        steps: int = 1000,
        *,
        every: int | None = None,
        seed: int = 0,
        fixed: bool = False,
        shard: tuple[int, int] = (0, 1),
        accumulate: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rank, self.world = shard
        batch_size, steps = whole_number("batch_size", batch_size, 1), whole_number("steps", steps, 1)
        every = steps if every is None else whole_number("every", every, 1)
        seed, accumulate = whole_number("seed", seed, 0), whole_number("accumulate", accumulate, 1)
        if accumulate > 1 and play.logits:
            raise UserError("accumulate: expected losses of tokens to share out, found a play with logits=True")
        if steps % accumulate:  # the last batches would change nothing
            raise UserError(f"steps: expected a multiple of accumulate, {accumulate}; found {steps}")
        if not 0 <= self.rank < self.world or batch_size % self.world:
            raise UserError(
                f"expected rows for every process alike, found batch_size {batch_size} and shard {shard} (rank, world)"
            )
        if batch_size < 2 and "mlm+nsp" in play.objectives:
            raise UserError("mlm+nsp: expected batches of at least 2 rows, for halves of others; found batch_size 1")
        if self.use_multiprocessing:  # which copies this: nothing here would know when an epoch ends
            raise UserError("use_multiprocessing: batches are drawn by threads here; give workers alone")
        corpus.check_vocabulary(play.tokenizer)
        chosen = {name: OBJECTIVES[name] for name in play.objectives}
        self._kinds = {name: (each.pairs, each.specials, each.alone, each.ordered) for name, each in chosen.items()}
        packed = {
            (pairs, n, alone, whole): pretext.Pairs(corpus, spans, room=play.length)
            if pairs
            else pretext.Packed(corpus, spans, room=play.length, specials=n, shared=not alone, whole=whole)
            for pairs, n, alone, whole in sorted(set(self._kinds.values()))
        }
        for (pairs, *_), rows in packed.items():
            if pairs and (batch_size % 2 or batch_size < 4 or len(rows) * 2 < batch_size):
                raise UserError(
                    "simbert: expected batches of an even number of rows, at least 4, and different pairs for each of "
                    f"them, also of those that are held out; found batch_size {batch_size} and {len(rows)} pairs"
                )
        if fixed:
            full = (len(rows) * (2 if pairs else 1) // batch_size for (pairs, *_), rows in packed.items())
            steps = every = max(1, min(steps, *full))
        self.play, self.batch_size, self.steps, self.every, self.seed = play, batch_size, steps, every, seed
        self.fixed, self.accumulate = fixed, accumulate
        self._asked: tuple[int, np.ndarray] = (-1, np.zeros((0, 0)))
        self._rows = {kind: pretext.Rows(rows, seed) for kind, rows in packed.items()}
        sizes = np.diff(np.flatnonzero(corpus.words[:SAMPLE]), append=min(len(corpus.words), SAMPLE))
        self._word = float(np.square(sizes).sum() / max(1, sizes.sum()))
        self.filled = float(np.mean([packed[kind].filled for kind in self._kinds.values()]))
        self.tokens = self.filled * batch_size * play.length * len(play.objectives)
        self.epoch, self.start, self._ended = 0, 0, False  # the last: whether all batches of the epoch were read

    def __len__(self) -> int:
        left = self.steps - self.epoch * self.every
        return max((min(self.every, left) if left > 0 else self.every) - self.start, 0)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        self._ended |= index == len(self) - 1
        step = self.epoch * self.every + self.start + index
        made = [self._batch(name, i, step) for i, name in enumerate(self.play.objectives)]
        if self.accumulate > 1:
            for (inputs, _), share in zip(made, self._shares(step)):
                inputs["share"] = np.full(self.batch_size, share, "float32")
        size = self.batch_size // self.world  # in one piece: dropout, too, is as it would be in one process
        mine = slice(self.rank * size, (self.rank + 1) * size)
        inputs = {name: {key: v[mine] for key, v in one.items()} for name, (one, _) in zip(self.play.objectives, made)}
        return inputs, {target: labels[mine] for _, found in made for target, labels in found.items()}

    def _shares(self, step: int) -> np.ndarray:
        """How many tokens this batch asks for, in batches of the mean size of those that make one step of weights:
        `(objectives,)`. They are drawn for it once more: kept, thousands of them would be too many."""
        first = step - step % self.accumulate
        kept, asked = self._asked  # read once: other threads may ask about another step
        if kept != first:
            batches = range(first, first + self.accumulate)
            found = [[self._batch(name, i, each)[0] for i, name in enumerate(self.play.objectives)] for each in batches]
            asked = np.array([[(one["labels"] != IGNORED).sum() for one in each] for each in found], "float64")
            self._asked = first, asked
        return asked[step - first] / np.maximum(asked.mean(axis=0), 1 / self.accumulate)

    def may_begin(self, batch: int) -> bool:
        """Whether a run can go on with this batch of the epoch: always, all have one shape."""
        return True

    def on_epoch_begin(self) -> None:
        self._ended = False

    def on_epoch_end(self) -> None:
        # As in `Batches`: Keras also calls this when `fit` begins.
        if self._ended and not self.fixed:
            self.epoch, self.start, self._ended = self.epoch + 1, 0, False

    def _batch(self, name: str, number: int, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """One objective's inputs and labels, for all processes."""
        play, objective = self.play, OBJECTIVES[name]
        rows = self._rows[self._kinds[name]]
        draw = np.random.default_rng([self.seed, number, step])
        labels: dict[str, Any] = {}
        if objective.pairs:
            half = self.batch_size // 2
            time, at = divmod(step, len(rows.packed) // half)  # no pair twice in a batch
            both = [rows.pieces(row) for row in rows.numbers(time * len(rows.packed) + at * half, half)]
            parts = [[order] for pair in both for order in (pair, pair[::-1])]
            labels[SIMILAR] = (np.arange(self.batch_size, dtype="int32") ^ 1)[:, None]  # its neighbour
        else:
            numbers = rows.numbers(step * self.batch_size, self.batch_size)
            found = [rows.pieces(row) for row in numbers]
            if objective.ordered:
                texts, sentences = [piece for (piece,) in found], [rows.sentences(row) for row in numbers]
                if "sop" in objective.scores:
                    pairs, wrong = pretext.in_order(texts, sentences, draw)
                else:
                    pairs, wrong = pretext.with_others(texts, sentences, play.length - objective.specials, draw)
                parts = [[[*pair]] for pair in pairs]
                labels["sop" if "sop" in objective.scores else "nsp"] = wrong[:, None]
            else:
                halves = objective.specials == 3
                parts = [[[*pretext.split(piece, draw)] if halves else [piece] for piece in pieces] for pieces in found]
        laid = pretext.lay_out(parts, play.length, play.framing)
        inputs = {"tokens": laid.tokens, "positions": laid.positions, "documents": laid.documents}
        if (play.network.config.num_segments or 0) > 1 or name in ("unilm", "simbert"):
            inputs["segments"] = laid.segments
        if "mlm" in objective.scores:
            places = pretext.places_for(play.length, play.mask_rate, self._word)
            inputs["tokens"], inputs["at"], labels["mlm"] = pretext.masked(
                laid, play.mask_rate, play.mask_id, play.ordinary, places, draw, play.as_mask
            )
        elif name == "permuted":
            inputs["order"], labels[name] = pretext.permuted(laid, draw)
        else:
            labels[name] = pretext.next_tokens(laid)
            if name in ("unilm", "simbert"):
                target = np.roll(laid.segments, -1, axis=1) == 1
                labels[name] = np.where(target, labels[name], IGNORED).astype("int32")
        inputs["labels"] = next(labels[t] for t, head in objective.scores.items() if head == TOKENS)
        return inputs, labels
