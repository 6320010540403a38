"""The NumPy formulas of references/ give the numbers of the programs that could be run, and differ when they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parity.cases import CASES, CAST, REAL
from parity.references import bert, gau, gpt2, llama

pytestmark = pytest.mark.once


def same(name: str, row: int, found: dict[str, np.ndarray]) -> None:
    expected, size = CASES[name].expected(), CASES[name].lengths[row]
    assert found.keys() == expected.keys() or found.keys() < expected.keys()
    for key, value in found.items():
        theirs = expected[key][row, :size] if expected[key].ndim == 3 else expected[key][row]
        gap = np.abs(value - theirs).max()
        assert gap < 3e-6 * max(1, np.abs(theirs).max()), f"{name} {key}: {gap}"


@pytest.mark.parametrize("name", CASES)
def test_a_row_is_whole(name: str) -> None:
    """Its golden file belongs to its weights, covers its texts, and holds finite numbers of some size."""
    case = CASES[name]
    given, expected = case.inputs(), case.expected()
    assert given["tokens"].shape == (len(case.lengths), max(case.lengths)) and "hidden" in expected
    assert case.valid("encoded").sum() == sum(case.lengths)
    for key, value in expected.items():
        assert value.dtype == "float32" and np.isfinite(value).all() and np.abs(value).max() > 0.5, key


def test_golden_files_are_small_and_all_used() -> None:
    files = {path.stem: path.stat().st_size for path in CAST.iterdir()}
    assert set(files) == set(CASES) | {row.name for row in REAL}
    assert sum(files.values()) < 1_500_000


@pytest.mark.parametrize("name", ["gau_alpha", "gau_alpha_lm"])
def test_gau_is_that_of_bert4keras(name: str) -> None:
    case = CASES[name]
    given = case.inputs()
    for row, size in enumerate(case.lengths):
        tokens, segments = given["tokens"][row, :size], given["segments"][row, :size]
        same(name, row, gau.forward(case.weights(), case.config, tokens, segments, causal="causal" in case.mask))


@pytest.mark.parametrize("name", ["llama_hf", "llama_hf_tied"])
def test_llama_is_that_of_transformers(name: str) -> None:
    case = CASES[name]
    for row, tokens in enumerate(case.inputs()["tokens"]):
        same(name, row, llama.forward(case.weights(), case.config, tokens))


def test_gpt2_is_that_of_transformers() -> None:
    case = CASES["gpt2_hf"]
    words = {"weight": "w", "bias": "b"}
    weights = {
        "model/wte": case.weights()["transformer.wte.weight"],
        "model/wpe": case.weights()["transformer.wpe.weight"],
    }
    for name, value in case.weights().items():
        *place, kind = name.removeprefix("transformer.").replace("h.", "h").split(".")
        norm = place[-1].startswith("ln_")
        kind = {"weight": "g", "bias": "b"}[kind] if norm else words[kind]
        weights["/".join(["model", *place, kind])] = value[None] if kind == "w" else value
    hparams = {"n_layer": case.config["n_layer"], "n_head": case.config["n_head"]}
    for row, size in enumerate(case.lengths):
        same("gpt2_hf", row, gpt2.forward(weights, hparams, case.inputs()["tokens"][row, :size]))


def test_electra_generator_is_that_of_transformers() -> None:
    case = CASES["electra_hf_generator"]
    weights = {}
    for name, value in case.weights().items():
        name = name.replace("electra.e", "generator.e") if "embeddings." not in name else name
        name = name.replace("generator_lm_head.bias", "generator_predictions.output_bias").replace("layer.", "layer_")
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        if name.endswith("_embeddings.weight"):
            name = name.removesuffix(".weight")
        elif name.endswith(".weight"):
            name, value = name.replace(".weight", ".kernel"), value.T
        weights[name.replace(".", "/")] = value
    given = case.inputs()
    assert set(weights) == set(CASES["electra_generator"].table)
    for row, size in enumerate(case.lengths):
        tokens, segments = given["tokens"][row, :size], given["segments"][row, :size]
        same("electra_hf_generator", row, bert.generator(weights, case.config, tokens, segments))


def test_llama2c_files_are_read_as_written(tmp_path: Path) -> None:
    for name in ("llama2c", "llama2c_classifier"):
        case = CASES[name]
        llama.write(tmp_path / name, case.config, case.weights())
        config, arrays = llama.read(tmp_path / name)
        assert config == case.config and set(arrays) == set(case.table)
        for key, value in case.weights().items():
            np.testing.assert_array_equal(arrays[key], value)


def test_pairs_and_halves_are_one_model_with_other_rows() -> None:
    """The reordering that converters of LLaMA files do."""
    config, weights = llama.named(CASES["llama2c"].config, CASES["llama2c"].weights())
    size = config["hidden_size"] // config["num_attention_heads"]
    for name, value in weights.items():
        if "q_proj" in name or "k_proj" in name:
            rows = value.reshape(-1, size // 2, 2, value.shape[-1])
            weights[name] = rows.transpose(0, 2, 1, 3).reshape(value.shape)
    same("llama2c", 0, llama.forward(weights, config, CASES["llama2c"].inputs()["tokens"][0]))


@pytest.mark.parametrize("row", REAL[1:], ids=lambda row: row.name)
def test_trained_models_tell_their_story(row, data: Path) -> None:
    if not (data / row.path).is_file():
        pytest.skip(f"no {row.path} in {data}")
    config, weights = llama.named(*llama.read(data / row.path))
    golden = row.golden()
    told = llama.greedy(weights, config, [1], 20, pairs=True)
    assert told == golden["greedy"][: len(told)].tolist()
    vocabulary = llama.read_tokens(data / row.tokenizer, config["vocab_size"])
    assert str(golden["text"]).startswith(llama.text(told, vocabulary).rstrip("\ufffd"))
