"""`maskplay words`: it writes what Python users get, whole or not at all, and every fault is one line."""

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import maskplay as mp
from cli.faults import call, fault, start
from words.references import exact, generated, ngrams_of


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(generated(0, 1500)), encoding="utf-8")
    return path


def test_discover(capfd, text, tmp_path):
    out = tmp_path / "new" / "words.tsv"
    assert call("words", "discover", text, "--out", out, "--min-count", 8, "--workers", 2, "--memory", "8G") == 0
    said = capfd.readouterr()
    rows = [line.split("\t") for line in out.read_text("utf-8").splitlines()]
    expected = exact(text.read_text("utf-8").split("\n"), 8)
    assert rows[0][:2] == ["word", "frequency"]
    assert {row[0]: int(row[1]) for row in rows[1:]} == {word: values[0] for word, values in expected.items()}
    assert said.out == "" and f"{len(expected)} words" in said.err and "cutting (" in said.err
    assert os.listdir(out.parent) == ["words.tsv"]


def test_discover_with_every_option(text, tmp_path):
    out = tmp_path / "words.txt"
    options = "--mode exact --cohesion 1,2 --min-freedom 0.1 --min-alone 0.2 --min-length 2 --max-length 4 --runs"
    assert call("words", "discover", text, "--out", out, *options.split(), "--known", text, "--not-first", "一") == 0
    options = {"cohesion": (1, 2), "min_freedom": 0.1, "min_alone": 0.2, "min_length": 2, "max_length": 4, "runs": True}
    found = mp.words.discover(text, known=text, not_first="一", **options)
    assert out.read_text("utf-8") == "".join(f"{row.word} {row.frequency}\n" for row in found) and len(found)


def test_faithful(text, tmp_path):
    out = tmp_path / "words.tsv"
    assert call("words", "discover", text, "--out", out, "--mode", "faithful") == 0
    found = mp.words.discover(text, mode="faithful")
    assert len(out.read_text("utf-8").splitlines()) == len(found) + 1


def test_count(capfd, text, tmp_path):
    out = tmp_path / "counts.tsv"
    assert call("words", "count", text, "--n", 2, "--out", out, "--workers", 2, "--min-count", 3) == 0
    rows = [line.split("\t") for line in out.read_text("utf-8").splitlines()[1:]]
    expected = {gram: count for gram, count in ngrams_of(text.read_text("utf-8").split("\n"), 2).items() if count > 2}
    assert {row[0].replace("\\t", "\t"): int(row[1]) for row in rows} == expected
    assert f"{len(expected):,} different" in capfd.readouterr().err


def broken(folder: Path, name: str, content: bytes) -> Path:
    """A folder with that file in the middle."""
    for i in (1, 3):
        (folder / f"{i}.txt").write_text("天地\n" * 20, encoding="utf-8")
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("command", [["discover"], ["count", "--n", "2"]])
@pytest.mark.parametrize(
    "name, content, told",
    [
        ("2.txt", "天地\n".encode() * 5 + b"\xe5\xa4\n", "2.txt, line 6: expected UTF-8, found byte 0xe5 at offset 35"),
        ("2.gz", gzip.compress(b"12345" * 999, mtime=0)[:-20], "2.gz, line 1: cannot be read on (it ends too early"),
        ("2.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "2.jsonl, line 2: expected an object with a string 'text'"),
    ],
)
def test_a_broken_file_in_the_middle(capfd, tmp_path, command, name, content, told):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    folder = broken(tmp_path / "in", name, content)
    assert told in fault(capfd, "words", *command, folder, "--out", tmp_path / "out" / "a.tsv")
    assert not os.listdir(tmp_path / "out")


def test_an_unreadable_file_in_the_middle(capfd, tmp_path, monkeypatch):
    folder = broken(tmp_path, "2.txt", b"")
    opened = open

    def refuses(path, *arguments, **options):
        if Path(path).name == "2.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuses)
    told = fault(capfd, "words", "count", folder, "--out", tmp_path / "a.tsv")
    assert "2.txt: cannot be read (Permission denied)" in told


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--memory", "50M"], "memory: expected at least "),
        (["--memory", "lots"], "memory: expected a size such as 800M or 1G, found 'lots'"),
        (["--cohesion", "2,x"], "--cohesion: expected numbers with commas between, found '2,x'"),
        (["--cohesion", "2,4", "--mode", "faithful"], "cohesion: the original has 3 thresholds, found 2"),
        (["--mode", "quick"], "quick"),
        (["--known", "nothing.txt"], "'nothing.txt': no such file, folder or pattern"),
    ],
)
def test_wrong_options_are_one_line(capfd, text, tmp_path, arguments, told):
    out = tmp_path / "out" / "a.tsv"
    assert told in fault(capfd, "words", "discover", text, "--out", out, *arguments)
    assert not out.exists()


def test_wrong_places_are_one_line(capfd, text, tmp_path):
    assert "no such file" in fault(capfd, "words", "count", tmp_path / "none", "--out", tmp_path / "a.tsv")
    assert "ends in .tsv, .parquet" in fault(capfd, "words", "count", text, "--out", tmp_path / "a.csv")
    (tmp_path / "a.tsv").mkdir()
    assert "expected a file to write, found a folder" in fault(
        capfd, "words", "discover", text, "--out", tmp_path / "a.tsv"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file sizes")
def test_a_full_disk_is_one_line_and_leaves_nothing(capfd, text, tmp_path, monkeypatch):
    """Linux refuses to make a file longer than allowed much as it refuses to fill a disk."""
    import resource

    out = tmp_path / "out"
    out.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        codes = [call("words", "count", text, "--n", 2, "--out", out / "a.tsv")]
        monkeypatch.setattr("maskplay.words.budget.Budget.part", lambda self, share: 1000)
        codes.append(call("words", "discover", text, "--out", out / "a.tsv"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("maskplay")]
    assert codes == [2, 2] and told == [f"maskplay: {out / 'a.tsv'}: File too large"] * 2 and not os.listdir(out)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing on Windows")
def test_ctrl_c_leaves_nothing(tmp_path):
    """Pressed while it reads from a pipe that never ends."""
    arguments = ["words", "discover", "-", "--out", tmp_path / "a.tsv", "--workers", 2]
    process = start(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write("天地\n" * 1000)
    process.stdin.flush()
    end = time.monotonic() + 60
    while not os.listdir(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert os.listdir(tmp_path)  # the folder for what does not fit in memory
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert process.returncode == 130 and process.stderr.read() == "maskplay: interrupted\n"
    assert not os.listdir(tmp_path)
