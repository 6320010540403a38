"""What config files say, as transformers reads them: scores, positions, activations, widths."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import maskplay as mp
from maskplay.checkpoints.dialect import read_config, write_config
from maskplay.checkpoints.huggingface import config_file
from maskplay.checkpoints.match import refuse_strangers
from maskplay.checkpoints.tensors import LazyTensor, Tensors
from maskplay.families import FAMILIES

SIZES = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
SMALL = {"vocab_size": 30, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "intermediate_size": 16}
T5 = {**SIZES, "model_type": "t5", "feed_forward_proj": "gated-gelu"}


def pretrained(family: str, heads: list[str], **changes: Any) -> mp.Pretrained:
    config = mp.families.family(family).config.but(**SMALL, **changes)
    return mp.Pretrained(mp.LanguageModel(config, heads), None, family)


@pytest.mark.parametrize(
    "said, own, scores",
    [
        ({"tie_word_embeddings": False}, True, "own"),
        ({"tie_word_embeddings": True}, True, "own_scaled"),  # tied, and the copy is in the file
        ({}, True, "own_scaled"),
        ({}, False, "tied_scaled"),
        ({"scale_decoder_outputs": False}, True, "own"),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False, "tied"),
        ({"model_type": "mt5"}, True, "own"),
        ({"model_type": "mt5", "tie_word_embeddings": True}, True, "own"),
    ],
)
def test_t5_scales_what_it_was_told_to_tie(said: dict[str, object], own: bool, scores: str) -> None:
    family = "mt5" if said.get("model_type") == "mt5" else "t5_1_1"
    assert read_config({**T5, **said}, family, "config.json", own_scores=own).scores == scores


def test_rotary_scaling_is_refused_under_every_name() -> None:
    llama = {**SIZES, "model_type": "llama"}
    for said in (
        {"rope_parameters": {"type": "linear", "factor": 2.0, "rope_theta": 77.0}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"sliding_window": 4096},
    ):
        with pytest.raises(mp.CheckpointError, match="is not supported"):
            read_config({**llama, **said}, "llama", "config.json")
    plain = {"rope_theta": 77.0, "rope_scaling": {"rope_type": "default"}, "sliding_window": None}
    assert read_config({**llama, **plain}, "llama", "config.json").rotary_base == 77.0


@pytest.mark.parametrize("family, heads", [("roberta", ["mlm"]), ("electra_generator", ["mlm"])])
def test_heads_whose_gelu_transformers_fixes(family: str, heads: list[str], tmp_path: Path) -> None:
    pretrained(family, heads).save(tmp_path / "hf", format="huggingface")
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "hidden_act": "relu"}))
    with pytest.raises(mp.CheckpointError, match="scores tokens through gelu whatever hidden_act says"):
        mp.load(tmp_path / "hf")
    if family == "roberta":
        assert mp.load(tmp_path / "hf", heads=[]).config.activation == "relu"
    with pytest.raises(mp.CheckpointError, match="scores through gelu, not relu"):
        pretrained(family, heads, activation="relu").save(tmp_path / "out", format="huggingface")


def test_activations_are_written_as_transformers_calls_them() -> None:
    llama = pretrained("llama", ["lm"], activation="gated_gelu_tanh", pad_id=0).config
    assert config_file(llama, "llama", ["lm"])["hidden_act"] == "gelu_new"
    t5 = pretrained("t5", ["lm"], num_decoder_layers=1, head_size=4, activation="gelu_tanh").config
    assert config_file(t5, "t5", ["lm"])["feed_forward_proj"] == "gelu_new"


def test_transformers_mt5_does_not_scale() -> None:
    changes = {"num_decoder_layers": 1, "head_size": 4, "activation": "gated_gelu_tanh"}
    assert config_file(pretrained("mt5", ["lm"], **changes).config, "mt5", ["lm"])["tie_word_embeddings"] is False
    with pytest.raises(mp.CheckpointError, match="never scales"):
        config_file(pretrained("mt5", ["lm"], scores="own_scaled", **changes).config, "mt5", ["lm"])


def test_albert_projects_though_the_widths_are_equal(tmp_path: Path) -> None:
    b = pretrained("albert", ["mlm"], embedding_size=8)
    b.save(tmp_path / "hf", format="huggingface")
    back = mp.load(tmp_path / "hf")
    assert back.config.embedding_size == 8 and "encoder/embedding/projection/kernel" in {
        row.ours for row in back.report.filled
    }
    tokens = np.array([[3, 4, 5]])
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(one.encoder(tokens)) for one in (back, b)))


@pytest.mark.parametrize(
    "name, family",
    [
        ("model.decoder.layers.0.fc1.bias", "OPT"),
        ("model.layers.0.self_attn.q_proj.bias", "LLaMA with biases"),
        ("transformer.word_embedding.weight", "XLNet"),
        ("transformer.word_embeddings.weight", ""),  # Bloom, Falcon: not XLNet
    ],
)
def test_strangers_are_called_by_their_names(name: str, family: str) -> None:
    zero = np.zeros(1, "float32")
    tensors = Tensors("x", "safetensors", {name: LazyTensor(zero.shape, zero.dtype, lambda: zero)})
    if family:
        with pytest.raises(mp.CheckpointError, match=family):
            refuse_strangers(tensors)
    else:
        refuse_strangers(tensors)


@pytest.mark.parametrize("source", [5, None, b"folder"])
def test_what_is_no_source(source: object) -> None:
    with pytest.raises(mp.UserError, match="expected a path, a hub id or arrays by name"):
        mp.load(source)


def test_a_family_that_is_no_name(tmp_path: Path) -> None:
    pretrained("bert", ["mlm"]).save(tmp_path / "b")
    path = tmp_path / "b" / "maskplay.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "family": ["bert"]}))
    with pytest.raises(mp.CheckpointError, match="checkpoint of the family"):
        mp.load(tmp_path / "b")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_own_choices_survive_its_config_file(name: str) -> None:
    """Also those that are usual in it, and an embedding of a width of its own."""
    usual = FAMILIES[name].config
    for config in (usual, usual.but(embedding_size=usual.embedding_size or 64)):
        assert read_config(write_config(config, name), name, "x", own_scores=config.scores.startswith("own")) == config


@pytest.mark.parametrize("format", ["huggingface", "google"])
def test_an_albert_of_the_usual_width_is_saved(format: str, tmp_path: Path) -> None:
    config = FAMILIES["albert"].config.but(**{**SMALL, "hidden_size": 160})
    assert config.embedding_size == 128
    albert = mp.Pretrained(mp.LanguageModel(config, ["pooler", "mlm"]), None, "albert")
    albert.save(tmp_path / "albert", format)
    again = mp.load(tmp_path / "albert")
    assert again.config == config
    for ours, theirs in zip(albert.network.weights, again.network.weights):
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(weight) for weight in (ours, theirs)))


@pytest.mark.parametrize(
    "said, field, value",
    [
        ({"rope_theta": 5e5, "rope_parameters": {"rope_type": "default"}}, "rotary_base", 5e5),
        ({"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 7e5}}, "rotary_base", 7e5),
        ({"pad_token_id": -1}, "pad_id", None),
        ({"pad_token_id": 30}, "pad_id", None),
        ({"pad_token_id": 2, "eos_token_id": [9, 2]}, "pad_id", None),
        ({"pad_token_id": 2, "bos_token_id": 2}, "pad_id", None),
        ({"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": None}, "pad_id", 2),
        ({}, "norm_epsilon", 1e-6),
        ({"rms_norm_eps": 1e-5}, "norm_epsilon", 1e-5),
    ],
)
def test_what_transformers_takes_a_llamas_file_to_say(said: dict[str, object], field: str, value: object) -> None:
    config = read_config({**SIZES, "model_type": "llama", **said}, "llama", "config.json")
    assert getattr(config, field) == value


def test_a_bert_keeps_the_padding_that_its_file_names() -> None:
    said = {**SIZES, "model_type": "roberta", "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 1}
    config = read_config({**said, "max_position_embeddings": 20}, "roberta", "config.json")
    assert config.pad_id == 1 and config.norm_epsilon == 1e-12
    with pytest.raises(mp.CheckpointError, match="pad_id"):
        read_config({**said, "pad_token_id": -1}, "roberta", "config.json")
