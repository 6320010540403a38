"""Which family a checkpoint is of: found, said, or another one made from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from keras import ops

import maskplay as mp
from checkpoints.test_load_save import TINY, TOKENS, fresh, google_arrays, refuse
from maskplay.language_model import named_weights


@pytest.mark.parametrize(
    "name, family",
    [
        ("model/transformer/word_embedding", "XLNet"),
        ("deberta.embeddings.word_embeddings.weight", "DeBERTa"),
        ("distilbert.embeddings.word_embeddings.weight", "DistilBERT"),
    ],
)
def test_other_families_are_named(name: str, family: str) -> None:
    refuse({name: np.ones((2, 2), "float32")}, f"this is a checkpoint of {family}")


def test_families_that_look_like_bert(tmp_path: Path) -> None:
    b = fresh(TINY.but(position="rotary"), ("mlm",), "roformer")
    arrays = google_arrays(b, tmp_path / "google")
    values = json.loads((tmp_path / "google" / "bert_config.json").read_text())
    del values["model_type"]
    assert mp.load(arrays, config=values).family == "roformer"  # no position table: rotary
    assert mp.load(arrays, config={**values, "use_relative_position": True}).family == "nezha"
    assert mp.load(arrays, config=values, family="nezha").config.position == "relative"
    assert mp.load(arrays, config=values, family="roformer_sim").config.pooler_activation == "linear"
    bare = {name: array for name, array in arrays.items() if "LayerNorm" not in name and "bias" not in name}
    kernels = {name: array for name, array in bare.items() if not name.startswith("cls/")}
    assert mp.load(kernels, config=values).family == "roformer_v2"


def test_a_wrong_family_is_named_with_what_to_do(tmp_path: Path) -> None:
    arrays = google_arrays(fresh(), tmp_path / "google")
    with pytest.raises(mp.CheckpointError, match="of bert, not of roformer: load it without family=") as caught:
        mp.load(arrays, config=TINY, family="roformer")
    assert "strict=False" in str(caught.value)
    with pytest.raises(mp.UserError, match="expected a model family, one of bert, "):
        mp.load(arrays, config=TINY, family="berd")
    with pytest.raises(mp.CheckpointError, match="of bert, which has no head rtd; it may have pooler, nsp"):
        mp.load(arrays, config=TINY, heads=["rtd"])


def test_another_family_starts_from_what_fits(tmp_path: Path) -> None:
    """BERT's weights in a RoFormer: all but the positions, and the report says so."""
    b = fresh()
    made = mp.load(google_arrays(b, tmp_path / "google"), config=TINY, family="roformer", strict=False)
    assert (made.family, made.config.position, made.report.found_family) == ("roformer", "rotary", "bert")
    assert made.report.left_over == ["bert/embeddings/position_embeddings"] and made.report.left_empty == []
    ours, theirs = named_weights(made.network), named_weights(b.network)
    for name, weight in ours.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), ops.convert_to_numpy(theirs[name]), err_msg=name)
    assert "made from a checkpoint of bert" in str(made.report) and "  bert/embeddings/position" in str(made.report)


def test_a_narrow_token_table_scores_no_wide_vectors(tmp_path: Path) -> None:
    fresh(TINY.but(embedding_size=8, num_blocks=1), family="albert").save(tmp_path / "albert", format="google")
    with pytest.raises(mp.UserError, match="the head 'lm' compares vectors of hidden_size 16 .* embedding_size is 8"):
        mp.load(tmp_path / "albert", family="gpt", strict=False)
    gpt = mp.load(tmp_path / "albert", family="gpt", strict=False, heads=[])
    assert gpt.encoder(TOKENS, mask=mp.masks.causal()).shape == (2, 8, 16)
    with pytest.raises(mp.UserError, match="heads: expected a list such as .'mlm'., found the text 'mlm'"):
        mp.load(tmp_path / "albert", heads="mlm")
