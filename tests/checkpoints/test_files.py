"""Which file a path means, and what is said when it means none."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from checkpoints.forge import table, tensor, torch_zip
from maskplay.arrays import write_arrays
from maskplay.checkpoints import npz_files, tensorflow_bundle
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.tensors import LazyTensor, MappedFile, Tensors
from maskplay.errors import CheckpointError

ONE = {"a": np.ones(6, np.float32)}


def put_tensorflow(folder: Path) -> None:
    tensorflow_bundle.write(folder / "bert_model.ckpt", ONE)


def put_safetensors(folder: Path) -> None:
    write_arrays(folder / "model.safetensors", ONE)


def put_torch(folder: Path) -> None:
    torch_zip(folder / "pytorch_model.bin", table(a=tensor()), {"0": ONE["a"].tobytes()})


def put_npz(folder: Path) -> None:
    npz_files.write(folder / "weights.npz", ONE)


def test_a_folder_prefers_the_safest_container(tmp_path: Path) -> None:
    for put, container in [
        (put_npz, "npz"),
        (put_tensorflow, "tensorflow"),
        (put_torch, "torch"),
        (put_safetensors, "safetensors"),
    ]:
        put(tmp_path)
        tensors = open_tensors(tmp_path)
        assert tensors.container == container and tensors.names() == ["a"]


@pytest.mark.parametrize("name", ["bert_model.ckpt", "model.ckpt-123", "xlnet_model.ckpt", "step.10"])
def test_every_way_to_name_a_bundle(tmp_path: Path, name: str) -> None:
    tensorflow_bundle.write(tmp_path / name, ONE)
    (tmp_path / f"{name}.meta").touch()
    for path in ("", "checkpoint", name, f"{name}.index", f"{name}.data-00000-of-00001", f"{name}.meta"):
        tensors = open_tensors(tmp_path / path)
        assert tensors.path == tmp_path / name and tensors["a"].sum() == 6
    (tmp_path / "checkpoint").unlink()
    assert open_tensors(str(tmp_path)).names() == ["a"]


def test_the_text_file_chooses_among_several_bundles(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        tensorflow_bundle.write(tmp_path / f"model.ckpt-{step}", ONE)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/data/train/model.ckpt-2"\n')
    assert open_tensors(tmp_path).path.name == "model.ckpt-2"
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"\n')
    with pytest.raises(CheckpointError, match="3 checkpoints .*give the path of one of them"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("content", ["", "model_checkpoint_path: 3", 'model_checkpoint_path: ".."', "\xff" * 100])
def test_a_text_file_that_names_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "checkpoint").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match="checkpoint: expected a line"):
        open_tensors(tmp_path / "checkpoint")


@pytest.mark.parametrize("names", [["a.safetensors", "b.safetensors"], ["a.npz", "b.npz"], ["a.pt", "b.pth"]])
def test_several_files_are_not_guessed_at(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=f"2 checkpoints .*'{names[0]}'"):
        open_tensors(tmp_path)


def sharded(folder: Path, weights: object, name: str = "model.safetensors.index.json") -> Path:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    return folder / name


def test_sharded_safetensors(tmp_path: Path) -> None:
    for part in (1, 2):
        arrays = {f"a{part}": np.full(2, part), "extra": np.zeros(1)}
        write_arrays(tmp_path / f"model-{part}.safetensors", arrays)
    path = sharded(tmp_path, {f"a{part}": f"model-{part}.safetensors" for part in (1, 2)})
    for given in (path, tmp_path):
        tensors = open_tensors(given)
        assert tensors.container == "safetensors" and tensors.path == path
        assert tensors.names() == ["a1", "a2"] and tensors["a2"].tolist() == [2, 2]
        assert tensors.skipped == {"extra": "in model-2.safetensors, but not in the index"}


def test_sharded_torch(tmp_path: Path) -> None:
    for part in (1, 2):
        torch_zip(tmp_path / f"pytorch_model-{part}.bin", table(**{f"a{part}": tensor()}), {"0": bytes(24)})
    sharded(tmp_path, {f"a{p}": f"pytorch_model-{p}.bin" for p in (1, 2)}, "pytorch_model.bin.index.json")
    tensors = open_tensors(tmp_path)
    assert tensors.container == "torch" and tensors.names() == ["a1", "a2"]


@pytest.mark.parametrize(
    "file",
    [
        *("../model.safetensors", "/etc/passwd", "..", ".", "", "sub/model.safetensors", "..\\model.safetensors"),
        *("C:\\model.safetensors", "C:model.safetensors", "a\0b", "a\nb", "x" * 300, 3, None, ["model.safetensors"]),
        "model.safetensors.index.json",
    ],
)
def test_shards_outside_the_folder_are_refused(tmp_path: Path, file: object) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        write_arrays(place / "model.safetensors", ONE)
    with pytest.raises(CheckpointError, match="is not the name of a file beside it"):
        open_tensors(sharded(folder, {"a": file}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"weight_map": 3}', "expected a `weight_map`"),
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"weight_map": {"a": "missing.safetensors"}}', "names the file 'missing.safetensors', which is missing"),
        ('{"weight_map": {"b": "one.safetensors"}}', "tensor 'b' is not in 'one.safetensors'"),
        ('{"weight_map": {}}', "expected files of one kind"),
        ('{"weight_map": {"a": "one.npz"}}', "expected files of one kind"),
        ('{"weight_map": {"a": "pipe"}}', "names the file 'pipe', which is missing"),
    ],
)
def test_damaged_indexes_of_shards(tmp_path: Path, content: str, message: str) -> None:
    write_arrays(tmp_path / "one.safetensors", ONE)
    npz_files.write(tmp_path / "one.npz", ONE)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / "m.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        open_tensors(tmp_path / "m.safetensors.index.json")


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder; expected a TensorFlow checkpoint"):
        open_tensors(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="no checkpoint in this folder: .*found no files"):
        open_tensors(tmp_path)
    (tmp_path / "vocab.txt").touch()
    with pytest.raises(CheckpointError, match="no checkpoint in this folder: .*found 'vocab.txt'"):
        open_tensors(tmp_path)
    for path in ("a\0b", "x" * 5000, "\ud800"):
        with pytest.raises(CheckpointError):
            open_tensors(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.bin", b"", "found 0 bytes"),
        ("readme.md", b"# A title", "found a file that begins b'# A titl'"),
        ("llama.bin", bytes(100), "not a checkpoint"),
        ("model.tar.gz", b"\x1f\x8b" + bytes(9), "an archive; unpack it"),
        ("model.safetensors", b"<html>not found</html>", "not a safetensors file"),
        ("model.ckpt.index", b"x" * 100, "not a sorted table|footer is missing"),
        ("model.zip", b"PK" + bytes(99), "not a zip file, or truncated"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        open_tensors(tmp_path / name)
    assert name.removesuffix(".index") in str(error.value)


def test_a_zip_of_a_checkpoint_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("chinese_L-12/bert_model.ckpt.index", b"")
    with pytest.raises(CheckpointError, match="an archive; unpack it and give the folder"):
        open_tensors(tmp_path / "m.zip")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("notes.txt", b"")
    with pytest.raises(CheckpointError, match="a zip file that holds no checkpoint"):
        open_tensors(tmp_path / "m.zip")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    put_npz(tmp_path)
    (tmp_path / "weights.npz").chmod(0)
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_tensors(tmp_path)


def test_tensors_are_a_mapping_that_reads_on_demand() -> None:
    reads = []
    lazy = LazyTensor((2,), np.dtype("f4"), lambda: reads.append(1) or np.zeros(2, np.float32))
    tensors = Tensors("m.npz", "npz", {"b": lazy, "a": lazy}, {"c": "a reason"})
    assert list(tensors) == ["a", "b"] and len(tensors) == 2 and "a" in tensors and "c" not in tensors
    assert tensors.shape("a") == (2,) and tensors.dtype("a") == np.float32 and reads == []
    assert tensors["a"].shape == (2,) and len(reads) == 1
    assert repr(tensors) == "Tensors('m.npz', 'npz', 2 tensors, 1 skipped)"
    with pytest.raises(KeyError):
        tensors["c"]


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(bytes(20_000))
    file = MappedFile(path)
    assert len(file.bytes(0, 10, "x")) == 10
    os.truncate(path, 10)
    with pytest.raises(CheckpointError, match="cut short since it was opened"):
        file.bytes(0, 10, "x")


@pytest.mark.parametrize(
    ("folder", "count", "skipped"),
    [("keras-bert/test_checkpoint", 46, 93), ("keras-gpt-2/toy_checkpoint", 40, 0), ("keras-xlnet", 33, 0)],
)
def test_real_toy_checkpoints(data: Path, folder: str, count: int, skipped: int) -> None:
    place = data / "ckpt_toy_tf" / folder
    if not place.is_dir():
        pytest.skip(f"{folder} is not among the data sets")
    tensors = open_tensors(place if folder != "keras-xlnet" else place / "test_checkpoint_pre")
    assert (tensors.container, len(tensors), len(tensors.skipped)) == ("tensorflow", count, skipped)
    assert all(np.isfinite(array).all() for array in tensors.values())
    if folder.startswith("keras-bert"):
        assert tensors.shape("bert/embeddings/word_embeddings") == (15, 4)
        assert "global_step" in tensors.skipped
