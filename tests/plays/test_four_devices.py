"""A classifier whose batches four devices share answers any number of texts."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

FOUR_DEVICES = """
import sys
sys.path[:0] = sys.argv[1:]
import keras
from test_classify import play
keras.distribution.set_distribution(keras.distribution.DataParallel())
model = play()
print([len(model.predict(["好"] * count)) for count in (1, 2, 9)], len(model.predict(["好"] * 7, batch_size=3)))
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="simulated devices are JAX's")
def test_one_text_among_four_devices() -> None:
    here = Path(__file__).parent
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES, str(here), str(here.parents[1] / "src")],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[0] == "[1, 2, 9] 7"
