"""From tokens to words: which of them stay, and what is known of each.

A token of up to two symbols stays, a longer one when it is a cohesive n-gram itself, or all n-grams of the greatest
order in it are: what overlapping n-grams chained by chance goes here.
"""

import numpy as np
from numpy.typing import NDArray

from maskplay.words.found import Found
from maskplay.words.grams import unpacked
from maskplay.words.symbols import Alphabet
from maskplay.words.tokens import Tokens
from maskplay.words.trie import Trie


class Candidates:
    """What becomes of the tokens: rows of ids grouped by length, each with its count and cohesion."""

    def __init__(
        self,
        alphabet: Alphabet,
        members: dict[int, tuple[NDArray[np.uint64], NDArray[np.float64]]],
        tokens: Tokens,
        bits: int,
        order: int,
        least: int,
    ) -> None:
        self.alphabet = alphabet
        ids = np.flatnonzero(tokens.single >= least)
        self.rows: dict[int, NDArray] = {1: ids[:, None]}
        self.counts: dict[int, NDArray] = {1: tokens.single[ids]}
        self.cohesion: dict[int, NDArray] = {1: np.full(len(ids), np.nan)}
        start = 0
        for n, (keys, values) in members.items():
            counts = tokens.members[start : start + len(keys)]
            start += len(keys)
            some = np.flatnonzero(counts >= least)
            self.rows[n], self.counts[n] = unpacked(keys[some], n, bits), counts[some]
            self.cohesion[n] = values[some]
        longer: dict[int, list[tuple[bytes, int]]] = {}
        for token, count in tokens.longer.items():
            if count >= least:
                longer.setdefault(len(token) // 2, []).append((token, count))
        keys, values = members[order]
        shifts = (np.arange(order - 1, -1, -1) * bits).astype(np.uint64)
        for n, some in longer.items():
            rows = np.frombuffer(b"".join(token for token, _ in some), np.uint16).reshape(-1, n)
            windows = np.lib.stride_tricks.sliding_window_view(rows.astype(np.uint64), order, axis=1)
            places = np.searchsorted(keys, (windows << shifts).sum(-1, dtype=np.uint64))
            self.rows[n], self.counts[n] = rows.astype(np.int64), np.array([count for _, count in some])
            self.cohesion[n] = values[places].min(axis=1)
        self.texts = {n: [alphabet.text(row) for row in rows.tolist()] for n, rows in self.rows.items()}

    def keep(self, shortest: float, longest: float, known: set[str], not_first: str, not_last: str) -> None:
        """Leave out what is known, too short or long, or has a forbidden edge."""
        for n, texts in self.texts.items():
            wanted = [
                shortest <= len(text) <= longest
                and text not in known
                and text[0] not in not_first
                and text[-1] not in not_last
                for text in texts
            ]
            self._choose(n, np.flatnonzero(wanted))

    def _choose(self, n: int, places: NDArray[np.int64]) -> None:
        for columns in (self.rows, self.counts, self.cohesion):
            columns[n] = columns[n][places]
        self.texts[n] = [self.texts[n][place] for place in places.tolist()]

    def trie(self) -> Trie:
        """Of all words of more than one symbol."""
        return Trie({n: self.rows[n] for n in sorted(self.rows) if n > 1})

    def table(
        self,
        alphabet: Alphabet,
        occurrences: NDArray[np.int64],
        left: NDArray[np.float64],
        right: NDArray[np.float64],
        min_freedom: float,
        min_alone: float,
        least: int,
        characters: int,
    ) -> Found:
        """All columns together, the most frequent words first."""
        orders = sorted(self.rows)
        ones = len(self.rows[1])
        texts = [text for n in orders for text in self.texts[n]]
        frequency = np.concatenate([self.counts[n] for n in orders])
        cohesion = np.concatenate([self.cohesion[n] for n in orders])
        lengths = np.repeat(orders, [len(self.rows[n]) for n in orders])
        nothing = np.full(ones, np.nan)
        all_ = np.concatenate([alphabet.counts[self.rows[1][:, 0]], occurrences])
        left, right = (np.concatenate([nothing, side]) for side in (left, right))
        score = cohesion / np.maximum(1, lengths - 1) + np.minimum(left, right)
        wanted = (lengths == 1) | (np.minimum(left, right) >= min_freedom)
        wanted &= frequency / all_ >= min_alone  # not a product, which rounds .28 of 25 to more than 7
        order = [i for i in sorted(range(len(texts)), key=lambda i: (-frequency[i], texts[i])) if wanted[i]]
        return Found(
            word=np.array([texts[i] for i in order], dtype=np.dtypes.StringDType()),
            frequency=frequency[order],
            occurrences=all_[order],
            cohesion=cohesion[order],
            left_freedom=left[order],
            right_freedom=right[order],
            score=score[order],
            characters=characters,
            min_count=least,
        )
