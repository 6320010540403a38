"""Ten thousand damaged files: each ends in arrays or in one CheckpointError, soon, and in little memory."""

import io
import random
import re
import resource
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from checkpoints.forge import blocks, damaged, outcome, sealed, table, tensor, torch_zip
from maskplay.arrays import write_arrays
from maskplay.checkpoints import npz_files, tensorflow_bundle
from maskplay.checkpoints.sorted_table import read_table, write_table

ARRAYS = {
    "bert/embeddings/word_embeddings": np.arange(12, dtype=np.float32).reshape(3, 4),
    "bert/encoder/layer_0/attention/self/query/kernel": np.ones((2, 2), np.float16),
    "bert/pooler/dense/bias": np.zeros(3, np.int64),
    "bert/pooler/dense/flag": np.array(True),
}
CASES = 3000
SECONDS = 2.0  # for one file; a machine under load is slow
MEMORY = 300 * 2**20  # bytes for all files of one kind


def index_damage(folder: Path) -> tuple[Path, Callable[[random.Random], bytes]]:
    """Raw damage, damage under a right checksum, and damaged entries in a right table."""
    tensorflow_bundle.write(folder / "m.ckpt", ARRAYS)
    index = (folder / "m.ckpt.index").read_bytes()
    places = list(blocks(index))
    entries = read_table(index)

    def damage(rng: random.Random) -> bytes:
        match rng.randrange(3):
            case 0:
                return damaged(rng, index)
            case 1:
                return sealed(
                    damaged(rng, index[:-48]).ljust(len(index) - 48, b"\0")[: len(index) - 48] + index[-48:], places
                )
        changed = {key: damaged(rng, value) if rng.random() < 0.4 else value for key, value in entries.items()}
        return write_table(sorted(changed.items()))

    return folder / "m.ckpt.index", damage


def safetensors_damage(folder: Path) -> tuple[Path, Callable[[random.Random], bytes]]:
    """Damage to the header's text under a right length, and to the whole file."""
    write_arrays(folder / "m.safetensors", ARRAYS)
    whole = (folder / "m.safetensors").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header, data = whole[8 : 8 + size], whole[8 + size :]
    numbers = [b"-1", b"0", b"1e9", b"99999999999999999999", b"null", b"[]", b"true", b"3.5", b'"F64"', b"{}"]

    def damage(rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return damaged(rng, whole)
        text = header
        if rng.random() < 0.5:  # replace one number or word of the JSON
            digits = [at for at, byte in enumerate(text) if chr(byte).isdigit()]
            at = rng.choice(digits)
            text = text[:at] + rng.choice(numbers) + text[at + 1 :]
        else:
            text = damaged(rng, text)
        return len(text).to_bytes(8, "little") + text + data

    return folder / "m.safetensors", damage


def strange_tensor(rng: random.Random) -> bytes:
    """A tensor whose numbers are well-formed and mostly wrong."""
    sizes = [0, 1, 1, 2, 2, 3, 4, 6, 7, 2**31, 2**63, 2**200, -1]
    rank = rng.randrange(4)
    return tensor(
        key=rng.choice(["0", "0", "0", "1", "2", ""]),
        shape=tuple(rng.choice(sizes) for _ in range(rank)),
        strides=tuple(rng.choice(sizes) for _ in range(rank if rng.random() < 0.9 else 2)),
        offset=rng.choice([0, 0, 0, 1, 5, 6, -1, 2**64]),
        size=rng.choice([6, 6, 6, 7, 0, -6, 2**62]),
        kind=rng.choice(["Float", "Half", "Double", "Bool", "BFloat16", "QInt8"]),
    )


def torch_damage(folder: Path) -> tuple[Path, Callable[[random.Random], bytes]]:
    """Damage to the pickle under a right checksum, to what it says of one tensor, and to the whole zip."""
    path = folder / "m.bin"
    storages = {"0": bytes(24), "1": bytes(range(48))}
    pickle = table(
        weight=tensor(),
        bias=tensor(key="1", shape=(4,), strides=(1,), size=6, kind="Long"),
        state_dict=table(inner=tensor(strides=(1, 2)))[2:-1],
        note=b"(K\x01K\x02tq\x01h\x01\x86",
    )
    whole = torch_zip(path, pickle, storages).read_bytes()

    def damage(rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return damaged(rng, whole)
        changed = damaged(rng, pickle) if rng.random() < 0.5 else table(weight=strange_tensor(rng))
        return torch_zip(io.BytesIO(), changed, storages).getvalue()

    return path, damage


def npz_damage(folder: Path) -> tuple[Path, Callable[[random.Random], bytes]]:
    """Damage to a zip of stored and deflated arrays, its checksums set right half of the time."""
    npz_files.write(folder / "stored.npz", ARRAYS)
    np.savez_compressed(folder / "packed.npz", **ARRAYS)
    with zipfile.ZipFile(folder / "stored.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    wholes = [(folder / f"{name}.npz").read_bytes() for name in ("stored", "packed")]

    def damage(rng: random.Random) -> bytes:
        if rng.random() < 0.6:
            return damaged(rng, rng.choice(wholes))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", rng.choice((0, 8))) as archive:
            for name, content in members.items():
                archive.writestr(name, damaged(rng, content) if rng.random() < 0.4 else content)
        return out.getvalue()

    return folder / "m.npz", damage


def rewrite(path: Path, content: bytes) -> None:
    """Ten thousand times over one file: in place, since some file systems flush a file that is emptied first."""
    with open(path, "r+b") as file:
        file.write(content)
        file.truncate()


@pytest.mark.parametrize(
    ("prepare", "cases"),
    [(index_damage, CASES), (safetensors_damage, CASES), (torch_damage, CASES), (npz_damage, 1000)],
)
def test_damaged_files(tmp_path: Path, prepare: Callable, cases: int) -> None:
    path, damage = prepare(tmp_path)
    path.touch()
    rng = random.Random(20_26)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends: dict[str, int] = {}
    for number in range(cases):
        rewrite(path, damage(rng))
        start = time.perf_counter()
        end = outcome(path)
        assert time.perf_counter() - start < SECONDS, f"case {number} took too long: {end}"
        kind = re.sub(r"\d+|'.*'", "*", end)
        ends[kind] = ends.get(kind, 0) + 1
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MEMORY
    # The damage must reach past the first check: some files are still whole, and the errors are of many kinds.
    assert 0 < ends["read"] < cases * 0.8
    assert len(ends) > 10


def test_the_damage_is_seeded() -> None:
    data = zlib.compress(bytes(100))
    assert damaged(random.Random(1), data) == damaged(random.Random(1), data)
