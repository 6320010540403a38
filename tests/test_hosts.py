"""Several processes as one, on this machine's loopback: they find each other, speak, take turns, and end together."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest

from laws.house import ROOT
from maskplay import UserError, hosts

jax_only = pytest.mark.skipif(keras.backend.backend() != "jax", reason="several processes are JAX's")

SPEAKS = """
import sys, time
from pathlib import Path
import maskplay as mp
import keras, numpy as np
from maskplay import hosts
from maskplay.errors import UserError
from maskplay.hosts.processes import alike, fetched
port, count, rank, folder, act = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5]
try:
    with hosts.together(f"127.0.0.1:{port}", count, rank, patience=3 if act == "meet" else 60, heartbeat=4):
        assert hosts.place() == (rank, count)
        if act == "speak":
            print(hosts.told(f"rank {rank}".encode()).decode(), hosts.told(bytes([rank]) * 1000).count(0))
            print(alike(np.full((2, 2), rank + 0.5, "float32")).tolist())
            (folder / str(rank)).mkdir(exist_ok=True)
            if rank == 0:
                (folder / "0" / "state").write_bytes(bytes(range(256)) * 100)
            found = fetched(folder / str(rank) / "state")
            print(found.name, found.read_bytes() == bytes(range(256)) * 100, fetched(folder / f"no{rank}"))
            for place in ("shared", str(rank)):
                with hosts.in_turn(folder / place):
                    print(place, "found" if (folder / place / "made").exists() else "made")
                    time.sleep(0.3)
                    (folder / place / "made").touch()
            hosts.share_devices()
            sums = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
            for rows in (4, 1):
                print(hosts.predict(sums, np.arange(10.0).reshape(5, 2), rows).ravel().tolist(), end=" ")
            print(float(hosts.predict(sums, np.ones((1, 2)))[0, 0]))
            keras.utils.set_random_seed(0)
            bert = mp.Pretrained(*mp.fresh.small(["好坏"] * 9, hidden_size=8, num_layers=1, num_heads=2))
            play = mp.plays.Classify(bert, ["a", "b"])
            texts = ["好", "坏坏坏", "好坏", "坏"] * 3
            one = [play(play.batches([text], 1, labelled=False, shuffle=False, multiple_of=1)[0][0]) for text in texts]
            want = [keras.ops.softmax(logits)[0, 0].addressable_data(0).item() for logits in one]
            near = np.abs(play.probabilities(texts, 4)[:, 0] - want).max() < 1e-6
            print(near, play.predict(texts) == ["ba"[p > 0.5] for p in want])
        if act == "talk":
            hosts.wait()
            print("talking", flush=True)
            while True:
                hosts.wait()
        if act == "fail":
            hosts.wait()
            if rank:
                raise UserError("a fault of rank 1")
            hosts.wait()
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes(ranks: list[int], count: int, folder: Path, act: str) -> list[subprocess.Popen]:
    port = str(free_port())
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", SPEAKS, port, str(count), str(rank), str(folder), act],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]


def ends(process: subprocess.Popen, seconds: float = 100) -> tuple[int, str, list[str]]:
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err.splitlines()


@jax_only
def test_they_speak_and_take_turns(tmp_path: Path) -> None:
    (code, first, err), (other, second, _) = map(ends, processes([0, 1], 2, tmp_path, "speak"))
    assert (code, other, err) == (0, 0, []), err
    *first, mine, answers = first.splitlines()
    *second, theirs, same = second.splitlines()
    assert answers == same == "True True"
    assert mine == theirs == "[1.0, 5.0, 9.0, 13.0, 17.0] [1.0, 5.0, 9.0, 13.0, 17.0] 2.0"
    assert first == ["rank 0 1000", "[[0.5, 0.5], [0.5, 0.5]]", "state True None", "shared made", "0 made"]
    # Another file system would have no such file: a copy comes. What only one of them sees, each makes for itself.
    assert second == ["rank 0 1000", "[[0.5, 0.5], [0.5, 0.5]]", ".state.1.part True None", "shared found", "1 made"]


@jax_only
def test_a_fault_of_one_ends_all_with_a_line_each(tmp_path: Path) -> None:
    (code, _, told), (other, _, own) = map(ends, processes([0, 1], 2, tmp_path, "fail"))
    assert (code, other) == (2, 2)
    assert own == ["a fault of rank 1"] and len(told) == 1 and hosts.processes.LOST in told[0]


@jax_only
@pytest.mark.parametrize(("victim", "how"), [(0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_one_is_lost(tmp_path: Path, victim: int, how: signal.Signals) -> None:
    both = processes([0, 1], 2, tmp_path, "talk")
    try:
        for process in both:
            assert process.stdout.readline() == "talking\n"
        both[victim].send_signal(how)
        start = time.monotonic()
        code, out, told = ends(both[1 - victim], seconds=60)
        assert (code, out) == (2, "") and len(told) == 1 and hosts.processes.LOST in told[0], told
        assert time.monotonic() - start < 45
    finally:
        both[victim].kill()
        both[victim].communicate()


@jax_only
def test_a_rank_that_is_taken_twice(tmp_path: Path) -> None:
    found = [ends(process) for process in processes([0, 1, 1], 3, tmp_path, "meet")]
    assert [(code, len(told)) for code, _, told in found] == [(2, 1)] * 3, found
    wanted = "expected 3 processes, each with a rank of its own, to come in time and stay; this is rank 0"
    assert wanted in found[0][2][0]  # on a busy machine the others may come when it has left


def test_what_does_not_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, message in (
        ((None, 2, None), "coordinator: missing; say HOST:PORT"),
        ((None, None, 0), "coordinator: missing; say HOST:PORT"),
        (("here", 2, 0), "coordinator: expected HOST:PORT or auto, found 'here'"),
        (("here:0", 2, 0), "coordinator: expected HOST:PORT or auto, found 'here:0'"),
        (("here:70000", 2, 0), "expected HOST:PORT"),
        (("here:1234", None, 0), "expected the number of processes and this one's rank"),
        (("here:1234", 2, None), "expected the number of processes and this one's rank"),
        (("here:1234", 2, -1), "rank: expected 0 to 1, one of 2 processes, found -1"),
        (("here:1234", 2, 2), "rank: expected 0 to 1, one of 2 processes, found 2"),
        (("here:1234", 0, 0), "processes: expected at least 1, found 0"),
        (("auto", 2, 0), "coordinator auto: finds processes and rank by itself"),
    ):
        with pytest.raises(UserError, match=message):
            hosts.join(*arguments)
    assert hosts.processes.settle(None, None, None) is None
    for name, value in (("JOB_ADDRESSES", "one:1234,two:1234"), ("NUM_PROCESSES", "2"), ("PROCESS_ID", "1")):
        monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    assert hosts.processes.settle(None, None, None) == ("one:1234", 2, 1)
    assert hosts.processes.settle("three:1234", None, 0) == ("three:1234", 2, 0)
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "second")
    with pytest.raises(UserError, match="expected numbers, found '2', 'second'"):
        hosts.join()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="what the others cannot do")
def test_other_backends_cannot() -> None:
    for call in (lambda: hosts.join("here:1234", 2, 0), lambda: hosts.share_devices(2)):
        with pytest.raises(UserError, match="needs the backend JAX, found"):
            call()
    assert hosts.share_devices() == 1


@jax_only
def test_nobody_there_or_somebody_else() -> None:
    with pytest.raises(UserError, match="nobody answers .*; expected the process of rank 0 there within 0.1 s"):
        hosts.join(f"127.0.0.1:{free_port()}", 2, 1, patience=0.1)
    with pytest.raises(UserError, match="no such host"):
        hosts.join("no-such-host.invalid:1234", 2, 1, patience=0.1)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be used here"):
            hosts.join(f"127.0.0.1:{taken.getsockname()[1]}", 2, 0)
    with pytest.raises(UserError, match="model_parallel: expected at least 1, found 0"):
        hosts.share_devices(0)


MESH = """
import keras
import maskplay as mp
from maskplay import hosts

assert hosts.share_devices(2) == 2
config = mp.families.family("roformer").config.but(
    vocab_size=30, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32)
network = mp.LanguageModel(config, ["mlm"])
network.build()
optimizer = keras.optimizers.AdamW()
optimizer.build(network.trainable_variables)
for weight in [*network.weights, *optimizer.variables]:
    shard = weight.value.addressable_shards[0].data.shape
    print(*weight.path.split("/")[-3:], *weight.value.sharding.spec, shard)
keras.distribution.set_distribution(None)
assert hosts.share_devices(4) == 1 and hosts.share_devices() == 4
try:
    hosts.share_devices(3)
except mp.UserError as error:
    print(error)
"""


@jax_only
def test_kernels_are_split_on_a_mesh_of_two_by_two() -> None:
    # That the numbers stay is tested with the command, in `test_pretrain_hosts`.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", MESH], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    for wanted in (
        "embedding token embeddings model None (15, 16)",
        "attention query kernel None model (16, 8)",
        "attention key kernel None model (16, 8)",
        "attention value bias model (8,)",
        "attention output kernel model None (8, 16)",
        "attention output bias None (16,)",
        "feed inner kernel None model (16, 16)",
        "feed outer kernel model None (16, 16)",
        "mlm bias model (15,)",
        "feed_outer_kernel_momentum model None (16, 16)",  # slots lie as their weights do
        "model_parallel: expected a divisor of 4, the devices of one process, found 3",
    ):
        assert any(line.endswith(wanted) for line in lines), (wanted, lines)


@jax_only
def test_a_size_that_does_not_divide_stays_whole() -> None:
    mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
    split = hosts.devices.Split(layout_map=hosts.layout(mesh), batch_dim_name="batch")
    mesh._shape = (1, 2)  # as on two devices

    class Weight:
        path, shape = "encoder/embedding/token/embeddings", (31, 16)

    assert split.get_variable_layout(Weight()).axes == (None, None)
    Weight.shape = (30, 16)
    assert split.get_variable_layout(Weight()).axes == ("model", None)
