"""How well text is cut into words that nobody marked: F1 on the gold of SIGHAN 2005, speed and memory.

    python benchmarks/segmentation.py [CORPUS] [--gold FOLDER]

A character 4-gram model is trained on the corpus (default: television news) and cuts the test texts of Peking
University and Microsoft Research; so do the words that `discover` finds, the words that the model cuts out of the
corpus, before and after rounds of expectation maximisation, and jieba, where it is installed, with its own dictionary.
A word counts when both its ends are right; letters and digits are given whole to everyone. CPU seconds of one thread.
"""

import argparse
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from maskplay import corpus, words

DATA = Path(os.environ.get("MASKPLAY_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
POST = (0.15, 0.01, 0.01, 0.001)  # the weights of the post
RUNS = re.compile("[\u4e00-\u9fff]+|[0-9a-zA-Z０-９Ａ-Ｚａ-ｚ．％·]+|.", re.DOTALL)
HAN = re.compile("[\u4e00-\u9fff]+")
LEAST, ROUNDS, SAMPLE = 4, 3, 10_000_000

Many = Callable[[Sequence[str]], list[list[str]]]


def gold(folder: Path, name: str) -> list[list[str]]:
    """The sentences of a test, as words."""
    text = (folder / f"{name}_test_gold.utf8").read_text("utf-8-sig")
    return [line.split() for line in text.splitlines() if line.strip()]


def spans(found: Sequence[str]) -> set[tuple[int, int]]:
    ends = [0]
    for word in found:
        ends.append(ends[-1] + len(word))
    return set(zip(ends, ends[1:]))


def f1(sentences: list[list[str]], many: Many) -> float:
    """Of words, by both ends."""
    runs = [RUNS.findall("".join(sentence)) for sentence in sentences]
    chinese = list({run for some in runs for run in some if HAN.fullmatch(run)})
    cut = dict(zip(chinese, many(chinese)))
    right = mine = theirs = 0
    for sentence, some in zip(sentences, runs):
        found, wanted = spans([word for run in some for word in cut.get(run, [run])]), spans(sentence)
        right, mine, theirs = right + len(found & wanted), mine + len(found), theirs + len(wanted)
    return 2 * right / (mine + theirs)


def speed(lines: list[str], many: Many) -> float:
    """MB of text a CPU second."""
    start = time.process_time()
    for first in range(0, len(lines), 500):
        many(lines[first : first + 500])
    return sum(len(line.encode()) for line in lines) / 1e6 / max(1e-9, time.process_time() - start)


def peak() -> float:
    """MB that this process has held at most."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def main() -> None:
    """Train, cut, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("corpus", nargs="?", default=str(DATA / "corpus" / "news.txt.xz"))
    parser.add_argument("--gold", type=Path, default=DATA / "sighan2005")
    options = parser.parse_args()
    tests = {name: gold(options.gold, name) for name in ("pku", "msr")}
    sample, size = [], 0
    for line in corpus.lines(options.corpus):
        sample.append(line)
        size += len(line.encode())
        if size > SAMPLE:
            break

    def told(name: str, many: Many) -> None:
        rate = speed(sample, many)
        figures = "  ".join(f"{test} {f1(sentences, many):.4f}" for test, sentences in tests.items())
        print(f"{name:44} {figures}  {rate:5.1f} MB/s  peak {peak():5.0f} MB", flush=True)

    print(f"{'after the imports':44} peak {peak():5.0f} MB")
    start = time.process_time()
    model = words.train_ngrams(options.corpus)
    print(f"{model}, trained in {time.process_time() - start:.1f} CPU s, peak {peak():.0f} MB", flush=True)
    segmenter = words.NgramSegmenter(model)
    told("n-gram model", segmenter.many)
    told("n-gram model, weights of the post", words.NgramSegmenter(model, POST).many)
    found = words.discover(options.corpus)
    told("found words", words.Vocabulary(dict(zip(found.word.tolist(), found.frequency.tolist()))).many)
    counts = Counter(word for line in words.segment(options.corpus, segmenter) for word in line)
    cut = words.Vocabulary({word: count for word, count in counts.items() if count >= LEAST})
    told(f"{len(cut.counts):,} words cut by the model", cut.many)
    start = time.process_time()
    for _ in range(ROUNDS):
        cut, likelihood = cut.refined(options.corpus)
    took = (time.process_time() - start) / ROUNDS
    told(f"the same after {ROUNDS} rounds, {took:.1f} CPU s each", cut.many)
    try:
        from maskplay.text.words import jieba

        told("jieba, its own dictionary, HMM off", lambda texts: [jieba(text) for text in texts])
    except ImportError:
        print("jieba is not installed")


if __name__ == "__main__":
    main()
