"""`import maskplay` chooses a backend when nobody has: the first installed of jax, torch, tensorflow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from laws.house import ROOT

# Makes modules look as if they were not installed, to `import` and to importlib.util.find_spec alike.
HIDE = """
import sys
from importlib.machinery import PathFinder
class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] in {hidden!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""


def python(code: str, hidden: tuple[str, ...] = (), backend: str | None = None, extra: Path | None = None):
    """Run code in a fresh interpreter that sees neither the hidden modules nor, unless given, KERAS_BACKEND."""
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    environment["PYTHONPATH"] = os.pathsep.join(str(p) for p in (ROOT / "src", extra) if p)
    if backend:
        environment["KERAS_BACKEND"] = backend
    return subprocess.run(
        [sys.executable, "-c", HIDE.format(hidden=set(hidden)) + code],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_jax_comes_first() -> None:
    done = python("import maskplay, keras; print(keras.backend.backend())")
    assert (done.stdout.strip(), done.returncode) == ("jax", 0), done.stderr


@pytest.mark.parametrize("hidden, chosen", [(("jax",), "torch"), (("jax", "torch"), "tensorflow")])
def test_then_torch_then_tensorflow(hidden: tuple[str, ...], chosen: str, tmp_path: Path) -> None:
    # Empty stand-ins: Keras itself then fails on them, after the choice this test is about.
    for name in ("torch", "tensorflow"):
        (tmp_path / f"{name}.py").touch()
    code = "import os\ntry:\n    import maskplay\nexcept Exception: pass\nprint(os.environ['KERAS_BACKEND'])"
    assert python(code, hidden, extra=tmp_path).stdout.strip() == chosen


def test_a_choice_already_made_is_obeyed() -> None:
    # numpy is a Keras backend that maskplay would never choose.
    done = python("import maskplay, keras; print(keras.backend.backend())", backend="numpy")
    assert (done.stdout.strip(), done.returncode) == ("numpy", 0), done.stderr
    first = "import os; os.environ['KERAS_BACKEND'] = 'numpy'; import keras; del os.environ['KERAS_BACKEND']\n"
    done = python(first + "import maskplay; print(keras.backend.backend(), os.environ.get('KERAS_BACKEND'))")
    assert (done.stdout.strip(), done.returncode) == ("numpy None", 0), done.stderr


def test_no_backend_is_one_clear_line() -> None:
    done = python("import maskplay", hidden=("jax", "torch", "tensorflow"))
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    for wanted in ("maskplay[jax]", "maskplay[torch]", "maskplay[tensorflow]"):
        assert wanted in last


@pytest.mark.parametrize(
    "backend, hidden, told",
    [
        ("torch", ("torch",), "KERAS_BACKEND=torch needs the extra 'torch': pip install 'maskplay[torch]'"),
        ("theano", (), "KERAS_BACKEND: expected one of jax, torch, tensorflow, found 'theano'"),
        (None, ("jax", "torch", "tensorflow"), "maskplay needs the extra 'jax' or 'torch' or 'tensorflow'"),
    ],
)
def test_the_command_says_it_in_one_line(backend: str | None, hidden: tuple[str, ...], told: str) -> None:
    done = python("import maskplay_command; maskplay_command.main()", hidden, backend)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"maskplay: {told}")
