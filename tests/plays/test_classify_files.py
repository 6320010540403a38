"""What of a classifier files hold: narrow kernels merged, half precision, segmenters; what they cannot hold is told."""

from pathlib import Path

import keras
import numpy as np
import pytest

import maskplay as mp
from plays.test_classify import LABELS, bert, folder, play

__all__ = ["folder"]


def test_what_a_folder_cannot_say_is_refused_or_merged(tmp_path: Path) -> None:
    model = play()
    model.encoder.blocks[0].attention.query.enable_lora(2)
    kernel = model.encoder.blocks[0].attention.query.lora_kernel_b
    kernel.assign(np.ones(kernel.shape))
    wanted = model.probabilities(["这个好", "差"])
    model.save(tmp_path / "lora")
    np.testing.assert_allclose(mp.load(tmp_path / "lora").probabilities(["这个好", "差"]), wanted, atol=1e-5)
    whole = play()
    whole.quantize("int8")
    with pytest.raises(mp.UserError, match="a quantized play is not saved"):
        whole.save(tmp_path / "int8")
    assert not (tmp_path / "int8").exists()


def test_half_precision_comes_back(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = play()
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "half.keras")
    back = keras.saving.load_model(tmp_path / "half.keras")
    assert back.encoder.compute_dtype == model.encoder.compute_dtype == "bfloat16"


def in_pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(0, len(text), 2)]


def test_a_segmenter_of_ones_own_is_given_again(tmp_path: Path) -> None:
    tokens = [*mp.Tokenizer.from_characters(["这个好差东西"], max_size=100).vocab, "这个", "东西"]
    tokenizer = mp.Tokenizer.from_vocab(tokens, segmenter=in_pairs)
    config = mp.Config(vocab_size=len(tokens), hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8)
    model = mp.plays.Classify(mp.Pretrained(mp.LanguageModel(config, ["pooler"]), tokenizer), LABELS)
    model.save(tmp_path / "play")
    with pytest.raises(mp.UserError, match="segmenter 'in_pairs' of your own: pass it, segmenter="):
        mp.load(tmp_path / "play")
    back, ids = mp.load(tmp_path / "play", segmenter=in_pairs), tokenizer.encode("这个东西").ids
    assert back.tokenizer.encode("这个东西").ids == ids and len(tokens) - 1 in ids


def test_segments_that_are_token_ids_are_not_made_up() -> None:
    model = mp.plays.Classify(bert(3, ("pooler",), num_segments=None), LABELS)
    tokens = np.array([[2, 5, 6, 3]])
    wanted = model.classifier(model.pooler(model.encoder(tokens)))
    found = model({"tokens": tokens, "segments": np.zeros((1, 4), "int32")})
    np.testing.assert_allclose(*(keras.ops.convert_to_numpy(each) for each in (found, wanted)), atol=1e-6)


def test_an_opened_play_stands_apart_from_its_file(folder: Path) -> None:
    model = mp.load(folder)
    before = model.probabilities(["这个好", "差"])
    path = folder / "model.safetensors"
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(path.stat().st_size // 2))
    np.testing.assert_array_equal(model.probabilities(["这个好", "差"]), before)
