"""Encoded texts in batches: padded, in few shapes, shuffled, shared out among processes.

Texts of like length share a batch. There are at most `buckets` lengths, chosen so that the fewest padding tokens arise;
each new shape costs JAX a compilation. What does not fill a batch of its length moves up to the next one, so an epoch
has one batch that is not full. The order follows from (seed, epoch) alone.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import keras
import numpy as np

from maskplay.errors import UserError, whole_number
from maskplay.hosts import sharing_devices

__all__ = ["Batches", "bucket_lengths"]

STEP = 8  # lengths are multiples of it, except the longest


class Batches(keras.utils.PyDataset):
    """What `fit`, `evaluate` and `predict` of a Keras model read: `({"tokens", "segments"}, targets, weights)`.

    Tokens and segments are int32 `(rows, length)`, padded on the right; targets keep their dtype, weights are float32
    `(rows,)`. Targets or weights that do not exist are left out.

    Give `shuffle=False` to `fit`: the order is drawn here, and Keras would shuffle the batches once more, by a
    generator of its own. Where some rows are filler, a loss with `reduction="mean_with_sample_weight"` averages over
    the others; Keras' default divides by the number of rows.

    Args:
        tokens: for each example its token ids.
        segments: for each example as many segment ids; default all 0.
        targets: for each example a number or an array, all of one shape.
        weights: for each example its weight in loss and metrics.
        batch_size: rows of a batch, over all processes.
        buckets: most different lengths; 1 pads every batch to the longest example.
        shuffle: draw a new order each epoch; otherwise batches are the same in each.
        seed: of the order.
        pad_id: the padding token.
        multiple_of: fill up batches with rows of weight 0 to a multiple of this; with `batch_size` every batch has
            exactly as many rows. Default: the devices that share a batch under the current `keras.distribution`.
        shard: `(rank, world)`, this process among how many. All get batches of the same shape at the same step; each
            example goes to one of them.
        **kwargs: `workers` and its companions of `keras.utils.PyDataset`.

    Attributes:
        epoch: which epoch's order is served, from 0; goes up when one ends, may be set. (The first `fit` of a model
            that is not built reads a batch ahead, with `workers` several; that may count as an epoch that is short.)
        start: how many batches of the epoch to skip, to go on in the middle of one; 0 again when it ends.
        lengths: the lengths that occur, ascending.

    Raises:
        UserError: no examples, or numbers that do not fit together.

    Example:
        >>> batches = Batches([[2, 5, 3], [2, 6, 7, 3], [2, 3]], targets=[0, 1, 0], batch_size=2, shuffle=False)
        >>> inputs, targets = batches[0]
        >>> inputs["tokens"].tolist(), targets.tolist()
        ([[2, 5, 3, 0], [2, 6, 7, 3]], [0, 1])
        >>> len(batches)
        2
    """

    def __init__(
        self,
        tokens: Sequence[Sequence[int]],
        segments: Sequence[Sequence[int]] | None = None,
        targets: Any = None,
        weights: Any = None,
        *,
        batch_size: int = 32,
        buckets: int = 6,
        shuffle: bool = True,
        seed: int = 0,
        pad_id: int = 0,
        multiple_of: int | None = None,
        shard: tuple[int, int] = (0, 1),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rank, self.world = shard
        if not len(tokens):
            raise UserError("expected at least one example, found none")
        if self.use_multiprocessing:  # which copies this: nothing here would know when an epoch ends
            raise UserError("use_multiprocessing: batches are made by threads here; give workers alone")
        if not 0 <= self.rank < self.world:
            raise UserError(f"shard: expected (rank, world) with 0 <= rank < world, found {shard}")
        if multiple_of is None:
            multiple_of = max(sharing_devices() // self.world, 1)
        batch_size, buckets = whole_number("batch_size", batch_size, 1), whole_number("buckets", buckets, 1)
        multiple_of, seed = whole_number("multiple_of", multiple_of, 1), whole_number("seed", seed, 0)
        if batch_size % (multiple_of * self.world):
            raise UserError(
                f"batch_size: expected a multiple of {multiple_of * self.world} (multiple_of x processes), "
                f"found {batch_size}"
            )
        sizes = [len(row) for row in tokens]
        self._sizes = np.array(sizes, "int64")
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._tokens = _flat(tokens)
        self._segments = np.zeros_like(self._tokens) if segments is None else _flat(segments)
        self._targets = None if targets is None else np.asarray(targets)
        self._weights = None if weights is None else np.asarray(weights, "float32")
        if segments is not None and [len(row) for row in segments] != sizes:
            raise UserError("segments: expected as many as tokens in every example")
        for name, values in (("targets", self._targets), ("weights", self._weights)):
            if values is not None and (not values.ndim or len(values) != len(sizes)):
                raise UserError(f"{name}: expected {len(sizes)}, one an example, found {values.shape}")
        self.batch_size, self.multiple_of = batch_size, multiple_of
        self.shuffle, self.seed, self.pad_id = shuffle, seed, pad_id
        self.lengths = bucket_lengths(self._sizes, buckets)
        self.epoch = self.start = 0
        self._ended = False  # whether the last batch of the epoch was read
        self._planned: tuple[int, list[tuple[int, np.ndarray]]] = (-1, [])

    # What Keras calls

    def __len__(self) -> int:
        return max(len(self._plan()) - self.start, 0)

    def __getitem__(self, index: int) -> tuple[Any, ...]:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        self._ended |= index == len(self) - 1
        length, rows = self._plan()[self.start + index]
        rows = self._mine(rows)
        inside = np.arange(length) < np.where(rows < 0, 0, self._sizes[rows])[:, None]
        places = (self._starts[rows][:, None] + np.arange(length))[inside]
        inputs = {}
        for name, values, empty in (("tokens", self._tokens, self.pad_id), ("segments", self._segments, 0)):
            inputs[name] = np.full(inside.shape, empty, "int32")
            inputs[name][inside] = values[places]
        if self._targets is None:
            return (inputs,)
        if self._weights is None and self.multiple_of * self.world == 1:
            return inputs, self._targets[rows]
        weights = np.ones(len(rows), "float32") if self._weights is None else self._weights[rows]
        return inputs, self._targets[rows], np.where(rows < 0, np.float32(0), weights)

    def on_epoch_begin(self) -> None:
        self._ended = False

    def on_epoch_end(self) -> None:
        # Keras also calls this when `fit` begins, and with `steps_per_epoch` in the middle of ours.
        if self._ended:
            self.epoch, self.start, self._ended = self.epoch + 1, 0, False

    def may_begin(self, batch: int) -> bool:
        """Whether a run can go on with this batch of the epoch under every backend: TensorFlow takes from the first two
        which dimensions vary."""
        lengths = [length for length, _ in self._plan()[batch:]]
        return len(set(lengths)) < 2 or lengths[0] != lengths[1]

    # The order

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """The shapes `(rows, length)` of the epoch's batches, as this process gets them."""
        return {(len(self._mine(rows)), length) for length, rows in self._plan()}

    @property
    def order(self) -> np.ndarray:
        """For each row of the batches to come, one after the other, which example it is; -1 for filler."""
        return np.concatenate([self._mine(rows) for _, rows in self._plan()[self.start :]])

    def restore(self, rows: np.ndarray) -> np.ndarray:
        """Put what a model predicted for all rows, filler included, into the order of the examples.

        Args:
            rows: `(rows, ...)`, as `model.predict(batches)` returns it.

        Raises:
            UserError: the batches are shuffled, begin in the middle, or are one process's share.
        """
        order = self.order
        if self.shuffle or self.start or self.world > 1 or len(rows) != len(order):
            raise UserError(
                f"expected predictions for all {len(order)} rows of batches that are not shuffled or shared, "
                f"found {len(rows)}"
            )
        restored = np.empty((len(self._sizes), *rows.shape[1:]), rows.dtype)
        restored[order[order >= 0]] = rows[order >= 0]
        return restored

    def _plan(self) -> list[tuple[int, np.ndarray]]:
        """The batches of this epoch over all processes, `(length, examples)`."""
        epoch = self.epoch if self.shuffle else 0
        if self._planned[0] != epoch:
            self._planned = epoch, self._draw(epoch)
        return self._planned[1]

    def _draw(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        random = np.random.default_rng([self.seed, epoch])
        bucket = np.searchsorted(self.lengths, self._sizes)
        plan, left = [], np.array([], "int64")
        for place, length in enumerate(self.lengths):
            rows = np.flatnonzero(bucket == place)
            rows = np.concatenate([left, random.permutation(rows) if self.shuffle else rows])
            full = len(rows) - len(rows) % self.batch_size
            plan += [(length, batch) for batch in rows[:full].reshape(-1, self.batch_size)]
            left = rows[full:]
        if len(left):
            plan.append((self.lengths[bucket[left].max()], left))
        if self.shuffle:
            plan = [plan[i] for i in random.permutation(len(plan))]
        # TensorFlow takes from the first two batches which dimensions vary.
        other = next((i for i, (length, _) in enumerate(plan) if length != plan[0][0]), None)
        if other is not None:
            plan.insert(1, plan.pop(other))
        return plan

    def _mine(self, rows: np.ndarray) -> np.ndarray:
        """This process's share of a batch, filled up with -1."""
        return np.pad(rows, (0, -len(rows) % (self.multiple_of * self.world)), constant_values=-1)[
            self.rank :: self.world
        ]


def bucket_lengths(sizes: Any, count: int) -> list[int]:
    """The at most `count` batch lengths that leave the least padding, if every example goes to the next longer one.

    Args:
        sizes: the examples' lengths, ints `(examples,)`.
        count: at least 1.

    Returns:
        Ascending multiples of 8; the last may be any number, the longest example's length.

    Example:
        >>> bucket_lengths([5, 6, 7, 30, 31, 100], 3)
        [8, 32, 100]
    """
    sizes = np.maximum(sizes, 1)
    rounded = np.minimum(-(-sizes // STEP) * STEP, sizes.max())
    lengths, counts = np.unique(rounded, return_counts=True)
    upto = np.cumsum(counts)
    # cost[i, j]: tokens in all, if examples of lengths i to j are padded to length j
    cost = np.where(
        np.tri(len(lengths), dtype=bool).T, lengths * (upto - (upto - counts)[:, None]).astype("float64"), np.inf
    )
    best, firsts = cost[0], []
    for _ in range(min(count, len(lengths)) - 1):
        total = best[:-1, None] + cost[1:]  # the last bucket begins one place after where the others end
        firsts.append(total.argmin(axis=0))
        best = total.min(axis=0)
    chosen, end = [], len(lengths) - 1
    for first in reversed(firsts):
        chosen.append(int(lengths[end]))
        end = int(first[end])
    return [*reversed([*chosen, int(lengths[end])])]


def _flat(rows: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), "int32")
