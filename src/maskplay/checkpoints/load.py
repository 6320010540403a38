"""From a path to a network: find the config, recognise the dialect, match, edit the vocabulary, assign.

Every tensor is accounted for: the report says what was filled, left empty, left over and passed over, and a mismatch is
an error unless the caller says `strict=False`.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskplay.checkpoints.dialect import Dialect, read_config
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.match import Match, match, recognise, refuse, refuse_strangers
from maskplay.checkpoints.tensors import LazyTensor, Tensors
from maskplay.checkpoints.zip_members import ZipMembers
from maskplay.config import Config
from maskplay.errors import CheckpointError, UserError
from maskplay.language_model import LanguageModel, named_weights
from maskplay.storage import JSON_LIMIT, MARKER, read_json

CHANGEABLE = ("position", "activation", "norm_epsilon", "dropout", "attention_dropout", "pooler_activation")

Compound = Sequence[int] | tuple[Sequence[int], Sequence[float]]


@dataclass(frozen=True)
class Described:
    """A checkpoint that was opened and understood, before any array is read."""

    tensors: Tensors
    config: Config
    config_path: Path | None
    dialect: Dialect
    match: Match


def describe(
    source: str | os.PathLike[str] | Mapping[str, np.ndarray],
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    heads: Iterable[str] | None = None,
) -> Described:
    """Open a checkpoint, find its config, recognise and match it.

    Args:
        source: a path that `open_tensors` takes, or arrays by name.
        config: a config file, its content, or a `Config`; None looks beside the checkpoint for `maskplay.json`,
            `config.json`, `bert_config.json`, or a single other `*config*.json`.
        heads: the heads wanted, None for those the file has.

    Raises:
        CheckpointError: not a checkpoint, no config, or a family that is not opened.
    """
    tensors = open_tensors(source) if isinstance(source, str | os.PathLike) else _from_memory(source)
    refuse_strangers(tensors)
    path = None
    if config is None:
        if not isinstance(source, str | os.PathLike):
            raise UserError("arrays given by name need a config: pass config=…")
        path = tensors.path
        config = _config_inside(path) if path.suffix == ".keras" else None
        if config is None:
            path = _config_beside(Path(source))
            config = read_json(path)
    elif isinstance(config, str | os.PathLike):
        path = Path(config)
        config = read_json(path)
    if isinstance(config, Config):
        hint: Mapping[str, Any] = {"family": "roformer" if config.position == "rotary" else "bert"}
        family, dialect = recognise(tensors, hint)
        choices = config
    else:
        family, dialect = recognise(tensors, config)
        if isinstance(config.get("config"), Mapping):
            choices = Config.from_dict(dict(config["config"]))
        else:
            choices = read_config(config, family, str(path or "config"))
    return Described(tensors, choices, path, dialect, match(tensors, family, dialect, choices, heads))


def load_network(
    source: str | os.PathLike[str] | Mapping[str, np.ndarray],
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    heads: Iterable[str] | None = None,
    strict: bool = True,
    keep_tokens: Sequence[int] | None = None,
    compound_tokens: Sequence[Compound] | None = None,
    **changes: Any,
) -> tuple[LanguageModel, Match]:
    """A checkpoint as a network.

    Args:
        source, config, heads: as for `describe`.
        strict: refuse missing, surplus and misshapen tensors; False fills what fits.
        keep_tokens: ids of the tokens to keep, in their new order; None = all.
        compound_tokens: for each new token the old ids (or `(ids, weights)`) whose mean it starts from; they follow the
            kept ones.
        **changes: other choices of the config that need no other weights: position="hierarchical", dropout=…, …

    Returns:
        The network and the report of what filled what.

    Raises:
        CheckpointError: the checkpoint cannot be read, or does not fit.
        UserError: an impossible option.
    """
    if unknown := sorted(set(changes) - set(CHANGEABLE)):
        raise UserError(f"load: {', '.join(unknown)} cannot be changed at load; {', '.join(CHANGEABLE)} can")
    found = describe(source, config, heads)
    if strict:
        refuse(found.tensors.path, found.match)
    _check_copies(found)
    edit = _vocabulary(found.config.vocab_size, keep_tokens, compound_tokens)
    choices = found.config.but(vocab_size=edit.size, pad_id=edit.place(found.config.pad_id), **changes)
    before, after = (_tables(config.position) for config in (found.config, choices))
    if before != after:
        raise UserError(
            f"load: position={choices.position!r} needs other weights than this checkpoint's {found.config.position!r}"
        )
    network = LanguageModel(choices, found.match.heads)
    network.build()
    weights = named_weights(network)
    for row in found.match.filled:
        array = row.read(found.tensors[row.theirs])
        if row.ours in ("encoder/embedding/token/embeddings", "mlm/bias"):
            array = edit.apply(array)
        weights[row.ours].assign(np.asarray(array, dtype="float32"))
    return network, found.match


@dataclass(frozen=True)
class _Edit:
    """Which rows of the vocabulary go where."""

    kept: np.ndarray | None
    compounds: tuple[tuple[np.ndarray, np.ndarray], ...]
    size: int

    def place(self, pad_id: int) -> int:
        """The new id of the padding token."""
        if self.kept is None:
            return pad_id
        places = np.flatnonzero(self.kept == pad_id)
        if not len(places):
            raise UserError(f"keep_tokens: expected the padding token's id {pad_id} among them")
        return int(places[0])

    def apply(self, table: np.ndarray) -> np.ndarray:
        """A token table `(vocab, size)` or bias `(vocab,)` with the edits made."""
        if self.kept is None and not self.compounds:
            return table
        table = np.asarray(table, dtype="float32")
        parts = [table if self.kept is None else table[self.kept]]
        parts += [np.average(table[ids], axis=0, weights=weights)[None] for ids, weights in self.compounds]
        return np.concatenate(parts)


def _vocabulary(size: int, keep: Sequence[int] | None, compounds: Sequence[Compound] | None) -> _Edit:
    kept = None if keep is None else _ids(keep, size, "keep_tokens")
    if kept is not None and len(np.unique(kept)) != len(kept):
        raise UserError("keep_tokens: an id occurs twice")
    pairs = []
    for compound in compounds or ():
        ids, weights = compound, None
        if len(compound) == 2 and not isinstance(compound[0], int | np.integer):
            ids, weights = compound
        ids = _ids(ids, size, "compound_tokens")
        weights = np.ones(len(ids)) if weights is None else np.asarray(weights, dtype="float64")
        if weights.shape != ids.shape or not np.isfinite(weights).all() or weights.sum() == 0:
            raise UserError(f"compound_tokens: expected {len(ids)} weights with a sum other than 0, found {weights}")
        pairs.append((ids, weights))
    return _Edit(kept, tuple(pairs), (size if kept is None else len(kept)) + len(pairs))


def _ids(values: Any, size: int, what: str) -> np.ndarray:
    ids = np.asarray(values)
    if ids.ndim != 1 or not len(ids) or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= size:
        raise UserError(f"{what}: expected a list of token ids from 0 to {size - 1}, found {str(values)[:80]}")
    return ids


def _tables(position: str) -> str:
    return "table" if position in ("learned", "hierarchical") else position


def _check_copies(found: Described) -> None:
    for copy, of in found.match.copies.items():
        if not np.array_equal(found.tensors[copy], found.tensors[of]):
            raise CheckpointError(f"{found.tensors.path}: {copy} should repeat {of} (they are tied), but differs")


def _from_memory(arrays: Mapping[str, np.ndarray]) -> Tensors:
    entries = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        entries[name] = LazyTensor(array.shape, array.dtype, lambda array=array: array)
    return Tensors("the given arrays", "memory", entries)


def _config_inside(path: Path) -> dict[str, Any] | None:
    """What a `.keras` file says of the `LanguageModel` in it; None when it holds another model."""
    try:
        model = json.loads(ZipMembers(path).peek("config.json", JSON_LIMIT))["config"]
        return {"config": model["config"]} if "vocab_size" in model["config"] else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _config_beside(path: Path) -> Path:
    folder = path if path.is_dir() else path.parent
    if (folder / MARKER).is_file() and "config" in read_json(folder / MARKER):
        return folder / MARKER
    for name in ("config.json", "bert_config.json"):
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*config*.json"))
    others = [other for other in others if not other.name.startswith(("tokenizer", "generation"))]
    if len(others) == 1:
        return others[0]
    found = f"{len(others)} files *config*.json" if others else "none"
    raise CheckpointError(f"{folder}: expected a config.json or bert_config.json beside the weights, found {found}")


def summary(result: Match) -> dict[str, Any]:
    """The report as plain data, for JSON and printing."""
    values: dict[str, Any] = dataclasses.asdict(result)
    values["filled"] = {row.ours: row.theirs for row in result.filled}
    return values
