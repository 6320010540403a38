"""GPT-2 as OpenAI released it, under the names of its TensorFlow files (github.com/openai/gpt-2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from parity.references.formulas import attend, gelu_tanh, layer_norm, merge, split
from parity.references.tensors import Table


def table(hparams: dict) -> Table:
    """Name -> (kind, shape). Kernels have a leading axis of one; queries, keys and values lie side by side."""
    width = hparams["n_embd"]
    shapes: Table = {
        "model/wte": ("table", (hparams["n_vocab"], width)),
        "model/wpe": ("table", (hparams["n_ctx"], width)),
    }
    sizes = {"attn/c_attn": (width, 3 * width), "attn/c_proj": (width, width)}
    sizes |= {"mlp/c_fc": (width, 4 * width), "mlp/c_proj": (4 * width, width)}
    for index in range(hparams["n_layer"]):
        for part, (inputs, outputs) in sizes.items():
            shapes[f"model/h{index}/{part}/w"] = ("kernel", (1, inputs, outputs))
            shapes[f"model/h{index}/{part}/b"] = ("bias", (outputs,))
        for part in ("ln_1", "ln_2"):
            shapes |= _norm(f"model/h{index}/{part}", width)
    return shapes | _norm("model/ln_f", width)


def _norm(name: str, size: int) -> Table:
    return {f"{name}/g": ("gamma", (size,)), f"{name}/b": ("bias", (size,))}


def forward(weights: Mapping[str, np.ndarray], hparams: dict, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """One text: `hidden` (length, width) after the last norm and `logits` (length, vocabulary)."""
    w = {name: np.asarray(value, "float64") for name, value in weights.items()}

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"model/{name}/w"][0] + w[f"model/{name}/b"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        return layer_norm(x, w[f"model/{name}/g"], w[f"model/{name}/b"], 1e-5)

    x = w["model/wte"][tokens] + w["model/wpe"][: len(tokens)]
    for index in range(hparams["n_layer"]):
        mixed = dense(f"h{index}/attn/c_attn", norm(f"h{index}/ln_1", x))
        query, key, value = (split(part, hparams["n_head"]) for part in np.split(mixed, 3, axis=-1))
        x = x + dense(f"h{index}/attn/c_proj", merge(attend(query, key, value, causal=True)))
        inner = gelu_tanh(dense(f"h{index}/mlp/c_fc", norm(f"h{index}/ln_2", x)))
        x = x + dense(f"h{index}/mlp/c_proj", inner)
    hidden = norm("ln_f", x)
    return {"hidden": hidden, "logits": hidden @ w["model/wte"].T}
