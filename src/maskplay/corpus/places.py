"""Where text lies: files, folders, patterns, compressed files, standard input; and how workers share them."""

import codecs
import glob
import gzip
import importlib
import lzma
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from maskplay.errors import DataError, MissingExtra, UserError

__all__ = ["Part", "Sources", "are_places", "file", "parts", "paths", "size"]

SIZE = 4 * 2**20  # characters of a block, about
STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class Part:
    """Whole lines of a file: its bytes from `start` up to, not including, `stop` (None = the end).

    Example:
        >>> Part(Path("news.txt")).start
        0
    """

    path: Path
    start: int = 0
    stop: int | None = None


Place: TypeAlias = str | os.PathLike[str] | Part
Sources: TypeAlias = Place | Sequence[Place] | Iterable[str]


def paths(sources: Sources) -> list[Path]:
    """The files that places name, each once, in the order given.

    Args:
        sources: a place or a list or tuple of places. A place is a file, a folder (all files below it, sorted, also
            behind links; names that begin with a dot are passed over), a pattern such as "news/**/*.txt", or "-" for
            standard input ("./-" is a file of this name).

    Raises:
        UserError: a place names nothing.
        DataError: a folder cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("b.txt", "a.txt"):
        ...     _ = (folder / name).write_text("一")
        >>> [path.name for path in paths(folder)]
        ['a.txt', 'b.txt']
    """
    return list(dict.fromkeys(part.path for part in files_of(sources)))


def file(path: str | os.PathLike[str]) -> Part:
    """One file, or "-" for standard input: what cannot be a folder or a pattern.

    Raises:
        UserError: there is none of this name.

    Example:
        >>> file("-").path
        PosixPath('-')
    """
    found = STDIN if os.fspath(path) == "-" else _file(path)
    if found != STDIN and (found.is_dir() or not found.exists()):
        told = "expected a file, found a folder" if found.is_dir() else "no such file"
        raise UserError(f"{name_of(found)!r:.200}: {told}")
    return Part(found)


def parts(sources: Sources, count: int) -> list[list[Part]]:
    """Files dealt out to workers: at most `count` lists of about as many bytes, in order.

    Plain files are cut between lines where that is needed; compressed ones and standard input stay whole.

    Args:
        sources: places, as for `paths`.
        count: how many lists.

    Raises:
        DataError: a file cannot be read.
        UserError: a place names nothing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_bytes(b"1\\n2\\n3\\n4\\n")
        >>> [(part.start, part.stop) for group in parts(path, 2) for part in group]
        [(0, 4), (4, 8)]
    """
    given = files_of(sources)
    sizes = [_size(part) for part in given]
    share = max(1, -(-sum(sizes) // count))
    dealt: list[list[Part]] = [[] for _ in range(count)]
    done = 0
    for part, size in zip(given, sizes):
        edges = [part.start, *_line_starts(part, size, range(-done % share or share, size, share)), part.start + size]
        for start, stop in zip(edges, edges[1:]):
            middle = done + (start + stop) // 2 - part.start
            whole = (start, stop) == (edges[0], edges[-1])
            dealt[min(middle // share, count - 1)].append(part if whole else Part(part.path, start, stop))
        done += size
    return [group for group in dealt if group]


def size(sources: Sources) -> int:
    """The bytes of the files that places name, packed as they are.

    Raises:
        DataError: a file cannot be read.
        UserError: a place names nothing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_bytes(b"1\\n2\\n")
        >>> size(path)
        4
    """
    return sum(map(_size, files_of(sources)))


def are_places(sources: Sources) -> bool:
    """Whether sources say where texts lie; otherwise they are the texts.

    Raises:
        UserError: they are neither.

    Example:
        >>> are_places(["news.txt"]), are_places(line for line in ["一"])
        (True, False)
    """
    if isinstance(sources, (str, os.PathLike, Part, list, tuple)):
        return True
    if not isinstance(sources, Iterable):
        raise UserError(f"expected files, folders, patterns or texts, found {sources!r:.40}")
    return False


def files_of(sources: Sources) -> list[Part]:
    """The files, or parts of them, that places name."""
    if not are_places(sources):
        raise UserError(f"expected files, folders or patterns, found {type(sources).__name__}")
    found: list[Part] = []
    for place in sources if isinstance(sources, (list, tuple)) else [sources]:
        if isinstance(place, Part):
            found.append(place)
        elif isinstance(place, (str, os.PathLike)):
            found += [Part(path) for path in _found(os.fspath(place))]
        else:
            raise UserError(f"expected the name of a file, folder or pattern, found {place!r:.80}")
    if not found:
        raise UserError("expected at least one file, folder or pattern, found none")
    once: dict[Any, Part] = {}
    for part in found:
        path = "" if part.path == STDIN else os.path.abspath(part.path)
        once.setdefault((path, part.start, part.stop), part)
    return list(once.values())


def _found(place: str) -> Iterator[Path]:
    """The files of one place."""
    if place == "-":
        yield STDIN
        return
    shown = f"{place!r:.80}"
    if "\0" in place or len(place) > 4096:
        raise UserError(f"{shown}: not the name of a file; in Python, texts themselves are iter([...])")
    tops = [place] if os.path.exists(place) else sorted(glob.glob(place, recursive=True))
    count = 0
    for top in tops:
        if not os.path.isdir(top):
            count += 1
            yield _file(top)
            continue
        seen = set()  # folders may hold links to each other
        for folder, inner, names in os.walk(top, onerror=_unreadable, followlinks=True):
            here = os.stat(folder)
            if (here.st_dev, here.st_ino) in seen:
                inner.clear()
                continue
            seen.add((here.st_dev, here.st_ino))
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for name in sorted(names):
                path = os.path.join(folder, name)
                # A link that leads nowhere is told when it is opened; a pipe or device is no text.
                if not name.startswith(".") and (os.path.isfile(path) or not os.path.exists(path)):
                    count += 1
                    yield _file(path)
    if not count:
        if os.path.isdir(place):
            raise UserError(f"{shown}: no file lies in this folder")
        raise UserError(f"{shown}: no such file, folder or pattern; in Python, texts themselves are iter([...])")


def _file(path: str | os.PathLike[str]) -> Path:
    """A file's path, whole where it would be taken for standard input."""
    return Path(path).absolute() if Path(path) == STDIN else Path(path)


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror or error})") from None


def packing(path: Path) -> str | None:
    """The ending of a compressed file."""
    ending = path.suffix.lower()
    return ending if ending in (".gz", ".xz", ".zst") else None


def stem(path: Path) -> str:
    """The name without the ending of the compression, in lower case."""
    return (path.stem if packing(path) else path.name).lower()


def holds_json(path: Path) -> bool:
    """Whether each of its lines is a JSON object: its name says so, or of standard input the first character, {."""
    if path != STDIN:
        return stem(path).endswith((".jsonl", ".ndjson", ".json"))
    with opened(path) as file:
        if hasattr(file, "peek"):
            first = file.peek(1)
        elif file.seekable():  # bytes in memory
            first = file.read(SIZE)
            file.seek(-len(first), os.SEEK_CUR)
        else:
            first = b""
    return first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")


def check_field(sources: Sources, field: str) -> None:
    """Refuse a field of JSON lines where no file holds any: `UserError`. Parts of files are believed."""
    places = sources if isinstance(sources, (list, tuple)) else [sources]
    if field == "text" or not are_places(sources) or any(isinstance(place, Part) for place in places):
        return
    if not any(map(holds_json, found := paths(sources))):
        told = "standard input begins as text" if found[0] == STDIN else f"found {name_of(found[0])}"
        raise UserError(f"field: {field!r:.40} is looked for in files .jsonl, .ndjson or .json; {told}")


def name_of(path: Path) -> str:
    """As an error calls it."""
    return "standard input" if path == STDIN else str(path)


def _size(part: Part) -> int:
    if part.stop is not None:
        return part.stop - part.start
    try:
        return max(0, os.stat(part.path).st_size - part.start) if part.path != STDIN else 0
    except OSError as error:
        raise DataError(f"{part.path}: cannot be read ({error.strerror or error})") from None


def _line_starts(part: Part, size: int, wanted: Iterable[int]) -> list[int]:
    """Places between the lines of a plain file, each the first behind a distance from the part's start."""
    found: list[int] = []
    if packing(part.path) is None and part.path.is_file():
        with opened(part.path) as file:
            for distance in wanted:
                if part.start + distance <= file.tell():
                    continue  # in a line whose end is known
                file.seek(part.start + distance - 1)  # a line may end right there
                while (piece := file.readline(SIZE)) and not piece.endswith(b"\n"):
                    pass
                if max([part.start, *found]) < (place := file.tell()) < part.start + size:
                    found.append(place)
    return found


def opened(path: Path) -> AbstractContextManager[BinaryIO]:
    """The file's bytes, unpacked."""
    if path == STDIN:
        if not hasattr(sys.stdin, "buffer"):  # closed, or something that holds no bytes
            raise DataError("standard input: cannot be read (it is closed)")
        return nullcontext(sys.stdin.buffer)
    try:
        if packing(path) == ".gz" and path.is_file() and not path.stat().st_size:  # which Python takes for no text
            raise DataError(f"{path}: expected packed text, found an empty file; is the file whole?")
        opener: Any = {".gz": gzip.open, ".xz": lzma.open, None: open}.get(packing(path)) or zstd().open
        return opener(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def zstd() -> Any:
    """Python's own module from 3.14 on, or the package that brings it to older ones."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingExtra("reading a .zst file", "words")
