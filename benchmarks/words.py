"""What finding words and counting n-grams cost: CPU seconds, and peak memory per byte of text.

    python benchmarks/words.py [discover] [shards] [line] [large] [count] [--copies 15] [--rounds 3]

discover: bench100 (laws, SQL and .NET documentation, 100.8 MB) in one thread and in two, faithful mode, and beside them
a prototype where its file is given. shards: what a cluster computes, in one process without a cluster, and what lies in
its folder meanwhile. line: 25 and 50 MB in a single line, which should take twice as long. large:
bench100 `--copies` times, its lines permuted and its characters exchanged by a map of each copy's own, inside 1 GB.
count: character n-grams beside a plain dictionary; and for tokenizers from the fastest to the slowest a plain loop
beside one process and two, which answers when n processes can be more than n times as fast as a loop.

Every figure is of a process of its own and counts from after its imports (which hold some 300 MB for Keras and JAX).
CPU seconds are the ones to trust on a busy machine; medians of interleaved rounds. Targets: at most 3.0 CPU s and 2.5
bytes of peak memory per byte for bench100 in one thread; two threads at least 1.7 times as fast on idle cores.
"""

import argparse
import importlib.util
import json
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from maskplay_command import AVX512, sorts_slowly

DATA = Path(os.environ.get("MASKPLAY_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
BENCH = ("laws", "sql_docs", "dotnet_docs")
PUBLISHED = "the original program (C++ and Python), measured earlier on such a machine: 36-37.5 CPU s, 2.6 GB"
WORK = """
import json, re, resource, sys, time
from collections import Counter
import maskplay as mp
def used(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime
def plain(path, n):
    found = {}
    for line in mp.corpus.lines(path):
        for i in range(len(line) - n + 1):
            gram = line[i : i + n]
            found[gram] = found.get(gram, 0) + 1
    return found
def loop(path, tokenizer):
    found = {}
    for line in mp.corpus.lines(path):
        for word in tokenizer(line):
            found[word] = found.get(word, 0) + 1
    return found
def jieba_words(line):
    import jieba
    return jieba.lcut(line, HMM=False)
class Pieces:
    def __init__(self, path):
        self.tokenizer = mp.Tokenizer.from_vocab(path)
    def __call__(self, line):
        return self.tokenizer.tokens(self.tokenizer.encode(line).ids)
def sharded(path, size):
    from contextlib import contextmanager
    from types import SimpleNamespace
    from maskplay.words import engine, partials, shards
    write, shards.SHARD = partials.Partials.write, size
    def told(self, name, *arrays):
        kind = name.split("-")[0]
        written[kind] = written.get(kind, 0) + sum(array.nbytes for array in arrays)
        write(self, name, *arrays)
    @contextmanager
    def here(address, workers):
        yield SimpleNamespace(workers=1, run=lambda function, items: enumerate(map(function, items)))
    partials.Partials.write, engine.join = told, here
    return mp.words.discover(path, min_count=32, cluster="local")
written = {}
def status(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
if "memory=" not in sys.argv[1]:
    mp.memory.keep(threads=True)  # what the command does
before, start = status("VmRSS"), time.perf_counter()
cpu = [used(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
result = eval(sys.argv[1])
wall = time.perf_counter() - start
cpu = [used(who) - was for who, was in zip((resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN), cpu)]
told = dict(cpu=sum(cpu), children=cpu[1], wall=wall, before=before, peak=status("VmHWM"), found=len(result))
print(json.dumps(told | dict(written=written)))
"""


def measured(expression: str) -> dict[str, float]:
    """What it takes to compute an expression in a process of its own."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "OPENBLAS_NUM_THREADS": "1"}
    if sorts_slowly():  # what the command does
        environment.setdefault("NPY_DISABLE_CPU_FEATURES", AVX512)
    done = subprocess.run([sys.executable, "-c", WORK, expression], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: dict[str, tuple[Path, str]], rounds: int) -> dict[str, dict[str, float]]:
    """Measure rows, each of what `{}` in an expression stands for and the expression, in turns; print their medians."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, (path, expression) in rows.items():
            results[name].append(measured(expression.format(repr(str(path)))))
    medians = {}
    for name, some in results.items():
        size = rows[name][0].stat().st_size
        numbers = some[0].keys() - {"written"}
        mine = medians[name] = {key: statistics.median(one[key] for one in some) for key in numbers}
        extra = mine["peak"] - mine["before"]
        print(
            f"{name:36} {mine['cpu']:7.2f} CPU s {mine['wall']:7.2f} s wall  peak {mine['peak'] / 1e6:6.0f} MB, "
            f"{extra / 1e6:6.0f} MB above the imports = {extra / size:5.2f} B/byte  {mine['found']:10,.0f} found",
            flush=True,
        )
        for kind, amount in some[0]["written"].items():
            print(f"  written to its folder: {kind:8} {amount / 1e6:6.0f} MB = {amount / size:5.2f} B/byte")
    return medians


def bench100() -> bytes:
    """Three corpora in a row."""
    return b"".join(lzma.open(DATA / "corpus" / f"{name}.txt.xz").read() for name in BENCH)


def discover(folder: Path, rounds: int, prototype: Path | None) -> None:
    path = folder / "bench100.txt"
    rows = {
        "exact, one thread": (path, "mp.words.discover({}, min_count=32)"),
        "exact, two threads": (path, "mp.words.discover({}, min_count=32, workers=2)"),
        "exact, one thread, inside 600M": (path, "mp.words.discover({}, min_count=32, memory='600M')"),
        "faithful, one thread": (path, "mp.words.discover({}, mode='faithful')"),
    }
    medians = table(rows, rounds)
    one, two = (medians[f"exact, {threads}"]["wall"] for threads in ("one thread", "two threads"))
    alone, at_once = f"mp.words.discover({str(path)!r}, min_count=32)", []
    for _ in range(rounds):
        with ThreadPoolExecutor(2) as pool:
            at_once += [found["wall"] for found in pool.map(measured, [alone] * 2)]
    most = 2 * one / statistics.median(at_once)
    print(f"two threads are {one / two:.2f} times as fast as one (on the wall clock)")
    print(f"two processes that share nothing do {most:.2f} times the work of one in its time: what the cores can give")
    if prototype is not None:
        command = [sys.executable, str(prototype), str(path)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        print(f"prototype, everything it does: {done.stdout.splitlines()[-1]}")
    print(PUBLISHED)


def sharded(folder: Path, rounds: int) -> None:
    path = folder / "bench100.txt"
    rows = {f"in shards of {size} MB, one process": (path, f"sharded({{}}, {size}000000)") for size in (26, 101)}
    table(rows, rounds)


def line(folder: Path, text: bytes, rounds: int) -> None:
    one = text.replace(b"\r", b"").replace(b"\n", "。".encode())
    rows = {}
    for size in (25, 50):
        path = folder / f"line{size}.txt"
        path.write_text(one[: size * 10**6].decode("utf-8", "ignore"), encoding="utf-8")
        rows[f"one line of {size} MB"] = path, "mp.words.discover({}, min_count=32)"
    table(rows, rounds)


def large(folder: Path, text: bytes, copies: int) -> None:
    path = folder / "large.txt"
    lines = np.array(text.decode().split("\n"), dtype=object)
    han = np.arange(0x4E00, 0x9FA6, dtype=np.uint16)
    with open(path, "wb") as file:
        for copy in range(copies):
            draw, mapping = np.random.default_rng(copy), np.arange(65536, dtype=np.uint16)
            if copy:
                mapping[han] = draw.permutation(han)
            mixed = "\n".join(lines[draw.permutation(len(lines))].tolist()) + "\n"
            units = np.frombuffer(mixed.encode("utf-16-le", "surrogatepass"), np.uint16)
            file.write(mapping[units].tobytes().decode("utf-16-le", "surrogatepass").encode())
    print(f"{copies} copies of bench100, {path.stat().st_size / 1e9:.2f} GB")
    options = f"workers=2, memory='1G', folder={str(folder)!r}"
    table({"exact, two threads, inside 1G": (path, f"mp.words.discover({{}}, {options})")}, 1)


def count(folder: Path, text: bytes, rounds: int) -> None:
    path = folder / "bench20.txt"
    path.write_text(text[: 20 * 10**6].decode("utf-8", "ignore"), encoding="utf-8")
    rows = {}
    for n in (2, 4):
        rows[f"{n}-grams, plain dictionary"] = path, f"plain({{}}, {n})"
        for workers in (1, 2):
            name = f"{n}-grams, {workers} thread{'s' * (workers > 1)}"
            rows[name] = path, f"mp.words.count({{}}, n={n}, workers={workers})"
    medians = table(rows, rounds)
    for n in (2, 4):
        loop, one, two = (medians[f"{n}-grams, {who}"] for who in ("plain dictionary", "1 thread", "2 threads"))
        print(
            f"{n}-grams: beside the dictionary {loop['cpu'] / one['cpu']:.1f} times as fast in CPU time with one "
            f"thread, {loop['wall'] / two['wall']:.1f} times on the wall clock with two"
        )
    tokenizers(folder, path, rounds)


def tokenizers(folder: Path, path: Path, rounds: int) -> None:
    """One process and two beside a loop, for tokenizers of every speed."""
    from maskplay import words

    split = folder / "split.txt"
    cut = words.segment(path, words.train_ngrams(path))
    split.write_text("".join(" ".join(line) + "\n" for line in cut), encoding="utf-8")
    which = {
        "characters, list": (path, "list"),
        "words, str.split": (split, "str.split"),
        "WordPiece, Tokenizer": (path, f"Pieces({str(DATA / 'vocabs' / 'bert-base-chinese-vocab.txt')!r})"),
    }
    if importlib.util.find_spec("jieba"):
        which["words, jieba"] = path, "jieba_words"
    rows = {}
    for name, (where, tokenizer) in which.items():
        rows[f"{name}, loop"] = where, f"loop({{}}, {tokenizer})"
        for workers in (1, 2):
            rows[f"{name}, {workers}"] = where, f"mp.words.count({{}}, tokenizer={tokenizer}, workers={workers})"
    medians = table(rows, rounds)
    for name in which:
        loop, one, two = (medians[f"{name}, {who}"] for who in ("loop", "1", "2"))
        idle = two["cpu"] - two["children"] / 2  # the children at once, the parent before and after them
        print(
            f"{name}: one process is {loop['cpu'] / one['cpu']:.2f} times as fast as the loop in CPU time, "
            f"{loop['wall'] / one['wall']:.2f} on the wall clock; two are {loop['wall'] / two['wall']:.2f} times as "
            f"fast on the wall clock, on idle cores at most {loop['cpu'] / idle:.2f} times the loop and "
            f"{one['cpu'] / idle:.2f} times one process"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["discover", "line", "count"], help="default: discover line count")
    parser.add_argument("--copies", type=int, default=15, help="of bench100 in the large text (default 15: 1.5 GB)")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds (default 3)")
    parser.add_argument("--prototype", type=Path, help="a script to run on bench100 beside")
    options = parser.parse_args()
    text = bench100()
    print(f"bench100: {len(text):,} bytes")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench100.txt").write_bytes(text)
        for what in options.what:
            print(f"\n{what}")
            if what == "discover":
                discover(folder, options.rounds, options.prototype)
            elif what == "large":
                large(folder, text, options.copies)
            elif what == "shards":
                sharded(folder, options.rounds)
            else:
                {"line": line, "count": count}[what](folder, text, options.rounds)


if __name__ == "__main__":
    main()
