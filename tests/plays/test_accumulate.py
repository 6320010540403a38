"""Pretrain with accumulated gradients: several batches are one large one, whichever of them ask for how many tokens."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import maskplay as mp
from maskplay import pretext
from maskplay.plays.pretrain import Steps
from plays.test_pretrain import TOKENIZER, bert, cycle, play

OBJECTIVES = {"mlm": 0.5, "unilm": 1.0}
TOGETHER = 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pretext.Prepared:
    return pretext.prepare([cycle(0)], tmp_path_factory.mktemp("cycle") / "tokens", TOKENIZER)


def moved(batches: Any, accumulate: int | None) -> np.ndarray:
    """How far one step of plain descent moves all weights, from the same start."""
    made = play(bert(), OBJECTIVES)
    made.compile(keras.optimizers.SGD(1.0, gradient_accumulation_steps=accumulate))
    before = [ops.convert_to_numpy(weight) for weight in made.trainable_weights]
    for batch in batches:
        made.train_on_batch(*batch)
    after = [ops.convert_to_numpy(weight) for weight in made.trainable_weights]
    return np.concatenate([(one - other).ravel() for one, other in zip(after, before)])


def test_batches_together_are_one_large_batch(corpus) -> None:
    made = play(bert(), OBJECTIVES, mask_rate=0.3)
    steps = Steps(made, corpus, batch_size=2, steps=2 * TOGETHER, accumulate=TOGETHER)
    steps.start = TOGETHER  # the second step of the weights
    parts = [steps[i] for i in range(TOGETHER)]
    asked = np.array([[(labels[name] != -100).sum() for name in OBJECTIVES] for _, labels in parts])
    assert (asked.std(axis=0) > 0).all()  # or there is nothing to show
    for i, (inputs, _) in enumerate(parts):
        for name, expected in zip(OBJECTIVES, asked[i] / asked.mean(axis=0)):
            np.testing.assert_allclose(inputs[name]["share"], [expected] * 2, rtol=1e-6)
    plain = [Steps(made, corpus, batch_size=2, steps=2 * TOGETHER)[TOGETHER + i] for i in range(TOGETHER)]
    assert all("share" not in one for inputs, _ in plain for one in inputs.values())
    large = keras.tree.map_structure(lambda *each: np.concatenate(each), *plain)
    wanted = moved([large], None)
    size = np.abs(wanted).max()
    assert np.abs(moved(parts, TOGETHER) - wanted).max() < 1e-5 * size
    assert np.abs(moved(plain, TOGETHER) - wanted).max() > 1e-2 * size  # the mean of the batches' means is another


def test_the_loss_shown_is_that_of_all_tokens(corpus) -> None:
    made = play(bert(), "unilm")
    made.compile(keras.optimizers.SGD(0.0, gradient_accumulation_steps=TOGETHER))
    counts = {"corpus": corpus, "batch_size": 2, "steps": TOGETHER}
    shown = made.fit(Steps(made, **counts, accumulate=TOGETHER), verbose=0).history["loss"][0]
    losses, asked = [], []
    for i in range(TOGETHER):
        inputs, labels = Steps(made, **counts)[i]
        losses.append(made.test_on_batch(inputs, labels, return_dict=True)["loss"])
        asked.append((labels["unilm"] != -100).sum())
    assert shown == pytest.approx(np.average(losses, weights=asked), rel=1e-5)
    assert shown != pytest.approx(np.mean(losses), rel=1e-5)


def test_processes_hold_the_share_of_the_whole_batch(corpus) -> None:
    made = play(bert(), "unilm")
    whole, *parts = (
        Steps(made, corpus, batch_size=4, steps=4, accumulate=2, shard=shard)[1][0]["unilm"]["share"]
        for shard in ((0, 1), (0, 2), (1, 2))
    )
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_held_out_batches_stand_alone_and_logits_cannot_be_shared_out(corpus) -> None:
    made = play(bert(), "mlm")
    train, dev = made.steps(corpus, batch_size=2, steps=4, held_out=0.1, accumulate=2)
    assert "share" in train[0][0]["mlm"] and "share" not in dev[0][0]["mlm"]
    bare = {name: value for name, value in train[0][0]["mlm"].items() if name != "labels"}
    assert made({"mlm": bare})["mlm"].shape[-1] == len(TOKENIZER)
    with pytest.raises(mp.UserError, match="found a play with logits=True"):
        Steps(play(bert(), "mlm", logits=True), corpus, accumulate=2)
    with pytest.raises(mp.UserError, match="accumulate: expected a whole number from 1 on, found 0"):
        Steps(made, corpus, accumulate=0)
    with pytest.raises(mp.UserError, match="steps: expected a multiple of accumulate, 4; found 10"):
        made.steps(corpus, steps=10, accumulate=4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_shares_are_exact_in_half_precision(corpus, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        made = play(bert(), "unilm")
        inputs, _ = Steps(made, corpus, batch_size=2, steps=TOGETHER, accumulate=TOGETHER)[0]
        share = inputs["unilm"].pop("share")[0]
        plain, shared = (
            ops.convert_to_numpy(made({"unilm": {**inputs["unilm"], **more}})["unilm"])[..., 0]
            for more in ({}, {"share": np.full(2, share)})
        )
        half = ops.cast(ops.cast(share, policy.removeprefix("mixed_")), "float32")
        assert ops.convert_to_numpy(half) != share  # or there is nothing to show
        np.testing.assert_allclose(shared, plain * share, rtol=1e-6)
    finally:
        keras.config.set_dtype_policy("float32")


def test_what_does_not_fit_the_batches_is_refused(corpus) -> None:
    made = play(bert(), "mlm")
    train = Steps(made, corpus, batch_size=2, steps=4, accumulate=2)
    with pytest.raises(mp.UserError, match="for steps of 2, the optimizer's gradient_accumulation_steps is 1;"):
        made.fit(train, verbose=0)
    optimizer = mp.optimizers.Lookahead(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    made.compile(optimizer, mp.losses.TokenCrossEntropy(reduction="sum"))
    with pytest.raises(mp.UserError, match="loss of mlm: .* 'mean_with_sample_weight', found 'sum'"):
        made.fit(train, verbose=0)
    made.compile(optimizer)
    made.fit(train, verbose=0)
    assert int(optimizer.real_steps) == 2
