"""The best way through many short texts at once: a step of the recursion takes the next character of all of them.

Runs of characters stand side by side, the longest first, so that those that go on are always the first ones; what is
known of step t lies together. A recursion over one text costs Python a turn for each character, here one for each
character of the longest.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


class Runs:
    """Runs of characters in a text.

    Args:
        starts, lengths: of each run, ints `(runs,)`; none is empty.

    Attributes:
        going: how many runs have a character at step 0, 1, …
        begins: where the characters of each step begin, with the end behind the last.
        places: where in the text the characters stand, those of step 0 first, int64 `(characters,)`.

    Example:
        >>> runs = Runs(np.array([0, 4]), np.array([2, 3]))  # "ab..cde"
        >>> runs.places.tolist(), runs.going
        ([4, 0, 5, 1, 6], [2, 2, 1])
    """

    def __init__(self, starts: NDArray, lengths: NDArray) -> None:
        starts = starts[np.argsort(-lengths, kind="stable")]
        ended = np.cumsum(np.bincount(lengths))
        going = (len(lengths) - ended[:-1]) if len(lengths) else ended
        begins = np.concatenate([[0], np.cumsum(going)])
        step = np.repeat(np.arange(len(going)), going)
        self.places = starts[np.arange(len(step)) - begins[step]] + step
        self.going: list[int] = going.tolist()
        self.begins: list[int] = begins.tolist()


def best_tags(scores: NDArray[np.float32], runs: Runs, joins: Sequence[float]) -> NDArray[np.bool_]:
    """Which characters begin a word, by the best tags: first, second, … character of a word.

    Args:
        scores: of each character as the first, second, … of its word, `(tags, characters)`, as `Runs.places` has them.
        runs: what is to be cut.
        joins: what is added where a word goes on: from its first character to its second and so on; the last one from
            the last tag to itself.

    Returns:
        `(characters,)`, in the order of `Runs.places`.
    """
    last = len(joins) - 1
    tags, came = np.zeros(runs.begins[-1], np.uint8), np.zeros(runs.begins[-1], np.uint8)
    stays = np.zeros(runs.begins[-1], bool)
    now = np.full((last + 1, (runs.going or [0])[0]), -np.inf)
    for step, (going, begin) in enumerate(zip(runs.going, runs.begins)):
        here, before = slice(begin, begin + going), now[:, :going]
        now = np.empty((last + 1, going))
        if step:
            top, tag = before[0].copy(), came[here]
            for i in range(1, last + 1):
                tag[before[i] > top] = i
                np.maximum(top, before[i], out=top)
            now[0] = top
            now[1:] = before[:-1] + np.array(joins[:-1])[:, None]
            again = before[last] + joins[last]
            np.greater(again, now[last], out=stays[here])
            np.maximum(again, now[last], out=now[last])
        else:
            now[0], now[1:] = 0, -np.inf
        now += scores[: last + 1, here]
        tags[here] = now.argmax(axis=0)  # of those that end here
    for step in range(len(runs.going) - 1, 0, -1):
        begin, going = runs.begins[step], runs.going[step]
        here, earlier = slice(begin, begin + going), slice(runs.begins[step - 1], runs.begins[step - 1] + going)
        tag = tags[here]
        tags[earlier] = np.where(tag == 0, came[here], tag - 1 + (stays[here] & (tag == last)))
    return tags == 0


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
