"""PyTorch files: read without PyTorch, and without running what their pickles say."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from checkpoints.forge import integer, name, table, tensor, text, torch_zip
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.torch_files import open_torch
from maskplay.checkpoints.torch_pickle import MAX_PICKLE, Pickles, Unreadable, read_pickle
from maskplay.errors import CheckpointError

NUMBERS = np.arange(6, dtype="<f4")


def opened(folder: Path, pickle: bytes, **more: bytes):
    return open_torch(torch_zip(folder / "m.bin", pickle, {"0": NUMBERS.tobytes()}, **more))


def test_a_table_of_tensors(tmp_path: Path) -> None:
    views = {
        "whole": tensor(),
        "transposed": tensor(shape=(3, 2), strides=(1, 3)),
        "column": tensor(shape=(2,), strides=(3,), offset=2),
        "scalar": tensor(shape=(), strides=(), offset=4),
        "empty": tensor(shape=(0, 7), strides=(7, 1)),
        "row": tensor(shape=(1, 6), strides=(2**70, 1)),  # the stride of a single row counts for nothing
    }
    tensors = opened(tmp_path, table(**views, epoch=b"K\x03", note=text("x")))
    grid = NUMBERS.reshape(2, 3)
    expected = {
        "whole": grid,
        "transposed": grid.T,
        "column": grid[:, 2],
        "scalar": NUMBERS[4],
        "empty": np.zeros((0, 7), np.float32),
        "row": grid.reshape(1, 6),
    }
    assert tensors.container == "torch" and set(tensors) == set(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(tensors[key], array)
        assert tensors[key].shape == tensors.shape(key) == np.shape(array)
    assert not tensors["transposed"].flags.writeable
    assert tensors.skipped == {"epoch": "not a tensor but a int", "note": "not a tensor but a str"}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(("Float", "f4"), ("Double", "f8"), ("Half", "f2"), ("BFloat16", ml_dtypes.bfloat16), ("Long", "i8")),
        *(("Int", "i4"), ("Short", "i2"), ("Char", "i1"), ("Byte", "u1"), ("Bool", "?")),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_every_dtype_in_both_byte_orders(tmp_path: Path, kind: str, dtype: object, order: str) -> None:
    array = np.arange(6).astype(dtype)
    data = array.tobytes() if order == "little" else array.view(f"u{array.itemsize}").byteswap().tobytes()
    path = torch_zip(tmp_path / "m.bin", table(a=tensor(kind=kind)), {"0": data}, byteorder=order.encode())
    tensors = open_torch(path)
    assert tensors["a"].dtype == tensors.dtype("a") == array.dtype
    np.testing.assert_array_equal(tensors["a"], array.reshape(2, 3))


def test_wrapped_and_nested_dicts(tmp_path: Path) -> None:
    inner = table(weight=tensor())[2:-1]
    tensors = opened(tmp_path, table(state_dict=inner, epoch=b"K\x03", optimizer=inner))
    assert tensors.names() == ["weight"] and set(tensors.skipped) == {"epoch", "optimizer"}
    assert opened(tmp_path, table(encoder=inner, decoder=inner)).names() == ["decoder.weight", "encoder.weight"]
    parameter = name("torch._utils._rebuild_parameter") + b"(" + tensor() + b"\x88)tR"
    assert opened(tmp_path, table(weight=parameter)).names() == ["weight"]


def test_pytorch_agrees(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    grid = torch.arange(24.0).reshape(4, 6)
    linear = torch.nn.Linear(3, 4)
    table = OrderedDict(linear.state_dict())
    table.update(
        view=grid[1:3, ::2],
        transposed=grid.t(),
        half=torch.randn(5).half(),
        bf16=torch.randn(5).bfloat16(),
        ids=torch.arange(5).expand((1, -1)),
        flags=torch.tensor([True, False]),
        scalar=torch.tensor(3.0),
        empty=torch.zeros(0, 3),
        parameter=linear.weight,
    )
    for protocol in (2, 4):
        torch.save(table, tmp_path / "m.pt", pickle_protocol=protocol)
        tensors = open_tensors(tmp_path / "m.pt")
        assert set(tensors) == set(table)
        for key, value in table.items():
            ours = tensors[key].astype(np.float32) if key == "bf16" else tensors[key]
            np.testing.assert_array_equal(ours, value.detach().float() if key == "bf16" else value.detach())
    torch.save(linear, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="names 'torch.nn.modules.linear.Linear'"):
        open_torch(tmp_path / "m.pt")


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("protocol", range(6))
def test_no_code_runs(tmp_path: Path, protocol: int) -> None:
    sentinel = tmp_path / "sentinel"
    data = pickle.dumps({"a": Attack(sentinel)}, protocol)
    with pytest.raises(CheckpointError, match=r"nothing in it was run.*(system|instruction)"):
        opened(tmp_path, data)
    assert not sentinel.exists()
    pickle.loads(data)  # the attack itself works
    assert sentinel.exists()


def test_texts_of_python_2() -> None:
    assert read_pickle(b"}U\x01aT\x02\0\0\0bcs.") == {"a": "bc"}


def test_the_limits_hold_for_all_pickles_together() -> None:
    pickles = Pickles((b"}" * 400_000 + b".") * 3)
    pickles.load(), pickles.load()
    with pytest.raises(Unreadable, match="instructions"):
        pickles.load()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2, 3.5, None, True], "b": {"c": (1, (2, 3), (1, 2, 3, 4), ())}, 7: "é" * 300},
        OrderedDict(a=1, b=OrderedDict()),
        {str(i): i * 10**9 for i in range(2000)},
        {"again": [shared := ["x"], shared]},
    ],
)
def test_plain_pickles_mean_what_python_says(protocol: int, value: object) -> None:
    assert read_pickle(pickle.dumps(value, protocol)) == value


STORAGE = b"(" + text("storage") + name("torch.FloatStorage") + text("0") + text("cpu") + integer(6) + b"tQ"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b"\x80\x02}", "truncated"),
        (b"\x80\x02.", "stack is empty"),
        (b"X\xff\xff\xff\xff.", "truncated"),
        (b"X\x01\0\0\0\xff.", "not UTF-8"),
        (b"ccollections", "truncated"),
        (b"h\x05.", "nothing was noted"),
        (b"(0.", "stack is empty"),
        (b"u.", "mark is missing"),
        (b"t.", "mark is missing"),
        (b"K\x01(K\x01K\x02u.", "something other than a dict"),
        (b"}(K\x01u.", "something other than a dict"),
        (b"}K\x01a.", "other than a list"),
        (b"})K\x01s.", "neither text nor an integer but a tuple"),
        (b"}]K\x01s.", "neither text nor an integer but a list"),
        (b"]}b.", "sets attributes"),
        (b"K\x01)R.", "not a constructor"),
        (b"ccollections\nOrderedDict\nK\x01R.", "not a constructor"),
        (b"ccollections\nOrderedDict\n(K\x01tR.", "of another kind"),
        (b"ccollections\nOrderedDict\n(](K\x01etR.", "other than pairs"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "of another kind"),
        (b"K\x01Q.", "not a tensor's storage"),
        (STORAGE.replace(b"FloatStorage", b"QUInt8Storage") + b".", "names 'torch.QUInt8Storage'"),
        (STORAGE.replace(b"storage", b"strange", 1) + b".", "not a tensor's storage"),
        (b"cos\nsystem\nX\x02\0\0\0ls\x85R.", "names 'os.system'"),
        (b"X\x02\0\0\0osX\x06\0\0\0system\x93.", "names 'os.system'"),
        (b"K\x01K\x02\x93.", "names ''"),
        (b"c__builtin__\neval\n.", "names '__builtin__.eval'"),
        (b"(ios\nsystem\n.", "instruction b'i'"),
        (b"(cos\nsystem\no.", "names 'os.system'"),
        (b"\x82\x01.", "instruction"),
        (b"]\x8b\xff\xff\xff\x7f.", "instruction"),
        (b"}" * 1_000_001, "instructions"),
        (bytes(MAX_PICKLE + 1), "at most"),
        (tensor(shape=(-1, 3)) + b".", "negative"),
        (tensor(strides=(-3, 1)) + b".", "negative"),
        (tensor(offset=-1) + b".", "negative"),
        (tensor(shape=(2,)) + b".", "negative or malformed"),
        (tensor(size=-6) + b".", "not a tensor's storage"),
        (tensor(view=b"K\x01") + b".", "malformed view"),
        (tensor(view=b"NN") + b".", "malformed view"),
        (tensor(view=b"(" + text("v") + integer(3) + integer(4) + b"t") + b".", "reaches outside"),
        (tensor(view=b"(" + text("v") + integer(-1) + integer(4) + b"t") + b".", "reaches outside"),
    ],
)
def test_pickles_that_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        read_pickle(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": 1}, "reach outside"),
        ({"shape": (3, 3)}, "reach outside"),
        ({"strides": (4, 1)}, "reach outside"),
        ({"strides": (2**200, 1)}, "reach outside"),
        ({"shape": (7,), "strides": (0,)}, "reach outside"),  # a broadcast view grows when it is copied
        ({"shape": (2**30, 2**30), "strides": (0, 0)}, "impossible shape"),
        ({"shape": (1,) * 33, "strides": (1,) * 33}, "33 dimensions"),
        ({"size": 7}, "24 bytes cannot hold a storage of 7"),
        ({"size": 2**400}, "cannot hold"),
        ({"kind": "Double"}, "cannot hold a storage"),
        ({"key": "1"}, "'model/data/1' is missing"),
        ({"key": "../data.pkl"}, "is missing"),
    ],
)
def test_tensors_that_reach_outside(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        opened(tmp_path, table(weight=tensor(**changes)))
    assert "'weight'" in str(error.value) and "m.bin" in str(error.value) and len(str(error.value)) < 600


def test_structures_that_hold_themselves(tmp_path: Path) -> None:
    itself = b"}q\x00" + text("a") + b"h\x00s"
    with pytest.raises(CheckpointError, match="hold themselves"):
        opened(tmp_path, table(x=itself))
    with pytest.raises(CheckpointError, match="hold themselves"):
        opened(tmp_path, itself.replace(text("a"), text("model")) + b".")
    with pytest.raises(CheckpointError, match="nested too deeply"):
        opened(tmp_path, b"".join(b"}" + text("k") for _ in range(50_000)) + b"N" + b"s" * 50_000 + b".")
    deep = b")" + b"\x85" * 200_000  # 200,000 tuples inside each other: nothing may recurse into them
    assert opened(tmp_path, table(x=deep, y=tensor())).names() == ["y"]


def test_more_names_than_any_model_has(tmp_path: Path) -> None:
    names = b"".join(text(str(number)) + b"h\x00" for number in range(50_001))
    with pytest.raises(CheckpointError, match="more than 50000 tensors"):
        opened(tmp_path, tensor() + b"q\x000}(" + names + b"u.")


def test_copies_of_a_list_are_work(tmp_path: Path) -> None:
    pairs = b"](" + b"".join(b"(" + text(str(i)) + b"Nt" for i in range(3000)) + b"e"
    made = name("collections.OrderedDict") + b"q\x01" + b"(" + pairs + b"tq\x02"
    again = b"h\x01h\x02R0" * 400  # each of them three thousand entries
    with pytest.raises(CheckpointError, match="more than 1000000 instructions"):
        opened(tmp_path, b"\x80\x02" + made + again + b"R.")


def test_names_that_multiply_are_refused(tmp_path: Path) -> None:
    long = b"}X\x00\x10\x00\x00" + b"k" * 4096 + b"}X\x01\0\0\0aNss."
    with pytest.raises(CheckpointError, match="a name of 4098 characters"):
        opened(tmp_path, long)


def test_compressed_storages_and_other_archives(tmp_path: Path) -> None:
    path = torch_zip(tmp_path / "m.bin", table(a=tensor()), {"0": NUMBERS.tobytes()}, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="storage is compressed"):
        open_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("b/data.pkl", b"")
    with pytest.raises(CheckpointError, match="expected one data.pkl, found 2"):
        open_torch(path)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = torch_zip(tmp_path / "m.bin", bytes(40 * 2**20), method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    with pytest.raises(CheckpointError, match="zip bomb"):
        open_torch(path)


@pytest.mark.parametrize("keep", [3, 30, 200, -1, -23])
def test_truncated_files(tmp_path: Path, keep: int) -> None:
    path = torch_zip(tmp_path / "m.bin", table(a=tensor()), {"0": NUMBERS.tobytes()})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="m.bin: not a zip file, or truncated"):
        open_tensors(path)
