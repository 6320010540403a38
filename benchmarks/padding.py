"""Length buckets against padding every text to the maximum: the time of a training epoch, on real reviews.

    python benchmarks/padding.py [--data ../shared/data/chnsenticorp] [--texts 1600] [--rounds 3] [--quick]

ChnSentiCorp, cut at 128, 256 and 512 tokens. For each cut the same classifier (a fresh encoder, 4 layers of width 256)
runs through the same texts twice a round: in length buckets, and with every batch padded to the longest text. Rounds
are interleaved; compilation is done before. The trained classifier's mean loss over the texts, in inference mode, must
be equal (<= 1e-5): both see the same texts, only the padding differs. Target: at least 1.8 times as fast at 512.
"""

import argparse
import csv
import io
import platform
import statistics
import sys
import time
import zipfile
from pathlib import Path

import keras

import maskplay as mp

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "chnsenticorp"
TARGET = 1.8
BATCH = 32


def reviews(folder: Path, count: int) -> list[tuple[str, str]]:
    """The first `count` training reviews as (text, label)."""
    with zipfile.ZipFile(folder / "chnsenticorp.zip") as archive:
        lines = io.StringIO(archive.read("train.tsv").decode("utf-8"))
    rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return [(row["text_a"], row["label"]) for _, row in zip(range(count), rows)]


def classifier(examples: list[tuple[str, str]], length: int, size: tuple[int, int, int]) -> mp.plays.Classify:
    """A fresh classifier over the characters of the texts."""
    layers, width, heads = size
    tokenizer = mp.Tokenizer.from_characters([text for text, _ in examples], max_size=8000)
    config = mp.Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        intermediate_size=4 * width,
        max_positions=length,
    )
    keras.utils.set_random_seed(0)
    bert = mp.Pretrained(mp.LanguageModel(config, heads=["pooler"]), tokenizer)
    play = mp.plays.Classify(bert, sorted({label for _, label in examples}), max_length=length)
    play.compile(keras.optimizers.AdamW(1e-4))
    return play


def seconds(play: mp.plays.Classify, batches: keras.utils.PyDataset) -> float:
    """Wall seconds of one training epoch."""
    start = time.perf_counter()
    play.fit(batches, epochs=1, verbose=0)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with chnsenticorp.zip")
    parser.add_argument("--texts", type=int, default=1600, help="how many reviews an epoch has (default 1600)")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds (default 3)")
    parser.add_argument("--quick", action="store_true", help="96 reviews, a tiny encoder, one cut, one round")
    arguments = parser.parse_args()
    texts, rounds, cuts, size = arguments.texts, arguments.rounds, (128, 256, 512), (4, 256, 4)
    if arguments.quick:
        texts, rounds, cuts, size = 96, 1, (128,), (1, 16, 2)
    if not (arguments.data / "chnsenticorp.zip").is_file():
        sys.exit(f"{arguments.data}: expected chnsenticorp.zip in this folder; --data names another")
    examples = reviews(arguments.data, texts)
    print(f"{len(examples)} reviews, batches of {BATCH}, {size[0]} layers of width {size[1]}, {rounds} rounds")
    print(f"keras {keras.__version__} on {keras.backend.backend()}, Python {platform.python_version()}")
    print("cut  shapes  padding in buckets / to the maximum  seconds an epoch (median)  ratio (least-most)  losses")
    for cut in cuts:
        play = classifier(examples, cut, size)
        arms = {"buckets": play.batches(examples, BATCH), "maximum": play.batches(examples, BATCH, buckets=1)}
        real = sum(len(encoding) for encoding in play.tokenizer.encode_batch([t for t, _ in examples], None, cut))
        empty = {}
        for name, batches in arms.items():
            seconds(play, batches)  # compiles
            empty[name] = 1 - real / sum(batches[i][0]["tokens"].size for i in range(len(batches)))
        times: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for name, batches in arms.items():
                times[name].append(seconds(play, batches))
        losses = {name: play.evaluate(batches, verbose=0)[0] for name, batches in arms.items()}
        ratios = [slow / fast for slow, fast in zip(times["maximum"], times["buckets"])]
        fast, slow = (statistics.median(times[name]) for name in ("buckets", "maximum"))
        gap = abs(losses["buckets"] - losses["maximum"])
        equal = "equal" if gap <= 1e-5 else "DIFFERENT"
        print(
            f"{cut:4} {len(arms['buckets'].lengths):6}  {empty['buckets']:.0%} / {empty['maximum']:.0%}"
            f"  {fast:.1f} / {slow:.1f}  {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            f"  {losses['buckets']:.6f}, {equal} (gap {gap:.0e})"
        )
        if gap > 1e-5:
            sys.exit("the losses differ: padding leaks into the result")
    if not arguments.quick:
        print(f"target: at least {TARGET} at {cuts[-1]}")


if __name__ == "__main__":
    main()
