"""The benchmarks still run: each in its fastest mode, which measures nothing worth reading."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from laws.house import ROOT

pytestmark = pytest.mark.once


def reviews(folder: Path) -> str:
    """An archive as `padding.py` reads it, with a few texts of many lengths."""
    path = folder / "reviews.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("dev", "test"):
            lines = [f"{i % 2}\t{'很好不错' * (1 + i % 9)}" for i in range(24)]
            archive.writestr(f"{part}.tsv", "\n".join(["label\ttext", *lines]))
    return str(path)


FASTEST: dict[str, Callable[[Path], list[str]]] = {
    "encoder.py": lambda folder: ["--smoke"],
    "import_cost.py": lambda folder: ["--rounds", "2"],
    "padding.py": lambda folder: [reviews(folder), "--length", "32", "--rounds", "2", "--count", "48"],
}


@pytest.mark.parametrize("script", FASTEST)
def test_runs(script: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *FASTEST[script](tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "KERAS_BACKEND": "jax"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "rounds" in ran.stdout


def test_a_peer_without_its_environment_is_reported() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "encoder.py"), "--sizes", "tiny"]
    command += ["--peers", "bert4keras,transformers-fp32", "--torch-python", "no-such-python"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "bert4keras           MISSING: no environment: give --bert4keras-python" in ran.stdout
    assert "transformers-fp32    MISSING: cannot run no-such-python" in ran.stdout


def test_every_benchmark_is_listed() -> None:
    assert {path.name for path in (ROOT / "benchmarks").glob("*.py")} == set(FASTEST)
