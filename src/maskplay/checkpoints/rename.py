"""A checkpoint is a table: our weight names beside somebody else's, each row reversible, so loading and saving are one.

A row reads `"encoder/block_{i}/…": "bert.encoder.layer.{i}.….weight | transpose"`: `{i}` runs over the blocks, and
after the bar stands the operation that turns their array into ours.
"""

from collections.abc import Mapping
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
    """

    ours: str
    theirs: str
    transposed: bool = False

    def shape(self, theirs: Shape) -> Shape:
        """The shape an array of the file has with us."""
        return theirs[::-1] if self.transposed else theirs

    def read(self, theirs: np.ndarray) -> np.ndarray:
        """Their array as ours."""
        return theirs.T if self.transposed else theirs

    def write(self, ours: np.ndarray) -> np.ndarray:
        """Our array as theirs."""
        return np.ascontiguousarray(ours.T) if self.transposed else ours


def rows(table: Mapping[str, str], num_layers: int) -> list[Row]:
    """A table's rows with `{i}` written out.

    Example:
        >>> rows({"block_{i}/kernel": "layer.{i}.weight | transpose"}, 2)[1]
        Row(ours='block_1/kernel', theirs='layer.1.weight', transposed=True)
    """
    found = []
    for ours, right in table.items():
        theirs, _, operation = (part.strip() for part in right.partition("|"))
        if operation not in ("", "transpose"):
            raise ValueError(f"{ours}: unknown operation {operation!r}")
        for i in range(num_layers) if "{i}" in ours else [0]:
            found.append(Row(ours.replace("{i}", str(i)), theirs.replace("{i}", str(i)), operation == "transpose"))
    return found
