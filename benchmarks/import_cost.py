"""What `import maskplay` costs on top of `import keras`: fresh interpreters, interleaved, medians and their spread.

    python benchmarks/import_cost.py [--rounds 15]

CPU seconds (user + system of the child) are steadier than wall time on a shared machine; the ratio of their medians is
what the target (at most 1.3) is about. The first round warms the page cache and the bytecode and is thrown away. Keras
imports matplotlib and scikit-learn where they are installed; they are hidden here, for they would flatter the ratio.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
HIDE = "import sys; sys.modules.update(matplotlib=None, sklearn=None); "
STATEMENTS = ("import keras", "import maskplay")
TARGET = 1.3


def cost(statement: str) -> tuple[float, float]:
    """CPU and wall seconds of one fresh interpreter that runs a statement."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(SOURCE)}
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", HIDE + statement], env=environment, check=True, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return cpu, wall


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds (default 15)")
    rounds = parser.parse_args().rounds
    measured: dict[str, list[tuple[float, float]]] = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds + 1):
        for statement in STATEMENTS:
            measured[statement].append(cost(statement))
    medians = {}
    for statement, all_rounds in measured.items():
        for kind, values in zip(("cpu", "wall"), zip(*all_rounds[1:])):
            low, middle, high = statistics.quantiles(values, n=4)
            medians[statement, kind] = middle
            print(f"{statement:16} {kind:4}  median {middle:.2f} s   quartiles {low:.2f} to {high:.2f} s")
    ratio = medians["import maskplay", "cpu"] / medians["import keras", "cpu"]
    print(f"import maskplay / import keras = {ratio:.2f} in CPU time (target: at most {TARGET}), {rounds} rounds")


if __name__ == "__main__":
    main()
