"""Open a checkpoint, whichever container it is in: a path becomes a mapping of names to lazy arrays.

A file is recognised by its name and its first bytes. In a folder the first of these wins, so that a conversion beside
its original is preferred to code-bearing and older forms: safetensors, PyTorch, TensorFlow, npz, Keras.
"""

import os
import re
from pathlib import Path, PureWindowsPath

from maskplay.checkpoints.keras_files import open_keras
from maskplay.checkpoints.llama2c_files import is_llama2c, open_llama2c
from maskplay.checkpoints.npz_files import open_npz
from maskplay.checkpoints.safetensors_files import open_safetensors
from maskplay.checkpoints.tensorflow_bundle import open_bundle
from maskplay.checkpoints.tensors import LazyTensor, Tensors, quoted
from maskplay.checkpoints.torch_files import open_torch
from maskplay.checkpoints.torch_legacy import is_tar
from maskplay.checkpoints.zip_members import zip_names
from maskplay.errors import CheckpointError, UserError
from maskplay.storage import read_json

_OPENED = (
    "a TensorFlow checkpoint (PREFIX.index with PREFIX.data-*), *.safetensors, pytorch_model.bin, *.npz, "
    "*.weights.h5, *.keras or llama2.c's *.bin, or a folder that holds one"
)
_MAX_INDEX = 8 * 2**20  # bytes
_DATA_FILE = re.compile(r"\.data-\d{5}-of-\d{5}$")
_LATEST = re.compile(r'^model_checkpoint_path: "(.*)"\s*$', re.MULTILINE)


def open_tensors(path: str | os.PathLike[str], verify: bool = True) -> Tensors:
    """The arrays of a checkpoint: names, shapes and dtypes at once, each array when it is asked for.

    Args:
        path: a file, a TensorFlow prefix (`bert_model.ckpt`), or a folder that holds one checkpoint. Of several in a
            folder, safetensors is taken before PyTorch, TensorFlow, npz and Keras.
        verify: whether an array's checksum is compared when it is read, in the containers that have one
            (TensorFlow, npz).

    Returns:
        A mapping; `tensors.container` says what was found, `tensors.skipped` what was left out and why.

    Raises:
        CheckpointError: nothing is there, or it is not a checkpoint, or it is truncated, damaged or unsafe.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from maskplay.checkpoints import tensorflow_bundle
        >>> folder = Path(tempfile.mkdtemp())
        >>> tensorflow_bundle.write(folder / "bert_model.ckpt", {"bert/pooler/dense/bias": np.ones(3)})
        >>> tensors = open_tensors(folder)
        >>> tensors.container, tensors.names(), tensors["bert/pooler/dense/bias"]
        ('tensorflow', ['bert/pooler/dense/bias'], array([1., 1., 1.]))
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _open_file(_in_folder(path), verify)
        if path.is_file():
            return _open_file(path, verify)
        if Path(f"{path}.index").is_file():
            return open_bundle(path, verify)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # a path with a null character
        if isinstance(error, UserError):
            raise
        raise CheckpointError(f"{quoted(str(path))}: not a path ({error})") from None
    raise CheckpointError(f"{path}: no such file or folder; expected {_OPENED}")


def _open_file(path: Path, verify: bool) -> Tensors:
    name = path.name
    if name.endswith(".index.json"):
        return _open_sharded(path, verify)
    if name == "checkpoint":
        return open_bundle(_latest(path), verify)
    for ending in (r"\.index$", _DATA_FILE, r"\.meta$"):
        prefix = path.with_name(re.sub(ending, "", name))
        if prefix != path and Path(f"{prefix}.index").is_file():
            return open_bundle(prefix, verify)
    if name.endswith(".safetensors"):
        return open_safetensors(path)
    with open(path, "rb") as file:
        start = file.read(512)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return open_keras(path)
    if start.startswith(b"PK"):
        return _open_zip(path, verify)
    if name.endswith((".bin", ".pt", ".pth")) and (start.startswith(b"\x80") or is_tar(start)):
        return open_torch(path)
    if name.endswith(".bin") and is_llama2c(path):
        return open_llama2c(path)
    if start.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ")):
        raise CheckpointError(f"{path}: an archive; unpack it and give the folder")
    found = f"{len(start)} bytes" if len(start) < 8 else f"a file that begins {quoted(start[:8])}"
    raise CheckpointError(f"{path}: not a checkpoint: expected {_OPENED}; found {found}")


def _open_zip(path: Path, verify: bool) -> Tensors:
    names = zip_names(path)
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return open_torch(path)
    if "model.weights.h5" in names:
        return open_keras(path)
    if any(name.endswith(".npy") for name in names):
        return open_npz(path, verify)
    if any(name.endswith((".index", ".bin", ".safetensors", ".h5")) for name in names):
        raise CheckpointError(f"{path}: an archive; unpack it and give the folder")
    raise CheckpointError(f"{path}: a zip file that holds no checkpoint; expected {_OPENED}")


def _open_sharded(path: Path, verify: bool) -> Tensors:
    """`model.safetensors.index.json`: which tensor lies in which file of the same folder."""
    if path.stat().st_size > _MAX_INDEX:
        raise CheckpointError(f"{path}: expected an index of at most {_MAX_INDEX // 2**20} MiB, found a larger file")
    try:
        weights = read_json(path).get("weight_map")
    except UserError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(weights, dict):
        raise CheckpointError(f"{path}: expected a `weight_map` of tensor names to file names")
    names: dict[str, list[str]] = {}
    for name, file in weights.items():
        if not _is_plain(file) or file.endswith(".index.json"):
            raise CheckpointError(f"{path}: tensor {quoted(name)}: {quoted(file)} is not the name of a file beside it")
        names.setdefault(file, []).append(name)
    entries: dict[str, LazyTensor] = {}
    skipped: dict[str, str] = {}
    containers: set[str] = set()
    sizes: dict[tuple[int, int], int] = {}  # of files, each once, whatever its names
    for file in sorted(names):
        if not path.with_name(file).is_file():
            raise CheckpointError(f"{path}: names the file {quoted(file)}, which is missing beside it")
        shard = _open_file(path.with_name(file), verify)
        containers.add(shard.container)
        status = path.with_name(file).stat()
        sizes[status.st_dev, status.st_ino] = status.st_size
        found = shard.entries()
        for name in names[file]:
            if name in found:
                entries[name] = found.pop(name)
            elif name not in shard.skipped:
                raise CheckpointError(f"{path}: tensor {quoted(name)} is not in {quoted(file)}")
        skipped.update(shard.skipped)
        skipped.update({name: f"in {file}, but not in the index" for name in found if name not in weights})
    if not entries or containers - {"safetensors", "torch"} or len(containers) > 1:
        raise CheckpointError(f"{path}: expected files of one kind, safetensors or PyTorch, with tensors in them")
    return Tensors(path, containers.pop(), entries, skipped, stored=sum(sizes.values()))


def _in_folder(folder: Path) -> Path:
    """The file that stands for a folder's checkpoint."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    choices: list[list[str]] = [
        ["model.safetensors"],
        ["model.safetensors.index.json"],
        [name for name in names if name.endswith(".safetensors")],
        ["pytorch_model.bin"],
        ["pytorch_model.bin.index.json"],
        [name for name in names if name.endswith((".pt", ".pth"))],
        ["checkpoint"] if "checkpoint" in names and Path(f"{_latest(folder / 'checkpoint')}.index").is_file() else [],
        ["bert_model.ckpt.index"],
        [name for name in names if name.endswith(".index")],
        [name for name in names if name.endswith(".npz")],
        [name for name in names if name.endswith((".h5", ".keras"))],
    ]
    for choice in choices:
        present = [name for name in choice if name in names]
        if len(present) > 1:
            listed = ", ".join(map(quoted, present[:4]))
            raise CheckpointError(f"{folder}: {len(present)} checkpoints ({listed} ...); give the path of one of them")
        if present:
            return folder / present[0]
    found = ", ".join(map(quoted, names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    raise CheckpointError(f"{folder}: no checkpoint in this folder: expected {_OPENED}; found {found or 'no files'}")


def _latest(path: Path) -> Path:
    """The prefix that TensorFlow's text file `checkpoint` names, in its own folder.

    TensorFlow often writes the absolute path of the machine that trained, so only the last part of it counts.
    """
    with open(path, "rb") as file:
        match = _LATEST.search(file.read(2**16).decode("utf-8", "replace"))
    name = PureWindowsPath(match[1]).name if match else ""
    if not _is_plain(name):
        raise CheckpointError(f'{path}: expected a line `model_checkpoint_path: "NAME"`, as TensorFlow writes')
    return path.with_name(name)


def _is_plain(name: object) -> bool:
    """Whether a name found in a file stays in that file's folder: no separators, drives or dots on any system."""
    if not isinstance(name, str) or not name.isprintable() or len(name) > 255:
        return False
    return name not in ("", ".", "..") and PureWindowsPath(name).name == name and "/" not in name
