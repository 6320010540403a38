"""Lay a checkpoint's tensors beside a network's weights: which fill what, what is missing, what is left over.

Nothing is built and no array is read here: `maskplay inspect` shows this, and `load` acts on it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from maskplay.checkpoints.dialect import Dialect
from maskplay.checkpoints.google import GOOGLE
from maskplay.checkpoints.huggingface import HUGGINGFACE
from maskplay.checkpoints.keras_names import KERAS
from maskplay.checkpoints.rename import Row, rows
from maskplay.checkpoints.shapes import weight_shapes
from maskplay.checkpoints.tensors import Tensors
from maskplay.config import Config
from maskplay.errors import CheckpointError, UserError
from maskplay.families import FAMILIES
from maskplay.language_model import HEADS

# Our own names: every row is the identity.
MASKPLAY = Dialect(name="maskplay", sign="encoder/embedding/token/embeddings", tables={})
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (GOOGLE, HUGGINGFACE, MASKPLAY, KERAS)}

_POSITIONS = "encoder/embedding/position/embeddings"

# Families that are not opened, by a name that only their files have; the first that fits is named.
_STRANGERS = (
    (r"^model/transformer/(word_embedding|r_w_bias|mask_emb)|^transformer\.(word_embedding|mask_emb)", "XLNet"),
    (r"embeddings/word_embeddings_2|/layer_shared/", "ALBERT (brightmart's original form)"),
    (r"/inner_group_0/|albert_layer_groups", "ALBERT"),
    (r"^electra[/.]|discriminator_predictions|generator_predictions", "ELECTRA"),
    (r"^model/(wte|wpe)$|(^|\.)wte\.weight$", "GPT-2"),
    (r"^newslm/", "GPT2-ML"),
    (r"^gpt/", "GPT"),
    (r"^GAU_alpha/|/gau/", "GAU-alpha"),
    (r"(encoder|decoder)/block_\d+/layer_\d+|^shared(/embedding|\.weight)$|EncDecAttention", "T5"),
    (r"^(roberta\.|lm_head\.layer_norm)", "RoBERTa (English)"),
    (r"^(nezha\.)|relative_positions_encoding", "NEZHA"),
    (r"^(deberta\.)", "DeBERTa"),
    (r"^(distilbert\.)", "DistilBERT"),
    (r"^(model\.layers\.\d+\.self_attn)", "LLaMA"),
)


@dataclass
class Match:
    """A checkpoint beside the network it describes.

    Attributes:
        family: "bert" or "roformer".
        dialect: "google", "huggingface", "maskplay" or "keras".
        heads: the heads whose weights the checkpoint has.
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
    filled: list[Row] = field(default_factory=list)
    left_empty: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    wrong_shapes: list[str] = field(default_factory=list)


def refuse_strangers(tensors: Tensors) -> None:
    """Raise `CheckpointError`, naming the family, when the tensors are of one that is not opened."""
    for pattern, stranger in _STRANGERS:
        sign = next((name for name in tensors.names() if re.search(pattern, name)), None)
        if sign is not None:
            raise CheckpointError(
                f"{tensors.path}: this is a checkpoint of {stranger} (it has the tensor {sign!r}); "
                f"maskplay opens {' and '.join(FAMILIES)}"
            )


def recognise(tensors: Tensors, config: Mapping[str, object]) -> tuple[str, Dialect]:
    """The family and dialect of a checkpoint, from its names and its config file.

    Raises:
        CheckpointError: it is a family that is not opened (named), or nothing known.
    """
    names = tensors.names()
    for dialect in DIALECTS.values():
        canonical = {dialect.canonical(name): name for name in names}
        if dialect.sign not in canonical:
            continue
        stated = config.get("model_type") or config.get("family")
        if stated is None:
            positions = dialect.tables.get("bert", {}).get(_POSITIONS, _POSITIONS)
            if config.get("use_relative_position") or config.get("max_relative_position"):
                stated = "nezha"
            else:
                stated = "bert" if positions in canonical else "roformer"
        if stated == "roformer" and not any(re.search(r"LayerNorm|norm/", name) for name in names):
            stated = "roformer_v2"
        if stated not in FAMILIES:
            raise CheckpointError(
                f"{tensors.path}: this is a checkpoint of the family {str(stated)[:60]!r}; "
                f"maskplay opens {' and '.join(FAMILIES)}"
            )
        return str(stated), dialect
    shown = ", ".join(names[:3]) or "none"
    raise CheckpointError(
        f"{tensors.path}: no token embeddings under a known name among its {len(names)} tensors (such as {shown}): "
        f"not Google's, Hugging Face's or maskplay's naming of {' or '.join(FAMILIES)}"
    )


def match(tensors: Tensors, family: str, dialect: Dialect, config: Config, heads: Iterable[str] | None = None) -> Match:
    """Which tensor fills which weight.

    Args:
        tensors: the open checkpoint.
        family, dialect: from `recognise`.
        config: the network's choices, before any change of the vocabulary.
        heads: the heads wanted, None for those the file has.
    """
    if unknown := [head for head in heads or () if head not in HEADS]:
        raise UserError(f"expected heads among {', '.join(HEADS)}, found {', '.join(map(str, unknown))}")
    actual: dict[str, str] = {}
    result = Match(family, dialect.name, ())
    for name in tensors.names():
        spelled = dialect.canonical(name)
        if spelled in actual:
            result.problems.append(f"{name} and {actual[spelled]} are the same tensor twice")
        actual[spelled] = name

    table = dialect.tables.get(family) or {name: name for name in weight_shapes(config, HEADS)}
    every = {row.ours: row for row in rows(table, config.num_layers)}
    present = {row.ours.split("/")[0] for row in every.values() if row.theirs in actual}
    result.heads = tuple(head for head in HEADS if head in (present if heads is None else tuple(heads)))
    if "nsp" in result.heads and "pooler" not in result.heads:
        result.problems.append("it has next-sentence weights without a pooler")
        result.heads = tuple(head for head in result.heads if head != "nsp")

    used: set[str] = set()
    for ours, expected in weight_shapes(config, result.heads).items():
        row = every.get(ours)
        if row is None or row.theirs not in actual:
            result.left_empty.append(ours)
            result.problems.append(f"missing {row.theirs if row else ours}")
            continue
        name = actual[row.theirs]
        used.add(name)
        found = row.shape(tensors.shape(name))
        if found == expected and tensors.dtype(name).kind in "fV":
            result.filled.append(replace(row, theirs=name))
            continue
        result.left_empty.append(ours)
        result.wrong_shapes.append(ours)
        # Both sides as the file spells them, so that the numbers can be found there.
        result.problems.append(
            f"{name}: expected floats of shape {row.shape(expected)}, found {tensors.dtype(name)} {tensors.shape(name)}"
        )
    absent = [head for head in HEADS if head not in result.heads]
    result.left_empty += [name for name in weight_shapes(config, HEADS) if name.split("/")[0] in absent]

    copies = {actual[copy]: actual.get(of, "") for copy, of in dialect.copies.items() if copy in actual}
    unwanted = {row.theirs for row in every.values() if row.ours.split("/")[0] in absent}
    for spelled, name in actual.items():
        if name in used:
            continue
        if copies.get(name):
            result.copies[name] = copies[name]
            result.passed_over.append(name)
        elif dialect.empty(spelled) or (heads is not None and spelled in unwanted):
            result.passed_over.append(name)
        else:
            result.left_over.append(name)
    if result.left_over:
        result.problems.append(f"left over {_some(result.left_over)}")
    result.passed_over += list(tensors.skipped)
    return result


def refuse(path: object, result: Match) -> None:
    """Raise `CheckpointError` when the two do not fit."""
    if result.problems:
        raise CheckpointError(
            f"{path}: does not fit {result.family}: {_some(result.problems, '; ')}; "
            "strict=False loads what fits and leaves the rest fresh"
        )


def _some(items: list[str], separator: str = ", ", most: int = 4) -> str:
    more = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more
