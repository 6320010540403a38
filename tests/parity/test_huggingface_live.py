"""Random transformers models, saved to a folder and opened with `mp.load`: equal numbers, and the same files back."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

import maskplay as mp
from maskplay.language_model import named_weights
from parity.closeness import assert_within

torch = pytest.importorskip("torch", reason="live parity needs torch; the goldens cover the rest")
transformers = pytest.importorskip("transformers", reason="live parity needs transformers; the goldens cover the rest")

from parity import twins  # noqa: E402


def hidden_limit(case: twins.Case) -> float:
    return 1e-5 if case.config["num_hidden_layers"] == 2 else 1e-4


@pytest.mark.parametrize("name", twins.CASES)
def test_outputs_equal(name: str, tmp_path: Path) -> None:
    case = twins.CASES[name]
    twin, given = twins.build(case), twins.inputs(case)
    theirs = twins.reference(twin, **given)
    bert = mp.load(twins.save(twin, tmp_path))
    tokens, segments, valid = given["tokens"], given["segments"], given["tokens"] != 0

    ours = bert.encoder(tokens, segments=segments, details=True)
    assert len(ours["attentions"]) == case.config["num_hidden_layers"]
    limit = hidden_limit(case)
    assert_within(limit, f"{name} hidden", ours["hidden"], theirs["hidden"], valid)
    for index, state in enumerate(ours["states"]):
        assert_within(limit, f"{name} state {index}", state, theirs[f"states/{index}"], valid)
    for index, attention in enumerate(ours["attentions"]):
        assert_within(limit, f"{name} attention {index}", attention, theirs[f"attentions/{index}"], valid)
    assert_within(limit, f"{name} called", bert.encoder(tokens, segments=segments), theirs["hidden"], valid)

    heads = bert.network(tokens, segments=segments)
    assert set(heads) == {"hidden", "pooled", "nsp", "mlm"} & set(theirs), "heads are what the file has"
    if "pooled" in theirs:
        assert_within(limit, f"{name} pooled", heads["pooled"], theirs["pooled"])
    if "nsp" in theirs:
        assert_within(1e-3, f"{name} nsp", heads["nsp"], theirs["nsp"])
    if "mlm" in theirs:
        for logits in (heads["mlm"], bert.logits(tokens, segments=segments)):
            assert_within(1e-3, f"{name} mlm", logits, theirs["mlm"], valid)
            best = keras.ops.convert_to_numpy(logits).argmax(-1)
            assert (best == theirs["mlm"].argmax(-1))[valid].all(), "another best token"


@pytest.mark.parametrize("architecture", ["ErnieModel", "ErnieForMaskedLM"])
def test_the_task_that_nobody_names_is_the_first(architecture: str, tmp_path: Path) -> None:
    case = twins.Case(architecture, twins.SMALL | {"use_task_id": True, "type_vocab_size": 4, "hidden_act": "relu"}, 11)
    twin, given = twins.build(case), twins.inputs(case)
    ernie, theirs, valid = mp.load(twins.save(twin, tmp_path)), twins.reference(twin, **given), given["tokens"] != 0
    hidden = ernie.encoder(given["tokens"], segments=given["segments"])
    assert_within(1e-5, architecture, hidden, theirs["hidden"], valid)
    assert [name.split(".")[-2] for name in ernie.report.passed_over].count("task_type_embeddings") == 1


@pytest.mark.parametrize("file", ["safetensors", "bin", "legacy"])
@pytest.mark.parametrize("name", ["bert_pretraining", "bert_bare", "roformer_factorised"])
def test_files_of_every_age_open_alike(name: str, file: str, tmp_path: Path) -> None:
    case = twins.CASES[name]
    twin, given = twins.build(case), twins.inputs(case)
    bert = mp.load(twins.save(twin, tmp_path, file))
    hidden = bert.encoder(given["tokens"], segments=given["segments"])
    assert_within(1e-5, f"{name} {file}", hidden, twins.reference(twin, **given)["hidden"], given["tokens"] != 0)


@pytest.mark.parametrize("name", [name for name in twins.CASES if not name.endswith("deep")])
def test_huggingface_and_back_is_exact(name: str, tmp_path: Path) -> None:
    """Hugging Face -> ours -> Hugging Face: transformers opens it and every tensor is equal bit for bit."""
    twin = twins.build(twins.CASES[name])
    mp.load(twins.save(twin, tmp_path / "theirs")).save(tmp_path / "ours", format="huggingface")
    back, report = type(twin).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"], report
    before, after = twin.state_dict(), back.state_dict()
    assert set(before) == set(after)
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key
    one, two = (model.config.to_dict() for model in (twin, back))
    act = {"gelu_pytorch_tanh": "gelu_new"}  # two names of one function; ours remembers the function
    assert act.get(two["hidden_act"], two["hidden_act"]) == act.get(one["hidden_act"], one["hidden_act"])
    for field in twins.CASES[name].config.keys() - {"hidden_act"}:
        assert two[field] == one[field], field


@pytest.mark.parametrize("name", ["bert_pretraining", "bert_epsilon", "roformer_factorised"])
def test_google_and_back_is_exact(name: str, tmp_path: Path) -> None:
    """Hugging Face -> ours -> Google's names -> ours: the same tensors, the same outputs."""
    case = twins.CASES[name]
    given = twins.inputs(case)
    first = mp.load(twins.save(twins.build(case), tmp_path / "theirs"))
    first.save(tmp_path / "google", format="google")
    second = mp.load(tmp_path / "google")
    assert second.config == first.config
    ours, again = (named_weights(bert.network) for bert in (first, second))
    assert set(ours) == set(again)
    for path, weight in ours.items():
        assert (weight.numpy() == again[path].numpy()).all(), path
    one, two = (bert.encoder(given["tokens"], segments=given["segments"]) for bert in (first, second))
    assert_within(0.0, f"{name} through google", two, keras.ops.convert_to_numpy(one))
