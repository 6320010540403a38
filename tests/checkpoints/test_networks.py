"""What a network is, beyond its weights, is told to files and read from them; files cannot lie about their size."""

import json
from pathlib import Path

import numpy as np
import pytest
from keras import ops

import maskplay as mp
from checkpoints.test_load_save import TINY, TOKENS, fresh, outputs, same
from maskplay.arrays import write_arrays
from maskplay.checkpoints import load
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.load import describe
from maskplay.families import FAMILIES
from maskplay.text.byte_bpe import CHARACTER


def speaker(**changes) -> mp.Pretrained:
    row = FAMILIES["gpt2"].config.but(
        vocab_size=len(CHARACTER) + 2, hidden_size=16, num_layers=2, num_heads=4, intermediate_size=64,
        max_positions=12, pad_id=None, **changes,
    )  # fmt: skip
    tokens = [*CHARACTER.values(), "ab", "<|endoftext|>"]
    tokenizer = mp.Tokenizer.from_merges({token: i for i, token in enumerate(tokens)}, [("a", "b")], form="gpt2")
    return mp.Pretrained(mp.LanguageModel(row, ["lm"]), tokenizer, "gpt2")


@pytest.mark.parametrize("format", ["maskplay", "google"])
def test_a_loaded_network_stands_apart_from_its_file(tmp_path: Path, format: str) -> None:
    fresh().save(tmp_path / "out", format=format)
    b = mp.load(tmp_path / "out")
    before = outputs(b)
    for path in (tmp_path / "out").glob("*.safetensors" if format == "maskplay" else "*.data-*"):
        with open(path, "r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(bytes(path.stat().st_size // 2))
    for name, value in outputs(b).items():
        np.testing.assert_array_equal(value, before[name])


def test_narrow_kernels_are_saved_in_the_wide_one(tmp_path: Path) -> None:
    b = fresh()
    block = b.encoder.blocks[0]
    for layer in (block.attention.query, block.feed.inner):
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.1))
    wanted = outputs(b)
    for format in ("maskplay", "huggingface", "google"):
        b.save(tmp_path / format, format=format)
        for name, value in outputs(mp.load(tmp_path / format)).items():
            np.testing.assert_allclose(value, wanted[name], rtol=0, atol=2e-4)
    plain = outputs(fresh())
    assert np.abs(plain["mlm"] - wanted["mlm"]).max() > 0.05


def test_heads_without_weights_are_remembered(tmp_path: Path) -> None:
    mp.Pretrained(mp.LanguageModel(TINY, ["lm"])).save(tmp_path / "bert")
    assert mp.load(tmp_path / "bert").network.heads == ("lm",)
    b = speaker()
    b.save(tmp_path / "gpt2")
    mp.load(tmp_path / "gpt2", heads=[]).save(tmp_path / "encoder")
    assert mp.load(tmp_path / "gpt2").network.heads == ("lm",) and mp.load(tmp_path / "encoder").network.heads == ()
    assert mp.load(tmp_path / "encoder", heads=["lm"]).network.heads == ("lm",)


@pytest.mark.parametrize("family", ["bert", "roformer", "gpt2"])
def test_keras_own_file_is_of_the_family_it_is_built_like(tmp_path: Path, family: str) -> None:
    b = speaker() if family == "gpt2" else fresh(TINY.but(position=FAMILIES[family].config.position), ("mlm",), family)
    b.network.save(tmp_path / "one.keras")
    back = mp.load(tmp_path / "one.keras")
    assert (back.family, back.network.heads, back.config) == (family, b.network.heads, b.config)
    np.testing.assert_array_equal(*(ops.convert_to_numpy(one.logits(TOKENS)) for one in (b, back)))
    if family == "bert":
        assert mp.load(tmp_path / "one.keras", family="wobert").family == "wobert"


def test_t5_has_one_rate_for_all_its_dropout() -> None:
    keys = {"vocab_size": 9, "d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 8, "d_kv": 4, "model_type": "t5"}
    for rate in (0.0, 0.3):
        config = load.read_config({**keys, "dropout_rate": rate}, "t5", "config.json")
        assert (config.dropout, config.attention_dropout) == (rate, rate)


def test_transformers_is_told_where_text_ends(tmp_path: Path) -> None:
    b = speaker()
    b.save(tmp_path / "gpt2", format="huggingface")
    said = json.loads((tmp_path / "gpt2" / "config.json").read_text(encoding="utf-8"))
    assert said["eos_token_id"] == b.tokenizer.vocab["<|endoftext|>"] == len(CHARACTER) + 1
    fresh().save(tmp_path / "bert", format="huggingface")
    assert "eos_token_id" not in json.loads((tmp_path / "bert" / "config.json").read_text(encoding="utf-8"))


def test_what_transformers_would_score_otherwise_is_refused(tmp_path: Path) -> None:
    config = TINY.but(position="learned_after_pad", pad_id=1, activation="gelu_tanh", num_segments=1)
    b = mp.Pretrained(mp.LanguageModel(config, ["mlm"]), None, "roberta")
    with pytest.raises(mp.CheckpointError, match="scores through gelu, not gelu_tanh"):
        b.save(tmp_path / "out", format="huggingface")


def test_a_copy_that_differs_matters_only_where_it_is_used(tmp_path: Path) -> None:
    b = fresh()
    b.save(tmp_path / "out", format="huggingface")
    path = tmp_path / "out" / "model.safetensors"
    tensors = open_tensors(path)
    arrays = {name: np.array(tensors[name]) for name in tensors}
    arrays["cls.predictions.decoder.weight"] = arrays["bert.embeddings.word_embeddings.weight"] + 1
    write_arrays(path, arrays)
    with pytest.raises(mp.CheckpointError, match="should repeat .* but differs"):
        mp.load(tmp_path / "out")
    assert mp.load(tmp_path / "out", heads=["pooler"]).network.heads == ("pooler",)
    loose = mp.load(tmp_path / "out", strict=False)
    assert same(loose, b) and "cls.predictions.decoder.weight" in loose.report.left_over


def test_bytes_that_are_handed_out_again_and_again(tmp_path: Path) -> None:
    fresh().save(tmp_path / "out", format="google")
    found = describe(tmp_path / "out")
    load._check_size(found)
    assert found.tensors.stored is not None
    found.tensors.stored //= 5  # as if five tensors lay over the same bytes
    with pytest.raises(mp.CheckpointError, match=r"tensors claim [\d,]+ bytes of the [\d,]+ that there are"):
        load._check_size(found)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"model_type": ["bert"]}, "model_type: expected a name, found"),
        ({"layer_norm_eps": 10**400}, "config.json"),
        ({"attention_head_size": "a", "num_attention_heads": 10**10}, "attention_head_size: expected an integer"),
        ({"hidden_size": "16"}, "hidden_size: expected an integer, found '16'"),
    ],
)
def test_a_config_file_of_other_kinds(tmp_path: Path, change: dict, told: str) -> None:
    fresh().save(tmp_path / "out", format="huggingface")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(mp.CheckpointError, match=told) as error:
        mp.load(tmp_path / "out")
    assert "\n" not in str(error.value)


