"""A corpus cut into pieces and packed into rows of one length, with next to no padding.

A piece is a stretch of one document that fits into a row. It ends with a sentence if that leaves little of the row
empty, else with a word; or with a sentence wherever there is one. Short pieces of any documents share a row: the mask
`documents()` keeps them apart, so a packed row computes what its pieces would compute alone.

Sources: RoBERTa's FULL-SENTENCES (arXiv:1907.11692); Krell et al. 2021 (arXiv:2107.02027) for the packing.
"""

from array import array
from typing import Any

import numpy as np

from maskplay.errors import UserError, within
from maskplay.pretext.prepared import Prepared

__all__ = ["Packed", "held_out", "pack"]

CHUNK = 32  # sentences that are held out together, at most


class Packed:
    """The rows of a corpus: which of its tokens stand in each.

    Args:
        corpus: a prepared one.
        spans: which sentences to use, ints `(spans, 2)`, first and end; no piece goes over a span's border. Default:
            the documents.
        room: most tokens of a row, special ones included.
        specials: special tokens of each piece: 2 for `[CLS] … [SEP]`, 3 for pairs.
        shared: whether pieces may share a row.
        whole: whether pieces end with a sentence even if that leaves much of a row empty, so that what a text begins
            and ends with tells nothing.

    Attributes:
        begins, ends: of each piece in `corpus.ids`, int64 `(pieces,)`.
        firsts: which piece each row begins with, and the end, int64 `(rows + 1,)`; a row's pieces stand together.
        tokens: how many tokens stand in all rows, special ones included.

    Raises:
        UserError: no row, or a room without room.

    Example:
        >>> import tempfile
        >>> from maskplay.pretext.prepared import prepare
        >>> from maskplay.text.tokenizer import Tokenizer
        >>> lines = ["山高水长。"] * 4
        >>> corpus = prepare([lines], tempfile.mkdtemp() + "/tokens", Tokenizer.from_characters(lines, max_size=90))
        >>> rows = Packed(corpus, room=12)
        >>> len(rows), rows.begins.tolist(), rows.ends.tolist()
        (2, [0, 10], [10, 20])
    """

    def __init__(
        self,
        corpus: Prepared,
        spans: Any = None,
        *,
        room: int,
        specials: int = 2,
        shared: bool = True,
        whole: bool = False,
    ) -> None:
        if room < specials + 2:
            raise UserError(f"length: expected at least {specials + 2}, found {room}")
        if spans is None:
            spans = np.stack([corpus.documents[:-1], corpus.documents[1:]], axis=1)
        self.corpus, self.room, self.specials = corpus, room, specials
        begins, ends = pieces(corpus, spans, room - specials, whole)
        if not len(begins):
            raise UserError("the corpus: expected some text, found none")
        sizes = ends - begins + specials
        rows = pack(sizes, room) if shared else np.arange(len(sizes))
        order = np.argsort(rows, kind="stable")
        self.begins, self.ends = begins[order], ends[order]
        self.firsts = np.searchsorted(rows[order], np.arange(rows.max() + 2))
        self.tokens = int(sizes.sum())

    def __len__(self) -> int:
        return len(self.firsts) - 1

    @property
    def filled(self) -> float:
        """Which share of the rows is not padding."""
        return self.tokens / (len(self) * self.room)


def pieces(corpus: Prepared, spans: Any, room: int, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where pieces of at most `room` tokens begin and end in `corpus.ids`, span by span, without a gap.

    A piece ends with a sentence; where that would leave more than a sixteenth of the room empty, with a word, unless
    sentences are to stay `whole` and one ends in it.
    """
    offsets = corpus.sentences
    firsts, stops = np.asarray(spans, "int64").reshape(-1, 2).T
    firsts, stops = offsets[firsts], offsets[stops]
    short = (firsts < stops) & (stops - firsts <= room)  # one piece each; there may be millions
    begins, ends, of = array("q"), array("q"), array("q")
    for span in np.flatnonzero(stops - firsts > room).tolist():
        begin, stop = int(firsts[span]), int(stops[span])
        while begin < stop:
            end = min(begin + room, stop)
            if end < stop:
                sentence = int(offsets[offsets.searchsorted(end, "right") - 1])
                if sentence > begin and (whole or end - sentence <= room // 16):
                    end = sentence
                else:
                    starts = np.flatnonzero(corpus.words[begin + 1 : end + 1])
                    end = begin + 1 + int(starts[-1]) if len(starts) else end
            begins.append(begin)
            ends.append(end)
            of.append(span)
            begin = end
    order = np.argsort(np.concatenate([np.flatnonzero(short), np.array(of, "int64")]), kind="stable")
    found = ((firsts, begins), (stops, ends))
    begin, end = (np.concatenate([one[short], np.array(some, "int64")])[order] for one, some in found)
    return begin, end


def pack(sizes: Any, room: int) -> np.ndarray:
    """Which row each piece goes into: the largest pieces first, each into the row where it leaves the least room.

    Args:
        sizes: ints `(pieces,)`, each from 1 to `room`.
        room: of a row.

    Returns:
        Row numbers, int64 `(pieces,)`, from 0 without a gap.

    Raises:
        UserError: a size below 1 or above `room`.

    Example:
        >>> pack([5, 3, 8, 2, 6], room=8).tolist()
        [2, 2, 0, 1, 1]
    """
    sizes = np.asarray(sizes)
    if len(sizes) and not 1 <= sizes.min() <= sizes.max() <= room:
        raise UserError(f"sizes: expected 1 to {room}, found {sizes.min()} to {sizes.max()}")
    rows, count = np.empty(len(sizes), "int64"), 0
    free = [np.zeros(0, "int64") for _ in range(room + 1)]  # rows by the room that is left in them
    order = np.argsort(-sizes, kind="stable")
    bounds = np.searchsorted(-sizes[order], -np.arange(room, -1, -1), "right")
    for size, begin, end in zip(range(room, 0, -1), [0, *bounds], bounds):
        left = order[begin:end]
        while len(left):
            # All at once that go into rows with equally much room.
            tight = next((space for space in range(size, room + 1) if len(free[space])), None)
            if tight is None:
                new = -(-len(left) // (room // size))
                free[room], count = np.arange(count, count + new), count + new
                continue
            chosen, free[tight] = free[tight][: len(left)], free[tight][len(left) :]
            rows[left[: len(chosen)]] = chosen
            free[tight - size] = np.concatenate([free[tight - size], chosen])
            left = left[len(chosen) :]
    return rows


def held_out(corpus: Prepared, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Spans of sentences to train on, and spans to test on: a random share of stretches of neighbouring sentences.

    A stretch has up to 32 of them, in a small corpus fewer, so that there are about sixteen; of pairs it is one pair.

    Args:
        corpus: a prepared one.
        share: of the stretches, at least one.
        seed: of the choice.

    Returns:
        Two arrays, int64 `(spans, 2)`, as `Packed` takes them.

    Raises:
        UserError: the corpus is one sentence, so nothing would be left to train on, or no such share.

    Example:
        >>> import tempfile
        >>> from maskplay.pretext.prepared import prepare
        >>> from maskplay.text.tokenizer import Tokenizer
        >>> lines = ["山高水长。"] * 64
        >>> corpus = prepare([lines], tempfile.mkdtemp() + "/tokens", Tokenizer.from_characters(lines, max_size=90))
        >>> train, dev = held_out(corpus, 0.1)
        >>> int((train[:, 1] - train[:, 0]).sum()), int((dev[:, 1] - dev[:, 0]).sum())
        (56, 8)
    """
    share = checked_share(share)
    size, bounds = max(1, min(CHUNK, (len(corpus.sentences) - 1) // 16)), corpus.documents
    if corpus.pairs:
        size, bounds = len(corpus.sentences), bounds[::2]
    first, end = bounds[:-1], bounds[1:]
    counts = -(-(end - first) // size)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of a stretch in its document
    begin = np.repeat(first, counts) + size * number
    spans = np.stack([begin, np.minimum(begin + size, np.repeat(end, counts))], axis=1)
    if len(spans) < 2:
        raise UserError("the corpus: expected at least two sentences, so that one can be held out, found one")
    count = min(max(1, round(share * len(spans))), len(spans) - 1)
    chosen = np.zeros(len(spans), bool)
    chosen[np.random.default_rng(seed).choice(len(spans), count, replace=False)] = True
    # Neighbours that are both trained on are one stretch, unless a document begins between them.
    joined = (~chosen[1:] & ~chosen[:-1]) & ~np.isin(spans[1:, 0], corpus.documents)
    first, last = ~chosen & ~np.append(False, joined), ~chosen & ~np.append(joined, False)
    return np.stack([spans[first, 0], spans[last, 1]], axis=1), spans[chosen]


def checked_share(share: Any) -> float:
    """A share of a corpus that can be held out, or `UserError`."""
    if not within(share, 0, 1) or share in (0, 1):
        raise UserError(f"held_out: expected a share between 0 and 1, found {share!r:.40}")
    return float(share)
