"""Who counts: this machine or a cluster, and where what lies on disk meanwhile goes."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskplay import corpus
from maskplay.errors import UserError
from maskplay.words.budget import Budget
from maskplay.words.cluster import join
from maskplay.words.machine import Machine, Reading
from maskplay.words.partials import scratch
from maskplay.words.reader import Progress
from maskplay.words.shards import Shards


@contextmanager
def engine(
    reading: Reading,
    sources: corpus.Sources,
    workers: int,
    folder: str | os.PathLike[str] | None,
    cluster: str | None,
    budget: Budget,
    tell: Progress,
) -> Iterator[Machine | Shards]:
    """Who counts, with a folder that is removed at the end."""
    if cluster is None:
        if folder is not None and not (isinstance(folder, (str, os.PathLike)) and Path(folder).is_dir()):
            raise UserError(f"folder: expected one that is there, found {str(folder)!r:.200}")
        holder = Path(tempfile.mkdtemp(prefix=".maskplay-words-", dir=folder))
        try:
            yield Machine(reading, sources, workers, holder, budget, tell)
        except OSError as error:
            error.filename = error.filename or os.fspath(holder.parent)  # a full disk names none
            raise
        finally:
            shutil.rmtree(holder, ignore_errors=True)
        return
    if not corpus.are_places(sources) or corpus.STDIN in corpus.paths(sources):
        raise UserError("cluster: expected files, folders or patterns, which its machines can read themselves")
    with scratch(folder or tempfile.gettempdir()) as partials, join(cluster, workers) as ray:
        yield Shards(reading, sources, ray.run, ray.workers, partials, budget, tell)
