"""The cast's real files: the tiny checkpoints and the published configs of the data folder, llama2c's .bin."""

from __future__ import annotations

import json
import math
from pathlib import Path

import keras
import pytest

import maskplay as mp
from maskplay.checkpoints.dialect import read_config
from maskplay.checkpoints.shapes import weight_shapes
from parity.cases import CASES, REAL, Real
from parity.closeness import assert_within
from parity.opened import facts, source
from parity.references import llama

TRAINED = pytest.mark.parametrize("row", REAL[1:], ids=lambda row: row.name)


def opened(row: Real, data: Path) -> mp.Pretrained:
    if not (data / row.path).exists():
        pytest.skip(f"no {row.path} in {data}")
    return mp.load(data / row.path, vocab=data / row.tokenizer if row.tokenizer else None)


@pytest.mark.parametrize("row", REAL, ids=lambda row: row.name)
def test_logits_are_the_reference_s(row: Real, data: Path) -> None:
    made, golden = opened(row, data), row.golden()
    found = made.logits(golden["tokens"][None])
    assert made.family == row.family and (made.report.problems, made.report.left_over) == ([], [])
    assert_within(1e-3, row.name, found, golden["logits"][None])
    assert (keras.ops.convert_to_numpy(found)[0].argmax(-1) == golden["logits"].argmax(-1)).all()


@TRAINED
def test_every_greedy_token_is_the_best(row: Real, data: Path) -> None:
    """In one pass over the reference's own text, and fed by and by through a cache."""
    network, told = opened(row, data).network, row.golden()["greedy"]
    best = keras.ops.convert_to_numpy(network(told[None], mask=mp.masks.causal())["lm"])[0].argmax(-1)
    assert best[:-1].tolist() == told[1:].tolist()
    cache, fed, count = network.encoder.new_cache(1, 24), told[None, :1], 0
    for step in range(8):
        hidden, cache = network.encoder(fed, mask=mp.masks.causal(), cache=cache)
        count += fed.shape[1]
        assert int(keras.ops.argmax(network.score(hidden)[0, -1])) == told[count], count
        fed = told[None, count : count + (3 if step % 2 else 1)]


@TRAINED
def test_the_story_is_told(row: Real, data: Path) -> None:
    made, text = opened(row, data), str(row.golden()["text"])
    start = " ".join(text.split(" ")[:4])
    assert len(made.tokenizer.encode(start).ids) < 20
    told = made.generate(start, max_new=60)
    assert len(told) > 80 and text.startswith(told.rstrip("\ufffd")), told


@pytest.mark.parametrize("name", ["llama2c", "llama2c_classifier"])
def test_llama2c_from_its_file(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    llama.write(tmp_path / "model.bin", case.config, case.weights())
    made = mp.load(tmp_path / "model.bin")
    assert (made.report.dialect, made.config.scores == "own") == ("llama2c", name.endswith("classifier"))
    found = made.network(case.inputs()["tokens"], **facts(case))
    assert_within(1e-5, name, found["hidden"], case.expected()["hidden"], case.valid())


def test_another_length_is_no_llama2c_file(tmp_path: Path) -> None:
    case = CASES["llama2c"]
    llama.write(tmp_path / "model.bin", case.config, case.weights())
    whole = (tmp_path / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(whole[:-4])
    with pytest.raises(mp.CheckpointError, match="model.bin: not a checkpoint"):
        mp.load(tmp_path / "model.bin")
    (tmp_path / "model.bin").write_bytes(b"24ka" + bytes(252) + whole)  # llama2.c's later versions begin so
    with pytest.raises(mp.CheckpointError, match="model.bin: not a checkpoint"):
        mp.load(tmp_path / "model.bin")


WHOLE = ("pooler", "nsp", "mlm")
# Family, heads, all parameters of the published file, and what its authors call that.
CONFIGS = {
    "albert_zh-albert_config_tiny": ("albert_brightmart", WHOLE, 4_295_186, "4M"),
    "albert_zh-albert_config_base": ("albert_brightmart", WHOLE, 11_492_234, "12M"),
    "albert_zh-albert_config_large": ("albert_brightmart", WHOLE, 18_084_490, "18M"),
    "albert_zh-albert_config_xlarge": ("albert_brightmart", WHOLE, 62_803_594, "59M"),
    "albert_zh-albert_config_xxlarge": ("albert_brightmart", WHOLE, 240_322_186, "233M"),
    "albert_zh-albert_config_tiny_google": ("albert", WHOLE, 4_142_594, "4M"),
    "albert_zh-albert_config_small_google": ("albert", WHOLE, 4_813_706, "4.7M"),
    "albert_zh-albert_config_tiny_google_fast": ("albert", WHOLE, 19_301_642, ""),
    "albert_zh-albert_config_base_google_fast": ("albert", WHOLE, 88_635_914, ""),
    "albert_zh-bert_config": ("bert", WHOLE, 102_882_442, "102M"),
    "bert-base-chinese": ("bert", WHOLE, 102_882_442, "102M"),
    "hf-albert-chinese-tiny": ("albert", WHOLE, 4_142_594, "4M"),
    "electra-small_discriminator_config": ("electra", ("rtd",), 12_346_625, "12M"),
    "electra-small_ex_discriminator_config": ("electra", ("rtd",), 24_561_153, "24M"),
    "electra-base_discriminator_config": ("electra", ("rtd",), 102_268_417, "102M"),
    "electra-large_discriminator_config": ("electra", ("rtd",), 325_523_457, "324M"),
    "electra-small_generator_config": ("electra_generator", ("mlm",), 3_408_200, ""),
    "electra-small_ex_generator_config": ("electra_generator", ("mlm",), 6_795_208, ""),
    "electra-base_generator_config": ("electra_generator", ("mlm",), 22_279_496, ""),
    "electra-large_generator_config": ("electra_generator", ("mlm",), 41_666_440, ""),
    "roformer-sim-char-ft_L-12_H-768_A-12": ("roformer_sim", ("pooler", "mlm"), 95_468_256, ""),
    "roformer-sim-char-ft_L-6_H-384_A-6": ("roformer_sim", ("pooler", "mlm"), 15_564_768, ""),
    "roformer-v2-char_L-12_H-768_A-12": ("roformer_v2", ("lm",), 94_152_192, "94M"),
    "roformer-v2-char_L-6_H-384_A-6": ("roformer_v2", ("lm",), 15_225_600, "15M"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_published_configs(name: str, data: Path) -> None:
    family, heads, parameters, stated = CONFIGS[name]
    path = data / "configs" / f"{name}.json"
    config = read_config(json.loads(path.read_text(encoding="utf-8")), family, path.name)
    assert sum(map(math.prod, weight_shapes(config, heads).values())) == parameters
    if stated:
        assert parameters == pytest.approx(1e6 * float(stated.removesuffix("M")), rel=0.08)


def test_no_config_is_left_out(data: Path) -> None:
    assert {path.stem for path in (data / "configs").glob("*.json")} == set(CONFIGS)


def test_the_arrays_of_a_llama2c_file_are_its_layers(tmp_path: Path) -> None:
    arrays, config = source("llama2c_classifier")
    assert arrays["layers.1.attention.wq.weight"].shape == (24, 24) and "output.weight" in arrays
    assert config["num_key_value_heads"] == 2 and not config["tie_word_embeddings"]
