"""Pretrain: each objective sees what it may see, is scored by what it should, and learns what there is to learn."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import maskplay as mp
from maskplay import pretext
from maskplay.callbacks import Resume
from maskplay.objectives import OBJECTIVES
from maskplay.plays.pretrain import Steps
from test_callbacks import Stop

ALPHABET = "天地玄黄宇宙洪荒日月盈昃"
LENGTH = 32


def cycle(seed: int, count: int = 200) -> list[str]:
    """Stretches of one endless round: every character follows from its neighbours."""
    draw = np.random.default_rng(seed)
    return [(ALPHABET * 4)[start : start + size] + "。" for start, size in draw.integers((0, 8), (12, 30), (count, 2))]


def noise(seed: int, count: int = 200) -> list[str]:
    """The control: nothing follows from anything."""
    draw = np.random.default_rng(seed)
    return ["".join(draw.choice([*ALPHABET], size)) + "。" for size in draw.integers(8, 30, count)]


TOKENIZER = mp.Tokenizer.from_characters(cycle(0), max_size=100)


def bert(seed: int = 0, heads=("pooler", "nsp", "mlm"), **changes) -> mp.Pretrained:
    keras.utils.set_random_seed(seed)
    sizes = dict(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, initializer_range=0.1)
    config = mp.Config(vocab_size=len(TOKENIZER), position="rotary", dropout=0.0, attention_dropout=0.0, **sizes)
    return mp.Pretrained(mp.LanguageModel(config.but(**changes), heads), TOKENIZER, "roformer")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pretext.Prepared:
    return pretext.prepare([cycle(0), cycle(1)], tmp_path_factory.mktemp("cycle") / "tokens", TOKENIZER)


@pytest.fixture(scope="module")
def model() -> mp.Pretrained:
    """For tests that leave its weights alone."""
    return bert()


def play(model: mp.Pretrained, objective, **options) -> mp.plays.Pretrain:
    return mp.plays.Pretrain(model, objective, **({"length": LENGTH} | options))


def outputs(made: mp.plays.Pretrain, inputs) -> dict[str, np.ndarray]:
    """Logits: those of a play that is not told the labels."""
    bare = {name: {key: value for key, value in one.items() if key != "labels"} for name, one in inputs.items()}
    return {name: ops.convert_to_numpy(value) for name, value in made(bare).items()}


@pytest.mark.parametrize("objective", [name for name, made in OBJECTIVES.items() if not made.pairs])
def test_shapes_and_targets(model, corpus, objective: str) -> None:
    made = play(model, objective)
    batches = Steps(made, corpus, batch_size=4, steps=3)
    assert len(batches) == 3
    inputs, labels = batches[1]
    found = outputs(made, inputs)
    assert found.keys() == labels.keys() == {*OBJECTIVES[objective].scores}
    for name, scores in found.items():
        wide = 2 if name in ("sop", "nsp") else model.config.vocab_size
        assert scores.shape == (*((4, wide) if wide == 2 else (*labels[name].shape, wide)),)
        if wide > 2:
            counted = labels[name] != -100
            assert counted.any(axis=1).all()
            tokens = inputs[objective]["tokens"]
            at = inputs[objective].get("at", np.broadcast_to(np.arange(LENGTH), (4, LENGTH)))
            assert (np.take_along_axis(inputs[objective]["documents"], at, axis=1)[counted] > 0).all()
            if objective == "unilm":  # the second half alone, and its end
                segments = inputs[objective]["segments"]
                assert (np.roll(segments, -1, axis=1)[counted] == 1).all()
                assert (counted.sum(axis=1) == segments.sum(axis=1)).all()
            if objective == "lm":
                assert (tokens[:, 1:][counted[:, :-1]] == labels[name][:, :-1][counted[:, :-1]]).all()
    # What a step is follows from its number and the seed alone.
    again = Steps(made, corpus, batch_size=4, steps=3)
    again.epoch, again.start = 0, 1
    for one, other in zip(keras.tree.flatten(again[0]), keras.tree.flatten((inputs, labels))):
        np.testing.assert_array_equal(one, other)
    other, _ = Steps(made, corpus, batch_size=4, steps=3, seed=1)[1]
    assert (other[objective]["tokens"] != inputs[objective]["tokens"]).any()


@pytest.mark.parametrize("objective", ["mlm", "lm", "permuted", "unilm"])
def test_who_sees_whom(model, corpus, objective: str) -> None:
    """A token is changed: nothing changes where it may not be seen, something where it may."""
    made = play(model, objective)
    inputs, _ = Steps(made, corpus, batch_size=4, steps=1, seed=3)[0]
    inputs = {objective: {name: value for name, value in inputs[objective].items() if name not in ("at", "labels")}}
    facts = inputs[objective]
    before = outputs(made, inputs)[objective]
    at = 7
    changed = facts["tokens"].copy()
    changed[:, at] = 5 + (changed[:, at] - 4) % 40
    after = outputs(made, {objective: {**facts, "tokens": changed}})[objective]
    moved = np.abs(after - before).max(axis=-1) > 1e-6
    same = facts["documents"] == facts["documents"][:, at : at + 1]
    if objective == "lm":
        allowed = same & (np.arange(LENGTH) >= at)
    elif objective == "permuted":
        allowed = same & (facts["order"] >= facts["order"][:, at : at + 1])
    elif objective == "unilm":
        segments = facts["segments"]
        allowed = same & ((segments[:, at : at + 1] == 0) | ((segments == 1) & (np.arange(LENGTH) >= at)))
    else:
        allowed = same
    np.testing.assert_array_equal(moved, allowed & (changed != facts["tokens"]).any(axis=1, keepdims=True))


@pytest.mark.parametrize("objective", [name for name, made in OBJECTIVES.items() if not made.alone])
def test_a_packed_row_is_its_pieces_alone(model, objective: str, tmp_path: Path) -> None:
    short = pretext.prepare([[line[:6]] for line in cycle(2, 40)], tmp_path / "tokens", TOKENIZER)
    made = play(model, objective)
    batches = Steps(made, short, batch_size=2, steps=1)
    assert batches.filled > 0.75
    facts = batches[0][0][objective]
    facts = {name: value for name, value in facts.items() if name not in ("at", "labels")}
    assert facts["documents"].max() >= 3
    together = outputs(made, {objective: facts})[objective]
    for row in range(2):
        for document in range(1, facts["documents"][row].max() + 1):
            mine = facts["documents"][row] == document
            alone = {name: value[row : row + 1, mine] for name, value in facts.items() if name != "positions"}
            np.testing.assert_allclose(outputs(made, {objective: alone})[objective][0], together[row, mine], atol=1e-5)


def test_loss_and_accuracy_are_those_of_the_targets(model, corpus) -> None:
    made = play(model, {"mlm+sop": 0.7, "lm": 0.3})
    made.compile(keras.optimizers.SGD(0.0))
    batches = Steps(made, corpus, batch_size=8, steps=1, fixed=True)
    inputs, labels = batches[0]
    found = outputs(made, inputs)
    losses, right = {}, {}
    for name, scores in found.items():
        scores = scores.reshape(-1, scores.shape[-1]).astype("float64")
        label = labels[name].reshape(-1)
        counted = label != -100
        scores, label = scores[counted], label[counted]
        losses[name] = (np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(label)), label]).mean()
        right[name] = (scores.argmax(axis=1) == label).mean()
    measured = made.evaluate(batches, verbose=0, return_dict=True)
    expected = 0.7 * losses["mlm"] + 0.7 * losses["sop"] + 0.3 * losses["lm"]
    assert measured["loss"] == pytest.approx(expected, abs=1e-5)
    for name, share in right.items():
        assert measured[f"{name}_accuracy"] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("objective", ["mlm+sop", "lm"])
def test_losses_without_logits_teach_what_losses_of_logits_do(corpus, objective: str) -> None:
    """One step of each kind, and one of plain cross-entropy over logits, from the same weights."""
    after = []
    for logits in (False, True):
        model = bert(4)
        made = play(model, objective, logits=logits)
        made.compile(keras.optimizers.SGD(1.0))
        made.fit(Steps(made, corpus, batch_size=8, steps=1), verbose=0)
        after.append([ops.convert_to_numpy(weight) for weight in model.network.weights])
    for one, other in zip(*after):
        np.testing.assert_allclose(one, other, atol=2e-6)
    start = [ops.convert_to_numpy(weight) for weight in bert(4).network.weights]
    assert max(np.abs(one - other).max() for one, other in zip(start, after[0])) > 1e-3


def test_tricks_that_compare_scores_ask_for_them(model, corpus) -> None:
    tricks = mp.regularization.RDrop(), mp.regularization.VirtualAdversarial("embedding/token")
    for trick in tricks:
        with pytest.raises(mp.UserError, match=f"{type(trick).__name__} compares scores; make Pretrain with"):
            mp.regularization.regularize(play(model, "mlm"), trick)
    mp.regularization.regularize(play(model, "mlm"), mp.regularization.FGM("embedding/token"))
    made = mp.regularization.regularize(play(model, "mlm", logits=True), tricks[0])
    train, _ = made.steps(corpus, batch_size=4, steps=1)
    assert np.isfinite(made.fit(train, verbose=0).history["loss"][0])


@pytest.mark.parametrize("objective, name", [("mlm+sop", "sop"), ("mlm+nsp", "nsp")])
def test_halves_in_their_order_or_not(model, objective: str, name: str, tmp_path: Path) -> None:
    lines = noise(5, 600)
    corpus = pretext.prepare([lines], tmp_path / "tokens", TOKENIZER)
    rows = pretext.Packed(corpus, room=96, specials=3, shared=False, whole=True)
    real = {bytes(corpus.ids[begin:end].astype("uint8")) for begin, end in zip(rows.begins, rows.ends)}
    sentences = {bytes(TOKENIZER.ids([*line])) for line in lines}
    made = play(model, objective, mask_rate=0.01, length=96)
    inputs, labels = Steps(made, corpus, batch_size=64, steps=1)[0]
    wrong, asked = labels[name][:, 0] == 1, labels[name][:, 0] != -100
    assert (asked.mean() > 0.9 if name == "nsp" else asked.all()) and 15 < wrong.sum() < 49
    few = np.array([Steps(made, corpus, batch_size=4, steps=500)[i][1][name] for i in range(500)])
    assert abs(np.mean(few[few != -100]) - 0.5) < 0.035  # three standard deviations
    facts, kept, exchanged = inputs[objective], [], []
    for i in range(64):
        tokens = facts["tokens"][i].copy()
        mine = labels["mlm"][i] != -100
        tokens[facts["at"][i][mine]] = labels["mlm"][i][mine]
        one, two = (tokens[(tokens > 4) & (facts["segments"][i] == segment)] for segment in (0, 1))
        kept.append(bytes([*one, *two]) in real)
        exchanged.append(bytes([*two, *one]) in real)
        # A mark in the middle of a sentence would tell: both halves are whole ones.
        for half in (one, two):
            ends = np.flatnonzero(half == TOKENIZER.vocab["。"]) + 1
            assert ends[-1] == len(half) and {bytes([*part]) for part in np.split(half, ends)[:-1]} <= sentences
    assert np.array_equal(kept, ~wrong)
    assert name == "nsp" or np.array_equal(exchanged, wrong)
    filled = (facts["tokens"] > 0).sum(axis=1)  # which must not tell one from the other
    assert abs(filled[wrong].mean() - filled[~wrong].mean()) < 8


def test_a_single_sentence_is_not_asked_about(model, tmp_path: Path) -> None:
    corpus = pretext.prepare([[line] for line in noise(5)], tmp_path / "tokens", TOKENIZER)
    for objective, name in (("mlm+sop", "sop"), ("mlm+nsp", "nsp")):
        made = play(model, objective)
        made.compile()
        inputs, labels = Steps(made, corpus, batch_size=64, steps=1)[0]
        assert (labels[name] == -100).all() and (inputs[objective]["segments"] == 1).any(axis=1).all()
        assert np.isfinite(made.evaluate(Steps(made, corpus, batch_size=64, steps=1), verbose=0)).all()


def learnt(lines: list[str], folder: Path, objective: str = "mlm", steps: int = 240) -> dict[str, float]:
    model = bert(3)
    made = mp.plays.Pretrain(model, objective, length=LENGTH)
    made.compile(mp.optimizers.adamw(1e-2, steps))
    corpus = pretext.prepare([lines], folder / "tokens", TOKENIZER)
    train, dev = made.steps(corpus, batch_size=32, steps=steps, held_out=0.2)
    made.fit(train, verbose=0)
    return made.evaluate(dev, verbose=0, return_dict=True)


def test_it_learns_what_there_is_to_learn(tmp_path: Path) -> None:
    found = learnt(cycle(0), tmp_path / "cycle")
    assert found["accuracy"] > 0.88  # where a stretch begins and ends cannot be known
    assert learnt(noise(0), tmp_path / "noise")["accuracy"] < 0.3


def by_heart(folder: Path, steps: int = 150) -> float:
    """How much of 200 sentences a network knows after so many steps with ever new blanks."""
    made = play(bert(3, heads=["mlm"], hidden_size=64, intermediate_size=128), "mlm")
    made.compile(mp.optimizers.adamw(5e-3, steps))
    texts = [[sentence] for sentence in cycle(2)]
    corpus = pretext.prepare(texts, folder / "tokens", TOKENIZER)
    train, _ = made.steps(corpus, batch_size=32, steps=steps, held_out=0.01)
    made.fit(train, verbose=0)
    return made.evaluate(train, steps=20, verbose=0, return_dict=True)["accuracy"]


def test_two_hundred_sentences_by_heart(tmp_path: Path, monkeypatch) -> None:
    assert by_heart(tmp_path / "true") > 0.95

    def random_labels(*given, masked=pretext.masked):
        tokens, at, labels = masked(*given)
        return tokens, at, np.where(labels == -100, labels, given[5].choice(given[3], labels.shape)).astype("int32")

    monkeypatch.setattr("maskplay.pretext.masked", random_labels)
    assert by_heart(tmp_path / "control") < 0.3


def test_a_language_model_learns(tmp_path: Path) -> None:
    # The first character of a stretch and where it ends cannot be known.
    assert learnt(cycle(0), tmp_path / "cycle", "lm", 150)["accuracy"] > 0.75


def test_another_reduction_and_no_other_loss(corpus) -> None:
    made, plain = play(bert(1), "mlm"), play(bert(1), "mlm")
    made.compile("sgd", {"mlm": mp.losses.TokenCrossEntropy(reduction="sum")}, loss_weights={"mlm": 1 / 64})
    plain.compile("sgd")
    inputs, labels = Steps(made, corpus, batch_size=4, steps=1)[0]
    counted = sum((each != -100).sum() for each in labels.values())
    found, mean = (each.test_on_batch(inputs, labels, return_dict=True)["loss"] for each in (made, plain))
    assert found == pytest.approx(mean * counted / 64, rel=1e-5)
    with pytest.raises(mp.UserError, match="loss of mlm: expected a TokenCrossEntropy, found 'mse'"):
        made.compile("sgd", "mse")


@pytest.mark.parametrize("optimizer", [mp.optimizers.adamw, mp.optimizers.lamb, mp.optimizers.muon])
def test_the_heads_of_others_are_left_alone(corpus, optimizer) -> None:
    model = bert(1)
    before = {w.path: np.array(ops.convert_to_numpy(w)) for w in model.network.trainable_weights}
    made = play(model, "mlm")
    made.compile(optimizer(1e-2, 3, 0))
    made.fit(Steps(made, corpus, batch_size=4, steps=3), verbose=0)
    assert len({id(w) for w in (*made.trainable_variables, *made.non_trainable_variables)}) == len(made.variables)
    moved = {w.path for w in model.network.trainable_weights if (ops.convert_to_numpy(w) != before[w.path]).any()}
    assert not any("pooler" in path or "nsp" in path for path in moved)
    assert any("mlm" in path for path in moved) and any("block_0" in path for path in moved)


def test_a_stopped_run_ends_like_a_whole_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("maskplay.callbacks.PAUSE", 0)
    short = pretext.prepare([[line[:9]] for line in cycle(2)], tmp_path / "tokens", TOKENIZER)

    def run(folder: Path, stop: int | None = None) -> tuple[list[dict[str, float]], list[np.ndarray]]:
        model = bert(2, heads=["mlm"], dropout=0.2)
        made = play(model, {"mlm": 1.0, "unilm": 0.5})
        made.compile(mp.optimizers.adamw(1e-2, 11))
        train, dev = made.steps(short, batch_size=4, steps=11, every=4)
        resume = Resume(folder, {}, monitor=None, every=0)
        resume.fit(made, train, 3, dev, [Stop(stop)] if stop else [])
        assert [len(list(resume.history)), resume.best] == [3, resume.history[-1]]
        return resume.history, [ops.convert_to_numpy(weight) for weight in model.network.weights]

    history, weights = run(tmp_path / "whole")
    for stop in (3, 4):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "running", stop)
    again, resumed = run(tmp_path / "running")
    assert [one.keys() for one in again] == [one.keys() for one in history]
    for one, other in zip(again, history):
        assert one == pytest.approx(other, abs=1e-5)
    for one, other in zip(resumed, weights):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_processes_share_a_batch(model, corpus) -> None:
    made = play(model, "mlm+sop")
    (whole, labels), *parts = (Steps(made, corpus, batch_size=6, steps=1, shard=shard)[0] for shard in
                               ((0, 1), (0, 3), (1, 3), (2, 3)))  # fmt: skip
    for rank, (mine, answers) in enumerate(parts):
        for name, value in whole["mlm+sop"].items():
            np.testing.assert_array_equal(mine["mlm+sop"][name], value[2 * rank : 2 * rank + 2])
        np.testing.assert_array_equal(answers["mlm"], labels["mlm"][2 * rank : 2 * rank + 2])


def test_every_hidden_token_may_be_a_mask(model, corpus) -> None:
    for as_mask, shown in ((1.0, {True}), (0.0, {False}), (0.5, {True, False})):
        inputs, labels = Steps(play(model, "mlm", mask_rate=0.5, as_mask=as_mask), corpus, batch_size=4)[0]
        tokens, at = (inputs["mlm"][name] for name in ("tokens", "at"))
        hidden = np.take_along_axis(tokens, at, axis=1)[labels["mlm"] != -100]
        assert {*(hidden == TOKENIZER.mask_id).tolist()} == shown


def test_what_cannot_be_is_refused(model, corpus, tmp_path: Path) -> None:
    for objective, message in (
        ("mlm+cloze", "expected some of mlm, mlm\\+sop, .*, found 'mlm\\+cloze'"),
        ({"mlm": 0}, "objective mlm: expected a weight above 0, found 0"),
        ({"mlm": float("inf")}, "objective mlm: expected a weight above 0, found inf"),
        ({"mlm": 1.0, "mlm+sop": 1.0}, "one of each kind, found mlm, mlm\\+sop"),
        ({}, "expected at least one"),
        (["mlm", "unilm"], "objective: expected a name, or weights as"),
    ):
        with pytest.raises(mp.UserError, match=message):
            play(model, objective)
    for options, message in (
        ({"length": 4}, "length: expected a whole number from 8 to 1,048,576, found 4"),
        ({"length": "64"}, "length: expected a whole number from 8 to 1,048,576, found '64'"),
        ({"mask_rate": 1}, "mask_rate: expected"),
        ({"mask_rate": ".1"}, "mask_rate: expected"),
        ({"mask_rate": True}, "mask_rate: expected"),
        ({"as_mask": 1.1}, "as_mask: expected a number from 0 to 1, found 1.1"),
    ):
        with pytest.raises(mp.UserError, match=message):
            mp.plays.Pretrain(model, **options)
    for options, message in (
        ({"batch_size": 1}, "mlm\\+nsp: expected batches of at least 2 rows"),
        ({"batch_size": 4, "use_multiprocessing": True}, "use_multiprocessing: batches are drawn by threads"),
        ({"steps": "9"}, "steps: expected a whole number from 1 on, found '9'"),
        ({"batch_size": 0}, "batch_size: expected a whole number from 1 on, found 0"),
        ({"every": 0}, "every: expected a whole number from 1 on, found 0"),
        ({"seed": -1}, "seed: expected a whole number from 0 on, found -1"),
    ):
        with pytest.raises(mp.UserError, match=message):
            Steps(play(model, "mlm+nsp"), corpus, **options)
    with pytest.raises(mp.UserError, match="fit: expected batches as steps\\(\\) makes them"):
        play(model, "mlm").fit(["山高水长。"])
    with pytest.raises(mp.UserError, match="seed: expected a whole number from 0 on, found -1"):
        play(model, "mlm").steps(corpus, seed=-1)
    for share in ("0.1", 0, 1.0, float("nan"), True):
        with pytest.raises(mp.UserError, match="held_out: expected a share between 0 and 1, found"):
            play(model, "mlm").steps(corpus, held_out=share)
    with pytest.raises(mp.UserError, match="needs the heads 'pooler' and 'nsp'"):
        play(bert(heads=["mlm"]), "mlm+sop")
    with pytest.raises(mp.UserError, match="unilm needs segments 0 and 1, this roformer has one"):
        play(bert(num_segments=1), "unilm")
    with pytest.raises(mp.UserError, match="no head that scores tokens"):
        play(bert(heads=["pooler"]), "mlm")
    with pytest.raises(mp.UserError, match="Pretrain: expected a network and its tokenizer"):
        play(model.network, "mlm")
    with pytest.raises(mp.UserError, match=r"corpus: expected what mp.pretext.prepare makes of texts, found \['山"):
        play(model, "mlm").steps(["山高水长。"])
    other = mp.Tokenizer.from_characters(["山"], max_size=90)
    foreign = pretext.prepare([["山"]], tmp_path / "tokens", other)
    with pytest.raises(mp.UserError, match=f"a vocabulary of {len(other)} tokens, the network's has {len(TOKENIZER)}"):
        Steps(play(model, "mlm"), foreign)
    turned = mp.Tokenizer.from_vocab([*TOKENIZER.vocab][:-2] + [*TOKENIZER.vocab][:-3:-1])
    foreign = pretext.prepare([["山"]], tmp_path / "turned", turned)
    with pytest.raises(mp.UserError, match=f"another vocabulary than the network's, also of {len(TOKENIZER)} tokens"):
        Steps(play(model, "mlm"), foreign)
    # Folders of earlier versions do not say which one it was.
    marker = tmp_path / "turned" / "maskplay.json"
    said = json.loads(marker.read_text(encoding="utf-8"))
    marker.write_text(json.dumps({key: value for key, value in said.items() if key != "vocab_sha256"}))
    Steps(play(model, "mlm"), pretext.Prepared(tmp_path / "turned"))
    for options in ({"batch_size": 3, "shard": (0, 2)}, {"shard": (2, 2)}):
        with pytest.raises(mp.UserError, match="expected rows for every process alike"):
            Steps(play(model, "mlm"), corpus, **options)
    with pytest.raises(mp.UserError, match="bert.save"):
        play(model, "mlm").save(tmp_path / "play")
    with pytest.raises(IndexError):
        Steps(play(model, "mlm"), corpus, steps=1)[1]


def test_numbers_of_numpy_are_numbers(model, corpus) -> None:
    made = play(model, {"mlm": np.int64(2)}, mask_rate=np.float32(0.25), as_mask=np.float64(1), length=np.int64(32))
    assert (made.objectives, made.mask_rate, made.as_mask) == ({"mlm": 2.0}, 0.25, 1.0)
    assert {type(value) for value in (*made.objectives.values(), made.mask_rate, made.as_mask)} == {float}
    train, _ = made.steps(corpus, np.int32(4), np.int64(9), held_out=np.float32(0.25), seed=np.int64(3))
    assert len(train) == 9


def test_pairs_are_asked_for_where_the_corpus_has_texts(model, corpus) -> None:
    with pytest.raises(mp.UserError, match="expected pairs of texts, found texts; prepare it with pairs=True"):
        play(model, "simbert").steps(corpus, batch_size=32)


@pytest.mark.parametrize("objective", ["mlm", "lm"])
def test_a_step_that_is_not_compiled_is_the_same_step(corpus, objective: str) -> None:
    found = []
    for eagerly in (False, True):
        made = play(bert(), objective)
        made.compile(keras.optimizers.SGD(0.1), run_eagerly=eagerly)
        made.fit(Steps(made, corpus, batch_size=4, steps=1), verbose=0)
        found.append([ops.convert_to_numpy(weight) for weight in made.trainable_weights])
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, atol=1e-6)
