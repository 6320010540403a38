"""The benchmarks still run: each in its fastest mode, which measures nothing worth reading."""

import importlib.util
import lzma
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from laws.house import ROOT

pytestmark = pytest.mark.once


def reviews(folder: Path) -> str:
    """An archive as `padding.py` reads it, with a few texts of two lengths."""
    path = folder / "reviews.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("dev", "test"):
            lines = [f"{i % 2}\t{'很好不错' * (1 + 7 * (i % 2))}" for i in range(32)]
            archive.writestr(f"{part}.tsv", "\n".join(["label\ttext", *lines]))
    return str(path)


@pytest.fixture
def benchmark(monkeypatch):
    """Runs a benchmark's `main` in this process, which has paid for its imports."""

    def run(script, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [script.__file__, *arguments])
        script.main()

    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return run


def test_encoder() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "encoder.py"), "--smoke"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "KERAS_BACKEND": "jax"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "rounds" in ran.stdout


def test_pretrain(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "KERAS_BACKEND": "jax"}

    def run(*arguments: str) -> str:
        command = [sys.executable, str(ROOT / "benchmarks" / "pretrain.py"), "--rounds", "1", *arguments]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    told = run("--sizes", "tiny", "--peers", "maskplay-jax-padded,maskplay-jax-full")
    padded, full = (line.split() for line in told.splitlines() if "tokens/s" in line)
    assert 16 < int(padded[padded.index("tokens") - 1]) < 0.9 * 2 * 16, told  # of 2×16 places
    assert int(full[full.index("tokens") - 1]) > 0.9 * 2 * 16, told
    (tmp_path / "text.txt").write_text("天地玄黄，宇宙洪荒。\n" * 100, encoding="utf-8")
    told = run("--prepare", str(tmp_path / "text.txt"))
    assert [line.split()[-2] for line in told.splitlines()[-3:]] == ["0", "1,000", "1,000"], told


def test_padding(benchmark, tmp_path: Path, capsys) -> None:
    import padding

    benchmark(padding, reviews(tmp_path), "--length", "32", "--rounds", "1", "--count", "64")
    assert "lengths [8, 32]" in capsys.readouterr().out


def test_import_cost(benchmark, monkeypatch, capsys) -> None:
    import import_cost

    real = import_cost.cost("import maskplay")
    monkeypatch.setattr(import_cost, "cost", lambda statement: real)
    benchmark(import_cost, "--rounds", "2")
    assert 0.1 < min(real) and "import maskplay / import keras = 1.00 in CPU time" in capsys.readouterr().out


def test_a_peer_without_its_environment_is_reported() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "encoder.py"), "--sizes", "tiny"]
    command += ["--peers", "bert4keras,transformers-fp32", "--torch-python", "no-such-python"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "bert4keras           MISSING: no environment: give --bert4keras-python" in ran.stdout
    assert "transformers-fp32    MISSING: cannot run no-such-python" in ran.stdout


def test_splitting(benchmark, monkeypatch, tmp_path: Path, capsys) -> None:
    import splitting

    for folder in ("corpus", "vocabs"):
        (tmp_path / folder).mkdir()
    tokens = "[PAD] [UNK] [CLS] [SEP] [MASK] 天 地 ， p ##lay".split()
    (tmp_path / "vocabs" / "bert-base-chinese-vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    for file in splitting.TEXTS.values():
        with lzma.open(tmp_path / "corpus" / file, "wt", encoding="utf-8") as text:
            text.write("1\t古文\t天地，play 黄\n" * 50)
    benchmark(splitting, "--data", str(tmp_path), "--rounds", "1")
    told = capsys.readouterr().out
    assert told.count("300 tokens") == 3, told
    assert told.endswith("ids and offsets are the same\n")


def test_segmentation(benchmark, tmp_path: Path, capsys) -> None:
    import segmentation

    (tmp_path / "corpus.txt").write_text("天地玄黄，宇宙洪荒\n宇宙天地\n" * 30, encoding="utf-8")
    for name in ("pku", "msr"):
        text = "\ufeff天地  玄黄  ２００１  ，  宇宙\n\n天地  宇宙\n"
        (tmp_path / f"{name}_test_gold.utf8").write_text(text, encoding="utf-8")
    benchmark(segmentation, str(tmp_path / "corpus.txt"), "--gold", str(tmp_path))
    assert "n-gram model                                 pku 1.0000  msr 1.0000" in capsys.readouterr().out


def test_words_quality(benchmark, tmp_path: Path, capsys) -> None:
    import words_quality

    found = "天地 玄黄 宇宙 洪荒 日月 盈昃 辰宿 列张 寒来 暑往 秋收 冬藏".split()
    lines = "".join(f"{a}{b}\n" for a in found for b in found)
    (tmp_path / "corpus.txt").write_text(lines * 3, encoding="utf-8")
    for name in ("pku", "msr"):
        text = "天地  玄黄  ２００１  ，  宇宙\n天地  好的\n"
        (tmp_path / f"{name}_test_gold.utf8").write_text("\ufeff" + text, encoding="utf-8")
        (tmp_path / f"{name}_training_words.utf8").write_text("\ufeff玄黄\n宇宙\n", encoding="utf-8")
    rows = ["# text = 天地玄黄", "1-2\t天地玄黄", "1\t天地", "2\t玄黄", "", "1\t宇宙", "", ""]
    (tmp_path / "test.conllu").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "dictionary.txt").write_text("天地 3 n\n宇宙 2 n\n冬藏 1 n\n", encoding="utf-8")
    places = [str(tmp_path / "corpus.txt"), "--gold", str(tmp_path), "--treebank", str(tmp_path / "test.conllu")]
    places += ["--dictionary", str(tmp_path / "dictionary.txt")]
    benchmark(words_quality, *places)
    told = {line[:26].strip(): line[26:].split() for line in capsys.readouterr().out.splitlines()}
    # Of 12 words 3 are in the dictionary and 2 in the lists; of the tests' 4 words 好的 is missing.
    assert told["exact"][:5] == ["12", "0.250", "0.167", "0.250", "12:0.250"]
    assert told["exact"][-7] == "0.750" and told["exact"][-1] == "1.0000" == told["exact, agreed"][-1]
    benchmark(words_quality, *places, "--errors", "5")
    assert "5 of 9 words that the dictionary lacks" in capsys.readouterr().out


def test_the_curve_is_drawn(benchmark, monkeypatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the `plot` extra is not installed")
    import words_quality

    class Measures(words_quality.Gold):
        def __init__(self, *places) -> None:
            self.dictionary, self.tested = {"天地"}, {"天地", "玄黄"}

    (tmp_path / "corpus.txt").write_text("天地玄黄\n宇宙洪荒\n天地宇宙\n玄黄洪荒\n" * 40, encoding="utf-8")
    monkeypatch.setattr(words_quality, "Gold", Measures)
    monkeypatch.setattr(words_quality, "SCALES", (0.5, 1.0))
    benchmark(words_quality, str(tmp_path / "corpus.txt"), "--curve", str(tmp_path / "curve.svg"))
    drawn = (tmp_path / "curve.svg").read_text("utf-8")
    assert "exact, agreed</text>" in drawn and len(drawn) < 60_000


def test_every_benchmark_is_listed() -> None:
    listed = "encoder import_cost padding pretrain segmentation splitting words words_quality".split()
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == set(listed)


def test_words(monkeypatch, capsys) -> None:
    spec = importlib.util.spec_from_file_location("words_benchmark", ROOT / "benchmarks" / "words.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    real = script.measured("mp.words.count(iter(['abab']), n=2)")
    assert real["found"] == 2 and 0 < real["before"] <= real["peak"]
    asked = []
    monkeypatch.setattr(script, "measured", lambda expression: asked.append(expression) or real)
    monkeypatch.setattr(script, "bench100", lambda: "天地玄黄\n宇宙\n".encode() * 9)
    arguments = "discover line large count --rounds 1 --copies 2"
    monkeypatch.setattr(sys, "argv", ["words.py", *arguments.split()])
    script.main()
    tokenizers = 3 + bool(importlib.util.find_spec("jieba"))
    assert len(asked) == 4 + 2 + 2 + 1 + 6 + 3 * tokenizers and script.PUBLISHED in capsys.readouterr().out
