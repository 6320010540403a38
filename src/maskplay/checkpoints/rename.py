"""A checkpoint is a table: our weight names beside somebody else's, each row reversible, so loading and saving are one.

A row reads `"encoder/block_{i}/…": "bert.encoder.layer.{i}.….weight | transpose"`: `{i}` runs over the blocks, and
after bars stand the operations that turn their array into ours: `transpose`; `squeeze` (they have a first axis of 1);
`part 1/3` (ours is the first third of their last axis).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One weight in two languages.

    Attributes:
        ours: the path in a `LanguageModel`.
        theirs: the name in the file.
        transposed: the file holds the transpose.
        squeezed: the file holds a first axis of 1.
        part, parts: ours is this one (from 0) of so many equal parts of the file's last axis.
    """

    ours: str
    theirs: str
    transposed: bool = False
    squeezed: bool = False
    part: int = 0
    parts: int = 1

    def shape(self, theirs: Shape) -> Shape | None:
        """The shape that an array of the file has with us; None when the file's cannot be right."""
        if self.squeezed:
            if theirs[:1] != (1,):
                return None
            theirs = theirs[1:]
        if self.parts > 1:
            if not theirs or theirs[-1] % self.parts:
                return None
            theirs = (*theirs[:-1], theirs[-1] // self.parts)
        return theirs[::-1] if self.transposed else theirs

    def their_shape(self, ours: Shape) -> Shape:
        """The reverse of `shape`."""
        theirs = ours[::-1] if self.transposed else ours
        theirs = (*theirs[:-1], theirs[-1] * self.parts)
        return (1, *theirs) if self.squeezed else theirs

    def read(self, theirs: np.ndarray) -> np.ndarray:
        """Their array as ours."""
        if self.squeezed:
            theirs = theirs[0]
        if self.parts > 1:
            width = theirs.shape[-1] // self.parts
            theirs = theirs[..., self.part * width : (self.part + 1) * width]
        return theirs.T if self.transposed else theirs

    def write(self, ours: np.ndarray) -> np.ndarray:
        """Our array as (our part of) theirs."""
        theirs = np.ascontiguousarray(ours.T) if self.transposed else ours
        return theirs[None] if self.squeezed else theirs


def rows(table: Mapping[str, str], count: Callable[[str], int]) -> list[Row]:
    """A table's rows with `{i}` written out.

    Args:
        table: our names and theirs.
        count: how many blocks the row of this name has.

    Example:
        >>> rows({"block_{i}/kernel": "layer.{i:02d}.weight | transpose"}, lambda ours: 2)[1]
        Row(ours='block_1/kernel', theirs='layer.01.weight', transposed=True, squeezed=False, part=0, parts=1)
    """
    found = []
    for ours, right in table.items():
        theirs, *operations = (piece.strip() for piece in right.split("|"))
        options: dict[str, int | bool] = {}
        for operation in operations:
            if operation in ("transpose", "squeeze"):
                options["transposed" if operation == "transpose" else "squeezed"] = True
            elif operation.startswith("part "):
                part, parts = operation.removeprefix("part ").split("/")
                options |= {"part": int(part) - 1, "parts": int(parts)}
            else:
                raise ValueError(f"{ours}: unknown operation {operation!r}")
        for i in range(count(ours)) if "{i}" in ours else [0]:
            found.append(Row(ours.format(i=i), theirs.format(i=i), **options))  # type: ignore[arg-type]
    return found


def assemble(written: Iterable[tuple[Row, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays under their names, parts joined.

    Raises:
        ValueError: rows that share a name differ; the text is that name.
    """
    pieces: dict[str, dict[int, np.ndarray]] = {}
    for row, array in written:
        known = pieces.setdefault(row.theirs, {})
        array = row.write(array)
        if row.part in known and not np.array_equal(known[row.part], array):
            raise ValueError(row.theirs)
        known[row.part] = array
    return {
        name: parts[0] if len(parts) == 1 else np.concatenate([parts[i] for i in sorted(parts)], axis=-1)
        for name, parts in pieces.items()
    }
