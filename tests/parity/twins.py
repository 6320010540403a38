"""Random Hugging Face models whose every number can be compared with ours.

A twin is a small ``transformers`` model with all weights drawn anew at a scale where each of them matters: attention
is far from uniform, no bias is zero, no gamma one. Its reference outputs are computed in float64 from the float32
weights, so a difference is ours. Only files that have checked for torch and transformers import this one.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

from parity.cases import Case as Row
from parity.golden_file import turned

transformers.utils.logging.disable_progress_bar()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Case:
    """One architecture with its sizes. ``gain`` over the square root of the inputs is the std of a kernel."""

    architecture: str
    config: dict = field(default_factory=dict)
    seed: int = 0
    gain: float = 1.3

    @property
    def family(self) -> str:
        return next(name for name in ("roformer", "ernie", "bert") if self.architecture.lower().startswith(name))


# The sizes of the bert4keras goldens, so that under JAX one process compiles most operations once.
SMALL = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 40, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
}  # fmt: skip
DEEP = SMALL | {"hidden_size": 64, "num_hidden_layers": 12, "intermediate_size": 128}

CASES = {
    "bert_pretraining": Case("BertForPreTraining", SMALL, 1),
    "bert_masked_lm": Case("BertForMaskedLM", SMALL | {"hidden_act": "gelu_new", "num_attention_heads": 2}, 2),
    "bert_bare": Case("BertModel", SMALL | {"hidden_act": "gelu_pytorch_tanh"}, 3),
    "bert_relu": Case("BertForMaskedLM", SMALL | {"hidden_act": "relu", "type_vocab_size": 3}, 4),
    "bert_epsilon": Case("BertForPreTraining", SMALL | {"layer_norm_eps": 0.1, "num_attention_heads": 1}, 5),
    "bert_deep": Case("BertForPreTraining", DEEP, 6, gain=1.0),
    "roformer_masked_lm": Case("RoFormerForMaskedLM", SMALL, 7),
    "roformer_factorised": Case("RoFormerForMaskedLM", SMALL | {"embedding_size": 16, "hidden_act": "gelu_new"}, 8),
    "roformer_bare": Case("RoFormerModel", SMALL | {"num_attention_heads": 2}, 9),
    "roformer_deep": Case("RoFormerForMaskedLM", DEEP, 10, gain=1.0),
}


def build(case: Case) -> transformers.PreTrainedModel:
    """The model in float32 and eval mode, its trainable weights drawn from the case's seed."""
    config = transformers.CONFIG_MAPPING[case.family](**case.config, attn_implementation="eager")
    twin = getattr(transformers, case.architecture)(config).eval()
    random = np.random.default_rng(case.seed)
    for name, weight in twin.named_parameters():
        if "embed_positions" in name:
            continue  # RoFormer's sines: computed, not learned
        noise = random.standard_normal(tuple(weight.shape))
        if "LayerNorm.weight" in name:
            noise = 1.0 + 0.25 * noise
        elif name.endswith("bias"):
            noise = 0.2 * noise
        elif "embeddings." in name:
            noise = 0.5 * noise
        else:
            noise = case.gain / weight.shape[1] ** 0.5 * noise
        weight.data = torch.tensor(noise, dtype=torch.float32)
    twin.tie_weights()
    return twin


def inputs(case: Case, seed: int = 0, length: int = 12) -> dict[str, np.ndarray]:
    """Four rows of (batch, length) ids: one full, three padded with 0 at the end, each of two segments."""
    random = np.random.default_rng(seed)
    tokens = np.zeros((4, length), "int32")
    segments = np.zeros_like(tokens)
    for row, size in enumerate((length, length - 3, length // 2, 4)):
        first = size // 2
        tokens[row, :size] = random.integers(len(SPECIAL), case.config["vocab_size"], size)
        tokens[row, 0], tokens[row, [first, size - 1]] = 2, 3
        segments[row, first + 1 : size] = 1
    return {"tokens": tokens, "segments": segments}


def reference(twin: transformers.PreTrainedModel, tokens: np.ndarray, segments: np.ndarray) -> dict[str, np.ndarray]:
    """What the twin computes, in float64 rounded to float32, under our names.

    ``states/0`` is the embedding output, ``states/i`` the output of block i - 1; ``attentions/i`` has the shape
    (batch, heads, length, length). Heads are the twin's own: ``pooled``, ``mlm`` and ``nsp`` (logits).
    """
    given = {
        "input_ids": torch.tensor(tokens, dtype=torch.long),
        "token_type_ids": torch.tensor(segments, dtype=torch.long),
        "attention_mask": torch.tensor(tokens != 0).long(),
    }
    weights = {name: value.clone() for name, value in twin.state_dict().items()}
    twin.double()
    with torch.no_grad():
        base = twin.base_model(**given, output_hidden_states=True, output_attentions=True)
        full = twin(**given)
    twin.float().load_state_dict(weights)
    outputs = {"hidden": base.last_hidden_state, "pooled": base.get("pooler_output")}
    outputs |= {"mlm": full.get("logits", full.get("prediction_logits")), "nsp": full.get("seq_relationship_logits")}
    outputs |= {f"states/{index}": value for index, value in enumerate(base.hidden_states)}
    outputs |= {f"attentions/{index}": value for index, value in enumerate(base.attentions)}
    return {name: value.numpy().astype("float32") for name, value in outputs.items() if value is not None}


def save(twin: transformers.PreTrainedModel, folder: Path, file: str = "safetensors") -> Path:
    """Write the twin as Hugging Face would, with a vocabulary.

    ``file`` is "safetensors" (one file without the tied doubles), "bin" (a pickled state dict with them) or "legacy"
    (the same as the first converters wrote it: gamma and beta in the names of the norms, a buffer of position ids).
    """
    twin.save_pretrained(folder)
    if file != "safetensors":
        (folder / "model.safetensors").unlink()
        state = twin.state_dict()
        if file == "legacy":
            norms = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
            for ending, old in norms.items():
                state = {name.replace(ending, old): value for name, value in state.items()}
            prefix = next(name for name in state if "word_embeddings" in name).partition("word_embeddings")[0]
            state[prefix + "position_ids"] = torch.arange(twin.config.max_position_embeddings)[None]
        torch.save(state, folder / "pytorch_model.bin")
    words = SPECIAL + [f"w{index}" for index in range(len(SPECIAL), twin.config.vocab_size)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def of_row(row: Row) -> transformers.PreTrainedModel:
    """The model of a row of cases.py, in float32 and eval mode, with the row's weights."""
    said = {key: value for key, value in row.config.items() if key not in ("model_type", "architectures")}
    config = transformers.CONFIG_MAPPING[row.config["model_type"]](**said, attn_implementation="eager")
    twin = getattr(transformers, row.config["architectures"][0])(config).eval()
    if "lm_head.weight" in row.table and twin.lm_head.weight is twin.get_input_embeddings().weight:
        twin.lm_head.weight = torch.nn.Parameter(twin.lm_head.weight.detach().clone())  # T5 1.1: transformers 5 ties
    state = {name: torch.tensor(value) for name, value in row.weights().items()}
    report = twin.load_state_dict(state, strict=False)
    assert not report.unexpected_keys, report
    own = {name: value.data_ptr() for name, value in twin.state_dict().items()}
    given = {own[name] for name in state}
    # Tied to a tensor that the row has, or computed.
    assert all(own[name] in given or row.table.get(name, "-")[0] == "computed" for name in report.missing_keys), report
    return twin


def outputs(twin: transformers.PreTrainedModel, given: dict[str, np.ndarray], pad: int) -> dict[str, np.ndarray]:
    """What the twin computes, in float64, under the names of cases.py."""
    words = {"tokens": "input_ids", "segments": "token_type_ids", "decoder_tokens": "decoder_input_ids"}
    said = {words[key]: torch.tensor(value, dtype=torch.long) for key, value in given.items()}
    said["attention_mask"] = (said["input_ids"] != pad).long()
    if "decoder_tokens" in given:
        target = said["decoder_input_ids"]
        said["decoder_attention_mask"] = ((target != pad) | (torch.arange(target.shape[1]) == 0)).long()
    weights = {name: value.clone() for name, value in twin.state_dict().items()}
    twin.double()
    with torch.no_grad():
        base, full = twin.base_model(**said), twin(**said)
        if "decoder_tokens" in given:
            base = twin.model(**said) if hasattr(twin, "model") else full_states(twin, said)
    twin.float().load_state_dict(weights)
    found = {"hidden": base.last_hidden_state, "encoded": base.get("encoder_last_hidden_state")}
    if "pooler_output" in base and base.pooler_output is not None:
        found["pooled"] = base.pooler_output
    logits = full.get("logits", full.get("prediction_logits"))
    if logits is not None:
        name = type(twin).__name__
        kind = "discriminator" if name == "ElectraForPreTraining" else "mlm"
        found["logits" if name.endswith(("LMHeadModel", "CausalLM", "ConditionalGeneration")) else kind] = logits
    for order in ("sop_logits", "seq_relationship_logits"):
        if order in full:
            found["nsp"] = torch.log_softmax(full[order], -1)
    return {name: value.numpy() for name, value in found.items() if value is not None}


def full_states(twin: transformers.PreTrainedModel, said: dict[str, torch.Tensor]) -> transformers.utils.ModelOutput:
    """Encoder and decoder of a T5 by themselves: its language model does not give the decoder's last state."""
    encoded = twin.encoder(input_ids=said["input_ids"], attention_mask=said["attention_mask"]).last_hidden_state
    decoded = twin.decoder(
        input_ids=said["decoder_input_ids"], attention_mask=said["decoder_attention_mask"],
        encoder_hidden_states=encoded, encoder_attention_mask=said["attention_mask"],
    )  # fmt: skip
    decoded["encoder_last_hidden_state"] = encoded
    return decoded


def check(row: Row, twin: transformers.PreTrainedModel, given: dict, found: dict[str, np.ndarray]) -> None:
    """The row's tensors are those that transformers writes; the order of words is read and padding is not."""
    with tempfile.TemporaryDirectory() as folder:
        twin.save_pretrained(folder)
        shapes = {name: value.shape for name, value in load_file(Path(folder) / "model.safetensors").items()}
        back = type(twin).from_pretrained(folder, attn_implementation="eager").eval()
    assert shapes == {name: entry[1] for name, entry in row.table.items()}, set(shapes) ^ set(row.table)
    head, pad = "logits" if "logits" in found else "hidden", row.pad
    again = outputs(back, given, pad)
    if np.abs(again[head] - found[head]).max() > 1e-9:
        print("    transformers itself does not read back what it wrote")
    exchanged, after = turned(given)
    moved = np.abs(outputs(twin, exchanged, pad)[head] - found[head])[0, after:].max()
    assert moved > 0.01, f"{row.name}: the order of the words is hardly read ({moved})"
    last = row.lengths[-1]
    alone = {key: value[-1:, :last] if key in ("tokens", "segments") else value[-1:] for key, value in given.items()}
    size = np.flatnonzero(given["decoder_tokens"][-1])[-1] + 1 if "decoder_tokens" in given else last
    gap = np.abs(outputs(twin, alone, pad)[head][0, :size] - found[head][-1, :size]).max()
    assert gap < 1e-6, f"{row.name}: padding is read ({gap})"
    print(f"    values to {np.abs(found[head]).max():.1f}, order moves {moved:.2f}, padding {gap:.0e}")
