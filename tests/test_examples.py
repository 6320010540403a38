"""The examples run: small, in a process of their own, as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from laws.house import ROOT


def run(script: str, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
    )


@pytest.fixture(scope="module")
def own_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.tsv"
    rows = [f"这个东西真{'好' if i % 2 else '差'}啊\t{'喜欢' if i % 2 else '讨厌'}\n" for i in range(40)]
    path.write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")
    return path


def test_the_demo_learns_from_ones_own_file_and_reads_a_pipe(own_file: Path) -> None:
    done = run("demo.py", stdin="这个真好\n\n真差的东西\n", DATA=str(own_file))
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "32 examples to train on, 8 held out as a test" in out
    assert "trained from nothing" in out and "always saying" in out and "logistic regression" in out
    assert "its 8 answers are the same" in out
    answers = out[out.index("Your lines:") :].splitlines()[1:]
    assert [line.split()[-1] for line in answers] == ["这个真好", "真差的东西"]
    assert all(line.split()[0] in ("喜欢", "讨厌") for line in answers)


@pytest.mark.parametrize(
    "content, told",
    [
        (None, "cannot be read"),
        ("text\tlabel\n", "expected at least one example, found none"),
        ("text\tlabel\na\tx\nb\tx\n", "expected at least two labels, found only 'x'"),
    ],
)
def test_the_demo_tells_a_bad_file_in_one_line(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "own.tsv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    done = run("demo.py", DATA=str(path))
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(f"demo: {path}: ")
    assert told in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_classify_reviews_runs() -> None:
    done = run("classify_reviews.py", "--tiny")
    assert done.returncode == 0, done.stderr
    assert "64 to train on, 32 as a test" in done.stdout and "this encoder, trained from nothing" in done.stdout


@pytest.mark.parametrize("name, counts", [("chnsenticorp", (9600, 1200, 1200)), ("sst2", (6920, 872, 1821))])
def test_the_public_sets_are_read(data: Path, name: str, counts: tuple[int, ...], monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    import classify_reviews

    path = data / name / "chnsenticorp.zip" if name == "chnsenticorp" else data / name
    for part, count in zip(("train", "dev", "test"), counts):
        examples = classify_reviews.read(name, path, part)
        assert len(examples) == count and {example.label for example in examples} == {"0", "1"}
