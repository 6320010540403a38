"""How the tests call the command line: in this process, or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskplay.cli import main

ROOT = Path(__file__).resolve().parents[2]
# A runner that was started in the background ignores SIGINT or blocks it, and its children would inherit that.
HEARS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
"""
COMMAND = [sys.executable, "-c", HEARS + "from maskplay_command import main; main()"]


def call(*arguments: object) -> int:
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    return int(exit.value.code or 0)


def start(*arguments: object, path: Path | None = None, **options) -> subprocess.Popen:
    """Start a command in a process of its own, which finds further modules in the folder `path`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT / "src"))))}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], env=environment, text=True, **options)


def fault(capfd: pytest.CaptureFixture, *arguments: object) -> str:
    """Run a command that must fail: exit code 2, nothing on stdout, one line on stderr, which is returned."""
    code = call(*arguments)
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("maskplay: ") and err.endswith("\n") and err.count("\n") == 1, err
    return err.removeprefix("maskplay: ").strip()
