"""Where a checkpoint lies: a path, a model that comes with the package, or one on the hub."""

import os
import re
from pathlib import Path

from maskplay import bundled
from maskplay.errors import CheckpointError, UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ("*.json", "*.safetensors", "pytorch_model*.bin", "vocab.*", "merges.txt", "*.model", "tokenizer.bin")


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
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(text, allow_patterns=list(_HUB_FILES)))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{text}: no such file or folder, and as a hub id it cannot be fetched ({type(error).__name__}: {reason})"
        ) from None
