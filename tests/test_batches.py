"""Batches: each example once, few shapes, an order that follows from seed and epoch, and real training with filler."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskplay.batches import Batches, bucket_lengths
from maskplay.errors import UserError


def make(sizes, **options):
    """Example i has its own number i + 1 as its tokens, i as target, i + 0.5 as weight."""
    tokens = [[i + 1] * size for i, size in enumerate(sizes)]
    segments = [[i % 2] * size for i, size in enumerate(sizes)]
    return Batches(tokens, segments, np.arange(len(sizes)), np.arange(len(sizes)) + 0.5, **options)


def contents(batches):
    """Everything the batches say, as plain lists."""
    return [(x["tokens"].tolist(), x["segments"].tolist(), y.tolist(), w.tolist()) for x, y, w in batches]


def an_epoch(batches):
    """Read an epoch as Keras does."""
    batches.on_epoch_begin()
    found = contents(batches)
    batches.on_epoch_end()
    return found


sizes = st.lists(st.integers(1, 70), min_size=1, max_size=60)
options = st.fixed_dictionaries(
    {
        "batch_size": st.sampled_from([2, 4, 8]),
        "buckets": st.integers(1, 8),
        "shuffle": st.booleans(),
        "seed": st.integers(0, 3),
        "multiple_of": st.sampled_from([1, 2]),
    }
)


@settings(deadline=None)
@given(sizes=sizes, options=options, epoch=st.integers(0, 5))
def test_every_example_once_and_padded_right(sizes, options, epoch):
    batches = make(sizes, pad_id=7000, **options)
    batches.epoch = epoch
    seen, shapes = [], set()
    for inputs, targets, weights in batches:
        assert inputs["tokens"].dtype == inputs["segments"].dtype == np.int32 and weights.dtype == np.float32
        assert inputs["tokens"].shape == inputs["segments"].shape and len(targets) == len(weights)
        shapes.add(inputs["tokens"].shape)
        for tokens, segments, target, weight in zip(inputs["tokens"], inputs["segments"], targets, weights):
            if weight == 0:
                assert (tokens == 7000).all() and (segments == 0).all()
                continue
            size = sizes[target]
            assert weight == target + 0.5
            assert (tokens[:size] == target + 1).all() and (tokens[size:] == 7000).all()
            assert (segments[:size] == target % 2).all() and (segments[size:] == 0).all()
            seen.append(int(target))
    assert sorted(seen) == list(range(len(sizes)))
    assert seen == [i for i in batches.order if i >= 0]
    assert shapes == batches.shapes
    assert {length for _, length in shapes} <= set(batches.lengths) and len(batches.lengths) <= options["buckets"]
    rows = [rows for rows, _ in shapes]
    assert all(r % options["multiple_of"] == 0 and r <= options["batch_size"] for r in rows)
    assert sum(1 for x, _, _ in batches if len(x["tokens"]) < options["batch_size"]) <= 1
    assert len(batches) == -(-len(sizes) // options["batch_size"])


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=12), count=st.integers(1, 4))
def test_bucket_lengths_are_the_best(sizes, count):
    """Against trying every choice of lengths."""
    sizes = np.array(sizes)
    lengths = bucket_lengths(sizes, count)
    assert lengths == sorted(set(lengths)) and len(lengths) <= count and lengths[-1] == sizes.max()
    assert all(length % 8 == 0 for length in lengths[:-1])

    def padded(lengths):
        return np.array(lengths)[np.searchsorted(lengths, sizes)].sum()

    candidates = range(8, int(sizes.max()), 8)
    best = min(
        padded([*chosen, sizes.max()])
        for n in range(min(count, len(candidates) + 1))
        for chosen in itertools.combinations(candidates, min(n, 2))
    )
    assert padded(lengths) <= best and (count > 3 or padded(lengths) == best)


def test_buckets_save_padding_and_one_bucket_is_the_longest():
    generator = np.random.default_rng(0)
    sizes = generator.integers(4, 128, 400)
    area = {n: sum(x["tokens"].size for x, _, _ in make(sizes, batch_size=16, buckets=n)) for n in (1, 6)}
    assert area[1] == 400 * max(sizes) and area[6] < 0.65 * area[1]
    assert make(sizes, buckets=1).lengths == [max(sizes)]


def test_the_order_follows_from_seed_and_epoch_alone():
    sizes = np.random.default_rng(1).integers(1, 60, 50)
    one = make(sizes, batch_size=4, seed=3)
    epochs = [an_epoch(one) for _ in range(3)]
    assert one.epoch == 3 and epochs[0] != epochs[1] != epochs[2]
    two = make(sizes, batch_size=4, seed=3)
    for epoch in (2, 0, 1, 2):  # whatever was read before
        two.epoch = epoch
        assert contents(two) == epochs[epoch]
    assert contents(make(sizes, batch_size=4, seed=4)) != epochs[0]
    steady = make(sizes, batch_size=4, shuffle=False)
    assert an_epoch(steady) == an_epoch(steady) and steady.epoch == 2


def test_shuffling_moves_rows_and_batches():
    """Within a length rows mix, and lengths do not come in a row."""
    sizes = [5] * 32 + [20] * 32
    batches = make(sizes, batch_size=4)
    lengths = [x["tokens"].shape[1] for x, _, _ in batches]
    assert lengths != sorted(lengths) and sorted(lengths) == [8] * 8 + [20] * 8
    assert any(max(y) - min(y) > 4 for _, y, _ in batches)


def test_going_on_in_the_middle_of_an_epoch():
    sizes = np.random.default_rng(1).integers(1, 60, 30)
    whole = make(sizes, batch_size=4)
    epochs = [an_epoch(whole), an_epoch(whole)]
    resumed = make(sizes, batch_size=4)
    resumed.start = 5
    assert len(resumed) == len(epochs[0]) - 5
    assert an_epoch(resumed) == epochs[0][5:]
    assert (resumed.epoch, resumed.start) == (1, 0)
    assert an_epoch(resumed) == epochs[1]


def test_an_epoch_ends_only_when_all_was_read():
    """Keras calls on_epoch_end when fit begins too, after a look at the first batch of an unbuilt model."""
    batches = make([3] * 20, batch_size=4)
    batches.on_epoch_end()
    batches.on_epoch_begin()
    batches[0]
    batches.on_epoch_end()
    assert batches.epoch == 0
    an_epoch(batches)
    assert batches.epoch == 1


def test_an_epoch_may_take_several_of_keras_own():
    """`steps_per_epoch`: our epoch ends with its last batch, whenever Keras says that one of its own does."""
    batches = make([3] * 20, batch_size=5)
    for half in range(4):
        batches.on_epoch_begin()
        for i in range(2):
            batches[2 * (half % 2) + i]
        batches.on_epoch_end()
        assert batches.epoch == (half + 1) // 2


@settings(deadline=None)
@given(sizes=sizes, world=st.sampled_from([2, 4]), multiple_of=st.sampled_from([1, 2]), epoch=st.integers(0, 2))
def test_processes_share_every_batch(sizes, world, multiple_of, epoch):
    ranks = [make(sizes, batch_size=8, shard=(r, world), multiple_of=multiple_of) for r in range(world)]
    for rank in ranks:
        rank.epoch = epoch
    whole = make(sizes, batch_size=8, multiple_of=multiple_of * world)
    whole.epoch = epoch
    for step, together in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        assert len({part[0]["tokens"].shape for part in parts}) == 1  # one shape, or the processes would hang
        for r, (x, y, w) in enumerate(parts):
            assert len(w) % multiple_of == 0
            assert (x["tokens"] == together[0]["tokens"][r::world]).all()
            assert (y == together[1][r::world]).all() and (w == together[2][r::world]).all()
    taken = np.concatenate([rank.order for rank in ranks])
    assert sorted(taken[taken >= 0]) == list(range(len(sizes)))


def test_exactly_full_batches():
    batches = make([3, 30] * 5, batch_size=4, multiple_of=4)
    assert {rows for rows, _ in batches.shapes} == {4}
    assert sum((w == 0).sum() for _, _, w in batches) == 2


def test_what_is_not_there_is_left_out():
    (inputs,) = Batches([[1, 2]])[0]
    assert inputs["segments"].tolist() == [[0, 0]]
    assert len(Batches([[1]], targets=[0.5])[0]) == 2
    _, targets, weights = Batches([[1]], targets=[[1, 2]], batch_size=2, multiple_of=2)[0]
    assert targets.tolist() == [[1, 2], [1, 2]] and weights.tolist() == [1, 0]


def test_restore():
    sizes = np.random.default_rng(1).integers(1, 60, 21)
    batches = make(sizes, batch_size=4, shuffle=False, multiple_of=4)
    predicted = np.concatenate([x["tokens"][:, :1] * 10 for x, _, _ in batches])
    assert len(predicted) == 24 and (batches.restore(predicted)[:, 0] == np.arange(1, 22) * 10).all()
    for wrong in (make(sizes, batch_size=4), make(sizes, batch_size=4, shuffle=False, shard=(0, 2))):
        with pytest.raises(UserError, match="expected predictions for all"):
            wrong.restore(predicted)
    with pytest.raises(UserError, match="all 24 rows .* found 3"):
        batches.restore(predicted[:3])


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (([],), {}, "at least one example"),
        (([[1]], [[0, 0]]), {}, "segments: expected as many as tokens"),
        (([[1]], None, [1, 2]), {}, r"targets: expected 1, one an example, found \(2,\)"),
        (([[1]], None, None, 3.0), {}, r"weights: expected 1, one an example, found \(\)"),
        (([[1]],), {"shard": (2, 2)}, "rank < world"),
        (([[1]],), {"batch_size": 6, "multiple_of": 4}, "batch_size: expected a multiple of 4"),
        (([[1]],), {"batch_size": 4, "multiple_of": 2, "shard": (0, 4)}, "a multiple of 8"),
        (([[1]],), {"batch_size": 0}, "batch_size: expected a whole number from 1 on, found 0"),
        (([[1]],), {"use_multiprocessing": True}, "use_multiprocessing: batches are made by threads"),
    ],
)
def test_numbers_that_do_not_fit(arguments, options, message):
    with pytest.raises(UserError, match=message):
        Batches(*arguments, **options)
    with pytest.raises(IndexError, match="batch 1 of 1"):
        Batches([[1]])[1]


# With Keras


def model_of_tokens(reduction="sum_over_batch_size"):
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("tokens", "segments")}
    hidden = keras.layers.Embedding(64, 8)(inputs["tokens"]) + keras.layers.Embedding(2, 8)(inputs["segments"])
    outputs = keras.layers.Dense(2)(keras.layers.GlobalMaxPooling1D()(hidden))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"], weighted_metrics=["accuracy"])
    return model


def learnable(n=67, **options):
    """Whether token 5 occurs; texts of many lengths."""
    random = np.random.default_rng(0)
    tokens = [[5 * (i % 2) + 1, *random.integers(10, 60, random.integers(1, 40))] for i in range(n)]
    return Batches(tokens, None, np.arange(n) % 2, **options)


def test_fit_evaluate_and_predict():
    keras.utils.set_random_seed(0)
    model = model_of_tokens()
    train = learnable(batch_size=8, buckets=2, multiple_of=4)
    model.fit(train, epochs=8, shuffle=False, verbose=0)
    assert train.epoch == 8
    check = learnable(batch_size=8, buckets=2, multiple_of=4, shuffle=False)
    result = model.evaluate(check, verbose=0, return_dict=True)
    assert result["weighted_accuracy"] > 0.95
    logits = check.restore(model.predict(check, verbose=0))
    plain = learnable(batch_size=1, buckets=1, shuffle=False)
    expected = np.concatenate([keras.ops.convert_to_numpy(model(plain[i][0])) for i in plain.order])
    assert (logits.argmax(-1) == expected.argmax(-1)).mean() == 1


def test_filler_rows_teach_nothing():
    """Training on filled-up batches gives the weights that the unfilled ones give, if the loss averages by weight."""
    trained = []
    for multiple_of in (1, 8):
        keras.utils.set_random_seed(0)
        model = model_of_tokens("mean_with_sample_weight")
        model.fit(learnable(n=13, batch_size=8, multiple_of=multiple_of), epochs=3, shuffle=False, verbose=0)
        trained.append([keras.ops.convert_to_numpy(w) for w in model.trainable_weights])
    for one, other in zip(*trained):
        np.testing.assert_allclose(one, other, atol=1e-5)


FOUR_DEVICES = """
import sys
sys.path[:0] = sys.argv[1:]
import jax, keras
from test_batches import learnable, model_of_tokens
assert len(jax.devices()) == 4
keras.distribution.set_distribution(keras.distribution.DataParallel())
keras.utils.set_random_seed(0)
model = model_of_tokens()
train = learnable(batch_size=8, buckets=2)
model.fit(train, epochs=8, shuffle=False, verbose=0)
check = learnable(batch_size=8, buckets=2, shuffle=False)
print("accuracy", model.evaluate(check, verbose=0, return_dict=True)["weighted_accuracy"])
print("restored", check.restore(model.predict(check, verbose=0)).shape)
try:
    model.fit(learnable(batch_size=8, multiple_of=1), shuffle=False, verbose=0)
except Exception as error:
    print("unfilled:", type(error).__name__)
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="simulated devices are JAX's")
def test_four_devices_and_a_last_batch_that_does_not_divide():
    here = Path(__file__).parent
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES, str(here), str(here.parent / "src")],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert float(lines["accuracy"]) > 0.95 and lines["restored"] == "(67, 2)"
    assert "Error" in lines["unfilled:"]  # the control: without filler Keras refuses the last batch
