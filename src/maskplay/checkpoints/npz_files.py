"""NumPy's `.npz`: a zip of `.npy` files. Arrays that are stored are mapped; compressed ones are unpacked when read.

`.npy` headers are matched, not evaluated, and arrays of Python objects (pickles) are never opened. bfloat16, which
NumPy writes as two opaque bytes, is read and written as `V2`.
"""

import os
import re
import zipfile
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from maskplay.checkpoints.tensors import (
    LazyTensor,
    Tensors,
    as_array,
    byte_count,
    check_shape,
    quoted,
)
from maskplay.checkpoints.zip_members import ZipMembers
from maskplay.errors import CheckpointError
from maskplay.storage import new_file

_HEADER = re.compile(
    r"\{ *'descr': *'([^']*)', *'fortran_order': *(True|False), *'shape': *\(([0-9, ]*)\) *,? *\} *\n?"
)
_MAX_HEADER = 10_000  # bytes, as in NumPy
_NUMBERS = re.compile(r"[<>=|]?([bif][1248]|u[1248])")


def open_npz(path: str | os.PathLike[str], verify: bool = True) -> Tensors:
    """The arrays of an `.npz` file.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, or would unpack to many times its size.
    """
    members = ZipMembers(path)
    entries: dict[str, LazyTensor] = {}
    skipped: dict[str, str] = {}
    for member in members.members:
        name = member.removesuffix(".npy")
        if name == member:
            skipped[name] = "not an array"
            continue
        code, fortran, sizes, start = _header(members, member)
        if code.endswith("V2"):
            dtype = np.dtype(ml_dtypes.bfloat16)
        elif _NUMBERS.fullmatch(code) and code[-2:] not in ("b2", "b4", "b8", "f1"):
            dtype = np.dtype(code)
        else:
            reason = "holds pickled Python objects, which are never opened" if "O" in code else "not numbers"
            skipped[name] = f"dtype {quoted(code)}: {reason}"
            continue
        shape = check_shape(members.file.path, name, sizes)
        if start + byte_count(shape, dtype) != members.members[member].size:
            raise CheckpointError(
                f"{path}: tensor {quoted(name)}: {members.members[member].size - start} bytes cannot hold "
                f"{dtype} of shape {shape}: truncated or damaged"
            )
        entries[name] = _lazy(members, member, start, shape, dtype, fortran, verify)
    return Tensors(path, "npz", entries, skipped, stored=members.file.size + members.unpacked)


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write an `.npz` file that `numpy.load` opens, whole or not at all, without compression.

    Raises:
        CheckpointError: an array is not of numbers.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "weights.npz"
        >>> write(path, {"dense/bias": np.zeros(2)})
        >>> open_npz(path)["dense/bias"]
        array([0., 0.])
    """
    with new_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, value in tensors.items():
            array = np.asarray(value)
            if array.dtype == ml_dtypes.bfloat16:
                array = array.view("V2")
            elif array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
                raise CheckpointError(f"{path}: tensor {quoted(name)}: dtype {array.dtype} cannot be written")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _header(members: ZipMembers, member: str) -> tuple[str, bool, list[int], int]:
    """An array's dtype code, order and shape, and where its bytes begin in the member."""
    start = members.peek(member, _MAX_HEADER + 12)
    wide = 2 if start[6:7] == b"\1" else 4
    size = int.from_bytes(start[8 : 8 + wide], "little")
    text = start[8 + wide : 8 + wide + size]
    match = _HEADER.fullmatch(text.decode("latin-1")) if start.startswith(b"\x93NUMPY") else None
    if match is None or len(text) != size:
        if b"'descr': [" in text:
            return "[...]", False, [], 0  # a structured array: not numbers
        raise CheckpointError(f"{members.file.path}: tensor {quoted(member)}: not an array of numbers, or damaged")
    try:
        sizes = [int(size) for size in match[3].split(",") if size.strip()]
    except ValueError:
        raise CheckpointError(f"{members.file.path}: tensor {quoted(member)}: impossible shape") from None
    return match[1], match[2] == "True", sizes, 8 + wide + size


def _lazy(
    members: ZipMembers, member: str, start: int, shape: tuple[int, ...], dtype: np.dtype, fortran: bool, verify: bool
) -> LazyTensor:
    lies = shape[::-1] if fortran else shape  # a Fortran-ordered array is its transpose in C order
    members.offset(member)  # now, not when it is read: does it lie within the file?

    def read() -> np.ndarray:
        if members.is_stored(member):
            if verify:
                members.verify(member)
            array = members.file.array(members.offset(member) + start, lies, dtype, f"tensor {quoted(member)}")
        else:
            content = members.read(member)
            array = as_array(memoryview(content)[start:], lies, dtype)
        return array.T if fortran else array

    return LazyTensor(shape, dtype.newbyteorder("="), read)
