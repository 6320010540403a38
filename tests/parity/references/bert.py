"""Relatives of BERT for which no program could be run: brightmart's first ALBERT and ELECTRA's generator.

Both under the names of their TensorFlow files (github.com/brightmart/albert_zh, github.com/google-research/electra).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from parity.references.formulas import attend, gelu, layer_norm, merge, split


class Weights:
    """A TensorFlow file's arrays in float64, and its dense layers and norms by name."""

    def __init__(self, arrays: Mapping[str, np.ndarray], epsilon: float):
        self.arrays = {name: np.asarray(value, "float64") for name, value in arrays.items()}
        self.epsilon = epsilon

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def dense(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self[f"{name}/kernel"] + self[f"{name}/bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return layer_norm(x, self[f"{name}/gamma"], self[f"{name}/beta"], self.epsilon)

    def attention(self, layer: str, x: np.ndarray, heads: int) -> np.ndarray:
        query, key, value = (
            split(self.dense(f"{layer}/attention/self/{part}", x), heads) for part in ("query", "key", "value")
        )
        return self.dense(f"{layer}/attention/output/dense", merge(attend(query, key, value, causal=False)))

    def feed(self, layer: str, x: np.ndarray, act: Callable) -> np.ndarray:
        return self.dense(f"{layer}/output/dense", act(self.dense(f"{layer}/intermediate/dense", x)))

    def after(self, layer: str, x: np.ndarray, heads: int, act: Callable) -> np.ndarray:
        """A block that normalises after each sum, as BERT's."""
        x = self.norm(f"{layer}/attention/output/LayerNorm", x + self.attention(layer, x, heads))
        return self.norm(f"{layer}/output/LayerNorm", x + self.feed(layer, x, act))

    def before(self, layer: str, x: np.ndarray, heads: int, act: Callable) -> np.ndarray:
        """A block that normalises what each part reads."""
        x = x + self.attention(layer, self.norm(f"{layer}/attention/output/LayerNorm", x), heads)
        return x + self.feed(layer, self.norm(f"{layer}/output/LayerNorm", x), act)


def brightmart(
    arrays: Mapping[str, np.ndarray], config: dict, tokens: np.ndarray, segments: np.ndarray, act: Callable = gelu
) -> dict[str, np.ndarray]:
    """One text without padding: `hidden`, `pooled`, `nsp` (log-probabilities) and `mlm` logits.

    Words alone are projected to the hidden width, without a bias; positions and segments have that width. The
    configuration's ``ln_type`` is "postln", or "preln" (xxlarge): norms before each part and none at the end.
    The head goes back through the same projection.
    """
    w = Weights(arrays, config["layer_norm_eps"])
    words, wide = w["bert/embeddings/word_embeddings"], w["bert/embeddings/word_embeddings_2"]
    x = words[tokens] @ wide + w["bert/embeddings/token_type_embeddings"][segments]
    x = w.norm("bert/embeddings/LayerNorm", x + w["bert/embeddings/position_embeddings"][: len(tokens)])
    block = w.before if config.get("ln_type") == "preln" else w.after
    for _ in range(config["num_hidden_layers"]):
        x = block("bert/encoder/layer_shared", x, config["num_attention_heads"], act)
    pooled = np.tanh(w.dense("bert/pooler/dense", x[0]))
    nsp = pooled @ w["cls/seq_relationship/output_weights"].T + w["cls/seq_relationship/output_bias"]
    head = act(w.dense("cls/predictions/transform/dense", x))
    head = w.norm("cls/predictions/transform/LayerNorm", head)
    mlm = head @ wide.T @ words.T + w["cls/predictions/output_bias"]
    return {"hidden": x, "pooled": pooled, "nsp": nsp - np.log(np.exp(nsp).sum()), "mlm": mlm}


def generator(
    arrays: Mapping[str, np.ndarray], config: dict, tokens: np.ndarray, segments: np.ndarray
) -> dict[str, np.ndarray]:
    """One text without padding through ELECTRA's generator: `hidden` and `mlm` logits.

    Its embeddings are the discriminator's, so they lie under electra/, the rest under generator/.
    """
    w = Weights(arrays, config["layer_norm_eps"])
    words = w["electra/embeddings/word_embeddings"]
    x = words[tokens] + w["electra/embeddings/token_type_embeddings"][segments]
    x = w.norm("electra/embeddings/LayerNorm", x + w["electra/embeddings/position_embeddings"][: len(tokens)])
    if "generator/embeddings_project/kernel" in w.arrays:
        x = w.dense("generator/embeddings_project", x)
    for index in range(config["num_hidden_layers"]):
        x = w.after(f"generator/encoder/layer_{index}", x, config["num_attention_heads"], gelu)
    head = w.norm("generator_predictions/LayerNorm", gelu(w.dense("generator_predictions/dense", x)))
    return {"hidden": x, "mlm": head @ words.T + w["generator_predictions/output_bias"]}
