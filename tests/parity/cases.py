"""The cast as data: one row a checkpoint, with what the original makes of it.

A row says which family the file is of, in whose names it is written, what its config file says, how it is run and what
comes out. Weights are drawn from a seed (references/tensors.py), the inputs and expected numbers lie in
``golden/cast/<name>.npz``; the makers beside this file wrote them in float64 with the original program, or with the
NumPy formulas of references/ where no program could be run. Only NumPy is needed to read a row.

Outputs: ``hidden`` (batch, length, hidden) after the last block and, where there is one, the last norm; ``pooled``,
``mlm`` (logits) and ``nsp`` (log-probabilities) of BERT's heads; ``discriminator`` (batch, length), the logits of
ELECTRA's; ``logits`` of a language model; for encoder-decoders ``encoded`` and, from the decoder, ``hidden`` and
``logits``. At padded positions they are whatever the original computes there: nothing reads them, and a comparison
leaves them out (`Case.valid`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from parity.references import gpt2, huggingface, llama, tensors
from parity.references.tensors import Table, Weights

CAST = Path(__file__).parent / "golden" / "cast"


@dataclass(frozen=True)
class Case:
    """One checkpoint and one way to run it.

    Attributes:
        name: of the row and of its golden file.
        family: as maskplay calls it.
        dialect: whose names the tensors have: google, mesh, openai, newslm, brightmart, huggingface, llama2c.
        oracle: what made the numbers: "bert4keras 0.11.5", "transformers 5.23.0" or "numpy".
        config: what the checkpoint's own config file says. Epsilons are those that the oracle really used.
        table: name -> (kind, shape, gain) of every tensor in the file.
        mask: the attention mask, in maskplay's words.
        options: what the user says beside the file: keywords of `mp.load`.
        lengths: how many tokens of each row are not padding; the longest is the length of the batch.
        seed: of weights and inputs. Rows with the same seed and table have the same weights.
    """

    name: str
    family: str
    dialect: str
    oracle: str
    config: dict
    table: Table
    mask: str = "padding()"
    options: dict = field(default_factory=dict)
    lengths: tuple[int, ...] = (10, 7, 4)
    seed: int = 0

    def weights(self) -> Weights:
        """Every tensor of the file, in float32."""
        return tensors.draw(self.table, self.seed)

    @functools.cached_property
    def golden(self) -> dict[str, np.ndarray]:
        with np.load(CAST / f"{self.name}.npz", allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        assert int(arrays.pop("weights")) == tensors.checksum(self.weights()), f"{self.name}: not the weights it had"
        return arrays

    def inputs(self) -> dict[str, np.ndarray]:
        """`tokens` and, where the family reads them, `segments`, `decoder_tokens`, `condition`."""
        return self._group("inputs")

    def expected(self) -> dict[str, np.ndarray]:
        """Output name -> float32 array."""
        return self._group("expected")

    def valid(self, output: str = "hidden") -> np.ndarray:
        """Where an output with a length axis is compared: booleans (batch, length)."""
        given = self.inputs()
        tokens = given["decoder_tokens"] if self.two_sided and output != "encoded" else given["tokens"]
        # A decoder begins with the padding token.
        return (tokens != self.pad) | ((np.arange(tokens.shape[1]) == 0) & self.two_sided)

    @property
    def pad(self) -> int:
        """The id of padding; no text of a row contains it."""
        return self.config.get("pad_token_id", 0)

    @property
    def two_sided(self) -> bool:
        """Whether the row is an encoder-decoder."""
        return self.family in ("t5", "t5_1_1", "mt5", "t5_pegasus")

    def _group(self, group: str) -> dict[str, np.ndarray]:
        items = self.golden.items()
        return {key.partition("/")[2]: value for key, value in items if key.startswith(f"{group}/")}


BERT4KERAS = "bert4keras 0.11.5"
SMALL = {
    "vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "hidden_act": "gelu", "max_position_embeddings": 14, "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02,
}  # fmt: skip
PLACELESS = {key: value for key, value in SMALL.items() if key != "max_position_embeddings"}
ALBERT = {**SMALL, "embedding_size": 16, "num_hidden_layers": 3, "num_hidden_groups": 1, "inner_group_num": 1}
GAU = {**PLACELESS, "num_attention_heads": 1, "attention_key_size": 8, "hidden_act": "swish"}
T5 = {
    "vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "attention_head_size": 6,
    "intermediate_size": 40, "hidden_act": "relu", "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-6,
}  # fmt: skip


def case(name: str, family: str, dialect: str, form: Callable[..., Table], config: dict, **rest) -> Case:
    arguments = rest.pop("given", {})
    rest = {"oracle": BERT4KERAS, **rest}
    return Case(name, family, dialect, config=config, table=form(config, **arguments), **rest)


def encoders() -> list[Case]:
    """Encoders, computed by bert4keras: where BERT's norms are inherited with 1e-12, elsewhere with Keras' 1e-7.

    The row's config names the epsilon of the blocks; ALBERT's embedding norm and all MLM heads keep 1e-12.
    """
    seven = {"layer_norm_eps": 1e-7}
    albert, placeless = {**ALBERT, **seven}, {**PLACELESS, **seven}
    electra = {**SMALL, "embedding_size": 16, "layer_norm_eps": 1e-12}
    plain = {**SMALL, "layer_norm_eps": 1e-12}
    causal, prefix = "causal() & padding()", "prefix() & padding()"
    bare, nsp = {"given": {"position": False, "nsp": False}}, {"given": {"position": False}}
    bert_form, wide = tensors.google_bert, {**plain, "attention_key_size": 12}
    # Huawei's files say that positions are relative; without the key the family is RoFormer for all one can see.
    nezha = {**placeless, "use_relative_position": True}

    def named(family: str) -> dict:
        return {"options": {"family": family}}

    return [
        case("bert", "bert", "google", bert_form, plain, seed=13),
        case("albert", "albert", "google", tensors.google_albert, albert, seed=1),
        case("albert_unilm", "albert", "google", tensors.google_albert, albert, mask=prefix, seed=1),
        # The same file read into unshared blocks: the same numbers, but for the epsilon.
        case("albert_unshared", "albert_unshared", "google", tensors.google_albert, {**ALBERT, "layer_norm_eps": 1e-12},
             **named("albert_unshared"), seed=1),
        case("electra", "electra", "google", tensors.google_electra, electra, seed=2),
        case("electra_wide", "electra", "google", tensors.google_electra, {**electra, "embedding_size": 24}, seed=3),
        case("nezha", "nezha", "google", bert_form, nezha, **nsp, seed=4),
        case("nezha_lm", "nezha", "google", bert_form, placeless, **nsp, **named("nezha"), mask=causal, seed=4),
        # Distances beyond 64 share their vectors.
        case("nezha_long", "nezha", "google", bert_form, nezha, **nsp, lengths=(70, 67), seed=4),
        case("roformer_v2", "roformer_v2", "google", tensors.roformer_v2, {**placeless, "hidden_act": "relu"}, seed=5),
        case("roformer_v2_unilm", "roformer_v2", "google", tensors.roformer_v2, placeless, mask=prefix, seed=5),
        case("roformer", "roformer", "google", bert_form, placeless, **bare, seed=6),
        case("roformer_lm", "roformer", "google", bert_form, placeless, **bare, mask=causal, seed=6),
        case("roformer_sim", "roformer_sim", "google", bert_form, placeless, **bare, **named("roformer_sim"),
             mask=prefix, seed=6),
        case("gau_alpha", "gau_alpha", "google", tensors.gau_alpha, {**GAU, **seven}, lengths=(20, 18, 7, 3), seed=7),
        # How sharp a query's probabilities are depends on how many keys it sees, from 16 on.
        case("gau_alpha_lm", "gau_alpha", "google", tensors.gau_alpha, {**GAU, **seven}, mask=causal, lengths=(24, 20),
             seed=7),
        case("bert_key_size", "bert", "google", bert_form, wide, seed=8),
        case("bert_residual", "bert", "google", bert_form, {**plain, "num_hidden_layers": 4}, seed=9,
             options={"attention": "residual"}),
        case("simbert", "simbert", "google", bert_form, plain, **named("simbert"), mask=prefix, seed=10),
        case("wobert", "wobert", "google", bert_form, plain, **named("wobert"), seed=14),
    ]  # fmt: skip


def conditional() -> list[Case]:
    """BERT whose norms read a condition vector."""
    config = {**SMALL, "layer_norm_eps": 1e-12}
    table = tensors.conditional(tensors.google_bert(config), 5)
    return [
        Case("bert_condition", "bert", "google", BERT4KERAS, config, table, options={"condition_size": 5}, seed=11),
    ]


def decoders() -> list[Case]:
    """Decoders under converted names and GPT2-ML's own, computed by bert4keras."""
    gpt = {**SMALL, "layer_norm_eps": 1e-12}
    five = {**SMALL, "layer_norm_eps": 1e-5}
    shared = {**gpt, "type_vocab_size": 37, "shared_segment_embeddings": True}
    unsegmented = {**gpt, "type_vocab_size": 0}
    mask = "causal() & padding()"
    return [
        case("gpt", "gpt", "google", tensors.converted_gpt, gpt, mask=mask, seed=20),
        case("gpt_unsegmented", "gpt", "google", tensors.converted_gpt, unsegmented, mask=mask, seed=21),
        # CDial-GPT: who speaks is a token too, looked up in the table of the words.
        case("gpt_shared", "gpt", "google", tensors.converted_gpt, shared, mask=mask, seed=22),
        case("gpt2_converted", "gpt2", "google", tensors.converted_gpt2, five, mask=mask, seed=23),
        case("gpt2_ml", "gpt2_ml", "newslm", tensors.gpt2_ml, five, mask=mask, seed=24),
    ]


def encoder_decoders() -> list[Case]:
    """T5 in Mesh TensorFlow's names, computed by bert4keras: logits scaled by hidden ** -0.5 in every version."""
    gated = {**T5, "hidden_act": ["gelu", "linear"]}
    first, second, third = ({"given": {"version": version}} for version in ("t5.1.0", "t5.1.1", "mt5.1.1"))
    crossing, scaled = {"position": "buckets_cross"}, {"scores": "own_scaled"}

    def row(name: str, family: str, config: dict, version: dict, **rest) -> Case:
        return case(name, family, "mesh", tensors.mesh_t5, config, **version, mask="causal() & padding()", **rest)

    return [
        row("t5", "t5", T5, first, seed=30),
        row("t5_cross_bias", "t5", T5, first, options=crossing, seed=30),
        # Long enough for the buckets that several distances share.
        row("t5_long", "t5", T5, first, lengths=(44, 40), seed=30),
        row("t5_1_1", "t5_1_1", gated, second, options=scaled, seed=31),
        row("t5_1_1_cross_bias", "t5_1_1", gated, second, options={**crossing, **scaled}, seed=31),
        row("mt5", "mt5", gated, third, options=scaled, seed=32),
        row("t5_pegasus", "t5_pegasus", gated, third, options={"family": "t5_pegasus"}, seed=32),
    ]


TRANSFORMERS = "transformers 5.23.0"
KINDS = ("t5", "mt5", "gpt2", "llama", "albert", "electra", "ernie", "roberta", "roformer", "nezha", "bert")
HF_SMALL = {
    "vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "hidden_act": "gelu", "max_position_embeddings": 14, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}  # fmt: skip
HF_ROBERTA = {**HF_SMALL, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0,
              "eos_token_id": 2}  # fmt: skip
HF_ALBERT = {**HF_SMALL, "embedding_size": 16, "num_hidden_layers": 3, "num_hidden_groups": 1, "inner_group_num": 1}
HF_GPT2 = {"vocab_size": 37, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 14, "n_ctx": 14,
           "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "bos_token_id": 36,
           "eos_token_id": 36}  # fmt: skip
HF_T5 = {
    "vocab_size": 37, "d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 3,
    "feed_forward_proj": "relu", "layer_norm_epsilon": 1e-6, "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
    "is_encoder_decoder": True, "tie_word_embeddings": True,
}  # fmt: skip
HF_LLAMA = {
    "vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 40, "hidden_act": "silu", "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def hugging() -> list[Case]:
    """Hugging Face's own files, computed by transformers. `model_type` and `architectures` are as it writes them."""

    def row(name: str, family: str, architecture: str, form: Callable[..., Table], config: dict, **rest) -> Case:
        kind = next(kind for kind in KINDS if architecture.lower().startswith(kind))
        said = {"architectures": [architecture], "model_type": kind, **config}
        return case(name, family, "huggingface", form, said, **{"oracle": TRANSFORMERS, **rest})

    causal = {"mask": "causal() & padding()"}
    electra = {**HF_SMALL, "embedding_size": 16}
    grouped = {**HF_ALBERT, "num_hidden_layers": 4, "num_hidden_groups": 2}
    gated = {**HF_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    uneven = {**HF_T5, "num_decoder_layers": 1, "relative_attention_num_buckets": 12,
              "relative_attention_max_distance": 20}  # fmt: skip
    wide = {**HF_LLAMA, "head_dim": 8, "num_key_value_heads": 1, "tie_word_embeddings": True, "rms_norm_eps": 1e-6}
    wide |= {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}
    wide = {key: value for key, value in wide.items() if key not in ("rope_theta", "rope_scaling")}
    full, bare = {"given": {"heads": ("pooler", "mlm", "sop")}}, {"given": {"heads": ("pooler",)}}
    open_head = {"given": {"tied": False}, **causal}
    return [
        row("bert_hf", "bert", "BertForPreTraining", huggingface.bert, HF_SMALL, seed=38),
        row("labse", "labse", "BertModel", huggingface.bert, HF_SMALL, given={"heads": False}, seed=39,
            options={"family": "labse"}),
        row("ernie", "ernie", "ErnieForPreTraining", huggingface.bert, HF_SMALL, given={"root": "ernie."}, seed=36),
        row("roformer_hf", "roformer", "RoFormerForMaskedLM", huggingface.roformer, HF_SMALL, seed=37),
        row("roberta_hf", "roberta", "RobertaForMaskedLM", huggingface.roberta, HF_ROBERTA, seed=40),
        row("roberta_hf_bare", "roberta", "RobertaModel", huggingface.roberta, HF_ROBERTA, given={"head": False},
            seed=41),
        row("albert_hf", "albert", "AlbertForMaskedLM", huggingface.albert, HF_ALBERT, seed=42),
        row("albert_hf_bare", "albert", "AlbertModel", huggingface.albert, {**HF_ALBERT, "hidden_act": "gelu_new"},
            **bare, seed=43),
        row("albert_hf_groups", "albert", "AlbertForPreTraining", huggingface.albert, grouped, **full, seed=44),
        row("electra_hf", "electra", "ElectraForPreTraining", huggingface.electra, electra, seed=45),
        row("electra_hf_generator", "electra_generator", "ElectraForMaskedLM", huggingface.electra, electra,
            given={"generator": True}, seed=46),
        row("gpt2_hf", "gpt2", "GPT2LMHeadModel", huggingface.gpt2, HF_GPT2, **causal, seed=47),
        row("gpt2_hf_bare", "gpt2", "GPT2Model", huggingface.gpt2, {**HF_GPT2, "n_inner": 40}, **causal,
            given={"root": ""}, seed=48),
        row("t5_hf", "t5", "T5ForConditionalGeneration", huggingface.t5, HF_T5, **causal, seed=49),
        row("t5_hf_long", "t5", "T5ForConditionalGeneration", huggingface.t5, HF_T5, **causal, lengths=(44, 40),
            seed=49),
        row("t5_hf_uneven", "t5", "T5ForConditionalGeneration", huggingface.t5, uneven, **causal, lengths=(44, 40),
            seed=50),
        row("t5_1_1_hf", "t5_1_1", "T5ForConditionalGeneration", huggingface.t5, gated, **open_head, seed=51),
        row("mt5_hf", "mt5", "MT5ForConditionalGeneration", huggingface.t5, gated, **open_head, seed=52),
        row("llama_hf", "llama", "LlamaForCausalLM", huggingface.llama, HF_LLAMA, **causal, lengths=(10, 10, 10),
            seed=53),
        row("llama_hf_tied", "llama", "LlamaForCausalLM", huggingface.llama, wide, **causal, lengths=(10, 10, 10),
            seed=54),
        # transformers 5 has no NEZHA any more. Distances beyond 4 share their vectors here.
        row("nezha_hf", "nezha", "NezhaForPreTraining", huggingface.nezha, {**HF_SMALL, "max_relative_position": 4},
            oracle="transformers 4.49.0", seed=55),
    ]  # fmt: skip


NUMPY = "numpy"


def formulas() -> list[Case]:
    """Files of programs that no longer run, computed by the formulas in references/."""
    openai = {"n_vocab": 37, "n_ctx": 14, "n_embd": 24, "n_head": 3, "n_layer": 2}
    header = {"dim": 24, "hidden_dim": 40, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 37}
    header["max_seq_len"] = 32
    electra = {**SMALL, "embedding_size": 16, "layer_norm_eps": 1e-12}
    albert = {**ALBERT, "layer_norm_eps": 1e-12, "ln_type": "postln"}
    del albert["num_hidden_groups"], albert["inner_group_num"]
    preln, said = {**albert, "ln_type": "preln"}, {"oracle": NUMPY}
    causal = {"mask": "causal() & padding()", **said}
    whole, stored = {**causal, "lengths": (10, 10, 10)}, {"given": {"shared": False}}
    return [
        case("gpt2_openai", "gpt2", "openai", gpt2.table, openai, **causal, seed=60),
        case("llama2c", "llama", "llama2c", llama.table, header, **whole, seed=61),
        case("llama2c_classifier", "llama", "llama2c", llama.table, header, **whole, **stored, seed=62),
        case("albert_brightmart", "albert_brightmart", "brightmart", tensors.brightmart_albert, albert, **said,
             seed=63),
        case("albert_brightmart_preln", "albert_brightmart", "brightmart", tensors.brightmart_albert, preln, **said,
             seed=64),
        case("electra_generator", "electra_generator", "google", tensors.google_electra, electra, **said, seed=65,
             given={"generator": True}),
        case("electra_generator_wide", "electra_generator", "google", tensors.google_electra, **said, seed=66,
             config={**electra, "embedding_size": 24}, given={"generator": True}),
    ]  # fmt: skip


ROWS = [*encoders(), *conditional(), *decoders(), *encoder_decoders(), *hugging(), *formulas()]
CASES: dict[str, Case] = {row.name: row for row in ROWS}


@dataclass(frozen=True)
class Real:
    """A real tiny checkpoint in the shared data folder, which the repository does not hold, and what comes of it."""

    name: str
    family: str
    path: str
    tokenizer: str | None = None

    def golden(self) -> dict[str, np.ndarray]:
        """`tokens` (length,), `logits` (length, vocabulary); of language models that were trained `greedy`, `text`."""
        with np.load(CAST / f"{self.name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}


REAL = [
    Real("real_gpt2", "gpt2", "ckpt_toy_tf/keras-gpt-2/toy_checkpoint"),
    Real("real_stories260k", "llama", "ckpt_stories260k/stories260K.bin", "ckpt_stories260k/tok512.bin"),
    Real("real_aidreams260k", "llama", "ckpt_stories260k/aidreams260K.bin", "ckpt_stories260k/aidreams_tok512.bin"),
]
