"""Informed starts: counts against a dictionary, the table against NumPy's own factors, heads that look aside."""

from collections import Counter

import keras
import numpy as np
import pytest
from keras import ops

import maskplay as mp
from maskplay import fresh, pretext, starts

DRAW = np.random.default_rng(0)
LINES = ["".join(DRAW.choice([*"天地玄黄宇宙洪荒日月"], 12, p=np.arange(1, 11) / 55)) + "。" for _ in range(300)]
TOKENIZER = fresh.vocabulary(LINES, 90)
SIZE = len(TOKENIZER)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pretext.Prepared:
    return pretext.prepare([LINES], tmp_path_factory.mktemp("starts") / "tokens", TOKENIZER)


def network(family: str = "roformer", hidden_size: int = 32, **sizes) -> mp.LanguageModel:
    made = fresh.network(
        family, TOKENIZER, hidden_size=hidden_size, num_layers=3, num_heads=4, intermediate_size=32, **sizes
    )
    made.build()
    return made


def pairs(corpus: pretext.Prepared) -> Counter:
    """One sentence after the other."""
    found: Counter = Counter()
    for begin, end in zip(corpus.sentences[:-1], corpus.sentences[1:]):
        ids = corpus.ids[begin:end].tolist()
        found.update(zip(ids, ids[1:]))
    return Counter({pair: count for pair, count in found.items() if count >= 2})


@pytest.mark.parametrize("chunk", [2**22, 100, 13])
def test_neighbours_are_counted_within_sentences(corpus, chunk: int, monkeypatch) -> None:
    monkeypatch.setattr(starts, "CHUNK", chunk)
    first, second, count = starts.neighbours(corpus, SIZE)
    assert {(a, b): n for a, b, n in zip(first.tolist(), second.tolist(), count.tolist())} == pairs(corpus)


@pytest.mark.parametrize("chunk", [2**22, 100])
def test_unigram(corpus, chunk: int, monkeypatch) -> None:
    monkeypatch.setattr(starts, "CHUNK", chunk)
    made = network()
    starts.inform(made, corpus, ["unigram"])
    shares = np.exp(ops.convert_to_numpy(made.mlm.bias).astype("float64"))
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    counts = Counter(corpus.ids.tolist())
    for token, count in counts.items():
        assert shares[token] == pytest.approx(count / len(corpus.ids), rel=0.02)
    assert shares[TOKENIZER.vocab["x"]] < 1e-3


def test_ppmi_is_the_best_picture_of_who_stands_beside_whom(corpus, monkeypatch) -> None:
    monkeypatch.setattr(starts, "PART", 50)
    made = network(hidden_size=8)
    before = ops.convert_to_numpy(made.encoder.embedding.token.embeddings)
    starts.inform(made, corpus, ["ppmi"])
    found = ops.convert_to_numpy(made.encoder.embedding.token.embeddings).astype("float64")
    counts = np.zeros((SIZE, SIZE))
    for (a, b), n in pairs(corpus).items():
        counts[a, b] = n
    with np.errstate(divide="ignore", invalid="ignore"):
        mutual = np.log(counts * counts.sum() / (counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True)))
    mutual = np.where(counts > 0, np.maximum(mutual, 0), 0)
    u, s, _ = np.linalg.svd(np.concatenate([mutual, mutual.T], axis=1))
    seen = mutual.sum(0) + mutual.sum(1) > 0
    expected = (u[:, :8] * s[:8] @ u[:, :8].T)[np.ix_(seen, seen)]
    gram = (found @ found.T)[np.ix_(seen, seen)]
    np.testing.assert_allclose(gram / np.trace(gram), expected / np.trace(expected), atol=2e-3)
    assert found[seen].std() == pytest.approx(starts.SPREAD, rel=0.01)
    np.testing.assert_array_equal(found[~seen], before[~seen])  # nothing is known of these


@pytest.mark.parametrize("interleaved", [True, False])
def test_heads_look_at_their_neighbours(corpus, interleaved: bool) -> None:
    made = network(hidden_size=64)
    for block in made.encoder.blocks:
        block.attention.position.interleaved = interleaved
    starts.inform(made, corpus, ["positions"])
    length = 12
    for i, block in enumerate(made.encoder.blocks):
        _, _, shares, _ = block.attention(ops.zeros((1, length, 64)), details=True)
        looks = ops.convert_to_numpy(shares)[0].argmax(axis=-1)
        for head, offset in enumerate(starts.OFFSETS):
            inside = np.arange(2, length - 2)
            if i < starts.LAYERS:
                np.testing.assert_array_equal(looks[head, inside], inside + offset)
            else:
                assert (looks[head, inside] != inside + offset).any()


def test_all_processes_take_the_values_of_one(corpus, monkeypatch) -> None:
    monkeypatch.setattr(starts, "alike", lambda values: np.full_like(values, 7))  # what rank 0 has
    made = network(hidden_size=8)
    starts.inform(made, corpus)
    attention = made.encoder.blocks[0].attention
    for weight in (made.mlm.bias, made.encoder.embedding.token.embeddings, attention.query.bias, attention.key.bias):
        assert (ops.convert_to_numpy(weight) == 7).all(), weight.path


def test_an_informed_start_is_ahead(tmp_path) -> None:
    """After a few steps on text where every character follows from its neighbours."""
    lines = [("天地玄黄宇宙洪荒日月盈昃" * 4)[i % 12 : i % 12 + 20] + "。" for i in range(200)]
    tokenizer = fresh.vocabulary(lines, 90)
    corpus = pretext.prepare([lines], tmp_path / "tokens", tokenizer)
    found = {}
    for names in ((), ("unigram", "positions")):
        keras.utils.set_random_seed(0)
        made = fresh.network("roformer", tokenizer, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=32)
        made.build()
        starts.inform(made, corpus, names)
        play = mp.plays.Pretrain(mp.Pretrained(made, tokenizer, "roformer"), length=32)
        play.compile(keras.optimizers.Adam(1e-3))
        train, dev = play.steps(corpus, 16, 30, 0.2)
        play.fit(train, verbose=0)
        found[names] = play.evaluate(dev, verbose=0)[0]
    plain, informed = found.values()
    assert informed < plain - 0.3


def test_keys_that_heads_share_are_refused(corpus) -> None:
    made = network(num_kv_heads=2)
    with pytest.raises(mp.UserError, match="expected keys for every head, found num_kv_heads"):
        starts.inform(made, corpus, ["positions"])


def test_what_has_no_place_for_it_is_refused(corpus) -> None:
    for made, start, message in (
        (network(), "luck", "init: expected some of unigram, ppmi, positions, found 'luck'"),
        (network("bert"), "positions", "expected rotary positions and biases in attention"),
        (network("llama"), "positions", "expected rotary positions and biases in attention"),
        (network(attention="gau"), "positions", "expected rotary positions and biases in attention"),
        (network("gpt2"), "unigram", "needs the head 'mlm'"),
        (network(hidden_size=512), "ppmi", "at least 512 pairs of tokens, found"),
    ):
        with pytest.raises(mp.UserError, match=message):
            starts.inform(made, corpus, [start])
