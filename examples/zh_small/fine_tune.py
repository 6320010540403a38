"""Is a pretrained model worth it? Fine-tuned, and the same shape from fresh weights, on few examples and on all.

    python examples/zh_small/fine_tune.py chnsenticorp ZIP [--examples 1000] [--seeds 0 1 2] [--precision bfloat16]
    python examples/zh_small/fine_tune.py tnews ZIP ...

Prints the accuracy on the test set (of TNEWS, whose test has no labels: on a tenth of its training set that is not
trained on) for every seed, and beside it logistic regression on character n-grams.
"""

import argparse
import csv
import io
import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import maskplay as mp  # before Keras: it chooses a backend that is installed

# isort: split
import keras
import numpy as np

from maskplay.language_model import LanguageModel
from maskplay.tables import Example

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from demo import bag_of_words  # noqa: E402

LENGTH = {"chnsenticorp": 128, "tnews": 48}
BATCH = 32
MANY, LARGE = 10_000, 128  # so many examples come in batches of that
STEPS = 300  # of a run at least: few examples are seen more often
EPOCHS = {"model": 3, "fresh": 5}  # over many examples; fresh weights need more
# What was best on ChnSentiCorp's dev set with 1,000 examples: what Muon has pretrained it trains on, fresh weights
# learn more by AdamW (.80 there beside .78).
OPTIMIZERS = {"model": (mp.optimizers.muon, 1e-3), "fresh": (mp.optimizers.adamw, 5e-4)}


def read(name: str, path: Path) -> tuple[list[Example], list[Example]]:
    """Training and test examples."""
    with zipfile.ZipFile(path) as archive:
        if name == "chnsenticorp":
            parts = []
            for part in ("train", "test"):
                text = io.StringIO(archive.read(f"{part}.tsv").decode("utf-8-sig"))
                rows = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
                parts.append([Example(row[1], None, row[0], i) for i, row in enumerate(rows) if i])
            return parts[0], parts[1]
        lines = archive.read("tnews_public/train.json").decode().splitlines()
    rows = [json.loads(line) for line in lines]
    examples = [Example(row["sentence"], None, row["label"], i) for i, row in enumerate(rows)]
    return [each for i, each in enumerate(examples) if i % 10], examples[::10]


def trained(bert: Any, kind: str, train: list[Example], labels: list[str], length: int, seed: int) -> mp.plays.Classify:
    play = mp.plays.Classify(bert, labels, max_length=length, pool="mean")
    batches = play.batches(train, BATCH if len(train) < MANY else LARGE, seed=seed, buckets=4)
    epochs = max(EPOCHS[kind], round(STEPS / len(batches)) if len(batches) < 100 else 0)
    optimizer, rate = OPTIMIZERS[kind]
    play.compile(optimizer(rate, epochs * len(batches)))
    play.fit(batches, epochs=epochs, verbose=0)
    return play


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=LENGTH)
    parser.add_argument("path", type=Path)
    parser.add_argument("--model", default="bundled:zh-small")
    parser.add_argument("--examples", type=int, help="how many to train on; default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    if options.precision != "float32":
        keras.config.set_dtype_policy(f"mixed_{options.precision}")
    mp.memory.keep()
    train, test = read(options.name, options.path)
    labels = sorted({str(example.label) for example in train})
    found: dict[str, list[float]] = {"regression": [], "model": [], "fresh": []}
    for seed in options.seeds:
        order = np.random.default_rng(seed).permutation(len(train))[: options.examples]
        some = [train[i] for i in order]
        if options.examples or seed == options.seeds[0]:  # of all of them there is but one regression
            found["regression"].append(bag_of_words(some, test, "char") or float("nan"))
        for kind in ("model", "fresh"):
            start = time.monotonic()
            keras.utils.set_random_seed(seed)
            bert = mp.load(options.model)
            if kind == "fresh":
                bert = mp.Pretrained(
                    LanguageModel(bert.network.config, bert.network.heads), bert.tokenizer, bert.family
                )
            play = trained(bert, kind, some, labels, LENGTH[options.name], seed)
            right = [guess == example.label for guess, example in zip(play.predict(test), test)]
            found[kind].append(float(np.mean(right)))
            print(f"  seed {seed} {kind}: {found[kind][-1]:.3f} ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{options.name}, {options.examples or len(train)} examples, {len(test)} in the test:", end=" ")
    print(", ".join(f"{kind} {np.mean(some):.3f} ({min(some):.3f}-{max(some):.3f})" for kind, some in found.items()))


if __name__ == "__main__":
    main()
