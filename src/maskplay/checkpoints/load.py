"""From a path to a network: find the config, recognise the dialect, match, edit the vocabulary, assign.

Every tensor is accounted for: the report says what was filled, left empty, left over and passed over, and a mismatch is
an error unless the caller says `strict=False`.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskplay.checkpoints.dialect import read_config
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.huggingface import with_task_types
from maskplay.checkpoints.match import Match, Recognised, adapt, match, recognise, refuse, refuse_strangers
from maskplay.checkpoints.shapes import weight_shapes
from maskplay.checkpoints.tensors import LazyTensor, Tensors, byte_count
from maskplay.checkpoints.zip_members import ZipMembers
from maskplay.config import BUCKETS, TABLES, Config, first_position
from maskplay.errors import CheckpointError, UserError
from maskplay.families import FAMILIES
from maskplay.families import family as family_of
from maskplay.language_model import SCORES, LanguageModel, known_heads, named_weights
from maskplay.layers.initializer import to_be_filled
from maskplay.storage import JSON_LIMIT, MARKER, read_json, read_marker

CHANGEABLE = (
    "position", "max_positions", "rotary_base", "attention", "activation", "norm_epsilon", "condition_size", "scores",
    "dropout", "attention_dropout", "pooler_activation", "pad_id",
)  # fmt: skip

TIMES = 4  # that a byte of a file may be read: tied weights are two views of it
EMBEDDED = "embed_tokens"  # copies of the token table that no head scores with (T5)

Compound = Sequence[int] | tuple[Sequence[int], Sequence[float]]


@dataclass(frozen=True)
class Described:
    """A checkpoint that was opened and understood, before any array is read."""

    tensors: Tensors
    config: Config
    config_path: Path | None
    found: Recognised
    match: Match


def describe(
    source: str | os.PathLike[str] | Mapping[str, np.ndarray],
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    heads: Iterable[str] | None = None,
    family: str | None = None,
) -> Described:
    """Open a checkpoint, find its config, recognise and match it.

    Args:
        source: a path that `open_tensors` takes, or arrays by name.
        config: a config file, its content, or a `Config`; None looks beside the checkpoint for `maskplay.json`,
            `config.json`, `bert_config.json`, `hparams.json` or a single other `*config*.json`.
        heads: the heads wanted, None for those the file has.
        family: what the checkpoint is, where several families look alike, or shall become.

    Raises:
        CheckpointError: not a checkpoint, no config, or a family that is not opened.
    """
    if family is not None:
        family_of(family)
    tensors = open_tensors(source) if isinstance(source, str | os.PathLike) else _from_memory(source)
    refuse_strangers(tensors)
    path = None
    values: Mapping[str, Any] | Config | None = tensors.config
    if isinstance(config, str | os.PathLike):
        path = Path(config)
        values = read_json(path)
    elif isinstance(config, Mapping | Config):
        values = config
    elif config is not None:
        raise UserError(f"config: expected a file, a dictionary or a Config, found {config!r:.60}")
    elif values is None:
        if not isinstance(source, str | os.PathLike):
            raise UserError("arrays given by name need a config: pass config=…")
        path = tensors.path
        values = _config_inside(path) if path.suffix == ".keras" else None
        if values is None:
            path = _config_beside(Path(source))
            values = read_json(path)
    wanted = known_heads(heads) if heads is not None else None
    if family is None:
        return _as(None, tensors, values, path, wanted)
    said = plain = None
    problem = UserError()
    try:
        said = _as(family, tensors, values, path, wanted)
        if said.found.family == family and not said.match.problems:
            return said
    except UserError as error:
        problem = error
    # It is not, or not wholly, what it is said to be. Another family's?
    try:
        plain = _as(None, tensors, values, path, None)
    except UserError as error:
        problem = problem if said is None else error
    alike = plain is None or plain.match.problems or FAMILIES[plain.found.family].tables == FAMILIES[family].tables
    if alike and said is not None and said.found.family == family:
        return said
    if plain is None or (alike and said is None):
        raise problem
    # Yes: what it has is laid beside a network of the family asked for.
    refuse(tensors.path, plain.match)
    given, origin = plain.config, plain.found.family
    try:
        other = _become(given, family)
    except UserError as error:
        raise CheckpointError(
            f"{tensors.path}: this is a checkpoint of {origin}, not of {family}, and cannot become one ({error}): "
            "load it without family="
        ) from None
    return Described(plain.tensors, other, path, plain.found, adapt(plain.match, given, family, other, wanted))


def _as(
    family: str | None,
    tensors: Tensors,
    values: Mapping[str, Any] | Config,
    path: Path | None,
    heads: tuple[str, ...] | None,
) -> Described:
    """The checkpoint as one of a family, where its names allow that; None: as what it looks like."""
    if isinstance(values, Config):
        hint = {**values.to_dict(), "use_relative_position": values.position == "relative"}
        found, choices = recognise(tensors, hint, family), values
    else:
        if not isinstance(values.get("model_type"), str | None):
            kind = f"{values['model_type']!r:.60}"
            raise CheckpointError(f"{path or 'config'}: model_type: expected a name, found {kind}")
        found = recognise(tensors, values, family)
        if found.family == "ernie":
            tensors = with_task_types(tensors, values)
        if isinstance(values.get("config"), Mapping):
            choices = Config.from_dict(dict(values["config"]))
            if heads is None and isinstance(values.get("heads"), list):  # also such as have no weights of their own
                heads = tuple(map(str, values["heads"]))
        else:
            choices = read_config(values, found.family, str(path or "config"), _has_own_scores(found, tensors))
    return Described(tensors, choices, path, found, match(tensors, found, choices, heads))


def _has_own_scores(found: Recognised, tensors: Tensors) -> bool:
    if found.table is None:
        return False
    name = found.table.names.get("lm/output/kernel", "").partition("|")[0].strip()
    return bool(name) and name in {found.table.spelled(theirs) for theirs in tensors.names()}


def _become(given: Config, family: str) -> Config:
    """A family's conventions in the sizes of another network."""
    row = family_of(family).config
    sizes = ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "head_size", "embedding_size",
             "num_segments", "norm_epsilon", "dropout", "attention_dropout", "pad_id")  # fmt: skip
    changes = {name: getattr(given, name) for name in sizes}
    if row.num_segments == 0:
        changes["num_segments"] = 0
    if given.activation.startswith("gated_") == row.activation.startswith("gated_"):
        changes["activation"] = given.activation
    if row.position in TABLES and given.position in TABLES:
        changes["max_positions"] = given.max_positions
    return row.but(**changes)


def load_network(
    source: str | os.PathLike[str] | Mapping[str, np.ndarray],
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    heads: Iterable[str] | None = None,
    strict: bool = True,
    keep_tokens: Sequence[int] | None = None,
    compound_tokens: Sequence[Compound] | None = None,
    family: str | None = None,
    **changes: Any,
) -> tuple[LanguageModel, Match]:
    """A checkpoint as a network.

    Args:
        source, config, heads, family: as for `describe`.
        strict: refuse missing, surplus and misshapen tensors; False fills what fits.
        keep_tokens: ids of the tokens to keep, in their new order; None = all.
        compound_tokens: for each new token the old ids (or `(ids, weights)`) whose mean it starts from; they follow the
            kept ones.
        **changes: other choices of the config that need no other weights: position="hierarchical", dropout=…; more
            `max_positions` than the table has rows interpolate it, fewer cut it (distances, as NEZHA and T5 have them,
            are no such table); `condition_size` adds weights that start at zero and so change nothing.

    Returns:
        The network and the report of what filled what.

    Raises:
        CheckpointError: the checkpoint cannot be read, or does not fit.
        UserError: an impossible option.
    """
    if unknown := sorted(set(changes) - set(CHANGEABLE)):
        raise UserError(f"load: {', '.join(unknown)} cannot be changed at load; {', '.join(CHANGEABLE)} can")
    opened = describe(source, config, heads, family)
    if strict:
        refuse(opened.tensors.path, opened.match)
    _check_size(opened)
    _check_copies(opened, strict)
    edit = _vocabulary(opened.config.vocab_size, keep_tokens, compound_tokens)
    before = opened.config
    choices: dict[str, Any] = {"position": before.position, "pad_id": edit.place(before.pad_id), **changes}
    if before.position in TABLES and choices["position"] in TABLES:  # as many places as before
        shift = first_position(choices["position"], choices["pad_id"]) - before.first_position
        choices.setdefault("max_positions", before.max_positions + shift)
    after = before.but(**{"vocab_size": edit.size, **choices})
    _check_changes(before, after)
    filled = {row.ours for row in opened.match.filled}
    network = LanguageModel(after, opened.match.heads)
    with to_be_filled(filled.issuperset(weight_shapes(before, opened.match.heads))):
        network.build()
    weights = named_weights(network)
    for row in opened.match.filled:
        array = row.read(opened.tensors[row.theirs])
        if row.ours in _VOCABULARY:
            array = edit.apply(array, _VOCABULARY[row.ours])
        elif row.ours == "encoder/embedding/position/embeddings":
            if after.first_position != before.first_position:  # no token reads the rows before the first place
                unread = np.zeros((after.first_position, array.shape[1]), array.dtype)
                array = np.concatenate([unread, array[before.first_position :]])
            array = stretch(array, after.max_positions, after.first_position)
        # A copy: what JAX takes as it is would be the file itself, mapped.
        weights[row.ours].assign(np.array(array, dtype="float32"))
    if after.condition_size != before.condition_size:
        known = weight_shapes(before, opened.match.heads)
        opened.match.left_empty += [name for name in weights if name not in known]
    return network, opened.match


# Weights that have a row for every token, and on which axis.
_VOCABULARY = {"encoder/embedding/token/embeddings": 0, "mlm/bias": 0, "lm/output/kernel": 1}


def stretch(table: np.ndarray, rows: int, first: int = 0) -> np.ndarray:
    """A position table `(places, size)` with another number of places: cut, or interpolated linearly.

    Args:
        table: the old one.
        rows: of the new one.
        first: rows before the first place, which stay.

    Example:
        >>> stretch(np.array([[0.0], [2.0]]), 3)[:, 0].tolist()
        [0.0, 1.0, 2.0]
    """
    if rows <= len(table):
        return table[:rows]
    old = np.asarray(table[first:], "float32")
    at = np.linspace(0, len(old) - 1, rows - first)
    below = np.minimum(at.astype(int), len(old) - 2) if len(old) > 1 else np.zeros(len(at), int)
    share = (at - below)[:, None].astype("float32")
    above = np.minimum(below + 1, len(old) - 1)
    return np.concatenate([table[:first], old[below] * (1 - share) + old[above] * share])


def _check_changes(before: Config, after: Config) -> None:
    """Refuse changes that would need other weights."""

    def kind(config: Config) -> dict[str, Any]:
        position, attention = config.position, config.attention
        return {
            "position": "table" if position in TABLES else "buckets" if position in BUCKETS else position,
            "attention": "softmax" if attention == "residual" else attention,
            "scores": config.scores.removesuffix("_scaled"),
            "activation": config.activation.startswith("gated_"),
        }

    old, new = kind(before), kind(after)
    for name, value in old.items():
        if new[name] != value:
            was, now = getattr(before, name), getattr(after, name)
            raise UserError(f"load: {name}={now!r} needs other weights than this checkpoint's {was!r}")
    if after.position in ("relative", *BUCKETS) and after.max_positions != before.max_positions:
        raise UserError(
            f"load: max_positions: distances were learnt up to {before.max_positions}, and farther ones count as that "
            "far: texts of any length can be read as it is"
        )
    if before.condition_size is not None and after.condition_size != before.condition_size:
        raise UserError(f"load: condition_size: this checkpoint has one of {before.condition_size}")


@dataclass(frozen=True)
class _Edit:
    """Which rows of the vocabulary go where."""

    kept: np.ndarray | None
    compounds: tuple[tuple[np.ndarray, np.ndarray], ...]
    size: int

    def place(self, pad_id: int | None) -> int | None:
        """The new id of the padding token."""
        if self.kept is None or pad_id is None:
            return pad_id
        places = np.flatnonzero(self.kept == pad_id)
        if not len(places):
            raise UserError(f"keep_tokens: expected the padding token's id {pad_id} among them")
        return int(places[0])

    def apply(self, table: np.ndarray, axis: int = 0) -> np.ndarray:
        """A token table `(vocab, size)`, bias `(vocab,)` or kernel `(size, vocab)` with the edits made."""
        if self.kept is None and not self.compounds:
            return table
        table = np.moveaxis(np.asarray(table, dtype="float32"), axis, 0)
        parts = [table if self.kept is None else table[self.kept]]
        parts += [np.average(table[ids], axis=0, weights=weights)[None] for ids, weights in self.compounds]
        return np.moveaxis(np.concatenate(parts), 0, axis)


def _vocabulary(size: int, keep: Sequence[int] | None, compounds: Sequence[Compound] | None) -> _Edit:
    kept = None if keep is None else _ids(keep, size, "keep_tokens")
    if kept is not None and len(np.unique(kept)) != len(kept):
        raise UserError("keep_tokens: an id occurs twice")
    pairs = []
    for compound in compounds or ():
        ids, weights = compound, None
        if isinstance(compound, Sequence) and len(compound) == 2 and not isinstance(compound[0], int | np.integer):
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


def _check_size(found: Described) -> None:
    """Refuse files that hand out the same bytes as many weights: the network would be as large as they please."""
    tensors = found.tensors
    taken = {row.theirs for row in found.match.filled}
    claimed = sum(byte_count(tensors.shape(name), tensors.dtype(name)) for name in taken)
    if tensors.stored is not None and claimed > TIMES * tensors.stored:
        raise CheckpointError(
            f"{tensors.path}: {len(taken)} tensors claim {claimed:,} bytes of the {tensors.stored:,} that there are: "
            "damaged, or made to fill the memory"
        )


def _check_copies(found: Described, strict: bool) -> None:
    scored = {*found.match.heads} & {*SCORES}
    for copy, of in found.match.copies.items():
        if (not scored and not re.search(EMBEDDED, copy)) or np.array_equal(found.tensors[copy], found.tensors[of]):
            continue
        if strict:
            raise CheckpointError(f"{found.tensors.path}: {copy} should repeat {of} (they are tied), but differs")
        found.match.passed_over.remove(copy)
        found.match.left_over.append(copy)


def _from_memory(arrays: Mapping[str, np.ndarray]) -> Tensors:
    if not isinstance(arrays, Mapping):
        raise UserError(f"load: expected a path, a hub id or arrays by name, found a {type(arrays).__name__}")
    entries = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        entries[name] = LazyTensor(array.shape, array.dtype, lambda array=array: array)
    return Tensors("the given arrays", "memory", entries)


def _config_inside(path: Path) -> dict[str, Any] | None:
    """What a `.keras` file says of the `LanguageModel` in it; None when it holds another model."""
    try:
        model = json.loads(ZipMembers(path).peek("config.json", JSON_LIMIT))["config"]
        return {"config": model["config"], "heads": model.get("heads")} if "vocab_size" in model["config"] else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _config_beside(path: Path) -> Path:
    folder = path if path.is_dir() else path.parent
    if (folder / MARKER).is_file() and "config" in read_marker(folder):
        return folder / MARKER
    for name in ("config.json", "bert_config.json", "hparams.json"):
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*config*.json"))
    others = [other for other in others if not other.name.startswith(("tokenizer", "generation"))]
    if len(others) == 1:
        return others[0]
    found = f"{len(others)} files *config*.json" if others else "none"
    raise CheckpointError(
        f"{folder}: expected a config.json, bert_config.json or hparams.json beside the weights, found {found}"
    )


def summary(result: Match) -> dict[str, Any]:
    """The report as plain data, for JSON and printing."""
    values: dict[str, Any] = dataclasses.asdict(result)
    values["filled"] = {row.ours: row.theirs for row in result.filled}
    return values
