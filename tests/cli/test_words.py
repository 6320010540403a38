"""`maskplay words`: it writes what Python users get, whole or not at all, and every fault is one line."""

import contextlib
import gzip
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

import maskplay as mp
from cli.faults import call, fault, start
from maskplay.cli import words
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
    assert os.listdir(out.parent) == ["words.tsv"] and "Nothing passed" not in said.err
    assert call("words", "discover", text, "--out", out, "--min-count", 10**6) == 0
    assert "a lower --min-count" in capfd.readouterr().err and len(out.read_text("utf-8").splitlines()) == 1


def test_without_a_limit_what_is_freed_is_kept(text, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(words, "keep", lambda **options: kept.append(options))
    assert call("words", "count", text, "--out", tmp_path / "counts.tsv", "--memory", "64G") == 0
    assert call("words", "discover", text, "--out", tmp_path / "words.tsv", "--memory", "64G") == 0
    assert kept == []
    assert call("words", "count", text, "--out", tmp_path / "counts.tsv") == 0
    assert call("words", "discover", text, "--out", tmp_path / "words.tsv") == 0
    assert call("words", "lm", text, "--out", tmp_path / "model.arpa") == 0
    assert kept == [{"threads": True}] * 3


def test_discover_with_every_option(text, tmp_path):
    out = tmp_path / "words.txt"
    options = "--mode exact --cohesion 1,2 --min-freedom 0.1 --min-alone 0.2 --min-length 2 --max-length 4 --runs"
    assert call("words", "discover", text, "--out", out, *options.split(), "--known", text, "--not-first", "一") == 0
    options = {"cohesion": (1, 2), "min_freedom": 0.1, "min_alone": 0.2, "min_length": 2, "max_length": 4, "runs": True}
    found = mp.words.discover(text, known=text, not_first="一", **options)
    rows = [row for row in found if not row.word.isascii()]
    assert out.read_text("utf-8") == "".join(f"{row.word} {row.frequency}\n" for row in rows) and rows


def test_faithful(text, tmp_path):
    out = tmp_path / "words.tsv"
    assert call("words", "discover", text, "--out", out, "--mode", "faithful") == 0
    found = mp.words.discover(text, mode="faithful")
    assert len(out.read_text("utf-8").splitlines()) == len(found) + 1


def test_agree(capfd, text, tmp_path):
    assert call("words", "lm", text, "--out", tmp_path / "model.arpa") == 0
    out, arguments = tmp_path / "words.txt", ("--min-count", 5, "--agree", tmp_path / "model.arpa")
    assert call("words", "discover", text, "--out", out, *arguments) == 0
    found = mp.words.discover(text, min_count=5)
    agreed = mp.words.agreed(found, text, mp.words.read_arpa(tmp_path / "model.arpa"))
    rows = [row for row in agreed if len(row.word) > 1 and not row.word.isascii()]
    assert out.read_text("utf-8") == "".join(f"{row.word} {row.frequency}\n" for row in rows)
    assert len(agreed) < len(found) and "agreeing (" in capfd.readouterr().err
    assert "--agree: expected files" in fault(capfd, "words", "discover", "-", "--out", out, *arguments)


def test_count(capfd, text, tmp_path):
    out = tmp_path / "counts.tsv"
    assert call("words", "count", text, "--n", 2, "--out", out, "--workers", 2, "--min-count", 3) == 0
    rows = [line.split("\t") for line in out.read_text("utf-8").splitlines()[1:]]
    expected = {gram: count for gram, count in ngrams_of(text.read_text("utf-8").split("\n"), 2).items() if count > 2}
    assert {row[0].replace("\\t", "\t"): int(row[1]) for row in rows} == expected
    assert f"{len(expected):,} different" in capfd.readouterr().err


@pytest.fixture
def model(text, tmp_path) -> Path:
    path = tmp_path / "model.arpa"
    assert call("words", "lm", text, "--out", path, "--order", 3, "--min-count", 1, "--workers", 2) == 0
    return path


def test_count_words(capfd, text, model, tmp_path):
    out = tmp_path / "counts.tsv"
    assert call("words", "count", text, "--words", model, "--out", out, "--workers", 2) == 0
    by = mp.words.load_segmenter(model)
    expected = Counter(word for line in text.read_text("utf-8").split("\n") for word in by(line))
    expected = {word: count for word, count in expected.items() if not word.isspace()}
    rows = [line.split("\t") for line in out.read_text("utf-8").splitlines()[1:]]
    assert {row[0].replace("\\t", "\t"): int(row[1]) for row in rows} == expected and len(expected) > 30
    assert f"{len(expected):,} different, {sum(expected.values()):,} in all: " in capfd.readouterr().err
    told = fault(capfd, "words", "count", text, "--words", model, "--n", 2, "--out", out)
    assert told == "expected either --n or --words, found both"


def test_count_the_words_of_jieba(capfd, tmp_path):
    """Without white space, as by our own segmenters."""
    pytest.importorskip("jieba")
    (tmp_path / "a.txt").write_text("北京 天气，北京\n", encoding="utf-8")
    out, options = tmp_path / "counts.tsv", ("--words", "jieba", "--min-count", 2)
    assert call("words", "count", tmp_path / "a.txt", "--out", out, *options) == 0
    assert out.read_text("utf-8") == "text\tcount\n北京\t2\n"
    assert "1 different, 2 in all, each at least 2 times: " in capfd.readouterr().err


def test_jieba_is_loaded_once_for_all_processes(tmp_path, monkeypatch):
    jieba = pytest.importorskip("jieba")
    monkeypatch.setattr(jieba.dt, "initialized", False)
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("北京 天气，北京\n", encoding="utf-8")
    out, options = tmp_path / "counts.tsv", ("--words", "jieba", "--workers", 2)
    assert call("words", "count", tmp_path, "--out", out, *options) == 0
    assert jieba.dt.initialized and "北京\t4\n" in out.read_text("utf-8")


def joined(lines) -> str:
    return "".join(" ".join(word for word in words if word.strip()) + "\n" for words in lines)


def test_lm(capfd, text, model, tmp_path):
    expected = mp.words.train_ngrams(text, order=3, min_count=1)
    mp.words.write_arpa(expected, tmp_path / "b.arpa")
    assert model.read_bytes() == (tmp_path / "b.arpa").read_bytes()
    said = capfd.readouterr()
    assert said.out == "" and f"n-grams of 1 to 3 characters: {len(expected.levels[0].keys)}, " in said.err


@pytest.mark.parametrize("workers", [1, 2])
def test_segment_by_a_model(capfd, text, model, tmp_path, workers):
    expected = joined(mp.words.segment(text, mp.words.read_arpa(model)))
    options = ["--model", model, "--workers", workers]
    assert call("words", "segment", text, *options, "--out", tmp_path / "new" / "a.txt") == 0
    assert (tmp_path / "new" / "a.txt").read_text("utf-8") == expected
    capfd.readouterr()
    assert call("words", "segment", text, *options) == 0
    assert capfd.readouterr() == (expected, "")
    assert expected.count("\n") == 1500 and expected.replace(" ", "") == "".join(
        "".join(line.split()) + "\n" for line in text.read_text("utf-8").split("\n")
    )


def test_segment_with_factors(capfd, text, model, tmp_path):
    by = mp.words.NgramSegmenter(mp.words.read_arpa(model), (0.9, 0.9))
    assert call("words", "segment", text, "--model", model, "--joins", ".9,.9", "--out", tmp_path / "a.txt") == 0
    assert (tmp_path / "a.txt").read_text("utf-8") == joined(mp.words.segment(text, by))
    assert (tmp_path / "a.txt").read_text("utf-8") != joined(mp.words.segment(text, by.model))
    for option, told in (
        (["--model", model, "--joins", "x"], "--joins: expected numbers with commas between, found 'x'"),
        (["--model", model, "--joins", "1"], "joins: expected 2 to 256 numbers above 0, found (1.0,)"),
        (["--vocab", text, "--joins", "1,1"], "--joins goes with --model"),
    ):
        capfd.readouterr()
        assert told in fault(capfd, "words", "segment", text, *option)


def test_segment_by_words(capfd, text, tmp_path):
    vocab = tmp_path / "words.tsv"
    mp.words.count(text, n=2).write(vocab)
    words = mp.words.Vocabulary(mp.words.read_vocabulary(vocab))
    fitted = words.refined(text)[0].refined(text)[0]
    outputs = []
    for by, options in ((words, []), (fitted, ["--em", 2])):
        capfd.readouterr()
        assert call("words", "segment", text, "--vocab", vocab, *options) == 0
        outputs.append(capfd.readouterr())
        assert outputs[-1].out == joined(mp.words.segment(text, by))
    assert outputs[0].out != outputs[1].out and "fitting (" in outputs[1].err


@pytest.mark.parametrize(
    "options, told",
    [
        ([], "expected either --model or --vocab"),
        (["--model", "model.arpa", "--vocab", "words.tsv"], "expected either --model or --vocab"),
        (["--model", "model.arpa", "--em", 2], "--em goes with --vocab"),
        (["--model", "none.arpa"], "'none.arpa': no such file"),
        (["--model", "text.txt"], "text.txt, line 1: expected the line \\data\\ of an ARPA file"),
        (["--vocab", "model.arpa"], "model.arpa, line 1: expected a word and its count"),
        (["--vocab", "text.txt"], "text.txt, line 2: expected a word and its count"),
    ],
)
def test_wrong_segmenters_are_one_line(capfd, text, model, tmp_path, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    assert told in fault(capfd, "words", "segment", "text.txt", *options, "--out", "a.txt")
    assert not (tmp_path / "a.txt").exists()


def test_a_minus_is_standard_output(capfd, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.tsv").write_text("天地\t3\n", encoding="utf-8")
    segment = ("words", "segment", text, "--vocab", "words.tsv", "--out", "-")
    assert call(*segment) == 0
    assert capfd.readouterr().out == joined(mp.words.segment(text, {"天地": 3})) and not (tmp_path / "-").exists()

    def full(lines):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=SimpleNamespace(writelines=full)))
    assert fault(capfd, *segment) == "standard output: No space left on device"


def test_standard_input_is_read_once(capfd, text, tmp_path):
    (tmp_path / "words.tsv").write_text("天地\t3\n", encoding="utf-8")
    told = fault(capfd, "words", "segment", "-", "--vocab", tmp_path / "words.tsv", "--em", 1)
    assert told == "--em: expected files, which can be read again, found standard input"


@pytest.mark.parametrize(
    "arguments",
    [
        ["discover", "-", "--known", "-", "--out", "a.tsv"],
        ["count", "-", "--words", "-", "--out", "a.tsv"],
        ["segment", "-", "--vocab", "-"],
        ["contrast", "-", "-", "--out", "a.tsv"],
    ],
)
def test_standard_input_is_one_thing(capfd, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = fault(capfd, "words", *arguments)
    assert told == "standard input can be read once only; expected - in one place, found it in more"


def test_a_pipe_is_read_once(capfd, text, model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "words.tsv").write_text("天地\t3\n", encoding="utf-8")
    capfd.readouterr()
    told = fault(capfd, "words", "segment", tmp_path / "pipe", "--vocab", tmp_path / "words.tsv", "--em", 1)
    assert told == f"--em: expected files, which can be read again, found {tmp_path / 'pipe'}"
    told = fault(capfd, "words", "discover", tmp_path / "pipe", "--out", tmp_path / "a.tsv", "--agree", model)
    assert told == f"--agree: expected files, which can be read again, found {tmp_path / 'pipe'}"


def test_contrast(capfd, text, tmp_path):
    for name, least in (("field.tsv", 8), ("general.tsv", 150)):
        assert call("words", "discover", text, "--out", tmp_path / name, "--min-count", least) == 0
    field, general = (mp.words.read_vocabulary(tmp_path / name) for name in ("field.tsv", "general.tsv"))
    out = tmp_path / "terms.tsv"
    assert call("words", "contrast", tmp_path / "field.tsv", tmp_path / "general.tsv", "--out", out, "--prior", 9) == 0
    mp.words.write_contrast(mp.words.contrast(field, general, prior=9), tmp_path / "b.tsv")
    assert out.read_bytes() == (tmp_path / "b.tsv").read_bytes() and len(field) > len(general)
    capfd.readouterr()
    told = fault(capfd, "words", "contrast", text, tmp_path / "general.tsv", "--out", tmp_path / "c.tsv")
    assert "text.txt, line 2: expected a word and its count" in told and not (tmp_path / "c.tsv").exists()


def broken(folder: Path, name: str, content: bytes) -> Path:
    """A folder with that file in the middle."""
    for i in (1, 3):
        (folder / f"{i}.txt").write_text("天地\n" * 20, encoding="utf-8")
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("command", [["discover"], ["count", "--n", "2"], ["lm"], ["segment", "--workers", "2"]])
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
    if command[0] == "segment":
        (tmp_path / "words.tsv").write_text("天地\t3\n", encoding="utf-8")
        command = [*command, "--vocab", str(tmp_path / "words.tsv")]
    ending = ".arpa" if command[0] == "lm" else ".tsv"
    assert told in fault(capfd, "words", *command, folder, "--out", tmp_path / "out" / f"a{ending}")
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
        (["--known", "nothing.txt"], "'nothing.txt': no such file"),
    ],
)
def test_wrong_options_are_one_line(capfd, text, tmp_path, arguments, told):
    out = tmp_path / "out" / "a.tsv"
    assert told in fault(capfd, "words", "discover", text, "--out", out, *arguments)
    assert not out.parent.exists()


def test_wrong_places_are_one_line(capfd, text, tmp_path):
    assert "no such file" in fault(capfd, "words", "count", tmp_path / "none", "--out", tmp_path / "a.tsv")
    assert "ends in .tsv, .parquet" in fault(capfd, "words", "count", text, "--out", tmp_path / "a.csv")
    both = fault(capfd, "words", "count", text, "--out", tmp_path / "a.tsv", "--n", 2, "--words", "jieba")
    assert both == "expected either --n or --words, found both"
    assert f"{text}: expected a folder to write into, found a file" in fault(
        capfd, "words", "discover", text, "--out", text / "a" / "a.tsv"
    )
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
    (tmp_path / "words.tsv").write_text("天地\t3\n", encoding="utf-8")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        codes = [call("words", "count", text, "--n", 2, "--out", out / "a.tsv")]
        monkeypatch.setattr("maskplay.words.budget.Budget.part", lambda self, share: 1000)
        codes.append(call("words", "discover", text, "--out", out / "a.tsv"))
        codes.append(call("words", "lm", text, "--out", out / "a.arpa"))
        codes.append(call("words", "segment", text, "--vocab", tmp_path / "words.tsv", "--out", out / "a.tsv"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("maskplay")]
    assert codes == [2] * 4 and not os.listdir(out)
    full = [out / "a.tsv", out, out / "a.arpa", out / "a.tsv"]  # the second one's disk meanwhile
    assert told == [f"maskplay: {path}: File too large" for path in full]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing on Windows")
def test_ctrl_c_while_cutting(tmp_path):
    """Pressed when the first words of a pipe that never ends are out: what is to be a file is none."""
    (tmp_path / "words.tsv").write_text("天地\t3\n", encoding="utf-8")
    arguments = ["words", "segment", "-", "--vocab", tmp_path / "words.tsv", "--workers", 2, "--out", "a.txt"]
    pipe = subprocess.PIPE
    process = start(*arguments, stdin=pipe, stdout=pipe, stderr=pipe, cwd=tmp_path)
    process.stdin.write("天地人\n" * 500_000)
    process.stdin.flush()
    end = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob(".*.part")) and time.monotonic() < end:
        time.sleep(0.05)
    assert list(tmp_path.glob(".*.part"))
    for _ in range(5):
        time.sleep(1)  # until it waits for more: Python hears late of a signal that comes between two reads of a buffer
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
            break
    assert process.returncode == 130 and process.stderr.read() == "maskplay: interrupted\n"
    assert os.listdir(tmp_path) == ["words.tsv"]


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


def test_what_is_read_is_not_written_over(capfd, text, tmp_path):
    before = text.read_bytes()
    table = tmp_path / "made" / "words.tsv"
    assert call("words", "discover", text, "--out", table, "--min-count", 5) == 0
    capfd.readouterr()
    for arguments in (
        ("discover", text, "--out", tmp_path / "made" / ".." / "text.txt"),
        ("discover", text, table.parent, "--out", table),  # it would be counted the second time
        ("discover", text, "--out", table, "--known", table),
        ("count", table, "--out", table),
        ("segment", text, "--vocab", table, "--out", text),
        ("contrast", table, table, "--out", table),
    ):
        assert "is among those to read and would be lost" in fault(capfd, "words", *arguments)
    assert text.read_bytes() == before


def test_told_to_end_it_leaves_nothing(tmp_path):
    """As after an error: what `timeout` sends comes out of the block, and the handlers are as before."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left, words._progress(tmp_path / "a.tsv"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert left.value.code == 128 + signal.SIGTERM and signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timers")
def test_told_to_end_where_it_gets_lost(tmp_path):
    """As in a finalizer, out of which nothing can be raised: it comes again."""
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(SystemExit) as left, words._progress(tmp_path / "made" / "a.tsv"):
        with contextlib.suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert left.value.code == 128 + signal.SIGTERM and not os.listdir(tmp_path)
    assert signal.getsignal(signal.SIGALRM) == before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_links_that_lead_to_each_other_are_told(capfd, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").symlink_to("a")
    told = fault(capfd, "words", "count", tmp_path / "in", "--out", tmp_path / "a.tsv")
    assert "in/a: cannot be read (Too many levels of symbolic links)" in told
