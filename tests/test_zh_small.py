"""The scripts behind the bundled model run, small: text parted, evaluated, fine-tuned, packed."""

import importlib.util
import json
import lzma
import runpy
import shutil
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import maskplay as mp
from laws.house import ROOT
from maskplay.cli.recipe import settle

SCRIPTS = ROOT / "examples" / "zh_small"


@pytest.fixture
def script(monkeypatch):
    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.syspath_prepend(ROOT / "examples")
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")

    return run


def test_held_out_text_is_not_trained_on(script, capsys, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    lines = ["".join(draw.choice([*"天地玄黄宇宙洪荒日月盈昃辰宿列张"], 20)) for _ in range(4000)]
    lines[:2000:50] = ["都是一样的一行，站在许多地方。"] * 40
    folder = tmp_path / "data" / "corpus"
    folder.mkdir(parents=True)
    for name in ("laws", "sql_docs", "dotnet_docs", "vs_docs", "cpp_docs", "graph_docs", "tidb_docs", "oiwiki"):
        (folder / f"{name}.txt.xz").write_bytes(lzma.compress("\n".join(lines).encode()))
    pairs = "\n".join(f"一\t古{line}\t今{line}" for line in lines)
    (folder / "niutrans_pairs.tsv.xz").write_bytes(lzma.compress(pairs.encode()))
    script("corpus.py", tmp_path / "data", tmp_path / "out")
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0][0] == "domain" and [row[0] for row in rows[1:]] == ["laws", "docs", "modern", "classical"]
    parts = {
        (part, row[0]): (tmp_path / "out" / part / f"{row[0]}.txt").read_text("utf-8").splitlines()
        for row in rows[1:]
        for part in ("train", "held_out")
    }
    held_out = {line for (part, _), some in parts.items() if part == "held_out" for line in some}
    for row in rows[1:]:
        train = [line for line in parts["train", row[0]] if line]
        documents = (parts["train", row[0]].count("") + 1) * 256
        assert 0.9 < documents / sum(map(len, train)) < 1.1
        assert len(train) + len(parts["held_out", row[0]]) + int(row[3]) == int(row[1]) and len(train) > 0
        # Whole documents of it, in their order.
        share = {"laws": 1, "docs": 2 / 3, "modern": 1, "classical": 1 / 4}[row[0]]
        some = (tmp_path / "out" / "balanced" / f"{row[0]}.txt").read_text("utf-8")
        assert abs(int(row[5]) / int(row[4]) - share) < 0.1 and int(row[5]) == len(some.replace("\n", ""))
        whole, place = "\n".join(parts["train", row[0]]), 0
        for document in filter(None, map(str.strip, some.split("\n\n"))):
            place = whole.index(document, place) + len(document)
        # Also not with another first character, as the two sides of a pair have.
        assert not {line[-20:] for line in train} & {line[-20:] for line in held_out}


def test_the_recipes_are_recipes() -> None:
    recipes = [settle(path, {}) for path in sorted(SCRIPTS.glob("recipe*.toml"))]
    begun = ["", "zh-small", "zh-small-2", "zh-small-3-grown", "zh-small-4", "zh-small-5-mean"]
    assert [recipe["model"] for recipe in recipes] == begun
    assert {recipe["length"] for recipe in recipes} == {128}


def test_evaluation(script, capsys, tmp_path: Path) -> None:
    # All of one length: what is compiled for one domain serves the others.
    texts = {"laws": "本法自公布之日起施行。", "docs": "请输入你的用户名密码。", "modern": "他们今天都非常地高兴。"}
    texts["classical"] = "学而时习之不亦说乎哉。"
    for name, text in texts.items():
        for part in ("train", "held_out"):
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / f"{name}.txt").write_text(f"{text}\n" * 60, encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "cmrc.zip", "w") as archive:
        articles = [{"paragraphs": [{"context": "中华人民共和国的首都是北京，" * 20}]}]
        archive.writestr("dev.json", json.dumps({"data": articles}))
    script("evaluate.py", "bundled:zh-small", tmp_path, "--cmrc", tmp_path / "cmrc.zip", "--baselines")
    *rows, cloze = capsys.readouterr().out.splitlines()
    told = {row.split("\t")[0]: row.split("\t")[1:] for row in rows}
    assert [*told] == ["domain", *texts, "all"]
    # Every sentence was counted sixty times: its neighbours tell nearly each token. No token is most of them.
    assert all(float(told[name][6]) > 0.6 > float(told[name][5]) for name in texts)
    assert float(told["laws"][3]) > 0.3 and float(told["laws"][2]) > 0
    # A tenth shows its answer, which the model then gives; another shows a wrong one.
    assert told["all"][3:5] == sorted(told["all"][3:5]) and told["all"][3] != told["all"][4]
    # What is asked of an article is what stood there, and neighbours that were never seen together tell nothing.
    assert cloze == "cmrc cloze, 3 windows: top-1 1.000, top-5 1.000; neighbours 0.000"
    if importlib.util.find_spec("jieba"):
        script("evaluate.py", "bundled:zh-small", tmp_path, "--words", "jieba")
        assert len(capsys.readouterr().out.splitlines()) == 6


def tiny(folder: Path) -> mp.Pretrained:
    """A network of the bundled one's form, saved."""
    tokenizer = mp.fresh.vocabulary(["天地玄黄"] * 5, 90)
    sizes = dict(hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, dropout=0.0, attention_dropout=0.0)
    bert = mp.Pretrained(mp.fresh.network("roformer", tokenizer, **sizes), tokenizer, "roformer")
    bert.save(folder, format="huggingface")
    return bert


def test_fine_tuning(script, capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mp.plays.Classify, "fit", lambda play, batches, **_: play.train_on_batch(*batches[0]))
    with zipfile.ZipFile(tmp_path / "reviews.zip", "w") as archive:
        for part in ("train", "test"):
            archive.writestr(f"{part}.tsv", "label\ttext_a\n" + "1\t很好\n0\t很差\n" * 20)
    tiny(tmp_path / "model")
    model = ["--model", tmp_path / "model"]
    script("fine_tune.py", "chnsenticorp", tmp_path / "reviews.zip", *model, "--examples", 20, "--seeds", 0, 1)
    out = capsys.readouterr().out
    assert out.count("model: ") == out.count("fresh: ") == 2 and "20 examples, 40 in the test: regression 1.000" in out
    with zipfile.ZipFile(tmp_path / "tnews.zip", "w") as archive:
        rows = [{"sentence": f"标题{i % 3}", "label": str(100 + i % 3)} for i in range(60)]
        archive.writestr("tnews_public/train.json", "\n".join(map(json.dumps, rows)))
    try:
        script("fine_tune.py", "tnews", tmp_path / "tnews.zip", *model, "--seeds", 3, "--precision", "bfloat16")
    finally:
        keras.config.set_dtype_policy("float32")
    assert "tnews, 54 examples, 6 in the test" in capsys.readouterr().out


def test_growing_changes_little(script, tmp_path: Path) -> None:
    small = mp.load("bundled:zh-small", heads=["mlm"])
    small.save(tmp_path / "run", format="huggingface")
    script("grow.py", tmp_path / "run", tmp_path / "grown")
    grown = mp.load(tmp_path / "grown")
    layers = small.config.num_layers
    assert grown.config.num_layers == layers + 2 and grown.config.dropout == 0.0
    text = "本法自公布之日起施[MASK]。"
    assert [each.fill(text, top=1)[0].token for each in (small, grown)] == ["行", "行"]
    kernel, copy = (grown.encoder.layers_in_order[i].feed for i in (layers, layers + 1))
    assert not np.any(copy.outer.kernel) and np.array_equal(copy.inner.kernel, kernel.inner.kernel)


def test_packing_halves_the_weights(script, tmp_path: Path) -> None:
    bert = tiny(tmp_path / "run")
    tokenizer = bert.tokenizer
    (tmp_path / "run" / "history.csv").write_text("step\n")
    script("pack.py", tmp_path / "run", tmp_path / "packed")
    packed = load_file(tmp_path / "packed" / "model.safetensors")
    assert {array.dtype for array in packed.values()} == {np.dtype("float16")}
    shutil.copytree(tmp_path / "run", tmp_path / "later")
    save_file({name: 3 * array for name, array in packed.items()}, tmp_path / "later" / "model.safetensors")
    script("pack.py", tmp_path / "run", tmp_path / "later", tmp_path / "mean")
    for name, array in load_file(tmp_path / "mean" / "model.safetensors").items():
        np.testing.assert_allclose(array, 2 * packed[name], rtol=2e-3, atol=1e-6)
    script("pack.py", "--go-on", tmp_path / "run", tmp_path / "later", tmp_path / "whole")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert {array.dtype for array in whole.values()} == {np.dtype("float32")}
    assert mp.load(tmp_path / "whole").config.dropout == 0.0
    again = mp.load(tmp_path / "packed")
    assert again.config.dropout == 0.1 and again.tokenizer == tokenizer
    assert np.abs(again.encode("天地") - bert.encode("天地")).max() < 1e-2
