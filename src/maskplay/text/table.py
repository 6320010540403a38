"""Splitting Chinese text by looking characters up.

Nearly every character of Chinese text is one token or none, whatever stands beside it. Which, is asked of the Rust
tokenizer once, when a character is first met, and found in a table from then on; what lies between such characters, a
Latin word above all, is split by Rust once as well. Ids and offsets are Rust's, at many times its speed.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import tokenizers

from maskplay.text.kind import Flat

OTHER, SPACE, UNASKED = -1, -2, -3  # of characters that are no token by themselves
LOW = 2**16  # code points that the table has; rarer ones are OTHER
ALONE, APART = [(0, 1), (1, 2), (2, 3)], [(0, 1), (2, 3)]  # offsets where x.x is three words, and where it is two
MOST_RUNS, LONGEST_RUN = 2**17, 64  # that are remembered; characters of one

Run = tuple[list[int], list[tuple[int, int]]]  # ids and offsets


class Table:
    """What is known of the characters of a vocabulary.

    Args:
        rust: a tokenizer whose words are found by looking at each character alone, as BERT's are.
    """

    def __init__(self, rust: tokenizers.Tokenizer) -> None:
        self.rust = rust
        self.ids = np.full(LOW, UNASKED, "int32")
        self.runs: dict[str, Run] = {}

    def split(self, texts: Sequence[str]) -> Flat:
        """The tokens of all texts."""
        whole = "\n".join(texts)  # a line end is a space, so nothing reaches over it
        codes = np.frombuffer(whole.encode("utf-32-le"), "uint32")
        ids = self._looked_up(codes)
        alone, other = np.flatnonzero(ids >= 0), np.concatenate([[False], ids == OTHER, [False]])
        edges = np.flatnonzero(other[1:] != other[:-1])
        begins, ends = edges[::2], edges[1::2]
        runs = list(map(whole.__getitem__, map(slice, begins.tolist(), ends.tolist())))
        run_ids, run_offsets, sizes, which = self._split_runs(runs)

        counts = np.zeros(len(codes) + 1, "int64")  # tokens that begin in front of each character, summed up
        counts[1:][alone] = 1
        counts[1:][begins] = sizes
        before = np.cumsum(counts)
        found = np.empty(before[-1], "int32")
        offsets = np.empty((before[-1], 2), "int64")
        found[before[alone]] = ids[alone]
        offsets[before[alone]] = alone[:, None] + [0, 1]
        at = np.repeat(before[begins] - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(which))
        found[at] = run_ids[which]
        offsets[at] = run_offsets[which] + np.repeat(begins, sizes)[:, None]

        starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
        per_text = np.diff(before[np.minimum(starts, len(codes))])
        offsets -= np.repeat(starts[:-1], per_text)[:, None]
        return Flat(found, offsets, per_text)

    def _looked_up(self, codes: np.ndarray) -> np.ndarray:
        ids = self.ids.take(np.minimum(codes, LOW - 1))
        ids[codes >= LOW] = OTHER
        new = np.unique(codes[ids == UNASKED])
        if not len(new):
            return ids
        asked = self.rust.encode_batch([f"x{chr(code)}x" for code in new.tolist()], add_special_tokens=False)
        for code, answer in zip(new.tolist(), asked):
            kind = OTHER
            if answer.word_ids == [0, 1, 2] and answer.offsets == ALONE:
                kind = answer.ids[1]
            elif answer.word_ids == [0, 1] and answer.offsets == APART:
                kind = SPACE
            self.ids[code] = kind
        return self._looked_up(codes)

    def _split_runs(self, runs: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Ids and offsets of the different runs one behind another; of each run its size and which of these are its."""
        number = {run: i for i, run in enumerate(dict.fromkeys(runs))}
        known = [self.runs.get(run) for run in number]
        new = [run for run, one in zip(number, known) if one is None]
        if new:
            split = [(e.ids, e.offsets) for e in self.rust.encode_batch(new, add_special_tokens=False)]
            answers = iter(split)
            known = [next(answers) if one is None else one for one in known]
            if len(self.runs) > MOST_RUNS:
                self.runs.clear()
            self.runs.update((run, one) for run, one in zip(new, split) if len(run) <= LONGEST_RUN)
        each = np.array([len(one[0]) for one in known if one], "int64")
        total = int(each.sum())
        ids = np.fromiter(chain.from_iterable(one[0] for one in known if one), "int32", total)
        flat = chain.from_iterable(chain.from_iterable(one[1] for one in known if one))
        offsets = np.fromiter(flat, "int64", 2 * total).reshape(-1, 2)
        mine = np.fromiter(map(number.__getitem__, runs), "int64", len(runs))
        sizes = each[mine]
        first = (np.cumsum(each) - each)[mine] - (np.cumsum(sizes) - sizes)
        return ids, offsets, sizes, np.repeat(first, sizes) + np.arange(sizes.sum())
