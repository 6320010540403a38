"""Tasks on a Ray cluster: starting or joining one, calling functions there, and what can go wrong.

Ray retries the tasks of a worker that was lost; `maskplay.words.shards` sees to it that doing one twice does no harm.
Source: Moritz and others, Ray: A Distributed Framework for Emerging AI Applications (arXiv:1712.05889).
"""

import contextlib
import importlib
import logging
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from maskplay.errors import DataError, MissingExtra, UserError

RETRIES = 3  # of a task whose worker was lost
AHEAD = 2  # tasks that wait for each processor
PATIENCE = 5.0  # seconds for somebody to answer at an address
LOCAL, AUTO = "local", "auto"


class Cluster:
    """A Ray that was joined.

    Attributes:
        workers: how many tasks run at once.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Call a function for each item; the results as they come, each with the item's place.

        Raises:
            UserError: what a worker found wrong, with the name of its machine; or too many workers were lost.
        """
        ray = self._ray
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_shipped())
        shared = ray.put(pickle.dumps(function))
        rest = enumerate(items)
        running: dict[Any, int] = {}
        try:
            while True:
                for place, item in islice(rest, (1 + AHEAD) * self.workers - len(running)):
                    running[task.remote(shared, pickle.dumps(item))] = place
                if not running:
                    return
                (ready,), _ = ray.wait(list(running), num_returns=1)
                try:
                    result, fault = ray.get(ready)
                except ray.exceptions.RayTaskError:
                    raise  # a bug of ours, with the worker's traceback
                except ray.exceptions.RayError as error:
                    what = f"a worker was lost {RETRIES + 1} times at the same task ({type(error).__name__})"
                    raise UserError(f"cluster: {what}; if it is for lack of memory, give a smaller limit") from None
                place = running.pop(ready)
                if fault is not None:
                    damaged, text = fault
                    raise (DataError if damaged else UserError)(text)
                yield place, pickle.loads(result)
        finally:
            with contextlib.suppress(Exception):  # the cluster may be what was lost
                for one in running:
                    ray.cancel(one, force=True)
                if running:
                    ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)


def _shipped() -> Callable[[Any, Any], Any]:
    """What a worker is sent. It is sent as it is and not by name, for it runs before anything of ours is imported."""

    def work(function: bytes, item: bytes) -> tuple[bytes | None, tuple[bool, str] | None]:
        import importlib.util
        import pickle
        import socket
        import sys

        place = f"on {socket.gethostname()}"
        if "maskplay" not in sys.modules:
            # Finding words takes NumPy alone: without the package's own file no Keras is imported, and no JAX.
            spec = importlib.util.find_spec("maskplay")
            if spec is None:
                return None, (False, f"{place}: maskplay is not installed; expected the same version on all machines")
            sys.modules["maskplay"] = importlib.util.module_from_spec(spec)
        from maskplay.errors import DataError, UserError

        try:
            return pickle.dumps(pickle.loads(function)(pickle.loads(item))), None
        except UserError as error:
            return None, (isinstance(error, DataError), f"{error} ({place})")
        except OSError as error:
            what = error.strerror or str(error)
            return None, (False, f"{error.filename}: {what} ({place})" if error.filename else f"{what} ({place})")

    return work


@contextmanager
def join(address: str, workers: int) -> Iterator[Cluster]:
    """Join a Ray cluster, or start one here; it is left, or stopped, at the end.

    Where this process has joined one already, that one is used and left as it is.

    Args:
        address: "local" starts one on this machine with so many workers; "auto" finds one that runs on this machine;
            "host:port" is the address of its head (from a machine that belongs to it); "ray://host:port" reaches it
            from outside.
        workers: processes, where one is started.

    Raises:
        MissingExtra: Ray is not installed.
        UserError: nobody answers there.
    """
    if not isinstance(address, str) or not address:
        raise UserError(f"cluster: expected local, auto, host:port or ray://host:port, found {address!r:.60}")
    if address not in (LOCAL, AUTO):
        _answered(address)
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise MissingExtra("a cluster", "cluster") from None
    if ray.is_initialized():
        yield Cluster(ray)
        return
    options: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = "started here" if address == LOCAL else "joined"
        raise UserError(f"cluster: {address}: no Ray could be {what} ({said})") from None
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def _answered(address: str) -> None:
    """See that somebody listens: Ray itself waits for minutes, and then may end the process."""
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        scheme, host, port = place.scheme, place.hostname, place.port
    except ValueError:
        scheme = host = port = None
    if host is None or port is None or "://" in address and scheme != "ray":
        raise UserError(f"cluster: expected local, auto, host:port or ray://host:port, found {address!r:.60}")
    try:
        socket.create_connection((host, port), PATIENCE).close()
    except OSError as error:
        raise UserError(f"cluster: {address}: nobody answers there ({error.strerror or error})") from None
