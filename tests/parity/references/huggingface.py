"""The tensors of Hugging Face's checkpoints: name, kind and shape, as `save_pretrained` of transformers 5 writes them.

Linear weights are (outputs, inputs), those of GPT-2's Conv1D (inputs, outputs). Tensors tied to another are left out.
"""

from __future__ import annotations

from parity.references.tensors import Table, linear, scale


def conv(name: str, inputs: int, outputs: int) -> Table:
    return {f"{name}.weight": ("kernel", (inputs, outputs)), f"{name}.bias": ("bias", (outputs,))}


def embeddings(root: str, config: dict) -> Table:
    size, name = config.get("embedding_size", config["hidden_size"]), f"{root}embeddings"
    table: Table = {
        f"{name}.word_embeddings.weight": ("table", (config["vocab_size"], size)),
        f"{name}.position_embeddings.weight": ("table", (config["max_position_embeddings"], size)),
        f"{name}.token_type_embeddings.weight": ("table", (config["type_vocab_size"], size)),
    }
    return table | scale(f"{name}.LayerNorm", size)


def blocks(root: str, config: dict) -> Table:
    """BERT's blocks."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    table: Table = {}
    for index in range(config["num_hidden_layers"]):
        layer = f"{root}encoder.layer.{index}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            table |= linear(f"{layer}.attention.{part}", hidden, hidden)
        table |= scale(f"{layer}.attention.output.LayerNorm", hidden) | scale(f"{layer}.output.LayerNorm", hidden)
        table |= linear(f"{layer}.intermediate.dense", hidden, inner) | linear(f"{layer}.output.dense", inner, hidden)
    return table


def heads_of_bert(config: dict, root: str, nsp: bool = True) -> Table:
    hidden, size = config["hidden_size"], config.get("embedding_size", config["hidden_size"])
    table = linear(f"{root}pooler.dense", hidden, hidden) | linear("cls.seq_relationship", hidden, 2) if nsp else {}
    table |= linear("cls.predictions.transform.dense", hidden, size)
    table |= scale("cls.predictions.transform.LayerNorm", size)
    return table | {"cls.predictions.bias": ("bias", (config["vocab_size"],))}


def bert(config: dict, heads: bool = True, root: str = "bert.") -> Table:
    """BertForPreTraining, or BertModel, which has a pooler and no prefix; ErnieForPreTraining."""
    root, hidden = root if heads else "", config["hidden_size"]
    table = embeddings(root, config) | blocks(root, config)
    return table | (heads_of_bert(config, root) if heads else linear("pooler.dense", hidden, hidden))


def roformer(config: dict) -> Table:
    """RoFormerForMaskedLM; its sines are computed."""
    table = embeddings("roformer.", config) | blocks("roformer.", config) | heads_of_bert(config, "roformer.", False)
    del table["roformer.embeddings.position_embeddings.weight"]
    size = config["hidden_size"] // config["num_attention_heads"]
    name = "roformer.encoder.embed_positions.weight"
    return table | {name: ("computed", (config["max_position_embeddings"], size))}


def nezha(config: dict) -> Table:
    """NezhaForPreTraining of transformers 4; the table of distances is computed."""
    table = embeddings("nezha.", config) | blocks("nezha.", config) | heads_of_bert(config, "nezha.")
    del table["nezha.embeddings.position_embeddings.weight"]
    return table


def roberta(config: dict, head: bool = True) -> Table:
    """RobertaForMaskedLM, or RobertaModel, which has a pooler and no prefix."""
    hidden, root = config["hidden_size"], "roberta." if head else ""
    table = embeddings(root, config) | blocks(root, config)
    if not head:
        return table | linear("pooler.dense", hidden, hidden)
    table |= linear("lm_head.dense", hidden, hidden) | scale("lm_head.layer_norm", hidden)
    return table | {"lm_head.bias": ("bias", (config["vocab_size"],))}


def albert(config: dict, heads: tuple[str, ...] = ("mlm",)) -> Table:
    """AlbertForMaskedLM; with heads ("pooler", "mlm", "sop") AlbertForPreTraining; with ("pooler",) AlbertModel."""
    hidden, size, inner = config["hidden_size"], config["embedding_size"], config["intermediate_size"]
    root = "" if heads == ("pooler",) else "albert."
    table = embeddings(root, config) | linear(f"{root}encoder.embedding_hidden_mapping_in", size, hidden)
    for group in range(config["num_hidden_groups"]):
        for member in range(config["inner_group_num"]):
            layer = f"{root}encoder.albert_layer_groups.{group}.albert_layers.{member}"
            for part in ("query", "key", "value", "dense"):
                table |= linear(f"{layer}.attention.{part}", hidden, hidden)
            table |= scale(f"{layer}.attention.LayerNorm", hidden) | scale(f"{layer}.full_layer_layer_norm", hidden)
            table |= linear(f"{layer}.ffn", hidden, inner) | linear(f"{layer}.ffn_output", inner, hidden)
    if "pooler" in heads:
        table |= linear(f"{root}pooler", hidden, hidden)
    if "sop" in heads:
        table |= linear("sop_classifier.classifier", hidden, 2)
    if "mlm" in heads:
        table |= linear("predictions.dense", hidden, size) | scale("predictions.LayerNorm", size)
        table["predictions.bias"] = ("bias", (config["vocab_size"],))
    return table


def electra(config: dict, generator: bool = False) -> Table:
    """ElectraForPreTraining (the discriminator), or ElectraForMaskedLM (the generator)."""
    hidden, size = config["hidden_size"], config["embedding_size"]
    table = embeddings("electra.", config) | blocks("electra.", config)
    if size != hidden:
        table |= linear("electra.embeddings_project", size, hidden)
    if generator:
        table |= linear("generator_predictions.dense", hidden, size) | scale("generator_predictions.LayerNorm", size)
        return table | {"generator_lm_head.bias": ("bias", (config["vocab_size"],))}
    table |= linear("discriminator_predictions.dense", hidden, hidden)
    return table | linear("discriminator_predictions.dense_prediction", hidden, 1)


def gpt2(config: dict, root: str = "transformer.") -> Table:
    """GPT2LMHeadModel; without the prefix GPT2Model, which the files of OpenAI's sizes are."""
    hidden = config["n_embd"]
    inner = config.get("n_inner") or 4 * hidden
    table: Table = {
        f"{root}wte.weight": ("table", (config["vocab_size"], hidden)),
        f"{root}wpe.weight": ("table", (config["n_positions"], hidden)),
    }
    for index in range(config["n_layer"]):
        layer = f"{root}h.{index}"
        table |= scale(f"{layer}.ln_1", hidden) | scale(f"{layer}.ln_2", hidden)
        table |= conv(f"{layer}.attn.c_attn", hidden, 3 * hidden) | conv(f"{layer}.attn.c_proj", hidden, hidden)
        table |= conv(f"{layer}.mlp.c_fc", hidden, inner) | conv(f"{layer}.mlp.c_proj", inner, hidden)
    return table | scale(f"{root}ln_f", hidden)


def t5(config: dict, tied: bool = True) -> Table:
    """T5ForConditionalGeneration and MT5ForConditionalGeneration. Scores are not scaled: small queries."""
    hidden, inner, heads = config["d_model"], config["d_ff"], config["num_heads"]
    width, buckets = heads * config["d_kv"], config.get("relative_attention_num_buckets", 32)
    gated = config["feed_forward_proj"].startswith("gated")
    table: Table = {"shared.weight": ("table", (config["vocab_size"], hidden))}
    sides = {
        "encoder": (config["num_layers"], ["SelfAttention"]),
        "decoder": (config.get("num_decoder_layers") or config["num_layers"], ["SelfAttention", "EncDecAttention"]),
    }
    for side, (layers, parts) in sides.items():
        for index in range(layers):
            block = f"{side}.block.{index}.layer"
            for place, part in enumerate(parts):
                table[f"{block}.{place}.{part}.q.weight"] = ("linear", (width, hidden), 0.5)
                table |= linear(f"{block}.{place}.{part}.k", hidden, width, bias=False)
                table |= linear(f"{block}.{place}.{part}.v", hidden, width, bias=False)
                table |= linear(f"{block}.{place}.{part}.o", width, hidden, bias=False)
                table |= scale(f"{block}.{place}.layer_norm", hidden, bias=False)
            if index == 0:
                table[f"{block}.0.SelfAttention.relative_attention_bias.weight"] = ("table", (buckets, heads), 1.5)
            last = f"{block}.{len(parts)}"
            for part in ["wi_0", "wi_1"] if gated else ["wi"]:
                table |= linear(f"{last}.DenseReluDense.{part}", hidden, inner, bias=False)
            table |= linear(f"{last}.DenseReluDense.wo", inner, hidden, bias=False)
            table |= scale(f"{last}.layer_norm", hidden, bias=False)
        table |= scale(f"{side}.final_layer_norm", hidden, bias=False)
    return table if tied else table | linear("lm_head", hidden, config["vocab_size"], bias=False)


def llama(config: dict) -> Table:
    """LlamaForCausalLM."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim", hidden // heads)
    width, narrow = heads * head, config.get("num_key_value_heads", heads) * head
    table: Table = {"model.embed_tokens.weight": ("table", (config["vocab_size"], hidden))}
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        table |= linear(f"{layer}.self_attn.q_proj", hidden, width, bias=False)
        table |= linear(f"{layer}.self_attn.k_proj", hidden, narrow, bias=False)
        table |= linear(f"{layer}.self_attn.v_proj", hidden, narrow, bias=False)
        table |= linear(f"{layer}.self_attn.o_proj", width, hidden, bias=False)
        table |= linear(f"{layer}.mlp.gate_proj", hidden, inner, bias=False)
        table |= linear(f"{layer}.mlp.up_proj", hidden, inner, bias=False)
        table |= linear(f"{layer}.mlp.down_proj", inner, hidden, bias=False)
        table |= scale(f"{layer}.input_layernorm", hidden, bias=False)
        table |= scale(f"{layer}.post_attention_layernorm", hidden, bias=False)
    table |= scale("model.norm", hidden, bias=False)
    if config.get("tie_word_embeddings", False):
        return table
    return table | linear("lm_head", hidden, config["vocab_size"], bias=False)
