"""Golden numbers from transformers, so that a suite without torch proves parity too.

Each file ``golden/hf_<case>.npz`` holds what ``save_pretrained`` writes (``weights/<Hugging Face name>``, and as
``config`` the text of config.json), the inputs (``inputs/...``) and the twin's outputs (``outputs/...``, named as in
twins.py).
Written with torch 2.13.0 and transformers 5.23.0:

    PYTHONPATH=tests python -m parity.make_huggingface_golden
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from parity import twins

GOLDEN = Path(__file__).parent / "golden"
KEPT = ["bert_pretraining", "bert_masked_lm", "bert_bare", "roformer_masked_lm", "roformer_factorised"]


def make(name: str) -> None:
    case = twins.CASES[name]
    twin, given = twins.build(case), twins.inputs(case)
    with tempfile.TemporaryDirectory() as folder:
        twins.save(twin, Path(folder))
        weights = load_file(Path(folder) / "model.safetensors")
        config = (Path(folder) / "config.json").read_text(encoding="utf-8")
    groups = {"weights": weights, "inputs": given, "outputs": twins.reference(twin, **given)}
    arrays = {f"{group}/{key}": value for group, content in groups.items() for key, value in content.items()}
    path = GOLDEN / f"hf_{name}.npz"
    np.savez_compressed(path, config=np.array(config), **arrays)
    print(f"{path.name}: {path.stat().st_size} bytes, {len(weights)} tensors")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in KEPT:
        make(name)
