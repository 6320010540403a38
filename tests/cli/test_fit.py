"""`maskplay fit`, `predict`, `evaluate`: a model from a file, faults in one line, and a run that is killed."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

import maskplay as mp
from cli.faults import call, fault, start
from maskplay.cli import fit
from maskplay.cli.progress import EpochProgress

SMALL = ("--hidden-size", 16, "--num-layers", 1, "--num-heads", 2, "--no-length-buckets")
GOOD, BAD = "好棒香甜美", "差烂苦臭丑"


def table(path: Path, count: int, seed: int = 0, labels: tuple[str, str] = ("坏", "好")) -> Path:
    """Texts of 6 characters in which one tells the label."""
    draw = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        text = list(draw.choice(list("这个东西我们买了一天用来看"), 6))
        text[draw.integers(6)] = draw.choice(list(GOOD if i % 2 else BAD))
        rows.append(f"{''.join(text)}\t{labels[i % 2]}")
    path.write_text("\n".join(["text\tlabel", *rows, ""]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {"train": table(folder / "train.tsv", 160), "dev": table(folder / "dev.tsv", 64, seed=1)}


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("model") / "reviews"
    options = ["--epochs", 8, "--batch-size", 16, "--learning-rate", 5e-3, *SMALL]
    assert call("fit", "classify", files["train"], "--dev", files["dev"], "--out", out, *options) == 0
    return out


# A model from a file


def test_the_folder_is_whole_and_opens(trained: Path) -> None:
    assert sorted(os.listdir(trained.parent)) == ["reviews"]
    play = mp.load(trained)
    assert play.labels == ("坏", "好")


def test_metrics_tell_the_run(trained: Path, files: dict[str, Path]) -> None:
    report = json.loads((trained / "metrics.json").read_text("utf-8"))
    assert report["examples"] == {
        "train": {"all": 160, "labels": {"坏": 80, "好": 80}},
        "dev": {"all": 64, "labels": {"坏": 32, "好": 32}},
    }
    assert len(report["epochs"]) == 8 and report["dev"]["majority"] == 0.5
    best = max(report["epochs"], key=lambda epoch: epoch["val_accuracy"])
    assert report["best_epoch"] == best["epoch"] and report["dev"]["accuracy"] == pytest.approx(best["val_accuracy"])
    assert report["dev"]["accuracy"] > 0.9
    assert report["settings"]["--seed"] == 0 and report["versions"]["keras"]


def test_predict(capfd, trained: Path, files: dict[str, Path], tmp_path: Path) -> None:
    rows = [line.split("\t") for line in files["dev"].read_text("utf-8").splitlines()[1:]]
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text, _ in rows), encoding="utf-8")
    play = mp.load(trained)
    for file in (tmp_path / "texts.txt", files["dev"]):
        assert call("predict", trained, file) == 0
        assert capfd.readouterr().out.splitlines() == play.predict([text for text, _ in rows])
    assert call("predict", trained, tmp_path / "texts.txt", "--json") == 0
    objects = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [found["text"] for found in objects] == [text for text, _ in rows]
    assert set(objects[0]["scores"]) == {"坏", "好"} and sum(objects[0]["scores"].values()) == pytest.approx(
        1, abs=1e-5
    )
    assert all(max(found["scores"], key=found["scores"].get) == found["label"] for found in objects)


def test_predict_reads_standard_input(capfd, monkeypatch, trained: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("这个好\n\n这个差\n".encode())))
    assert call("predict", trained, "-") == 0
    assert len(capfd.readouterr().out.splitlines()) == 3


def test_evaluate(capfd, trained: Path, files: dict[str, Path]) -> None:
    assert call("evaluate", trained, files["dev"], "--json") == 0
    figures = json.loads(capfd.readouterr().out)
    report = json.loads((trained / "metrics.json").read_text("utf-8"))
    assert figures == report["dev"] and figures["macro_f1"] > 0.9
    assert call("evaluate", trained, files["dev"]) == 0
    assert capfd.readouterr().out.splitlines()[1] == f"accuracy  {figures['accuracy']:.4f}"


def test_the_mean_and_another_optimizer(files: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    made = []
    monkeypatch.setitem(fit.OPTIMIZERS, "muon", lambda *of: made.append(of) or mp.optimizers.muon(*of))
    small = table(tmp_path / "small.tsv", 16)
    arguments = ["fit", "classify", small, "--dev", small, *SMALL, "--epochs", 2, "--batch-size", 8]
    assert call(*arguments, "--pool", "mean", "--optimizer", "muon", "--out", tmp_path / "out") == 0
    assert mp.load(tmp_path / "out").pool == "mean" and made == [(1e-3, 4)]
    settings = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))["settings"]
    assert (settings["--pool"], settings["--optimizer"]) == ("mean", "muon")


def test_it_starts_from_a_checkpoint(capfd, files: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = mp.Tokenizer.from_characters([files["train"].read_text("utf-8")], max_size=200)
    config = mp.Config(
        vocab_size=len(tokenizer), hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16, max_positions=32
    )
    mp.Pretrained(mp.LanguageModel(config), tokenizer).save(tmp_path / "bert", format="google")
    small = table(tmp_path / "small.tsv", 16)
    arguments = ["fit", "classify", small, "--dev", small, "--model", tmp_path / "bert", "--epochs", 1]
    assert call(*arguments, "--out", tmp_path / "out", "--max-length", 12) == 0
    play = mp.load(tmp_path / "out")
    assert play.config.intermediate_size == 16 and play.max_length == 12 and play.pool == "pooler"
    capfd.readouterr()
    alone = ["fit", "classify", small, "--dev", small, "--out", tmp_path / "b"]
    for option in (("--family", "bert"), ("--vocab", tmp_path / "bert")):
        assert f"{option[0]} goes with --model; without --model a small" in fault(capfd, *alone, *option)
    assert "has its own shape" in fault(capfd, *arguments, "--out", tmp_path / "b", "--num-layers", 2)
    assert "found a trained play" in fault(capfd, "fit", "classify", small, "--dev", small, "--model", tmp_path / "out",
                                           "--out", tmp_path / "b")  # fmt: skip


def test_a_model_without_padding_gets_it_as_is_told(capfd, files: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = mp.Tokenizer.from_characters([files["train"].read_text("utf-8")], max_size=200)
    row = mp.families.GPT2.config
    config = row.but(vocab_size=len(tokenizer), hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16)
    mp.Pretrained(mp.LanguageModel(config, ["lm"]), tokenizer, "gpt2").save(tmp_path / "gpt")
    small = table(tmp_path / "small.tsv", 16)
    arguments = ["fit", "classify", small, "--dev", small, "--epochs", 1, "--out", tmp_path / "out", "--model"]
    told = fault(capfd, *arguments, tmp_path / "gpt")
    assert "a gpt2 has no padding token" in told and ", pad_id=…).save(FOLDER)" in told
    mp.load(tmp_path / "gpt", pad_id=tokenizer.special("pad")).save(tmp_path / "padded")
    assert call(*arguments, tmp_path / "padded") == 0


def test_a_vocabulary_that_lies_elsewhere(capfd, files: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = mp.Tokenizer.from_characters([files["train"].read_text("utf-8")], max_size=200)
    config = mp.Config(
        vocab_size=len(tokenizer), hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16, max_positions=32
    )
    mp.Pretrained(mp.LanguageModel(config)).save(tmp_path / "bert", format="google")
    *tokens, last = tokenizer.vocab
    for name, other in (("vocab.txt", last), ("other.txt", "异")):
        (tmp_path / name).write_text("\n".join([*tokens, other, ""]), encoding="utf-8")
    mp.Pretrained(mp.LanguageModel(config), tokenizer).save(tmp_path / "old")
    small, out = table(tmp_path / "small.tsv", 16), tmp_path / "out"
    arguments = ["fit", "classify", small, "--dev", small, "--model", tmp_path / "bert", "--epochs", 1, "--out", out]
    assert "came without a vocabulary" in fault(capfd, *arguments)
    vocab = ["--vocab", tmp_path / "vocab.txt"]
    inside = [*arguments[:-1], tmp_path / "old", "--vocab", tmp_path / "old" / "vocab.txt"]
    assert "the --vocab is or lies in there and would be lost" in fault(capfd, *inside)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:  # the run is done, but nothing of it is written
        patch.setattr("maskplay.cli.fit.figures_of", killed)
        assert call(*arguments, *vocab) == 130
    capfd.readouterr()
    other = fault(capfd, *arguments, "--vocab", tmp_path / "other.txt")
    assert f"unfinished run with --vocab {tmp_path / 'vocab.txt'} (sha256" in other
    assert f"now it is {tmp_path / 'other.txt'} (sha256" in other
    assert call(*arguments, *vocab) == 0
    assert mp.load(out).tokenizer.vocab == tokenizer.vocab
    settings = json.loads((out / "metrics.json").read_text("utf-8"))["settings"]
    assert (settings["--family"], settings["--vocab"]["file"]) == ("bert", str(tmp_path / "vocab.txt"))


# Files that cannot be used


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


BROKEN = {
    "missing": (None, "missing.tsv: cannot be read (No such file or directory)"),
    "empty": (b"", "expected a header with a column 'text'"),
    "header_only": (b"text\tlabel\n", "expected at least one example, found none"),
    "unlabelled": (b"text\nabc\n", "line 2: expected a label, found none"),
    "utf8": ("text\tlabel\n好\t好\n".encode() + b"\xff\xfe\ta\n", "line 3: expected UTF-8, found byte 0xff"),
    "long": (b"text\tlabel\n" + b"x" * 10 * 2**20 + b"\ta\n", "line 2: expected at most 1048576 bytes, found 10485762"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("command", ["fit", "dev", "predict", "evaluate"])
def test_a_broken_file_is_one_line(capfd, trained, files, tmp_path: Path, name: str, command: str) -> None:
    content, told = BROKEN[name]
    path = tmp_path / f"{name}.tsv" if content is None else written(tmp_path / f"{name}.tsv", content)
    if (command, name) == ("predict", "unlabelled"):
        pytest.skip("texts need no label")
    arguments = {
        "fit": ["fit", "classify", path, "--out", tmp_path / "out"],
        "dev": ["fit", "classify", files["train"], "--dev", path, "--out", tmp_path / "out"],
        "predict": ["predict", trained, path],
        "evaluate": ["evaluate", trained, path],
    }
    assert told in fault(capfd, *arguments[command])
    assert set(os.listdir(tmp_path)) <= {path.name}


def test_labels_that_do_not_fit_are_one_line(capfd, trained: Path, files: dict[str, Path], tmp_path: Path) -> None:
    one = written(tmp_path / "one.tsv", "text\tlabel\n好\t好\n棒\t好\n".encode())
    assert fault(capfd, "fit", "classify", one, "--out", tmp_path / "out") == (
        f"{one}: expected at least two labels, found only '好'"
    )
    strange = written(tmp_path / "strange.tsv", "text\tlabel\n好\t好\n棒\t中\n".encode())
    assert fault(capfd, "fit", "classify", files["train"], "--dev", strange, "--out", tmp_path / "out") == (
        f"{strange}, line 3: the label '中' does not occur in {files['train']}; known are 坏, 好"
    )
    assert fault(capfd, "evaluate", trained, strange) == (
        f"{strange}, line 3: the label '中' does not occur in {trained}; known are 坏, 好"
    )
    assert sorted(os.listdir(tmp_path)) == ["one.tsv", "strange.tsv"]


@pytest.mark.parametrize(
    "options, told",
    [
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "many"], "--epochs"),
        (["--batch-size", "0"], "--batch-size"),
        (["--learning-rate", "-1"], "--learning-rate: expected a number above 0, found -1.0"),
        (["--learning-rate", "nan"], "--learning-rate: expected a number above 0, found nan"),
        (["--optimizer", "sgd"], "--optimizer: expected one of adamw, lamb, muon, found 'sgd'"),
        (["--pool", "max"], "--pool: expected one of pooler, mean, found 'max'"),
        (["--seed", "-1"], "--seed"),
        (["--patience", "0"], "--patience"),
        (["--hidden-size", "15"], "hidden_size 15 is not a multiple of num_heads 4"),
        (["--model", "bundled:zh-large"], "bundled:zh-large: expected one of bundled:zh-small"),
        (["--model", "no/such/folder/anywhere"], "no/such/folder/anywhere: no such file or folder"),
    ],
)
def test_an_impossible_option_is_one_line(capfd, files, tmp_path: Path, options: list[str], told: str) -> None:
    code = call("fit", "classify", files["train"], "--dev", files["dev"], "--out", tmp_path / "out", *options)
    err = capfd.readouterr().err
    assert code == 2 and err.splitlines()[-1].startswith("maskplay: ") and told in err.splitlines()[-1]
    assert os.listdir(tmp_path) == []


def test_a_taken_name_is_told_before_training(capfd, files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.txt").write_text("x")
    for out, told in ((tmp_path / "thesis", "holds files that maskplay did not write"), (files["dev"], "found a file")):
        assert told in fault(capfd, "fit", "classify", files["train"], "--dev", files["dev"], "--out", out)


def test_the_model_is_not_written_over(capfd, files: dict[str, Path], trained: Path, tmp_path: Path) -> None:
    mp.load(trained).save(tmp_path / "model")
    for out in (tmp_path / "model", tmp_path / "model" / ".." / "model"):
        told = fault(capfd, "fit", "classify", files["train"], "--model", tmp_path / "model", "--out", out)
        assert "the --model is or lies in there and would be lost" in told
    inside = shutil.copy(files["train"], tmp_path / "model" / "train.tsv")
    told = fault(capfd, "fit", "classify", inside, "--dev", files["dev"], "--out", tmp_path / "model")
    assert "holds train.tsv, which maskplay did not write" in told and mp.load(tmp_path / "model")


def test_a_name_that_is_no_utf8(capfd, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xd1\xff.tsv")
    try:
        shutil.copy(table(tmp_path / "small.tsv", 16), odd)
    except OSError:
        pytest.skip("this file system takes no such names")
    sizes = ["--hidden-size", 8, "--num-layers", 1, "--num-heads", 2]
    assert call("fit", "classify", odd, "--dev", odd, "--epochs", 1, "--out", tmp_path / "out", *sizes) == 0
    assert r"\udcd1" in (tmp_path / "out" / "metrics.json").read_text(encoding="utf-8")


def test_what_is_no_play_is_one_line(capfd, files: dict[str, Path], tmp_path: Path) -> None:
    assert "no such folder" in fault(capfd, "predict", tmp_path / "nothing", files["dev"])
    assert "expected a folder written by a play's save" in fault(capfd, "predict", tmp_path, files["dev"])
    (tmp_path / "maskplay.json").write_text("{")
    assert "not valid JSON" in fault(capfd, "evaluate", tmp_path, files["dev"])
    (tmp_path / "maskplay.json").write_text('{"format": "google"}')
    told = fault(capfd, "predict", tmp_path, files["dev"])
    assert "expected a saved play, one of classify; found a checkpoint, which is trained first: maskplay fit" in told


# A run that is interrupted


def broken_off(monkeypatch, *arguments: object) -> None:
    """A run on a terminal that Ctrl-C stops when its first epoch is over."""

    begin = EpochProgress.on_epoch_begin

    def press(progress: EpochProgress, epoch: int, logs: object = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt
        begin(progress, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(EpochProgress, "on_epoch_begin", press)
        patch.setenv("FORCE_COLOR", "1")
        assert call(*arguments) == 130


def test_a_run_knows_its_files_by_what_is_in_them(capfd, monkeypatch, files: dict[str, Path], tmp_path: Path) -> None:
    network, tokenizer = mp.fresh.small([files["train"].read_text("utf-8")], 16, 1, 2)
    bert = mp.Pretrained(network, tokenizer, "roformer")
    bert.save(tmp_path / "bert")
    small, elsewhere = table(tmp_path / "small.tsv", 16), tmp_path / "elsewhere.tsv"
    out = ["--out", tmp_path / "out", "--epochs", 2]
    broken_off(monkeypatch, "fit", "classify", small, "--dev", small, "--model", tmp_path / "bert", *out)
    terminal = capfd.readouterr().err  # on which the bar has hidden the cursor
    assert terminal.rindex("\x1b[?25h") > terminal.rindex("\x1b[?25l")
    # Other weights under the same name are another checkpoint; so --restart with a wrong name deletes nothing.
    kernel = bert.encoder.weights[-1]
    kernel.assign(kernel + 1)
    bert.save(tmp_path / "other")
    (tmp_path / "bert").rename(tmp_path / "moved")
    (tmp_path / "other").rename(tmp_path / "bert")
    told = fault(capfd, "fit", "classify", small, "--dev", small, "--model", tmp_path / "bert", *out)
    assert f"with --model {tmp_path / 'bert'} (sha256 " in told
    lost = fault(capfd, "fit", "classify", small, "--dev", small, "--model", tmp_path / "gone", *out, "--restart")
    assert f"{tmp_path / 'gone'}: no such file or folder" in lost
    # The same files under other names are the same files.
    small.rename(elsewhere)
    assert call("fit", "classify", elsewhere, "--dev", elsewhere, "--model", tmp_path / "moved", *out) == 0
    assert "going on with the run that stopped in epoch 2" in capfd.readouterr().err


# A run that is killed


def command(files: dict[str, Path], out: Path, *more: object) -> list[object]:
    return ["fit", "classify", files["train"], "--dev", files["dev"], "--out", out, "--epochs", 20, "--batch-size", 8,
            "--save-every", 0, *SMALL, *more]  # fmt: skip


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert call(*command(files, out)) == 0
    return out


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def test_a_killed_run_goes_on_and_ends_like_a_whole_one(capfd, files, whole: Path, tmp_path: Path) -> None:
    out, running = tmp_path / "out", tmp_path / "out.running"
    process = start(*command(files, out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(running / "state.safetensors", process)
    time.sleep(random.uniform(0, 0.4))
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.listdir(tmp_path) == ["out.running"]
    # Where TensorFlow is installed but not asked for, it is not imported (it would take seconds, and print notices).
    (tmp_path / "installed").mkdir()
    beside = keras.config.backend() != "tensorflow"
    if beside:
        (tmp_path / "installed" / "tensorflow.py").write_text("raise RuntimeError('imported')")
    process = start(*command(files, out), path=tmp_path / "installed", stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    printed, told = process.communicate()
    assert process.returncode == 0 and printed == f"{out}\n", told
    assert f"{running}: going on with the run that stopped in epoch" in told
    ours = ("no --model", str(running), "epoch ", "dev accuracy")
    assert not beside or all(line.startswith(ours) for line in told.splitlines()), told
    shutil.rmtree(tmp_path / "installed")
    assert sorted(os.listdir(tmp_path)) == ["out"]
    ours, theirs = load_file(out / "model.safetensors"), load_file(whole / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6, err_msg=name)
    one, other = (json.loads((folder / "metrics.json").read_text("utf-8")) for folder in (out, whole))
    assert one["epochs"] == other["epochs"] and one["dev"] == other["dev"]


def test_ctrl_c_leaves_a_run_to_go_on_with(capfd, files, tmp_path: Path) -> None:
    out, running = tmp_path / "out", tmp_path / "out.running"
    process = start(*command(files, out), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for(running / "state.safetensors", process)
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate()
    assert process.returncode == 130 and printed == "", told
    assert told.splitlines()[-1] == "maskplay: interrupted" and "Traceback" not in told
    assert os.listdir(tmp_path) == ["out.running"]
    # The same command with another setting is refused by name, and --restart begins afresh.
    err = fault(capfd, *command(files, out, "--seed", 1))
    assert f"{running}: holds an unfinished run with --seed 0, now it is 1" in err and "--restart" in err
    assert "now it is" in fault(capfd, *command({**files, "train": files["dev"]}, out))
    small = command(files, out, "--restart", "--epochs", 1)
    assert call(*small) == 0
    assert "going on" not in capfd.readouterr().err and os.listdir(tmp_path) == ["out"]
