"""npz: NumPy's own files, ours, and headers that lie."""

import copy
import io
import os
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.npz_files import open_npz, write
from maskplay.errors import CheckpointError

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ml_dtypes.bfloat16, ">f4"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_stored_and_compressed(tmp_path: Path, dtype: object) -> None:
    array = (np.arange(24) * 3).reshape(2, 3, 4).astype(dtype)
    tensors = {"a/b": array, "file": array[0], "f": np.asfortranarray(array), "scalar": array[0, 0, 1], "no": array[:0]}
    write(tmp_path / "ours.npz", tensors)
    np.savez(tmp_path / "stored.npz", **{k: v for k, v in tensors.items() if k != "file"})
    np.savez_compressed(tmp_path / "packed.npz", **{k: v for k, v in tensors.items() if k != "file"})
    for file in ("ours", "stored", "packed"):
        found = open_tensors(tmp_path / f"{file}.npz")
        assert found.container == "npz" and set(found) >= set(tensors) - {"file"}
        for name in found:
            assert found[name].dtype == found.dtype(name) == array.dtype.newbyteorder("=")
            assert found[name].shape == found.shape(name) == tensors[name].shape
            np.testing.assert_array_equal(found[name], tensors[name])
    if dtype is not ml_dtypes.bfloat16:
        np.testing.assert_array_equal(np.load(tmp_path / "ours.npz")["a/b"], array)


def test_pickled_and_structured_arrays_are_never_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=np.array([{}, []], object), b=np.zeros(2, "f4,i4"), c=np.array("x"), d=np.zeros(2))
    tensors = open_npz(tmp_path / "m.npz")
    assert tensors.names() == ["d"] and set(tensors.skipped) == {"a", "b", "c"}
    assert "never opened" in tensors.skipped["a"]


def npz(path: Path, header: str, data: bytes = bytes(16), magic: bytes = b"\x93NUMPY\1\0") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", magic + len(header).to_bytes(2, "little") + header.encode() + data)
    return path


def described(descr: str = "<f4", order: str = "False", shape: str = "(4,)") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n"


def test_a_forged_header_that_is_right(tmp_path: Path) -> None:
    assert open_npz(npz(tmp_path / "m.npz", described())).shape("a") == (4,)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (described(shape="(5,)"), "16 bytes cannot hold float32"),
        (described(shape="(3,)"), "16 bytes cannot hold"),
        (described(shape="(-4,)"), "not an array"),
        (described(shape="(4, 10**9)"), "not an array"),
        (described(shape=f"({2**60}, {2**60})"), "impossible shape"),
        (described(shape=f"({'9' * 5000},)"), "impossible shape"),
        (described(shape="(1 2,)"), "impossible shape"),
        (described(order="__import__('os')"), "not an array"),
        ("(" * 9000, "not an array"),
        ("", "not an array"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        open_npz(npz(tmp_path / "m.npz", header))
    assert "m.npz" in str(error.value) and len(str(error.value)) < 500


def test_not_an_npy_inside(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'a.npy': not an array"):
        open_npz(npz(tmp_path / "m.npz", described(), magic=b"\x93NUMPZ\1\0"))


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.zeros(40 * 2**20, np.int8))
    with zipfile.ZipFile(tmp_path / "m.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content.getvalue())
    with pytest.raises(CheckpointError, match="zip bomb"):
        open_npz(tmp_path / "m.npz")


def test_a_member_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "m.npz", a=np.zeros(100_000))
    data = (tmp_path / "m.npz").read_bytes()
    size = (800_128).to_bytes(4, "little")
    assert size in data
    lying = data.replace(size, (800_128 - 8).to_bytes(4, "little")).replace(b"(100000,)", b"(99999,) ")
    (tmp_path / "m.npz").write_bytes(lying)
    with pytest.raises(CheckpointError, match=r"m.npz: .*damaged"):
        open_npz(tmp_path / "m.npz")["a"]


def test_a_changed_array_is_noticed_when_read_unless_told_not_to(tmp_path: Path) -> None:
    write(tmp_path / "m.npz", {"a": np.arange(1000.0)})
    data = bytearray((tmp_path / "m.npz").read_bytes())
    data[4000] ^= 1
    (tmp_path / "m.npz").write_bytes(data)
    with pytest.raises(CheckpointError, match="'a.npy' does not match its checksum"):
        open_npz(tmp_path / "m.npz")["a"]
    assert open_npz(tmp_path / "m.npz", verify=False)["a"].shape == (1000,)


@pytest.mark.parametrize("array", [np.zeros(1, complex), np.array("x"), np.array([None])])
def test_refuses_to_write(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "m.npz", {"a": array})
    assert list(tmp_path.iterdir()) == []


def test_arrays_that_share_their_bytes_are_counted(tmp_path: Path) -> None:
    """Many entries of the directory may name one member: what they claim is not in the file."""
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        np.lib.format.write_array(content := io.BytesIO(), np.zeros(2**16))
        archive.writestr("a.npy", content.getvalue())
        for i in range(9):
            info = copy.copy(archive.getinfo("a.npy"))
            info.filename = info.orig_filename = f"{i}.npy"
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
        archive._didModify = True
    tensors = open_npz(tmp_path / "m.npz")
    size = os.path.getsize(tmp_path / "m.npz")
    assert len(tensors.names()) == 10 and tensors.stored == size < 2**20
    np.savez_compressed(tmp_path / "m.npz", a=np.zeros(1000))  # what is unpacked is there, too
    assert open_npz(tmp_path / "m.npz").stored == os.path.getsize(tmp_path / "m.npz") + 8128
