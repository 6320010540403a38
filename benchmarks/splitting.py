"""BERT's tokenizer on Chinese text: `Tokenizer.split`, as `maskplay pretrain` uses it, beside the Rust package.

    python benchmarks/splitting.py [--data FOLDER] [--megabytes 5] [--rounds 5]

Statutes, the modern half of a parallel corpus and technical documentation (a third of its characters are Latin
letters), with the vocabulary of bert-base-chinese. Megabytes of text in UTF-8 per CPU second, medians [quartiles] of
interleaved rounds, a fresh tokenizer each time: what it learns of characters and words is in the time. Ids and offsets
of all lines are compared.
"""

import argparse
import lzma
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"

import maskplay as mp

# isort: split
import tokenizers

DATA = Path(os.environ.get("MASKPLAY_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
TEXTS = {"statutes": "laws.txt.xz", "modern Chinese": "niutrans_pairs.tsv.xz", "documentation": "sql_docs.txt.xz"}


def lines_of(path: Path, size: int) -> list[str]:
    """The beginning of a text, of pairs their last column."""
    found: list[str] = []
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            found.append(line.rstrip("\n").split("\t")[-1])
            size -= len(found[-1].encode())
            if size < 0:
                break
    return found


def seconds(work: Callable[..., Any], *given: Any, **named: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = work(*given, **named)
    return time.process_time() - start, result


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--megabytes", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    vocab = arguments.data / "vocabs/bert-base-chinese-vocab.txt"
    print(f"tokenizers {tokenizers.__version__}; MB per CPU second, medians [quartiles] of {arguments.rounds} rounds")
    wrong = 0
    for name, file in TEXTS.items():
        lines = lines_of(arguments.data / "corpus" / file, int(arguments.megabytes * 1e6))
        size = sum(len(line.encode()) for line in lines) / 1e6
        rates: dict[str, list[float]] = {"split": [], "encode_batch": [], "encode_batch_fast": []}
        for _ in range(arguments.rounds):
            ours = mp.Tokenizer.from_vocab(vocab)
            rust = tokenizers.BertWordPieceTokenizer(str(vocab), lowercase=True)._tokenizer
            spent, found = seconds(ours.split, lines)
            rates["split"].append(size / spent)
            spent, theirs = seconds(rust.encode_batch, lines, add_special_tokens=False)
            rates["encode_batch"].append(size / spent)
            spent, _ = seconds(rust.encode_batch_fast, lines, add_special_tokens=False)
            rates["encode_batch_fast"].append(size / spent)
        wrong += found.ids.tolist() != [i for one in theirs for i in one.ids]
        wrong += list(map(tuple, found.offsets.tolist())) != [span for one in theirs for span in one.offsets]
        print(f"{name}, {size:.1f} MB, {len(found.ids):,} tokens")
        for what, some in rates.items():
            low, middle, high = statistics.quantiles(some, n=4) if len(some) > 1 else some * 3
            times = statistics.median(mine / other for mine, other in zip(rates["split"], some))
            beside = "" if what == "split" else f"  split is {times:.1f} times as fast"
            print(f"  {what:18} {middle:6.2f} [{low:.2f}, {high:.2f}]{beside}", flush=True)
    print("ids and offsets are the same" if not wrong else "ids or offsets DIFFER")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
