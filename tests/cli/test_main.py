"""The frame of the command line: help, version, exit codes, interruptions."""

import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
from keras import ops

from cli.faults import call, fault, start
from maskplay import cli
from maskplay.cli import main
from maskplay.cli.models import CHECKPOINT


def test_help_lists_every_command(capfd) -> None:
    assert call("--help") == 0
    out = capfd.readouterr().out
    for command in ("fit", "predict", "evaluate", "fill", "inspect", "convert", "show", "words"):
        assert f"  {command} " in out


@pytest.mark.parametrize(
    "command",
    ["fit classify", "predict", "evaluate", "fill", "inspect", "convert", "show mask", "words discover", "words count"],
)
def test_every_command_has_help(capfd, command: str) -> None:
    assert call(*command.split(), "--help") == 0
    assert f"Usage: maskplay {command}" in capfd.readouterr().out


@pytest.mark.parametrize("command", ["inspect", "fill", "convert", "generate", "fit classify", "pretrain"])
def test_what_a_model_may_be_is_said_wherever_one_is_taken(capfd, command: str) -> None:
    assert call(*command.split(), "--help") == 0
    out = "".join(capfd.readouterr().out.split())  # lines may break anywhere, at a hyphen too
    assert "".join(CHECKPOINT.split()) in out and "--family" in out
    assert re.search(r"\[OPTIONS\]\{?model|--model", out, re.IGNORECASE)


def test_version(capfd) -> None:
    assert call("--version") == 0
    assert capfd.readouterr().out.startswith("maskplay ")


@pytest.mark.parametrize("arguments", [[], ["fit"], ["sing"], ["--loud"], ["show", "mask"], ["predict", "a", "b", "c"]])
def test_wrong_usage_is_one_line(capfd, arguments: list[str]) -> None:
    assert "--help" in fault(capfd, *arguments)


def test_a_bug_keeps_its_traceback(monkeypatch) -> None:
    monkeypatch.setattr(cli, "app", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([])


@pytest.mark.parametrize("take", [lambda: np.zeros((2**22, 2**22)), lambda: ops.ones((2**22, 2**22))])
def test_too_little_memory_is_one_line(capfd, monkeypatch, take) -> None:
    monkeypatch.setattr(cli, "app", lambda *a, **k: take())  # 64 or 128 TiB, which are refused at once
    assert "not enough memory for this (" in fault(capfd)


def test_ctrl_c_is_130(monkeypatch, capfd) -> None:
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("maskplay.cli.checkpoint.describe", interrupted)
    assert call("inspect", ".") == 130
    assert capfd.readouterr() == ("", "maskplay: interrupted\n")


@pytest.mark.parametrize(
    "error, told",
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"),
        (IsADirectoryError(21, "Is a directory", "a.svg"), "a.svg: Is a directory"),
    ],
)
def test_the_systems_faults_are_one_line(monkeypatch, capfd, error: OSError, told: str) -> None:
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr("maskplay.cli.checkpoint.describe", fails)
    assert fault(capfd, "inspect", ".") == told


def test_a_reader_that_stops_reading_is_no_fault() -> None:
    process = start("show", "mask", "causal()", "--n", 500, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait() in (0, 1) and "Traceback" not in error and "BrokenPipe" not in error


def test_the_package_runs_as_a_module(monkeypatch, capfd) -> None:
    monkeypatch.setattr("maskplay_command.main", lambda: print("ran"))
    runpy.run_module("maskplay", run_name="__main__")
    assert capfd.readouterr().out == "ran\n"


def test_nobody_needs_to_read_what_is_told() -> None:
    """A run whose progress is piped into `head` goes on."""
    process = start("show", "mask", "cause()", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stderr.close()
    assert (process.stdout.read(), process.wait()) == ("", 2)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        process = start("show", "mask", "causal()", stdout=full, stderr=subprocess.PIPE)
        _, told = process.communicate()
    assert process.returncode == 2 and told.endswith("maskplay: No space left on device\n")


def test_closed_streams_are_no_bug(monkeypatch, tmp_path) -> None:
    picture = tmp_path / "a.svg"
    for rule, code in (("causal()", 0), ("cause()", 2)):
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, None)  # what Python makes of >&- 2>&-
        found = call("show", "mask", rule, "--out", picture)
        assert (sys.stdout.close(), sys.stderr.close(), found) == (None, None, code)
    assert picture.read_text("utf-8").startswith("<svg")
