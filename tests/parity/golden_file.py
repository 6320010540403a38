"""How a golden file of the cast is made: the inputs of a row, and the file itself."""

from __future__ import annotations

import numpy as np

from parity.cases import CAST, Case
from parity.references import tensors


def inputs(case: Case) -> dict[str, np.ndarray]:
    """Token ids with padding at the end; segments 0 then 1, or for shared tables two words that stand for speakers."""
    random = np.random.default_rng(case.seed)
    length, last, pad = max(case.lengths), case.config.get("vocab_size", case.config.get("n_vocab")), case.pad
    tokens = np.full((len(case.lengths), length), pad, "int32")
    segments = np.zeros_like(tokens)
    for row, size in enumerate(case.lengths):
        tokens[row, :size] = random.integers(pad + 1, last, size)
        segments[row, (size + 1) // 2 : size] = 1
    given = {"tokens": tokens}
    if case.config.get("shared_segment_embeddings"):
        given["segments"] = np.where(segments == 1, 6, 5).astype("int32")
    elif case.config.get("type_vocab_size", 0) > 1 and case.family not in ("gpt2", "gpt2_ml"):
        given["segments"] = segments
    if case.two_sided:
        target = np.zeros((len(case.lengths), max(6, length - 4)), "int32")
        for row, size in enumerate(case.lengths):
            size = max(3, size - 4 - row)
            target[row, 1:size] = random.integers(1, last, size - 1)
        given["decoder_tokens"] = target
    if "condition_size" in case.options:
        given["condition"] = random.standard_normal((len(tokens), case.options["condition_size"])).astype("float32")
    return given


def turned(given: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
    """The same inputs with two words of the first text exchanged, and the first position after both."""
    tokens = given["tokens"].copy()
    other = int(np.flatnonzero(tokens[0, 2:] != tokens[0, 1])[0]) + 2
    tokens[0, [1, other]] = tokens[0, [other, 1]]
    return given | {"tokens": tokens}, 0 if "decoder_tokens" in given else other + 1


def write(case: Case, given: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    arrays = {f"inputs/{name}": value for name, value in given.items()}
    arrays |= {f"expected/{name}": value.astype("float32") for name, value in found.items()}
    CAST.mkdir(parents=True, exist_ok=True)
    path = CAST / f"{case.name}.npz"
    np.savez_compressed(path, weights=np.array(tensors.checksum(case.weights()), "int64"), **arrays)
    print(f"{path.name}: {path.stat().st_size} bytes: {', '.join(found)}")
