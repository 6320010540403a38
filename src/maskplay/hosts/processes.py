"""Who is who, one process speaking for all, turns in a folder that some of them may share, and an end for all when one
is lost: at once, in one line instead of C++ frames.

Source: jax.distributed.
"""

import atexit
import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from maskplay import _backend
from maskplay.errors import UserError

__all__ = ["AUTO", "LOST", "alike", "fetched", "in_turn", "join", "place", "settle", "told", "together", "wait"]

AUTO = "auto"  # in place of an address: JAX asks Slurm, Open MPI, Kubernetes or the TPU
CHUNK = 2**24  # bytes that are told at a time
HEARTBEAT = 30  # seconds after which a silent process counts as lost
LOST = "another process ended or was lost (see what it said); the same command for all goes on from the last save"
BROKEN = re.compile("reset by peer|closed by peer|[Bb]roken pipe|remote process exited")  # what Gloo and NCCL say
STATUS = re.compile("[A-Z_]+: ")  # how errors of the runtime begin

_place = (0, 1)
_abort: Any = None  # the handler, which nothing else keeps


def place() -> tuple[int, int]:
    """This process and how many there are, `(rank, processes)`: the `shard` of `Steps` and `Batches`.

    Example:
        >>> place()
        (0, 1)
    """
    return _place


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    rank: int | None = None,
    patience: float = 120,
    heartbeat: int = HEARTBEAT,
) -> None:
    """Become one of several processes. To be called once, before anything is computed.

    Without arguments, and without the variables below, nothing happens.

    Args:
        coordinator: `HOST:PORT`, where the process of rank 0 listens, or "auto": what Slurm, Open MPI, Kubernetes or a
            TPU tell JAX; default $KERAS_DISTRIBUTION_JOB_ADDRESSES, of which the first counts.
        processes: how many there are; default $KERAS_DISTRIBUTION_NUM_PROCESSES.
        rank: which one this is, from 0; default $KERAS_DISTRIBUTION_PROCESS_ID.
        patience: seconds to wait for the others.
        heartbeat: seconds after which a silent process counts as lost.

    Raises:
        UserError: numbers that do not fit together, nobody at that address, a port that is taken, too few processes in
            time, or a backend that is not JAX.

    Example:
        >>> join()
        >>> join("here:1234", processes=2, rank=2)
        Traceback (most recent call last):
        maskplay.errors.UserError: rank: expected 0 to 1, one of 2 processes, found 2
    """
    global _place
    found = settle(coordinator, processes, rank)
    if found is None:
        return
    address, processes, rank = found
    jax = _backend.jax_for("several processes")
    options: dict[str, Any] = dict(initialization_timeout=int(patience), heartbeat_timeout_seconds=int(heartbeat))
    if address != AUTO:
        _meet(address, rank, patience)
        # Not Slurm's: it would take one device for each process, whatever it was asked for.
        options |= dict(coordinator_address=address, num_processes=processes, process_id=rank)
        options |= dict(cluster_detection_method="deactivate")
    try:
        # Not `keras.distribution.initialize`, which knows no heartbeat and seeds Keras with a number of its own.
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        told = f"{str(error).splitlines()[0]:.200}"
        hint = "; found no Slurm, Open MPI, Kubernetes or TPU: say HOST:PORT" if address == AUTO else ""
        raise UserError(f"coordinator {address}: {told}{hint}") from None
    _place = jax.process_index(), jax.process_count()


def settle(
    coordinator: str | None, processes: int | None, rank: int | None
) -> tuple[str, int | None, int | None] | None:
    """The arguments of `join` with what the environment says, checked; None = this process is alone."""
    said = [os.environ.get(f"KERAS_DISTRIBUTION_{name}") for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")]
    address = coordinator or (said[0] or "").split(",")[0]
    try:
        processes = int(said[1]) if processes is None and said[1] else processes
        rank = int(said[2]) if rank is None and said[2] else rank
    except ValueError:
        raise UserError(f"KERAS_DISTRIBUTION_…: expected numbers, found {said[1]!r:.40}, {said[2]!r:.40}") from None
    if not address:
        if processes is not None or rank is not None:
            raise UserError("coordinator: missing; say HOST:PORT where the process of rank 0 listens, or auto")
        return None
    if address == AUTO:
        if processes is not None or rank is not None:
            raise UserError("coordinator auto: finds processes and rank by itself; leave them out")
        return address, None, None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"coordinator: expected HOST:PORT or auto, found {address!r:.80}")
    if processes is None or rank is None:
        raise UserError(f"coordinator {address}: expected the number of processes and this one's rank beside it")
    if processes < 1:
        raise UserError(f"processes: expected at least 1, found {processes}")
    if not 0 <= rank < processes:
        raise UserError(f"rank: expected 0 to {processes - 1}, one of {processes} processes, found {rank}")
    return address, processes, rank


def _meet(address: str, rank: int | None, patience: float) -> None:
    """See that the port is free, or that somebody listens there: JAX would abort the process after a while."""
    host, _, port = address.rpartition(":")
    if rank == 0:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", int(port)))
            except OSError as error:
                raise UserError(f"coordinator {address}: port {port} cannot be used here ({error.strerror})") from None
        return
    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except socket.gaierror as error:
            raise UserError(f"coordinator {address}: no such host ({error.strerror})") from None
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"coordinator {address}: nobody answers ({error.strerror or error}); expected the process of "
                    f"rank 0 there within {patience:g} s"
                ) from None
        time.sleep(0.2)


# One speaks for all


def told(value: bytes) -> bytes:
    """What the process of rank 0 says here; the others listen, and what they give is not looked at.

    All must call it, in the same order: none goes on before all have come.

    Example:
        >>> told(b"seed 3")
        b'seed 3'
    """
    if _place[1] == 1:
        return value
    everywhere = import_module("jax.experimental.multihost_utils").broadcast_one_to_all
    size = int(everywhere(np.int32(len(value))))
    letters = np.zeros(1 << max(size - 1, 0).bit_length(), "uint8")  # few sizes: each is compiled
    if _place[0] == 0:
        letters[:size] = np.frombuffer(value, "uint8")
    return np.asarray(everywhere(letters))[:size].tobytes()


def alike(values: np.ndarray) -> np.ndarray:
    """Rank 0's values, where all have computed the same: on another processor they may differ in their last bits.

    All must call it, with arrays of one shape and dtype.

    Example:
        >>> alike(np.ones(2)).tolist()
        [1.0, 1.0]
    """
    if _place[1] == 1:
        return values
    mine = values.tobytes()
    theirs = b"".join(told(mine[at : at + CHUNK]) for at in range(0, len(mine), CHUNK))
    return np.frombuffer(theirs, values.dtype).reshape(values.shape)


def fetched(path: Path) -> Path | None:
    """The file that rank 0 has under this name: there the path itself, elsewhere a copy beside it to be deleted; None
    where it has none. All must call it."""
    rank, processes = _place
    there = path.is_file()
    if processes == 1:
        return path if there else None
    size = int(told(str(path.stat().st_size if there and rank == 0 else -1).encode()))
    if size < 0:
        return None
    if rank:
        path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f".{path.name}.{rank}.part") if rank else path
    with open(mine, "wb" if rank else "rb") as file:
        for _ in range(0, size, CHUNK):
            part = told(b"" if rank else file.read(CHUNK))
            if rank:
                file.write(part)
    return mine


def wait() -> None:
    """None goes on before all have come.

    Example:
        >>> wait()
    """
    told(b"")


@contextlib.contextmanager
def in_turn(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Of the processes that see this folder on one file system, one does what follows before the others do.

    So what is prepared there is made once on every file system, however they are spread over hosts, and the others find
    it made. All must come; each leaves a mark in the folder, and the lowest rank among the marks it sees goes first.

    Example:
        >>> import tempfile
        >>> with in_turn(tempfile.mkdtemp()):
        ...     print("made once")
        made once
    """
    rank, processes = _place
    if processes == 1:
        yield
        return
    # The ending is that of unfinished parts, which the next run clears away.
    marks = Path(folder) / f".{told(os.urandom(8).hex().encode()).decode()}.part"
    marks.mkdir(parents=True, exist_ok=True)
    (marks / str(rank)).touch()
    wait()
    done, first = marks / "done", min(int(mark.name) for mark in marks.iterdir() if mark.name.isdecimal())
    while rank != first and not done.exists():
        time.sleep(0.1)
    yield
    if rank == first:
        done.touch()


# One end for all


@contextlib.contextmanager
def together(
    coordinator: str | None = None,
    processes: int | None = None,
    rank: int | None = None,
    patience: float = 120,
    heartbeat: int = HEARTBEAT,
) -> Iterator[None]:
    """`join`, for a program: whatever ends one process ends all, each with one line and no later than a heartbeat.

    None leaves before all are done. What C++ libraries print is not shown, unless TF_CPP_MIN_LOG_LEVEL is 0.

    Args:
        coordinator, processes, rank, patience, heartbeat: as for `join`.

    Raises:
        UserError: as `join`, and where another process is lost.

    Example:
        >>> with together():
        ...     print("alone")
        alone
    """
    found = settle(coordinator, processes, rank)
    if found is None:
        yield
        return
    _backend.jax_for("several processes")
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0":
        _hush()
    them = "all processes" if found[1] is None else f"{found[1]} processes, each with a rank of its own,"
    line = [f"coordinator {found[0]}: expected {them} to come in time and stay; this is rank {found[2]}"]
    _say_when_aborted(line)
    try:
        join(coordinator, processes, rank, patience, heartbeat)
        line[0] = LOST
        yield
        wait()
    except BaseException as error:
        # What comes out of the runtime, as opposed to a pipe that nobody reads.
        of_runtime = isinstance(error, RuntimeError | ValueError) and not isinstance(error, UserError)
        lost = of_runtime and BROKEN.search(str(error))
        code = 2 if lost or isinstance(error, UserError) else 130 if isinstance(error, KeyboardInterrupt) else 1
        # At once: JAX would first wait for the others, and they for us.
        atexit.register(_leave, code)
        if lost:
            raise UserError(LOST) from None
        if of_runtime and STATUS.match(str(error)):
            time.sleep(2 * heartbeat)  # if somebody is lost, the coordinator finds out by then, and we are aborted
        raise


def _leave(code: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _hush() -> None:
    """Let Python's own stdout and stderr keep their places, and what C++ prints go nowhere: Gloo greets on stdout."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        stream.flush()
        kept = open(os.dup(number), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)  # noqa: SIM115
        setattr(sys, name, kept)
        os.dup2(nowhere, number)
    os.close(nowhere)


def _say_when_aborted(line: list[str]) -> None:
    """JAX aborts a process whose coordinator or partner is lost, from C++: then say the line and leave with 2."""
    global _abort
    if os.name != "posix":
        return
    # Python's own handlers wait for the interpreter's next step, which an aborted process never takes.
    number = sys.stderr.fileno()
    clean = "\r\x1b[K\x1b[?25h" if sys.stderr.isatty() else ""  # a bar may stand there, without a cursor

    def say(_: int) -> None:
        os.write(number, f"{clean}maskplay: {line[0]}\n".encode())
        os._exit(2)

    _abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(say)
    ctypes.CDLL(None).signal(signal.SIGABRT, _abort)
