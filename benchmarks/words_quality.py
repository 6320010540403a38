"""How good the words are that nobody marked: exact counts beside the original program's, and a second opinion.

    python benchmarks/words_quality.py [CORPUS ...] [--curve docs/words_tradeoff.svg] [--errors 100]

Of each corpus (default: news, bench100 and each text in it, other documentation) four lists of words are measured:
the original's (`mode="faithful"`, whose words and counts are equal to its), exact counts with the same least count 32,
exact counts with the default one, and of these the words that a character n-gram model trained on the same corpus cuts
out of it too (`agreed`). Of Chinese words of two characters and more:
precision: share of them that a dictionary (jieba's, 349,045 words) has, in all, among the 2,000 most frequent, and by
length; and share that the word lists of SIGHAN 2005 (training parts of PKU and MSR) have.
recall: share of the words in the gold of PKU and MSR that were found.
F1: of words, where the 50,000 most frequent cut the gold of PKU, MSR and the test part of UD Chinese GSD.
Nothing was chosen on any of this; the factors by which the model cuts were chosen on UD's development part.

--curve draws precision against recall, for all thresholds of cohesion multiplied together, of the first corpus.
--errors draws so many of its found words that the dictionary lacks, to be looked at by hand.
"""

import argparse
import random
from collections.abc import Iterable
from pathlib import Path

from segmentation import DATA, HAN, f1, gold

from maskplay import words
from maskplay.errors import MissingExtra
from maskplay.words.discovery import COHESION

TEXTS = ("laws", "sql_docs", "dotnet_docs", "vs_docs", "cpp_docs", "tidb_docs", "graph_docs", "oiwiki")
SCALES = (0.4, 0.55, 0.7, 0.85, 1.0, 1.2, 1.45, 1.75)
TOP, MOST = 2000, 50_000
NAMES = ("original", "exact", "exact, default count", "exact, agreed")
COLOURS = {"original": "#999999", "exact": "#1f6fb4", "exact, agreed": "#c8502d"}


class Gold:
    """What words are measured by.

    Args:
        folder: of SIGHAN 2005: word lists of the training parts and gold of the test parts.
        treebank: a CoNLL-U file.
        dictionary: a file with a word first in each line; default jieba's.
    """

    def __init__(self, folder: Path, treebank: Path, dictionary: Path | None) -> None:
        lines = (dictionary or jieba_dictionary()).read_text("utf-8").splitlines()
        self.dictionary = {line.split(" ")[0] for line in lines}
        lists = [(folder / f"{name}_training_words.utf8").read_text("utf-8-sig") for name in ("pku", "msr")]
        self.training = set(" ".join(lists).split())
        self.tests = {name: gold(folder, name) for name in ("pku", "msr")}
        tested = {word for some in self.tests.values() for sentence in some for word in sentence}
        self.tested = set(chinese(tested))
        self.tests["ud"] = sentences(treebank)

    def precision(self, found: Iterable[str]) -> float:
        """Share of words that the dictionary has."""
        return share(found, self.dictionary)

    def recall(self, found: Iterable[str]) -> float:
        """Share of the tests' words that were found."""
        return share(self.tested, set(found))


def jieba_dictionary() -> Path:
    try:
        import jieba
    except ImportError:
        raise MissingExtra("measuring words by jieba's dictionary", "words") from None
    return Path(jieba.__file__).with_name("dict.txt")


def sentences(path: Path) -> list[list[str]]:
    """Of a treebank, as words."""
    blocks = path.read_text("utf-8").split("\n\n")
    rows = [[line.split("\t") for line in block.splitlines() if line[:1].isdigit()] for block in blocks]
    return [[row[1] for row in some if row[0].isdigit()] for some in rows if some]


def chinese(found: Iterable[str]) -> list[str]:
    """Those of two Chinese characters and more."""
    return [word for word in found if len(word) > 1 and HAN.fullmatch(word)]


def share(some: Iterable[str], right: set[str]) -> float:
    some = list(some)
    return sum(word in right for word in some) / len(some) if some else float("nan")


def row(name: str, found: words.Found, measures: Gold) -> None:
    """Measure a list of words and print."""
    many = chinese(found.word.tolist())
    by_length = [[word for word in many if len(word) == n] for n in (2, 3, 4)]
    lengths = "  ".join(f"{len(some):5}:{measures.precision(some):.3f}" for some in by_length)
    first = [(word, count) for word, count in zip(found.word.tolist(), found.frequency.tolist()) if HAN.fullmatch(word)]
    vocabulary = words.Vocabulary(dict(first[:MOST]))
    marks = "  ".join(f"{test} {f1(some, vocabulary.many):.4f}" for test, some in measures.tests.items())
    print(
        f"  {name:24} {len(many):6}  {measures.precision(many):.3f} {share(many, measures.training):.3f} "
        f"{measures.precision(many[:TOP]):.3f}  {lengths}  {measures.recall(many):.3f}  {marks}",
        flush=True,
    )


def lists(sources: list[Path], model: words.NgramModel) -> Iterable[tuple[str, words.Found]]:
    """The four lists of a corpus."""
    yield NAMES[0], words.discover(sources, mode="faithful")
    yield NAMES[1], words.discover(sources, min_count=32)
    found = words.discover(sources)
    yield f"{NAMES[2]} {found.min_count}", found
    yield NAMES[3], words.agreed(found, sources, model)


def curve(sources: list[Path], model: words.NgramModel, measures: Gold, path: Path) -> None:
    """Draw what stricter thresholds cost and give."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("drawing the trade-off", "plot") from None
    points: dict[str, list[tuple[int, float, float, int, float]]] = {name: [] for name in COLOURS}
    for scale in SCALES:
        cohesion = [value * scale for value in COHESION]
        original = words.discover(sources, mode="faithful", cohesion=cohesion)
        exact = words.discover(sources, min_count=32, cohesion=cohesion)
        for name, found in zip(COLOURS, (original, exact, words.agreed(exact, sources, model))):
            many = chinese(found.word.tolist())
            three = [word for word in many if len(word) == 3]
            point = len(many), measures.recall(many), measures.precision(many), len(three), measures.precision(three)
            points[name].append(point)
            print(f"  {name:14} x {scale:4}: {point[0]:6}  {point[1]:.3f} {point[2]:.3f}  {point[3]:5}:{point[4]:.3f}")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "words", "font.size": 9}):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, some in points.items():
            for panel, x, y in ((left, 1, 2), (right, 3, 4)):
                xs, ys = [point[x] for point in some], [point[y] for point in some]
                panel.plot(xs, ys, "o-", color=COLOURS[name], markersize=3, linewidth=1.2, label=name)
                at = SCALES.index(1.0)
                panel.plot(xs[at], ys[at], "o", color=COLOURS[name], markersize=7)
        left.set(title="words of two characters and more", xlabel="recall: words of the tests found")
        right.set(title="words of three characters", xlabel="words found")
        left.set_ylabel("precision: in the dictionary")
        left.legend(frameon=False)
        for panel in (left, right):
            panel.grid(color="#dddddd", linewidth=0.6)
            panel.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    print(f"drawn: {path}")


def errors(sources: list[Path], measures: Gold, count: int, seed: int) -> None:
    """Print found words that the dictionary lacks, with how often they are there; * marks those of SIGHAN's lists."""
    found = words.discover(sources)
    times = dict(zip(found.word.tolist(), found.frequency.tolist()))
    wrong = [word for word in chinese(times) if word not in measures.dictionary]
    some = random.Random(seed).sample(sorted(wrong), min(count, len(wrong)))
    print(f"{len(some)} of {len(wrong)} words that the dictionary lacks, seed {seed}:")
    print(" ".join(f"{word}{'*' if word in measures.training else ''} {times[word]}" for word in some))


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", type=Path, help="files (default: those of the data folder)")
    parser.add_argument("--gold", type=Path, default=DATA / "sighan2005")
    parser.add_argument("--treebank", type=Path, default=DATA / "ud" / "zh_gsdsimp-ud-test.conllu")
    parser.add_argument("--dictionary", type=Path, help="words, one first in each line (default: jieba's)")
    parser.add_argument("--curve", type=Path, help="an SVG file to draw the trade-off of the first corpus in")
    parser.add_argument("--errors", type=int, default=0, help="how many words that the dictionary lacks to draw")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    options = parser.parse_args()
    measures = Gold(options.gold, options.treebank, options.dictionary)
    texts = {name: [DATA / "corpus" / f"{name}.txt.xz"] for name in ("news", *TEXTS)}
    corpora = {"news": texts["news"], "bench100": [text for name in TEXTS[:3] for text in texts[name]], **texts}
    if options.corpora:
        corpora = {path.name: [path] for path in options.corpora}
    first = next(iter(corpora.values()))
    if options.curve or options.errors:
        if options.errors:
            errors(first, measures, options.errors, options.seed)
        if options.curve:
            curve(first, words.train_ngrams(first), measures, options.curve)
        return
    print("words; in the dictionary, in SIGHAN's lists, top 2,000; of 2, 3, 4 characters: in it; recall; F1")
    for name, sources in corpora.items():
        print(name)
        for what, found in lists(sources, words.train_ngrams(sources)):
            row(what, found, measures)


if __name__ == "__main__":
    main()
