"""Golden numbers of the formulas in references/, for the rows of cases.py that no program was run for, and for the real
checkpoints in the shared data folder:

    PYTHONPATH=src:tests python -m parity.make_numpy_cast_golden ../shared/data

Each text runs alone, without padding; padded positions of the outputs are zero.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from maskplay.checkpoints.files import open_tensors
from parity.cases import CASES, CAST, NUMPY, REAL, Case
from parity.golden_file import inputs, write
from parity.references import bert, gpt2, llama


def program(case: Case) -> Callable[..., dict[str, np.ndarray]]:
    """What computes one text of the row: tokens, and segments where there are any -> name -> array."""
    weights, config = case.weights(), case.config
    if case.dialect == "openai":
        return lambda tokens: gpt2.forward(weights, config, tokens)
    if case.dialect == "llama2c":
        config, weights = llama.named(config, weights)
        return lambda tokens: llama.forward(weights, config, tokens, pairs=True)
    form = bert.brightmart if case.dialect == "brightmart" else bert.generator
    return lambda tokens, segments: form(weights, config, tokens, segments)


def run(case: Case, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    compute, found = program(case), {}
    for row, size in enumerate(case.lengths):
        for name, value in compute(*(array[row, :size] for array in given.values())).items():
            whole = (max(case.lengths), *value.shape[1:]) if name in ("hidden", "logits", "mlm") else value.shape
            found.setdefault(name, np.zeros((len(case.lengths), *whole)))
            found[name][row, : len(value)] = value
    return found


def real(data: Path) -> None:
    """The first tokens' logits, and for the trained ones 100 tokens of greedy text."""
    toy, *trained = REAL
    hparams = json.loads((data / toy.path / "hparams.json").read_text(encoding="utf-8"))
    tensors = open_tensors(data / toy.path)
    tokens = np.random.default_rng(70).integers(0, hparams["n_vocab"], hparams["n_ctx"])
    result = gpt2.forward({name: tensors[name] for name in gpt2.table(hparams)}, hparams, tokens)
    save(toy.name, tokens=tokens.astype("int32"), **result)
    for row in trained:
        config, weights = llama.named(*llama.read(data / row.path))
        vocabulary = llama.read_tokens(data / row.tokenizer, config["vocab_size"])
        text = llama.greedy(weights, config, [1], 100, pairs=True)
        logits = llama.forward(weights, config, np.array(text), pairs=True)["logits"]
        margin = np.sort(logits, -1)
        print(f"{row.name}: {llama.text(text, vocabulary)!r}, closest call {(margin[:, -1] - margin[:, -2]).min():.3f}")
        words = np.array(llama.text(text, vocabulary))
        save(row.name, tokens=np.array(text[:12], "int32"), logits=logits[:12], greedy=np.array(text), text=words)


def save(name: str, **arrays: np.ndarray) -> None:
    arrays = {key: value.astype("float32") if value.dtype == "float64" else value for key, value in arrays.items()}
    np.savez_compressed(CAST / f"{name}.npz", **arrays)
    print(f"{name}.npz: {(CAST / f'{name}.npz').stat().st_size} bytes")


if __name__ == "__main__":
    for row in CASES.values():
        if row.oracle == NUMPY:
            data = inputs(row)
            write(row, data, run(row, data))
    real(Path(sys.argv[1]))
