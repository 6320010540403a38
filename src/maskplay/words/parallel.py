"""Work on many items at once: threads for NumPy, which lets go of Python's lock, and processes for Python code.

`parallel_map` keeps the order and holds few items at a time, so that it can stand in the middle of a stream; what goes
wrong in a worker is raised here with the number of its item, and no worker outlives the call.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from maskplay.errors import UserError, whole_number

In = TypeVar("In")
Out = TypeVar("Out")
AHEAD = 3  # items that may be in work or finished out of order, for each worker


def thread_map(
    function: Callable[[In], Out], items: Iterable[In], workers: int, leaving: threading.Event | None = None
) -> Iterator[Out]:
    """The results in order, computed by threads that hold no more than two results each beyond those asked for.

    `leaving` is set when no more results are wanted: a function that takes long can look at it and return.

    Example:
        >>> list(thread_map(lambda x: x * x, range(4), workers=2))
        [0, 1, 4, 9]
    """
    if workers == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        rest = iter(items)
        # One in work and one to go on with, while others wait for the oldest.
        running = deque(pool.submit(function, item) for item in islice(rest, 2 * workers))
        while running:
            result = running.popleft().result()
            running.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result
    finally:
        if leaving is not None:
            leaving.set()
        pool.shutdown(cancel_futures=True)


def parallel_map(
    function: Callable[[In], Out],
    items: Iterable[In],
    workers: int | None = None,
    *,
    start_method: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Out]:
    """Apply a function to items in several processes; an iterator over the results, in the order of the items.

    Items are taken from the iterable as workers become free, at most three per worker ahead of the result that is due:
    an endless iterable is fine. Leaving the loop, an error and Ctrl-C end the workers.

    Args:
        function: of one item; under the start methods spawn and forkserver it must be importable, as must the items.
        items: any iterable; each item should be worth at least some milliseconds.
        workers: processes; default one per processor, 1 = none: everything happens here.
        start_method: fork, spawn or forkserver; default what `multiprocessing` is set to.
        progress: called with the number of finished items after each.

    Raises:
        UserError: `workers` is below 1, or there is no such start method: at once. The function or an item cannot be
            sent to a process.
        Exception: whatever the function raised, with a note that names the item's index.
        RuntimeError: a worker died, of a lack of memory for instance.

    Example:
        >>> list(parallel_map(str.upper, ["a", "b", "c"], workers=2))
        ['A', 'B', 'C']
    """
    workers = checked_workers(workers)
    if start_method not in (known := [None, *multiprocessing.get_all_start_methods()]):
        raise UserError(f"start_method: expected one of {', '.join(map(str, known))}, found {start_method!r:.40}")
    results = _here(function, items) if workers == 1 else _there(function, items, workers, start_method)
    return results if progress is None else _told(results, progress)


def _told(results: Iterable[Out], progress: Callable[[int], object]) -> Iterator[Out]:
    for finished, result in enumerate(results, 1):
        progress(finished)
        yield result


def checked_workers(workers: int | None) -> int:
    """How many workers there shall be.

    Example:
        >>> checked_workers(3)
        3
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return whole_number("workers", workers, 1)


def _here(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    for index, item in enumerate(items):
        try:
            result = function(item)
        except Exception as error:
            error.add_note(f"in item {index}")
            raise
        yield result


def _there(function: Callable[[In], Out], items: Iterable[In], workers: int, start_method: str | None) -> Iterator[Out]:
    context: Any = multiprocessing.get_context(start_method)
    pipes: list[Connection] = []
    team: dict[Connection, Any] = {}  # the process at the other end
    busy: dict[Connection, int] = {}  # the item it works on
    done: dict[int, tuple[Any, Exception | None]] = {}
    answered: set[Connection] = set()
    rest, due, sent, more = enumerate(items), 0, 0, True
    broken: Exception | None = None
    try:
        while True:
            # A worker is started when there is work for it, up to their number.
            while more and len(busy) < workers and sent - due < AHEAD * workers:
                index, item = -1, None
                try:
                    index, item = next(rest, (-1, None))
                except Exception as error:  # of the items before it the results come first
                    broken = error
                if index < 0:
                    more = False
                    break
                free = next((pipe for pipe in pipes if pipe not in busy), None)
                if free is None:
                    free, theirs = context.Pipe()
                    pipes.append(free)
                    inherited = pipes.copy() if context.get_start_method() == "fork" else []
                    process = context.Process(target=_work, args=(function, theirs, inherited), daemon=True)
                    _sendable(process.start, f"the function {function!r:.80}")
                    theirs.close()
                    team[free] = process
                _sendable(lambda free=free, item=item: free.send(item), f"item {index}")
                busy[free], sent = index, index + 1
            if due in done:
                result, error = done.pop(due)
                if error is not None:
                    error.add_note(f"in item {due}")
                    raise error
                yield result
                due += 1
                continue
            if not busy:
                if broken is not None:
                    raise broken
                return
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                index = busy.pop(pipe)
                try:
                    answer = pipe.recv_bytes()
                except (EOFError, OSError):
                    team[pipe].join()
                    code = team[pipe].exitcode
                    why = f"item {index}: the worker died (exit code {code})"
                    if code == 1 and pipe not in answered and context.get_start_method() != "fork":
                        why += "; can it start? The function must be importable, a script guarded by __main__"
                    raise RuntimeError(why) from None
                answered.add(pipe)
                try:
                    done[index] = pickle.loads(answer)
                except Exception as error:  # only its worker could make sense of it
                    done[index] = None, RuntimeError(f"a result cannot be read here ({type(error).__name__}: {error})")
    finally:
        for process in team.values():
            process.terminate()
        for pipe, process in team.items():
            process.join()
            pipe.close()


def _sendable(send: Callable[[], object], what: str) -> None:
    try:
        send()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(f"{what} cannot be sent to another process ({error}); use one that can be imported") from None
    except BrokenPipeError:
        pass  # the worker has died; it is found out when its answer is waited for


def _work(function: Callable[[Any], Any], pipe: Connection, others: list[Connection]) -> None:
    """A worker's life: until nobody is at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; who asked for the work ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:  # a forked worker has copies of the asker's ends, its own among them
        other.close()
    while True:
        try:
            packed = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            answer = _packed(function(pickle.loads(packed)))
        except Exception as error:
            answer = pickle.dumps((None, _portable(error)))
        with contextlib.suppress(BrokenPipeError):
            pipe.send_bytes(answer)


def _packed(result: Any) -> bytes:
    try:
        return pickle.dumps((result, None))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RuntimeError(f"a result cannot be sent back from its worker ({error})") from None


def _portable(error: Exception) -> Exception:
    """The error, with the place where it happened; what cannot travel is told in words."""
    place = "".join(traceback.format_tb(error.__traceback__)[1:])
    try:
        copy = pickle.loads(pickle.dumps(error))
        error = copy if type(copy) is type(error) and str(copy) == str(error) else RuntimeError(repr(error))
    except Exception:
        error = UserError(str(error)) if isinstance(error, UserError) else RuntimeError(repr(error))
    if place:
        error.add_note(f"in a worker:\n{place}")
    return error
