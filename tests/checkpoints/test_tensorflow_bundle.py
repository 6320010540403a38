"""TensorFlow checkpoints: those TensorFlow wrote, those we write, and what must be refused."""

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from checkpoints.forge import blocks
from checkpoints.test_snappy import compress
from maskplay.checkpoints import tensorflow_bundle
from maskplay.checkpoints.crc32c import masked_crc32c
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.sorted_table import _FOOTER, _written, read_table, read_varint, varint, write_table
from maskplay.checkpoints.tensorflow_bundle import open_bundle, write
from maskplay.errors import CheckpointError
from maskplay.protobuf import write_field

BUNDLES = Path(__file__).parents[1] / "data" / "tf_bundles"
DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ml_dtypes.bfloat16]


def counting(shape: tuple[int, ...], dtype: object) -> np.ndarray:
    """The numbers tests/data/make_tf_bundles.py saved."""
    numbers = np.arange(np.prod(shape, dtype=int)) / 2
    return (numbers > 0.5 if dtype == "?" else numbers.astype(dtype)).reshape(shape)


@pytest.mark.parametrize("verify", [True, False])
def test_variables_saved_by_name(verify: bool) -> None:
    tensors = open_bundle(BUNDLES / "named" / "bert_model.ckpt", verify)
    expected = {
        "bert/embeddings/word_embeddings": counting((5, 4), "f4"),
        "bert/pooler/dense/bias": counting((4,), "f2"),
        "bert/pooler/dense/kernel": counting((4, 4), ml_dtypes.bfloat16),
        "counts": counting((3,), "i4"),
        "double": counting((2, 1, 3), "f8"),
        "empty": counting((0, 3), "f4"),
        "flags": counting((3,), "?"),
        "scalar": counting((), "f4"),
    }
    assert tensors.names() == list(expected)
    assert tensors.container == "tensorflow"
    for name, array in expected.items():
        assert tensors.shape(name) == tensors[name].shape == array.shape
        assert tensors.dtype(name) == tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)
    assert set(tensors.skipped) == {"bert/embeddings/word_embeddings/adam_m", "global_step"}


def test_objects_saved_by_tf2() -> None:
    tensors = open_bundle(BUNDLES / "objects" / "model.ckpt-7")
    assert tensors.names() == ["dense/bias", "dense/kernel"]
    np.testing.assert_array_equal(tensors["dense/bias"], counting((2,), "f4"))
    assert tensors.skipped["_CHECKPOINTABLE_OBJECT_GRAPH"] == "a string, not numbers"
    assert sum(reason == "the optimizer's state" for reason in tensors.skipped.values()) == 4


def test_partitioned_variables_are_refused() -> None:
    with pytest.raises(CheckpointError, match="'table' is partitioned"):
        open_bundle(BUNDLES / "partitioned" / "model.ckpt")


@pytest.mark.parametrize(
    "name",
    [
        *("a/adam_m", "a/adam_v", "a/kernel_slot_v", "a/kernel_slot_vr", "a/kernel_slot_vc", "a/lamb_m", "a/lamb_v"),
        *("a/AdamWeightDecayOptimizer", "a/AdamWeightDecayOptimizer_1", "a/Adam", "a/Adam_1", "global_step"),
        *("beta1_power", "optimizer/iter", "training/Adam/x", "a/.OPTIMIZER_SLOT/optimizer/m"),
    ],
)
def test_optimizer_state_is_skipped_and_said_so(tmp_path: Path, name: str) -> None:
    write(tmp_path / "m.ckpt", {name: np.zeros(2), "a/kernel": np.ones(2)})
    tensors = open_bundle(tmp_path / "m.ckpt")
    assert tensors.names() == ["a/kernel"] and tensors.skipped == {name: "the optimizer's state"}


@pytest.mark.parametrize("name", ["a/slotted", "adam_model/kernel", "a/Adamant", "bert/embeddings/global_steps"])
def test_names_like_an_optimizers_are_kept(tmp_path: Path, name: str) -> None:
    write(tmp_path / "m.ckpt", {name: np.zeros(2)})
    assert open_bundle(tmp_path / "m.ckpt").names() == [name]


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)
ARRAYS = st.sampled_from(DTYPES[:-1]).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(st.dictionaries(NAMES, ARRAYS, max_size=40))
def test_round_trip(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    write(tmp_path / "m.ckpt", tensors)
    table = read_table((tmp_path / "m.ckpt.index").read_bytes())
    assert list(table) == [b"", *sorted(name.encode() for name in tensors)]
    back = open_tensors(tmp_path)
    assert set(back) | set(back.skipped) == {name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for name in tensors}
    for name in back:
        assert back[name].dtype == tensors[name].dtype and back[name].shape == tensors[name].shape
        assert back[name].tobytes() == tensors[name].tobytes()


def some(dtype: object) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = [(), (3,), (0, 2), (2, 3, 4), (40, 500)]
    return {f"v/{'x'.join(map(str, s))}": (rng.random(s) * 100).astype(dtype) for s in shapes}


@pytest.mark.parametrize("dtype", [*DTYPES, ">f4", ">i8"])
def test_tensorflow_opens_what_we_write(tmp_path: Path, dtype: object) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    tensors = some(dtype)
    write(tmp_path / "model.ckpt", tensors)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "model.ckpt")
    reader = tf.train.load_checkpoint(str(tmp_path))
    assert set(reader.get_variable_to_shape_map()) == set(tensors)
    ours = open_tensors(tmp_path)
    for name, array in tensors.items():
        theirs = reader.get_tensor(name)
        assert np.shape(theirs) == array.shape == ours[name].shape
        np.testing.assert_array_equal(theirs, array)
        np.testing.assert_array_equal(ours[name], array)


def test_tensorflow_finds_every_variable_of_a_large_index(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    tensors = {f"layer_{i}/kernel": np.full(3, i, np.float32) for i in range(1000)}
    write(tmp_path / "model.ckpt", tensors)
    reader = tf.train.load_checkpoint(str(tmp_path / "model.ckpt"))
    for name in tensors:
        assert reader.get_tensor(name)[0] == tensors[name][0]


def test_views_and_orders_are_written_as_they_look(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write(tmp_path / "m.ckpt", {"t": array.T, "s": array[:, ::2], "f": np.asfortranarray(array)})
    back = open_bundle(tmp_path / "m.ckpt")
    np.testing.assert_array_equal(back["t"], array.T)
    np.testing.assert_array_equal(back["s"], array[:, ::2])
    np.testing.assert_array_equal(back["f"], array)


def test_arrays_are_mapped_read_only_and_aligned(tmp_path: Path) -> None:
    write(tmp_path / "m.ckpt", {"a": np.zeros(3, np.int8), "b": np.ones(4, np.float32), "c": np.ones(1, np.int8)})
    tensors = open_bundle(tmp_path / "m.ckpt")
    assert all(tensors[name].flags.aligned for name in tensors)
    write(tmp_path / "n.ckpt", {"b": np.ones(4, np.float32)})
    assert not open_bundle(tmp_path / "n.ckpt")["b"].flags.writeable


@pytest.mark.parametrize(
    "tensors",
    [
        {"": np.zeros(1)},
        {"\0a": np.zeros(1)},
        {"\ud800": np.zeros(1)},
        {3: np.zeros(1)},
        {"a": np.zeros(1, complex)},
        {"a": np.array(["text"])},
        {"a": np.array([object()])},
    ],
)
def test_refuses_to_write(tmp_path: Path, tensors: dict) -> None:
    with pytest.raises(CheckpointError, match="cannot be"):
        write(tmp_path / "m.ckpt", tensors)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m.ckpt", {"a": np.zeros(2)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tensorflow_bundle, "masked_crc32c", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "m.ckpt", {"a": np.ones(2)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def entry(dtype: int = 1, shape: tuple[int, ...] = (2,), offset: int = 0, size: int = 8, more: bytes = b"") -> bytes:
    sizes = b"".join(write_field(2, write_field(1, one)) for one in shape)
    return write_field(1, dtype) + write_field(2, sizes) + write_field(4, offset) + write_field(5, size) + more


HEADER = write_field(1, 1)


def bundle(folder: Path, *entries: tuple[bytes, bytes], header: bytes = HEADER, data: bytes = bytes(8)) -> Path:
    """A checkpoint with these entries in its index."""
    (folder / "m.ckpt.index").write_bytes(write_table([(b"", header), *entries]))
    (folder / "m.ckpt.data-00000-of-00001").write_bytes(data)
    return folder / "m.ckpt"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": 1}, "the file ends at 8"),
        ({"offset": 2**63}, "the file ends at 8"),
        ({"shape": (2**40,), "size": 2**42}, "the file ends at 8"),
        ({"shape": (3,)}, "cannot hold"),
        ({"shape": (2**32, 2**32)}, "impossible shape"),
        ({"shape": (0, 2**62), "size": 0}, "impossible shape"),
        ({"shape": (2**64 - 1,)}, "impossible shape"),
        ({"shape": (1,) * 40}, "40 dimensions"),
        ({"more": write_field(3, 1)}, "in data file 1 of 1"),
        ({"more": b"\x0b"}, "damaged entry"),
        ({"more": b"\x12\xff\x01"}, "damaged entry"),
        ({"more": b"\x08" + b"\xff" * 11}, "damaged entry"),
    ],
)
def test_impossible_entries(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        open_bundle(bundle(tmp_path, (b"a/kernel", entry(**changes))))
    assert "'a/kernel'" in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (write_field(1, 1) + write_field(2, 1), "big-endian"),
        (write_field(1, 0), "claims 0 data files"),
        (write_field(1, 2**40), "data files"),
        (write_field(1, 1) + write_field(3, write_field(1, 9) + write_field(2, 2)), "newer reader"),
    ],
)
def test_impossible_headers(tmp_path: Path, header: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_bundle(bundle(tmp_path, (b"a", entry()), header=header))


def test_other_dtypes_are_skipped(tmp_path: Path) -> None:
    assert open_bundle(bundle(tmp_path, (b"a", entry(8)))).skipped == {"a": "TensorFlow's dtype 8 is not supported"}


def test_a_changed_tensor_is_noticed_when_read_unless_told_not_to(tmp_path: Path) -> None:
    write(tmp_path / "m.ckpt", {"a": np.zeros(4), "b": np.zeros(4)})
    data = tmp_path / "m.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[40] ^= 1
    data.write_bytes(content)
    tensors = open_bundle(tmp_path / "m.ckpt")
    tensors["a"]
    with pytest.raises(CheckpointError, match="'b': its bytes do not match their checksum"):
        tensors["b"]
    assert open_bundle(tmp_path / "m.ckpt", verify=False)["b"].shape == (4,)


@pytest.mark.parametrize("moment", ["before opening", "before reading", "between two reads"])
def test_a_truncated_data_file_never_crashes(tmp_path: Path, moment: str) -> None:
    write(tmp_path / "m.ckpt", {"a": np.zeros(4), "b": np.zeros(5000)})
    data = tmp_path / "m.ckpt.data-00000-of-00001"
    tensors = open_bundle(tmp_path / "m.ckpt") if moment != "before opening" else None
    if tensors is not None and moment == "between two reads":
        tensors["b"]
    os.truncate(data, 100)
    with pytest.raises(CheckpointError, match=data.name):
        (tensors or open_bundle(tmp_path / "m.ckpt"))["b"]


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "m.ckpt", {"a": np.zeros(4)})
    (tmp_path / "m.ckpt.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match="m.ckpt.data-00000-of-00001: cannot be read"):
        open_bundle(tmp_path / "m.ckpt")


def test_two_names_that_become_one(tmp_path: Path) -> None:
    write(tmp_path / "m.ckpt", {"a": np.zeros(1), "a/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(1)})
    with pytest.raises(CheckpointError, match="two variables are named 'a'"):
        open_bundle(tmp_path / "m.ckpt")


def test_a_snappy_index_is_read(tmp_path: Path) -> None:
    expected = {f"encoder/block_{i:03d}/kernel": np.full(2, i, np.float32) for i in range(30)}
    write(tmp_path / "m.ckpt", expected)
    plain = (tmp_path / "m.ckpt.index").read_bytes()
    out = bytearray()
    handles = []
    for offset, size in blocks(plain):
        content = plain[offset : offset + size]
        if handles:  # the index block must name the data block's new size
            content = content.replace(varint(0) + varint(next(blocks(plain))[1]), handles[0])
        packed = compress(content)
        handles.append(varint(len(out)) + varint(len(packed)))
        checked = packed + b"\x01"
        out += checked + masked_crc32c(checked).to_bytes(4, "little")
    footer = (handles[1] + handles[2]).ljust(_FOOTER - 8, b"\0") + plain[-8:]
    (tmp_path / "m.ckpt.index").write_bytes(bytes(out) + footer)
    assert len(out) < len(plain)
    tensors = open_bundle(tmp_path / "m.ckpt")
    assert tensors.names() == list(expected)
    assert all(tensors[name][0] == expected[name][0] for name in expected)


def test_repeated_and_unsorted_keys_are_refused(tmp_path: Path) -> None:
    for keys in ([b"a", b"a"], [b"b", b"a"]):
        with pytest.raises(CheckpointError, match="repeated or out of order"):
            open_bundle(bundle(tmp_path, *((key, entry()) for key in keys)))


def laid_out(*data: bytes, handles: list[int] | None = None) -> bytes:
    """A table of these data blocks; `handles` says to which of them the index points, in turn."""
    out = bytearray()

    def add(block: bytes) -> bytes:
        handle = varint(len(out)) + varint(len(block))
        out.extend(block + b"\0" + masked_crc32c(block + b"\0").to_bytes(4, "little"))
        return handle

    places = [add(block) for block in data]
    index = [(bytes([number]), places[to]) for number, to in enumerate(handles or range(len(data)))]
    footer = add(_written([])[0]) + add(_written(index)[0])
    return bytes(out) + footer.ljust(_FOOTER - 8, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def test_several_data_blocks() -> None:
    entries = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    assert read_table(laid_out(*(_written([one])[0] for one in entries))) == dict(entries)


def test_small_indexes_that_unfold_without_end_are_refused() -> None:
    first = varint(0) + varint(4000) + varint(0) + b"k" * 4000
    growing = b"".join(varint(4000) + varint(3) + varint(0) + number.to_bytes(3, "big") for number in range(20_000))
    packed = laid_out(first + growing + bytes(4) + (1).to_bytes(4, "little"))
    assert len(packed) < 200_000
    with pytest.raises(ValueError, match="unfolds to more"):
        read_table(packed)
    with pytest.raises(ValueError, match="too long"):
        read_table(write_table([(b"k" * 5000, b"")]))
    with pytest.raises(ValueError, match="entries"):
        read_table(write_table((number.to_bytes(3, "big"), b"") for number in range(100_001)))


def test_one_block_cannot_be_read_many_times() -> None:
    with pytest.raises(ValueError, match="overlaps the one before"):
        read_table(laid_out(_written([])[0], handles=[0, 0]))


def test_a_changed_index_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "m.ckpt", {"a/kernel": np.zeros(4)})
    index = tmp_path / "m.ckpt.index"
    content = index.read_bytes()
    data_block, _, index_block = blocks(content)
    for offset, size in (data_block, index_block):
        for place in (offset, offset + size // 2, offset + size, offset + size + 4):  # the last two: compression, CRC
            changed = bytearray(content)
            changed[place] ^= 1
            index.write_bytes(changed)
            with pytest.raises(CheckpointError, match=f"the block at {offset} does not match its checksum"):
                open_bundle(tmp_path / "m.ckpt")


@pytest.mark.parametrize("value", [0, 1, 127, 128, 2**32, 2**64 - 1])
def test_varints(value: int) -> None:
    data = varint(value)
    assert read_varint(data, 0) == (value, len(data))
    with pytest.raises(ValueError, match="ends within a number"):
        read_varint(data[:-1], 0)


def test_varints_of_more_than_64_bits() -> None:
    for data in (varint(2**64), b"\xff" * 11):
        with pytest.raises(ValueError, match="more than 64 bits"):
            read_varint(data, 0)


@pytest.mark.parametrize("keep", [0, 7, 47, 48, 60, -1])
def test_truncated_indexes(tmp_path: Path, keep: int) -> None:
    write(tmp_path / "m.ckpt", {"a": np.zeros(4)})
    index = tmp_path / "m.ckpt.index"
    index.write_bytes(index.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="m.ckpt.index: not the index of a TensorFlow checkpoint, or truncated"):
        open_bundle(tmp_path / "m.ckpt")
