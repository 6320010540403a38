"""What of a classifier files hold: narrow kernels merged, half precision, segmenters; what they cannot hold is told."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import maskplay as mp
from plays.test_classify import LABELS, bert, play, reviews
from quantization import to_int8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    play().save(tmp_path / "play")
    return tmp_path / "play"


def change(folder: Path, **values) -> None:
    path = folder / "maskplay.json"
    description = {**json.loads(path.read_text("utf-8")), **values}
    path.write_text(json.dumps({k: v for k, v in description.items() if v is not None}), encoding="utf-8")


@pytest.mark.parametrize("heads", [("pooler", "mlm"), ("mlm",)])
def test_a_mean_comes_back_as_a_mean(heads: tuple[str, ...], tmp_path: Path) -> None:
    model = mp.plays.Classify(bert(heads=heads), LABELS, pool="mean")
    wanted = model.probabilities(["这个好", "差"])
    model.save(tmp_path / "play")
    model.save(tmp_path / "play.keras")
    assert not [name for name in load_file(tmp_path / "play" / "model.safetensors") if name.startswith("pooler")]
    for back in (mp.load(tmp_path / "play"), keras.saving.load_model(tmp_path / "play.keras")):
        assert back.pool == "mean"
        np.testing.assert_allclose(back.probabilities(["这个好", "差"]), wanted, atol=1e-6)


def test_a_folder_from_before_there_was_a_choice_has_a_pooler(folder: Path) -> None:
    wanted = mp.load(folder).probabilities(["这个好"])
    change(folder, pool=None)
    back = mp.load(folder)
    assert back.pool == "pooler" and (back.probabilities(["这个好"]) == wanted).all()


@pytest.mark.parametrize("name", ["labels", "max_length", "dropout", "config"])
def test_a_missing_field_is_told(folder: Path, name: str) -> None:
    change(folder, **{name: None})
    with pytest.raises(mp.CheckpointError, match=f"maskplay.json: not a saved classifier, or damaged .*{name}"):
        mp.load(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"labels": 3},
        {"labels": ["a"]},
        {"max_length": "9"},
        {"dropout": "no"},
        {"dropout": 2},
        {"pool": 3},
        {"config": 3},
    ],
)
def test_a_field_that_makes_no_sense_is_told(folder: Path, values: dict) -> None:
    change(folder, **values)
    with pytest.raises(mp.CheckpointError, match="maskplay.json: not a saved classifier, or damaged"):
        mp.load(folder)


def test_labels_take_no_memory_that_the_weights_do_not_have(folder: Path) -> None:
    change(folder, labels=[str(i) for i in range(100_000)])
    with pytest.raises(mp.CheckpointError, match="describes a network of more than [0-9,]+ numbers"):
        mp.load(folder)


def test_a_vocabulary_of_another_model_is_told(folder: Path) -> None:
    mp.Tokenizer.from_characters(["甲乙丙丁" * 9, "".join(map(chr, range(0x5000, 0x5400)))], max_size=1200).save(folder)
    with pytest.raises(mp.CheckpointError, match="the vocabulary has 1[0-9]+ tokens"):
        mp.load(folder)


def test_another_kind_of_play_is_told(folder: Path) -> None:
    change(folder, play="sing")
    with pytest.raises(mp.CheckpointError, match="expected a saved play, one of classify; found 'sing'"):
        mp.load(folder)


def test_a_newer_play_is_told(folder: Path) -> None:
    change(folder, version=2)
    with pytest.raises(mp.UserError, match="maskplay.json: expected at most version 1, found 2: written by a newer"):
        mp.load(folder)


def test_missing_damaged_and_foreign_weights_are_told(folder: Path) -> None:
    path = folder / "model.safetensors"
    arrays = load_file(path)
    kernel = arrays.pop("classifier/kernel")
    save_file(arrays, path)
    with pytest.raises(mp.CheckpointError, match=r"classifier/kernel: expected shape \(32, 2\), found no such tensor"):
        mp.load(folder)
    save_file({**arrays, "classifier/kernel": np.concatenate([kernel, kernel], axis=1)}, path)
    with pytest.raises(mp.CheckpointError, match=r"classifier/kernel: expected shape \(32, 2\), found shape \(32, 4\)"):
        mp.load(folder)
    save_file({**arrays, "classifier/kernel": kernel, "extra": kernel}, path)
    with pytest.raises(mp.CheckpointError, match="extra: expected no such tensor"):
        mp.load(folder)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(mp.CheckpointError, match="model.safetensors: missing or damaged"):
        mp.load(folder)
    path.unlink()
    with pytest.raises(mp.CheckpointError, match="model.safetensors: missing or damaged"):
        mp.load(folder)


@pytest.mark.parametrize(
    "claims",
    [
        {"vocab_size": 2**30},
        {"num_layers": 4096},
        {"max_positions": 2**30},
        {"condition_size": 2**31 - 1},
        {"position": "buckets", "num_buckets": 2**20, "max_positions": 2**20},
        {"hidden_size": 2**12, "num_heads": 1, "head_size": 1, "intermediate_size": 1, "embedding_size": 1},
    ],
)
def test_a_config_that_claims_too_much_takes_no_memory(folder: Path, claims: dict[str, int]) -> None:
    change(folder, config={**json.loads((folder / "maskplay.json").read_text("utf-8"))["config"], **claims})
    with pytest.raises(mp.CheckpointError, match=r"describes a network of more than [\d,]+ numbers"):
        mp.load(folder)


def test_what_a_folder_cannot_say_is_refused_or_merged(tmp_path: Path) -> None:
    model = play()
    model.encoder.blocks[0].attention.query.enable_lora(2)
    kernel = model.encoder.blocks[0].attention.query.lora_kernel_b
    kernel.assign(np.ones(kernel.shape))
    wanted = model.probabilities(["这个好", "差"])
    model.save(tmp_path / "lora")
    np.testing.assert_allclose(mp.load(tmp_path / "lora").probabilities(["这个好", "差"]), wanted, atol=1e-5)
    whole = to_int8(play())
    with pytest.raises(mp.UserError, match="a quantized play is not saved"):
        whole.save(tmp_path / "int8")
    assert not (tmp_path / "int8").exists()
    whole.save(tmp_path / "int8.keras")
    back, texts = keras.saving.load_model(tmp_path / "int8.keras"), ["这个好", "差"]
    assert back.classifier.quantization_mode == "int8"
    np.testing.assert_allclose(back.probabilities(texts), whole.probabilities(texts), rtol=1e-5)
    back.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    np.testing.assert_allclose(again.probabilities(texts), whole.probabilities(texts), rtol=1e-5)


@pytest.mark.parametrize("heads", [("pooler", "mlm"), ("mlm",)])
def test_optimizers_find_their_weights_again(heads: tuple[str, ...], tmp_path: Path) -> None:
    """Patterns of paths: a model from a file has the paths that it was trained with."""
    pattern, adam = "language_model/encoder/.*", keras.optimizers.Adam
    rules = keras.optimizers.OptimizerMap(adam(), {pattern: keras.optimizers.SGD(momentum=0.9)})
    optimizers = {
        "rates": mp.optimizers.ParameterRates(adam(), {"^language_model/encoder/": 0.1}),
        "rows": mp.optimizers.LazyRows(adam(), ["^language_model/encoder/embedding/token/"]),
        "multi": keras.optimizers.MultiOptimizer(rules),
    }
    for name, optimizer in optimizers.items():
        model = mp.plays.Classify(bert(heads=heads, dropout=0.0, attention_dropout=0.0), LABELS, dropout=0.0)
        model.compile(optimizer)
        model.fit(reviews(4), verbose=0)
        model.save(tmp_path / f"{name}.keras")
        back = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert [weight.path for weight in back.weights] == [weight.path for weight in model.weights]
        slots = [[slot.path for slot in each.optimizer.variables] for each in (model, back)]
        assert slots[0] == slots[1] and len(slots[0]) > 2
        for each in (model, back):
            each.fit(reviews(4), shuffle=False, verbose=0)
        np.testing.assert_allclose(back.probabilities(["好"]), model.probabilities(["好"]), atol=1e-6)


def test_half_precision_comes_back(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = play()
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "half.keras")
    back = keras.saving.load_model(tmp_path / "half.keras")
    assert back.encoder.compute_dtype == model.encoder.compute_dtype == "bfloat16"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_compiled(policy: str) -> None:
    """Eagerly Keras makes up for products that a backend lacks; compiled, as `predict` runs, nothing does."""
    keras.config.set_dtype_policy(policy)
    try:
        pretrained = bert()
        model = mp.plays.Classify(pretrained, LABELS)
        assert np.isfinite(model.probabilities(["这个好", "差"])).all()
        assert np.isfinite(pretrained.encode(["这个好", "差"])).all()
        assert model.fit(reviews(4), validation_data=reviews(2), verbose=0).history["val_loss"][0] < 2
    finally:
        keras.config.set_dtype_policy("float32")


def in_pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(0, len(text), 2)]


def test_a_segmenter_of_ones_own_is_given_again(tmp_path: Path) -> None:
    tokens = [*mp.Tokenizer.from_characters(["这个好差东西"], max_size=100).vocab, "这个", "东西"]
    tokenizer = mp.Tokenizer.from_vocab(tokens, segmenter=in_pairs)
    config = mp.Config(vocab_size=len(tokens), hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8)
    model = mp.plays.Classify(mp.Pretrained(mp.LanguageModel(config, ["pooler"]), tokenizer), LABELS)
    model.save(tmp_path / "play")
    with pytest.raises(mp.UserError, match="cannot be opened with a segmenter of your own: save a folder"):
        model.save(tmp_path / "play.keras")
    assert not (tmp_path / "play.keras").exists()
    with pytest.raises(mp.UserError, match="segmenter 'in_pairs' of your own: pass it, segmenter="):
        mp.load(tmp_path / "play")
    back, ids = mp.load(tmp_path / "play", segmenter=in_pairs), tokenizer.encode("这个东西").ids
    assert back.tokenizer.encode("这个东西").ids == ids and len(tokens) - 1 in ids


def test_segments_that_are_token_ids_are_not_made_up() -> None:
    model = mp.plays.Classify(bert(3, ("pooler",), num_segments=None), LABELS)
    tokens = np.array([[2, 5, 6, 3]])
    wanted = model.classifier(model.pooler(model.encoder(tokens)))
    found = model({"tokens": tokens, "segments": np.zeros((1, 4), "int32")})
    np.testing.assert_allclose(*(keras.ops.convert_to_numpy(each) for each in (found, wanted)), atol=1e-6)


def test_an_opened_play_stands_apart_from_its_file(folder: Path) -> None:
    model = mp.load(folder)
    before = model.probabilities(["这个好", "差"])
    path = folder / "model.safetensors"
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(path.stat().st_size // 2))
    np.testing.assert_array_equal(model.probabilities(["这个好", "差"]), before)


def test_classes_have_weights() -> None:
    """By their names, as examples have them, what Keras does by numbers: the same as weights of the examples."""
    some = reviews(12)
    weights = [3.0 if label == "好" else 1.0 for _, label in some]
    losses = []
    for options in ({"class_weight": {"好": 3.0}}, {"class_weight": {1: 3.0}}, {"sample_weight": weights}, {}):
        losses.append(play().fit(some, shuffle=False, verbose=0, **options).history["loss"][0])
    np.testing.assert_allclose(losses[:2], losses[2], rtol=1e-6)
    assert abs(losses[3] - losses[2]) > 1e-5
    for name in ("中", 2, True, "1"):
        with pytest.raises(mp.UserError, match="class_weight: expected names among '坏', '好', found"):
            play().fit(some, class_weight={name: 2.0}, verbose=0)
    for weights, told in (("balanced", "expected numbers by label"), ({"好": "2"}, "expected a number for '好'")):
        with pytest.raises(mp.UserError, match=f"class_weight: {told}"):
            play().fit(some, class_weight=weights, verbose=0)
    with pytest.raises(mp.UserError, match="sample_weight: expected 12, one an example"):
        play().fit(some, class_weight={np.int64(1): 2}, sample_weight=[1.0], verbose=0)


def test_losses_are_of_logits() -> None:
    made, found = play(), []
    for loss in (None, "sparse_categorical_crossentropy", [keras.losses.sparse_categorical_crossentropy]):
        made.compile(keras.optimizers.SGD(0.0), loss)
        found.append(made.evaluate(reviews(12), verbose=0, return_dict=True)["loss"])
    assert found[1:] == pytest.approx([found[0]] * 2, rel=1e-6)
    with pytest.raises(mp.UserError, match="made with from_logits=True, found categorical_cross"):
        made.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy")


def test_saving_takes_what_it_knows(tmp_path: Path) -> None:
    made = play()
    made.save(tmp_path / "a", overwrite=False)
    with pytest.raises(mp.UserError, match="is there already, and overwrite=False"):
        made.save(tmp_path / "a", overwrite=False)
    with pytest.raises(mp.UserError, match="save: a folder takes no overwite"):
        made.save(tmp_path / "a", overwite=False)


def test_an_export_takes_texts_of_any_length(tmp_path: Path) -> None:
    made = play()
    network = mp.LanguageModel(made.config, ["pooler"])
    if keras.backend.backend() != "tensorflow":
        for each in (made, network):
            with pytest.raises(mp.UserError, match="export: needs the backend TensorFlow, found"):
                each.export(tmp_path / "model")
        return
    made.export(tmp_path / "play", verbose=False)
    network.build()
    network.export(tmp_path / "network", verbose=False)
    served = keras.layers.TFSMLayer(tmp_path / "play", call_endpoint="serve")
    inside = pytest.importorskip("tensorflow").saved_model.load(tmp_path / "network")
    for size in ((1, 3), (2, 7)):
        tokens = np.random.default_rng(0).integers(1, 20, size).astype("int32")
        inputs = {"tokens": tokens, "segments": tokens % 2}
        np.testing.assert_allclose(served(inputs), made(inputs), atol=1e-5)
        wanted = network(tokens, segments=tokens % 2)["pooled"]
        np.testing.assert_allclose(inside.serve(tokens, tokens % 2)["pooled"], wanted, atol=1e-5)


def test_wrong_things_are_told() -> None:
    with pytest.raises(mp.UserError, match=r"found 'bundled:zh-small': write Classify\(mp.load"):
        mp.plays.Classify("bundled:zh-small", ["a", "b"])
    clone = keras.models.clone_model(play())
    with pytest.raises(mp.UserError, match="has no tokenizer .as a clone has none."):
        clone.predict(["好吃"])
    for rate in (1.5, -0.1, "0.1", True):
        with pytest.raises(mp.UserError, match="dropout: expected a rate from 0 to 1, found"):
            mp.plays.Classify(bert(), LABELS, dropout=rate)
    with pytest.raises(mp.UserError, match="load the network without condition_size"):
        mp.plays.Classify(bert(condition_size=4), LABELS)
