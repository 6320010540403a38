"""Text as its own teacher: a corpus becomes token ids, ids become full rows, rows become inputs and targets.

Nothing here knows a model; `maskplay.plays.Pretrain` is what learns from it.
"""

from maskplay.pretext.halves import in_order, split, with_others
from maskplay.pretext.packing import Packed, held_out, pack
from maskplay.pretext.pairs import Pairs
from maskplay.pretext.prepared import Prepared, default_words, prepare, sentences
from maskplay.pretext.targets import Framing, Laid, Rows, lay_out, masked, next_tokens, permuted, places_for

__all__ = [
    "Framing",
    "Laid",
    "Packed",
    "Pairs",
    "Prepared",
    "Rows",
    "default_words",
    "held_out",
    "in_order",
    "lay_out",
    "masked",
    "next_tokens",
    "pack",
    "permuted",
    "places_for",
    "prepare",
    "sentences",
    "split",
    "with_others",
]
