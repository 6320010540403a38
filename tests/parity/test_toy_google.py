"""A real checkpoint in Google's format (hidden size 4, from the tests of keras-bert, MIT), read without TensorFlow.

The numbers are those of bert4keras 0.11.5, to six digits. The weights are small (std 0.017): this proves names,
shapes and orientation of every tensor in a TensorFlow bundle; test_golden.py proves the arithmetic.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import maskplay as mp
from parity.closeness import assert_within

TOKENS = np.array([[2, 5, 6, 3, 7, 3]], "int32")
SEGMENTS = np.array([[0, 0, 0, 0, 1, 1]], "int32")


def test_keras_bert_toy(data: Path) -> None:
    folder = data / "ckpt_toy_tf" / "keras-bert" / "test_checkpoint"
    if not folder.is_dir():
        pytest.skip(f"no keras-bert toy checkpoint in {folder}")
    bert = mp.load(folder)
    ours = bert.network(TOKENS, segments=SEGMENTS)
    hidden = np.array([[-0.765790, 1.719802, -0.456400, -0.497602], [0.640604, 0.996094, -1.611461, -0.025243]])
    assert_within(2e-6, "toy hidden", ours["hidden"][0, :2], hidden)
    assert_within(2e-6, "toy pooled", ours["pooled"][0], np.array([-0.006315, -0.020219, -0.026262, -0.042067]))
    assert_within(2e-6, "toy nsp", keras.ops.softmax(ours["nsp"])[0], np.array([0.499483, 0.500517]))
    chances = keras.ops.softmax(ours["mlm"])[0]
    assert keras.ops.convert_to_numpy(chances).argmax(-1).tolist() == [12, 6, 7, 12, 12, 6]
    assert_within(2e-6, "toy mlm", chances[2, :4], np.array([0.064250, 0.068130, 0.067108, 0.068199]))
