"""The LLaMA form, and llama2.c's files of it (github.com/karpathy/llama2.c).

A model file is seven little-endian int32 - width, inner width, layers, heads, key/value heads, vocabulary, positions -
and float32 arrays without names, one after the other: see `table`. A vocabulary below zero says that the classifier is
stored, at the end; otherwise it is the table of words. Rotary pairs are neighbouring channels, where Hugging Face's
files of the same form have their query and key rows reordered and turn channels half a head apart.

A tokenizer file is an int32, the longest token, and for each token a float32 score, an int32 length and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from parity.references.formulas import angles, attend, merge, rms_norm, silu, split, turn_halves, turn_pairs
from parity.references.tensors import Table

FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")


def table(config: dict, shared: bool = True) -> Table:
    """The arrays of a llama2.c file in their order; the names are those of its own PyTorch model, stacked by layer."""
    width, inner, layers = config["dim"], config["hidden_dim"], config["n_layers"]
    size = width // config["n_heads"]
    narrow, half = config["n_kv_heads"] * size, size // 2
    shapes: Table = {
        "tok_embeddings": ("table", (config["vocab_size"], width)),
        "attention_norm": ("gamma", (layers, width)),
        "wq": ("linear", (layers, width, width)),
        "wk": ("linear", (layers, narrow, width)),
        "wv": ("linear", (layers, narrow, width)),
        "wo": ("linear", (layers, width, width)),
        "ffn_norm": ("gamma", (layers, width)),
        "w1": ("linear", (layers, inner, width)),
        "w2": ("linear", (layers, width, inner)),
        "w3": ("linear", (layers, inner, width)),
        "norm": ("gamma", (width,)),
        # Cosines and sines of the angles: old programs read them, newer ones compute them.
        "freqs_cos": ("computed", (config["max_seq_len"], half)),
        "freqs_sin": ("computed", (config["max_seq_len"], half)),
    }
    return shapes if shared else shapes | {"output": ("linear", (config["vocab_size"], width))}


def read(path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """The header and the arrays of a llama2.c file."""
    content = path.read_bytes()
    config = dict(zip(FIELDS, struct.unpack_from("<7i", content)))
    shared = config["vocab_size"] > 0
    config["vocab_size"] = abs(config["vocab_size"])
    values, arrays, start = np.frombuffer(content, "<f4", offset=28), {}, 0
    for name, (_, shape, *_) in table(config, shared).items():
        size = int(np.prod(shape))
        arrays[name] = values[start : start + size].reshape(shape)
        start += size
    assert start == len(values), f"{path}: {len(values)} numbers, {start} expected"
    return config, arrays


def write(path: Path, config: dict, arrays: Mapping[str, np.ndarray]) -> None:
    """A llama2.c file of the arrays; the angles' cosines and sines are computed."""
    shared = "output" not in arrays
    header = [config[field] for field in FIELDS]
    header[FIELDS.index("vocab_size")] *= 1 if shared else -1
    turns = angles(config["max_seq_len"], config["dim"] // config["n_heads"])
    arrays = {"freqs_cos": np.cos(turns), "freqs_sin": np.sin(turns), **arrays}
    with open(path, "wb") as file:
        file.write(struct.pack("<7i", *header))
        for name in table(config, shared):
            file.write(np.asarray(arrays[name], "<f4").tobytes())


def read_tokens(path: Path, count: int) -> list[tuple[float, bytes]]:
    """Score and bytes of each token."""
    content, at, tokens = path.read_bytes(), 4, []
    for _ in range(count):
        score, size = struct.unpack_from("<fi", content, at)
        tokens.append((score, content[at + 8 : at + 8 + size]))
        at += 8 + size
    assert at == len(content), f"{path}: {len(content)} bytes, {at} expected"
    return tokens


def named(config: dict, arrays: Mapping[str, np.ndarray]) -> tuple[dict, dict[str, np.ndarray]]:
    """The same model under Hugging Face's names, rows as they lie: `forward` then turns neighbouring pairs."""
    names = {
        "attention_norm": "input_layernorm", "wq": "self_attn.q_proj", "wk": "self_attn.k_proj",
        "wv": "self_attn.v_proj", "wo": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
        "w1": "mlp.gate_proj", "w2": "mlp.down_proj", "w3": "mlp.up_proj",
    }  # fmt: skip
    weights = {"model.embed_tokens.weight": arrays["tok_embeddings"], "model.norm.weight": arrays["norm"]}
    for old, new in names.items():
        for index, value in enumerate(arrays[old]):
            weights[f"model.layers.{index}.{new}.weight"] = value
    if "output" in arrays:
        weights["lm_head.weight"] = arrays["output"]
    return {
        "vocab_size": config["vocab_size"], "hidden_size": config["dim"], "num_hidden_layers": config["n_layers"],
        "num_attention_heads": config["n_heads"], "num_key_value_heads": config["n_kv_heads"],
        "intermediate_size": config["hidden_dim"], "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": config["max_seq_len"],
    }, weights  # fmt: skip


def forward(
    weights: Mapping[str, np.ndarray], config: dict, tokens: np.ndarray, pairs: bool = False
) -> dict[str, np.ndarray]:
    """One text under Hugging Face's names: `hidden` after the last norm and `logits`.

    ``pairs`` says that rotary pairs are neighbouring channels, as in llama2.c's and Meta's own files.
    """
    w = {name: np.asarray(value, "float64") for name, value in weights.items()}
    epsilon, heads = config["rms_norm_eps"], config["num_attention_heads"]
    groups, base = config.get("num_key_value_heads", heads), config.get("rope_theta")
    base = config["rope_parameters"]["rope_theta"] if base is None else base
    turn = turn_pairs if pairs else turn_halves
    x = w["model.embed_tokens.weight"][tokens]
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"

        def dense(part: str, x: np.ndarray, layer: str = layer) -> np.ndarray:
            return x @ w[f"{layer}.{part}.weight"].T

        normed = rms_norm(x, epsilon, w[f"{layer}.input_layernorm.weight"])
        query = turn(split(dense("self_attn.q_proj", normed), heads), base)
        key = turn(split(dense("self_attn.k_proj", normed), groups), base)
        value = split(dense("self_attn.v_proj", normed), groups)
        x = x + dense("self_attn.o_proj", merge(attend(query, key, value, causal=True)))
        normed = rms_norm(x, epsilon, w[f"{layer}.post_attention_layernorm.weight"])
        x = x + dense("mlp.down_proj", silu(dense("mlp.gate_proj", normed)) * dense("mlp.up_proj", normed))
    hidden = rms_norm(x, epsilon, w["model.norm.weight"])
    return {"hidden": hidden, "logits": hidden @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T}


def greedy(weights: Mapping[str, np.ndarray], config: dict, tokens: list[int], new: int, pairs: bool) -> list[int]:
    """The most likely continuation, token by token; it stops before a begin or end token (1, 2)."""
    tokens = list(tokens)
    for _ in range(new):
        best = int(forward(weights, config, np.array(tokens), pairs)["logits"][-1].argmax())
        if best in (1, 2):
            break
        tokens.append(best)
    return tokens


def text(tokens: list[int], vocabulary: list[tuple[float, bytes]]) -> str:
    """The tokens' bytes; a token `<0x0A>` is one byte, and the space that opens a text is dropped."""
    pieces = [vocabulary[token][1] for token in tokens if token > 2]
    pieces = [bytes([int(piece[3:5], 16)]) if piece.startswith(b"<0x") else piece for piece in pieces]
    return b"".join(pieces).decode("utf-8", "replace").removeprefix(" ")
