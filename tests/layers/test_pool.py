"""Pooling over what is valid: the worked examples, padding, and rows with nothing in them."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from gradients import gradient
from maskplay.layers import AttentionPooling, MaskedMax, MaskedMean, masked_softmax

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 5, 4)).astype("float32")
VALID = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]], bool)
POOLS = {"mean": MaskedMean(), "max": MaskedMax(), "attention": AttentionPooling(3)}


def numpy(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(x)


def test_a_zero_that_is_valid_counts() -> None:
    x = np.array([1, 0, 3, 4, 5, 7, 7], "float32").reshape(1, 7, 1)
    valid = np.array([[1, 1, 1, 1, 1, 0, 0]])
    assert numpy(MaskedMean()(x, valid=valid))[0, 0] == pytest.approx(2.6)
    assert numpy(MaskedMean()(x[:, :5]))[0, 0] == pytest.approx(2.6)


def test_the_maximum_of_negative_values_is_not_zero() -> None:
    x = np.array([-3, -2, 0, 0], "float32").reshape(1, 4, 1)
    assert numpy(MaskedMax()(x, valid=np.array([[1, 1, 0, 0]]))).tolist() == [[-2.0]]


def test_softmax_sums_to_one_over_what_is_valid() -> None:
    scores = RANDOM.normal(size=(3, 5)).astype("float32")
    weights = numpy(masked_softmax(ops.convert_to_tensor(scores), ops.convert_to_tensor(VALID)))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    assert (weights[~VALID] == 0).all() and (weights[VALID] > 0).all()
    exponentials = np.exp(scores) * VALID
    np.testing.assert_allclose(weights, exponentials / exponentials.sum(axis=-1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_padding_changes_nothing(pool: Any) -> None:
    rubbish = np.where(VALID[..., None], X, np.float32(1e6))
    pooled = numpy(pool(X, valid=VALID))
    np.testing.assert_array_equal(numpy(pool(rubbish, valid=VALID)), pooled)
    np.testing.assert_array_equal(numpy(pool(X, valid=VALID.astype("int32"))), pooled)
    longer = np.concatenate([X, np.full((3, 2, 4), np.nan, "float32")], axis=1)
    padded = numpy(pool(longer, valid=np.concatenate([VALID, np.zeros((3, 2), bool)], axis=1)))
    np.testing.assert_allclose(padded, pooled, atol=1e-6)
    np.testing.assert_allclose(numpy(pool(X))[2], pooled[2], atol=1e-6)


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_a_mask_of_keras_counts_where_nothing_else_is_said(pool: Any) -> None:
    ids = np.array([[3, 1, 0, 0], [2, 2, 1, 0], [1, 2, 3, 1]])
    table = np.array([[9, 9, 9, 9], [1, 2, 3, 4], [4, 3, 2, 1], [0, 5, 0, 5]])  # padding, a greatest value, counts
    hidden = keras.layers.Embedding(4, 4, keras.initializers.Constant(table), mask_zero=True)(ids)
    wanted = numpy(pool(numpy(hidden), valid=ids != 0))
    np.testing.assert_array_equal(numpy(pool(hidden)), wanted)
    np.testing.assert_array_equal(numpy(pool(hidden, valid=np.ones_like(ids))), numpy(pool(numpy(hidden))))
    assert abs(wanted - numpy(pool(numpy(hidden)))).max() > 1e-3


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_one_valid_token_is_returned_and_none_gives_zero(pool: Any) -> None:
    valid = np.array([[0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]], bool)
    pooled = numpy(pool(X, valid=valid))
    np.testing.assert_allclose(pooled[0], X[0, 2], atol=1e-6)
    assert (pooled[1] == 0).all()
    slope = gradient(lambda x: ops.sum(pool(x, valid=ops.convert_to_tensor(valid)) ** 2), X)
    assert np.isfinite(slope).all() and (slope[~valid] == 0).all() and (slope[0, 2] != 0).any()


def test_attention_pooling_by_hand() -> None:
    pool = AttentionPooling(3)
    pool(X)
    inner, outer = (numpy(w) for w in (pool.inner.kernel, pool.score.kernel))
    weights = np.exp(np.tanh(X @ inner) @ outer) * VALID[..., None]
    expected = (weights * X).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(numpy(pool(X, valid=VALID)), expected, atol=1e-5)
    pool.score.kernel.assign(np.zeros((3, 1)))
    np.testing.assert_allclose(numpy(pool(X, valid=VALID)), numpy(MaskedMean()(X, valid=VALID)), atol=1e-6)
