"""A Ray cluster finds the same words, byte for byte, also when it loses workers; what goes wrong there is one line."""

import os
import pickle
import re
import signal
import socket
from functools import partial

import pytest

import maskplay as mp
from cli.faults import fault
from maskplay.errors import DataError, UserError
from maskplay.words import cluster, shards
from words.references import generated


@pytest.fixture(scope="module")
def ray():
    """A Ray of three processes on this machine, which all tests join."""
    ray = pytest.importorskip("ray", reason="the `cluster` extra is not installed")
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # what else fills this machine is no reason to stop a worker
    for last in (False, True):
        try:
            ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
            break
        except Exception as error:  # a busy machine's second try finds the files read and the ports free
            ray.shutdown()
            if last and "timed out during startup" not in str(error):
                raise
            if last:
                pytest.skip("this machine is too busy for a Ray, which gives itself 15 s to start")
    yield ray
    ray.shutdown()


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "LEAST", 2000)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(generated(11, 3000)), encoding="utf-8")
    return path


class Sent:
    """A function that is sent as it is: tests are not installed where workers could import them."""

    def __init__(self, function) -> None:
        from ray import cloudpickle

        self.packed = cloudpickle.dumps(function)

    def __reduce__(self):
        return pickle.loads, (self.packed,)


def called(ray, function, items):
    return cluster.Cluster(ray).run(Sent(function), items)


def test_the_same_bytes(ray, text, tmp_path):
    for name, where in (("one", {}), ("three", {"cluster": "local", "folder": tmp_path})):
        mp.words.discover(text, min_count=8, **where).write(tmp_path / f"{name}.tsv")
        mp.words.count(text, n=3, **where).write(tmp_path / f"{name}-3.tsv")
    for end in (".tsv", "-3.tsv"):
        assert (tmp_path / f"one{end}").read_bytes() == (tmp_path / f"three{end}").read_bytes()
    assert (tmp_path / "one.tsv").read_bytes().count(b"\n") > 40
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_workers_bring_no_keras(ray):
    def modules(_):
        import sys

        return os.getpid(), "maskplay.errors" in sys.modules, "keras" in sys.modules or "jax" in sys.modules

    ran = list(dict(called(ray, modules, range(6))).values())
    assert all(facts == [True, False] for _, *facts in ran) and len(ran) == 6
    assert os.getpid() not in {pid for pid, *_ in ran}


def test_a_killed_worker_costs_time(ray, text, tmp_path, monkeypatch):
    flags = tmp_path / "flags"
    flags.mkdir()
    names = {"count_grams", "merge_neighbours"}  # one is killed at each
    run = cluster.Cluster.run

    def killing(function, item):
        flag = flags / function.func.__name__
        if flag.name in names and not flag.exists():
            flag.touch()
            function(item)  # what it wrote is there already
            os.kill(os.getpid(), signal.SIGKILL)
        return function(item)

    with_losses = lambda self, function, items: run(self, Sent(partial(killing, function)), items)  # noqa: E731
    monkeypatch.setattr(cluster.Cluster, "run", with_losses)
    mp.words.discover(text, min_count=8, cluster="local", folder=tmp_path).write(tmp_path / "a.tsv")
    mp.words.discover(text, min_count=8).write(tmp_path / "b.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()
    assert {path.name for path in flags.iterdir()} == names


def test_workers_lost_again_and_again(ray, monkeypatch):
    monkeypatch.setattr(cluster, "RETRIES", 1)
    with pytest.raises(UserError, match=r"cluster: a worker was lost 2 times at the same task \(WorkerCrashedError\)"):
        list(called(ray, lambda item: os.kill(os.getpid(), signal.SIGKILL), [0]))


def test_what_a_worker_finds_wrong(ray, text, tmp_path):
    with open(text, "ab") as file:
        file.write(b"\n\xff\n")
    here = re.escape(f"(on {socket.gethostname()})")
    with pytest.raises(DataError, match=rf"text\.txt, line 3001: expected UTF-8, found byte 0xff.*{here}$"):
        mp.words.discover(text, cluster="local", folder=tmp_path)
    assert os.listdir(tmp_path) == ["text.txt"]
    with pytest.raises(UserError, match=rf"gone: No such file or directory {here}"):
        list(called(ray, open, [str(tmp_path / "gone")]))
    with pytest.raises(ray.exceptions.RayTaskError, match="ZeroDivisionError"):  # a bug keeps its traceback
        list(called(ray, lambda item: 1 // item, [0]))


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nobody_at_an_address(capfd, tmp_path, scheme):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "a.txt").write_text("天地")
        line = fault(capfd, "words", "discover", tmp_path / "a.txt", "--out", tmp_path / "b.tsv", "--cluster", address)
    assert f"cluster: {address}: nobody answers there" in line
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("address", ["", "somewhere", "http://a:1", "a:b", "a:99999999", 5])
def test_no_address(tmp_path, address):
    (tmp_path / "a.txt").write_text("天地")
    with pytest.raises(UserError, match="cluster: expected local, auto, host:port or ray://host:port, found"):
        mp.words.count(tmp_path / "a.txt", n=2, cluster=address)


def test_without_ray(capfd, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    (tmp_path / "a.txt").write_text("天地")
    line = fault(capfd, "words", "count", tmp_path / "a.txt", "--out", tmp_path / "b.tsv", "--cluster", "local")
    assert "a cluster needs the extra 'cluster': pip install 'maskplay[cluster]'" in line
    assert os.listdir(tmp_path) == ["a.txt"]
