"""Keras' files, and the parts of HDF5 that a weights file has no need of."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest

from checkpoints.forge import damaged, outcome
from maskplay.checkpoints.files import open_tensors
from maskplay.errors import CheckpointError


@pytest.mark.parametrize("name", ["m.weights.h5", "m.keras"])
def test_what_keras_saves(tmp_path: Path, name: str) -> None:
    layers = [keras.layers.Dense(4, dtype="bfloat16"), keras.layers.Dense(2), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    (model.save if name.endswith(".keras") else model.save_weights)(tmp_path / name)
    tensors = open_tensors(tmp_path / name)
    assert tensors.container == "keras" and len(tensors) == len(model.weights)
    assert tensors.dtype("layers/dense/vars/0") == ml_dtypes.bfloat16
    for layer, stem in zip(layers, ["dense", "dense_1", "batch_normalization"]):
        for place, weight in enumerate(layer.weights):
            found = tensors[f"layers/{stem}/vars/{place}"]
            np.testing.assert_array_equal(found.astype("f4"), keras.ops.convert_to_numpy(weight).astype("f4"))
    assert set(tensors.skipped.values()) == {"the optimizer's state"}


def link_outside(file: h5py.File) -> None:
    file["x"] = h5py.ExternalLink("/etc/passwd", "/")


def link_inside(file: h5py.File) -> None:
    file["x"] = h5py.SoftLink("/a")


def group_in_itself(file: h5py.File) -> None:
    group = file.create_group("g")
    group["again"] = group


def chunked_and_giant(file: h5py.File) -> None:
    file.create_dataset("x", (2**40,), "f4", chunks=(2**20,))


def compressed(file: h5py.File) -> None:
    file.create_dataset("x", data=np.zeros(10**6), compression="gzip")


def contiguous_and_never_written(file: h5py.File) -> None:
    space = h5py.h5s.create_simple((2**40,))
    h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space)


def in_another_file(file: h5py.File) -> None:
    file.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (link_outside, "link to another place"),
        (link_inside, "link to another place"),
        (group_in_itself, "reached twice"),
        (chunked_and_giant, "chunked, compressed, external or virtual"),
        (compressed, "chunked, compressed, external or virtual"),
        (contiguous_and_never_written, "its bytes are missing"),
        (in_another_file, "chunked, compressed, external or virtual"),
        (virtual, "chunked, compressed, external or virtual"),
    ],
)
def test_what_a_weights_file_has_no_need_of(tmp_path: Path, make: Callable[[h5py.File], None], message: str) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file["a"] = np.ones(3)
        make(file)
    with pytest.raises(CheckpointError, match=message) as error:
        open_tensors(tmp_path / "m.weights.h5")
    assert "m.weights.h5" in str(error.value)


def test_other_kinds_of_datasets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["big"] = np.arange(3, dtype=">f4")
        file["scalar"] = np.float64(2)
        file["flag"] = np.array([True, False])
        file["empty"] = np.zeros((0, 3), "f4")
        file["text"] = "word"
        file["nothing"] = h5py.Empty("f4")
    tensors = open_tensors(tmp_path / "m.h5")
    assert {name: tensors[name].tolist() for name in tensors} == {
        "big": [0, 1, 2],
        "empty": [],
        "flag": [True, False],
        "scalar": 2,
    }
    assert tensors["empty"].shape == (0, 3) and set(tensors.skipped) == {"text", "nothing"}


def test_a_truncated_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file["a"] = np.ones(3000)
    data = (tmp_path / "m.weights.h5").read_bytes()
    (tmp_path / "m.weights.h5").write_bytes(data[:-1000])
    with pytest.raises(CheckpointError, match="m.weights.h5: not an HDF5 file of Keras, truncated or damaged"):
        open_tensors(tmp_path / "m.weights.h5")


def test_an_archive_whose_weights_are_compressed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(1000))
    with pytest.raises(CheckpointError, match="uncompressed model.weights.h5"):
        open_tensors(tmp_path / "m.keras")


def test_a_crash_of_the_hdf5_library_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "crash.py"
    program.write_text("import os\nos.abort()\n")
    monkeypatch.setattr("maskplay.checkpoints.keras_files._LISTING", program)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a"] = np.ones(3)
    with pytest.raises(CheckpointError, match="the HDF5 library stopped on it with code"):
        open_tensors(tmp_path / "m.h5")
    program.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr("maskplay.checkpoints.keras_files._PATIENCE", 1)
    with pytest.raises(CheckpointError, match="read it for 1 s in vain"):
        open_tensors(tmp_path / "m.h5")


def test_random_damage(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        for number in range(12):
            file[f"layers/dense_{number}/vars/0"] = np.arange(8.0)
    rng = random.Random(5)
    data = (tmp_path / "whole.h5").read_bytes()
    ends = []
    for number in range(5):
        path = tmp_path / f"m{number}.h5"
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + damaged(rng, data[8:]))
        ends.append(outcome(path))
    assert any(end != "read" for end in ends)
