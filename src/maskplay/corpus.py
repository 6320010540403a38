"""Raw text from wherever it lies: files, folders, patterns, compressed files, JSON lines, standard input, Python.

Everything is streamed: neither a file nor a line of it is ever taken into memory whole unless it is asked for, so a
corpus larger than the memory, or a small file that unpacks into a huge one, is read like any other. Every fault is one
line that names the file and the line in it.
"""

import codecs
import glob
import gzip
import importlib
import json
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from maskplay.errors import DataError, MissingExtra, UserError

__all__ = ["Part", "Sources", "are_places", "blocks", "lines", "pairs", "parts", "paths", "size"]

SIZE = 4 * 2**20  # characters of a block, about
STDIN = Path("-")
SURROGATE = re.compile("[\ud800-\udfff]")


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
            standard input.

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
    return list(dict.fromkeys(part.path for part in _parts(sources)))


def lines(sources: Sources, field: str = "text") -> Iterator[str]:
    """Every line, without its end (LF or CRLF); blank lines are "".

    Args:
        sources: places as for `paths`, read by their endings: `.gz`, `.xz` and `.zst` are unpacked, `.jsonl` holds an
            object a line, anything else is text, UTF-8 with or without a byte-order mark. Or any other iterable of
            strings, a generator say: the texts themselves. (A *list* of strings names places; wrap one of texts in
            `iter`.)
        field: of a JSON line, which string is the text.

    Raises:
        DataError: a file cannot be read, is not UTF-8, breaks off or is damaged, or a JSON line has no such field.
        UserError: a place names nothing, or an item of an iterable is no string.

    Example:
        >>> list(lines(iter(["一\\r\\n二", "三"])))
        ['一', '二', '三']
    """
    return _joined(blocks(sources, field))


def blocks(sources: Sources, field: str = "text", size: int = SIZE) -> Iterator[str]:
    """The same lines many at a time, each with "\\n" behind it, for work in bounded memory.

    Args:
        sources: as for `lines`.
        field: as for `lines`.
        size: bytes of a file, or characters, of which a block is made. A longer line of a file comes in several
            blocks, of which only the last ends with "\\n"; texts from Python or JSON stay whole.

    Raises:
        DataError, UserError: as `lines` does.

    Example:
        >>> list(blocks(iter(["一二三", "四"]), size=2))
        ['一二三\\n', '四\\n']
    """
    if not are_places(sources):
        yield from _gathered(_checked(cast(Iterable[Any], sources)), size)
        return
    for part in _parts(sources):
        if _stem(part.path).endswith(".jsonl"):
            yield from _gathered(_json_texts(part, field, size), size)
        else:
            yield from _texts(part, size)


def pairs(sources: Sources, fields: tuple[str, str] = ("text", "text2")) -> Iterator[tuple[str, str]]:
    """Texts two by two: a line's two columns with a tab between, or two fields of a JSON line.

    Args:
        sources: places as for `paths`, read by their endings as `lines` does; blank lines are passed over.
        fields: of a JSON line, which strings are the two texts.

    Raises:
        DataError: a line has not two texts, or as `lines` raises it.
        UserError: a place names nothing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "pairs.tsv"
        >>> _ = path.write_text("怎么退货\\t如何退货\\n", encoding="utf-8")
        >>> list(pairs(path))
        [('怎么退货', '如何退货')]
    """
    for part in _parts(sources):
        if _stem(part.path).endswith(".jsonl"):
            rows = _json_rows(part, fields, SIZE)
        else:
            rows = ((i, line.split("\t")) for i, line in enumerate(_joined(_texts(part, SIZE))) if line.strip())
        for number, row in rows:
            if len(row) != 2 or not all(text.strip() for text in row):
                texts = "\t".join(row)
                raise DataError(f"{_where(part, number)}: expected two texts with a tab between, found {texts!r:.80}")
            yield row[0], row[1]


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
    given = _parts(sources)
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
    return sum(map(_size, _parts(sources)))


def are_places(sources: Sources) -> bool:
    """Whether sources say where texts lie; otherwise they are the texts.

    Example:
        >>> are_places(["news.txt"]), are_places(line for line in ["一"])
        (True, False)
    """
    return isinstance(sources, (str, os.PathLike, Part, list, tuple))


def _parts(sources: Sources) -> list[Part]:
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
    return list(dict.fromkeys(found))


def _found(place: str) -> Iterator[Path]:
    """The files of one place."""
    if place == "-":
        yield STDIN
        return
    shown = f"{place!r:.80}"
    if "\0" in place or len(place) > 4096:
        raise UserError(f"{shown}: not the name of a file; texts themselves are given as iter([...])")
    tops = [place] if os.path.exists(place) else sorted(glob.glob(place, recursive=True))
    count = 0
    for top in tops:
        if not os.path.isdir(top):
            count += 1
            yield Path(top)
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
                if not name.startswith(".") and os.path.isfile(path := os.path.join(folder, name)):
                    count += 1
                    yield Path(path)
    if not count:
        what = "no file lies in this folder" if os.path.isdir(place) else "no such file, folder or pattern"
        raise UserError(f"{shown}: {what}; texts themselves are given as iter([...])")


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror or error})") from None


def _packing(path: Path) -> str | None:
    ending = path.suffix.lower()
    return ending if ending in (".gz", ".xz", ".zst") else None


def _stem(path: Path) -> str:
    """The name without the ending of the compression, in lower case."""
    return (path.stem if _packing(path) else path.name).lower()


def _name(path: Path) -> str:
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
    if _packing(part.path) is None and part.path.is_file():
        with _opened(part.path) as file:
            for distance in wanted:
                if part.start + distance <= file.tell():
                    continue  # in a line whose end is known
                file.seek(part.start + distance - 1)  # a line may end right there
                while (piece := file.readline(SIZE)) and not piece.endswith(b"\n"):
                    pass
                if max([part.start, *found]) < (place := file.tell()) < part.start + size:
                    found.append(place)
    return found


def _opened(path: Path) -> AbstractContextManager[BinaryIO]:
    """The file's bytes, unpacked."""
    if path == STDIN:
        if not hasattr(sys.stdin, "buffer"):  # closed, or something that holds no bytes
            raise DataError("standard input: cannot be read (it is closed)")
        return nullcontext(sys.stdin.buffer)
    try:
        opener: Any = {".gz": gzip.open, ".xz": lzma.open, None: open}.get(_packing(path)) or _zstd().open
        return opener(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _zstd() -> Any:
    """Python's own module from 3.14 on, or the package that brings it to older ones."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingExtra("reading a .zst file", "words")


def _broken(path: Path) -> tuple[type[Exception], ...]:
    """What reading on can raise."""
    unpacking = (zlib.error, lzma.LZMAError, EOFError, *([_zstd().ZstdError] if _packing(path) == ".zst" else []))
    return (OSError, *unpacking)


def _texts(part: Part, size: int) -> Iterator[str]:
    """A part's bytes as `blocks` yields them."""
    broken, left = _broken(part.path), sys.maxsize if part.stop is None else part.stop - part.start
    # Lines are counted for a fault: where the file can be read again, when there is one.
    again = part.path != STDIN and _packing(part.path) is None and part.path.is_file()
    seen, offset = 0, part.start  # line ends and bytes that are through
    rest, last = b"", b"\n"
    with _opened(part.path) as file:
        if part.start:
            file.seek(part.start)
        while True:
            try:
                chunk = file.read(min(max(size, 4), left))
            except broken as error:
                reason = "it ends too early" if isinstance(error, EOFError) else getattr(error, "strerror", 0) or error
                where = _where(Part(part.path, offset) if again else part, seen + rest.count(b"\n"))
                raise DataError(f"{where}: cannot be read on ({reason}); is the file whole?") from None
            if offset == 0 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(f"{_name(part.path)}: expected UTF-8, found UTF-16; save it as UTF-8")
            mark = len(codecs.BOM_UTF8) if offset == 0 and chunk.startswith(codecs.BOM_UTF8) else 0
            missing = b"" if chunk or last == b"\n" else b"\n"  # the last line's end
            piece = rest + chunk[mark:] + missing
            left, last, offset = left - len(chunk), chunk[mark:][-1:] or last, offset + mark
            cut = piece.rfind(b"\n") + 1 or _character_start(piece)
            try:
                text = str(memoryview(piece)[:cut], "utf-8")
            except UnicodeDecodeError as error:
                ends = seen + piece.count(b"\n", 0, error.start)
                where = _where(Part(part.path, offset) if again else part, ends)
                found = f"byte 0x{piece[error.start]:02x} at offset {offset + error.start}"
                raise DataError(f"{where}: expected UTF-8, found {found}; save it as UTF-8") from None
            seen += 0 if again else piece.count(b"\n", 0, cut)
            offset, rest = offset + cut, piece[cut:]
            if text:
                yield text.replace("\r\n", "\n") if b"\r" in piece else text
            if not chunk:
                return


def _character_start(piece: bytes) -> int:
    """Where a piece of one line can be cut: before a character that is not complete, or may be half of a line end."""
    start = len(piece)
    while start and len(piece) - start < 4 and piece[start - 1] & 0xC0 == 0x80:
        start -= 1
    if start and piece[start - 1] >= 0xC0:
        start -= 1
    elif not piece.endswith(b"\r"):
        return len(piece)
    else:
        start = len(piece) - 1
    return start


def _where(part: Part, ends: int) -> str:
    """The place behind so many line ends of a part, for an error."""
    if part.start:
        try:
            with _opened(part.path) as file:
                ends += sum(chunk.count(b"\n") for chunk in _chunks(file, part.start))
        except (DataError, *_broken(part.path)):
            return _name(part.path)  # what cannot be read cannot be counted
    return f"{_name(part.path)}, line {ends + 1}"


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (chunk := file.read(min(size, SIZE))):
        size -= len(chunk)
        yield chunk


def _joined(pieces: Iterable[str]) -> Iterator[str]:
    """Lines out of blocks."""
    begun: list[str] = []  # of a line that is longer than a block
    for piece in pieces:
        first, *more = piece.split("\n")
        begun.append(first)
        if more:
            yield "".join(begun)
            yield from more[:-1]
            begun = [more[-1]]


def _gathered(texts: Iterable[str], size: int) -> Iterator[str]:
    """Blocks out of texts."""
    begun, length = [], 0
    for text in texts:
        text = text.replace("\r\n", "\n")
        begun.append(text if text.endswith("\n") else text + "\n")
        length += len(begun[-1])
        if length >= size:
            yield "".join(begun)
            begun, length = [], 0
    if begun:
        yield "".join(begun)


def _checked(texts: Iterable[Any]) -> Iterator[str]:
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"text {i}: expected a string, found {type(text).__name__}")
        yield text


def _json_texts(part: Part, field: str, size: int) -> Iterator[str]:
    """What stands in a field of each JSON line."""
    return (texts[0] for _, texts in _json_rows(part, [field], size))


def _json_rows(part: Part, fields: Sequence[str], size: int) -> Iterator[tuple[int, list[str]]]:
    """What stands in some fields of each JSON line, and how many lines are before it."""
    for number, line in enumerate(_joined(_texts(part, size))):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except RecursionError:
            raise DataError(f"{_where(part, number)}: expected a JSON object a line: nested too deeply") from None
        except ValueError as error:
            raise DataError(f"{_where(part, number)}: expected a JSON object a line: {error}") from None
        texts = []
        for field in fields:
            text = row.get(field) if isinstance(row, dict) else None
            if not isinstance(text, str):
                where = _where(part, number)
                raise DataError(f"{where}: expected an object with a string {field!r}, found {line!r:.80}")
            if SURROGATE.search(text):
                found = "half of a character (a lone surrogate escape such as \\ud800)"
                raise DataError(f"{_where(part, number)}: found {found}")
            texts.append(text)
        yield number, texts
