"""Settings that are whole numbers: which kinds are taken, and where they are asked for."""

import keras
import numpy as np
import pytest
from keras import ops

import maskplay as mp
from maskplay.errors import UserError, whole_number, within


@pytest.mark.parametrize("found", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_every_kind_of_whole_number_is_taken(found: object) -> None:
    assert whole_number("n", found, 1) == 3 and type(whole_number("n", found, 1)) is int


@pytest.mark.parametrize("found", [True, np.True_, 2.0, np.float64(2), "2", None, [2], 0, 5])
def test_all_else_is_refused(found: object) -> None:
    with pytest.raises(UserError, match="^n: expected a whole number from 1 to 4, found "):
        whole_number("n", found, 1, 4)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1), np.float64(1)])
def test_a_number_in_bounds(value: object) -> None:
    assert within(value, 0, 1)


@pytest.mark.parametrize("value", [True, "1", None, [1], float("nan"), np.float32("nan"), 1.1, -1, 10**400])
def test_all_else_is_not_within(value: object) -> None:
    assert within(value, 0, 1) is False


def test_numpy_integers_are_settings() -> None:
    two = np.int64(2)
    lines = ["山高水长。", "山高水清。"]
    assert "山高" in mp.words.count(iter(lines), n=two, workers=two, min_count=two)
    model = mp.load("bundled:zh-small")
    assert len(model.fill("天[MASK]", top=two)) == 2
    assert model.encode(lines, batch_size=two, max_length=np.int32(6)).shape == (2, 256)
    optimizer = mp.optimizers.Lookahead(keras.optimizers.SGD(1.0), two, 0.5)
    variable = keras.Variable([0.0])
    optimizer.build([variable])
    for _ in range(2):
        optimizer.apply([ops.ones(1)])
    assert float(ops.convert_to_numpy(variable)[0]) == -1.0  # half of the way of two steps
