"""Golden numbers of bert4keras and transformers, checked without either.

The makers beside this file say how the numbers were made. Padded positions are left out: nothing reads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import maskplay as mp
from parity.closeness import assert_within

GOLDEN = Path(__file__).parent / "golden"
HUGGINGFACE = sorted(path.stem for path in GOLDEN.glob("hf_*.npz"))
BERT4KERAS = ["bert", "factorised", "roformer"]


def read(stem: str) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """The config, and the arrays by group: {"weights": {name: array}, ...}."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    with np.load(GOLDEN / f"{stem}.npz", allow_pickle=False) as file:
        for key in file.files:
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = file[key]
    return json.loads(str(groups.pop("config")[""])), groups


@pytest.mark.parametrize("stem", HUGGINGFACE)
def test_huggingface(stem: str, tmp_path: Path) -> None:
    config, groups = read(stem)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(groups["weights"], tmp_path / "model.safetensors")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"w{index}" for index in range(5, config["vocab_size"])]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    bert = mp.load(tmp_path)
    tokens, segments, theirs = groups["inputs"]["tokens"], groups["inputs"]["segments"], groups["outputs"]
    ours = bert.network(tokens, segments=segments)
    compare(stem, ours, theirs, tokens != 0)
    details = bert.encoder(tokens, segments=segments, details=True)
    for index, state in enumerate(details["states"]):
        assert_within(1e-5, f"{stem} state {index}", state, theirs[f"states/{index}"], tokens != 0)
    for index, attention in enumerate(details["attentions"]):
        assert_within(1e-5, f"{stem} attention {index}", attention, theirs[f"attentions/{index}"], tokens != 0)


def compare(name: str, ours: dict[str, Any], theirs: dict[str, np.ndarray], valid: np.ndarray) -> None:
    """Hidden states and pooled vectors within 1e-5, logits within 1e-3 with the same best token."""
    assert_within(1e-5, f"{name} hidden", ours["hidden"], theirs["hidden"], valid)
    if "pooled" in theirs:
        assert_within(1e-5, f"{name} pooled", ours["pooled"], theirs["pooled"])
    if "nsp" in theirs:
        assert_within(1e-3, f"{name} nsp", ours["nsp"], theirs["nsp"])
    if "nsp_probabilities" in theirs:
        chances = keras.ops.softmax(ours["nsp"])
        assert_within(1e-5, f"{name} nsp", chances, theirs["nsp_probabilities"])
    if "mlm" in theirs:
        assert_within(1e-3, f"{name} mlm", ours["mlm"], theirs["mlm"], valid)
        best = keras.ops.convert_to_numpy(ours["mlm"]).argmax(-1)
        assert (best == theirs["mlm"].argmax(-1))[valid].all(), "another best token"


def runs() -> list[tuple[str, str]]:
    return [(case, name) for case in BERT4KERAS for name in read(f"bert4keras_{case}")[0]["runs"]]


@pytest.mark.parametrize(("case", "name"), runs())
def test_bert4keras(case: str, name: str) -> None:
    """Every application of bert4keras is one mask; every edit at loading is one argument."""
    config, groups = read(f"bert4keras_{case}")
    how = config["runs"][name]
    edits: dict[str, Any] = {}
    if name == "keep":
        keep = config["keep_tokens"]
        edits["keep_tokens"] = keep
        # bert4keras counts the ids of a compound in the kept table, we in the old one.
        edits["compound_tokens"] = [
            ([keep[row] for row in item[0]], item[1]) if isinstance(item[0], list) else [keep[row] for row in item]
            for item in config["compound_tokens"]
        ]
    changes = {key: value for key, value in how["changes"].items() if key != "vocab_size"}
    bert = mp.load(groups["weights"], config=mp.Config(**config["model"]), **edits, **changes)
    assert bert.config.vocab_size == how["changes"].get("vocab_size", config["model"]["vocab_size"])
    tokens, segments = groups[how["inputs"]]["tokens"], groups[how["inputs"]]["segments"]
    theirs = groups[name]
    ours = bert.network(tokens, segments=segments, mask=mp.masks.parse(how["mask"]))
    compare(f"bert4keras {case} {name}", ours, theirs, tokens != 0)
    details = bert.encoder(tokens, segments=segments, mask=mp.masks.parse(how["mask"]), details=True)
    assert_within(1e-5, f"bert4keras {case} {name} layer 0", details["states"][1], theirs["layer_0"], tokens != 0)


LAYER = "bert/encoder/layer_0"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{LAYER}/attention/self/query/kernel", f"{LAYER}/attention/self/key/kernel"),
        (f"{LAYER}/attention/self/value/kernel", f"{LAYER}/attention/output/dense/kernel"),
        (f"{LAYER}/attention/output/LayerNorm/gamma", f"{LAYER}/output/LayerNorm/gamma"),
        (f"{LAYER}/output/LayerNorm/gamma", f"{LAYER}/output/LayerNorm/beta"),
        (f"{LAYER}/intermediate/dense/kernel", "bert/encoder/layer_1/intermediate/dense/kernel"),
    ],
)
def test_a_swap_shows(one: str, other: str) -> None:
    """Two tensors of one shape exchanged in the file: the numbers above would notice."""
    config, groups = read("bert4keras_bert")
    weights = groups["weights"]
    weights[one], weights[other] = weights[other], weights[one]
    bert = mp.load(weights, config=mp.Config(**config["model"]))
    tokens, segments = groups["inputs"]["tokens"], groups["inputs"]["segments"]
    hidden = keras.ops.convert_to_numpy(bert.encoder(tokens, segments=segments))
    assert np.abs(hidden - groups["encoder"]["hidden"])[tokens != 0].max() > 0.1
