"""The command `maskplay` from its first moment: what must stand before the library is imported, which takes seconds.

Ctrl-C shall end the program whenever it comes: in the middle of the imports, or inside a library that loses it, as
finalizers and callbacks from C++ do. TensorFlow, where it is the backend, shall print no more than errors. And NumPy
shall sort fast, which finding words mostly is.
"""

import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

AGAIN = 0.05  # seconds after which an interruption that went nowhere is raised once more
TIMED = hasattr(signal, "setitimer")  # not on Windows
# Names of what NumPy sorts by, of version 2.0 to 2.3 and since; it passes over those it does not know.
AVX512 = "AVX512_SKX AVX512_ICL AVX512_SPR X86_V4"


def main() -> None:
    """Run the command line and leave with its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if sorts_slowly():
        os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", AVX512)
    insist_on_interrupts()
    outlive_readers()
    try:
        from maskplay.cli import main as run

        run()
    except (KeyboardInterrupt, Exception) as error:
        # A library may turn the interruption into an error of its own.
        if isinstance(error, Exception) and not interrupted():
            if type(error).__module__ != "maskplay.errors":
                raise
            print(f"maskplay: {error}", file=sys.stderr)  # no backend: the library cannot be imported
            sys.exit(2)
        print("maskplay: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        if TIMED:
            signal.setitimer(signal.ITIMER_REAL, 0)


def sorts_slowly(cpus: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this is an AMD Zen 4, on which NumPy sorts five times as fast by AVX2 as by AVX-512: there an instruction
    of the latter (vpcompress into memory) is done step by step."""
    try:
        text = cpus.read_text(errors="replace")
    except OSError:  # not Linux
        return False
    first = dict(line.replace("\t", "").split(": ", 1) for line in text.split("\n\n")[0].splitlines() if ": " in line)
    zen = first.get("vendor_id") == "AuthenticAMD" and first.get("cpu family") == "25"
    return zen and "avx512f" in first.get("flags", "").split()


class Unread(io.FileIO):
    """A stream whose reader may leave."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def outlive_readers() -> None:
    """Let a run go on when nobody reads its progress any more: `maskplay fit … 2>&1 | head -1` still makes its folder.

    Standard output stays as it is: what is printed there is the work itself.
    """
    if isinstance(sys.stderr, io.TextIOWrapper):
        raw = io.BufferedWriter(Unread(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, "backslashreplace", line_buffering=True)


def interrupted() -> bool:
    """Whether Ctrl-C was pressed: from then on a timer runs."""
    return TIMED and signal.getitimer(signal.ITIMER_REAL)[1] > 0


def on_its_way() -> bool:
    """Whether what ends the program is being passed on: what is cleaned up for it is not to be disturbed.

    A generator that is left behind cleans up for GeneratorExit, and does not see what for.
    """
    error = sys.exception()
    while error is not None:
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            return True
        error = error.__context__
    return False


def insist_on_interrupts() -> None:
    """Make Ctrl-C arrive: from the first on, KeyboardInterrupt is raised again and again until it is on its way."""
    if not TIMED or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # SIGINT is ignored, as in the background of a script, or somebody else's

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        if not on_its_way():
            raise KeyboardInterrupt

    def unraisable(problem: Any) -> None:
        if not isinstance(problem.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(problem)

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGALRM, interrupt)
    sys.unraisablehook = unraisable


if __name__ == "__main__":
    main()
