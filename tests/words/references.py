"""Word discovery once more, slowly and with dictionaries: what the library is compared with."""

import io
import math
import random
import re
from collections import Counter

RUN = re.compile("[0-9A-Za-z\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")


def strong(counts: dict[str, int], total: int, thresholds) -> dict[str, float]:
    """The cohesive n-grams with their cohesion."""
    found = {}
    for gram, count in counts.items():
        if 2 <= len(gram) <= len(thresholds) + 1:
            splits = [(gram[:i], gram[i:]) for i in range(1, len(gram))]
            ratio = min(total * count / (counts.get(a, total) * counts.get(b, total)) for a, b in splits)
            if math.log(ratio) >= thresholds[len(gram) - 2]:
                found[gram] = math.log(ratio)
    return found


def tokens(run: str, grams, order: int) -> list[str]:
    """A run cut at every place that lies inside no cohesive n-gram."""
    inside = set()
    for n in range(2, order + 1):
        for start in range(len(run) - n + 1):
            if run[start : start + n] in grams:
                inside.update(range(start + 1, start + n))
    cuts = [0, *(place for place in range(1, len(run)) if place not in inside), len(run)]
    return [run[a:b] for a, b in zip(cuts, cuts[1:])]


def stays(word: str, grams, order: int) -> bool:
    if len(word) <= 2:
        return True
    if len(word) <= order:
        return word in grams
    return all(word[i : i + order] in grams for i in range(len(word) - order + 1))


def entropy(neighbours: list[str | None]) -> float:
    """Of what stands beside a word; None, the end of a run, is something else each time."""
    counts = list(Counter(x for x in neighbours if x is not None).values()) + [1] * neighbours.count(None)
    return -sum(count / len(neighbours) * math.log(count / len(neighbours)) for count in counts)


def exact(lines: list[str], least: int, thresholds=(2, 4, 6)) -> dict[str, tuple]:
    """word → (frequency, occurrences, cohesion, left freedom, right freedom); nan for single characters."""
    order = len(thresholds) + 1
    runs = [run for line in lines for run in RUN.findall(line)]
    counts = Counter(run[i : i + n] for run in runs for n in range(1, order + 1) for i in range(len(run) - n + 1))
    counts = {gram: count for gram, count in counts.items() if count >= least}
    grams = strong(counts, sum(map(len, runs)), thresholds)
    frequency = Counter(token for run in runs for token in tokens(run, grams, order))
    found = {}
    for word, count in frequency.items():
        if count < least or not stays(word, grams, order):
            continue
        places = [(run, i) for run in runs for i in range(len(run)) if run.startswith(word, i)]
        if len(word) == 1:
            found[word] = (count, len(places), math.nan, math.nan, math.nan)
            continue
        windows = [word] if len(word) <= order else [word[i : i + order] for i in range(len(word) - order + 1)]
        left = entropy([run[i - 1] if i else None for run, i in places])
        right = entropy([run[i + len(word)] if i + len(word) < len(run) else None for run, i in places])
        found[word] = (count, len(places), min(grams[gram] for gram in windows), left, right)
    return found


def faithful(text: str, least: int, thresholds=(2, 4, 6)) -> dict[str, int]:
    """What the original program prints for a file, but for words of white space."""
    pieces = []
    for line in io.StringIO(text, newline=None):
        pieces += re.sub("[^\u4e00-\u9fa50-9a-zA-Z ]+", "\n", line.replace("\u3000", " ").strip()).split("\n")
    windows: Counter[tuple[str, ...]] = Counter()
    for piece in pieces:
        symbols = ["<s>"] * 3 + list(piece.replace(" ", "")) + ["</s>"]
        windows.update(tuple(symbols[i : i + 4]) for i in range(len(symbols) - 3))
    frequent = {window: count for window, count in windows.items() if count >= least}
    counts: Counter[str] = Counter()
    for window, count in frequent.items():
        gram = "".join(symbol for symbol in window if len(symbol) == 1)
        for n in range(1, len(gram) + 1):
            counts[gram[:n]] += count
    grams = strong(counts, sum(frequent.values()), thresholds)
    frequency = Counter(token for piece in pieces for token in tokens(piece, grams, 4))
    return {w: c for w, c in frequency.items() if c >= least and stays(w, grams, 4) and w.strip()}


def ngrams_of(lines: list[str], n: int) -> Counter[str]:
    return Counter(line[i : i + n] for line in lines for i in range(len(line) - n + 1))


def generated(seed: int, lines: int, words: int = 60) -> list[str]:
    """Lines of words drawn by Zipf's law out of a made-up lexicon, some with marks, spaces and Latin between."""
    draw = random.Random(seed)
    characters = [chr(0x4E00 + i) for i in range(120)] + ["𠀀", "𠮷"]
    lexicon = ["".join(draw.choices(characters, k=draw.choice([1, 2, 2, 2, 3, 4, 6]))) for _ in range(words)]
    lexicon += ["iPhone15", "ab", "北京大学", "大学"]
    weights = [1 / (i + 1) for i in range(len(lexicon))]
    marks = ["", "", "", "，", "。", " ", "\u3000", "——", "\t"]
    return [
        "".join(word + draw.choice(marks) for word in draw.choices(lexicon, weights, k=draw.randrange(12)))
        for _ in range(lines)
    ]
