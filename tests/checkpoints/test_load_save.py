"""A checkpoint there and back: every tensor accounted for, every mismatch refused, the vocabulary edited on the way."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import maskplay as mp
from maskplay.arrays import write_arrays
from maskplay.checkpoints import tensorflow_bundle
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.load import describe
from maskplay.checkpoints.shapes import weight_shapes
from maskplay.language_model import named_weights
from maskplay.text.tokenizer import Tokenizer

HEADS = ("pooler", "nsp", "mlm")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIALS, *"科学技术是第一生产力的了我在有他这为之大来以个中上们"]
TINY = mp.Config(
    vocab_size=len(VOCABULARY), hidden_size=16, num_layers=2, num_heads=4, intermediate_size=32, max_positions=12
)
TOKENS = np.array([[2, 5, 6, 4, 7, 3, 0, 0], [2, 8, 9, 3, 10, 11, 12, 3]])
SEGMENTS = np.array([[0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]])


def fresh(config: mp.Config = TINY, heads: tuple[str, ...] = HEADS, family: str = "bert") -> mp.Pretrained:
    """A network whose every weight is random and large enough to matter, biases and norms too."""
    network = mp.LanguageModel(config, heads)
    network.build()
    draw = np.random.default_rng(7)
    for weight in network.weights:
        weight.assign(draw.normal(1.0 if weight.path.endswith("gamma") else 0.0, 0.3, weight.shape))
    return mp.Pretrained(network, Tokenizer.from_vocab(VOCABULARY), family)


def outputs(b: mp.Pretrained) -> dict[str, np.ndarray]:
    found = b.network(ops.convert_to_tensor(TOKENS), segments=ops.convert_to_tensor(SEGMENTS))
    return {name: ops.convert_to_numpy(value) for name, value in found.items()}


def same(a: mp.Pretrained, b: mp.Pretrained) -> bool:
    first, second = named_weights(a.network), named_weights(b.network)
    return list(first) == list(second) and all(
        np.array_equal(ops.convert_to_numpy(first[name]), ops.convert_to_numpy(second[name])) for name in first
    )


ROWS = {
    "bert": (TINY, HEADS, "bert"),
    "tanh gelu, other epsilon": (TINY.but(activation="gelu_tanh", norm_epsilon=1e-5), HEADS, "bert"),
    "no heads": (TINY, (), "bert"),
    "masked tokens only": (TINY, ("mlm",), "bert"),
    "three segments": (TINY.but(num_segments=3), ("pooler", "nsp"), "bert"),
    "hierarchical": (TINY.but(position="hierarchical"), ("mlm",), "bert"),
    "roformer": (TINY.but(position="rotary"), ("mlm",), "roformer"),
    "roformer, factorised": (TINY.but(position="rotary", embedding_size=8), ("mlm",), "roformer"),
}


@pytest.mark.parametrize("format", ["maskplay", "huggingface", "google"])
@pytest.mark.parametrize("row", ROWS)
def test_round_trip_is_exact(row: str, format: str, tmp_path: Path) -> None:
    config, heads, family = ROWS[row]
    b = fresh(config, heads, family)
    b.save(tmp_path / "out", format=format)
    back = mp.load(tmp_path / "out")
    assert (back.config, back.family, back.network.heads) == (config, family, heads)
    assert same(b, back) and back.tokenizer == b.tokenizer
    assert (back.report.problems, back.report.left_over) == ([], [])


@pytest.mark.parametrize(
    "format, missing",
    [
        ("huggingface", dict(embedding_size=8)),
        ("huggingface", dict(head_size=6)),
        ("huggingface", dict(key_size=6)),
        ("huggingface", dict(attention="residual")),
        ("huggingface", dict(pooler_activation="linear")),
    ],
)
def test_what_a_format_cannot_hold_is_refused(format: str, missing: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(mp.CheckpointError, match="transformers' bert has no"):
        fresh(TINY.but(**missing)).save(tmp_path / "out", format=format)
    assert list(tmp_path.iterdir()) == []


def test_google_and_maskplay_hold_them(tmp_path: Path) -> None:
    b = fresh(TINY.but(embedding_size=8, head_size=6))
    for format in ("google", "maskplay"):
        b.save(tmp_path / format, format=format)
        assert same(b, mp.load(tmp_path / format))


def test_keras_files_open_too(tmp_path: Path) -> None:
    b = fresh()
    b.network.save(tmp_path / "model.keras")
    b.network.save_weights(tmp_path / "only.weights.h5")
    assert same(b, mp.load(tmp_path / "model.keras"))
    assert same(b, mp.load(tmp_path / "only.weights.h5", config=b.config))
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert same(b, mp.Pretrained(again))


def test_shapes_are_those_of_the_network() -> None:
    for config, heads, _ in ROWS.values():
        network = mp.LanguageModel(config, heads)
        network.build()
        built = {name: tuple(weight.shape) for name, weight in named_weights(network).items()}
        assert built == weight_shapes(config, heads)


def google_arrays(b: mp.Pretrained, folder: Path) -> dict[str, np.ndarray]:
    b.save(folder, format="google")
    tensors = open_tensors(folder)
    return {name: np.array(tensors[name]) for name in tensors.names()}


def test_every_same_shaped_pair_matters(tmp_path: Path) -> None:
    """Swapping two tensors of one shape in the file changes the output: the table knows which is which."""
    b = fresh(TINY.but(num_layers=1))
    arrays = google_arrays(b, tmp_path / "google")
    reference = outputs(b)
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, array in arrays.items():
        by_shape.setdefault(array.shape, []).append(name)
    pairs = [pair for names in by_shape.values() for pair in zip(names, names[1:], strict=False)]
    assert len(pairs) > 15
    for one, other in pairs:
        swapped = {**arrays, one: arrays[other], other: arrays[one]}
        found = outputs(mp.load(swapped, config=b.config))
        assert any(not np.allclose(reference[name], found[name], atol=1e-6) for name in reference), (one, other)


def refuse(arrays: dict[str, np.ndarray], match: str, **options: object) -> None:
    with pytest.raises(mp.CheckpointError, match=match) as caught:
        mp.load(arrays, config=TINY, **options)
    assert "\n" not in str(caught.value)


def test_mismatches_name_both_sides(tmp_path: Path) -> None:
    b = fresh()
    arrays = google_arrays(b, tmp_path / "google")
    kernel = "bert/encoder/layer_1/attention/self/key/kernel"
    without = {name: array for name, array in arrays.items() if name != kernel}
    refuse(without, f"missing {kernel}")
    refuse({**arrays, "bert/extra/kernel": np.ones(3, "float32")}, "left over bert/extra/kernel")
    refuse(
        {**arrays, kernel: arrays[kernel][:, :5]},
        rf"{kernel}: expected floats of shape \(16, 16\), found float32 \(16, 5\)",
    )
    refuse({**arrays, kernel: arrays[kernel].astype("int32")}, f"{kernel}: expected floats")
    half = {name: array for name, array in arrays.items() if name != "cls/predictions/output_bias"}
    refuse(half, "missing cls/predictions/output_bias")
    loose = mp.load(without, config=TINY, strict=False)
    assert loose.report.left_empty == ["encoder/block_1/attention/key/kernel"]
    name = "encoder/block_0/attention/key/kernel"
    assert np.array_equal(ops.convert_to_numpy(named_weights(loose.network)[name]), arrays[kernel.replace("_1", "_0")])
    surplus = mp.load({**arrays, "bert/extra/kernel": np.ones(3, "float32")}, config=TINY, strict=False)
    assert surplus.report.left_over == ["bert/extra/kernel"] and same(surplus, mp.load(arrays, config=TINY))


def test_a_config_that_promises_too_much_allocates_nothing(tmp_path: Path) -> None:
    fresh().save(tmp_path / "out", format="google")
    path = tmp_path / "out" / "bert_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "vocab_size": 2**30, "intermediate_size": 2**30}))
    with pytest.raises(mp.CheckpointError, match="word_embeddings: expected floats of shape .1073741824, 16."):
        mp.load(tmp_path / "out")


@pytest.mark.parametrize(
    "change, match",
    [
        ({"hidden_act": "mish"}, "hidden_act: expected one of"),
        ({"num_attention_heads": 0}, "num_heads"),
        ({"hidden_size": "16"}, "hidden_size"),
        ({"hidden_size": 17}, "not a multiple"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"hidden_dropout_prob": 2}, "dropout"),
        ({"layer_norm_eps": "many"}, "bert_config.json"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"model_type": "megatron"}, "megatron"),
    ],
)
def test_impossible_configs(change: dict[str, object], match: str, tmp_path: Path) -> None:
    fresh().save(tmp_path / "out", format="google")
    path = tmp_path / "out" / "bert_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(mp.CheckpointError, match=match) as caught:
        mp.load(tmp_path / "out")
    assert "\n" not in str(caught.value)


def rewritten(folder: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    path = folder / "model.safetensors"
    tensors = open_tensors(path)
    arrays = change({name: np.array(tensors[name]) for name in tensors.names()})
    write_arrays(path, arrays, metadata={"format": "pt"})


def test_hugging_face_spellings(tmp_path: Path) -> None:
    """Without the prefix, with gamma and beta, with the tied copy, with position numbers: the same network."""
    b = fresh()
    b.save(tmp_path / "hf", format="huggingface")

    def respell(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {name.removeprefix("bert."): array for name, array in arrays.items()}
        for name in list(found):
            legacy = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            found[legacy] = found.pop(name)
        found["embeddings.position_ids"] = np.arange(12)[None]
        found["cls.predictions.decoder.weight"] = found["embeddings.word_embeddings.weight"]
        found["cls.predictions.decoder.bias"] = found["cls.predictions.bias"]
        return found

    rewritten(tmp_path / "hf", respell)
    back = mp.load(tmp_path / "hf")
    assert same(b, back) and len(back.report.passed_over) == 3
    rewritten(
        tmp_path / "hf", lambda arrays: {**arrays, "cls.predictions.decoder.bias": arrays["cls.predictions.bias"] + 1}
    )
    with pytest.raises(mp.CheckpointError, match="decoder.bias should repeat cls.predictions.bias"):
        mp.load(tmp_path / "hf")
    rewritten(tmp_path / "hf", lambda arrays: {**arrays, "bert.embeddings.position_ids": np.arange(12)[None]})
    with pytest.raises(mp.CheckpointError, match="the same tensor twice"):
        mp.load(tmp_path / "hf")


def test_sharded_hugging_face(tmp_path: Path) -> None:
    b = fresh()
    b.save(tmp_path / "hf", format="huggingface")
    path = tmp_path / "hf" / "model.safetensors"
    tensors = open_tensors(path)
    names = tensors.names()
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    arrays = {name: np.array(tensors[name]) for name in names}
    for file, part in parts.items():
        write_arrays(path.with_name(file), {name: arrays[name] for name in part})
    weights = {name: file for file, part in parts.items() for name in part}
    path.with_name("model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    path.unlink()
    assert same(b, mp.load(tmp_path / "hf"))


def test_heads_on_request(tmp_path: Path) -> None:
    b = fresh()
    b.save(tmp_path / "out")
    only = mp.load(tmp_path / "out", heads=["mlm"])
    assert only.network.heads == ("mlm",) and only.report.left_over == []
    encoder = mp.load(tmp_path / "out", heads=[])
    with pytest.raises(mp.UserError, match="no head that scores tokens"):
        encoder.logits(TOKENS)
    fresh(heads=("mlm",)).save(tmp_path / "mlm")
    with pytest.raises(mp.CheckpointError, match="missing pooler/dense/kernel"):
        mp.load(tmp_path / "mlm", heads=["pooler", "mlm"])


def test_keep_tokens_are_a_subset_of_the_full_logits(tmp_path: Path) -> None:
    b = fresh()
    b.save(tmp_path / "out")
    keep = [0, 1, 2, 3, 4, *range(len(VOCABULARY) - 1, 4, -2)]
    small = mp.load(tmp_path / "out", keep_tokens=keep)
    assert small.config.vocab_size == len(keep) == len(small.tokenizer)
    tokens = np.array([[2, *range(5, len(keep)), 3]])[:, :10]
    old = np.array(keep)[tokens]
    full, part = (ops.convert_to_numpy(m.logits(t)) for m, t in ((b, old), (small, tokens)))
    assert np.abs(full[..., keep] - part).max() <= 1e-5
    assert small.tokenizer.tokens([6]) == b.tokenizer.tokens([keep[6]])


def test_compound_tokens_start_from_the_mean(tmp_path: Path) -> None:
    b = fresh()
    b.save(tmp_path / "out")
    grown = mp.load(tmp_path / "out", compound_tokens={"科学": [5, 6], "生产力": ([11, 12, 13], [2.0, 1.0, 1.0])})
    table, old = (ops.convert_to_numpy(m.encoder.embedding.token.embeddings) for m in (grown, b))
    assert np.allclose(table[-2], old[[5, 6]].mean(axis=0), atol=1e-6)
    assert np.allclose(table[-1], (2 * old[11] + old[12] + old[13]) / 4, atol=1e-6)
    bias, before = (ops.convert_to_numpy(m.network.mlm.bias) for m in (grown, b))
    assert np.allclose(bias[-2], before[[5, 6]].mean(), atol=1e-6)
    assert np.array_equal(table[:-2], old)
    encoding = grown.tokenizer.encode("科学是生产力")
    assert encoding.ids == [2, len(VOCABULARY), *b.tokenizer.ids(["是"]), len(VOCABULARY) + 1, 3]
    again = mp.load(tmp_path / "out", keep_tokens=[0, 1, 2, 3, 4, 9], compound_tokens=[[5, 6]])
    assert again.config.vocab_size == 7
    assert np.allclose(ops.convert_to_numpy(again.encoder.embedding.token.embeddings)[-1], table[-2], atol=1e-6)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"keep_tokens": [0, 1, 2, 3, 4, 999]}, "keep_tokens: expected a list of token ids"),
        ({"keep_tokens": [0, 0]}, "twice"),
        ({"keep_tokens": []}, "keep_tokens"),
        ({"compound_tokens": [[-1, 2]]}, "compound_tokens"),
        ({"compound_tokens": [([1, 2], [0.0, 0.0])]}, "weights"),
        ({"position": "rotary"}, "needs other weights"),
        ({"hidden_size": 8}, "cannot be changed at load"),
        ({"heads": ["ner"]}, "heads"),
    ],
)
def test_impossible_options(options: dict[str, object], match: str, tmp_path: Path) -> None:
    fresh().save(tmp_path / "out")
    with pytest.raises(mp.UserError, match=match):
        mp.load(tmp_path / "out", **options)


def test_hierarchical_positions_extend_a_checkpoint(tmp_path: Path) -> None:
    b = fresh()
    b.save(tmp_path / "out")
    with pytest.raises(mp.UserError, match="at most 12 tokens"):
        b.logits(np.ones((1, 20), "int32"))
    longer = mp.load(tmp_path / "out", position="hierarchical", dropout=0.0)
    assert longer.config.longest == 144 and longer.config.dropout == 0.0
    assert ops.convert_to_numpy(longer.logits(np.ones((1, 100), "int32"))).shape == (1, 100, len(VOCABULARY))
    short, long = outputs(b), outputs(longer)
    assert all(np.abs(short[name] - long[name]).max() <= 1e-5 for name in short)


def test_half_precision_files(tmp_path: Path) -> None:
    import ml_dtypes

    b = fresh()
    for kind in ("float16", ml_dtypes.bfloat16):
        arrays = {name: array.astype(kind) for name, array in google_arrays(b, tmp_path / "google").items()}
        tensorflow_bundle.write(tmp_path / "half.ckpt", arrays)
        back = mp.load(tmp_path / "half.ckpt", config=b.config)
        for name, weight in named_weights(back.network).items():
            wanted = ops.convert_to_numpy(named_weights(b.network)[name]).astype(kind).astype("float32")
            assert np.array_equal(ops.convert_to_numpy(weight), wanted)


def test_describe_reads_no_array(tmp_path: Path) -> None:
    fresh().save(tmp_path / "out", format="google")
    found = describe(tmp_path / "out")
    assert (found.match.family, found.found.dialect, found.match.heads) == ("bert", "google", HEADS)
    assert len(found.match.filled) == len(weight_shapes(TINY, HEADS))


def test_wrong_paths(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello there")
    for path in ("empty", "text.txt", "absent"):
        with pytest.raises(mp.UserError) as caught:
            mp.load(tmp_path / path)
        assert str(tmp_path / path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(mp.UserError, match="bert-base-chinese: no such .* its owner in front, such as google-bert"):
        mp.load("bert-base-chinese")
    fresh().save(tmp_path / "out", format="google")
    (tmp_path / "out" / "bert_config.json").unlink()
    with pytest.raises(mp.CheckpointError, match="expected a config.json"):
        mp.load(tmp_path / "out")
    with pytest.raises(mp.UserError, match="bundled:zh-large: expected one of bundled:zh-small"):
        mp.load("bundled:zh-large")


def test_a_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    fresh().save(tmp_path / "out")
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY, "多"]) + "\n")
    with pytest.raises(mp.UserError, match="do not belong together"):
        mp.load(tmp_path / "out", vocab=tmp_path / "vocab.txt")


def test_a_vocabulary_that_only_lies_beside_leaves_the_network(tmp_path: Path) -> None:
    b = mp.Pretrained(fresh().network)
    b.save(tmp_path / "out", format="google")
    (tmp_path / "out" / "vocab.txt").write_text("\n".join([*VOCABULARY, "多"]) + "\n", encoding="utf-8")
    found = mp.load(tmp_path / "out")
    assert same(found, b)
    with pytest.raises(mp.UserError, match=f"has {len(VOCABULARY) + 1} tokens, .* do not belong together"):
        found.encode("科学")


@pytest.mark.parametrize("family", ["t5", "t5_1_1", "mt5"])
def test_t5_with_the_vocabulary_of_bert(tmp_path: Path, family: str) -> None:
    """Chinese ones have it, such as uer/t5-base-chinese-cluecorpussmall."""
    row = mp.families.family(family).config
    sizes = dict(hidden_size=16, num_layers=1, num_heads=2, num_decoder_layers=1, intermediate_size=24, head_size=None)
    t5 = fresh(row.but(vocab_size=len(VOCABULARY), **sizes), ("lm",), family)
    t5.save(tmp_path / "out", format="huggingface")
    found = mp.load(tmp_path / "out")
    assert same(found, t5) and found.family == family
    assert found.generate("科学技术", max_new=5) == t5.generate("科学技术", max_new=5)


def test_saving_never_replaces_a_strangers_folder(tmp_path: Path) -> None:
    b = fresh()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(mp.UserError, match="did not write"):
        b.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    b.save(tmp_path / "out", format="huggingface")
    b.save(tmp_path / "out", format="maskplay")  # ours: replaced whole
    assert not (tmp_path / "out" / "config.json").exists() and same(b, mp.load(tmp_path / "out"))
    with pytest.raises(mp.UserError, match="expected a format"):
        b.save(tmp_path / "out", format="pickle")


def test_keep_tokens_move_the_padding_with_them(tmp_path: Path) -> None:
    b = fresh()
    b.save(tmp_path / "out")
    turned = mp.load(tmp_path / "out", keep_tokens=list(range(len(VOCABULARY)))[::-1])
    assert turned.config.pad_id == turned.tokenizer.pad_id == len(VOCABULARY) - 1
    found, wanted = (m.encode(["科学技术", "一"], pool="mean") for m in (turned, b))
    assert np.abs(found - wanted).max() <= 1e-5
    with pytest.raises(mp.UserError, match="padding token's id 0"):
        mp.load({**google_arrays(b, tmp_path / "google")}, config=b.config, keep_tokens=[1, 2, 3])


def test_encode_in_any_company_and_fill_in_order(tmp_path: Path) -> None:
    b = fresh()
    texts = ["科学", "技术是第一", "生产力的一了我在"]
    together = b.encode(texts)
    assert np.abs(together - np.concatenate([b.encode(text) for text in texts])).max() <= 1e-5
    assert b.encode([]).shape == (0, 16)
    with pytest.raises(mp.UserError, match="max_length: expected a whole number from 1 to 12, found 13"):
        b.encode(texts, max_length=13)
    # Special tokens are no answers; of the others every pair is one.
    filled = b.fill("科[MASK][MASK]学", top=len(VOCABULARY) ** 2)
    assert {c.text for c in filled} == {f"科{one}{two}学" for one in VOCABULARY[5:] for two in VOCABULARY[5:]}
