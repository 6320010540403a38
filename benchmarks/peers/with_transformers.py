"""Hugging Face transformers on PyTorch with its default attention (SDPA); argument `fp32` or `bf16`.

bf16 is bf16 weights in the forward pass and autocast over fp32 weights in training.
"""

import contextlib
import functools
import os
import sys
from typing import Any

from worker import DROPOUT, IGNORE, batch, pin, serve

pin()

import torch  # noqa: E402
import transformers  # noqa: E402

HALF = sys.argv[1:] == ["bf16"]


def config(model: dict[str, Any]) -> transformers.BertConfig:
    return transformers.BertConfig(
        vocab_size=model["vocab_size"],
        hidden_size=model["hidden_size"],
        num_hidden_layers=model["num_layers"],
        num_attention_heads=model["num_heads"],
        intermediate_size=model["intermediate_size"],
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
    )


@functools.lru_cache(maxsize=1)
def encoder(**model: Any) -> transformers.BertModel:
    layer = transformers.BertModel(config(model), add_pooling_layer=False).eval()
    return layer.to(torch.bfloat16) if HALF else layer


def parameters(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def prepare(case: dict[str, Any]) -> Any:
    if case["task"] == "gemm":
        left, right = (torch.ones(shape, dtype=torch.bfloat16 if HALF else torch.float32) for shape in case["shapes"])
        return lambda: left @ right, {}
    given = {name: torch.from_numpy(value).long() for name, value in batch(case).items()}
    inputs = {
        "input_ids": given["tokens"],
        "token_type_ids": given["segments"],
        "attention_mask": given["valid"],
    }
    if case["task"] == "forward":
        layer = encoder(**case["model"])

        @torch.inference_mode()
        def run() -> torch.Tensor:
            return layer(**inputs).last_hidden_state

        return run, {"parameters": parameters(layer)}
    encoder.cache_clear()
    model = transformers.BertForMaskedLM(config(case["model"])).train()
    adam = getattr(torch.optim, case.get("optimizer", "Adam"))(model.parameters(), lr=1e-4, fused=True)
    masked = case["head"] == "masked"

    def step() -> float:
        adam.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if HALF else contextlib.nullcontext():
            if masked:
                hidden = model.bert(**inputs).last_hidden_state
                at = given["at"][..., None].expand(-1, -1, hidden.shape[-1])
                scores = model.cls(hidden.gather(1, at))
                loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1).float(), given["answers"].flatten())
            else:
                loss = model(**inputs, labels=given["labels"]).loss
        loss.backward()
        adam.step()
        return loss.item()

    assert IGNORE == -100  # transformers' own
    answers = given["answers" if masked else "labels"]
    return step, {"parameters": parameters(model), "shape": [*answers.shape, case["model"]["vocab_size"]]}


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve({"transformers": transformers.__version__, "torch": torch.__version__}, prepare)
