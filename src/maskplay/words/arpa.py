"""ARPA files of character n-gram models: what KenLM, SRILM and others write and read.

A header counts the n-grams of each order; then each has a line: log10 of its probability, its characters with blanks
between, and log10 of its back-off weight unless it is 0 or the order the highest. A file is read line by line, and
nothing in it is believed before it has been seen.
"""

import os
import re
from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskplay import corpus
from maskplay.corpus.places import packing
from maskplay.errors import DataError, UserError
from maskplay.storage import new_file
from maskplay.words.ngram_model import BITS, END, NOWHERE, START, UNKNOWN, Level, NgramModel

ORDERS = 64  # at most
NGRAMS = 2**28  # of an order, at most
MOST = 1000.0  # size of a logarithm
LINE = 1000  # characters, at most
COMMENTS = 100  # lines before the first, at most
ROWS = 2**16  # lines written at a time
GAP = re.compile("[ \t]+")
COUNT = re.compile(r"ngram\s+(\d{1,2})\s*=\s*(\d{1,10})\s*")


def write_arpa(model: NgramModel, path: str | os.PathLike[str]) -> None:
    """Write a model as an ARPA file, whole or not at all. Numbers have all their digits: reading gives the same model.

    Args:
        model: the model.
        path: any name but that of a packed file.

    Raises:
        UserError: the name ends in .gz, .xz or .zst.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from maskplay.words.kneser_ney import train_ngrams
        >>> path = Path(tempfile.mkdtemp()) / "model.arpa"
        >>> write_arpa(train_ngrams(iter(["天地玄黄"])), path)
        >>> path.read_text("utf-8").splitlines()[:5]
        ['\\\\data\\\\', 'ngram 1=7', 'ngram 2=5', 'ngram 3=0', 'ngram 4=0']
    """
    if ending := packing(Path(path)):
        raise UserError(f"{os.fspath(path)}: a model is written as text; expected a name without {ending}")
    symbols = np.array(model.symbols, dtype=object)
    with new_file(path) as file:
        counts = "".join(f"ngram {n}={len(level.keys)}\n" for n, level in enumerate(model.levels, 1))
        file.write(f"\\data\\\n{counts}".encode())
        for n, level in enumerate(model.levels, 1):
            file.write(f"\n\\{n}-grams:\n".encode())
            for start in range(1, len(level.keys) + 1, ROWS):
                places = np.arange(start, min(start + ROWS, len(level.keys) + 1))
                texts = map(" ".join, symbols[model.ngrams(n, places)].tolist())
                columns = [map(str, level.log_probs[places]), texts]
                if n < model.order:
                    columns.append(map(str, level.back_offs[places]))
                file.write("".join("\t".join(row) + "\n" for row in zip(*columns)).encode())
        file.write(b"\n\\end\\\n")


def read_arpa(path: str | os.PathLike[str]) -> NgramModel:
    """Read an ARPA file of a model of characters; packed ones (`.gz`, `.xz`, `.zst`) too.

    What has no `<unk>` gives characters it does not know next to no probability.

    Args:
        path: the file.

    Raises:
        DataError: the file cannot be read, or is not such a model; its name, the line, and what is wrong with it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from maskplay.words.kneser_ney import train_ngrams
        >>> path = Path(tempfile.mkdtemp()) / "model.arpa"
        >>> write_arpa(train_ngrams(iter(["天地玄黄"] * 5), order=3), path)
        >>> read_arpa(path)
        NgramModel(order=3, ngrams=[7, 5, 4])
    """
    return _Reading(os.fspath(path)).model()


class _Reading:
    """An ARPA file while it is read."""

    def __init__(self, path: str) -> None:
        self.path, self.number = path, 0
        self._lines = self._read()
        self._symbols = [""]
        self._ids: dict[str, int] = {}

    def _read(self) -> Iterator[str]:
        held = ""
        for block in corpus.blocks(corpus.file(self.path)):
            lines = (held + block).split("\n")
            held = lines.pop()
            for line in lines:
                self.number += 1
                yield line
            if len(held) > LINE:
                self.number += 1
                raise self._fault(f"a line of at most {LINE} characters", held)

    def _fault(self, expected: str, found: str, number: int = 0) -> DataError:
        return DataError(f"{self.path}, line {max(1, number or self.number)}: expected {expected}, found {found!r:.60}")

    def _filled(self) -> str:
        """The next line that is not blank; "" at the end."""
        return next((line for line in self._lines if line.strip()), "").strip()

    def model(self) -> NgramModel:
        first = line = self._filled()
        number = self.number
        while line != "\\data\\":  # some write a comment before it
            if not line or line.startswith("\\") or self.number > COMMENTS:
                raise self._fault("the line \\data\\ of an ARPA file", first, number)
            line = self._filled()
        counts: list[int] = []
        while found := COUNT.fullmatch(line := self._filled()):
            counts.append(int(found[2]))
            if int(found[1]) != len(counts) or len(counts) > ORDERS or counts[-1] > NGRAMS:
                raise self._fault(f"the count of {len(counts)}-grams (up to {ORDERS}-grams, {NGRAMS:,} of each)", line)
        if not counts:
            raise self._fault("a line ngram 1=COUNT", line)
        levels: list[Level] = []
        for n, count in enumerate(counts, 1):
            if line != f"\\{n}-grams:":
                raise self._fault(f"the line \\{n}-grams:", line)
            texts, ids, logs = self._section(n, count)
            levels.append(self._further(levels, ids, logs) if n > 1 else self._first(texts, logs))
            line = self._filled()
        if line != "\\end\\":
            raise self._fault("the line \\end\\", line)
        return NgramModel(self._symbols, levels)

    def _section(self, n: int, count: int) -> tuple[list[str], array, NDArray[np.float32]]:
        """The n-grams of an order: texts of single ones, ids of longer ones, and their two logarithms."""
        texts: list[str] = []
        ids, logs = array("i"), array("d")
        for line in islice(self._lines, count):
            log, *tokens = GAP.split(line.strip(" \t"))
            tokens, rest = tokens[:n], tokens[n:]
            try:
                logs.append(max(float(log), NOWHERE))
                logs.append(max(float(rest[0]), NOWHERE) if rest else 0.0)
                if n == 1:
                    texts += tokens
                else:
                    ids.extend([self._ids[token] for token in tokens])
                sound = len(tokens) == n and len(rest) < 2 and -MOST <= logs[-2] <= 0 and -MOST <= logs[-1] <= MOST
            except (ValueError, KeyError):
                sound = False
            if not sound:
                what = "a character" if n == 1 else f"{n} of its characters"
                raise self._fault(f"log10 of a probability, {what}, perhaps a back-off weight", line)
        found = np.frombuffer(logs).reshape(-1, 2)
        if len(found) < count:
            raise self._fault(f"{count:,} {n}-grams", f"the end behind {len(found):,}")
        return texts, ids, found.astype(np.float32)

    def _first(self, texts: list[str], logs: NDArray[np.float32]) -> Level:
        """Single characters: they get ids in the order of their text."""
        first = self.number - len(texts) + 1
        places: dict[str, int] = {}
        for i, text in enumerate(texts):
            name = UNKNOWN if text == UNKNOWN.upper() else text
            if len(name) != 1 and name not in (START, END, UNKNOWN):
                raise self._fault("a model of single characters", text, first + i)
            if places.setdefault(name, i) != i:
                raise self._fault("each character once", text, first + i)
        names = [START, END, *sorted(name for name in places if len(name) == 1), UNKNOWN]
        self._symbols += names
        self._ids = {name: i for i, name in enumerate(names, 1)} | {UNKNOWN.upper(): len(names)}
        nothing = np.array([[NOWHERE, 0.0]], np.float32)  # also of a mark that the file lacks
        columns = np.concatenate([logs, nothing])[[-1, *(places.get(name, -1) for name in names)]]
        return Level(np.arange(1, len(names) + 1, dtype=np.uint64), *columns.T.copy())

    def _further(self, levels: list[Level], ids: array, logs: NDArray[np.float32]) -> Level:
        """Longer n-grams, each of which goes on from one of the level below."""
        n = len(levels) + 1
        rows = np.frombuffer(ids, np.int32).reshape(-1, n)
        first = self.number - len(rows) + 1
        places = rows[:, 0].astype(np.int64)
        for level, column in zip(levels[1:], rows.T[1:]):
            places = level.places(places, column)
        if len(lost := np.flatnonzero(places == 0)):
            raise self._fault(f"an n-gram whose first {n - 1} are one too", self._text(rows[lost[0]]), first + lost[0])
        keys = places.astype(np.uint64) << np.uint64(BITS) | rows[:, -1].astype(np.uint64)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if len(twice := np.flatnonzero(keys[1:] == keys[:-1])):
            again = order[twice[0] + 1]
            raise self._fault("each n-gram once", self._text(rows[again]), first + again)
        return Level(keys, *np.concatenate([[[NOWHERE, 0.0]], logs[order]]).astype(np.float32).T.copy())

    def _text(self, row: NDArray[np.int32]) -> str:
        return " ".join(self._symbols[i] for i in row)
