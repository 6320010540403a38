"""What is asked of the hub, and what is found again without it. The hub's own library runs, its server does not."""

from pathlib import Path

import pytest
from huggingface_hub.utils import filter_repo_objects

import maskplay as mp
from maskplay.checkpoints.places import find

KEPT = ["config.json", "tokenizer.json", "vocab.txt"]
PASSED_OVER = ["README.md", "flax_model.msgpack", "onnx/config.json", "onnx/model.safetensors", "old/pytorch_model.bin"]


@pytest.mark.parametrize(
    "weights, fetched",
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["a-00001-of-00001.safetensors", "pytorch_model-00001-of-00001.bin"], ["a-00001-of-00001.safetensors"]),
        (["pytorch_model.bin"], ["pytorch_model.bin"]),
    ],
)
def test_only_what_is_opened_is_fetched(monkeypatch, tmp_path: Path, weights: list[str], fetched: list[str]) -> None:
    there, asked = [*KEPT, *PASSED_OVER, *weights], []

    def snapshot(repository: str, **patterns: list[str]) -> str:
        asked.extend([repository, *filter_repo_objects(there, **patterns)])
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda repository: there)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert find("owner/name") == tmp_path
    assert asked == ["owner/name", *KEPT, *fetched]


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_what_was_fetched_is_found_offline(monkeypatch, tmp_path: Path, weights: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789" * 4
    folder = tmp_path / "models--owner--name" / "snapshots" / commit
    folder.mkdir(parents=True)
    for name in ("config.json", weights):
        (folder / name).write_bytes(b"{}")
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text(commit)
    assert find("owner/name") == folder
    with pytest.raises(mp.CheckpointError, match="owner/other: no such file or folder, and as a hub id .*[Oo]ffline"):
        find("owner/other")
