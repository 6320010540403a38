"""Lay a checkpoint's tensors beside a network's weights: which fill what, what is missing, what is left over.

Nothing is built and no array is read here: `maskplay inspect` shows this, and `load` acts on it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from maskplay.checkpoints import google, huggingface, llama2c
from maskplay.checkpoints.dialect import Table
from maskplay.checkpoints.keras_names import KERAS, canonical
from maskplay.checkpoints.rename import Row
from maskplay.checkpoints.shapes import weight_shapes
from maskplay.checkpoints.tensors import Tensors
from maskplay.config import Config
from maskplay.errors import CheckpointError
from maskplay.families import FAMILIES
from maskplay.language_model import HEADS, known_heads

OURS = "maskplay"
TABLES: tuple[Table, ...] = (*google.TABLES, *huggingface.TABLES, *llama2c.TABLES)
_TOKENS = "encoder/embedding/token/embeddings"

# Families that are not opened, by a name that only their files have; the first that fits is named.
_STRANGERS = (
    (r"^model/transformer/(word_embedding|r_w_bias|mask_emb)|^transformer\.(word_embedding\.|mask_emb)", "XLNet"),
    (r"^(deberta\.)", "DeBERTa"),
    (r"^(distilbert\.)", "DistilBERT"),
    (r"^(bart\.|model\.(encoder|decoder)\.layers\.)", "BART or OPT"),
    (r"^model\.layers\.\d+\.self_attn\.(q_proj\.bias|q_norm)", "Qwen, or of LLaMA with biases in its attention"),
)


@dataclass
class Match:
    """A checkpoint beside the network it describes.

    Attributes:
        family: a name of `maskplay.families`.
        dialect: "google", "openai", "huggingface", "llama2c", "maskplay" or "keras".
        heads: the heads that the network gets.
        found_family: the family of the file, where another was asked for.
        filled: rows whose weight the file fills; `theirs` is the file's own spelling.
        left_empty: weights that stay fresh: absent heads, and whatever `problems` calls missing.
        left_over: tensors of the file that no weight takes.
        passed_over: tensors that carry nothing of their own: tied copies, computed tables, optimizer state.
        copies: tied copies `{name: name it must equal}` in the file's spelling.
        problems: why the two do not fit, one phrase each; empty when they do.
        wrong_shapes: weights whose tensor has another shape (not in `filled`).
    """

    family: str
    dialect: str
    heads: tuple[str, ...]
    found_family: str = ""
    filled: list[Row] = field(default_factory=list)
    left_empty: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    wrong_shapes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """What became of every tensor, for people to read."""
        lines = [f"{self.family}, written in {self.dialect}'s names, heads {', '.join(self.heads) or 'none'}"]
        if self.found_family not in ("", self.family):
            lines.append(f"made from a checkpoint of {self.found_family}")
        lines.append(f"filled {len(self.filled)} weights")
        for name in ("left_empty", "left_over", "passed_over", "problems"):
            if items := getattr(self, name):
                lines += [f"{name.replace('_', ' ')}: {len(items)}", *(f"  {item}" for item in items)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Recognised:
    """Whose checkpoint it is: the family, and the table its names are of; None for our own and Keras' names."""

    family: str
    dialect: str
    table: Table | None


def refuse_strangers(tensors: Tensors) -> None:
    """Raise `CheckpointError`, naming the family, when the tensors are of one that is not opened."""
    for pattern, stranger in _STRANGERS:
        sign = next((name for name in tensors.names() if re.search(pattern, name)), None)
        if sign is not None:
            raise CheckpointError(
                f"{tensors.path}: this is a checkpoint of {stranger} (it has the tensor {sign!r}); "
                f"maskplay opens {', '.join(FAMILIES)}"
            )


def recognise(tensors: Tensors, config: Mapping[str, Any], wanted: str | None = None) -> Recognised:
    """The family and dialect of a checkpoint, from its names and its config file.

    Args:
        tensors: the open checkpoint.
        config: its config file's content.
        wanted: the family the user says it is; decides where several fit.

    Raises:
        CheckpointError: it is a family that is not opened (named), or nothing known.
    """
    names = tensors.names()
    for dialect, spelled in ((OURS, set(names)), (KERAS, {canonical(name) for name in names})):
        if _TOKENS in spelled:
            inner = config.get("config")
            stated = config.get("family") or wanted or _kin(inner if isinstance(inner, Mapping) else config)
            if not isinstance(stated, str) or stated not in FAMILIES:
                raise _unknown(tensors, stated)
            return Recognised(stated, dialect, None)
    fitting = [table for table in TABLES if table.is_of(names)]
    like = FAMILIES[wanted].tables if wanted in FAMILIES else None
    silent = not any(config.get(key) for key in ("model_type", "use_relative_position", "max_relative_position"))
    chosen = next((table for table in fitting if table.family == like and (silent or table.stated(config))), None)
    chosen = chosen or next((table for table in fitting if table.stated(config)), None)
    chosen = chosen or next((table for table in fitting if table.family == like), None)
    if chosen is None and fitting:
        said = config.get("model_type")
        of_others = f"says {str(said)[:60]!r}, none of these: if it is one, say which"
        found = "does not say which: say it" if said is None else of_others
        raise CheckpointError(
            f"{tensors.path}: its tensors are those of {' or '.join(table.family for table in fitting)}, but its "
            f"config {found} with family=…"
        )
    if chosen is None:
        shown = ", ".join(names[:3]) or "none"
        raise CheckpointError(
            f"{tensors.path}: no token embeddings under a known name among its {len(names)} tensors (such as {shown}): "
            f"not Google's, OpenAI's, Hugging Face's, llama2.c's, Keras' or maskplay's naming of {', '.join(FAMILIES)}"
        )
    stated = config.get("model_type") or config.get("family") or chosen.family
    if wanted is None and stated != chosen.family:
        if stated not in FAMILIES and stated != "xlm-roberta":
            raise _unknown(tensors, stated)
        if FAMILIES.get(str(stated)) and FAMILIES[str(stated)].tables == chosen.family:
            return Recognised(str(stated), chosen.dialect, chosen)
    if wanted is not None and FAMILIES[wanted].tables == chosen.family:
        return Recognised(wanted, chosen.dialect, chosen)
    return Recognised(chosen.family, chosen.dialect, chosen)


def _kin(config: Mapping[str, Any]) -> str:
    """The first family whose network is built like this one; "bert" where none is."""

    def traits(values: Mapping[str, Any]) -> list[Any]:
        position = values.get("position")
        return [
            "learned" if position == "hierarchical" else position,
            *(values.get(name) for name in ("attention", "embedding", "norm", "norm_at", "scores")),
            *(bool(values.get(name)) for name in ("num_decoder_layers", "num_blocks")),
            values.get("num_segments") == 0,
            str(values.get("activation")).startswith("gated_"),
        ]

    return next((name for name, row in FAMILIES.items() if traits(row.config.to_dict()) == traits(config)), "bert")


def _unknown(tensors: Tensors, stated: object) -> CheckpointError:
    return CheckpointError(
        f"{tensors.path}: this is a checkpoint of the family {str(stated)[:60]!r}; maskplay opens {', '.join(FAMILIES)}"
    )


def match(tensors: Tensors, found: Recognised, config: Config, heads: Iterable[str] | None = None) -> Match:
    """Which tensor fills which weight.

    Args:
        tensors: the open checkpoint.
        found: from `recognise`.
        config: the network's choices, before any change of the vocabulary.
        heads: the heads wanted, None for those the file has.
    """
    wanted = None if heads is None else known_heads(heads)
    table, family = found.table, FAMILIES[found.family]
    actual: dict[str, str] = {}
    result = Match(found.family, found.dialect, (), found.family)
    for name in tensors.names():
        spelled = table.spelled(name) if table else canonical(name) if found.dialect == KERAS else name
        if spelled in actual:
            result.problems.append(f"{name} and {actual[spelled]} are the same tensor twice")
        actual[spelled] = name

    able = _heads_of(found.family) | ({name.split("/")[0] for name in actual} & set(HEADS))
    able |= set(wanted or ()) if table is None else set()
    ours = weight_shapes(config, able)
    rows = table.rows(config) if table else [Row(name, name) for name in ours]
    every = {row.ours: row for row in rows}
    present = {row.ours.split("/")[0] for row in rows if row.theirs in actual} & set(HEADS)
    if config.scores.startswith("tied"):
        present = (present - {"lm"}) | set(family.heads)
    elif wanted is None and table is not None and "lm" in family.heads:
        present |= {"lm"}  # a language model that lost its scores is not quietly something else; heads=[] says so
    possible = {row.ours.split("/")[0] for row in rows} & set(HEADS) | set(family.heads)
    if table is None and config.scores.startswith("tied"):
        possible |= {"lm"}  # which has no weights
    if impossible := [head for head in wanted or () if head not in possible]:
        raise CheckpointError(
            f"{tensors.path}: this is a checkpoint of {found.family}, which has no head {', '.join(impossible)}; "
            f"it may have {', '.join(head for head in HEADS if head in possible) or 'none'}: ask for heads among those"
        )
    result.heads = tuple(head for head in HEADS if head in (present if wanted is None else wanted))
    if "nsp" in result.heads and "pooler" not in result.heads:
        result.problems.append("it has next-sentence weights without a pooler")
        result.heads = tuple(head for head in result.heads if head != "nsp")

    transformers = table is not None and table.dialect == "huggingface" and "mlm" in result.heads
    if transformers and not huggingface.scores_alike(config, found.family):
        result.problems.append(
            f"transformers' {found.family} scores tokens through gelu whatever hidden_act says, maskplay through "
            f"{config.activation}: leave the scores out with heads=[]"
        )
    used: set[str] = set()
    for name, expected in weight_shapes(config, result.heads).items():
        row = every.get(name)
        if row is None or row.theirs not in actual:
            result.left_empty.append(name)
            result.problems.append(f"missing {row.theirs if row else name}")
            continue
        theirs = actual[row.theirs]
        used.add(theirs)
        if row.shape(tensors.shape(theirs)) == expected and tensors.dtype(theirs).kind in "fV":
            result.filled.append(replace(row, theirs=theirs))
            continue
        result.left_empty.append(name)
        result.wrong_shapes.append(name)
        # Both sides as the file spells them, so that the numbers can be found there.
        result.problems.append(
            f"{theirs}: expected floats of shape {row.their_shape(expected)}, "
            f"found {tensors.dtype(theirs)} {tensors.shape(theirs)}"
        )
    absent = [head for head in possible if head not in result.heads]
    result.left_empty += [name for name in ours if name.split("/")[0] in absent and name in every]

    tied = table.copies.items() if table else ()
    copies = {actual[copy]: actual.get(of, "") for copy, of in tied if copy in actual}
    unwanted = {row.theirs for row in rows if row.ours.split("/")[0] in absent}
    for spelled, name in actual.items():
        if name in used:
            continue
        if copies.get(name):
            result.copies[name] = copies[name]
            result.passed_over.append(name)
        elif (table and re.fullmatch(table.empty, spelled)) or (wanted is not None and spelled in unwanted):
            result.passed_over.append(name)
        else:
            result.left_over.append(name)
    if result.left_over:
        result.problems.append(f"left over {_some(result.left_over)}")
    result.passed_over += list(tensors.skipped)
    return result


def _heads_of(family: str) -> set[str]:
    """The heads that some checkpoint of the family may have."""
    names = {ours.split("/")[0] for table in TABLES if table.family == FAMILIES[family].tables for ours in table.names}
    return names & set(HEADS) | set(FAMILIES[family].heads)


def adapt(source: Match, given: Config, family: str, wanted: Config, heads: tuple[str, ...] | None) -> Match:
    """Another family's weights taken from a matched checkpoint: whatever has the same path and shape.

    A block that several layers share fills each of theirs.

    Args:
        source: the checkpoint beside a network of its own family, whose config is `given`.
        family: the other one, whose config is `wanted`.
        heads: those wanted; None = those of the source that the other can have.
    """
    rows = {row.ours: row for row in source.filled}
    shapes = weight_shapes(given, source.heads)
    heads = heads if heads is not None else tuple(FAMILIES[family].heads or (set(source.heads) - {"lm"}))
    result = Match(family, source.dialect, tuple(head for head in HEADS if head in heads), source.family)
    result.passed_over, result.copies = list(source.passed_over), dict(source.copies)
    used = set()
    for name, expected in weight_shapes(wanted, result.heads).items():
        origin = _origin(name, given, wanted)
        if origin in rows and shapes[origin] == expected:
            result.filled.append(replace(rows[origin], ours=name))
            used.add(rows[origin].theirs)
            continue
        result.left_empty.append(name)
        found = f"it has {shapes[origin]}" if origin in shapes else "it has none"
        result.problems.append(f"{name}: expected {expected}, {found}")
        if origin in shapes:
            result.wrong_shapes.append(name)
    result.left_over = [*source.left_over, *(row.theirs for row in source.filled if row.theirs not in used)]
    if result.left_over:
        result.problems.append(f"left over {_some(result.left_over)}")
    ours, theirs = (FAMILIES[name].config.to_dict() for name in (family, source.family))
    differing = {name for name, value in ours.items() if value != theirs[name]}
    if not result.problems and differing != {"num_blocks"}:  # unshared blocks compute the same
        result.problems.append("all of it fits")
    return result


def _origin(name: str, given: Config, wanted: Config) -> str:
    """Where a weight comes from when the source shares blocks among more layers."""
    found = re.match(r"encoder/block_(\d+)/", name)
    if found is None or wanted.blocks != wanted.num_layers or wanted.blocks == given.blocks:
        return name
    place = int(found[1]) * given.blocks // wanted.num_layers
    return f"encoder/block_{place}/{name[found.end() :]}"


def refuse(path: object, result: Match) -> None:
    """Raise `CheckpointError` when the two do not fit."""
    if not result.problems:
        return
    if result.found_family != result.family:
        raise CheckpointError(
            f"{path}: this is a checkpoint of {result.found_family}, not of {result.family}: load it without family=, "
            f"or in Python make a {result.family} from what fits with strict=False ({_some(result.problems, '; ')})"
        )
    raise CheckpointError(
        f"{path}: does not fit {result.family}: {_some(result.problems, '; ')}; "
        "in Python strict=False loads what fits and leaves the rest fresh"
    )


def _some(items: list[str], separator: str = ", ", most: int = 4) -> str:
    more = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more
