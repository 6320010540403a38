"""`parallel_map`: ordered, few items at a time, nothing that goes wrong in a worker is lost, no worker outlives it."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import maskplay as mp
from cli.faults import HEARS
from laws.house import ROOT
from maskplay.errors import UserError
from maskplay.words.parallel import AHEAD, thread_map


def slow_for_even(x: int) -> tuple[int, int]:
    time.sleep(0.02 * (x % 2 == 0))
    return x, os.getpid()


def inverse(x: int) -> float:
    return 1 / x


def fault(x: int) -> None:
    raise mp.MissingExtra("this", "words") if x == 1 else UserError(f"{x}: no")


def ends(x: int) -> int:
    if x == 3:
        os._exit(9)
    return x


def unsendable(x: int):
    return lambda: x


def children() -> list:
    return multiprocessing.active_children()


def test_results_come_in_order_from_several_processes():
    results = list(mp.words.parallel_map(slow_for_even, range(20), workers=3))
    assert [x for x, _ in results] == list(range(20))
    assert len({pid for _, pid in results}) == 3 and os.getpid() not in {pid for _, pid in results}
    assert not children()


def test_few_items_are_taken_ahead():
    taken: list[int] = []
    results = mp.words.parallel_map(slow_for_even, (taken.append(i) or i for i in itertools.count()), workers=2)
    for i in range(10):
        assert next(results)[0] == i
        time.sleep(0.03)
        assert i < len(taken) <= i + 2 * AHEAD
    assert children()
    results.close()
    assert not children()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_its_item(workers):
    results = mp.words.parallel_map(inverse, [1, 2, 0, 4], workers=workers)
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError) as error:
        next(results)
    assert "in item 2" in error.value.__notes__ and not children()
    if workers == 2:
        assert any("inverse" in note for note in error.value.__notes__)  # where it happened


def test_errors_that_do_not_travel_are_told_in_words():
    with pytest.raises(UserError, match="this needs the extra 'words'"):
        list(mp.words.parallel_map(fault, [1], workers=2))
    with pytest.raises(UserError, match="5: no"):
        list(mp.words.parallel_map(fault, [5], workers=2))
    with pytest.raises(RuntimeError, match="a result cannot be sent back"):
        list(mp.words.parallel_map(unsendable, [5], workers=2))


def test_a_worker_that_dies_is_an_error_not_a_hang():
    with pytest.raises(RuntimeError, match=r"item 3: the worker died \(exit code 9\)"):
        list(mp.words.parallel_map(ends, range(9), workers=2))
    assert not children()


def test_under_spawn():
    assert list(mp.words.parallel_map(str.upper, ["a"], workers=2, start_method="spawn")) == ["A"]
    with pytest.raises(UserError, match="cannot be sent to another process"):
        list(mp.words.parallel_map(lambda x: x, [1], workers=2, start_method="spawn"))


def test_no_items_and_wrong_options():
    assert list(mp.words.parallel_map(inverse, [], workers=2)) == []
    with pytest.raises(UserError, match="workers: expected a whole number from 1 on, found 0"):
        mp.words.parallel_map(inverse, [1], workers=0)  # before anything is asked for
    for workers in (1, 2):
        with pytest.raises(UserError, match="start_method: expected one of None, fork, spawn.*found 'threads'"):
            mp.words.parallel_map(inverse, [1], workers=workers, start_method="threads")
    told: list[int] = []
    list(mp.words.parallel_map(inverse, [1, 2, 3], workers=2, progress=told.append))
    assert told == [1, 2, 3]


def test_threads_are_told_that_nobody_waits():
    leaving, turns = threading.Event(), []

    def work(item: int) -> None:
        if not item:
            raise ValueError("broken")
        for turn in range(10_000):
            turns.append(turn)
            if leaving.wait(0.001):
                return

    with pytest.raises(ValueError, match="broken"):
        list(thread_map(work, [0, 1], 2, leaving))
    assert leaving.is_set() and len(turns) < 10_000


def test_threads_keep_the_order_and_raise():
    assert list(thread_map(lambda x: time.sleep(0.01 * (x % 3)) or x, range(12), workers=3)) == list(range(12))
    with pytest.raises(ZeroDivisionError):
        list(thread_map(inverse, [1, 0], workers=2))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_who_asked(tmp_path, sign):
    code = f"""{HEARS}
import os, pathlib, sys, time, types
package = types.ModuleType("maskplay")  # without Keras: the start is what takes long
package.__path__ = [{str(ROOT / "src" / "maskplay")!r}]
sys.modules["maskplay"] = package
from maskplay.words.parallel import parallel_map
def work(i):
    pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()
    time.sleep(0.3 if {sign == signal.SIGKILL} else 60)
for _ in parallel_map(work, range(1000), workers=3): pass
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while len(workers := list(tmp_path.iterdir())) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(sign)
    process.wait(20)
    while any(alive(int(path.name)) for path in workers) and time.monotonic() < end:
        time.sleep(0.02)
    assert len(workers) == 3 and not any(alive(int(path.name)) for path in workers)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"  # nobody may have waited for it here
    except FileNotFoundError:
        return False


class Unreadable:
    """Goes out, but cannot be made again: of an item in the worker, of a result here."""

    def __setstate__(self, state):
        raise ValueError("no")

    def __getstate__(self):
        return {"a": 1}


def unreadable(item):
    return Unreadable()


def test_what_cannot_be_read_at_the_other_end_is_told():
    with pytest.raises(ValueError, match="no") as error:
        list(mp.words.parallel_map(str, [1, Unreadable()], workers=2))
    assert "in item 1" in error.value.__notes__ and not children()
    with pytest.raises(RuntimeError, match=r"a result cannot be read here \(ValueError: no\)") as error:
        list(mp.words.parallel_map(unreadable, [1, 2], workers=2))
    assert "in item 0" in error.value.__notes__ and not children()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_came_before_a_broken_source_is_not_lost(workers):
    def items():
        yield from range(6)
        raise KeyError("broken")

    found = []
    with pytest.raises(KeyError, match="broken"):
        for result in mp.words.parallel_map(str, items(), workers=workers):
            found.append(result)
    assert found == list("012345")
