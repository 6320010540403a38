"""Text read a block at a time; every fault is one line that names the file and the line in it."""

import codecs
import json
import lzma
import math
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from maskplay.corpus.places import (
    SIZE,
    STDIN,
    Part,
    Sources,
    are_places,
    check_field,
    files_of,
    holds_json,
    name_of,
    opened,
    packing,
    zstd,
)
from maskplay.errors import DataError, UserError

__all__ = ["blocks", "lines", "pairs", "records"]

JSON_LINE = 2**26  # characters of a JSON line or a pair, which is held as a whole
SIGNS = (  # of files that hold something else: where they stand, and what to say
    (0, codecs.BOM_UTF16_LE, "UTF-16; save it as UTF-8"),
    (0, codecs.BOM_UTF16_BE, "UTF-16; save it as UTF-8"),
    (0, b"PK\3\4", "a zip archive or an office document; unpack it, or save it as text"),
    (0, b"\x1f\x8b", "gzip; give it a name that ends in .gz"),
    (0, b"\xfd7zX", "xz; give it a name that ends in .xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd; give it a name that ends in .zst"),
    (0, b"PAR1", "Parquet; write a table as text, .tsv"),
    (256, b"\0ustar", "a tar archive; unpack it"),
)
SURROGATE = re.compile("[\ud800-\udfff]")


def lines(sources: Sources, field: str = "text") -> Iterator[str]:
    """Every line, without its end (LF or CRLF); blank lines are "".

    Args:
        sources: places as for `paths`, read by their endings: `.gz`, `.xz` and `.zst` are unpacked, `.jsonl`,
            `.ndjson` and `.json` hold an object a line (standard input too, if it begins with {), anything else is
            text, UTF-8 with or without a byte-order mark. Or any other iterable of strings, a generator say: the
            texts themselves. (A *list* of strings names places; wrap one of texts in `iter`.)
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
    check_field(sources, field)
    for part in files_of(sources):
        if holds_json(part.path):
            yield from _gathered(_json_texts(part, field, size), size)
        else:
            yield from _texts(part, size)


def records(sources: Sources, field: str = "text") -> Iterator[str]:
    """The text of every JSON line, whole, with what line ends there are in it as "\n".

    Args:
        sources: places as for `paths`; every file of them holds an object a line, whatever its name ends with.
        field: which string is the text.

    Raises:
        DataError, UserError: as `lines` does.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "texts.jsonl"
        >>> _ = path.write_text('{"text": "一\\\\n二"}\\n', encoding="utf-8")
        >>> list(records(path))
        ['一\\n二']
    """
    for part in files_of(sources):
        yield from (text.replace("\r\n", "\n") for text in _json_texts(part, field, SIZE))


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
    for part in files_of(sources):
        if holds_json(part.path):
            rows = _json_rows(part, fields, SIZE)
        else:
            each = enumerate(_joined(_texts(part, SIZE), JSON_LINE))
            rows = ((i, line.split("\t")) for i, line in each if line.strip())
        for number, row in rows:
            if len(row) != 2 or sum(map(len, row)) > JSON_LINE or not all(text.strip() for text in row):
                texts = "\t".join(row)
                raise DataError(f"{_where(part, number)}: expected two texts with a tab between, found {texts!r:.80}")
            yield row[0], row[1]


def _broken(path: Path) -> tuple[type[Exception], ...]:
    """What reading on can raise."""
    unpacking = (zlib.error, lzma.LZMAError, EOFError, *([zstd().ZstdError] if packing(path) == ".zst" else []))
    return (OSError, *unpacking)


def _texts(part: Part, size: int) -> Iterator[str]:
    """A part's bytes as `blocks` yields them."""
    broken, left = _broken(part.path), sys.maxsize if part.stop is None else part.stop - part.start
    # Lines are counted for a fault: where the file can be read again, when there is one.
    again = part.path != STDIN and packing(part.path) is None and part.path.is_file()
    seen, offset = 0, part.start  # line ends and bytes that are through
    fault: Exception | None = None
    rest, last = b"", b"\n"
    with opened(part.path) as file:
        if part.start:
            file.seek(part.start)
        while True:
            chunk, error = (b"", fault) if fault else _read(file, min(max(size, 4), left), broken)
            fault = error  # what came before it is read first
            if error is not None and not chunk:
                reason = "it ends too early" if isinstance(error, EOFError) else getattr(error, "strerror", 0) or error
                where = _where(Part(part.path, offset) if again else part, seen + rest.count(b"\n"))
                raise DataError(f"{where}: cannot be read on ({reason}); is the file whole?") from None
            if offset == 0 and (told := next((told for at, sign, told in SIGNS if chunk.startswith(sign, at)), None)):
                raise DataError(f"{name_of(part.path)}: expected UTF-8, found {told}")
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


def _read(file: BinaryIO, size: int, broken: tuple[type[Exception], ...]) -> tuple[bytes, Exception | None]:
    """So many bytes; or those before a fault, and the fault."""
    chunks: list[bytes] = []
    while size:
        try:
            chunk = file.read1(size)  # type: ignore[attr-defined]
        except broken as error:
            return b"".join(chunks), error
        if not chunk:
            break
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks), None


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
            with opened(part.path) as file:
                ends += sum(chunk.count(b"\n") for chunk in _chunks(file, part.start))
        except (DataError, *_broken(part.path)):
            return name_of(part.path)  # what cannot be read cannot be counted
    return f"{name_of(part.path)}, line {ends + 1}"


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (chunk := file.read(min(size, SIZE))):
        size -= len(chunk)
        yield chunk


def _joined(pieces: Iterable[str], most: float = math.inf) -> Iterator[str]:
    """Lines out of blocks; of one that is longer than `most` only so much more than that as makes it too long."""
    begun: list[str] = []  # of a line that is longer than a block
    length = 0
    for piece in pieces:
        first, *more = piece.split("\n")
        begun.append(first)
        length += len(first)
        if more:
            yield "".join(begun)
            yield from more[:-1]
            begun, length = [more[-1]], len(more[-1])
        elif length > most:
            yield "".join(begun)
            return


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
    for number, line in enumerate(_joined(_texts(part, size), JSON_LINE)):
        if len(line) > JSON_LINE:
            raise DataError(f"{_where(part, number)}: expected at most {JSON_LINE:,} characters in a JSON line")
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
