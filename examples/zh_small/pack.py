"""Make of a pretrained folder what the package carries: weights in float16, dropout as fine-tuning wants it.

python examples/zh_small/pack.py RUN OUT
"""

import json
import shutil
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from maskplay.storage import new_folder

KEPT = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "history.csv")
DROPOUT = 0.1  # pretraining ran without


def main(run: Path, out: Path) -> None:
    with safe_open(run / "model.safetensors", "numpy") as file:
        weights = {name: file.get_tensor(name).astype("float16") for name in file.keys()}
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": DROPOUT, "attention_probs_dropout_prob": DROPOUT, "torch_dtype": "float16"}
    with new_folder(out) as folder:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        (folder / "model.safetensors").chmod(0o644)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in KEPT:
            shutil.copy(run / name, folder / name)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
