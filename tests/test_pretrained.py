"""What `maskplay.load` returns, and what it says of paths that are none."""

import itertools
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import maskplay as mp


@pytest.fixture(scope="module")
def tiny() -> mp.Pretrained:
    keras.utils.set_random_seed(0)
    tokenizer = mp.Tokenizer.from_characters(["科学技术是第一生产力"], max_size=100)
    config = mp.Config(
        vocab_size=len(tokenizer), hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, max_positions=32
    )
    return mp.Pretrained(mp.LanguageModel(config), tokenizer)


@pytest.mark.parametrize("top", [1, 7, 40])
def test_the_best_combinations_are_the_best_of_all(tiny: mp.Pretrained, top: int) -> None:
    encoding = tiny.tokenizer.encode("[MASK]学[MASK]", specials=True)
    logits = keras.ops.convert_to_numpy(tiny.logits([encoding.ids]))[0, [1, 3], : len(tiny.tokenizer)]
    first, second = np.exp(logits - logits.max(-1, keepdims=True))
    every = sorted((a * b / first.sum() / second.sum() for a, b in itertools.product(first, second)), reverse=True)
    found = tiny.fill("[MASK]学[MASK]", top=top)
    np.testing.assert_allclose([candidate.score for candidate in found], every[:top], rtol=1e-4)


def test_very_many_candidates_are_refused_or_quick(tiny: mp.Pretrained) -> None:
    start = time.process_time()
    assert len(tiny.fill("[MASK]" * 9, top=3000)) == 3000
    assert time.process_time() - start < 5  # 3000² combinations for each further blank take minutes
    for top in (0, 10**9):
        with pytest.raises(mp.UserError, match=f"top: expected 1 to 100,000, found {top}"):
            tiny.fill("[MASK]", top=top)


@pytest.mark.parametrize("path", ["", " ", "a\0b", "bert\0"])
def test_what_is_no_path_is_told(path: str) -> None:
    with pytest.raises(mp.UserError) as error:
        mp.load(path)
    assert str(error.value) == f"expected a path or a hub id, found {path!r}"


def test_a_play_in_keras_own_file_is_told_from_a_checkpoint(tiny: mp.Pretrained, tmp_path: Path) -> None:
    mp.plays.Classify(tiny, ["a", "b"]).save(tmp_path / "play.keras")
    with pytest.raises(mp.UserError, match=r"play.keras: a play in Keras' own file: keras.saving.load_model opens it"):
        mp.load(tmp_path / "play.keras")
    tiny.network.save(tmp_path / "network.keras")
    assert mp.load(tmp_path / "network.keras").config == tiny.config
    (tmp_path / "no.keras").write_bytes(b"PK" * 50)
    with pytest.raises(mp.CheckpointError):
        mp.load(tmp_path / "no.keras")
