"""Ctrl-C ends the command whenever it comes, once, and lets what is cleaned up be cleaned up."""

import subprocess
import sys

import pytest

from cli.faults import HEARS
from laws.house import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no interval timers")

START = f"import os, sys, time\nsys.path.insert(0, {str(ROOT / 'src')!r})\nimport maskplay_command\n{HEARS}"
PRESS = "os.kill(os.getpid(), signal.SIGINT)"
WORK = "end = time.monotonic() + 20\nwhile time.monotonic() < end: pass\nprint('worked to the end')\n"


def run(code: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def cli(main: str) -> str:
    """The command with another command line behind it, whose imports cost nothing."""
    indented = "".join(f"    {line}\n" for line in main.splitlines())
    return f"import types\ndef main():\n{indented}\nsys.modules['maskplay'] = types.ModuleType('maskplay')\n" + (
        "sys.modules['maskplay.cli'] = types.SimpleNamespace(main=main)\nmaskplay_command.main()\n"
    )


@pytest.mark.parametrize(
    "loses",
    [
        f"class Gone:\n    def __del__(self):\n        {PRESS}\nGone()",  # Python reports it and goes on
        f"try:\n    {PRESS}\nexcept BaseException:\n    pass",  # as C++ does that clears an error
    ],
)
def test_an_interruption_that_got_lost_comes_again(loses: str) -> None:
    assert run(cli(f"{loses}\n{WORK}")) == (130, "", "maskplay: interrupted\n")


def test_what_is_cleaned_up_is_not_disturbed() -> None:
    slowly = "end = time.monotonic() + 0.4\n    while time.monotonic() < end: pass\n    print('cleaned')"
    for clean in (
        f"try:\n    {PRESS}\n    time.sleep(20)\nfinally:\n    {slowly}",
        f"try:\n    {PRESS}\n    time.sleep(20)\nexcept BaseException:\n"
        f"    try: {{}}['a']\n    except KeyError: pass\n    {slowly}\n    raise",
    ):
        assert run(cli(clean)) == (130, "cleaned\n", "maskplay: interrupted\n")


def test_an_interruption_turned_into_another_error_is_still_one() -> None:
    turned = f"try:\n    {PRESS}\nexcept BaseException:\n    pass\nraise RuntimeError('callback failed')"
    assert run(cli(turned)) == (130, "", "maskplay: interrupted\n")
    code, _, told = run(cli("raise RuntimeError('a bug')"))
    assert code == 1 and "RuntimeError: a bug" in told


def test_an_interruption_during_the_imports_is_one_line() -> None:
    finder = (
        "class Press:\n    def find_spec(name, path=None, target=None):\n"
        f"        if name == 'keras':\n            {PRESS}\nsys.meta_path.insert(0, Press)\nmaskplay_command.main()\n"
    )
    assert run(finder) == (130, "", "maskplay: interrupted\n")


def test_the_script_is_this_command() -> None:
    assert 'maskplay = "maskplay_command:main"' in (ROOT / "pyproject.toml").read_text("utf-8")
