"""Make of a pretrained folder what the package carries: weights in float16, dropout as fine-tuning wants it.

    python examples/zh_small/pack.py [--go-on] RUN [RUN ...] OUT

Of several folders, where a run and others that went on from it ended, the weights are averaged (arXiv:1803.05407);
the rest is the last one's. `--go-on` makes what training goes on from: float32, no dropout.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from maskplay.arrays import write_arrays
from maskplay.storage import new_folder

KEPT = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "history.csv")
DROPOUT = 0.1  # pretraining ran without


def main(runs: list[Path], out: Path, go_on: bool) -> None:
    dtype, dropout = ("float32", 0.0) if go_on else ("float16", DROPOUT)
    weights: dict[str, np.ndarray] = {}
    for run in runs:
        for name, value in load_file(run / "model.safetensors").items():
            weights[name] = weights.get(name, 0.0) + value.astype("float64") / len(runs)
    weights = {name: value.astype(dtype) for name, value in weights.items()}
    last = runs[-1]
    config = json.loads((last / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "torch_dtype": dtype}
    with new_folder(out) as folder:
        write_arrays(folder / "model.safetensors", weights, {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in KEPT:
            shutil.copy(last / name, folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--go-on", action="store_true")
    options = parser.parse_args()
    main(options.runs, options.out, options.go_on)
