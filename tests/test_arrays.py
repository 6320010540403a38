"""Arrays in files of our own: the library reads what we write, and what is damaged is told."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from maskplay.arrays import Arrays, write_arrays
from maskplay.errors import CheckpointError

SOME = {
    "number": np.float32(3).reshape(()),
    "empty": np.zeros((0, 3)),
    "truth": np.array([True, False, True]),
    "turned": np.arange(6, dtype="uint32").reshape(2, 3).T,
    "half": np.ones(3, ml_dtypes.bfloat16),
    "big_endian": np.arange(3, dtype=">i8"),
    "名字\n": np.ones(1, "float16"),
}


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.safetensors", SOME, {"run": "好"})
    ours, theirs = Arrays(tmp_path / "a.safetensors"), load_file(tmp_path / "a.safetensors")
    assert ours.metadata == {"run": "好"} and sorted(theirs) == sorted(ours) == sorted(SOME)
    for name, array in SOME.items():
        for found in (ours[name], theirs[name]):
            assert found.shape == array.shape == ours.shapes[name]
            np.testing.assert_array_equal(found, array)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert Arrays(tmp_path / "a.safetensors").get("other") is None


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.safetensors", {"old": np.zeros(1)})
    with pytest.raises(CheckpointError, match="text.: dtype object cannot be written"):
        write_arrays(tmp_path / "a.safetensors", {"new": np.zeros(1), "text": np.array(["x"], dtype=object)})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert list(Arrays(tmp_path / "a.safetensors")) == ["old"]


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="a.safetensors: missing or damaged"):
        Arrays(path)
    write_arrays(path, SOME)
    whole = path.read_bytes()
    for content in (b"", whole[:9], whole[:-1], b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="a.safetensors: missing or damaged"):
            Arrays(path)
    header = json.dumps({"strange": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointError, match="strange: damaged"):
        Arrays(path)["strange"]
