"""A network as a folder in one of three dialects: the loading tables read backwards.

A folder appears whole or not at all, and an existing one is replaced only if it is ours.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from maskplay.checkpoints import google, huggingface, safetensors_files, tensorflow_bundle
from maskplay.checkpoints.rename import rows
from maskplay.errors import UserError
from maskplay.language_model import LanguageModel, named_weights
from maskplay.storage import MARKER, new_folder
from maskplay.text.tokenizer import Tokenizer

FORMATS = ("maskplay", "huggingface", "google")


def save(
    path: str | os.PathLike[str],
    network: LanguageModel,
    family: str,
    tokenizer: Tokenizer | None = None,
    format: str = "maskplay",
) -> None:
    """Write a network and its tokenizer.

    Args:
        path: the folder to make.
        network: the weights; written as float32.
        family: "bert" or "roformer".
        tokenizer: written beside the weights when there is one.
        format: "maskplay" (safetensors, our names), "huggingface" (safetensors, config.json, vocab.txt: transformers
            opens it) or "google" (a TensorFlow checkpoint and bert_config.json: Google's code and bert4keras open it).

    Raises:
        UserError: an unknown format, or the folder's name is taken.
        CheckpointError: the format has no place for something this network has.
    """
    writers: dict[str, Callable[[Path, LanguageModel, str], None]] = {
        "maskplay": _maskplay,
        "huggingface": _huggingface,
        "google": _google,
    }
    if format not in writers:
        raise UserError(f"save: expected a format among {', '.join(FORMATS)}, found {format!r}")
    with new_folder(path) as folder:
        if format != "maskplay":
            (folder / MARKER).write_text(json.dumps({"format": format}) + "\n", encoding="utf-8")
        writers[format](folder, network, family)
        if tokenizer is not None:
            tokenizer.save(folder)


def _arrays(network: LanguageModel) -> dict[str, np.ndarray]:
    return {name: np.asarray(weight.numpy(), "float32") for name, weight in named_weights(network).items()}


def _renamed(network: LanguageModel, table: dict[str, str]) -> dict[str, np.ndarray]:
    arrays = _arrays(network)
    by_name = {row.ours: row for row in rows(table, network.config.num_layers)}
    return {by_name[name].theirs: by_name[name].write(array) for name, array in arrays.items()}


def _json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _maskplay(folder: Path, network: LanguageModel, family: str) -> None:
    description = {
        "format": "maskplay",
        "version": 1,
        "family": family,
        "heads": list(network.heads),
        "config": network.config.to_dict(),
    }
    _json(folder / MARKER, description)
    safetensors_files.write(folder / "model.safetensors", _arrays(network))


def _huggingface(folder: Path, network: LanguageModel, family: str) -> None:
    _json(folder / "config.json", huggingface.config_file(network.config, family, network.heads))
    tensors = _renamed(network, huggingface.table_to_write(family))
    if family == "roformer":
        tensors["roformer.encoder.embed_positions.weight"] = huggingface.rotary_table(network.config)
    safetensors_files.write(folder / "model.safetensors", tensors, metadata={"format": "pt"})


def _google(folder: Path, network: LanguageModel, family: str) -> None:
    _json(folder / "bert_config.json", google.config_file(network.config, family))
    tensorflow_bundle.write(folder / "bert_model.ckpt", _renamed(network, dict(google.GOOGLE.tables[family])))
