"""Make of a pretrained folder what the package carries: weights in float16, dropout as fine-tuning wants it.

python examples/zh_small/pack.py RUN [RUN ...] OUT

Of several folders, where a run and others that went on from it ended, the weights are averaged (arXiv:1803.05407);
the rest is the last one's.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from maskplay.storage import new_folder

KEPT = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "history.csv")
DROPOUT = 0.1  # pretraining ran without


def main(runs: list[Path], out: Path) -> None:
    weights: dict[str, np.ndarray] = {}
    for run in runs:
        for name, value in load_file(run / "model.safetensors").items():
            weights[name] = weights.get(name, 0.0) + value.astype("float64") / len(runs)
    weights = {name: value.astype("float16") for name, value in weights.items()}
    last = runs[-1]
    config = json.loads((last / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": DROPOUT, "attention_probs_dropout_prob": DROPOUT, "torch_dtype": "float16"}
    with new_folder(out) as folder:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        (folder / "model.safetensors").chmod(0o644)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in KEPT:
            shutil.copy(last / name, folder / name)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    *runs, out = map(Path, sys.argv[1:])
    main(runs, out)
