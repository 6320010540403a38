"""Ctrl-C ends the command whenever it comes, once, and lets what is cleaned up be cleaned up; NumPy's way to sort."""

import subprocess
import sys
from pathlib import Path

import pytest

from cli.faults import HEARS
from laws.house import ROOT
from maskplay_command import AVX512, sorts_slowly

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
        f"def stream():\n  try:\n    yield\n  finally:\n    {slowly}\nfor _ in stream(): {PRESS}; time.sleep(20)",
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


ZEN4 = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nflags\t\t: fpu avx2 avx512f avx512_vbmi2\npower management:\n\n"


@pytest.mark.parametrize(
    ("cpus", "slow"),
    [
        (ZEN4 + ZEN4, True),
        (ZEN4.replace("25", "26"), False),  # Zen 5
        (ZEN4.replace("avx512f ", ""), False),  # Zen 3
        (ZEN4.replace("AuthenticAMD", "GenuineIntel"), False),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", False),
        ("", False),
        (None, False),
    ],
)
def test_numpy_sorts_by_what_the_processor_does_fast(cpus: str | None, slow: bool, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    if cpus is not None:
        path.write_text(cpus)
    assert sorts_slowly(path) is slow


@pytest.mark.parametrize("chosen", [None, "AVX512_ICL"])
def test_the_command_tells_numpy_before_it_is_imported(chosen: str | None) -> None:
    before = f"os.environ['NPY_DISABLE_CPU_FEATURES'] = {chosen!r}\n" if chosen else ""
    slow = "maskplay_command.sorts_slowly = lambda: True\n"
    told = "import numpy\nprint(numpy.sort([2, 1]).tolist(), os.environ['NPY_DISABLE_CPU_FEATURES'])"
    code = f"os.environ.pop('NPY_DISABLE_CPU_FEATURES', None)\n{before}{slow}{cli(told)}"
    assert run(code) == (0, f"[1, 2] {chosen or AVX512}\n", "")
