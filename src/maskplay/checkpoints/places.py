"""Where a checkpoint lies: a path, a model that comes with the package, or one on the hub."""

import os
import re
from fnmatch import fnmatch
from pathlib import Path

from maskplay import bundled
from maskplay.errors import CheckpointError, UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SAFETENSORS, _TORCH = "*.safetensors", "pytorch_model*.bin"
_HUB_FILES = ("*.json", _SAFETENSORS, _TORCH, "vocab.*", "merges.txt", "*.model", "tokenizer.bin")
_SUBFOLDERS = "*/*"  # what lies in them is another form of the model, or none


def find(source: str | os.PathLike[str]) -> Path:
    """Where a path, a bundled model or what a hub id names lies on this machine."""
    path = Path(source)
    if not os.fspath(source).strip() or "\0" in os.fspath(source):
        raise UserError(f"expected a path or a hub id, found {os.fspath(source)[:200]!r}")
    try:
        if path.exists() or Path(f"{path}.index").is_file():
            return path
    except (OSError, ValueError) as error:
        raise UserError(f"{str(source)[:200]!r}: not a path ({error})") from None
    text = os.fspath(source)
    if text.startswith("bundled:"):
        return bundled.path(text.removeprefix("bundled:"))
    if not _HUB_ID.fullmatch(text) or path.parent.is_dir():
        bare = _HUB_ID.fullmatch(f"owner/{text}") and not path.suffix
        hint = "; a hub id has its owner in front, such as google-bert/bert-base-chinese" if bare else ""
        raise UserError(f"{text}: no such file or folder{hint}")
    # The hub's library reports one cause of failure in many classes; all of them mean "not to be had from there".
    try:
        return _fetch(text)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{text}: no such file or folder, and as a hub id it cannot be fetched ({type(error).__name__}: {reason})"
        ) from None


def _fetch(repository: str) -> Path:
    """The files of a repository that `load` opens; no PyTorch where there are safetensors, which it prefers."""
    from huggingface_hub import list_repo_files, snapshot_download

    without_torch = {"allow_patterns": [*_HUB_FILES], "ignore_patterns": [_SUBFOLDERS, _TORCH]}
    try:
        files = list_repo_files(repository)
    except Exception as error:
        try:  # not to be reached, HF_HUB_OFFLINE say: what was fetched before, in whichever form
            return Path(snapshot_download(repository, **without_torch, local_files_only=True))
        except Exception:
            raise error from None
    if any(fnmatch(name, _SAFETENSORS) and not fnmatch(name, _SUBFOLDERS) for name in files):
        return Path(snapshot_download(repository, **without_torch))
    return Path(snapshot_download(repository, allow_patterns=[*_HUB_FILES], ignore_patterns=[_SUBFOLDERS]))
