"""Make two layers more of a pretrained folder, for training to go on with.

    python examples/zh_small/grow.py RUN OUT

Behind the second and the last layer comes a copy of it that adds nothing yet: the kernels and biases of what it adds
are zero. Its normalizations are the copied ones, so what comes out is nearly what went in.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from maskplay.arrays import write_arrays
from maskplay.storage import new_folder

KEPT = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")
ADDING = ("attention.output.dense.", "output.dense.")  # the two places where a layer adds to what it was given


def main(run: Path, out: Path) -> None:
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    layers = range(config["num_hidden_layers"])
    sources = [(i, copy) for i in layers for copy in ([False, True] if i in (1, layers[-1]) else [False])]
    weights: dict[str, np.ndarray] = {}
    for name, value in load_file(run / "model.safetensors").items():
        before, _, behind = name.partition(".layer.")
        number, _, rest = behind.partition(".")
        for at, (source, copy) in enumerate(sources):
            if behind and source == int(number):
                empty = copy and rest.startswith(ADDING)
                weights[f"{before}.layer.{at}.{rest}"] = (np.zeros_like(value) if empty else value).astype("float32")
        if not behind:
            weights[name] = value.astype("float32")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "torch_dtype": "float32"}
    config |= {"num_hidden_layers": len(sources), **still}
    with new_folder(out) as folder:
        write_arrays(folder / "model.safetensors", weights, {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in KEPT:
            shutil.copy(run / name, folder / name)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
