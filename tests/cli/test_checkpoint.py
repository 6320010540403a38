"""`maskplay inspect`, `convert` and `fill` on tiny checkpoints."""

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest

import maskplay as mp
from cli.faults import call, fault

TEXT = "科学[MASK][MASK]是第一生产力"


@pytest.fixture(scope="module")
def tiny() -> mp.Pretrained:
    keras.utils.set_random_seed(0)
    tokenizer = mp.Tokenizer.from_characters(["科学技术是第一生产力"], max_size=100)
    config = mp.Config(
        vocab_size=len(tokenizer), hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16, max_positions=32
    )
    return mp.Pretrained(mp.LanguageModel(config), tokenizer)


@pytest.fixture(params=["google", "huggingface", "maskplay"])
def folder(request, tiny: mp.Pretrained, tmp_path: Path) -> Path:
    tiny.save(tmp_path / request.param, format=request.param)
    return tmp_path / request.param


def test_inspect_says_what_it_is(capfd, folder: Path) -> None:
    assert call("inspect", folder) == 0
    out = capfd.readouterr().out
    container = "tensorflow" if folder.name == "google" else "safetensors"
    assert f": {container}, written in {folder.name}'s names, family bert" in out
    for line in ("heads        pooler, nsp, mlm", "left over    none", "problems     none", "left empty   none"):
        assert line in out
    assert "hidden_size 8" in out and "num_layers 2" in out


def test_inspect_as_json(capfd, folder: Path, tiny: mp.Pretrained) -> None:
    assert call("inspect", folder, "--json") == 0
    report = json.loads(capfd.readouterr().out)
    parameters = sum(int(np.prod(weight.shape)) for weight in tiny.network.weights)
    assert report["dialect"] == folder.name and report["config"]["hidden_size"] == 8
    assert (report["parameters"], report["bytes"]) == (parameters, 4 * parameters)
    assert report["tensors"] == len(report["filled"])
    assert report["left_over"] == report["left_empty"] == report["problems"] == []
    assert "encoder/block_1/attention/query/kernel" in report["filled"]


def test_inspect_lists_tensors(capfd, folder: Path) -> None:
    assert call("inspect", folder, "--tensors") == 0
    rows = [line.split("\t") for line in capfd.readouterr().out.splitlines() if "\t" in line]
    assert ["float32", "[8, 16]", "encoder/block_1/feed/inner/kernel"] in [row[1:] for row in rows] or [
        "float32", "[16, 8]", "encoder/block_1/feed/inner/kernel"] in [row[1:] for row in rows]  # fmt: skip


@pytest.mark.parametrize("to", ["google", "huggingface", "maskplay"])
def test_convert_keeps_every_number(capfd, folder: Path, tiny: mp.Pretrained, tmp_path: Path, to: str) -> None:
    assert call("convert", folder, tmp_path / "out", "--to", to) == 0
    assert capfd.readouterr().out.startswith(f"{tmp_path / 'out'}: Pretrained(bert, 2 layers")
    back = mp.load(tmp_path / "out")
    for one, other in zip(tiny.network.weights, back.network.weights):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))
    assert back.tokenizer == tiny.tokenizer


def test_fill(capfd, folder: Path, tiny: mp.Pretrained) -> None:
    assert call("fill", folder, TEXT, "--top", 3) == 0
    rows = [line.split("\t") for line in capfd.readouterr().out.splitlines()]
    assert [row[2] for row in rows] == [candidate.text for candidate in tiny.fill(TEXT, top=3)]
    assert call("fill", folder, TEXT, "--top", 3, "--json") == 0
    objects = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [found["text"] for found in objects] == [row[2] for row in rows]
    assert set(objects[0]) == {"token", "score", "text"}


def look_alike(folder: Path, family: str, tokenizer: mp.Tokenizer, **changes: object) -> Path:
    """A folder as others published it: nothing in it says of which family it is."""
    sizes = dict(vocab_size=len(tokenizer), hidden_size=16, num_layers=1, num_heads=2, intermediate_size=24)
    row = mp.families.family(family)
    network = mp.LanguageModel(row.config.but(**sizes, **changes), row.heads or ("pooler", "mlm"))
    mp.Pretrained(network, tokenizer, family).save(folder, format="google")
    config = folder / "bert_config.json"
    values = json.loads(config.read_text("utf-8"))
    silent = {name: value for name, value in values.items() if name not in ("model_type", "scale_decoder_outputs")}
    config.write_text(json.dumps(silent))
    return folder


def test_what_looks_alike_is_told_apart(capfd, tiny: mp.Pretrained, tmp_path: Path) -> None:
    similar = look_alike(tmp_path / "similar", "simbert", tiny.tokenizer)
    said = ("--family", "simbert")
    for family, more in (("bert", ()), ("simbert", said)):
        capfd.readouterr()
        assert call("inspect", similar, "--json", *more) == 0
        assert json.loads(capfd.readouterr().out)["family"] == family
        assert call("convert", similar, tmp_path / family, "--to", "maskplay", *more) == 0
        assert mp.load(tmp_path / family).config.pooler_activation == {"bert": "tanh", "simbert": "linear"}[family]
    assert call("fill", similar, TEXT, *said) == 0
    capfd.readouterr()
    assert "of bert, not of roformer" in fault(capfd, "fill", similar, TEXT, "--family", "roformer")
    assert call("inspect", similar, "--family", "roformer") == 0
    assert "family roformer, made from a checkpoint of bert\n" in capfd.readouterr().out

    answers = look_alike(tmp_path / "answers", "t5_pegasus", tiny.tokenizer, num_decoder_layers=1, head_size=None)
    for family, more in (("mt5", ()), ("t5_pegasus", ("--family", "t5_pegasus"))):
        assert call("inspect", answers, *more) == 0
        assert f", family {family}\n" in capfd.readouterr().out
    assert call("generate", answers, "--prompt", "科学", "--max-new", 2, *more) == 0
    for name in ("--vocab", "--tokenizer"):
        assert call("generate", answers, "--prompt", "科学", "--max-new", 2, *more, name, answers) == 0
        capfd.readouterr()
        assert "nowhere" in fault(capfd, "generate", answers, "--prompt", "科学", *more, name, tmp_path / "nowhere")


def test_a_family_that_is_none(capfd, tiny: mp.Pretrained, tmp_path: Path) -> None:
    known = "expected a model family, one of bert, ernie, "
    for command in (["inspect"], ["fill", TEXT], ["convert", tmp_path / "out", "--to", "google"]):
        name, *rest = command
        assert known in fault(capfd, name, tmp_path / "nowhere", *rest, "--family", "berd")  # before it is looked for
    assert known in fault(capfd, "generate", tmp_path, "--prompt", "x", "--family", "berd")
    mp.plays.Classify(tiny, ["a", "b"]).save(tmp_path / "play")
    assert "--family is for checkpoints" in fault(capfd, "inspect", tmp_path / "play", "--family", "bert")


def test_faults_are_one_line(capfd, tiny: mp.Pretrained, tmp_path: Path) -> None:
    tiny.save(tmp_path / "bert")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for command in (["inspect"], ["fill", TEXT], ["convert", tmp_path / "out", "--to", "google"]):
        name, *rest = command
        assert "no such file or folder" in fault(capfd, name, tmp_path / "nowhere", *rest)
        assert "no checkpoint in this folder" in fault(capfd, name, tmp_path / "empty", *rest)
        assert "not a checkpoint" in fault(capfd, name, tmp_path / "notes.txt", *rest)
    assert "expected a text with [MASK] in it" in fault(capfd, "fill", tmp_path / "bert", "科学")
    assert "expected one of bundled:zh-small" in fault(capfd, "fill", "bundled:zh-large", TEXT)
    taken = fault(capfd, "convert", tmp_path / "bert", tmp_path / "thesis", "--to", "google")
    assert "holds files that maskplay did not write" in taken
    assert "'--to'" in fault(capfd, "convert", tmp_path / "bert", tmp_path / "out", "--to", "word")
    assert "--to" in fault(capfd, "convert", tmp_path / "bert", tmp_path / "out")
    assert "which would be lost" in fault(capfd, "convert", tmp_path / "bert", tmp_path / "bert", "--to", "google")
    assert sorted(os.listdir(tmp_path)) == ["bert", "empty", "notes.txt", "thesis"]


def test_a_play_is_no_checkpoint(capfd, tiny: mp.Pretrained, tmp_path: Path) -> None:
    mp.plays.Classify(tiny, ["a", "b"]).save(tmp_path / "play")
    assert "found a trained play" in fault(capfd, "fill", tmp_path / "play", TEXT)
    assert call("inspect", tmp_path / "play") == 0
    assert f"{tmp_path / 'play'}: a trained play, classify; labels a, b\n" in capfd.readouterr().out
    assert call("inspect", tmp_path / "play", "--json") == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["play"], report["labels"], report["config"]["hidden_size"]) == ("classify", ["a", "b"], 8)
    assert call("inspect", tmp_path / "play", "--tensors") == 0
    rows = [line.split("\t") for line in capfd.readouterr().out.splitlines() if "\t" in line]
    assert len(rows) == report["tensors"] and ["classifier/kernel", "float32", "[8, 2]"] in rows


def test_a_play_with_many_labels_or_a_damaged_one_is_one_line(capfd, tiny: mp.Pretrained, tmp_path: Path) -> None:
    mp.plays.Classify(tiny, [f"label {i}" for i in range(300)]).save(tmp_path / "play")
    assert call("inspect", tmp_path / "play") == 0
    assert "label 9 and 290 more\n" in capfd.readouterr().out
    marker = tmp_path / "play" / "maskplay.json"
    whole = json.loads(marker.read_text("utf-8"))
    for change, told in (
        ({"config": 3}, "not a saved play's description"),
        ({"labels": None}, "not a saved play's description"),
        ({"version": 2}, "expected at most version 1, found 2: written by a newer maskplay"),
    ):
        marker.write_text(json.dumps({**whole, **change}))
        assert told in fault(capfd, "inspect", tmp_path / "play")


def test_a_bundled_model_is_looked_into(capfd) -> None:
    assert call("inspect", "bundled:zh-small") == 0
    assert "written in huggingface's names, family roformer" in capfd.readouterr().out


def test_a_conversion_does_not_lose_its_source(capfd, tiny: mp.Pretrained, tmp_path: Path) -> None:
    tiny.save(tmp_path / "bert", format="google")
    file = tmp_path / "bert" / "bert_model.ckpt"
    assert "which would be lost" in fault(capfd, "convert", file, tmp_path / "bert", "--to", "huggingface")
    assert mp.load(file).config == tiny.config


def test_names_that_utf8_cannot_say(capfd, tiny: mp.Pretrained, tmp_path: Path) -> None:
    tiny.save(tmp_path / "bert")
    path = tmp_path / "bert" / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    entry = rb'{"\ud800\u001b[31mx":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
    header = entry + content[9 : 8 + size]
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    for option in ("--tensors", "--json"):
        assert call("inspect", tmp_path / "bert", option) == 0
        out = capfd.readouterr().out
        assert "ud800" in out and "\x1b" not in out


@pytest.mark.parametrize("target", [".", "..", "inside/.."])
def test_a_conversion_needs_a_name(capfd, tiny: mp.Pretrained, tmp_path: Path, monkeypatch, target: str) -> None:
    tiny.save(tmp_path / "bert")
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty" / "inside")
    told = fault(capfd, "convert", tmp_path / "bert", target, "--to", "google")
    assert told == f"{str(Path(target))!r}: expected the name of a folder to make"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_is_one_line(capfd, tiny: mp.Pretrained, tmp_path: Path) -> None:
    tiny.save(tmp_path / "bert")
    (tmp_path / "locked").mkdir(mode=0o500)
    told = fault(capfd, "convert", tmp_path / "bert", tmp_path / "locked" / "a", "--to", "google")
    assert "Permission denied" in told


def test_a_conversion_does_not_lose_its_vocabulary(capfd, tiny: mp.Pretrained, tmp_path: Path) -> None:
    tiny.save(tmp_path / "bert")
    tiny.save(tmp_path / "old")
    options = ("--to", "google", "--vocab", tmp_path / "old" / "vocab.txt")
    told = fault(capfd, "convert", tmp_path / "bert", tmp_path / "old", *options)
    assert "this is the vocabulary to read, which would be lost" in told


def test_labels_out_of_a_folder_do_nothing_to_a_terminal(capfd, tiny: mp.Pretrained, tmp_path: Path) -> None:
    mp.plays.Classify(tiny, ["", "\x1b[31mred"]).save(tmp_path / "play")
    (tmp_path / "texts.txt").write_text("科\n学", encoding="utf-8")
    for command in (["inspect", tmp_path / "play"], ["predict", tmp_path / "play", tmp_path / "texts.txt"]):
        assert call(*command) == 0
        assert "\x1b" not in capfd.readouterr().out
    marker = tmp_path / "play" / "maskplay.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text("utf-8")), "labels": [1, 2]}))
    assert "not a saved play's description" in fault(capfd, "inspect", tmp_path / "play")
