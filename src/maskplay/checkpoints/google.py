"""The TensorFlow dialects: the variable names of the original BERT code, which bert4keras and most Chinese checkpoints
keep, and those of the families that were released in TensorFlow by others (OpenAI, GPT2-ML, Mesh TensorFlow).

Kernels are stored (in, out) like ours.
"""

from typing import Any

from maskplay.checkpoints.dialect import Table


def _dense(ours: str, theirs: str, bias: bool = True) -> dict[str, str]:
    return {f"{ours}/{part}": f"{theirs}/{part}" for part in (("kernel", "bias") if bias else ("kernel",))}


def _norm(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/{part}": f"{theirs}/{part}" for part in ("gamma", "beta")}


def _embedding(root: str, position: bool = True, normed: bool = True, segment: bool = True) -> dict[str, str]:
    names = {"encoder/embedding/token/embeddings": f"{root}/embeddings/word_embeddings"}
    if segment:
        names["encoder/embedding/segment/embeddings"] = f"{root}/embeddings/token_type_embeddings"
    if position:
        names["encoder/embedding/position/embeddings"] = f"{root}/embeddings/position_embeddings"
    return names | (_norm("encoder/embedding/norm", f"{root}/embeddings/LayerNorm") if normed else {})


def _block(layer: str, bias: bool = True, normed: bool = True) -> dict[str, str]:
    ours = "encoder/block_{i}"
    names: dict[str, str] = {}
    for part in ("query", "key", "value"):
        names |= _dense(f"{ours}/attention/{part}", f"{layer}/attention/self/{part}", bias)
    names |= _dense(f"{ours}/attention/output", f"{layer}/attention/output/dense", bias)
    names |= _dense(f"{ours}/feed/inner", f"{layer}/intermediate/dense", bias)
    names |= _dense(f"{ours}/feed/outer", f"{layer}/output/dense", bias)
    if normed:
        names |= _norm(f"{ours}/attention_norm", f"{layer}/attention/output/LayerNorm")
        names |= _norm(f"{ours}/feed_norm", f"{layer}/output/LayerNorm")
    return names


_PROJECTION = _dense("encoder/embedding/projection", "bert/encoder/embedding_hidden_mapping_in")
_HEADS = {
    **_dense("pooler/dense", "bert/pooler/dense"),
    "nsp/dense/kernel": "cls/seq_relationship/output_weights | transpose",
    "nsp/dense/bias": "cls/seq_relationship/output_bias",
    **_dense("mlm/transform", "cls/predictions/transform/dense"),
    **_norm("mlm/norm", "cls/predictions/transform/LayerNorm"),
    "mlm/bias": "cls/predictions/output_bias",
}
_LAYER = "bert/encoder/layer_{i}"
_BERT = _embedding("bert") | _PROJECTION | _block(_LAYER) | _HEADS
_PLACELESS = {ours: theirs for ours, theirs in _BERT.items() if "/position/" not in ours}
_BARE = _embedding("bert", position=False, normed=False)
_GAU = "GAU_alpha/encoder/layer_{i}/gau"


def _albert() -> dict[str, str]:
    layer, ours = "bert/encoder/transformer/group_{i}/inner_group_0", "encoder/block_{i}"
    names = _embedding("bert") | _PROJECTION | _HEADS
    for part in ("query", "key", "value"):
        names |= _dense(f"{ours}/attention/{part}", f"{layer}/attention_1/self/{part}")
    names |= _dense(f"{ours}/attention/output", f"{layer}/attention_1/output/dense")
    names |= _dense(f"{ours}/feed/inner", f"{layer}/ffn_1/intermediate/dense")
    names |= _dense(f"{ours}/feed/outer", f"{layer}/ffn_1/intermediate/output/dense")
    names |= _norm(f"{ours}/attention_norm", f"{layer}/LayerNorm")
    return names | _norm(f"{ours}/feed_norm", f"{layer}/LayerNorm_1")


def _electra(root: str) -> dict[str, str]:
    names = _embedding("electra") | _block(f"{root}/encoder/layer_{{i}}")
    names |= _dense("encoder/embedding/projection", f"{root}/embeddings_project")
    if root == "electra":
        names |= _dense("rtd/transform", "discriminator_predictions/dense")
        return names | _dense("rtd/output", "discriminator_predictions/dense_1")
    names |= _dense("mlm/transform", "generator_predictions/dense")
    names |= _norm("mlm/norm", "generator_predictions/LayerNorm")
    return names | {"mlm/bias": "generator_predictions/output_bias"}


def _gpt2_converted() -> dict[str, str]:
    names = _embedding("gpt", segment=False, normed=False)
    names |= {
        ours: theirs.replace("output/LayerNorm", "input/LayerNorm")
        for ours, theirs in _block("gpt/transformer/layer_{i}").items()
    }
    return names | _norm("encoder/final_norm", "gpt/output/LayerNorm")


def _gpt2_openai() -> dict[str, str]:
    ours, theirs = "encoder/block_{i}", "model/h{i}"
    names = {"encoder/embedding/token/embeddings": "model/wte", "encoder/embedding/position/embeddings": "model/wpe"}
    for i, part in enumerate(("query", "key", "value"), 1):
        names[f"{ours}/attention/{part}/kernel"] = f"{theirs}/attn/c_attn/w | squeeze | part {i}/3"
        names[f"{ours}/attention/{part}/bias"] = f"{theirs}/attn/c_attn/b | part {i}/3"
    for part, name in (("attention/output", "attn/c_proj"), ("feed/inner", "mlp/c_fc"), ("feed/outer", "mlp/c_proj")):
        names[f"{ours}/{part}/kernel"] = f"{theirs}/{name}/w | squeeze"
        names[f"{ours}/{part}/bias"] = f"{theirs}/{name}/b"
    for norm, name in (
        (f"{ours}/attention_norm", f"{theirs}/ln_1"),
        (f"{ours}/feed_norm", f"{theirs}/ln_2"),
        ("encoder/final_norm", "model/ln_f"),
    ):
        names |= {f"{norm}/gamma": f"{name}/g", f"{norm}/beta": f"{name}/b"}
    return names


def _gpt2_ml() -> dict[str, str]:
    ours, layer = "encoder/block_{i}", "newslm/layer{i:02d}"
    names = {
        "encoder/embedding/token/embeddings": "newslm/embeddings/word_embed",
        "encoder/embedding/position/embeddings": "newslm/embeddings/pos_embed",
        **_norm("encoder/embedding/norm", "newslm/embeddings/LayerNorm_embed_norm"),
        **_dense(f"{ours}/attention/output", f"{layer}/context_projection_layer"),
        **_dense(f"{ours}/feed/inner", f"{layer}/intermediate"),
        **_dense(f"{ours}/feed/outer", f"{layer}/output"),
        **_norm(f"{ours}/attention_norm", f"{layer}/LayerNorm_mlp_ln0"),
        **_norm(f"{ours}/feed_norm", f"{layer}/LayerNorm_mlp_ln1"),
    }
    for part in ("query", "key", "value"):
        names |= _dense(f"{ours}/attention/{part}", f"{layer}/{part}_layer")
    return names


def _t5(gated: bool, norm: str, final: str, own_scores: bool) -> dict[str, str]:
    names = {"encoder/embedding/token/embeddings": "shared/embedding"}
    for side, parts in (
        ("encoder", {"attention": "SelfAttention"}),
        ("decoder", {"attention": "SelfAttention", "cross": "EncDecAttention"}),
    ):
        ours, theirs = f"{side}/block_{{i}}", f"{side}/block_{{i:03d}}"
        names[f"{side}/relative/embeddings"] = (
            f"{side}/block_000/layer_000/SelfAttention/relative_attention_bias | transpose"
        )
        for place, (part, name) in enumerate(parts.items()):
            for ours_part in ("query", "key", "value", "output"):
                names[f"{ours}/{part}/{ours_part}/kernel"] = f"{theirs}/layer_{place:03d}/{name}/{ours_part[0]}"
            names[f"{ours}/{part}_norm/gamma"] = f"{theirs}/layer_{place:03d}/{norm}/scale"
        layer = f"{theirs}/layer_{len(parts):03d}"
        for part, name in {"gate": "wi_0", "inner": "wi_1"}.items() if gated else {"inner": "wi"}.items():
            names[f"{ours}/feed/{part}/kernel"] = f"{layer}/DenseReluDense/{name}/kernel"
        names[f"{ours}/feed/outer/kernel"] = f"{layer}/DenseReluDense/wo/kernel"
        names[f"{ours}/feed_norm/gamma"] = f"{layer}/{norm}/scale"
        names[f"{side}/final_norm/gamma"] = f"{side}/{final}/scale"
    return names | ({"lm/output/kernel": "decoder/logits/kernel"} if own_scores else {})


def _nezha(config: Any) -> bool:
    said = config.get("model_type") == "nezha" or "max_relative_position" in config
    return bool(said or config.get("use_relative_position"))


_WORDS = "bert/embeddings/word_embeddings"
_NOT_BERT = "/inner_group_0/|word_embeddings_2$"
_LEARNED = ("bert", "simbert", "wobert", "labse", "ernie")  # they have a table of positions
_OTHERS = r"^(generator|generator_predictions)/"

# The first that fits is taken, so what differs least from others comes last.
TABLES = (
    Table("gau_alpha", "google", _BARE | {
        "encoder/block_{i}/attention/inner/kernel": f"{_GAU}/i_dense/kernel",
        "encoder/block_{i}/attention/outer/kernel": f"{_GAU}/o_dense/kernel",
        "encoder/block_{i}/attention/query_gamma": f"{_GAU}/q_scaleoffset/gamma",
        "encoder/block_{i}/attention/key_gamma": f"{_GAU}/k_scaleoffset/gamma",
    }, sign="GAU_alpha/encoder/layer_0/gau/i_dense/kernel"),
    Table("albert_brightmart", "google", {
        ours: name.replace("layer_{i}", "layer_shared") for ours, name in _BERT.items() if "/projection/" not in ours
    } | {"encoder/embedding/projection/kernel": "bert/embeddings/word_embeddings_2"},
        sign="bert/embeddings/word_embeddings_2"),
    Table("albert", "google", _albert(), sign="bert/encoder/transformer/group_0/.*"),
    Table("roformer_v2", "google", _BARE | _block(_LAYER, bias=False, normed=False), sign=_WORDS,
          without="LayerNorm|/bias$|^GAU_alpha/|position_embeddings"),
    Table("bert", "google", _BERT, sign="bert/embeddings/position_embeddings", without=_NOT_BERT),
    Table("nezha", "google", _PLACELESS, sign=_WORDS, without=f"{_NOT_BERT}|position_embeddings", stated=_nezha),
    Table("roformer", "google", _PLACELESS, sign=_WORDS, without=f"{_NOT_BERT}|position_embeddings|^GAU_alpha/",
          stated=lambda config: config.get("model_type") not in _LEARNED and not _nezha(config)),
    Table("electra", "google", _electra("electra"), sign="(electra/encoder/layer_0|discriminator_predictions)/.*",
          empty=_OTHERS + ".*"),
    Table("electra_generator", "google", _electra("generator"), sign="generator/encoder/layer_0/.*",
          empty="^(electra/encoder|electra/embeddings_project|discriminator_predictions)/.*"),
    Table("gpt2", "google", _gpt2_converted(), sign="gpt/output/LayerNorm/gamma"),
    Table("gpt", "google", _embedding("gpt", normed=False) | _block("gpt/transformer/layer_{i}"),
          sign="gpt/embeddings/word_embeddings"),
    Table("gpt2", "openai", _gpt2_openai(), sign="model/wte"),
    Table("gpt2_ml", "google", _gpt2_ml(), sign="newslm/embeddings/word_embed"),
    Table("mt5", "google", _t5(True, "rms_norm", "rms_norm", True), sign="encoder/rms_norm/scale"),
    Table("t5_1_1", "google", _t5(True, "layer_norm", "final_layer_norm", True), sign="decoder/logits/kernel"),
    Table("t5", "google", _t5(False, "layer_norm", "final_layer_norm", False), sign="shared/embedding"),
)  # fmt: skip
