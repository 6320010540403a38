"""Arrays in a folder that many machines see: a shared one, or what a URL names (`s3://bucket/scratch`), by fsspec.

A file appears whole or not at all, and what it holds depends on its name alone: work that was lost and is done again
writes the same once more, and nobody sees the difference.
"""

import contextlib
import importlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from maskplay.errors import MissingExtra, UserError
from maskplay.storage import make_folder

MARK = "maskplay"  # a file by which a worker knows that it sees the folder


class Partials:
    """A new folder inside another one, which may be a URL; made by `scratch`.

    Example:
        >>> import tempfile
        >>> with scratch(tempfile.mkdtemp()) as partials:
        ...     partials.write("a", np.arange(4), np.ones(2))
        ...     partials.read("a", np.int64, 2, start=8).tolist()
        [1, 2]
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def write(self, name: str, *arrays: NDArray) -> None:
        """Write the bytes of some arrays, one behind another, where the folder still is."""
        if "://" in self.folder:
            files, place = _files(f"{self.folder}/{name}")
            files.pipe_file(place, b"".join(array.tobytes() for array in arrays))
            return
        # Not by `new_file`, which would make the folder again: who was told to stop late would leave it behind.
        part = Path(self.folder, f".{name}-{uuid.uuid4().hex}.part")
        with open(part, "xb") as file:
            for array in arrays:
                file.write(np.ascontiguousarray(array).data)
        os.replace(part, Path(self.folder, name))

    def read(self, name: str, kind: DTypeLike, count: int, start: int = 0) -> NDArray:
        """So many numbers from a byte on."""
        if "://" not in self.folder:
            return np.fromfile(Path(self.folder, name), kind, count, offset=start)
        files, place = _files(f"{self.folder}/{name}")
        return np.frombuffer(files.cat_file(place, start, start + count * np.dtype(kind).itemsize), kind)

    def remove(self, *names: str) -> None:
        """Delete files, as far as they are there."""
        for name in names:
            if "://" in self.folder:
                files, place = _files(f"{self.folder}/{name}")
                if files.exists(place):
                    files.rm(place)
            else:
                Path(self.folder, name).unlink(missing_ok=True)

    def check(self) -> None:
        """See whether the folder is the same one here.

        Raises:
            UserError: it is not to be seen.
        """
        there = _files(f"{self.folder}/{MARK}") if "://" in self.folder else (os.path, Path(self.folder, MARK))
        if not there[0].exists(there[1]):
            raise UserError(f"{self.folder}: not to be seen from here; expected a folder that all machines share")


@contextlib.contextmanager
def scratch(folder: str | os.PathLike[str]) -> Iterator[Partials]:
    """A folder for partial counts that is removed at the end.

    Raises:
        UserError: it cannot be made there.
    """
    place = os.fspath(folder) if "://" in os.fspath(folder) else os.path.abspath(folder)
    partials = Partials(f"{place.rstrip('/')}/.maskplay-words-{uuid.uuid4().hex[:12]}")
    try:
        if "://" not in place:
            make_folder(Path(partials.folder))
        partials.write(MARK)
        yield partials
    finally:
        if "://" not in place:
            # Under its name nobody who was told to stop late can write to it any more while it is taken away.
            with contextlib.suppress(OSError):
                os.rename(partials.folder, f"{partials.folder}.old")
            for folder in (partials.folder, f"{partials.folder}.old"):
                shutil.rmtree(folder, ignore_errors=True)
        elif (found := _files(partials.folder))[0].exists(found[1]):
            found[0].rm(found[1], recursive=True)


def _files(url: str) -> tuple[Any, str]:
    """The file system a URL belongs to, and the place in it."""
    try:
        return importlib.import_module("fsspec.core").url_to_fs(url)
    except ImportError as error:
        if "fsspec" in str(error):
            raise MissingExtra(url.split("://")[0] + "://", "cluster") from None
        raise UserError(f"{url}: {error}") from None  # fsspec names the package of that protocol
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
