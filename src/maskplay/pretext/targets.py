"""What is asked about a text that only the text itself can answer: rows become inputs and labels.

Masked words, the next token, the next token in a drawn order, the second half after the first, the order of two halves.
Everything is drawn anew for every batch from (seed, step) alone, so a run can go on in the middle. NumPy only; what is
no target has the label -100.

Sources: BERT (arXiv:1810.04805), whole-word masking (arXiv:1906.08101), ALBERT (arXiv:1909.11942), XLNet
(arXiv:1906.08237), UniLM (arXiv:1905.03197).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskplay.pretext.packing import Packed

__all__ = ["Framing", "Laid", "Rows", "lay_out", "masked", "next_tokens", "permuted", "places_for"]

IGNORED = -100
AS_MASK = 0.8  # of the chosen tokens (BERT)

Part = tuple[np.ndarray, np.ndarray]  # token ids, and which of them begin a word


@dataclass(frozen=True)
class Framing:
    """The special tokens around a piece: ids of `[CLS]`, `[SEP]`, `[PAD]` or what stands for them.

    Example:
        >>> from maskplay.text.tokenizer import Tokenizer
        >>> Framing.of(Tokenizer.from_characters(["山"], max_size=80))
        Framing(begin=2, end=3, pad=0)
    """

    begin: int
    end: int
    pad: int

    @classmethod
    def of(cls, tokenizer: Any) -> "Framing":
        """Those of a tokenizer; a decoder's begin- and end-of-text tokens serve as well.

        Raises:
            UserError: it has neither.
        """
        begin = tokenizer.cls_id if tokenizer.cls_id is not None else tokenizer.bos_id
        end = tokenizer.sep_id if tokenizer.sep_id is not None else tokenizer.eos_id
        end = tokenizer.special("eos") if end is None else end
        return cls(end if begin is None else begin, end, 0 if tokenizer.pad_id is None else tokenizer.pad_id)


@dataclass(frozen=True)
class Laid:
    """Rows as arrays, int32 `(batch, length)`.

    Attributes:
        tokens: with special tokens and padding.
        segments: which part of its piece a token is in.
        positions: places within the piece.
        documents: the piece's number in its row, from 1; 0 for padding.
        words: the word's number in its row, from 1; 0 for special tokens and padding.

    Example:
        >>> part = (np.array([7, 8, 9]), np.array([True, False, True]))
        >>> laid = lay_out([[[part]]], 6, Framing(begin=2, end=3, pad=0))
        >>> laid.words.tolist()
        [[0, 1, 1, 2, 0, 0]]
    """

    tokens: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    documents: np.ndarray
    words: np.ndarray


def lay_out(rows: Sequence[Sequence[Sequence[Part]]], length: int, framing: Framing) -> Laid:
    """Lay rows of pieces of parts side by side: `[CLS] part [SEP] part [SEP] [CLS] part [SEP] …`.

    Args:
        rows: for each row its pieces, for each piece its parts: token ids and which of them begin a word, `(tokens,)`.
        length: tokens of a row; all that is given fits.
        framing: the special tokens.

    Returns:
        The rows as int32 arrays `(rows, length)`.

    Example:
        >>> part = (np.array([7, 8, 9]), np.array([True, False, True]))
        >>> laid = lay_out([[[part], [part]]], 12, Framing(begin=2, end=3, pad=0))
        >>> for name in ("tokens", "positions", "documents", "words"):
        ...     print(*getattr(laid, name)[0])
        2 7 8 9 3 2 7 8 9 3 0 0
        0 1 2 3 4 0 1 2 3 4 0 0
        1 1 1 1 1 2 2 2 2 2 0 0
        0 1 1 2 0 0 3 3 4 0 0 0
    """
    tokens = np.full((len(rows), length), framing.pad, "int32")
    segments, positions, documents, words = (np.zeros((len(rows), length), "int32") for _ in range(4))
    for i, row in enumerate(rows):
        at = word = 0
        for number, piece in enumerate(row, 1):
            first = at
            tokens[i, at] = framing.begin
            at += 1
            for segment, (ids, begins) in enumerate(piece):
                end = at + len(ids)
                tokens[i, at:end] = ids
                tokens[i, end] = framing.end
                segments[i, at : end + 1] = segment
                numbers = np.cumsum(begins)
                numbers += word + (len(ids) > 0 and not begins[0])  # a part may begin in the middle of a word
                words[i, at:end] = numbers
                word = int(numbers[-1]) if len(ids) else word
                at = end + 1
            positions[i, first:at] = np.arange(at - first)
            documents[i, first:at] = number
    return Laid(tokens, segments, positions, documents, words)


def masked(
    laid: Laid,
    rate: float,
    mask: int,
    ordinary: np.ndarray,
    places: int,
    draw: np.random.Generator,
    as_mask: float = AS_MASK,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hide whole words: each is chosen with probability `rate`, each of its tokens then masked, kept or exchanged.

    Args:
        laid: rows.
        rate: 0 to 1.
        mask: the id of `[MASK]`.
        ordinary: the ids that a token may be exchanged for.
        places: most targets of a row; of too many, words are let go at random.
        draw: a generator.
        as_mask: 0 to 1, which share of the chosen tokens becomes `[MASK]`; half of the others stay, half are exchanged.

    Returns:
        Tokens `(batch, length)`, places `(batch, places)` and labels `(batch, places)`, -100 where a row has fewer.

    Example:
        >>> part = (np.array([7, 8, 9]), np.array([True, False, True]))
        >>> laid = lay_out([[[part]]], 6, Framing(begin=2, end=3, pad=0))
        >>> draw = np.random.default_rng(0)
        >>> tokens, at, labels = masked(laid, 0.5, mask=4, ordinary=np.arange(5, 10), places=2, draw=draw)
        >>> tokens.tolist(), at.tolist(), labels.tolist()
        ([[2, 7, 8, 4, 3, 0]], [[3, 0]], [[9, -100]])
    """
    rows = np.arange(len(laid.words))[:, None]
    chance = draw.random((len(rows), laid.words.max(initial=0) + 1))
    chance[:, 0] = 1  # no word at all
    target = chance[rows, laid.words] < rate
    for i in np.flatnonzero(target.sum(axis=1) > places):
        # Word by word in their drawn order, those for which there is room.
        chosen, sizes = np.unique(laid.words[i, target[i]], return_counts=True)
        room = places
        for place in np.argsort(chance[i, chosen]):
            if sizes[place] <= room:
                room -= sizes[place]
            else:
                target[i] &= laid.words[i] != chosen[place]
    fate = draw.random(target.shape)
    other = ordinary[draw.integers(len(ordinary), size=target.shape)]
    tokens = np.where(target & (fate < as_mask), mask, laid.tokens)
    tokens = np.where(target & (fate >= (1 + as_mask) / 2), other, tokens).astype("int32")
    at = np.argsort(~target, axis=1, kind="stable")[:, :places].astype("int32")
    labels = np.where(target[rows, at], laid.tokens[rows, at], IGNORED).astype("int32")
    return tokens, at, labels


def places_for(length: int, rate: float, word: float = 1.0) -> int:
    """How many targets a row has room for: so many that one row in some forty has more.

    Args:
        length: tokens of a row.
        rate: which share of the words is hidden.
        word: tokens of the word in which a token stands, on average: the sum of the words' squared lengths, divided by
            that of their lengths.

    Example:
        >>> places_for(128, 0.15), places_for(128, 0.15, word=2.0)
        (28, 31)
    """
    spread = 2 * (length * rate * (1 - rate) * word) ** 0.5
    return min(length, max(1, int(np.ceil(length * rate + spread))))


def next_tokens(laid: Laid) -> np.ndarray:
    """Labels `(batch, length)` of a language model: at each token the one after it in its piece.

    Example:
        >>> part = (np.array([7, 8, 9]), np.array([True, False, True]))
        >>> laid = lay_out([[[part]]], 6, Framing(begin=2, end=3, pad=0))
        >>> next_tokens(laid).tolist()
        [[7, 8, 9, 3, -100, -100]]
    """
    labels = np.full_like(laid.tokens, IGNORED)
    inside = (laid.documents[:, 1:] == laid.documents[:, :-1]) & (laid.documents[:, :-1] > 0)
    labels[:, :-1] = np.where(inside, laid.tokens[:, 1:], IGNORED)
    return labels


def permuted(laid: Laid, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A drawn order, and at each token the label of the one that comes next in it.

    Returns:
        Order `(batch, length)`: each token's place, pieces one after the other, each from its `[CLS]` on; labels
        `(batch, length)`.

    Example:
        >>> part = (np.array([7, 8, 9]), np.array([True, False, True]))
        >>> laid = lay_out([[[part]]], 6, Framing(begin=2, end=3, pad=0))
        >>> order, labels = permuted(laid, np.random.default_rng(0))
        >>> order.tolist(), labels.tolist()
        ([[0, 3, 2, 1, 4, 5]], [[9, 3, 7, 8, -100, -100]])
    """
    key = laid.documents + np.where(laid.positions == 0, 0, draw.random(laid.tokens.shape))
    key[laid.documents == 0] = np.inf
    places = np.argsort(key, axis=1, kind="stable")
    order = np.empty_like(laid.tokens)
    rows = np.arange(len(order))[:, None]
    order[rows, places] = np.arange(order.shape[1])
    in_order = Laid(*(getattr(laid, name)[rows, places] for name in Laid.__dataclass_fields__))
    labels = np.empty_like(order)
    labels[rows, places] = next_tokens(in_order)
    return order, labels


class Rows:
    """The rows of a packed corpus in the order in which a run meets them: a new one every time through.

    Args:
        packed: the rows.
        seed: of the order.

    Example:
        >>> import tempfile
        >>> from maskplay.pretext.prepared import prepare
        >>> from maskplay.text.tokenizer import Tokenizer
        >>> lines = ["山高水长。"] * 4
        >>> corpus = prepare([lines], tempfile.mkdtemp() + "/tokens", Tokenizer.from_characters(lines, max_size=90))
        >>> sorted(Rows(Packed(corpus, room=12)).numbers(0, 2).tolist())
        [0, 1]
    """

    def __init__(self, packed: Packed, seed: int = 0) -> None:
        self.packed, self.seed = packed, seed
        self._drawn: dict[int, np.ndarray] = {}

    def numbers(self, first: int, count: int) -> np.ndarray:
        """Which rows are the `first`-th and so on, from the beginning of the run."""
        found = []
        for place in range(first, first + count):
            time, at = divmod(place, len(self.packed))
            order = self._drawn.get(time)
            if order is None:
                order = np.random.default_rng([self.seed, time]).permutation(len(self.packed))
                # The last two are kept; several threads may ask, so nothing is taken out of this one.
                self._drawn = {**dict([*self._drawn.items()][-1:]), time: order}
            found.append(order[at])
        return np.array(found, "int64")

    def pieces(self, row: int) -> list[Part]:
        """The pieces of a row."""
        packed, corpus = self.packed, self.packed.corpus
        spans = zip(*(bound[packed.firsts[row] : packed.firsts[row + 1]] for bound in (packed.begins, packed.ends)))
        return [(corpus.ids[begin:end], corpus.words[begin:end]) for begin, end in spans]

    def sentences(self, row: int) -> np.ndarray:
        """Where in a row's first piece a further sentence begins, ints."""
        packed, bounds = self.packed, self.packed.corpus.sentences
        begin, end = packed.begins[packed.firsts[row]], packed.ends[packed.firsts[row]]
        return bounds[bounds.searchsorted(begin, "right") : bounds.searchsorted(end)] - begin
