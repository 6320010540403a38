"""Labelled texts from files: TSV, CSV, JSON lines, or plain text.

A table has a header with `text`, perhaps `text2` (pairs) and `label`; other columns are ignored. Files are read line by
line under a limit, so a file that is not what it seems cannot fill the memory, and every fault is told with its line.
"""

import codecs
import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from maskplay.corpus.places import STDIN, opened
from maskplay.corpus.reading import SURROGATE
from maskplay.errors import DataError, UserError, whole_number, within

__all__ = ["Example", "read_examples", "split"]

LINE_BYTES = 2**20
MEASURED_BYTES = 64 * 2**20  # how far a line that is too long is read on, to say how long it is
COLUMNS = ("text", "text2", "label")
# Python calls these unprintable: two spaces, and what joins letters and emoji or keeps them apart.
SEEN = str.maketrans("\u3000\xa0\u200c\u200d", "    ")


@dataclass(frozen=True, slots=True)
class Example:
    """One row: `text2` and `label` are None where the file has none; `line` counts from 1, the header included.

    Example:
        >>> Example("味道不错", None, "pos", line=2).label
        'pos'
    """

    text: str
    text2: str | None
    label: str | None
    line: int


def read_examples(path: str | os.PathLike[str], labelled: bool = False) -> list[Example]:
    """The examples in a file.

    The name's ending decides the format: `.tsv` (no quoting), `.csv` (quoted as usual), `.jsonl` or `.json` (an object
    a line), `.txt` (a text a line, no header); `-` reads texts from standard input. UTF-8, with or without a byte-order
    mark; Windows line ends are fine. Empty lines of a table are skipped; of plain text they are empty texts.

    Args:
        path: the file, or "-".
        labelled: every row must have a label. Numbers and booleans in JSON are labels as JSON writes them: 1, true.

    Raises:
        DataError: one line with the file, the line, what was expected and what was found.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "reviews.tsv"
        >>> _ = path.write_text("text\\tlabel\\n味道不错\\tpos\\n", encoding="utf-8")
        >>> read_examples(path)
        [Example(text='味道不错', text2=None, label='pos', line=2)]
    """
    name = "standard input" if str(path) == "-" else str(path)
    ending = ".txt" if str(path) == "-" else Path(path).suffix.lower()
    if ending not in READERS:
        raise DataError(f"{name}: expected a file ending in {', '.join(READERS)}, or - for standard input")
    try:
        with opened(STDIN) if str(path) == "-" else open(path, "rb") as file:
            examples = list(READERS[ending](_lines(file, name), name))
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from None
    if not examples:
        raise DataError(f"{name}: expected at least one example, found none")
    if labelled and all(example.label is None for example in examples):
        where = f"{name}, line {examples[0].line}"
        raise DataError(f"{where}: expected a label, found none, nor in any other line: is there a column 'label'?")
    for example in examples if labelled else ():
        if example.label is None:
            raise DataError(f"{name}, line {example.line}: expected a label, found none")
        if not example.label.translate(SEEN).isprintable():
            where = f"{name}, line {example.line}"
            raise DataError(f"{where}: expected a label that can be printed in a line, found {example.label[:80]!a}")
    return examples


def split(examples: Sequence[Example], share: float, seed: int, name: str) -> tuple[list[Example], list[Example]]:
    """Examples to train on and examples held out, of every label about the same share and at least one each.

    Args:
        examples: with labels.
        share: how much is held out, 0 to 1.
        seed: of the draw, from 0 on.
        name: the file's, for errors.

    Raises:
        DataError: a label has a single example, which cannot be on both sides.
        UserError: an impossible share or seed.

    Example:
        >>> examples = [Example(f"text {i}", None, "ab"[i % 2], i + 2) for i in range(20)]
        >>> train, dev = split(examples, 0.1, seed=0, name="reviews.tsv")
        >>> len(train), sorted(example.label for example in dev)
        (18, ['a', 'b'])
    """
    places: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        places.setdefault(str(example.label), []).append(i)
    if not within(share, 0, 1):
        raise UserError(f"share: expected a number from 0 to 1, found {share!r:.40}")
    draw, chosen = np.random.default_rng(whole_number("seed", seed, 0)), set()
    for label, mine in sorted(places.items()):
        if len(mine) < 2:
            where = f"{name}, line {examples[mine[0]].line}"
            raise DataError(f"{where}: the only example of {label!r} cannot be both used and held out; add some")
        chosen.update(draw.permutation(mine)[: min(max(1, round(share * len(mine))), len(mine) - 1)].tolist())
    kept = [example for i, example in enumerate(examples) if i not in chosen]
    return kept, [examples[i] for i in sorted(chosen)]


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends, decoded."""
    number, offset = 0, 0
    while line := file.readline(LINE_BYTES + 2):  # two more, for the line end
        number += 1
        if len(line.rstrip(b"\r\n")) > LINE_BYTES:
            raise DataError(
                f"{name}, line {number}: expected at most {LINE_BYTES} bytes, found {_length(file, line)}; "
                "is it a text file with an example a line?"
            )
        if number == 1:
            if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(f"{name}: expected UTF-8, found UTF-16; save it as UTF-8")
            if line.startswith(codecs.BOM_UTF8):
                line, offset = line[len(codecs.BOM_UTF8) :], len(codecs.BOM_UTF8)
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            found = f"byte 0x{line[error.start]:02x} at offset {offset + error.start}"
            raise DataError(f"{name}, line {number}: expected UTF-8, found {found}; save it as UTF-8") from None
        offset += len(line)


def _length(file: BinaryIO, line: bytes) -> str:
    """The length of a line of which only the beginning has been read, without keeping the rest."""
    length = len(line.rstrip(b"\r\n"))
    while length < MEASURED_BYTES:
        if line.endswith(b"\n") or not (line := file.readline(2**16)):
            return str(length)
        length += len(line.rstrip(b"\r\n"))
    return f"more than {length}"


def _read_text(lines: Iterable[tuple[int, str]], name: str) -> Iterator[Example]:
    for number, line in lines:
        yield Example(line.rstrip("\r\n"), None, None, number)


def _read_tsv(lines: Iterable[tuple[int, str]], name: str) -> Iterator[Example]:
    rows = ((number, line.rstrip("\r\n").split("\t")) for number, line in lines if line.strip("\r\n"))
    return _read_rows(rows, name)


def _read_csv(lines: Iterable[tuple[int, str]], name: str) -> Iterator[Example]:
    return _read_rows(_csv_rows(lines, name), name)


def _csv_rows(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line it starts on: a quoted field may run over several."""
    # The module's own limit is smaller than ours; it has one for the whole process, which is only ever raised here.
    csv.field_size_limit(max(csv.field_size_limit(), LINE_BYTES))
    reader = csv.reader((line for _, line in lines), strict=True)
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            advice = "end lines as Unix or Windows does" if "new-line" in str(error) else "is a quote left open?"
            raise DataError(f"{name}, line {start}: not valid CSV: {str(error).split(' - ')[0]}; {advice}") from None
        if row:
            yield start, row


def _read_rows(rows: Iterator[tuple[int, list[str]]], name: str) -> Iterator[Example]:
    """Rows under a header."""
    _, header = next(rows, (0, []))
    header = [column.strip() for column in header]
    shown = repr(", ".join(header)[:100])
    if any("\r" in column for column in header):
        raise DataError(f"{name}, line 1: found a carriage return inside the header: end lines as Unix or Windows does")
    if "text" not in header:
        advice = "; the columns of a .tsv stand between tabs" if len(header) == 1 and "," in header[0] else ""
        raise DataError(f"{name}, line 1: expected a header with a column 'text', found {shown}{advice}")
    for column in COLUMNS:
        if header.count(column) > 1:
            raise DataError(f"{name}, line 1: expected one column {column!r}, found {header.count(column)}")
    places = {column: header.index(column) for column in COLUMNS if column in header}
    for number, row in rows:
        if len(row) != len(header):
            raise DataError(f"{name}, line {number}: expected {len(header)} fields ({shown}), found {len(row)}")
        values = {column: row[place] for column, place in places.items()}
        yield Example(values["text"], values.get("text2"), values.get("label", "").strip() or None, number)


def _read_json(lines: Iterable[tuple[int, str]], name: str) -> Iterator[Example]:
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except RecursionError:
            raise DataError(f"{where}: expected a JSON object a line: nested too deeply") from None
        except ValueError as error:
            raise DataError(f"{where}: expected a JSON object a line: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a JSON object a line, found {_kind(row)}")
        text, text2, label = (row.get(column) for column in COLUMNS)
        if not isinstance(text, str):
            found = _kind(text) if "text" in row else f"the keys {', '.join(row)[:100]!r}"
            raise DataError(f"{where}: expected a string 'text', found {found}")
        if text2 is not None and not isinstance(text2, str):
            raise DataError(f"{where}: expected a string 'text2', found {_kind(text2)}")
        if isinstance(label, float) and not math.isfinite(label):
            raise DataError(f"{where}: expected a 'label' that a number can hold, found a larger one")
        if isinstance(label, (bool, int, float)):
            label = json.dumps(label)
        if label is not None and not isinstance(label, str):
            raise DataError(f"{where}: expected a string, number or boolean 'label', found {_kind(label)}")
        for value in (text, text2, label):
            if value is not None and SURROGATE.search(value):
                raise DataError(f"{where}: found half of a character (a lone surrogate escape such as \\ud800)")
        yield Example(text, text2, (label or "").strip() or None, number)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:
    """What JSON calls a Python value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


READERS = {".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_json, ".json": _read_json, ".txt": _read_text}
