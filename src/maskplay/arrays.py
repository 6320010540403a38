"""Arrays in safetensors files: written whole or not at all, opened without reading them all.

Read is here what was saved here, a play or a running state. Checkpoints from anywhere are read by
`maskplay.checkpoints`, which tells more about what is wrong with them.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from maskplay.errors import CheckpointError
from maskplay.storage import new_file

DTYPES = {  # what safetensors calls them
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


class Arrays(Mapping[str, np.ndarray]):
    """The arrays in a file, each read when it is asked for.

    Args:
        path: the file.

    Attributes:
        shapes: of every array, by name.
        metadata: the texts stored beside them.

    Raises:
        CheckpointError: the file is missing or damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "one.safetensors"
        >>> write_arrays(path, {"bias": np.zeros(2, "float32")}, {"epoch": "3"})
        >>> arrays = Arrays(path)
        >>> arrays.shapes, arrays.metadata, arrays["bias"]
        ({'bias': (2,)}, {'epoch': '3'}, array([0., 0.], dtype=float32))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file = safe_open(self.path, framework="numpy")
            self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}
            self.metadata: dict[str, str] = self._file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path}: missing or damaged ({error})") from None

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        try:
            return self._file.get_tensor(name)
        except (SafetensorError, OSError, AttributeError) as error:  # the last: a dtype that NumPy does not know
            raise CheckpointError(f"{self.path}: {name}: damaged ({error})") from None

    def fill(self, weights: Mapping[str, Any]) -> None:
        """Assign the arrays to Keras variables of these names.

        Raises:
            CheckpointError: a name is missing on one side, or a shape differs; before anything is assigned.
        """
        wanted = {name: tuple(weight.shape) for name, weight in weights.items()}
        for name in sorted({*wanted, *self}):
            if (shape := wanted.get(name)) != (found := self.shapes.get(name)):
                raise CheckpointError(f"{self.path}: {name}: expected {_shown(shape)}, found {_shown(found)}")
        for name, weight in weights.items():
            weight.assign(np.array(self[name]))  # a copy, not the mapped file

    def suffice(self, claimed: int, marker: str) -> None:
        """Refuse a config that claims more numbers than the file has, before any memory is taken for them.

        Raises:
            CheckpointError: it does, in the file `marker` beside this one.
        """
        found = sum(math.prod(shape) for shape in self.shapes.values())
        if claimed > found:
            raise CheckpointError(
                f"{self.path.with_name(marker)}: describes a network of more than {claimed:,} numbers, "
                f"{self.path.name} holds {found:,}"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a file, whole or not at all.

    Written here and not by the safetensors library, whose own temporary file would stay behind a killed process.

    Args:
        path: the file's name; its folder is created when missing.
        arrays: by name.
        metadata: texts to store beside them; Hugging Face expects `{"format": "pt"}`.

    Raises:
        CheckpointError: a dtype has no place in such a file, or a name is not to be had.
        OSError: it cannot be written; the disk is full, say.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "one.safetensors"
        >>> write_arrays(path, {"bias": np.zeros(2, "float32")})
        >>> Arrays(path)["bias"]
        array([0., 0.], dtype=float32)
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    ordered = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))  # so that each is aligned
    end = 0
    for name, array in ordered.items():
        code = _CODES.get(array.dtype.newbyteorder("<"))
        if code is None or name == "__metadata__":
            raise CheckpointError(f"{path}: {name!r:.80}: dtype {array.dtype} cannot be written under this name")
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the bytes after it shall be aligned
    with new_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in ordered.values():
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view("uint8").data)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {shape}"
