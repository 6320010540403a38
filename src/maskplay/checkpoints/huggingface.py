"""The dialect of Hugging Face transformers: linear weights are stored (out, in), layer norms as weight and bias.

Read with or without the model's prefix (`bert.`), with the legacy names gamma and beta, and with or without the tied
copies of the token table.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from maskplay.checkpoints.dialect import Table, write_config
from maskplay.checkpoints.tensors import LazyTensor, Tensors
from maskplay.config import TABLES as POSITION_TABLES
from maskplay.config import Config
from maskplay.errors import CheckpointError


def _linear(ours: str, theirs: str, bias: bool = True) -> dict[str, str]:
    names = {f"{ours}/kernel": f"{theirs}.weight | transpose"}
    return names | ({f"{ours}/bias": f"{theirs}.bias"} if bias else {})


def _norm(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/gamma": f"{theirs}.weight", f"{ours}/beta": f"{theirs}.bias"}


def _canonical(name: str) -> str:
    return re.sub(r"(?i)(layer_?norm)\.gamma$", r"\1.weight", re.sub(r"(?i)(layer_?norm)\.beta$", r"\1.bias", name))


def _embedding(prefix: str, position: bool = True) -> dict[str, str]:
    names = {
        "encoder/embedding/token/embeddings": f"{prefix}embeddings.word_embeddings.weight",
        "encoder/embedding/segment/embeddings": f"{prefix}embeddings.token_type_embeddings.weight",
        **_norm("encoder/embedding/norm", f"{prefix}embeddings.LayerNorm"),
    }
    if position:
        names["encoder/embedding/position/embeddings"] = f"{prefix}embeddings.position_embeddings.weight"
    return names


def _bert(prefix: str, position: bool = True) -> dict[str, str]:
    ours, layer = "encoder/block_{i}", f"{prefix}encoder.layer.{{i}}"
    names = _embedding(prefix, position)
    for part in ("query", "key", "value"):
        names |= _linear(f"{ours}/attention/{part}", f"{layer}.attention.self.{part}")
    names |= _linear(f"{ours}/attention/output", f"{layer}.attention.output.dense")
    names |= _linear(f"{ours}/feed/inner", f"{layer}.intermediate.dense")
    names |= _linear(f"{ours}/feed/outer", f"{layer}.output.dense")
    names |= _norm(f"{ours}/attention_norm", f"{layer}.attention.output.LayerNorm")
    return names | _norm(f"{ours}/feed_norm", f"{layer}.output.LayerNorm")


def _heads(prefix: str) -> dict[str, str]:
    return {
        **_linear("pooler/dense", f"{prefix}pooler.dense"),
        **_linear("nsp/dense", "cls.seq_relationship"),
        **_linear("mlm/transform", "cls.predictions.transform.dense"),
        **_norm("mlm/norm", "cls.predictions.transform.LayerNorm"),
        "mlm/bias": "cls.predictions.bias",
    }


def _copies(prefix: str, head: str, bias: str) -> dict[str, str]:
    return {f"{head}.weight": f"{prefix}embeddings.word_embeddings.weight", f"{head}.bias": bias}


def _albert() -> dict[str, str]:
    ours, layer = "encoder/block_{i}", "albert.encoder.albert_layer_groups.{i}.albert_layers.0"
    names = _embedding("albert.")
    names |= _linear("encoder/embedding/projection", "albert.encoder.embedding_hidden_mapping_in")
    for part, name in (("query", "query"), ("key", "key"), ("value", "value"), ("output", "dense")):
        names |= _linear(f"{ours}/attention/{part}", f"{layer}.attention.{name}")
    names |= _norm(f"{ours}/attention_norm", f"{layer}.attention.LayerNorm")
    names |= _linear(f"{ours}/feed/inner", f"{layer}.ffn") | _linear(f"{ours}/feed/outer", f"{layer}.ffn_output")
    names |= _norm(f"{ours}/feed_norm", f"{layer}.full_layer_layer_norm")
    names |= _linear("pooler/dense", "albert.pooler") | _linear("nsp/dense", "sop_classifier.classifier")
    names |= _linear("mlm/transform", "predictions.dense") | _norm("mlm/norm", "predictions.LayerNorm")
    return names | {"mlm/bias": "predictions.bias"}


def _electra(generator: bool) -> dict[str, str]:
    names = _bert("electra.") | _linear("encoder/embedding/projection", "electra.embeddings_project")
    if not generator:
        names |= _linear("rtd/transform", "discriminator_predictions.dense")
        return names | _linear("rtd/output", "discriminator_predictions.dense_prediction")
    names |= _linear("mlm/transform", "generator_predictions.dense")
    names |= _norm("mlm/norm", "generator_predictions.LayerNorm")
    return names | {"mlm/bias": "generator_lm_head.bias"}


def _gpt2() -> dict[str, str]:
    ours, theirs = "encoder/block_{i}", "transformer.h.{i}"
    names = {
        "encoder/embedding/token/embeddings": "transformer.wte.weight",
        "encoder/embedding/position/embeddings": "transformer.wpe.weight",
        **_norm(f"{ours}/attention_norm", f"{theirs}.ln_1"),
        **_norm(f"{ours}/feed_norm", f"{theirs}.ln_2"),
        **_norm("encoder/final_norm", "transformer.ln_f"),
    }
    for i, part in enumerate(("query", "key", "value"), 1):
        names[f"{ours}/attention/{part}/kernel"] = f"{theirs}.attn.c_attn.weight | part {i}/3"
        names[f"{ours}/attention/{part}/bias"] = f"{theirs}.attn.c_attn.bias | part {i}/3"
    for part, name in (("attention/output", "attn.c_proj"), ("feed/inner", "mlp.c_fc"), ("feed/outer", "mlp.c_proj")):
        names |= {f"{ours}/{part}/kernel": f"{theirs}.{name}.weight", f"{ours}/{part}/bias": f"{theirs}.{name}.bias"}
    return names


def _llama() -> dict[str, str]:
    ours, theirs = "encoder/block_{i}", "model.layers.{i}"
    names = {
        "encoder/embedding/token/embeddings": "model.embed_tokens.weight",
        f"{ours}/attention_norm/gamma": f"{theirs}.input_layernorm.weight",
        f"{ours}/feed_norm/gamma": f"{theirs}.post_attention_layernorm.weight",
        "encoder/final_norm/gamma": "model.norm.weight",
        "lm/output/kernel": "lm_head.weight | transpose",
    }
    for part, name in (
        ("attention/query", "self_attn.q_proj"),
        ("attention/key", "self_attn.k_proj"),
        ("attention/value", "self_attn.v_proj"),
        ("attention/output", "self_attn.o_proj"),
        ("feed/gate", "mlp.gate_proj"),
        ("feed/inner", "mlp.up_proj"),
        ("feed/outer", "mlp.down_proj"),
    ):
        names |= _linear(f"{ours}/{part}", f"{theirs}.{name}", bias=False)
    return names


def _t5(gated: bool, own_scores: bool) -> dict[str, str]:
    names = {"encoder/embedding/token/embeddings": "shared.weight"}
    for side, parts in (
        ("encoder", {"attention": "SelfAttention"}),
        ("decoder", {"attention": "SelfAttention", "cross": "EncDecAttention"}),
    ):
        ours, theirs = f"{side}/block_{{i}}", f"{side}.block.{{i}}.layer"
        names[f"{side}/relative/embeddings"] = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        for place, (part, name) in enumerate(parts.items()):
            for ours_part in ("query", "key", "value", "output"):
                names |= _linear(f"{ours}/{part}/{ours_part}", f"{theirs}.{place}.{name}.{ours_part[0]}", bias=False)
            names[f"{ours}/{part}_norm/gamma"] = f"{theirs}.{place}.layer_norm.weight"
        feed = f"{theirs}.{len(parts)}"
        for part, name in {"gate": "wi_0", "inner": "wi_1"}.items() if gated else {"inner": "wi"}.items():
            names |= _linear(f"{ours}/feed/{part}", f"{feed}.DenseReluDense.{name}", bias=False)
        names |= _linear(f"{ours}/feed/outer", f"{feed}.DenseReluDense.wo", bias=False)
        names[f"{ours}/feed_norm/gamma"] = f"{feed}.layer_norm.weight"
        names[f"{side}/final_norm/gamma"] = f"{side}.final_layer_norm.weight"
    return names | ({"lm/output/kernel": "lm_head.weight | transpose"} if own_scores else {})


_TOKENS = "embeddings.word_embeddings.weight"
_CLS = {prefix: _copies(prefix, "cls.predictions.decoder", "cls.predictions.bias") for prefix in
        ("bert.", "roformer.", "nezha.", "ernie.")}  # fmt: skip
_T5_TIED = {name: "shared.weight" for name in
            ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")}  # fmt: skip
# What early T5 checkpoints hold beside: transformers reads it no more.
_T5_EMPTY = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"


def _said(*types: str | None) -> Callable[[Mapping[str, Any]], bool]:
    return lambda config: config.get("model_type") in types


TABLES = (
    Table("roformer", "huggingface", _bert("roformer.", position=False) | _heads("roformer.")
          | _linear("encoder/embedding/projection", "roformer.embeddings_project"),
          sign=rf"(roformer\.)?{_TOKENS}", without=r"position_embeddings", prefix="roformer.", canonical=_canonical,
          copies=_CLS["roformer."], empty=r".*(position_ids|\.embed_positions\.weight)",
          stated=lambda config: _said("roformer", None)(config) and "max_relative_position" not in config),
    Table("nezha", "huggingface", _bert("nezha.", position=False) | _heads("nezha."),
          sign=rf"(nezha\.|bert\.)?{_TOKENS}", without=r"position_embeddings", prefix="nezha.",
          canonical=lambda name: re.sub(r"^bert\.", "nezha.", _canonical(name)),
          copies=_CLS["nezha."], empty=r".*(position_ids|relative_positions_encoding.*)",
          stated=lambda config: config.get("model_type") == "nezha" or "max_relative_position" in config),
    Table("bert", "huggingface", _bert("bert.") | _heads("bert."), sign=rf"bert\.{_TOKENS}", prefix="bert.",
          canonical=_canonical, copies=_CLS["bert."], stated=_said("bert", "labse", "simbert", "wobert", None)),
    Table("ernie", "huggingface", _bert("ernie.") | _heads("ernie."), sign=rf"ernie\.{_TOKENS}", prefix="ernie.",
          canonical=_canonical, copies=_CLS["ernie."], stated=_said("ernie")),
    Table("roberta", "huggingface", _bert("roberta.") | _linear("pooler/dense", "roberta.pooler.dense")
          | _linear("mlm/transform", "lm_head.dense") | _norm("mlm/norm", "lm_head.layer_norm")
          | {"mlm/bias": "lm_head.bias"},
          sign=rf"roberta\.{_TOKENS}", prefix="roberta.", canonical=_canonical,
          copies=_copies("roberta.", "lm_head.decoder", "lm_head.bias"), stated=_said("roberta", "xlm-roberta", None)),
    Table("albert", "huggingface", _albert(), sign=r"albert\.encoder\.albert_layer_groups\..*", prefix="albert.",
          canonical=_canonical, copies=_copies("albert.", "predictions.decoder", "predictions.bias")),
    Table("electra_generator", "huggingface", _electra(True), sign=r"generator_predictions\..*", prefix="electra.",
          canonical=_canonical, copies=_copies("electra.", "generator_lm_head", "generator_lm_head.bias")),
    Table("electra", "huggingface", _electra(False), sign=rf"electra\.{_TOKENS}", prefix="electra.",
          canonical=_canonical, stated=_said("electra", None)),
    Table("gpt2", "huggingface", _gpt2(), sign=r"transformer\.wte\.weight", prefix="transformer.",
          copies={"lm_head.weight": "transformer.wte.weight"}, empty=r"transformer\.h\.\d+\.attn\.(bias|masked_bias)"),
    Table("llama", "huggingface", _llama(), sign=r"model\.embed_tokens\.weight", prefix="model.",
          copies={"lm_head.weight": "model.embed_tokens.weight"}, empty=r".*rotary_emb\.inv_freq"),
    Table("mt5", "huggingface", _t5(True, True), sign=r"encoder\.block\.0\.layer\.1\.DenseReluDense\.wi_0\.weight",
          copies=_T5_TIED, empty=_T5_EMPTY, stated=_said("mt5")),
    Table("t5_1_1", "huggingface", _t5(True, True), sign=r"encoder\.block\.0\.layer\.1\.DenseReluDense\.wi_0\.weight",
          copies=_T5_TIED, empty=_T5_EMPTY, stated=_said("t5", "t5_1_1", None)),
    Table("t5", "huggingface", _t5(False, False), sign=r"encoder\.block\.0\.layer\.1\.DenseReluDense\.wi\.weight",
          copies=_T5_TIED, empty=_T5_EMPTY),
)  # fmt: skip


def with_task_types(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """ERNIE's task types as part of its segments: where a call names no task, transformers takes the first."""
    entries = tensors.entries()
    task = next((name for name in entries if name.endswith("embeddings.task_type_embeddings.weight")), "")
    segments = task.replace("task_type_embeddings", "token_type_embeddings")
    if not config.get("use_task_id") or not task or segments not in entries:
        return tensors
    types, rows = entries.pop(task), entries[segments]
    if len(types.shape) != 2 or not types.shape[0] or types.shape[1:] != rows.shape[1:]:
        return tensors  # refused as what no weight takes

    def read() -> np.ndarray:
        return np.asarray(rows.read(), "float32") + np.asarray(types.read()[0], "float32")

    entries[segments] = LazyTensor(rows.shape, np.dtype("float32"), read)
    skipped = {**tensors.skipped, task: "its first row is added to the segments'"}
    return Tensors(tensors.path, tensors.container, entries, skipped, tensors.config, tensors.stored)


# The class that transformers has for a family and the heads of a network.
_BERT_CLASSES: dict[tuple[str, ...], str] = {
    ("pooler", "nsp", "mlm"): "ForPreTraining", ("pooler", "nsp"): "ForNextSentencePrediction",
    ("pooler", "mlm"): "ForMaskedLM", ("mlm",): "ForMaskedLM", ("pooler",): "Model", (): "Model",
}  # fmt: skip
_ARCHITECTURES: dict[str, tuple[str, dict[tuple[str, ...], str]]] = {
    "bert": ("Bert", _BERT_CLASSES),
    "ernie": ("Ernie", _BERT_CLASSES),
    "roformer": ("RoFormer", {("mlm",): "ForMaskedLM", (): "Model"}),
    "roberta": ("Roberta", {
        ("pooler", "mlm"): "ForMaskedLM", ("mlm",): "ForMaskedLM", ("pooler",): "Model", (): "Model",
    }),
    "albert": ("Albert", {
        ("pooler", "nsp", "mlm"): "ForPreTraining", ("mlm",): "ForMaskedLM", ("pooler", "mlm"): "ForMaskedLM",
        ("pooler",): "Model", (): "Model",
    }),
    "electra": ("Electra", {("rtd",): "ForPreTraining", (): "Model"}),
    "electra_generator": ("Electra", {("mlm",): "ForMaskedLM"}),
    "gpt2": ("GPT2", {("lm",): "LMHeadModel"}),
    "llama": ("Llama", {("lm",): "ForCausalLM"}),
    "t5": ("T5", {("lm",): "ForConditionalGeneration"}),
    "t5_1_1": ("T5", {("lm",): "ForConditionalGeneration"}),
    "mt5": ("MT5", {("lm",): "ForConditionalGeneration"}),
}  # fmt: skip


def config_file(config: Config, family: str, heads: Iterable[str]) -> dict[str, Any]:
    """The content of `config.json`.

    Raises:
        CheckpointError: transformers' model of this family has no such part.
    """
    heads = tuple(heads)
    if family not in _ARCHITECTURES:
        raise CheckpointError(f"transformers has no family {family}; save as maskplay")
    stem, known = _ARCHITECTURES[family]
    if heads not in known:
        raise CheckpointError(
            f"transformers' {family} has no model with the heads {', '.join(heads) or 'none'}: "
            "load with heads=… of what it has, or save as maskplay"
        )
    _check(config, family)
    if "mlm" in heads and not scores_alike(config, family):
        raise CheckpointError(f"transformers' {family} scores through gelu, not {config.activation}; save as maskplay")
    if family == "mt5" and config.scores.endswith("_scaled"):
        raise CheckpointError("transformers' mt5 never scales what it scores; save as maskplay")
    values = write_config(config, family)
    values.pop("hidden_act_form", None)
    act = {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation)
    if stem == "GPT2":
        values["activation_function"] = act
        del values["hidden_act"]
        values |= {"embd_pdrop": config.dropout, "n_ctx": config.max_positions}
    elif stem in ("T5", "MT5"):
        gated = config.activation.startswith("gated_")
        plain = config.activation.removeprefix("gated_")
        values["feed_forward_proj"] = f"gated-{'gelu' if plain == 'gelu_tanh' else plain}" if gated else act
        values |= {"d_kv": config.size_per_head, "is_encoder_decoder": True, "decoder_start_token_id": config.pad_id}
        values |= {"eos_token_id": 1, "relative_attention_max_distance": config.max_positions}
        for key in ("hidden_act", "attention_probs_dropout_prob", "initializer_factor"):
            values.pop(key, None)
    elif stem == "Llama":
        plain = config.activation.removeprefix("gated_")
        values["hidden_act"] = "gelu_new" if plain == "gelu_tanh" else plain
        values |= {"num_key_value_heads": config.num_kv_heads or config.num_heads, "head_dim": config.size_per_head}
        values |= {"rope_theta": config.rotary_base, "max_position_embeddings": config.max_positions}
        values.pop("hidden_dropout_prob", None)
        if config.dropout != config.attention_dropout:
            values["attention_dropout"] = config.attention_dropout
    else:
        values["hidden_act"] = act
    if family == "roformer":
        values |= {"embedding_size": config.size_of_embedding, "rotary_value": False}
    elif stem == "Electra":
        values |= {"embedding_size": config.size_of_embedding, "model_type": "electra"}
    return {"architectures": [stem + known[heads]], **values}


def scores_alike(config: Config, family: str) -> bool:
    """Whether transformers' masked-token head of the family computes what ours does: two families fix its GELU."""
    return family not in ("roberta", "electra_generator") or config.activation == "gelu"


def _check(config: Config, family: str) -> None:
    """Refuse what transformers' class of the family does not compute."""
    free = {"t5", "t5_1_1", "mt5", "llama"}
    if family not in free and config.head_size not in (None, config.hidden_size // config.num_heads):
        raise CheckpointError(
            f"transformers' {family} has no head size of its own ({config.head_size}); save as maskplay"
        )
    factorised = {"albert", "electra", "electra_generator", "roformer"}
    if family not in factorised and config.size_of_embedding != config.hidden_size:
        raise CheckpointError(f"transformers' {family} has no factorised embedding; save as google or maskplay")
    if family in ("bert", "ernie", "roformer", "roberta", "albert") and not config.num_segments:
        raise CheckpointError(f"transformers' {family} needs segments, this model has none; save as google or maskplay")
    for name, plain in (
        ("key_size", (None, config.size_per_head)),
        ("attention", ("softmax",)),
        ("condition_size", (None,)),
        ("pooler_activation", ("tanh",)),
        ("position", (*POSITION_TABLES, "buckets", "rotary" if family == "roformer" else "rotary_halves")),
    ):
        if getattr(config, name) not in plain:
            raise CheckpointError(f"transformers' {family} has no {name} {getattr(config, name)!r}; save as maskplay")
    if family == "roformer" and config.rotary_base != 10000.0:
        raise CheckpointError("transformers' roformer has no rotary_base of its own; save as maskplay")


def rotary_table(config: Config) -> np.ndarray:
    """The sines and cosines that transformers keeps among RoFormer's weights, `(max_positions, head size)` float32."""
    size = config.size_per_head
    angles = np.arange(config.max_positions)[:, None] / 10000.0 ** (np.arange(0, size, 2) / size)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype("float32")
