"""Keras' own files: `.weights.h5`, and the `model.weights.h5` inside a `.keras` archive.

The names are the paths of the HDF5 datasets, `layers/dense/vars/0`. Keras writes every weight as one unbroken run of
bytes, so HDF5 is only asked where they lie (in a process of its own, see `hdf5_listing`), and each is mapped from the
file. Whatever HDF5 could make of a small file (filters, chunks, virtual datasets, links to other files) is refused.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np

from maskplay.checkpoints.tensors import LazyTensor, MappedFile, Tensors, byte_count, check_shape, quoted
from maskplay.checkpoints.zip_members import ZipMembers
from maskplay.errors import CheckpointError
from maskplay.storage import JSON_LIMIT

_LISTING = Path(__file__).with_name("hdf5_listing.py")
_PATIENCE = 60  # seconds; a thousand datasets take one
_WEIGHTS = "model.weights.h5"


def registered_class(path: str | os.PathLike[str]) -> type | None:
    """The registered class of the model in a `.keras` file, None where there is none."""
    try:
        config = json.loads(ZipMembers(path).peek("config.json", JSON_LIMIT))
        return keras.saving.get_registered_object(config["registered_name"])
    except (KeyError, TypeError, ValueError, RecursionError):  # loading its weights tells what is wrong
        return None


def open_keras(path: str | os.PathLike[str]) -> Tensors:
    """The weights of a `.weights.h5` or `.keras` file.

    Raises:
        CheckpointError: the file is missing, truncated or damaged, or uses a part of HDF5 that Keras does not.
    """
    file = MappedFile(path)
    begin, size = 0, file.size
    if bytes(file.bytes(0, min(2, file.size), "the beginning")) == b"PK":
        archive = ZipMembers(path)
        if _WEIGHTS not in archive.members or not archive.is_stored(_WEIGHTS):
            raise CheckpointError(f"{path}: expected a .keras archive with an uncompressed {_WEIGHTS}")
        begin, size = archive.offset(_WEIGHTS), archive.members[_WEIGHTS].size
    entries: dict[str, LazyTensor] = {}
    skipped: dict[str, str] = {}
    for name, sizes, code, offset in _datasets(file, begin, size):
        if code is None:
            skipped[name] = "not an array of numbers"
        elif name.startswith(("optimizer/", "optimizer_weights/")):
            skipped[name] = "the optimizer's state"
        else:
            dtype = np.dtype(ml_dtypes.bfloat16 if code == "bfloat16" else code)
            shape = check_shape(file.path, name, sizes)
            what = f"tensor {quoted(name)}"
            if byte_count(shape, dtype) == 0:
                offset = 0
            elif offset is None or offset + byte_count(shape, dtype) > size:
                raise CheckpointError(f"{path}: {what}: its bytes are missing: truncated or damaged")
            entries[name] = file.lazy(begin + offset, shape, dtype, what)
    return Tensors(path, "keras", entries, skipped, stored=file.size)


def _datasets(file: MappedFile, begin: int, size: int) -> list[Any]:
    """Name, shape, dtype and offset of every dataset."""
    command = [sys.executable, "-P", str(_LISTING), str(file.path.absolute()), str(begin), str(size)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # its threads' stacks would count as memory
    try:
        ran = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{file.path}: damaged: the HDF5 library read it for {_PATIENCE} s in vain") from None
    if ran.returncode:
        raise CheckpointError(f"{file.path}: damaged: the HDF5 library stopped on it with code {ran.returncode}")
    listing = json.loads(ran.stdout)
    if "error" in listing:
        reason = quoted(listing["error"])
        raise CheckpointError(f"{file.path}: not an HDF5 file of Keras, truncated or damaged: {reason}")
    return listing["datasets"]
