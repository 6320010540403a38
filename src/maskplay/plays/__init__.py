"""The plays: one technique a file, each a `keras.Model` on top of an encoder; a saved one is a folder."""

import os
from pathlib import Path
from typing import Any

from maskplay.errors import CheckpointError
from maskplay.plays.classify import Classify
from maskplay.plays.pretrain import Pretrain
from maskplay.storage import MARKER, read_marker

__all__ = ["Classify", "Pretrain", "load"]

PLAYS = {"classify": Classify}


def load(folder: str | os.PathLike[str], segmenter: Any = None) -> Any:
    """Open a folder that a play's `save` wrote: the play with its labels, tokenizer and weights.

    Args:
        folder: what `save` wrote.
        segmenter: the function that cuts text into words, where the tokenizer has one of your own (see `Tokenizer`).

    Raises:
        CheckpointError: not a saved play, of a kind this version does not know, or damaged.
        UserError: written by a newer maskplay.

    Example:
        >>> load("no/such/folder")
        Traceback (most recent call last):
        maskplay.errors.CheckpointError: no/such/folder: expected a folder written by a play's save, with maskplay.json
    """
    folder = Path(folder)
    if not (folder / MARKER).is_file():
        raise CheckpointError(f"{folder}: expected a folder written by a play's save, with {MARKER}")
    description = read_marker(folder)
    if description.get("format") != "play" or description.get("play") not in PLAYS:
        if description.get("format") != "play":
            found = "a checkpoint, which is trained first: maskplay fit classify FILE --model CHECKPOINT --out NAME"
        else:
            found = f"{description.get('play')!r}"
        raise CheckpointError(f"{folder / MARKER}: expected a saved play, one of {', '.join(PLAYS)}; found {found}")
    return PLAYS[description["play"]].open(folder, description, segmenter)
