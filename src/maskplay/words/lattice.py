"""The best way through many short texts at once: a step of the recursion takes the next character of all of them.

Runs of characters stand side by side, the longest first, so that those that go on are always the first ones; what is
known of step t lies together. A recursion over one text costs Python a turn for each character, here one for each
character of the longest, or of a span of it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SPAN = 512  # characters of a run that are looked at by themselves


class Runs:
    """Runs of characters in a text.

    Args:
        starts, lengths: of each run, ints `(runs,)`; none is empty.

    Attributes:
        starts, lengths: the same, the longest first.
        going: how many runs have a character at step 0, 1, …
        begins: where the characters of each step begin, with the end behind the last.
        places: where in the text the characters stand, those of step 0 first, int64 `(characters,)`.

    Example:
        >>> runs = Runs(np.array([0, 4]), np.array([2, 3]))  # "ab..cde"
        >>> runs.places.tolist(), runs.going
        ([4, 0, 5, 1, 6], [2, 2, 1])
    """

    def __init__(self, starts: NDArray, lengths: NDArray) -> None:
        order = np.argsort(-lengths, kind="stable")
        self.starts, self.lengths = starts[order], lengths[order]
        ended = np.cumsum(np.bincount(lengths))
        going = (len(lengths) - ended[:-1]) if len(lengths) else ended
        begins = np.concatenate([[0], np.cumsum(going)])
        step = np.repeat(np.arange(len(going)), going)
        self.places = self.starts[np.arange(len(step)) - begins[step]] + step
        self.going: list[int] = going.tolist()
        self.begins: list[int] = begins.tolist()


def best_tags(scores: NDArray[np.float32], runs: Runs, joins: Sequence[float]) -> NDArray[np.bool_]:
    """Which characters begin a word, by the best tags: first, second, … character of a word.

    A long run is a turn of Python for each character, so it is looked at in spans, all at once and each for every tag
    that may stand before it; which one does is known when the spans are joined.

    Args:
        scores: of each character of the text as the first, second, … of its word, `(tags, length)`.
        runs: what is to be cut.
        joins: what is added where a word goes on: from its first character to its second and so on; the last one from
            the last tag to itself.

    Returns:
        `(characters,)`, in the order of `Runs.places`.
    """
    if not runs.going:
        return np.zeros(0, bool)
    spans = _Spans(runs, len(joins))
    lanes, last = spans.lanes, len(joins) - 1
    came, stays = np.zeros(lanes.begins[-1], np.uint8), np.zeros(lanes.begins[-1], bool)
    now = np.full((last + 1, len(spans.before)), -np.inf)
    inside = np.flatnonzero(spans.before >= 0)
    now[spans.before[inside], inside] = 0.0
    ends = np.empty_like(now)
    for step, (going, begin) in enumerate(zip(lanes.going, lanes.begins)):
        here, before = slice(begin, begin + going), now[:, :going]
        ends[:, going : now.shape[1]] = now[:, going:]
        now = np.empty((last + 1, going))
        top, tag = before[0].copy(), came[here]
        for i in range(1, last + 1):
            tag[before[i] > top] = i
            np.maximum(top, before[i], out=top)
        now[0] = top
        now[1:] = before[:-1] + np.array(joins[:-1])[:, None]
        again = before[last] + joins[last]
        np.greater(again, now[last], out=stays[here])
        np.maximum(again, now[last], out=now[last])
        if not step:
            now[0, spans.before < 0] = 0.0  # where a run begins, a word does
        now += scores[: last + 1].take(lanes.places[here], axis=1)
    ends[:, : now.shape[1]] = now
    tags, chosen = np.zeros(lanes.begins[-1], np.uint8), np.zeros(len(spans.before), bool)
    chosen[:], tags[np.array(lanes.begins)[lanes.lengths - 1] + np.arange(len(chosen))] = spans.joined(ends)
    for step in range(len(lanes.going) - 1, 0, -1):
        begin, going = lanes.begins[step], lanes.going[step]
        here, earlier = slice(begin, begin + going), slice(lanes.begins[step - 1], lanes.begins[step - 1] + going)
        tag = tags[here]
        tags[earlier] = np.where(tag == 0, came[here], tag - 1 + (stays[here] & (tag == last)))
    lane = np.arange(len(tags)) - np.repeat(lanes.begins[:-1], lanes.going)
    first = np.zeros(scores.shape[1], bool)
    first[lanes.places[chosen[lane]]] = tags[chosen[lane]] == 0
    return first[runs.places]


class _Spans:
    """Runs in spans, and for each span a lane for every tag before it; where a run begins there is one.

    Attributes:
        lanes: the spans as runs, one for each lane.
        before: the tag before each lane, -1 where a run begins.
    """

    def __init__(self, runs: Runs, tags: int) -> None:
        counts = -(-runs.lengths // SPAN)
        begins = np.cumsum(counts) - counts
        self.runs = [(first, first + count) for first, count in zip(begins.tolist(), counts.tolist()) if count > 1]
        run = np.repeat(np.arange(len(counts)), counts)
        inside = np.arange(len(run)) - begins[run]  # how many spans of the run stand before
        starts, lengths = runs.starts[run] + SPAN * inside, np.minimum(SPAN, runs.lengths[run] - SPAN * inside)
        lanes = np.where(inside > 0, tags, 1)
        self._lane = np.cumsum(lanes) - lanes
        span = np.repeat(np.arange(len(run)), lanes)
        order = np.argsort(-lengths[span], kind="stable")
        self._place = np.empty_like(order)  # of each lane among the sorted ones
        self._place[order] = np.arange(len(order))
        self.lanes = Runs(starts[span][order], lengths[span][order])
        self.before = np.where(inside[span] > 0, np.arange(len(span)) - self._lane[span], -1)[order]

    def joined(self, ends: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which lanes the best ways take, and the tag at the end of each.

        Args:
            ends: what the best way through a lane adds up to, by the tag at its end, `(tags, lanes)`.
        """
        chosen, tags = self.before < 0, ends.argmax(axis=0)
        for first, stop in self.runs:
            sums, came = ends[:, self._place[self._lane[first]]], []
            for span in range(first + 1, stop):
                lane = self._lane[span]
                both = sums + ends[:, self._place[lane : lane + len(ends)]]
                came.append(both.argmax(axis=1))
                sums = both.max(axis=1)
            tag = int(sums.argmax())
            for span in range(stop - 1, first, -1):
                before = int(came.pop()[tag])
                place = self._place[self._lane[span] + before]
                chosen[place], tags[place] = True, tag
                tag = before
            tags[self._place[self._lane[first]]] = tag
        return chosen, tags


Scores = dict[int, NDArray[np.float64]]  # of the word of n characters that begins at each place; -inf where none does


def best_words(scores: Scores, runs: Runs) -> NDArray[np.bool_]:
    """Which characters begin a word, by the words of the greatest sum.

    Args:
        scores: `(characters,)` for each length, in the order of `Runs.places`; those of single characters are finite.
        runs: what is to be cut.
    """
    paths = _Paths(scores, runs)
    lengths = np.zeros(runs.begins[-1], np.int32)  # of the last word
    for step, going in enumerate(runs.going):
        best, length = paths.sums(step), lengths[runs.begins[step] :][:going]
        best[:] = -np.inf
        for n, reached in paths.into(step, going):
            length[reached > best] = n
            np.maximum(best, reached, out=best)
    left = lengths.copy()  # characters of its word up to each, once all later ones are settled
    for step in range(len(runs.going) - 1, 0, -1):
        going = runs.going[step]
        here, before = left[runs.begins[step] :][:going], slice(runs.begins[step - 1], runs.begins[step - 1] + going)
        left[before] = np.where(here == 1, lengths[before], here - 1)
    return left == 1


def expected_words(scores: Scores, runs: Runs) -> tuple[Scores, float]:
    """How probable it is that a word stands at each place, over all ways to cut, and log of the sum over the ways.

    Args:
        scores: natural logs of the words' probabilities, as in `best_words`.
        runs: what is to be cut.
    """
    paths = _Paths(scores, runs)
    steps = len(runs.going)
    for step, going in enumerate(runs.going):
        total = paths.sums(step)
        total[:] = -np.inf
        for _, reached in paths.into(step, going):
            np.logaddexp(total, reached, out=total)
    found = {n: np.zeros(runs.begins[-1]) for n in scores}
    whole = np.zeros((runs.going or [0])[0])
    behind = np.zeros(len(paths.values))  # of all ways from a place to the end of its run
    for step in range(steps - 1, -1, -1):
        # Runs that end with this step, then all ways on from where it begins.
        ended = slice(runs.going[step + 1] if step + 1 < steps else 0, runs.going[step])
        whole[ended] = paths.sums(step)[ended]
        here = behind[paths.begins[step] :][: runs.going[step]]
        here[:] = -np.inf
        for n, score in scores.items():
            if step + n <= steps:
                going = runs.going[step + n - 1]
                at = slice(runs.begins[step], runs.begins[step] + going)
                onward = score[at] + behind[paths.begins[step + n] :][:going]
                np.logaddexp(here[:going], onward, out=here[:going])
                found[n][at] = np.exp(paths.values[paths.begins[step] :][:going] + onward - whole[:going])
    return found, float(whole.sum())


class _Paths:
    """What is known of the ways to each place between characters; before the first one it is 0."""

    def __init__(self, scores: Scores, runs: Runs) -> None:
        self.scores, self.runs = scores, runs
        first = (runs.going or [0])[0]
        self.begins = [0, *(begin + first for begin in runs.begins)]
        self.values = np.zeros(self.begins[-1])

    def sums(self, step: int) -> NDArray[np.float64]:
        """Of the ways to behind a step's characters."""
        return self.values[self.begins[step + 1] :][: self.runs.going[step]]

    def into(self, step: int, going: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The ways whose last word ends with a step's characters, by that word's length."""
        for n, score in self.scores.items():
            if n <= step + 1:
                begin = step + 1 - n
                before = self.values[self.begins[begin] :][:going]
                yield n, before + score[self.runs.begins[begin] :][:going]
