"""Encoder forward pass and pretraining step: maskplay, Hugging Face transformers and bert4keras in one run.

    python benchmarks/encoder.py [--quick] [--sizes small,base] [--threads 1] [--rounds 5] [--peers maskplay-jax,…]
        [--keep-memory] [--torch-python PYTHON] [--bert4keras-python PYTHON]

Each peer is a process of its own (`benchmarks/peers`), built once per case and then called in turn with the others,
round by round, so that what else the machine does hits all alike. With one thread the measure is CPU time on one pinned
core, with more it is wall time. Ratios are taken within a round; above 1, maskplay is faster. All have random weights,
exact GELU, Adam, dropout 0.1 (also on attention) in training, padding to mask, and are checked to have equal numbers of
parameters, equal shapes and nearly the same first loss.

maskplay and, if it is installed there, transformers run in this interpreter. The other environment is made by

    python3.11 -m venv old && old/bin/pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 numpy six
    old/bin/pip install --no-deps bert4keras==0.11.5

With --keep-memory every peer runs with what `maskplay.memory.keep` sets: XLA and PyTorch map their temporary memory
anew in each step otherwise (docs/performance.md says what that costs).

A fp32 encoder is matrix products, so a ratio is often that of two libraries of matrix products. That one is measured,
too, and printed beside every ratio that it explains: on another processor it is another number.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OURS = "maskplay-jax"
# Name: the script, its argument, the backend it asks of Keras, the option that names its interpreter.
PEERS = {
    "maskplay-jax": ("with_maskplay.py", "", "jax", ""),
    "maskplay-jax-stock": ("with_maskplay.py", "stock", "jax", ""),
    "maskplay-tensorflow": ("with_maskplay.py", "", "tensorflow", ""),
    "maskplay-torch": ("with_maskplay.py", "", "torch", ""),
    "transformers-fp32": ("with_transformers.py", "fp32", "", "torch_python"),
    "transformers-bf16": ("with_transformers.py", "bf16", "", "torch_python"),
    "bert4keras": ("with_bert4keras.py", "", "", "bert4keras_python"),
}
DEFAULT = "maskplay-jax,maskplay-jax-stock,transformers-fp32,transformers-bf16,bert4keras"
SHAPES = {"tiny": (2, 32, 2, 64, 500), "small": (4, 256, 4, 1024, 21128), "base": (12, 768, 12, 3072, 21128)}
NAMES = ("num_layers", "hidden_size", "num_heads", "intermediate_size", "vocab_size")
# What `maskplay.memory.keep` sets, for peers that do not have it.
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_ARENA_MAX": "1"}
GEMM = ((1024, 768), (768, 3072))  # tokens by hidden, hidden by intermediate


@dataclass
class Peer:
    """A process that waits for orders, or the reason why there is none."""

    name: str
    missing: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    log: Any = None

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send an order and wait for its answer; a peer that dies is missing from then on."""
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process is not None and self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.process.wait()
        self.log.seek(0)
        lines = self.log.read().strip().splitlines() or [f"ended with {self.process.returncode}"]
        self.missing, self.process = lines[-1][:200], None
        return {}


def start(name: str, arguments: argparse.Namespace, peers: dict[str, tuple[str, str, str, str]] = PEERS) -> Peer:
    """Start a peer's process on the benchmark's cores."""
    script, argument, backend, option = peers[name]
    python = getattr(arguments, option) if option else sys.executable
    if not python:
        return Peer(name, missing=f"no environment: give --{option.replace('_', '-')} (see --help)")
    threads = str(arguments.threads)
    single = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" if arguments.threads == 1 else ""
    counts = {f"{kind}_NUM_THREADS": threads for kind in ("OMP", "MKL", "OPENBLAS", "TF", "TF_NUM_INTRAOP")}
    environment = os.environ | counts | {
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XLA_FLAGS": " ".join(filter(None, [os.environ.get("XLA_FLAGS", ""), single])),
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": backend or "jax",
        "PYTHONPATH": str(HERE.parent / "src"),
        "PEER_CORES": ",".join(map(str, cores(arguments.threads))),
    }  # fmt: skip
    if arguments.keep_memory:
        environment |= KEEP
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115
    command = [python, str(HERE / "peers" / script), *argument.split()]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
    except OSError as error:
        return Peer(name, missing=f"cannot run {python}: {error.strerror}")
    peer = Peer(name, process=process, log=log)
    peer.versions = peer.answer().get("versions", {})
    return peer


def cores(count: int) -> list[int]:
    """The last `count` cores we may use; none where the system cannot pin."""
    return sorted(os.sched_getaffinity(0))[-count:] if hasattr(os, "sched_getaffinity") else []


def cases(sizes: list[str], smoke: bool) -> list[dict[str, Any]]:
    """What is measured, in order; the matrix product first."""
    found: list[dict[str, Any]] = [{"task": "gemm", "shapes": GEMM, "title": "matrix product 1024×768×3072"}]
    for size in sizes:
        model = dict(zip(NAMES, SHAPES[size], strict=True))
        shapes = [(2, 16)] if smoke else [(8, 128), (1, 64)]
        for batch, length in shapes:
            case = {"task": "forward", "batch": batch, "length": length, "model": model}
            found.append(case | {"title": f"forward {size} {batch}×{length}"})
        batch, length = shapes[0]
        case = {"task": "train", "batch": batch, "length": length, "model": model, "long": size == "base"}
        heads = {"full": "scores at all places", "masked": "scores at 19 of 128 places"}
        for head, what in list(heads.items())[smoke:]:
            found.append(case | {"head": head, "title": f"training step {size} {batch}×{length}, {what}"})
    return found


def measure(peers: list[Peer], case: dict[str, Any], rounds: int, threads: int) -> tuple[dict, dict]:
    """Seconds per call by peer, one number a round; and what each peer said about the case."""
    facts = {peer.name: peer.ask(do="prepare", case=case) for peer in peers if peer.process}
    ready = [peer for peer in peers if facts.get(peer.name, {}).get("offered")]
    times: dict[str, list[float]] = {peer.name: [] for peer in ready}
    for _ in range(min(rounds, 3) if case.get("long") else rounds):
        for peer in ready:
            if peer.process:
                reply = peer.ask(do="run", seconds=0.25)
                times[peer.name].append(reply.get("cpu" if threads == 1 else "wall", float("nan")))
    return {name: values for name, values in times.items() if values == values}, facts


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median and quartiles; of fewer than three values the extremes."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 2 else (min(values), 0, max(values))
    return statistics.median(values), low, high


def unequal(facts: dict[str, dict[str, Any]]) -> list[str]:
    """In what the peers that run a case differ."""
    offered = {name: fact for name, fact in facts.items() if fact.get("offered")}
    found = []
    for what in ("parameters", "shape"):
        if len({json.dumps(fact.get(what)) for fact in offered.values()}) > 1:
            found.append(f"{what}: " + ", ".join(f"{name} {fact.get(what)}" for name, fact in offered.items()))
    losses = [fact["loss"] for fact in offered.values() if "loss" in fact]
    if losses and max(losses) > 1.05 * min(losses):
        found.append(f"first loss: {losses}")
    return found


def report(
    case: dict[str, Any], times: dict[str, list[float]], facts: dict[str, Any], gemm: dict[str, list[float]]
) -> None:
    """Print one case: times, ratios, and how much of a ratio is the library of matrix products."""
    about = next((fact for fact in facts.values() if fact.get("offered")), {})
    weights = f", {about['parameters'] / 1e6:.1f} M parameters" if "parameters" in about else ""
    print(f"\n{case['title']}{weights}")
    for name, fact in facts.items():
        if name not in times:
            print(f"  {name:20} {'not offered' if fact else 'broke down'}")
            continue
        middle, low, high = spread([1e3 * value for value in times[name]])
        line = f"  {name:20} {middle:8.2f} ms  [{low:.2f}, {high:.2f}]"
        if case["task"] == "gemm":
            (m, k), (_, n) = case["shapes"]
            line += f"  {2 * m * k * n / middle / 1e6:.0f} GFLOP/s"
        elif name != OURS and OURS in times:
            middle, low, high = spread([value / ours for value, ours in zip(times[name], times[OURS])])
            line += f"  {middle:5.2f}× ours [{low:.2f}, {high:.2f}]"
            if name in gemm and OURS in gemm:
                library = statistics.median(gemm[name]) / statistics.median(gemm[OURS])
                if not 0.87 < library < 1.15:
                    line += f"  of which the matrix products' library {library:.2f}×"
        print(line + (f"  first call {fact['first']:.1f} s" if case["task"] != "gemm" else ""), flush=True)


def machine() -> str:
    """Processor, cores and load, in words."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        named = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = named[1] if named else cpu
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}{load}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=DEFAULT, help=f"some of {', '.join(PEERS)}")
    parser.add_argument("--sizes", default="small,base", help=f"some of {', '.join(SHAPES)} (default small,base)")
    parser.add_argument("--rounds", type=int, help="rounds (default 5, quick 3; at most 3 for training base)")
    parser.add_argument("--threads", type=int, default=1, help="1: CPU time; more: wall time (default 1)")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter with torch and transformers")
    parser.add_argument("--bert4keras-python", help="interpreter with bert4keras and tf_keras")
    parser.add_argument("--keep-memory", action="store_true", help="keep what arrays leave behind, in every peer")
    parser.add_argument("--quick", action="store_true", help="the small model in 3 rounds")
    parser.add_argument("--smoke", action="store_true", help="does it run? Tiny shapes, maskplay alone, one round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes = "small"
    if arguments.smoke:
        arguments.peers, arguments.sizes, arguments.rounds = OURS, "tiny", 1
    arguments.rounds = arguments.rounds or (3 if arguments.quick else 5)
    names, sizes = arguments.peers.split(","), arguments.sizes.split(",")
    if unknown := [name for name in names if name not in PEERS] + [size for size in sizes if size not in SHAPES]:
        parser.error(f"unknown: {', '.join(unknown)}")

    began, peers, faults = time.time(), [], []
    try:
        for name in names:
            peers.append(peer := start(name, arguments))
            made = ", ".join(f"{part} {version}" for part, version in peer.versions.items())
            print(f"{name:20} {'MISSING: ' + peer.missing if peer.missing else made}", flush=True)
        how = "CPU time of one pinned thread" if arguments.threads == 1 else f"wall time on {arguments.threads} threads"
        how += ", memory kept" if arguments.keep_memory else ""
        print(f"{machine()}; {how}; medians [quartiles] of {arguments.rounds} interleaved rounds")
        gemm: dict[str, list[float]] = {}
        for case in cases(sizes, arguments.smoke):
            times, facts = measure(peers, case, arguments.rounds, arguments.threads)
            if case["task"] == "gemm":
                gemm = times
            report(case, times, facts, gemm)
            faults += [f"NOT EQUAL WORK, {case['title']}: {fault}" for fault in unequal(facts)]
    finally:
        for peer in peers:
            if peer.process:
                peer.process.terminate()
    broken = [f"{peer.name} broke down: {peer.missing}" for peer in peers if peer.missing and peer.versions]
    print(f"\n{time.time() - began:.0f} s; at the end: {machine()}", *broken, *faults, sep="\n")
    return 1 if faults or broken else 0


if __name__ == "__main__":
    sys.exit(main())
