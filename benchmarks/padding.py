"""What length buckets save: training speed on ChnSentiCorp against padding every batch to the longest example.

    python benchmarks/padding.py [--length 512] [--rounds 5] [PATH]

Both sides train the same small encoder on the same examples, in interleaved rounds after one that compiles; texts are
cut at `--length` tokens, so "padded" means padded to that. Afterwards the loss over all examples must be equal.
Prints the ratio of the median times with its spread. Target: at least 1.8 at 512.
docs/performance.md has what was measured.
"""

import argparse
import io
import os
import statistics
import sys
import time
import zipfile
from pathlib import Path

import maskplay as mp  # before Keras: it chooses a backend that is installed

# isort: split
import keras
import numpy as np

from maskplay.batches import Batches

DATA = Path(os.environ.get("MASKPLAY_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SIDES = {"buckets": 6, "padded": 1}  # how many lengths
BATCH, TARGET = 32, 1.8


def examples(path: Path) -> list[tuple[str, str]]:
    """The dev and test parts, `(text, label)`: 2,400 texts of 6 to some 1,900 characters."""
    rows = []
    with zipfile.ZipFile(path) as archive:
        for part in ("dev", "test"):
            with archive.open(f"{part}.tsv") as file:
                rows += [line.rstrip("\r\n").split("\t", 1) for line in io.TextIOWrapper(file, "utf-8-sig")][1:]
    return [(text, label) for label, text in rows]


def classifier(train: list[tuple[str, str]], length: int) -> mp.plays.Classify:
    """Two layers, 128 wide, the same weights each time."""
    keras.utils.set_random_seed(0)
    tokenizer = mp.Tokenizer.from_characters([text for text, _ in train], max_size=8000)
    config = mp.Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_layers=2,
        num_heads=2,
        intermediate_size=512,
        max_positions=512,
    )
    play = mp.plays.Classify(mp.Pretrained(mp.LanguageModel(config, ["pooler"]), tokenizer), ["0", "1"], length)
    play.compile(keras.optimizers.AdamW(1e-4))
    return play


def padding(batches: Batches) -> float:
    """The share of padding among all tokens of an epoch."""
    filled = total = 0
    for i in range(len(batches)):
        tokens = batches[i][0]["tokens"]
        filled, total = filled + np.count_nonzero(tokens != batches.pad_id), total + tokens.size
    return 1 - filled / total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, default=DATA / "chnsenticorp" / "chnsenticorp.zip")
    parser.add_argument("--length", type=int, default=512, help="most tokens of a text (default 512)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default 5)")
    parser.add_argument(
        "--count", type=int, default=1216, help="examples, rounded down to whole batches (default 1216)"
    )
    options = parser.parse_args()
    train = examples(options.path)
    train = train[: min(options.count, len(train)) // BATCH * BATCH]

    plays = {side: classifier(train, options.length) for side in SIDES}
    batches = {side: plays[side].batches(train, BATCH, buckets=count) for side, count in SIDES.items()}
    print(f"{len(train)} texts cut at {options.length} tokens, batches of {BATCH}, 2 layers x 128")
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.rounds + 1):
        for side in SIDES:
            start = time.perf_counter()
            plays[side].fit(batches[side], verbose=0)
            seconds[side].append(time.perf_counter() - start)
    for side, times in seconds.items():
        measured = times[1:]
        speed = f"{len(train) / statistics.median(measured):7.1f} examples/s"
        lengths = f"{padding(batches[side]):.0%} padding, lengths {batches[side].lengths}"
        print(f"{side:8} {speed}, {lengths}, first epoch (with compilation) {times[0]:.1f} s")
    ratios = sorted(padded / bucketed for bucketed, padded in zip(seconds["buckets"][1:], seconds["padded"][1:]))
    ratio = statistics.median(seconds["padded"][1:]) / statistics.median(seconds["buckets"][1:])
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f} in {options.rounds} rounds"
    print(f"length buckets train {ratio:.2f} times as fast ({spread}; target at 512: {TARGET})")

    plays["padded"].set_weights(plays["buckets"].get_weights())
    losses = {side: plays[side].evaluate(batches[side], verbose=0)[0] for side in SIDES}
    difference = abs(losses["buckets"] - losses["padded"])
    print(f"loss with the same weights: {losses['buckets']:.7f} and {losses['padded']:.7f}, {difference:.1e} apart")
    if difference > 1e-5:
        sys.exit("the losses differ by more than 1e-5: the two sides do not compute the same")


if __name__ == "__main__":
    main()
