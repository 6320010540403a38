"""A network as a folder in one of three dialects: the loading tables read backwards.

A folder appears whole or not at all, and an existing one is replaced only if it is ours.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskplay.arrays import write_arrays
from maskplay.checkpoints import google, huggingface, tensorflow_bundle
from maskplay.checkpoints.dialect import Table, read_config, write_config
from maskplay.checkpoints.rename import assemble
from maskplay.config import Config
from maskplay.errors import CheckpointError, UserError
from maskplay.families import FAMILIES
from maskplay.language_model import LanguageModel, weight_values
from maskplay.storage import MARKER, VERSION, new_folder
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
        family: a name of `maskplay.families`.
        tokenizer: written beside the weights when there is one.
        format: "maskplay" (safetensors, our names), "huggingface" (safetensors, config.json, vocab.txt: transformers
            opens it) or "google" (a TensorFlow checkpoint and bert_config.json: Google's code and bert4keras open it).

    Raises:
        UserError: an unknown format, or the folder's name is taken.
        CheckpointError: the format has no place for something this network has.
    """
    if format not in WRITERS:
        raise UserError(f"save: expected a format among {', '.join(FORMATS)}, found {format!r}")
    with new_folder(path) as folder:
        WRITERS[format](folder, network, family)
        if format == "huggingface":
            _say_ends(folder, family, tokenizer)
        if format != "maskplay":
            _json(folder / MARKER, {"format": format})
        if tokenizer is not None:
            tokenizer.save(folder)


def save_everywhere(folder: Path, network: LanguageModel, family: str, tokenizer: Tokenizer) -> None:
    """Write into a folder that is there what as many programs as possible open: transformers, bert4keras and maskplay.

    Safetensors with Hugging Face's names, or with ours where those cannot say everything, and where Google's can, a
    TensorFlow checkpoint beside them.
    """
    wrote = []
    for format in ("huggingface", "google"):
        with contextlib.suppress(CheckpointError):
            WRITERS[format](folder, network, family)
            wrote.append(format)
    if "huggingface" not in wrote:
        _maskplay(folder, network, family)
    else:
        _say_ends(folder, family, tokenizer)
        _json(folder / MARKER, {"format": "huggingface"})
    tokenizer.save(folder)


def _arrays(network: LanguageModel) -> dict[str, np.ndarray]:
    if any(layer.quantization_mode for layer in network._flatten_layers()):
        raise CheckpointError("save: a quantized network is Keras' own to write: network.save('name.keras')")
    return weight_values(network)


def _table(tables: tuple[Table, ...], family: str, dialect: str) -> Table:
    found = [table for table in tables if table.family == FAMILIES[family].tables]
    if not found:
        have = ", ".join(dict.fromkeys(table.family for table in tables))
        raise CheckpointError(f"save: {dialect} has no names for {family}, only for {have}; save as maskplay")
    return found[0]


def _renamed(arrays: Mapping[str, np.ndarray], config: Config, table: Table) -> dict[str, np.ndarray]:
    by_name = {row.ours: row for row in table.rows(config)}
    if strange := [name for name in arrays if name not in by_name]:
        raise CheckpointError(
            f"save: {table.dialect}'s {table.family} has no place for {strange[0]}"
            f"{f' and {len(strange) - 1} more' if len(strange) > 1 else ''}; save as maskplay"
        )
    try:
        return assemble((by_name[name], array) for name, array in arrays.items())
    except ValueError as error:
        raise CheckpointError(f"save: {table.dialect} has one {error} where this network has several") from None


def _in_halves(config: Config, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Queries and keys whose neighbouring channels turn together, reordered so that those half a head apart do.

    The same model: llama2.c keeps it in the one order, transformers in the other.
    """
    reordered = dict(arrays)
    for name, kernel in arrays.items():
        if name.endswith(("/attention/query/kernel", "/attention/key/kernel")):
            pairs = kernel.reshape(len(kernel), -1, config.size_per_key // 2, 2)
            reordered[name] = np.ascontiguousarray(pairs.swapaxes(2, 3)).reshape(kernel.shape)
    return reordered


def _check_config(values: Mapping[str, Any], config: Config, family: str, dialect: str) -> None:
    """Refuse what the dialect's config file cannot say."""
    back = read_config(values, family, "config", own_scores=config.scores.startswith("own"))
    for field in dataclasses.fields(Config):
        if field.name == "initializer_range":  # of weights that are not drawn again
            continue
        value, read = getattr(config, field.name), getattr(back, field.name)
        if value != read:
            raise CheckpointError(
                f"save: {dialect}'s config file of {family} cannot say {field.name} = {value!r} (it would be read as "
                f"{read!r}); save as maskplay"
            )


def _json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _maskplay(folder: Path, network: LanguageModel, family: str) -> None:
    description = {
        "format": "maskplay",
        "version": VERSION,
        "family": family,
        "heads": list(network.heads),
        "config": network.config.to_dict(),
    }
    _json(folder / MARKER, description)
    write_arrays(folder / "model.safetensors", _arrays(network))


def _huggingface(folder: Path, network: LanguageModel, family: str) -> None:
    name, config, arrays = FAMILIES[family].tables, network.config, _arrays(network)
    if name == "llama" and config.position == "rotary":
        config, arrays = config.but(position="rotary_halves"), _in_halves(config, arrays)
    values = huggingface.config_file(config, name, network.heads)
    _check_config(values, config, name, "huggingface")
    tensors = _renamed(arrays, config, _table(huggingface.TABLES, family, "huggingface"))
    if name == "roformer":
        tensors["roformer.encoder.embed_positions.weight"] = huggingface.rotary_table(config)
    _json(folder / "config.json", values)
    write_arrays(folder / "model.safetensors", tensors, metadata={"format": "pt"})


def _say_ends(folder: Path, family: str, tokenizer: Tokenizer | None) -> None:
    """Where text begins and ends, for transformers' `generate`, which otherwise takes ids of its own."""
    if tokenizer is not None and "lm" in FAMILIES[family].heads:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        ends = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        _json(folder / "config.json", values | {name: number for name, number in ends.items() if number is not None})


def _google(folder: Path, network: LanguageModel, family: str) -> None:
    tensors = _renamed(_arrays(network), network.config, _table(google.TABLES, family, "google"))
    values = write_config(network.config, family)
    _check_config(values, network.config, family, "google")
    _json(folder / "bert_config.json", values)
    tensorflow_bundle.write(folder / "bert_model.ckpt", tensors)


WRITERS: dict[str, Callable[[Path, LanguageModel, str], None]] = {
    "maskplay": _maskplay,
    "huggingface": _huggingface,
    "google": _google,
}
