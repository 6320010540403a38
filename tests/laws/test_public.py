"""What `import maskplay` brings and shows: no heavy library, and an example beside every public name."""

import inspect
import json
import os
import subprocess
import sys
from types import ModuleType

import pytest

from laws.house import ROOT

HEAVY = ("torch", "tensorflow", "ray", "duckdb", "fastapi", "matplotlib", "sklearn", "transformers", "sentencepiece")


def imported_beside_keras(statement: str) -> list[str]:
    """Heavy libraries that a statement brings in a fresh interpreter under JAX, beyond what Keras itself imports."""
    # Keras imports matplotlib and scikit-learn for itself where they are installed: only what comes on top is ours.
    code = (
        "import json, sys, keras\nbefore = set(sys.modules)\n"
        f"{statement}\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in set(sys.modules) - before]))"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def without_example(names: dict[str, object]) -> list[str]:
    """Public functions and classes whose own docstring is missing or shows no `>>>` example.

    An exception needs no example, only words.
    """
    found = []
    for name, thing in names.items():
        if inspect.isclass(thing) or inspect.isroutine(thing):
            error = inspect.isclass(thing) and issubclass(thing, BaseException)
            text = thing.__doc__ or ""
            if not text or (">>>" not in text and not error):
                found.append(name)
    return found


def public_names(module: ModuleType, name: str) -> dict[str, object]:
    """What a module's `__all__` lists, with what the modules in that list show in their turn."""
    found: dict[str, object] = {}
    for each in module.__all__:
        thing = getattr(module, each)
        if inspect.ismodule(thing):
            found.update(public_names(thing, f"{name}.{each}"))  # each says by `__all__` what is public in it
        else:
            found[f"{name}.{each}"] = thing
    return found


def test_import_brings_no_heavy_library() -> None:
    assert imported_beside_keras("import maskplay") == []


def test_flags_a_heavy_import() -> None:
    # scikit-learn may be there through Keras already; drop it, so that the statement really imports it anew.
    pytest.importorskip("sklearn", reason="the `baselines` extra is not installed")
    forget = "for m in [m for m in sys.modules if m.split('.')[0] == 'sklearn']: sys.modules.pop(m); before.discard(m)"
    assert imported_beside_keras(f"{forget}\nimport sklearn") == ["sklearn"]


def test_public_names_carry_an_example() -> None:
    import maskplay

    names = public_names(maskplay, "maskplay")
    assert names
    assert without_example(names) == []


def test_flags_a_bare_public_name() -> None:
    def told() -> None:
        """Does it.

        Example:
            >>> told()
        """

    class Bare: ...

    class Silent(ValueError): ...

    class Fault(ValueError):
        """It failed."""

    names = {"told": told, "Bare": Bare, "Silent": Silent, "Fault": Fault, "version": "0.1.0"}
    assert without_example(names) == ["Bare", "Silent"]
