"""The recipe of `maskplay pretrain`: a TOML file, flags over it, and what both may say."""

import math
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from maskplay import pretext, starts
from maskplay.errors import UserError
from maskplay.families import FAMILIES, WORDPIECE
from maskplay.language_model import HEADS
from maskplay.objectives import check_network, check_objectives, check_rates
from maskplay.optimizers import adamw, lamb, muon
from maskplay.text.tokenizer import Tokenizer
from maskplay.text.words import jieba

# What a recipe can say, and what it means where it does not. Every key is also a flag.
RECIPE: dict[str, Any] = {
    "family": "roformer",
    "hidden_size": 256,
    "num_layers": 4,
    "num_heads": 4,
    "intermediate_size": 1024,
    "vocab_size": 12000,
    "model": "",
    "vocab": "",
    "length": 128,
    "batch_size": 32,
    "steps": 10_000,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "warmup": -1,
    "decay": -1,
    "accumulate": 1,
    "dropout": 0.1,
    "init": "",
    "precision": "float32",
    "objective": "mlm",
    "mask_rate": 0.15,
    "as_mask": 0.8,
    "words": "",
    "field": "text",
    "held_out": 0.005,
    "report_every": 500,
    "save_every": 60.0,
    "workers": 1,
    "tensorboard": "",
    "model_parallel": 1,
    "seed": 0,
}
SHAPE = ("hidden_size", "num_layers", "num_heads", "intermediate_size")
FRESH = ("family", *SHAPE, "dropout")  # what a checkpoint to go on from has already
SEGMENTERS: dict[str, Callable[[str], Sequence[str]]] = {"": pretext.default_words, "jieba": jieba}
OPTIMIZERS = {"adamw": adamw, "lamb": lamb, "muon": muon}
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
LEAST = {"batch_size": 1, "steps": 1, "report_every": 1, "save_every": 0, "workers": 1, "model_parallel": 1, "seed": 0}
LEAST |= {"warmup": -1, "decay": -1, "accumulate": 1}
MOST = 10**12  # of each of these
ELSEWHERE = ("save_every", "workers", "tensorboard", "model_parallel")  # what changes nothing of the result
PAIRS = "simbert"  # the objective that learns from pairs of texts


def settle(config: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a file with the flags over it, checked."""
    given = ({} if config is None else read_recipe(config)) | flags
    recipe = RECIPE | given
    # Said in one way, so that a table and a flag that mean the same are the same run.
    weights = parse_objective(recipe["objective"])
    check_objectives(weights)
    weights = {name: float(weight) for name, weight in weights.items()}
    recipe["objective"] = ",".join(name if weight == 1 else f"{name}:{weight}" for name, weight in weights.items())
    recipe["init"] = ",".join(parse_names(recipe["init"]))
    if recipe["model"]:
        recipe |= {name: given.get(name) for name in FRESH}
    for name, least in LEAST.items():
        if not least <= recipe[name] <= MOST:
            limit = f"most {MOST}" if recipe[name] > MOST else f"least {least}"
            raise UserError(f"{name}: expected at {limit}, found {recipe[name]!r:.40}")
    rising = recipe["steps"] // 10 if recipe["warmup"] < 0 else recipe["warmup"]
    if rising + max(recipe["decay"], 0) > recipe["steps"]:
        found = f"{rising} of warmup" + (f" and {recipe['decay']} of decay" if recipe["decay"] >= 0 else "")
        raise UserError(f"warmup: expected no more steps than the run has, {recipe['steps']}; found {found}")
    if recipe["steps"] % recipe["accumulate"]:
        raise UserError(f"steps: expected a multiple of accumulate, {recipe['accumulate']}; found {recipe['steps']}")
    if recipe["seed"] >= 2**32:
        raise UserError(f"seed: expected less than 4294967296, found {recipe['seed']}")
    if not 0 < recipe["learning_rate"] < math.inf:
        raise UserError(f"learning_rate: expected a number above 0, found {recipe['learning_rate']}")
    if not 0 < recipe["held_out"] < 1:
        raise UserError(f"held_out: expected a share between 0 and 1, found {recipe['held_out']}")
    if recipe["words"] not in SEGMENTERS and not Path(recipe["words"]).is_file():
        raise UserError(f"words: expected jieba, or a file .arpa, .tsv or .txt, found {recipe['words']!r:.80}")
    for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
        if recipe[name] not in known:
            raise UserError(f"{name}: expected one of {', '.join(known)}, found {recipe[name]!r:.80}")
    if recipe["dropout"] is not None and not 0 <= recipe["dropout"] < 1:
        raise UserError(f"dropout: expected 0 or more and less than 1, found {recipe['dropout']}")
    if unknown := [start for start in parse_names(recipe["init"]) if start not in starts.STARTS]:
        raise UserError(f"init: expected some of {', '.join(starts.STARTS)}, found {unknown[0]!r:.80}")
    if recipe["model"] and recipe["init"]:
        raise UserError(f"init: the model {recipe['model']} has weights already")
    if recipe["family"] is not None and recipe["family"] not in FAMILIES:
        raise UserError(f"family: expected one of {', '.join(FAMILIES)}, found {recipe['family']!r:.80}")
    check_rates(recipe["mask_rate"], recipe["as_mask"])
    if recipe["length"] < 8:
        raise UserError(f"length: expected at least 8 tokens, found {recipe['length']}")
    if "mlm+nsp" in weights and recipe["batch_size"] < 2:
        raise UserError("batch_size: mlm+nsp expects at least 2, for halves of others; found 1")
    if PAIRS in weights and (recipe["batch_size"] % 2 or recipe["batch_size"] < 4):
        raise UserError(f"batch_size: {PAIRS} expects an even number from 4 on, found {recipe['batch_size']}")
    if recipe["model"] and recipe["vocab"]:
        raise UserError(f"vocab: the model {recipe['model']} brings its own")
    if "vocab_size" in given and (recipe["model"] or recipe["vocab"]):
        brings = f"the model {recipe['model']}" if recipe["model"] else f"the vocabulary {recipe['vocab']}"
        raise UserError(f"vocab_size: {brings} has one already, found {recipe['vocab_size']}; leave it out")
    if not recipe["model"]:
        check_fresh(recipe, weights)
    return recipe


def check_fresh(recipe: dict[str, Any], weights: dict[str, float]) -> None:
    """Refuse a fresh network that cannot be, or cannot learn so: before the text is read, which may take hours."""
    family = FAMILIES[recipe["family"]]
    config = family.config.but(**{name: recipe[name] for name in SHAPE})  # which says what does not fit
    check_network([*weights], config, HEADS, family.name, recipe["length"])
    starting = parse_names(recipe["init"])
    if "positions" in starting and config.position != "rotary":
        raise UserError(f"init: positions needs rotary positions, the family {family.name} has others")
    if "positions" in starting and not config.has_bias:
        raise UserError(f"init: positions needs biases in attention, the family {family.name} has none")
    if "unigram" in starting and "lm" in family.heads:
        raise UserError(f"init: unigram needs scores of tokens with a bias, the family {family.name} has others")
    if recipe["vocab"]:
        return
    if WORDPIECE not in family.tokenizers:
        raise UserError(
            f"family: what is made from the text is a vocabulary of {WORDPIECE}, {family.name} has "
            f"{' or '.join(family.tokenizers)}; give one with --vocab"
        )
    if recipe["vocab_size"] < (least := len(Tokenizer.from_characters({}, MOST))):
        found = f"expected at least {least} (special tokens, a-z and 0-9), found {recipe['vocab_size']}"
        raise UserError(f"vocab_size: {found}")


def read_recipe(path: Path) -> dict[str, Any]:
    """What a TOML file says, each key known and of its kind."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is one, too
        raise UserError(f"{path}: not a TOML file ({error})") from None
    for name, value in values.items():
        if name not in RECIPE:
            raise UserError(f"{path}: expected keys among {', '.join(RECIPE)}; found {name!r:.80}")
        kinds: Any = type(RECIPE[name])
        if kinds is float:
            kinds = int | float
        if name in ("objective", "init"):
            kinds = str | (dict if name == "objective" else list)
        if isinstance(value, bool) or not isinstance(value, kinds) or isinstance(value, str) and "\0" in value:
            raise UserError(f"{path}: {name}: expected a value like {RECIPE[name]!r}, found {value!r:.80}")
    return values


def parse_objective(given: str | dict[str, Any]) -> dict[str, float]:
    """`mlm`, `mlm:0.5,unilm:0.5` or a table of these as names with weights."""
    if isinstance(given, dict):
        return dict(given)
    pairs = [part.partition(":")[::2] for part in given.split(",")]
    try:
        found = {name.strip(): float(weight or 1) for name, weight in pairs}
    except ValueError:
        raise UserError(f"objective: expected names with weights, mlm:0.5,unilm:0.5; found {given!r:.80}") from None
    if len(found) < len(pairs):  # the last weight would be taken for all
        raise UserError(f"objective: expected each name once, found {given!r:.80}")
    return found


def parse_names(given: str | list[Any]) -> list[str]:
    """`unigram,ppmi`, or a list of these."""
    return [str(name).strip() for name in (given.split(",") if isinstance(given, str) else given) if name]
