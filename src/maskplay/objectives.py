"""What a text can teach about itself, and what a network needs for it.

One set of weights, many objectives: masked words, next token, drawn order, second half after the first, order of two
halves, pairs that mean the same. They differ in inputs, labels and the mask of the call.

Sources: those of `maskplay.pretext`; "Transformer 如戏，全靠 Mask" (kexue.fm/archives/6933).
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskplay import masks
from maskplay.config import Config
from maskplay.errors import UserError, whole_number, within

__all__ = ["OBJECTIVES", "SIMILAR", "TOKENS", "Objective", "check_network", "check_objectives", "check_rates"]

SIMILAR = "similar"  # cosines of a batch's texts
TOKENS = "tokens"  # scores of tokens, from whichever head the network has for them


@dataclass(frozen=True)
class Objective:
    """What distinguishes one way of learning from another.

    Attributes:
        mask: who sees whom, within a piece.
        specials: special tokens of a piece; with 3 a piece has two parts.
        pairs: the two parts are not halves but texts that mean the same, in one row this way and in the next the other.
        scores: what is scored, by the name of its loss: `TOKENS` or a head of the network.
    """

    mask: masks.Mask
    specials: int
    scores: Mapping[str, str]
    pairs: bool = False

    @property
    def ordered(self) -> bool:
        """Whether it is asked if the second part follows the first. Then both are whole sentences."""
        return "nsp" in self.scores.values()

    @property
    def alone(self) -> bool:
        """Whether a row is one piece: what is scored besides tokens is read from the row's first one."""
        return any(head != TOKENS for head in self.scores.values())


ALL, PAST = masks.documents(), masks.documents() & masks.causal()
OBJECTIVES = {
    "mlm": Objective(ALL, 2, {"mlm": TOKENS}),
    "mlm+sop": Objective(ALL, 3, {"mlm": TOKENS, "sop": "nsp"}),
    "mlm+nsp": Objective(ALL, 3, {"mlm": TOKENS, "nsp": "nsp"}),
    "lm": Objective(PAST, 2, {"lm": TOKENS}),
    "permuted": Objective(masks.documents() & masks.permuted(), 2, {"permuted": TOKENS}),
    "unilm": Objective(masks.documents() & masks.prefix(), 3, {"unilm": TOKENS}),
    "simbert": Objective(masks.documents() & masks.prefix(), 3, {"simbert": TOKENS, SIMILAR: SIMILAR}, pairs=True),
}


def check_objectives(objectives: Mapping[str, Any]) -> None:
    """Refuse names and weights that are none, and objectives with a target in common: `UserError`."""
    if not isinstance(objectives, Mapping):
        raise UserError(f"objective: expected a name, or weights as {{'mlm': 0.5, …}}, found {objectives!r:.80}")
    for name, weight in objectives.items():
        if name not in OBJECTIVES:
            raise UserError(f"objective: expected some of {', '.join(OBJECTIVES)}, found {name!r:.80}")
        if not within(weight, 0, sys.float_info.max) or weight == 0:
            raise UserError(f"objective {name}: expected a weight above 0, found {weight!r:.80}")
    targets = [target for name in objectives for target in OBJECTIVES[name].scores]
    if not targets or len(set(targets)) < len(targets):
        found = ", ".join(objectives) or "none"
        raise UserError(f"objective: expected at least one, and one of each kind, found {found}")


def check_rates(mask_rate: Any, as_mask: Any) -> None:
    """Refuse what is no share of the words, or none of their tokens: `UserError`."""
    if not within(mask_rate, 0, 1) or mask_rate in (0, 1):
        raise UserError(f"mask_rate: expected a number between 0 and 1, found {mask_rate!r:.80}")
    if not within(as_mask, 0, 1):
        raise UserError(f"as_mask: expected a number from 0 to 1, found {as_mask!r:.80}")


def check_network(objectives: Iterable[str], config: Config, heads: Sequence[str], family: str, length: Any) -> None:
    """Refuse a network that cannot learn by these objectives from rows of this length: `UserError`."""
    targets = {target for name in objectives for target in OBJECTIVES[name].scores}
    if config.num_decoder_layers:
        raise UserError(f"a {family} has a decoder, which no objective here trains")
    if "mlm" not in heads and "lm" not in heads:
        raise UserError("the network has no head that scores tokens ('mlm' or 'lm')")
    if {"sop", "nsp"} & targets and "nsp" not in heads:
        raise UserError(f"the objective {', '.join(objectives)} needs the heads 'pooler' and 'nsp'")
    if SIMILAR in targets and "pooler" not in heads:
        raise UserError("the objective simbert needs the head 'pooler'")
    for name in {"unilm", "simbert"} & targets:
        if config.num_segments == 1:
            raise UserError(f"the objective {name} needs segments 0 and 1, this {family} has one")
    whole_number("length", length, 8, config.longest or 2**20)
