"""SimBERT: a text's partner is found among all texts of the batch, and told token by token from the text alone."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import maskplay as mp
from maskplay import pretext
from maskplay.callbacks import Resume
from maskplay.losses import TokenCrossEntropy
from maskplay.objectives import SIMILAR
from maskplay.plays.pretrain import Steps, similarities
from plays.test_pretrain import ALPHABET, TOKENIZER, bert
from test_callbacks import Stop

LENGTH = 24


def asked(seed: int, count: int = 240) -> list[tuple[str, str]]:
    """A drawn set of characters, and the same set in another order: what a pair shares is which there are."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        chosen = draw.choice([*ALPHABET], 4, replace=False)
        found.append(("".join(chosen), "".join(draw.permutation(chosen))))
    return found


def shuffled(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The control: the same texts, beside partners that have nothing to do with them."""
    others = np.random.default_rng(9).permutation(len(pairs))
    return [(one, pairs[other][1]) for (one, _), other in zip(pairs, others)]


def model(seed: int = 3, **changes) -> mp.Pretrained:
    return bert(seed, heads=["pooler", "mlm"], pooler_activation="linear", **changes)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pretext.Prepared:
    return pretext.prepare(asked(0), tmp_path_factory.mktemp("pairs") / "tokens", TOKENIZER, pairs=True)


def play(made: mp.Pretrained, objective="simbert") -> mp.plays.Pretrain:
    return mp.plays.Pretrain(made, objective, length=LENGTH)


def test_the_loss_is_that_of_the_formula(corpus) -> None:
    """Both losses in NumPy and float64, pair by pair."""
    made = play(model())
    made.compile(keras.optimizers.SGD(0.0))
    batches = Steps(made, corpus, batch_size=8, steps=1, fixed=True)
    inputs, _ = batches[0]
    tokens, segments = (inputs["simbert"][name][:, :11] for name in ("tokens", "segments"))
    assert (tokens[:, [5, 10]] == TOKENIZER.sep_id).all()
    # [CLS] sees the source alone, so the vector is that of the source alone.
    vectors = ops.convert_to_numpy(made.network(tokens[:, :6])["pooled"]).astype("float64")
    scores = made.network(tokens, segments=segments, mask=mp.masks.prefix())["mlm"]
    scores = ops.convert_to_numpy(scores).astype("float64")[:, 5:10]
    told = np.log(np.exp(scores).sum(axis=-1)) - np.take_along_axis(scores, tokens[:, 6:, None], axis=2)[..., 0]
    similar = []
    for i, one in enumerate(vectors):
        cosines = {j: 30 * one @ v / np.linalg.norm(one) / np.linalg.norm(v) for j, v in enumerate(vectors) if j != i}
        similar.append(np.log(sum(np.exp(c) for c in cosines.values())) - cosines[i + 1 if i % 2 == 0 else i - 1])
    measured = made.evaluate(batches, verbose=0, return_dict=True)
    assert measured["simbert_loss"] == pytest.approx(np.mean(told), abs=1e-4)
    assert measured["similar_loss"] == pytest.approx(np.mean(similar), abs=1e-4)
    assert measured["loss"] == pytest.approx(np.mean(told) + np.mean(similar), abs=1e-4)


def test_cosines_and_their_gradient_are_finite() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    vectors[2] = 0  # nothing is like nothing
    found = ops.convert_to_numpy(similarities(vectors)).astype("float64")
    assert (np.diag(found) < -1e8).all() and np.abs(found[2, [0, 1, 3, 4, 5]]).max() == 0
    one, other = (vector / np.linalg.norm(vector) for vector in vectors[:2].astype("float64"))
    assert found[0, 1] == pytest.approx(30 * one @ other, abs=1e-4)
    labels = (np.arange(6) ^ 1)[:, None]

    def loss(x):
        return TokenCrossEntropy()(labels, similarities(x))

    _, slope = mp.autodiff.value_and_gradient(loss, ops.convert_to_tensor(vectors))
    slope = ops.convert_to_numpy(slope)
    assert np.isfinite(slope).all() and np.abs(slope[0]).max() > 0


def test_rows_are_a_pair_both_ways(corpus) -> None:
    batches = Steps(play(model()), corpus, batch_size=6, steps=200)
    known = {tuple(pair) for pair in asked(0)}
    met = []
    for step in (0, 7, 79, 80):
        inputs, labels = batches[step]
        texts = []
        for row, segments in zip(inputs["simbert"]["tokens"], inputs["simbert"]["segments"]):
            kept = row > 4
            texts.append(tuple("".join(TOKENIZER.tokens(row[kept & (segments == s)].tolist())) for s in (0, 1)))
        assert all(texts[i + 1] == texts[i][::-1] and texts[i] in known for i in (0, 2, 4))
        assert len(set(texts)) == 6  # no pair twice
        assert labels[SIMILAR].tolist() == [[1], [0], [3], [2], [5], [4]]
        counted = labels["simbert"] != -100
        assert (counted.sum(axis=1) == inputs["simbert"]["segments"].sum(axis=1)).all()
        met.append(frozenset(texts))
    assert len({*met}) == 4


def learnt(pairs: list[tuple[str, str]], folder: Path) -> tuple[dict[str, float], mp.Pretrained]:
    made = model()
    corpus = pretext.prepare(pairs, folder / "tokens", TOKENIZER, pairs=True)
    chosen = play(made)
    chosen.compile(mp.optimizers.adamw(3e-3, 160))
    train, dev = chosen.steps(corpus, batch_size=32, steps=160, held_out=0.2)
    chosen.fit(train, verbose=0)
    return chosen.evaluate(dev, verbose=0, return_dict=True), made


def test_it_learns_to_find_the_partner(tmp_path: Path) -> None:
    found, made = learnt(asked(0), tmp_path / "pairs")
    assert found["similar_accuracy"] > 0.8 and found["simbert_accuracy"] > 0.3, found
    # As a user searches: texts it has never seen, by the pooler's vectors.
    pairs = asked(1, 40)
    one, other = (made.encode(texts, pool="pooler") for texts in zip(*pairs))
    one, other = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (one, other))
    same = [[set(a) == set(b) for b in (pair[1] for pair in pairs)] for a in (pair[0] for pair in pairs)]
    assert np.array(same)[np.arange(40), (one @ other.T).argmax(axis=1)].mean() > 0.8
    control, _ = learnt(shuffled(asked(0)), tmp_path / "shuffled")
    assert control["similar_accuracy"] < 0.2, control


def test_a_stopped_run_ends_like_a_whole_one(corpus, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("maskplay.callbacks.PAUSE", 0)

    def run(folder: Path, stop: int | None = None) -> list[np.ndarray]:
        made = model(dropout=0.2, num_layers=1)
        chosen = play(made)
        chosen.compile(mp.optimizers.adamw(1e-2, 6))
        train, dev = chosen.steps(corpus, batch_size=4, steps=6, every=4)
        Resume(folder, {}, monitor=None, every=0).fit(chosen, train, 2, dev, [Stop(stop)] if stop else [])
        return [ops.convert_to_numpy(weight) for weight in made.network.weights]

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "running", 3)
    for one, other in zip(run(tmp_path / "running"), whole):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_processes_share_a_batch(corpus) -> None:
    """Whichever rows a process has: laid one after the other, each label points to the row's partner."""
    made = play(model())
    (whole, _), *parts = (
        Steps(made, corpus, batch_size=12, steps=1, shard=shard)[0] for shard in ((0, 1), (0, 3), (1, 3), (2, 3))
    )
    tokens = np.concatenate([inputs["simbert"]["tokens"] for inputs, _ in parts])
    labels = np.concatenate([labels[SIMILAR] for _, labels in parts])[:, 0]
    where = {bytes(row): i for i, row in enumerate(tokens)}
    for i, row in enumerate(whole["simbert"]["tokens"]):
        partner = whole["simbert"]["tokens"][i ^ 1]
        assert bytes(tokens[labels[where[bytes(row)]]]) == bytes(partner)


def figures(folder: Path) -> list[float]:
    """A few steps of a run, and what it is on held-out pairs."""
    corpus = pretext.prepare(asked(0), folder / "tokens", TOKENIZER, pairs=True)
    chosen = play(model(num_layers=1))
    chosen.compile(keras.optimizers.SGD(0.1))
    train, dev = chosen.steps(corpus, batch_size=8, steps=3)
    chosen.fit(train, verbose=0)
    return [*chosen.evaluate(dev, verbose=0, return_dict=True).values()]


FOUR_DEVICES = """
import sys
sys.path[:0] = sys.argv[2:]
import keras, pathlib
from maskplay import hosts
assert hosts.share_devices() == 4
from plays.test_simbert import figures
print("figures", *figures(pathlib.Path(sys.argv[1])))
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="simulated devices are JAX's")
def test_four_devices_compare_with_the_whole_batch(tmp_path: Path) -> None:
    here = Path(__file__).parents[1]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", FOUR_DEVICES, str(tmp_path / "four"), str(here), str(here.parent / "src")]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    four = [float(figure) for figure in done.stdout.split("figures")[-1].split()]
    assert four == pytest.approx(figures(tmp_path / "one"), abs=1e-4)


def test_what_cannot_be_is_refused(corpus, tmp_path: Path) -> None:
    with pytest.raises(mp.UserError, match="simbert needs the head 'pooler'"):
        play(bert(heads=["mlm"]))
    with pytest.raises(mp.UserError, match="simbert needs segments 0 and 1"):
        play(model(num_segments=1))
    plain = pretext.prepare([["天地。", "玄黄。"]] * 8, tmp_path / "tokens", TOKENIZER)
    with pytest.raises(mp.UserError, match="expected pairs of texts, found texts"):
        Steps(play(model()), plain, batch_size=4)
    for size in (2, 5, 482):
        with pytest.raises(mp.UserError, match=f"found batch_size {size} and 240 pairs"):
            Steps(play(model()), corpus, batch_size=size)
    with pytest.raises(mp.UserError, match="also of those that are held out; found batch_size 300 and 90 pairs"):
        play(model()).steps(corpus, batch_size=300)
    with pytest.raises(mp.UserError, match="'pooler', found 'pooler'"):
        bert(heads=["mlm"]).encode("天", pool="pooler")


def test_too_few_pairs_are_told(tmp_path: Path) -> None:
    corpus = pretext.prepare(asked(0)[:10], tmp_path / "tokens", TOKENIZER, pairs=True)
    with pytest.raises(mp.UserError, match="simbert: expected more pairs than a batch has, 16, found 10"):
        play(model()).steps(corpus, batch_size=32, steps=1)
