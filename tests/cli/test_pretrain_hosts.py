"""`maskplay pretrain` in several processes: as in one, also after one is killed and on other devices."""

import os
import signal
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from cli.faults import call, fault, start
from cli.test_fit import wait_for
from cli.test_pretrain import command, history, text  # noqa: F401  (a fixture)
from maskplay.hosts.processes import LOST
from test_hosts import free_port

FEW = ("--steps", 12, "--report-every", 6)

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="several processes are JAX's")


def pair(text: Path, outs: list[Path], *more: object) -> list[subprocess.Popen]:  # noqa: F811
    """Two processes of two simulated devices each."""
    together = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", 2]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return [start(*command(text, out, *FEW), *together, "--rank", i, *more, **pipes) for i, out in enumerate(outs)]


def ends(process: subprocess.Popen) -> tuple[int, str, list[str]]:
    try:
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
    return process.returncode, out, err.splitlines()


def test_killed_and_resumed_they_do_as_one(text, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    out = tmp_path / "out"
    assert call(*command(text, tmp_path / "whole", *FEW)) == 0
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2")
    # First in one folder, as on a shared file system, the batch among four devices.
    first, second = pair(text, [out, out])
    wait_for(tmp_path / "out.running" / "state.safetensors", first)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    code, printed, told = ends(first)
    assert (code, printed, told[-1]) == (2, "", f"maskplay: {LOST}") and "Traceback" not in "".join(told), told
    assert sorted(os.listdir(tmp_path)) == ["out.running", "whole"]
    # Then each in its own, as without one; and two devices share the kernels.
    other = tmp_path / "elsewhere" / "out"
    (code, printed, told), silent = map(ends, pair(text, [out, other], "--model-parallel", 2))
    assert (code, printed) == (0, f"{out}\n"), told
    assert silent == (0, "", [])
    assert any("devices 4" in line for line in told) and any("going on with the run" in line for line in told)
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out", "whole"] and os.listdir(tmp_path / "elsewhere") == []
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "whole"))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6, err_msg=name)
    assert [pytest.approx(row, abs=1e-5) for row in history(out)] == history(tmp_path / "whole")


def test_two_recipes_are_no_run(text, tmp_path: Path) -> None:  # noqa: F811
    first, second = pair(text, [tmp_path / "out"] * 2, "--batch-size", 5)
    lines = [ends(process) for process in (first, second)]
    wanted = "batch_size: expected a multiple of 2, the devices of all processes, found 5"
    assert [(code, out, len(told)) for code, out, told in lines] == [(2, "", 1)] * 2
    assert any(wanted in told[0] for _, _, told in lines)  # who is first to find out says so
    assert os.listdir(tmp_path) == []


def test_faults(capfd, text, tmp_path: Path) -> None:  # noqa: F811
    for more, message in (
        (["--processes", 2, "--rank", 0], "coordinator: missing; say HOST:PORT"),
        (["--coordinator", "here:1234", "--processes", 2, "--rank", 2], "rank: expected 0 to 1, one of 2 processes"),
        (["--model-parallel", 2], "model_parallel: expected a divisor of 1, the devices of one process, found 2"),
        (["--model-parallel", 0], "model_parallel: expected at least 1, found 0"),
    ):
        assert message in fault(capfd, *command(text, tmp_path / "out", *more))
