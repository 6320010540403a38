"""The tensors of each checkpoint form: name, kind and shape, and how random ones are drawn.

A table maps a name of the file to `(kind, shape)`. Kinds: `table` (embeddings), `kernel` (inputs, outputs), `linear`
(outputs, inputs), `bias`, `gamma`, `computed` (not drawn). Each tensor's stream is seeded by the case and its own name,
so that no order matters, and consists of uniform numbers, whose bits NumPy does not change between versions.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

Table = dict[str, tuple]
Weights = dict[str, np.ndarray]


def draw(table: Table, seed: int) -> Weights:
    """The table's arrays in float32, but for computed ones. Scales are far above 0.02, so that every tensor matters."""
    return {name: _one(name, seed, *entry) for name, entry in table.items() if entry[0] != "computed"}


def _one(name: str, seed: int, kind: str, shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    stream = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    noise = (stream.random(shape) - 0.5) * 12**0.5  # mean 0, standard deviation 1
    if kind in ("kernel", "linear"):
        noise *= 1.3 / (shape[-2] if kind == "kernel" else shape[-1]) ** 0.5
    else:
        noise = {"gamma": 1 + 0.3 * noise, "bias": 0.3 * noise, "table": 0.7 * noise}[kind]
    return (gain * noise).astype("float32")


def checksum(weights: Mapping[str, np.ndarray]) -> int:
    """One number for all names and values, to notice weights that are not those of the golden file."""
    total = 0
    for name in sorted(weights):
        total = zlib.crc32(np.ascontiguousarray(weights[name]).tobytes(), zlib.crc32(name.encode(), total))
    return total


def dense(name: str, inputs: int, outputs: int, bias: bool = True) -> Table:
    """A TensorFlow dense layer."""
    table: Table = {f"{name}/kernel": ("kernel", (inputs, outputs))}
    return table | ({f"{name}/bias": ("bias", (outputs,))} if bias else {})


def norm(name: str, size: int) -> Table:
    """A TensorFlow layer norm."""
    return {f"{name}/beta": ("bias", (size,)), f"{name}/gamma": ("gamma", (size,))}


def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Table:
    """A PyTorch linear layer."""
    table: Table = {f"{name}.weight": ("linear", (outputs, inputs))}
    return table | ({f"{name}.bias": ("bias", (outputs,))} if bias else {})


def scale(name: str, size: int, bias: bool = True) -> Table:
    """A PyTorch layer norm, or RMS norm without a bias."""
    table: Table = {f"{name}.weight": ("gamma", (size,))}
    return table | ({f"{name}.bias": ("bias", (size,))} if bias else {})


def google_block(layer: str, config: dict, bias: bool = True) -> Table:
    """A block under the names of Google's BERT; without biases and norms it is RoFormerV2's."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("attention_head_size", hidden // heads)
    key = config.get("attention_key_size", head)
    table = dense(f"{layer}/attention/self/query", hidden, heads * key, bias)
    table |= dense(f"{layer}/attention/self/key", hidden, heads * key, bias)
    table |= dense(f"{layer}/attention/self/value", hidden, heads * head, bias)
    table |= dense(f"{layer}/attention/output/dense", heads * head, hidden, bias)
    table |= dense(f"{layer}/intermediate/dense", hidden, config["intermediate_size"], bias)
    table |= dense(f"{layer}/output/dense", config["intermediate_size"], hidden, bias)
    if bias:
        table |= norm(f"{layer}/attention/output/LayerNorm", hidden) | norm(f"{layer}/output/LayerNorm", hidden)
    return table


def google_embeddings(config: dict, root: str = "bert", normed: bool = True, position: bool = True) -> Table:
    size, name = config.get("embedding_size", config["hidden_size"]), f"{root}/embeddings"
    table: Table = {f"{name}/word_embeddings": ("table", (config["vocab_size"], size))}
    if config.get("type_vocab_size", 2) and not config.get("shared_segment_embeddings"):
        table[f"{name}/token_type_embeddings"] = ("table", (config.get("type_vocab_size", 2), size))
    if position:
        table[f"{name}/position_embeddings"] = ("table", (config["max_position_embeddings"], size))
    return table | (norm(f"{name}/LayerNorm", size) if normed else {})


def google_heads(config: dict, nsp: bool = True) -> Table:
    hidden, size = config["hidden_size"], config.get("embedding_size", config["hidden_size"])
    table = dense("bert/pooler/dense", hidden, hidden)
    if nsp:  # stored (classes, hidden)
        table |= {"cls/seq_relationship/output_weights": ("linear", (2, hidden))}
        table |= {"cls/seq_relationship/output_bias": ("bias", (2,))}
    table |= dense("cls/predictions/transform/dense", hidden, size) | norm("cls/predictions/transform/LayerNorm", size)
    return table | {"cls/predictions/output_bias": ("bias", (config["vocab_size"],))}


def google_bert(config: dict, position: bool = True, nsp: bool = True) -> Table:
    """BERT as Google released it; NEZHA and RoFormer without positions."""
    table = google_embeddings(config, position=position) | google_heads(config, nsp)
    if config.get("embedding_size", config["hidden_size"]) != config["hidden_size"]:
        table |= dense("bert/encoder/embedding_hidden_mapping_in", config["embedding_size"], config["hidden_size"])
    for index in range(config["num_hidden_layers"]):
        table |= google_block(f"bert/encoder/layer_{index}", config)
    return table


def google_albert(config: dict) -> Table:
    """ALBERT as Google released it, with all its groups."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    table = google_embeddings(config) | google_heads(config)
    table |= dense("bert/encoder/embedding_hidden_mapping_in", config["embedding_size"], hidden)
    for group in range(config.get("num_hidden_groups", 1)):
        for member in range(config.get("inner_group_num", 1)):
            layer = f"bert/encoder/transformer/group_{group}/inner_group_{member}"
            for part in ("self/query", "self/key", "self/value", "output/dense"):
                table |= dense(f"{layer}/attention_1/{part}", hidden, hidden)
            table |= dense(f"{layer}/ffn_1/intermediate/dense", hidden, inner)
            table |= dense(f"{layer}/ffn_1/intermediate/output/dense", inner, hidden)
            table |= norm(f"{layer}/LayerNorm", hidden) | norm(f"{layer}/LayerNorm_1", hidden)
    return table


def brightmart_albert(config: dict) -> Table:
    """The first Chinese ALBERT: one block, and a projection of the words alone, without a bias."""
    hidden, size, name = config["hidden_size"], config["embedding_size"], "bert/embeddings"
    wide = {**config, "embedding_size": hidden}
    table = google_embeddings(wide) | google_heads(wide) | google_block("bert/encoder/layer_shared", config)
    table[f"{name}/word_embeddings"] = ("table", (config["vocab_size"], size))
    return table | {f"{name}/word_embeddings_2": ("kernel", (size, hidden))}


def google_electra(config: dict, generator: bool = False) -> Table:
    """ELECTRA as Google released it: the discriminator, or the generator with the embeddings that they share."""
    hidden, size = config["hidden_size"], config["embedding_size"]
    root = "generator" if generator else "electra"
    table = google_embeddings(config, root="electra")
    if size != hidden:
        table |= dense(f"{root}/embeddings_project", size, hidden)
    for index in range(config["num_hidden_layers"]):
        table |= google_block(f"{root}/encoder/layer_{index}", config)
    if generator:
        table |= dense("generator_predictions/dense", hidden, size) | norm("generator_predictions/LayerNorm", size)
        return table | {"generator_predictions/output_bias": ("bias", (config["vocab_size"],))}
    table |= dense("discriminator_predictions/dense", hidden, hidden)
    return table | dense("discriminator_predictions/dense_1", hidden, 1)


def roformer_v2(config: dict) -> Table:
    """Kernels and tables only."""
    table = google_embeddings(config, normed=False, position=False)
    for index in range(config["num_hidden_layers"]):
        table |= google_block(f"bert/encoder/layer_{index}", config, bias=False)
    return table


def gau_alpha(config: dict) -> Table:
    hidden, units, key = config["hidden_size"], config["intermediate_size"], config["attention_key_size"]
    table = google_embeddings(config, normed=False, position=False)
    for index in range(config["num_hidden_layers"]):
        layer = f"GAU_alpha/encoder/layer_{index}/gau"
        table |= dense(f"{layer}/i_dense", hidden, 2 * units + key, bias=False)
        table |= {f"{layer}/q_scaleoffset/gamma": ("gamma", (key,), 2.0)}
        table |= {f"{layer}/k_scaleoffset/gamma": ("gamma", (key,), 2.0)}
        table |= dense(f"{layer}/o_dense", units, hidden, bias=False)
    return table


def converted_gpt(config: dict) -> Table:
    """GPT under the names that bert4keras' converters write (CDial-GPT): no norm after the embeddings, no head."""
    table = google_embeddings(config, root="gpt", normed=False)
    for index in range(config["num_hidden_layers"]):
        table |= google_block(f"gpt/transformer/layer_{index}", config)
    return table


def converted_gpt2(config: dict) -> Table:
    """GPT-2 under the names that bert4keras' converters write (CPM): norms before, one more at the end."""
    table = google_embeddings({**config, "type_vocab_size": 0}, root="gpt", normed=False)
    for index in range(config["num_hidden_layers"]):
        block = google_block(f"gpt/transformer/layer_{index}", config)
        table |= {name.replace("output/LayerNorm", "input/LayerNorm"): entry for name, entry in block.items()}
    return table | norm("gpt/output/LayerNorm", config["hidden_size"])


def gpt2_ml(config: dict) -> Table:
    hidden, inner, name = config["hidden_size"], config["intermediate_size"], "newslm/embeddings"
    table: Table = {
        f"{name}/word_embed": ("table", (config["vocab_size"], hidden)),
        f"{name}/pos_embed": ("table", (config["max_position_embeddings"], hidden)),
    }
    table |= norm(f"{name}/LayerNorm_embed_norm", hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"newslm/layer{index:02d}"
        for part in ("query_layer", "key_layer", "value_layer", "context_projection_layer"):
            table |= dense(f"{layer}/{part}", hidden, hidden)
        table |= norm(f"{layer}/LayerNorm_mlp_ln0", hidden) | norm(f"{layer}/LayerNorm_mlp_ln1", hidden)
        table |= dense(f"{layer}/intermediate", hidden, inner) | dense(f"{layer}/output", inner, hidden)
    return table


def mesh_t5(config: dict, version: str) -> Table:
    """T5 as Mesh TensorFlow writes it. Versions: t5.1.0, t5.1.1, mt5.1.1. Scores are not scaled: small queries."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    width = heads * config["attention_head_size"]
    word = "rms_norm" if version == "mt5.1.1" else "layer_norm"
    table: Table = {"shared/embedding": ("table", (config["vocab_size"], hidden))}
    for side, parts in (("encoder", ["SelfAttention"]), ("decoder", ["SelfAttention", "EncDecAttention"])):
        for index in range(config["num_hidden_layers"]):
            block = f"{side}/block_{index:03d}"
            for place, part in enumerate(parts):
                layer = f"{block}/layer_{place:03d}"
                table[f"{layer}/{part}/q"] = ("kernel", (hidden, width), 0.5)
                table[f"{layer}/{part}/k"] = table[f"{layer}/{part}/v"] = ("kernel", (hidden, width))
                table[f"{layer}/{part}/o"] = ("kernel", (width, hidden))
                table[f"{layer}/{word}/scale"] = ("gamma", (hidden,))
            if index == 0:  # stored (heads, buckets)
                table[f"{block}/layer_000/SelfAttention/relative_attention_bias"] = ("table", (heads, 32), 1.5)
            layer = f"{block}/layer_{len(parts):03d}"
            for part in ["wi"] if version == "t5.1.0" else ["wi_0", "wi_1"]:
                table |= dense(f"{layer}/DenseReluDense/{part}", hidden, inner, bias=False)
            table |= dense(f"{layer}/DenseReluDense/wo", inner, hidden, bias=False)
            table[f"{layer}/{word}/scale"] = ("gamma", (hidden,))
        table[f"{side}/{'rms_norm' if version == 'mt5.1.1' else 'final_layer_norm'}/scale"] = ("gamma", (hidden,))
    if version != "t5.1.0":
        table["decoder/logits/kernel"] = ("kernel", (hidden, config["vocab_size"]), 3.0)
    return table


def conditional(table: Table, condition: int) -> Table:
    """The kernels that a condition vector adds to each norm. No checkpoint has them: the names are ours."""
    extra: Table = {}
    for name, (kind, shape, *_) in table.items():
        if kind == "gamma":
            place = name.removesuffix("/gamma")
            for part in ("beta_dense", "gamma_dense"):
                extra[f"{place}/{part}/kernel"] = ("kernel", (condition, shape[0]), 0.4)
    return table | extra
