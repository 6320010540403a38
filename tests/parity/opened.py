"""Rows of cases.py opened with maskplay and run, once each however many tests ask."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

import maskplay as mp
from maskplay.checkpoints.files import open_tensors
from maskplay.language_model import named_weights
from parity.cases import CASES, Case
from parity.references import llama

# Rows that a format has no place for; all others are written and read back.
REFUSED = {
    "google": [
        "albert_unshared", "bert_condition", "bert_residual", "ernie", "llama2c", "llama2c_classifier", "llama_hf",
        "llama_hf_tied", "roberta_hf", "roberta_hf_bare", "t5_1_1_cross_bias", "t5_cross_bias",
    ],
    "huggingface": [
        "albert_brightmart", "albert_brightmart_preln", "albert_unshared", "bert_condition", "bert_key_size",
        "bert_residual", "gau_alpha", "gau_alpha_lm", "gpt", "gpt2_ml", "gpt_shared", "gpt_unsegmented", "mt5",
        "nezha", "nezha_hf", "nezha_lm", "nezha_long", "roformer", "roformer_lm",
        "roformer_sim", "roformer_v2", "roformer_v2_unilm", "simbert", "t5_1_1", "t5_1_1_cross_bias", "t5_cross_bias",
        "t5_pegasus",
    ],
}  # fmt: skip


@functools.cache
def source(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A row's tensors by name and its config, what `mp.load` takes. llama2c's come from a file, which names nothing."""
    case = CASES[name]
    if case.dialect != "llama2c":
        return {name: value for name, value in case.weights().items() if not of_condition(name)}, case.config
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.bin"
        llama.write(path, case.config, case.weights())
        tensors = open_tensors(path)
        return {name: np.array(tensors[name]) for name in tensors.names()}, tensors.config


def of_condition(name: str) -> bool:
    """Whether it is a kernel between a condition and a norm: no checkpoint has these, so none has a name for them."""
    return name.endswith(("/gamma_dense/kernel", "/beta_dense/kernel"))


@functools.cache
def opened(name: str) -> mp.Pretrained:
    """A row as `mp.load` makes it. Shared: whoever changes its weights puts them back."""
    arrays, config = source(name)
    made = mp.load(arrays, config=config, **CASES[name].options)
    norms = {row.theirs.removesuffix("/gamma"): row.ours.removesuffix("/gamma") for row in made.report.filled}
    weights = named_weights(made.network)
    for theirs, value in CASES[name].weights().items():
        if of_condition(theirs):
            norm, part, _ = theirs.rsplit("/", 2)
            weights[f"{norms[norm]}/{part.removesuffix('_dense')}_kernel"].assign(value)
    return made


def facts(case: Case) -> dict[str, Any]:
    """What the network is called with beside the tokens."""
    given = {name: value for name, value in case.inputs().items() if name != "tokens"}
    return given if case.two_sided else {**given, "mask": mp.masks.parse(case.mask)}


def run(network: mp.LanguageModel, case: Case) -> dict[str, np.ndarray]:
    """What comes out, in float32 under the names of cases.py."""
    found = network(case.inputs()["tokens"], **facts(case))
    theirs = {"rtd": "discriminator", "lm": "mlm" if "mlm" in case.expected() else "logits"}
    arrays = {name: keras.ops.convert_to_numpy(value) for name, value in found.items()}
    results = {theirs.get(name, name): np.asarray(value, "float32") for name, value in arrays.items()}
    if "nsp" in results:
        results["nsp"] -= np.log(np.exp(results["nsp"]).sum(-1, keepdims=True))
    return results


def compared(case: Case, output: str) -> np.ndarray | None:
    """Where an output is looked at, None for everywhere."""
    return None if output in ("pooled", "nsp") else case.valid(output)


def distinct() -> list[str]:
    """A row for each family and table: those that differ in masks, lengths or options only are left out."""
    found: dict[tuple, str] = {}
    for name, case in CASES.items():
        found.setdefault((case.family, case.dialect, tuple(case.table)), name)
    return list(found.values())
