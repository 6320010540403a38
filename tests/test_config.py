"""A config refuses what no transformer can be, in one line that names the field."""

import dataclasses
import json

import numpy as np
import pytest

import maskplay as mp
from maskplay.families import FAMILIES, family

GOOD = {"vocab_size": 100, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64}


def test_round_trip_and_change() -> None:
    config = mp.Config(**GOOD, position="rotary", activation="gelu_tanh")
    assert mp.Config.from_json(config.to_json()) == config
    assert json.loads(config.to_json())["hidden_size"] == 32
    arrays = {name: np.int64(number) for name, number in GOOD.items()}
    told = mp.Config(**arrays, position="rotary", activation="gelu_tanh", dropout=np.float32(0.5))
    assert told == config.but(dropout=0.5) and json.loads(told.to_json())["dropout"] == 0.5
    assert config.but(num_layers=3) != config and config.but(num_layers=2) == config
    assert (config.size_per_head, config.size_of_embedding, config.longest) == (8, 32, None)
    assert mp.Config(**GOOD, position="hierarchical", max_positions=7).longest == 49
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_layers = 3


@pytest.mark.parametrize(
    "change, words",
    [
        ({"vocab_size": 0}, "vocab_size: expected a whole number from 1 to 2,147,483,647, found 0"),
        ({"hidden_size": "32"}, "hidden_size: expected a whole number"),
        ({"hidden_size": None}, "hidden_size: expected a whole number"),
        ({"num_layers": True}, "num_layers: expected a whole number"),
        ({"num_layers": -1}, "num_layers"),
        ({"intermediate_size": 2**31}, "intermediate_size"),
        ({"num_layers": 10**9}, "num_layers: expected a whole number from 0 to 4,096, found 1000000000"),
        ({"num_heads": 5}, "hidden_size 32 is not a multiple of num_heads 5"),
        ({"head_size": 0}, "head_size"),
        ({"pad_id": 100}, "pad_id: expected an id below vocab_size 100, found 100"),
        ({"position": "learned_after_pad", "max_positions": 1}, "places are counted from pad_id + 1 = 1, found"),
        ({"position": "buckets", "num_buckets": 3}, "num_buckets of at least 4"),
        ({"position": "buckets", "max_positions": 16}, "max_positions above half of it, found 32 and 16"),
        ({"attention": "gau", "activation": "gated_silu"}, "gated attention units have gates already"),
        ({"dropout": 1.0}, "dropout: expected a rate below 1"),
        ({"dropout": float("nan")}, "dropout: expected a number"),
        ({"norm_epsilon": float("inf")}, "norm_epsilon"),
        ({"position": "absolute"}, "position: expected one of learned"),
        ({"activation": "mish"}, "activation: expected one of gelu"),
        ({"position": "rotary", "head_size": 7}, "even head size"),
    ],
)
def test_impossible_choices(change: dict[str, object], words: str) -> None:
    with pytest.raises(mp.UserError) as caught:
        mp.Config(**{**GOOD, **change})
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_and_missing_fields() -> None:
    with pytest.raises(mp.UserError, match="unknown field colour"):
        mp.Config.from_dict({**GOOD, "colour": "red"})
    with pytest.raises(mp.UserError, match="vocab_size is missing"):
        mp.Config.from_dict({})
    with pytest.raises(mp.UserError, match="expected a JSON object"):
        mp.Config.from_json("[]")


def test_at_most_30_fields() -> None:
    assert len(dataclasses.fields(mp.Config)) <= 30


def test_families_are_rows() -> None:
    assert FAMILIES["roformer"].config == FAMILIES["bert"].config.but(vocab_size=50000, position="rotary")
    with pytest.raises(mp.UserError, match="one of bert, ernie, "):
        family("bart")
