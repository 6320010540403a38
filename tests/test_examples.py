"""The examples run, small: the first in a process of its own, as a user starts it, the others in this one."""

import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from laws.house import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def own_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.tsv"
    rows = [f"这个东西真{'好' if i % 2 else '差'}啊\t{'喜欢' if i % 2 else '讨厌'}\n" for i in range(40)]
    path.write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")
    return path


def test_the_demo_learns_from_ones_own_file_and_reads_a_pipe(own_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")],
        input="这个真好\n\n真差的东西\n",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "DATA": str(own_file)},
    )
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "32 examples to train on, 8 held out as a test" in out
    assert "bundled:zh-small, fine-tuned" in out and "always saying" in out and "logistic regression" in out
    assert "its 8 answers are the same" in out
    answers = out[out.index("Your lines:") :].splitlines()[1:]
    assert [line.split()[-1] for line in answers] == ["这个真好", "真差的东西"]
    assert all(line.split()[0] in ("喜欢", "讨厌") for line in answers)


def test_the_demo_trains_from_nothing_what_is_not_chinese(monkeypatch, capfd, tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    rows = [f"{'splendid' if i % 2 else 'dreadful'} evenings\t{i % 2}\n" for i in range(20)]
    path.write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")
    monkeypatch.setenv("DATA", str(path))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(EXAMPLES / "demo.py"), run_name="__main__")
    assert left.value.code == 0 and "this encoder, trained from nothing" in capfd.readouterr().out


@pytest.mark.parametrize(
    "content, told",
    [
        (None, "cannot be read"),
        ("text\tlabel\n", "expected at least one example, found none"),
        ("text\tlabel\na\tx\nb\tx\n", "expected at least two labels, found only 'x'"),
    ],
)
def test_the_demo_tells_a_bad_file_in_one_line(
    tmp_path: Path, monkeypatch, capfd, content: str | None, told: str
) -> None:
    path = tmp_path / "own.tsv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    monkeypatch.setenv("DATA", str(path))
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(EXAMPLES / "demo.py"), run_name="__main__")
    line = capfd.readouterr().err
    assert left.value.code == 2 and line.startswith(f"demo: {path}: ") and told in line and line.count("\n") == 1


def test_classify_reviews_runs(monkeypatch, capfd) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", ["classify_reviews.py", "--tiny"])
    runpy.run_path(str(EXAMPLES / "classify_reviews.py"), run_name="__main__")
    out = capfd.readouterr().out
    assert "64 to train on, 32 as a test" in out and "this encoder, trained from nothing" in out


@pytest.mark.parametrize("name, counts", [("chnsenticorp", (9600, 1200, 1200)), ("sst2", (6920, 872, 1821))])
def test_the_public_sets_are_read(data: Path, name: str, counts: tuple[int, ...], monkeypatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import classify_reviews

    path = data / name / "chnsenticorp.zip" if name == "chnsenticorp" else data / name
    for part, count in zip(("train", "dev", "test"), counts):
        examples = classify_reviews.read(name, path, part)
        assert len(examples) == count and {example.label for example in examples} == {"0", "1"}
