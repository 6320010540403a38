"""Classify: it learns what can be learned and nothing else, takes examples in every form, and comes back from disk."""

import os
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

import maskplay as mp
from maskplay.batches import Batches
from maskplay.tables import Example

GOOD, BAD = "好棒香甜美", "差烂苦臭丑"
LABELS = ["坏", "好"]


def reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of filler, 3 to 13 characters, with one telling character somewhere, and what it tells."""
    draw = np.random.default_rng(seed)
    made = []
    for i in range(count):
        text = list(draw.choice(list("这个东西我们买了一天用来看"), draw.integers(3, 14)))
        text[draw.integers(len(text))] = draw.choice(list(GOOD if i % 2 else BAD))
        made.append(("".join(text), LABELS[i % 2]))
    return made


def bert(seed: int = 0, heads: tuple[str, ...] = ("pooler", "mlm"), **changes) -> mp.Pretrained:
    keras.utils.set_random_seed(seed)
    tokenizer = mp.Tokenizer.from_characters([text for text, _ in reviews(300)], max_size=200)
    config = mp.Config(
        vocab_size=len(tokenizer), hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, max_positions=64
    )
    return mp.Pretrained(mp.LanguageModel(config.but(**changes), heads=heads), tokenizer)


def play(seed: int = 0, rate: float = 3e-3, **options) -> mp.plays.Classify:
    made = mp.plays.Classify(bert(seed), LABELS, **options)
    made.compile(keras.optimizers.AdamW(rate))
    return made


@pytest.fixture(scope="module")
def trained() -> mp.plays.Classify:
    made = play()
    made.fit(made.batches(reviews(240), 16, buckets=1), epochs=12, verbose=0)
    return made


@pytest.fixture(scope="module")
def untrained() -> mp.plays.Classify:
    """For tests that leave its weights alone."""
    return play()


def numbers(weights) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(weight) for weight in weights]


# Learning


def test_it_learns_what_one_character_tells(trained: mp.plays.Classify) -> None:
    test = reviews(200, seed=1)
    guessed = trained.predict([text for text, _ in test])
    assert np.mean([guess == label for guess, (_, label) in zip(guessed, test)]) > 0.95


def test_shuffled_labels_teach_nothing() -> None:
    train, test = reviews(240), reviews(200, seed=1)
    mixed = np.random.default_rng(0).permutation([label for _, label in train])
    model = play()
    examples = [(text, str(label)) for (text, _), label in zip(train, mixed)]
    model.fit(model.batches(examples, 16, buckets=1), epochs=6, verbose=0)
    guessed = model.predict([text for text, _ in test])
    assert 0.3 < np.mean([guess == label for guess, (_, label) in zip(guessed, test)]) < 0.7


def test_pairs_are_told_apart_by_their_segments() -> None:
    # The label says in which of the two texts the good character stands: only the segments can tell.
    draw = np.random.default_rng(0)
    fill = ["".join(draw.choice(list("这个东西我们"), 3)) for _ in range(240)]
    pairs = [("好" + a, a, "前") if i % 2 else (a, "好" + a, "后") for i, a in enumerate(fill)]
    train, test = pairs[:192], pairs[192:]
    model = mp.plays.Classify(bert(), ["前", "后"])
    model.compile(keras.optimizers.AdamW(3e-3))
    model.fit(model.batches(train, 16, buckets=1), epochs=10, verbose=0)
    guessed = model.predict([(text, text2) for text, text2, _ in test])
    assert np.mean([guess == label for guess, (_, _, label) in zip(guessed, test)]) > 0.9


def test_three_labels() -> None:
    model = mp.plays.Classify(bert(), ["a", "b", "c"])
    assert model.probabilities(["好", "坏"]).shape == (2, 3)
    assert set(model.predict(["好", "坏"])) <= {"a", "b", "c"}


def test_the_encoder_is_shared_not_copied() -> None:
    pretrained = bert()
    model = mp.plays.Classify(pretrained, LABELS)
    assert model.encoder is pretrained.encoder and model.pooler is pretrained.network.pooler
    before = numbers(pretrained.encoder.weights)
    model.compile(keras.optimizers.AdamW(1e-2))
    model.fit(reviews(16), verbose=0)
    assert any((a != b).any() for a, b in zip(before, numbers(pretrained.encoder.weights)))


def test_without_a_pooler_it_makes_one() -> None:
    model = mp.plays.Classify(bert(heads=("mlm",)), LABELS)
    assert model.pooler.size == 32 and model.predict(["好"])[0] in LABELS


# What goes in


def test_the_mean_is_of_all_tokens_but_padding() -> None:
    model = play(pool="mean")
    texts = ["这个好", "差" * 20, "好"]
    found = model.probabilities(texts)
    kernel, bias = numbers(model.classifier.weights)
    for text, row in zip(texts, found):
        ids = np.array([model.tokenizer.encode(text).ids])
        hidden = keras.ops.convert_to_numpy(model.encoder(ids, segments=np.zeros_like(ids)))[0]
        scores = np.exp(hidden.mean(axis=0) @ kernel + bias)
        np.testing.assert_allclose(row, scores / scores.sum(), rtol=1e-4)
    model.fit(model.batches(reviews(240), 16, buckets=1), epochs=8, verbose=0)
    assert model.evaluate(reviews(100, seed=1), verbose=0)[1] > 0.95


@pytest.mark.parametrize("pool", ["first", None, 1])
def test_another_pool_is_told(pool) -> None:
    with pytest.raises(mp.UserError, match="pool: expected 'pooler' or 'mean', found"):
        play(pool=pool)


def test_examples_in_every_form_are_the_same_batches(untrained: mp.plays.Classify) -> None:
    model, some = untrained, reviews(20)
    forms = [
        some,
        [[text, label] for text, label in some],
        [{"text": text, "label": label, "other": 1} for text, label in some],
        [Example(text, None, label, i) for i, (text, label) in enumerate(some)],
        [SimpleNamespace(text=text, label=label) for text, label in some],
    ]
    batches = [model.batches(form, 8, shuffle=False) for form in forms]
    for other in batches[1:]:
        for i in range(3):
            (inputs, targets), (same, too) = batches[0][i], other[i]
            assert (inputs["tokens"] == same["tokens"]).all() and (targets == too).all()


def test_pairs_in_every_form_are_the_same_scores(untrained: mp.plays.Classify) -> None:
    model = untrained
    pairs = [("好吃", "难吃"), {"text": "好吃", "text2": "难吃"}, Example("好吃", "难吃", None, 1)]
    scores = model.probabilities(pairs)
    assert np.ptp(scores, axis=0).max() == 0
    assert (scores[0] != model.probabilities(["好吃"])[0]).any()


@pytest.mark.parametrize(
    "example, told",
    [
        (("好吃", "中"), "example 1: expected a label among '坏', '好', found '中'"),
        (Example("好吃", None, "中", 9), "example 1 (line 9): expected a label among '坏', '好', found '中'"),
        ("好吃", "example 1: expected (text, label) or (text, text2, label), or an object with text; found '好吃'"),
        ((3, "好"), "example 1: expected (text, label)"),
        (("好吃", None, "好", 4), "example 1: expected (text, label)"),
        ({"label": "好"}, "example 1: expected (text, label)"),
        (("好吃", 1), "example 1: expected a label among '坏', '好', found 1 (labels are strings)"),
    ],
)
def test_a_bad_example_is_told_by_its_number(untrained: mp.plays.Classify, example, told: str) -> None:
    with pytest.raises(mp.DataError) as error:
        untrained.fit([("好吃", "好"), example], verbose=0)
    assert str(error.value).startswith(told)


@pytest.mark.parametrize(
    "labels, told",
    [
        (["好"], "labels: expected a list of at least two names, found ['好']"),
        ("好坏", "labels: expected a list of at least two names, found '好坏'"),
        ([0, 1], "labels: expected a list of at least two names, found [0, 1]"),
        (["好", "坏", "好"], "labels: expected each name once, found twice 好"),
        (3, "labels: expected a list of at least two names, found 3"),
        ({"好": 0, "坏": 1}, "labels: expected a list of at least two names, found {'好': 0, '坏': 1}"),
        (["好", "\ud800"], "labels: expected text, found half of a character in '\\ud800'"),
    ],
)
def test_bad_labels(labels, told: str) -> None:
    with pytest.raises(mp.UserError) as error:
        mp.plays.Classify(bert(), labels)
    assert str(error.value) == told


@pytest.mark.parametrize("length", [2, 65, "64", 1.5])
def test_a_bad_max_length(length) -> None:
    with pytest.raises(mp.UserError, match="max_length: expected a whole number from 3 to 64, found"):
        mp.plays.Classify(bert(), LABELS, max_length=length)


def test_long_texts_are_cut() -> None:
    model = play(max_length=8)
    assert max(model.batches(["好" * 50], labelled=False).lengths) == 8
    assert (model.probabilities(["好" * 6 + "坏"]) == model.probabilities(["好" * 6 + "这"])).all()


# As a Keras model


def test_arrays_are_what_keras_makes_of_them(untrained: mp.plays.Classify) -> None:
    model, some = untrained, reviews(12)
    batches = model.batches(some, 12, shuffle=False, buckets=1)
    inputs, targets = batches[0]
    logits = model.predict(inputs, verbose=0)
    assert logits.shape == (12, 2)
    odds = np.exp(logits)
    in_order = [some[i][0] for i in batches.order]
    np.testing.assert_allclose(odds / odds.sum(-1, keepdims=True), model.probabilities(in_order), atol=1e-5)
    loss, accuracy = model.evaluate(inputs, targets, verbose=0)
    np.testing.assert_allclose([loss, accuracy], model.evaluate(some, verbose=0), atol=1e-5)
    chosen = np.take_along_axis(odds / odds.sum(-1, keepdims=True), targets[:, None], 1)
    np.testing.assert_allclose(loss, -np.log(chosen).mean(), atol=1e-5)


def test_every_kind_of_data_trains() -> None:
    model, some = play(), reviews(20)
    batches = model.batches(some, 20, buckets=1)
    history = model.fit(batches, validation_data=some, batch_size=20, epochs=2, verbose=0).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"} and len(history["loss"]) == 2
    inputs, targets = batches[0]
    model.fit(inputs, targets, batch_size=20, validation_data=(inputs, targets), verbose=0)


def test_filler_rows_change_neither_loss_nor_accuracy(untrained: mp.plays.Classify) -> None:
    model, some = untrained, reviews(11)
    plain = model.evaluate(model.batches(some, 11, shuffle=False, buckets=1), verbose=0)
    filled = model.evaluate(model.batches(some, 16, shuffle=False, buckets=1, multiple_of=16), verbose=0)
    np.testing.assert_allclose(plain, filled, atol=1e-5)


def test_predictions_keep_the_order_and_ignore_the_company(untrained: mp.plays.Classify) -> None:
    model, texts = untrained, [text for text, _ in reviews(37)]
    together = model.probabilities(texts, batch_size=8)
    alone = np.concatenate([model.probabilities([text]) for text in texts[:9]])
    np.testing.assert_allclose(together[:9], alone, atol=1e-5)
    np.testing.assert_allclose(together.sum(-1), 1, atol=1e-5)
    assert model.predict([]) == [] and model.probabilities([]).shape == (0, 2)


def test_the_same_seed_gives_the_same_weights() -> None:
    runs = []
    for _ in range(2):
        model = play(seed=3)
        model.fit(model.batches(reviews(40), 8, seed=5, buckets=1), epochs=2, verbose=0)
        runs.append(numbers(model.weights))
    for one, other in zip(*runs):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_validation_split_is_refused_for_examples(untrained: mp.plays.Classify) -> None:
    with pytest.raises(mp.UserError, match="validation_split is for arrays"):
        untrained.fit(reviews(8), validation_split=0.5)


def test_arrays_of_strings_are_lists_of_them(untrained: mp.plays.Classify) -> None:
    texts = [text for text, _ in reviews(9)]
    for strings in (np.array(texts), np.array(texts, object)):
        assert untrained.predict(strings) == untrained.predict(texts)
    loss, accuracy = untrained.evaluate(np.array(reviews(9)), verbose=0)
    np.testing.assert_allclose([loss, accuracy], untrained.evaluate(reviews(9), verbose=0), atol=1e-6)


def test_examples_have_weights(untrained: mp.plays.Classify) -> None:
    some = reviews(12)
    good = [example for example in some if example[1] == "好"]
    weights = [float(label == "好") for _, label in some]
    alone = untrained.evaluate(good, verbose=0)
    np.testing.assert_allclose(untrained.evaluate(some, sample_weight=weights, verbose=0), alone, atol=1e-5)
    assert alone != pytest.approx(untrained.evaluate(some, verbose=0), abs=1e-3)
    model = play()
    history = model.fit(some, sample_weight=weights, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    with pytest.raises(mp.UserError, match="weights: expected 12, one an example"):
        model.fit(some, sample_weight=[1.0], verbose=0)


@pytest.mark.parametrize(
    "x, kind",
    [
        ("好吃", "str"),
        (b"a", "bytes"),
        (None, "NoneType"),
        (5, "int"),
        (("好吃", "难吃"), "tuple"),
        ((("好吃", "好"), ("难吃", "坏")), "tuple"),
        ((example for example in reviews(2)), "generator"),
        ({"text": "好吃", "label": "好"}, "dict"),
    ],
)
def test_what_is_no_list_is_told(untrained: mp.plays.Classify, x, kind: str) -> None:
    for use in (untrained.fit, untrained.evaluate, untrained.predict):
        with pytest.raises(mp.UserError, match=f"^x: expected a list of texts or examples, .*; found a {kind}$"):
            use(x)


def test_what_goes_with_arrays_only_is_told(untrained: mp.plays.Classify) -> None:
    texts, labels = zip(*reviews(4))
    for use in (untrained.fit, untrained.evaluate):
        with pytest.raises(mp.UserError, match="y is for arrays: examples bring their labels"):
            use(list(texts), list(labels))
    for validation in ((list(texts), list(labels)), (("好吃", "好"), ("难吃", "坏")), ("好吃", "好")):
        with pytest.raises(mp.UserError, match="validation_data: expected a list of"):
            untrained.fit(reviews(4), validation_data=validation)
    with pytest.raises(mp.UserError, match="expected a list of texts, found one: write \\['好吃'\\]"):
        untrained.probabilities("好吃")


class Frame:
    """What of a table of pandas matters: it has a length and parts, and its elements are the columns' names."""

    columns = ("text", "label")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, part: object) -> tuple[str, ...]:
        return self.columns


@pytest.mark.parametrize("texts", [None, 3, {"好吃"}, {"text": ["好吃"]}, (text for text in ["好吃"]), b"a", Frame()])
def test_what_cannot_be_cut_into_batches_is_told(untrained: mp.plays.Classify, texts) -> None:
    for use in (untrained.probabilities, untrained.batches):
        with pytest.raises(mp.UserError, match=f"expected a list of texts or examples, found a {type(texts).__name__}"):
            use(texts)
    with pytest.raises(mp.UserError, match="x: expected a list of texts or examples"):
        untrained.predict(Frame())


@pytest.mark.parametrize("size", [0, -1, "2", 2.5])
def test_a_batch_has_rows(untrained: mp.plays.Classify, size) -> None:
    for use in (untrained.fit, untrained.evaluate, untrained.predict):
        with pytest.raises(mp.UserError, match="batch_size: expected a whole number from 1 on, found"):
            use(reviews(4), batch_size=size)


def test_labels_have_an_order(untrained: mp.plays.Classify) -> None:
    with pytest.raises(mp.UserError, match="labels: expected a list"):
        mp.plays.Classify(bert(), set(LABELS))
    assert mp.plays.Classify(bert(), dict.fromkeys(LABELS).keys()).labels == tuple(LABELS)


def test_hundreds_of_labels_are_not_all_told() -> None:
    model = mp.plays.Classify(bert(), [f"label {i}" for i in range(300)])
    with pytest.raises(mp.DataError, match="'label 9' and 290 more, found 'other'$"):
        model.fit([("好吃", "other")])


# To disk and back


def test_the_folder_brings_everything_back(trained: mp.plays.Classify, tmp_path: Path) -> None:
    trained.save(tmp_path / "reviews")
    assert sorted(os.listdir(tmp_path)) == ["reviews"]
    names = {"maskplay.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert set(os.listdir(tmp_path / "reviews")) == names
    back = mp.load(tmp_path / "reviews")
    texts = [text for text, _ in reviews(30, seed=2)]
    assert back.labels == trained.labels and back.tokenizer == trained.tokenizer
    assert back.max_length == trained.max_length
    assert (back.probabilities(texts) == trained.probabilities(texts)).all()
    arrays = load_file(tmp_path / "reviews" / "model.safetensors")
    assert {"encoder/block_0/feed/inner/kernel", "pooler/dense/bias", "classifier/kernel"} <= set(arrays)
    assert len(arrays) == len(trained.weights)


def test_a_keras_file_brings_everything_back_and_trains_on(trained: mp.plays.Classify, tmp_path: Path) -> None:
    trained.save(tmp_path / "reviews.keras")
    back = keras.saving.load_model(tmp_path / "reviews.keras")
    texts = [text for text, _ in reviews(30, seed=2)]
    assert isinstance(back, mp.plays.Classify) and back.labels == trained.labels
    np.testing.assert_allclose(back.probabilities(texts), trained.probabilities(texts), atol=1e-6)
    back.fit(reviews(8), verbose=0)


def test_predict_ignores_a_third_string(untrained: mp.plays.Classify) -> None:
    pairs = [("这个", "好"), ("东西", "差")]
    labelled = [(text, other, "好") for text, other in pairs]
    np.testing.assert_array_equal(untrained.probabilities(labelled), untrained.probabilities(pairs))


def test_saving_replaces_its_own_folder_only(untrained: mp.plays.Classify, tmp_path: Path) -> None:
    model = untrained
    model.save(tmp_path / "a")
    model.save(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("x")
    with pytest.raises(mp.UserError, match="holds files that maskplay did not write"):
        model.save(tmp_path / "b")


@pytest.mark.parametrize(
    "family, changes",
    [
        ("albert", {"num_layers": 4, "embedding_size": 8}),
        ("gau_alpha", {"num_heads": 1, "key_size": 8, "num_layers": 2}),
        ("llama", {"num_kv_heads": 1, "pad_id": 0}),
        ("t5", {"num_decoder_layers": 1, "head_size": 8}),
    ],
)
def test_what_is_saved_opens_whatever_the_family(family: str, changes: dict[str, int], tmp_path: Path) -> None:
    """Blocks that are shared, gated units, few key heads, a decoder left behind: all of less size than BERT's."""
    sizes = {"vocab_size": 200, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}
    config = mp.families.family(family).config.but(**{**sizes, **changes})
    network = mp.LanguageModel(config, heads=["lm"] if config.num_decoder_layers else [])
    tokenizer = mp.Tokenizer.from_characters([text for text, _ in reviews(30)], max_size=200)
    model = mp.plays.Classify(SimpleNamespace(network=network, tokenizer=tokenizer, family=family), LABELS)
    model.save(tmp_path / "play")
    texts = ["好", "差东西"]
    np.testing.assert_array_equal(mp.load(tmp_path / "play").probabilities(texts), model.probabilities(texts))


def test_without_a_tokenizer_texts_are_refused() -> None:
    pretrained = bert()
    model = mp.plays.Classify(SimpleNamespace(network=pretrained.network, tokenizer=None), LABELS)
    with pytest.raises(mp.UserError, match="no tokenizer"):
        model.predict(["好"])


def test_batches_are_batches(untrained: mp.plays.Classify) -> None:
    assert isinstance(untrained.batches(reviews(4)), Batches)


def test_a_label_that_is_an_array_is_told(untrained: mp.plays.Classify) -> None:
    with pytest.raises(mp.DataError, match="example 0: expected a label among '坏', '好', found array"):
        untrained.fit([("好", np.array([0, 1]))])
