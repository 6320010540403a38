"""GAU-alpha: gated attention units, rotary positions, norms without parameters (kexue.fm/archives/9052)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from parity.references.formulas import rms_norm, silu, softmax, turn_pairs


def forward(
    weights: Mapping[str, np.ndarray], config: dict, tokens: np.ndarray, segments: np.ndarray, causal: bool = False
) -> dict[str, np.ndarray]:
    """One text without padding: `hidden` and `mlm` logits.

    Each query's scores are multiplied by log(n) / log(512), n being the keys that it sees, but at least 16: the
    entropy of its probabilities then hardly depends on the length.
    """
    w = {name: np.asarray(value, "float64") for name, value in weights.items()}
    units, size, epsilon = config["intermediate_size"], config["attention_key_size"], config["layer_norm_eps"]
    words = w["bert/embeddings/word_embeddings"]
    x = rms_norm(words[tokens] + w["bert/embeddings/token_type_embeddings"][segments], epsilon)
    visible = np.tri(len(tokens), dtype=bool) if causal else np.ones((len(tokens), len(tokens)), bool)
    sharpness = np.log(np.maximum(visible.sum(-1, keepdims=True), 16)) / math.log(512)
    for index in range(config["num_hidden_layers"]):
        unit = f"GAU_alpha/encoder/layer_{index}/gau"
        gate, value, base = np.split(silu(x @ w[f"{unit}/i_dense/kernel"]), [units, 2 * units], axis=-1)
        query = turn_pairs(base * w[f"{unit}/q_scaleoffset/gamma"])
        key = turn_pairs(base * w[f"{unit}/k_scaleoffset/gamma"])
        scores = np.where(visible, query @ key.T / math.sqrt(size) * sharpness, -np.inf)
        x = rms_norm(x + (gate * (softmax(scores) @ value)) @ w[f"{unit}/o_dense/kernel"], epsilon)
    return {"hidden": x, "mlm": x @ words.T}
