"""PyTorch files from before 1.6: a stream of pickles and storages, untrusted like any other file."""

import io
import os
import pickle
import random
import re
import resource
import struct
import tarfile
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from checkpoints.forge import damaged, integer, outcome, table, tensor, text
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.torch_files import open_torch
from maskplay.checkpoints.torch_pickle import MAX_PICKLE
from maskplay.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
NUMBERS = np.arange(6, dtype="<f4")
CASES = 2000


def stored(array: np.ndarray, count: int | None = None) -> bytes:
    """A storage as it lies in the file: its number of elements, and these."""
    return struct.pack("<q", array.size if count is None else count) + array.tobytes()


def stream(
    described: bytes,
    storages: dict[str, bytes] | None = None,
    keys: object = None,
    magic: object = MAGIC,
    version: object = 1001,
    machine: object = MACHINE,
) -> bytes:
    """A file as torch.save laid it out, around a pickled table."""
    storages = {"0": stored(NUMBERS)} if storages is None else storages
    head = b"".join(pickle.dumps(value, 2) for value in (magic, version, machine))
    return head + described + pickle.dumps(list(storages) if keys is None else keys, 2) + b"".join(storages.values())


def written(folder: Path, content: bytes) -> Path:
    path = folder / "m.bin"
    path.write_bytes(content)
    return path


def old(**changes) -> bytes:
    """A pickled tensor with the sixth field that this form has."""
    return tensor(**{"view": b"N", **changes})


def test_a_table_of_tensors(tmp_path: Path) -> None:
    views = {
        "whole": old(),
        "transposed": old(shape=(3, 2), strides=(1, 3)),
        "column": old(shape=(2,), strides=(3,), offset=2),
        "scalar": old(shape=(), strides=(), offset=4),
        "empty": old(shape=(0, 7), strides=(7, 1)),
        "none": old(key="nothing", shape=(0,), strides=(1,), size=0),
        "other": old(key="1", shape=(5,), strides=(1,), size=5, kind="Byte"),
        "behind": old(key="2", shape=(2,), strides=(1,), size=2, kind="Long"),  # at an odd address
    }
    storages = {
        "1": stored(np.arange(5, dtype="u1")),
        "2": stored(np.array([7, -7])),
        "nothing": stored(NUMBERS[:0]),
        "0": stored(NUMBERS),
    }
    tensors = open_tensors(written(tmp_path, stream(table(**views, epoch=b"K\x03"), storages)))
    grid = NUMBERS.reshape(2, 3)
    expected = {
        "whole": grid,
        "transposed": grid.T,
        "column": grid[:, 2],
        "scalar": NUMBERS[4],
        "empty": np.zeros((0, 7), np.float32),
        "none": NUMBERS[:0],
        "other": np.arange(5, dtype=np.uint8),
        "behind": np.array([7, -7]),
    }
    assert tensors.container == "torch" and set(tensors) == set(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(tensors[key], array)
        assert tensors[key].shape == tensors.shape(key) == np.shape(array)
        assert tensors[key].dtype == tensors.dtype(key) == array.dtype and tensors[key].flags.aligned
    assert not tensors["transposed"].flags.writeable
    assert tensors.skipped == {"epoch": "not a tensor but a int"}


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    size = 2**28  # a gigabyte of holes
    described = table(a=old(shape=(size,), strides=(1,), size=size))
    path = written(tmp_path, stream(described, {"0": struct.pack("<q", size)}))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + 4 * size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert open_torch(path).shape("a") == (size,)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 100 * 2**20


def test_an_aligned_storage_is_mapped(tmp_path: Path) -> None:
    copied = []
    for pad in range(4):
        array = open_torch(written(tmp_path, stream(table(a=old(), note=text("x" * pad)))))["a"]
        base: Any = array
        while getattr(base, "base", None) is not None:
            base = base.base
        copied.append(not isinstance(base, memoryview))
        assert array.tolist() == [[0, 1, 2], [3, 4, 5]] and array.flags.aligned
    assert sorted(copied) == [False, True, True, True]


def test_a_view_of_a_storage(tmp_path: Path) -> None:
    """Before PyTorch 0.4 a storage could be a part of another: (its own key, offset, size), in elements."""

    def part(start: int, count: int, **changes) -> bytes:
        view = b"(" + text(f"view{start}") + integer(start) + integer(count) + b"t"
        return old(**{"shape": (2,), "strides": (1,), "view": view, **changes})

    path = written(tmp_path, stream(table(root=old(), two=part(2, 2), late=part(1, 4, offset=2))))
    tensors = open_torch(path)
    assert tensors["two"].tolist() == [2, 3] and tensors["late"].tolist() == [3, 4] and tensors["root"].shape == (2, 3)
    try:
        import torch
    except ImportError:
        pass
    else:
        theirs = torch.load(path, weights_only=True)
        assert {key: value.tolist() for key, value in theirs.items()} == {key: tensors[key].tolist() for key in tensors}
    for views in (part(2, 2, shape=(3,)), part(2, 2, offset=1), part(0, 0)):
        with pytest.raises(CheckpointError, match="'bad'.*reach outside a storage of [20]"):
            open_torch(written(tmp_path, stream(table(root=old(), bad=views))))
    for views in (part(5, 2), part(-1, 2), part(2, -2)):
        with pytest.raises(CheckpointError, match="refused.*view of a storage"):
            open_torch(written(tmp_path, stream(table(bad=views))))


def test_pytorch_agrees(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    grid = torch.arange(24.0).reshape(4, 6)
    linear = torch.nn.Linear(3, 4)
    values = OrderedDict(linear.state_dict())
    kinds = ("float", "double", "half", "long", "int", "short", "char", "bool", "bfloat16")
    values.update({kind: getattr(torch.arange(7), kind)() for kind in kinds})
    values.update(
        byte=torch.arange(5).byte(),
        whole=grid,
        view=grid[1:3, ::2],
        transposed=grid.t(),
        ids=torch.arange(5).expand((1, -1)),
        scalar=torch.tensor(3.0),
        empty=torch.zeros(0, 3),
        parameter=linear.weight,
    )
    for protocol in (2, 3, 4):
        for wrapped in (values, {"state_dict": values, "epoch": 3, "optimizer": {"step": grid * 2}}):
            torch.save(wrapped, tmp_path / "m.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
            assert not (tmp_path / "m.pt").read_bytes().startswith(b"PK")
            tensors = open_tensors(tmp_path / "m.pt")
            assert set(tensors) == set(values)
            for key, value in values.items():
                ours = tensors[key].astype(np.float32) if key == "bfloat16" else tensors[key]
                np.testing.assert_array_equal(ours, value.detach().float() if key == "bfloat16" else value.detach())
                assert ours.shape == tuple(value.shape)
    assert tensors.dtype("bfloat16") == ml_dtypes.bfloat16 and tensors.dtype("half") == np.float16
    assert set(tensors.skipped) == {"epoch", "optimizer"}
    torch.save(linear, tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="names 'torch.nn.modules.linear.Linear'"):
        open_torch(tmp_path / "m.pt")


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("place", ["magic", "version", "machine", "table", "keys"])
def test_no_code_runs(tmp_path: Path, place: str, protocol: int) -> None:
    sentinel = tmp_path / "sentinel"
    attack = pickle.dumps({"a": Attack(sentinel)}, protocol)
    clean = {"magic": MAGIC, "version": 1001, "machine": MACHINE, "table": {}, "keys": []}
    content = b"".join(attack if name == place else pickle.dumps(value, 2) for name, value in clean.items())
    with pytest.raises(CheckpointError, match=r"m.bin: .*nothing in it was run.*system"):
        open_tensors(written(tmp_path, content))
    assert not sentinel.exists()
    pickle.loads(attack)  # the attack itself works
    assert sentinel.exists()


GOOD = table(weight=old())
TWO = table(weight=old(), bias=old(key="1"))
BESIDE = table(model=GOOD[2:-1], optimizer=table(step=old(key="1"))[2:-1])
BOTH = {"0": stored(NUMBERS), "1": stored(NUMBERS)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (stream(GOOD, magic=MAGIC + 1), "without PyTorch's magic number"),
        (pickle.dumps({"a": 1}), "without PyTorch's magic number"),
        (stream(GOOD, version=1002), "expected version 1001"),
        (stream(GOOD, machine={**MACHINE, "little_endian": False}), "big-endian machine.*convert it once"),
        (stream(GOOD, machine={}), "expected `little_endian`"),
        (stream(GOOD, machine=[1]), "expected `little_endian`"),
        (stream(b"\x80\x02].", {}), "expected a dict of tensors"),
        (stream(b"\x80\x02]NNs."), "refused.*other than a dict"),
        (stream(TWO), "tensor 'bias': its storage '1' is missing"),
        (stream(GOOD, keys={"0": 1}), "list of storages"),
        (stream(GOOD, keys=[0]), "list of storages"),
        (stream(GOOD, keys=["0", "0"]), "list of storages"),
        (stream(GOOD, keys=["0", "1"]), "list of storages"),
        (stream(table(weight=old(), bias=old(size=7))), "storage '0' is described as 6 float32 and as 7 float32"),
        (stream(table(weight=old(), bias=old(kind="Int"))), "storage '0' is described as 6 float32 and as 6 int32"),
        (stream(GOOD, {"0": stored(NUMBERS, 5)}), "tensor 'weight': expected a storage of 6 numbers, found 5"),
        (stream(GOOD, {"0": stored(NUMBERS, -1)}), "tensor 'weight': expected a storage of 6 numbers, found -1"),
        (stream(table(weight=old(size=7))), "tensor 'weight': expected 36 bytes.*truncated"),
        (stream(table(weight=old(size=2**62))), "tensor 'weight': expected .* bytes.*truncated"),
        (stream(table(weight=old(size=2**2000))), "impossible size"),
        (stream(table(weight=old(shape=(7,), strides=(0,)))), "'weight'.*reach outside"),
        (stream(table(weight=old(offset=1))), "'weight'.*reach outside"),
        (stream(BESIDE, {**BOTH, "1": b"\6"}), "storage '1': .*truncated"),
        (stream(BESIDE, {**BOTH, "1": stored(NUMBERS, 4)}), "storage '1': .* 4"),
        (stream(b"\x80\x02" + b"}" * 1_000_001 + b"."), "refused.*more than 1000000 instructions"),
        (stream(b"\x80\x02" + b"]0" * (MAX_PICKLE // 2)), "instructions"),
        (stream(b"\x80\x02X" + struct.pack("<I", MAX_PICKLE) + bytes(MAX_PICKLE)), "do not end within 16777216 bytes"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=f"m.bin: .*{message}") as error:
        open_tensors(written(tmp_path, content))
    assert len(str(error.value)) < 600 and time.perf_counter() - start < 10


def test_every_truncation_is_named(tmp_path: Path) -> None:
    content = stream(TWO, BOTH)
    assert set(open_torch(written(tmp_path, content))) == {"weight", "bias"}
    named = {"'weight'": 0, "'bias'": 0, "before any tensor": 0}
    for keep in range(1, len(content)):
        with pytest.raises(CheckpointError, match="m.bin: .*truncated") as error:
            open_tensors(written(tmp_path, content[:keep]))
        named[next(key for key in named if key in str(error.value))] += 1
    assert named["'bias'"] == named["'weight'"] == 8 + 24


def test_a_tar_file_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "m.pt", "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(CheckpointError, match="m.pt: a tar file, as PyTorch wrote before 0.1.10.*convert it once"):
        open_tensors(tmp_path / "m.pt")


def strange(rng: random.Random) -> bytes:
    """A file whose numbers are well-formed and mostly wrong."""
    sizes = [0, 1, 2, 3, 4, 6, 7, 2**31, 2**200, -1]
    rank = rng.randrange(4)
    view = b"(" + text("v") + integer(rng.choice([0, 1, 6, -1])) + integer(rng.choice([0, 4, 5, 6, 2**70])) + b"t"
    one = tensor(
        key=rng.choice(["0", "0", "0", "1", "2", ""]),
        shape=tuple(rng.choice(sizes) for _ in range(rank)),
        strides=tuple(rng.choice(sizes) for _ in range(rank)),
        offset=rng.choice([0, 0, 0, 1, 5, -1, 2**64]),
        size=rng.choice([6, 6, 6, 6, 7, 0, -6, 2**62, 2**70]),
        kind=rng.choice(["Float", "Float", "Float", "Half", "Double", "Bool", "QInt8"]),
        view=rng.choice([b"N", b"", view, view, b"K\x01"]),
    )
    keys = rng.choice([["0", "1"], ["0", "1"], ["1", "0"], ["0"], [], ["0", "0"], 3])
    counts = {key: stored(NUMBERS, rng.choice([6, 6, 6, 6, 0, 7, -1, 2**62])) for key in ("0", "1")}
    return stream(table(weight=one, bias=old(key="1")), counts, keys=keys)


def test_damaged_files(tmp_path: Path) -> None:
    storages = {"0": stored(NUMBERS), "1": stored(np.arange(6))}
    whole = stream(
        table(
            weight=old(),
            bias=old(key="1", shape=(4,), strides=(1,), kind="Long"),
            state_dict=table(inner=old(strides=(1, 2)))[2:-1],
            note=b"(K\x01K\x02tq\x01h\x01\x86",
        ),
        storages,
    )
    path = written(tmp_path, whole)
    assert outcome(path) == "read"
    rng = random.Random(20_26)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends: dict[str, int] = {}
    for number in range(CASES):
        match rng.randrange(4):
            case 0:
                content = strange(rng)
            case 1:
                content = whole[: rng.randrange(len(whole))]
            case _:
                content = damaged(rng, whole)
        with open(path, "r+b") as file:
            file.write(content)
            file.truncate()
        start = time.perf_counter()
        end = outcome(path)
        assert time.perf_counter() - start < 2.0, f"case {number} took too long: {end}"
        kind = re.sub(r"\d+|'.*'", "*", end)
        ends[kind] = ends.get(kind, 0) + 1
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 300 * 2**20
    # The damage must reach past the first check: some files are still whole, and the errors are of many kinds.
    assert 0 < ends["read"] < CASES * 0.8
    assert len(ends) > 20


def test_a_download_that_broke_off(data: Path) -> None:
    folder = data / "ckpt_albert_tiny_zh_partial"
    if not folder.is_dir():
        pytest.skip("the truncated checkpoint is not among the data sets")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin: tensor 'albert\.emb.*ends at 2793472: it is trunc"):
        open_tensors(folder)
