"""Weights are drawn, but not those that a file fills."""

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import maskplay as mp
from maskplay.config import Config
from maskplay.language_model import LanguageModel, named_weights
from maskplay.layers.initializer import Normal, to_be_filled

SMALL = Config(vocab_size=30, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=8)


def test_zeros_inside_only() -> None:
    with to_be_filled():
        assert not keras.ops.convert_to_numpy(Normal()((3, 4), "float16")).any()
        with to_be_filled(False):
            assert keras.ops.convert_to_numpy(Normal()((3, 4))).any()
    with pytest.raises(ZeroDivisionError), to_be_filled():
        raise ZeroDivisionError
    assert keras.ops.convert_to_numpy(Normal()((3, 4))).any()


def test_every_weight_of_a_network_is_drawn_by_itself() -> None:
    network = LanguageModel(SMALL, ["mlm", "pooler", "nsp"])
    network.build()
    drawn = [keras.ops.convert_to_numpy(weight).ravel()[:16] for weight in named_weights(network).values()]
    random = [values for values in drawn if len(np.unique(values)) > 1]
    assert len(random) > 2 * 6
    assert len({values.tobytes() for values in random}) == len(random)


def test_what_a_file_has_is_not_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """And where it lacks something, that is."""
    calls = []
    draw = keras.initializers.TruncatedNormal.__call__
    monkeypatch.setattr(
        keras.initializers.TruncatedNormal, "__call__", lambda *given, **kw: calls.append(1) or draw(*given, **kw)
    )
    LanguageModel(SMALL, ["mlm"]).build()
    assert calls
    tokenizer = mp.fresh.vocabulary(["天地玄黄"] * 5, 90)
    sizes = dict(hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8)
    mp.Pretrained(mp.fresh.network("bert", tokenizer, **sizes), tokenizer, "bert").save(
        tmp_path / "whole", format="huggingface"
    )
    calls.clear()
    whole = mp.load(tmp_path / "whole")
    assert not calls
    mp.plays.Classify(whole, ["neg", "pos"]).save(tmp_path / "play")
    assert calls  # of the classifier's own weights
    calls.clear()
    assert mp.load(tmp_path / "play").labels == ("neg", "pos") and not calls
    path = tmp_path / "whole" / "model.safetensors"
    arrays = load_file(path)
    del arrays["bert.encoder.layer.0.attention.self.query.weight"]
    save_file(arrays, path, {"format": "pt"})
    part = mp.load(tmp_path / "whole", strict=False)
    assert calls and "encoder/block_0/attention/query/kernel" in part.report.left_empty
    one, other = (named_weights(made.network)["encoder/block_0/attention/query/kernel"] for made in (whole, part))
    assert 0 < np.abs(other.numpy()).max() and not np.array_equal(one.numpy(), other.numpy())
