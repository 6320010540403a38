"""Safetensors: round trips with the library, and headers that lie."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file

from maskplay.arrays import write_arrays
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.safetensors_files import open_safetensors
from maskplay.errors import CheckpointError

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ml_dtypes.bfloat16]
NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter("__metadata__".__ne__)
ARRAYS = st.sampled_from([*DTYPES[:-1], ">f4", ">i2"]).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


def forged(path: Path, header: object, data: bytes = bytes(8)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(st.dictionaries(NAMES, ARRAYS, max_size=8))
def test_round_trip(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    path = tmp_path / "m.safetensors"
    write_arrays(path, tensors)
    theirs, ours = load_file(path), open_tensors(path)
    assert set(ours) == set(theirs) == set(tensors)
    for name, array in tensors.items():
        assert ours[name].dtype == array.dtype.newbyteorder("=") and ours[name].shape == array.shape
        assert ours[name].tobytes() == theirs[name].tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(tmp_path: Path, dtype: object) -> None:
    array = (np.arange(24) * 3).reshape(2, 3, 4).astype(dtype)
    write_arrays(tmp_path / "m.safetensors", {"a": array, "t": array.T, "scalar": array[0, 0, 1]}, {"format": "pt"})
    tensors = open_safetensors(tmp_path / "m.safetensors")
    assert tensors.container == "safetensors" and tensors.dtype("a") == array.dtype
    np.testing.assert_array_equal(tensors["a"], array)
    np.testing.assert_array_equal(tensors["t"], array.T)
    assert tensors["scalar"].shape == () and not tensors["a"].flags.owndata or dtype == "?"


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    write_arrays(tmp_path / "m.safetensors", {"a": np.zeros(1)}, {"format": "pt"})
    assert open_safetensors(tmp_path / "m.safetensors").names() == ["a"]


def test_unknown_dtypes_are_skipped(tmp_path: Path) -> None:
    path = forged(tmp_path / "m.safetensors", {"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}})
    assert open_safetensors(path).skipped == {"a": "the dtype 'F4' is not supported"}


@pytest.mark.parametrize("tensors", [{"a": np.zeros(1, complex)}, {"a": np.array("x")}, {"__metadata__": np.zeros(1)}])
def test_refuses_to_write(tmp_path: Path, tensors: dict) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_arrays(tmp_path / "m.safetensors", tensors)
    assert list(tmp_path.iterdir()) == []


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "header is damaged"),
        (b"[]", "not a JSON object"),
        (b"{", "header is damaged"),
        (b'{"a":' + b"[" * 100_000, "header is damaged"),
        (b'{"a":' + b"9" * 5000 + b"}", "header is damaged"),
        (b"\xff\xfe", "header is damaged"),
        (b'{"a":1,"a":2}', "occurs twice"),
        ({"a": 3}, "expected dtype, shape and data_offsets"),
        ({"a": entry(data_offsets=[0])}, "expected dtype"),
        ({"a": entry(data_offsets=[0, 8.0])}, "expected dtype"),
        ({"a": entry(dtype=None)}, "expected dtype"),
        ({"a": entry(shape=[3])}, "8 bytes cannot hold F32"),
        ({"a": entry(shape=[-2])}, "impossible shape"),
        ({"a": entry(shape=[True])}, "impossible shape"),
        ({"a": entry(shape=[[2]])}, "impossible shape"),
        ({"a": entry(shape=[2**62, 2**62])}, "impossible shape"),
        ({"a": entry(shape=[0, 2**62], data_offsets=[0, 0])}, "impossible shape"),
        ({"a": entry(shape=[1] * 33)}, "33 dimensions"),
        ({"a": entry(data_offsets=[8, 16])}, "truncated or damaged"),
        ({"a": entry(data_offsets=[-8, 0])}, "truncated or damaged"),
        ({"a": entry(data_offsets=[8, 0])}, "truncated or damaged"),
        ({"a": entry(shape=[2**40], data_offsets=[0, 2**42])}, "truncated or damaged"),
        ({str(number): 0 for number in range(50_001)}, "50001 tensors, at most 50000"),
        ({"a": entry(), "b": entry(shape=[1], data_offsets=[4, 8])}, "'a' and 'b' overlap"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: object, message: str) -> None:
    path = forged(tmp_path / "m.safetensors", header)
    with pytest.raises(CheckpointError, match=message) as error:
        open_safetensors(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("data", [b"", b"1234567", b"\xff" * 8, (10**9).to_bytes(8, "little"), b"\x08" + bytes(9)])
def test_files_that_are_too_short(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="m.safetensors"):
        open_safetensors(path)
