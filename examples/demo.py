"""What `make demo` runs: fine-tune the bundled model as a classifier, compare it, save it, and let it read your lines.

    python examples/demo.py                     the reviews that come with maskplay (Chinese, 好评 or 差评)
    DATA=reviews.tsv python examples/demo.py    your own file with columns text and label; a fifth of it is the test
    echo 太好吃了 | python examples/demo.py      classify lines from a pipe afterwards

Without DATA it takes about two minutes on two CPU cores, and reaches 0.88 on the test; logistic regression on character
n-grams reaches 0.89, always saying the same 0.50 (seed 0, JAX). A file that is not in Chinese is learnt from nothing:
the bundled model does not know its words.
"""

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import maskplay as mp  # before Keras: it chooses a backend that is installed

# isort: split
import keras
import numpy as np

from maskplay import demo
from maskplay.plays import Classify
from maskplay.tables import Example, read_examples, split

SEED, BATCH = 0, 32
EPOCHS, RATE = 8, 5e-4  # of fine-tuning
FRESH_EPOCHS, FRESH_RATE = 10, 1e-3
CHINESE = 0.25  # of the characters of a text at least, if it is to be in the bundled model's language
SENTENCES = ("房间干净，服务热情，下次还住这里。", "用了三天就坏了，客服还不理人。", "剧情拖沓，看得我直犯困。")


def chinese(examples: Sequence[Example]) -> float:
    """Which share of the examples' characters is Chinese."""
    text = "".join(example.text for example in examples)
    return sum("\u4e00" <= character <= "\u9fff" for character in text) / max(1, len(text))


def train_from_nothing(train: Sequence[Example], labels: Sequence[str], epochs: int, **kwargs: int) -> Classify:
    """Two fresh layers over the characters of the training texts, trained."""
    keras.utils.set_random_seed(SEED)
    texts = (text for example in train for text in (example.text, example.text2 or ""))
    return fit(mp.Pretrained(*mp.fresh.small(texts)), train, labels, epochs, FRESH_RATE, 0.3, **kwargs)


def fit(
    bert: mp.Pretrained,
    train: Sequence[Example],
    labels: Sequence[str],
    epochs: int,
    rate: float,
    dropout: float,
    max_length: int | None = None,
    buckets: int = 2,
) -> Classify:
    """A classifier on this network; the progress is printed."""
    play = Classify(bert, labels, max_length=max_length, dropout=dropout)
    batches = play.batches(train, BATCH, seed=SEED, buckets=buckets)
    play.compile(mp.optimizers.adamw(rate, epochs * len(batches)))
    play.fit(batches, epochs=epochs, verbose=2)
    return play


def bag_of_words(train: Sequence[Example], test: Sequence[Example], analyzer: str) -> float | None:
    """The accuracy of logistic regression on tf-idf n-grams; None without scikit-learn."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        return None
    longest = 3 if analyzer == "char" else 2
    vectors = TfidfVectorizer(analyzer=analyzer, ngram_range=(1, longest), sublinear_tf=True)
    texts = [[f"{example.text} {example.text2 or ''}" for example in some] for some in (train, test)]
    model = LogisticRegression(C=10, max_iter=1000)
    model.fit(vectors.fit_transform(texts[0]), [example.label for example in train])
    return float(model.score(vectors.transform(texts[1]), [example.label for example in test]))


def print_scores(play: Classify, train: Sequence[Example], test: Sequence[Example], analyzer: str, how: str) -> None:
    """Accuracy on the test set beside two baselines."""
    truth = [example.label for example in test]
    commonest, count = Counter(example.label for example in train).most_common(1)[0]
    ours = np.mean([guess == label for guess, label in zip(play.predict(list(test)), truth)])
    counted = bag_of_words(train, test, analyzer)
    print(f"\naccuracy on {len(test)} test examples")
    print(f"  always saying {commonest:<22} {np.mean([label == commonest for label in truth]):.3f}")
    if counted is None:
        print("  logistic regression on n-grams: needs scikit-learn: pip install 'maskplay[baselines]'")
    else:
        print(f"  logistic regression on n-grams       {counted:.3f}")
    print(f"  {how:<37}{ours:.3f}")
    if counted is not None and ours < counted:
        print("  Counting n-grams wins here.")


def answer_lines(play: Classify) -> None:
    """Classify what is typed or piped in; without either, three sentences of ours."""
    if sys.stdin.isatty():
        print("\nType a text and press Enter; an empty line ends.")
        while line := input("> ").strip():
            answer(play, line)
        return
    lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
    print("\nYour lines:" if lines else "\nNo input; three sentences:")
    for line in lines or SENTENCES:
        answer(play, line)


def answer(play: Classify, line: str) -> None:
    scores = play.probabilities([line])[0]
    print(f"  {play.labels[scores.argmax()]} {scores.max():.0%}  {line}")


def main() -> None:
    """Train, compare, save, reload, answer."""
    start = time.monotonic()
    mp.memory.keep()
    if own := os.environ.get("DATA"):
        examples = read_examples(own, labelled=True)
        if len(found := {example.label for example in examples}) < 2:
            raise mp.DataError(f"{own}: expected at least two labels, found only {found.pop()!r}")
        train, test = split(examples, 0.2, SEED, own)
        print(f"{own}: {len(train)} examples to train on, {len(test)} held out as a test")
    else:
        train, test = (read_examples(demo.path(f"reviews_{part}.tsv"), labelled=True) for part in ("train", "test"))
        print(f"The bundled reviews: {len(train)} to train on, {len(test)} as a test.")
    labels = sorted({str(example.label) for example in train})
    keras.utils.set_random_seed(SEED)
    if chinese(train) >= CHINESE:
        print("bundled:zh-small, which has read laws, documentation and old books, learns to tell them apart.\n")
        bert = mp.load("bundled:zh-small")
        play, how = fit(bert, train, labels, EPOCHS, RATE, 0.1), "bundled:zh-small, fine-tuned"
    else:
        print("bundled:zh-small does not know this language: a small encoder is trained from nothing.\n")
        play, how = train_from_nothing(train, labels, FRESH_EPOCHS), "this encoder, trained from nothing"
    print_scores(play, train, test, "char", how)
    with tempfile.TemporaryDirectory() as folder:
        play.save(Path(folder) / "reviews")
        again = mp.load(Path(folder) / "reviews")
        same = again.predict(list(test)) == play.predict(list(test))
    print(f"\nSaved and loaded again: its {len(test)} answers are {'the same' if same else 'NOT the same'}.")
    print(f"({time.monotonic() - start:.0f} s)")
    answer_lines(again)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    try:
        main()
    except mp.UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, EOFError):
        print("demo: interrupted", file=sys.stderr)
        sys.exit(130)
