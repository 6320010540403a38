"""Pairs of texts that mean the same, as rows: `[CLS] a [SEP] b [SEP]`, and in the same batch `[CLS] b [SEP] a [SEP]`.

Source: SimBERT (kexue.fm/archives/7427).
"""

from typing import Any

import numpy as np

from maskplay.errors import UserError
from maskplay.pretext.packing import Packed
from maskplay.pretext.prepared import Prepared

__all__ = ["Pairs"]

SPECIALS = 3


class Pairs(Packed):
    """The pairs of a corpus, one a row; what is too long is cut, the longer text first.

    Args:
        corpus: prepared with `pairs=True`.
        spans: which sentences to use, as `held_out` gives them; a pair counts that lies in one. Default: all.
        room: most tokens of a row, the three special ones included.

    Attributes: those of `Packed`; each row has two pieces.

    Raises:
        UserError: a corpus that was not prepared as pairs, or no pair.

    Example:
        >>> import tempfile
        >>> from maskplay.pretext.prepared import prepare
        >>> from maskplay.text.tokenizer import Tokenizer
        >>> pairs = [("山高", "水长水长水长"), ("风清", "月白")]
        >>> tokenizer = Tokenizer.from_characters(["山高水长风清月白"], max_size=90)
        >>> corpus = prepare(pairs, tempfile.mkdtemp() + "/tokens", tokenizer, pairs=True)
        >>> rows = Pairs(corpus, room=10)
        >>> len(rows), (rows.ends - rows.begins).tolist()
        (2, [2, 5, 2, 2])
    """

    def __init__(self, corpus: Prepared, spans: Any = None, *, room: int) -> None:
        if not corpus.pairs:
            raise UserError(f"{corpus.folder}: expected pairs of texts, found texts; prepare it with pairs=True")
        if room < SPECIALS + 2:
            raise UserError(f"length: expected at least {SPECIALS + 2}, found {room}")
        bounds = np.stack([corpus.documents[i : len(corpus.documents) - 2 + i : 2] for i in range(3)], axis=1)
        if spans is not None:
            spans = np.asarray(spans)
            within = np.searchsorted(spans[:, 0], bounds[:, 0], "right") - 1
            bounds = bounds[(within >= 0) & (bounds[:, 2] <= spans[within, 1])]
        if not len(bounds):
            raise UserError("the corpus: expected some pairs, found none")
        at = np.asarray(corpus.sentences[bounds])
        room_of_both, (one, other) = room - SPECIALS, np.diff(at, axis=1).T
        one = np.minimum(one, np.maximum(room_of_both - other, room_of_both // 2))
        other = np.minimum(other, room_of_both - one)
        self.corpus, self.room, self.specials = corpus, room, SPECIALS
        self.begins = at[:, :2].ravel()
        self.ends = self.begins + np.stack([one, other], axis=1).ravel()
        self.firsts = np.arange(len(at) + 1) * 2
        self.tokens = int((one + other + SPECIALS).sum())
