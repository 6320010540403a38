"""Pretraining: tokens of text per second of a training step beside transformers, and text prepared per second.

    python benchmarks/pretrain.py [--sizes small,base] [--rounds 5] [--peers maskplay-jax,…] [--give-back]
        [--torch-python PYTHON]
    python benchmarks/pretrain.py --prepare [PATH]

The first trains masked words: 8 rows of 128 tokens, 15 % hidden, vocabulary 21,128, dropout 0.1, AdamW, exact GELU. Of
maskplay it is `plays.Pretrain` as it is, the drawing of the batch included: rows packed, only hidden places scored.
`-full` scores all places, `-padded` gives every text (the demo's reviews) a row of its own: what each of the two saves.
transformers is `BertForMaskedLM` as it ships, which scores all places, on one batch made beforehand without padding.
Tokens are those of text, padding is none. Each peer is a process of its own, called in turns with the others; seconds
are CPU seconds of one pinned thread, as in `encoder.py`, so that other work on the machine does little; how much of a
ratio is another library of matrix products is said beside it. Every peer keeps its memory, as `maskplay pretrain` does
(`maskplay.memory`); with `--give-back` none does.

The second encodes PATH, by default bench100 (laws, SQL and .NET documentation, 100.8 MB; `words.py`), with one process
and two: megabytes per CPU second of all processes, their imports included where they are started for it, and the
highest resident memory of all processes together, sampled every 50 ms (what they share counts in each).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from encoder import GEMM, HERE, NAMES, SHAPES, Peer, machine, measure, spread, start, unequal

from words import bench100

BACKENDS = ("jax", "tensorflow", "torch")
PEERS = {
    f"maskplay-{backend}{variant and '-' + variant}": ("with_pretrain.py", variant, backend, "torch_python")
    for backend in BACKENDS
    for variant in ("", "full", "padded")
} | {
    f"transformers-{kind}": ("with_transformers.py", kind, "", "torch_python") for kind in ("fp32", "bf16")
}  # fmt: skip
OURS = "maskplay-jax"
DEFAULT = (
    "maskplay-jax,maskplay-jax-full,maskplay-jax-padded,maskplay-tensorflow,maskplay-torch,"
    "transformers-fp32,transformers-bf16"
)
PREPARE = """
import json, multiprocessing, resource, sys, tempfile, time
import maskplay as mp
from maskplay import pretext
def used():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
if __name__ == "__main__":
    path, workers, kept = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    start, wall = used(), time.perf_counter()
    if not workers:
        mp.fresh.vocabulary(mp.corpus.lines(path)).save(kept)
        tokens = 0
    else:
        with tempfile.TemporaryDirectory() as folder:
            documents, tokenizer = ([line] for line in mp.corpus.lines(path)), mp.Tokenizer.load(kept)
            tokens = len(pretext.prepare(documents, folder + "/tokens", tokenizer, workers=workers).ids)
    for process in multiprocessing.active_children():
        process.join()  # what it used counts from then on
    print(json.dumps(dict(cpu=used() - start, wall=time.perf_counter() - wall, tokens=tokens)))
"""


def tokens_per_second(arguments: argparse.Namespace) -> list[str]:
    """The first part; returns what went wrong."""
    peers: list[Peer] = []
    faults = []
    try:
        for name in arguments.peers.split(","):
            peers.append(peer := start(name, arguments, PEERS))
            made = ", ".join(f"{part} {version}" for part, version in peer.versions.items())
            print(f"{name:22} {'MISSING: ' + peer.missing if peer.missing else made}", flush=True)
        how = f"medians [quartiles] of {arguments.rounds} interleaved rounds"
        how += "" if arguments.give_back else ", memory kept"
        print(f"{machine()}; CPU time of one pinned thread; {how}")
        gemm, _ = measure(peers, {"task": "gemm", "shapes": GEMM}, arguments.rounds, threads=1)
        for size in arguments.sizes.split(","):
            batch, length = (2, 16) if size == "tiny" else (8, 128)
            case: dict[str, Any] = {"task": "train", "head": "full", "optimizer": "AdamW", "batch": batch}
            case |= {"length": length, "model": dict(zip(NAMES, SHAPES[size], strict=True))}
            times, facts = measure(peers, case, arguments.rounds, threads=1)
            faults += unequal({name: fact | {"shape": None} for name, fact in facts.items()})
            print(f"\n{size}: {', '.join(map(str, SHAPES[size]))} ({', '.join(NAMES)})")
            report(times, facts, batch * length - length // 16, gemm)
    finally:
        for peer in peers:
            if peer.process:
                peer.process.terminate()
    return faults + [f"{peer.name} broke down: {peer.missing}" for peer in peers if peer.missing and peer.versions]


def report(
    times: dict[str, list[float]], facts: dict[str, dict[str, Any]], theirs: int, gemm: dict[str, list[float]]
) -> None:
    """Print the peers of one size: time of a step, tokens a second, and how many times as many ours are."""
    rates = {name: [facts[name].get("tokens", theirs) / t for t in values] for name, values in times.items()}
    for name, values in times.items():
        middle, low, high = spread([1e3 * value for value in values])
        tokens = facts[name].get("tokens", theirs)
        line = f"  {name:22} {middle:9.1f} ms [{low:.1f}, {high:.1f}]  {tokens:6.0f} tokens"
        line += f"  {statistics.median(rates[name]):8,.0f} tokens/s"
        if name != OURS and OURS in rates:
            ratios = [ours / other for ours, other in zip(rates[OURS], rates[name])]
            line += "  ours {:.2f}× [{:.2f}, {:.2f}]".format(*spread(ratios))
            library = statistics.median(gemm[name]) / statistics.median(gemm[OURS])
            line += "" if 0.87 < library < 1.15 else f"  of which the matrix products' library {library:.2f}×"
        print(line, flush=True)


def memory(root: int) -> int:
    """Resident bytes of a process and all below it."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        below.setdefault(parent, []).append(int(stat.parent.name))
    found, total = [root], 0
    while found:
        process = found.pop()
        found += below.get(process, [])
        try:
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return total


def measured(path: Path, workers: int, kept: Path) -> dict[str, float]:
    """What it takes to prepare a text with so many processes; with 0, to make the vocabulary."""
    script = kept.with_name("prepare.py")  # a file: the processes it starts must find it
    script.write_text(PREPARE)
    environment = os.environ | {"KERAS_BACKEND": "jax", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(HERE.parent / "src"), "RAYON_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(path), str(workers), str(kept)]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.05)
        assert process.stdout is not None
        told = process.stdout.read()
    if process.returncode:
        sys.exit(f"preparing {path} ended with {process.returncode}")
    return json.loads(told) | {"peak": peak}


def preparing(given: str, rounds: int) -> None:
    """The second part."""
    with tempfile.TemporaryDirectory() as name:
        path, kept = Path(given), Path(name) / "vocabulary"
        if given == "bench100":
            path = Path(name) / "bench100.txt"
            path.write_bytes(bench100())
        size = path.stat().st_size
        print(f"{path.name}, {size / 1e6:.1f} MB; {machine()}; medians [quartiles] of {rounds} rounds")
        rows = {"vocabulary": 0, "encoding, 1 process": 1, "encoding, 2 processes": 2}
        found: dict[str, list[dict[str, float]]] = {what: [] for what in rows}
        for _ in range(rounds):
            for what, workers in rows.items():
                found[what].append(measured(path, workers, kept))
        for what, some in found.items():
            rates = spread([size / 1e6 / one["cpu"] for one in some])
            rate = "{:.2f} MB per CPU second [{:.2f}, {:.2f}]".format(*rates)
            wall, peak = (statistics.median(one[key] for one in some) for key in ("wall", "peak"))
            print(f"  {what:22} {rate}  {wall:.1f} s wall  peak {peak / 1e6:,.0f} MB  {some[0]['tokens']:,} tokens")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=DEFAULT, help=f"some of {', '.join(PEERS)}")
    parser.add_argument("--sizes", default="small,base", help=f"some of {', '.join(SHAPES)} (default small,base)")
    parser.add_argument("--rounds", type=int, help="measured rounds (default 5, for --prepare 3)")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter with all backends and transformers")
    parser.add_argument("--give-back", action="store_true", help="memory as glibc gives it back and takes it")
    parser.add_argument("--prepare", metavar="PATH", nargs="?", const="bench100", help="the second part")
    arguments = parser.parse_args()
    if arguments.prepare:
        preparing(arguments.prepare, arguments.rounds or 3)
        return 0
    arguments.rounds, arguments.threads = arguments.rounds or 5, 1
    arguments.keep_memory = not arguments.give_back
    names, sizes = arguments.peers.split(","), arguments.sizes.split(",")
    if unknown := [name for name in names if name not in PEERS] + [size for size in sizes if size not in SHAPES]:
        parser.error(f"unknown: {', '.join(unknown)}")
    faults = tokens_per_second(arguments)
    print(f"\nat the end: {machine()}", *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
