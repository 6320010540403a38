"""n-gram models and ways to cut text once more, with dictionaries and by trying everything."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
Gram = tuple[str, ...]


class KneserNey:
    """Interpolated Kneser-Ney with three discounts, after Chen and Goodman; n-grams left out give all they have."""

    def __init__(self, lines: list[str], order: int, min_count: int) -> None:
        sentences = [s for line in lines for s in re.split(r"[\s\x00-\x1f]+", line) if s]
        marked = [(START, *sentence, END) for sentence in sentences]
        self.raw: Counter[Gram] = Counter(
            s[i : i + n] for s in marked for n in range(1, order + 1) for i in range(len(s) - n + 1)
        )
        lefts: dict[Gram, set[str]] = {}
        for gram in self.raw:
            lefts.setdefault(gram[1:], set()).add(gram[0])
        self.weights = {
            gram: count if len(gram) == order or gram[0] == START else len(lefts[gram])
            for gram, count in self.raw.items()
            if gram != (START,)
        }
        self.order, self.min_count = order, min_count
        self.vocabulary = sorted({c for s in sentences for c in s}) + [END, UNKNOWN]
        self.discounts = {n: self._discounts(n) for n in range(1, order + 1)}
        self.nexts: dict[Gram, list[str]] = {}
        for gram in self.weights:
            self.nexts.setdefault(gram[:-1], []).append(gram[-1])

    def _discounts(self, n: int) -> list[float]:
        sizes = Counter(weight for gram, weight in self.weights.items() if len(gram) == n)
        n1, n2, n3, n4 = (sizes[k] for k in (1, 2, 3, 4))
        if n1 and n2 and n3 and n4:
            y = n1 / (n1 + 2 * n2)
            found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
            if all(0 < d <= k for d, k in zip(found, (1, 2, 3))):
                return [0, *found]
        return [0, 0.5, 1, 1.5]

    def probability(self, last: str, before: Gram = ()) -> float:
        """Of a character after others, of which the last ones count."""
        before = before[-(self.order - 1) :]
        n = len(before) + 1
        lower = 1 / len(self.vocabulary) if n == 1 else self.probability(last, before[1:])
        following = {x: self.weights[*before, x] for x in self.nexts.get(before, ())}
        total = sum(following.values())
        if not total:
            return lower
        mine = left = 0.0
        for x, weight in following.items():
            discount = self.discounts[n][min(weight, 3)]
            if n > 2 and self.raw[*before, x] < self.min_count:
                discount = weight
            left += discount / total
            if x == last:
                mine = (weight - discount) / total
        return mine + left * lower


def cuts(text: str) -> Iterator[list[str]]:
    """Every way to cut a text."""
    if not text:
        yield []
    for n in range(1, len(text) + 1):
        for rest in cuts(text[n:]):
            yield [text[:n], *rest]


def best(text: str, score: Callable[[str], float]) -> float:
    """The greatest sum of the words' scores over all ways to cut."""
    return max(math.fsum(map(score, words)) for words in cuts(text))


def expected(texts: list[str], score: Callable[[str], float]) -> tuple[dict[str, float], float]:
    """How often each word is expected over all ways to cut, and log of how probable the texts are."""
    counts: dict[str, float] = {}
    total = 0.0
    for text in texts:
        ways = [(words, math.exp(sum(map(score, words)))) for words in cuts(text)]
        whole = math.fsum(p for _, p in ways)
        total += math.log(whole)
        for words, p in ways:
            for word in words:
                counts[word] = counts.get(word, 0) + p / whole
    return counts, total
