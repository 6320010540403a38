"""Positions: what makes rotary positions relative, their decay, and hierarchical tables against their digits."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from maskplay import layers, masks
from maskplay.config import Config
from maskplay.encoder import Encoder
from maskplay.layers import LearnedPosition, Rotary
from maskplay.layers.position import distances

RANDOM = np.random.default_rng(0)
PAIRS = [(0, 0), (3, 0), (0, 3), (7, 2), (1, 40)]
SHIFTS = (0, 5, 100, 1000)
# JAX has float64 only when started with it.
PRECISIONS = [("float32", 1e-4)] + ([] if keras.backend.backend() == "jax" else [("float64", 1e-10)])


def turned(x: np.ndarray, place: int, interleaved: bool = True, dtype: str | None = None) -> np.ndarray:
    """A vector `(size,)` at a place."""
    tensor = ops.convert_to_tensor(x[None, None, None], dtype or str(x.dtype))
    layer = Rotary(interleaved=interleaved, dtype=dtype or str(x.dtype))
    return ops.convert_to_numpy(ops.cast(layer(tensor, np.array([place], "int32")), str(x.dtype)))[0, 0, 0]


def by_hand(x: np.ndarray, place: float) -> np.ndarray:
    """Pairs (2i, 2i+1) as complex numbers, times e^(i · place · 10000^(-2i/size)), in float64."""
    numbers = x[0::2].astype("float64") + 1j * x[1::2]
    numbers = numbers * np.exp(1j * place * 10000.0 ** (-np.arange(0, len(x), 2) / len(x)))
    return np.stack([numbers.real, numbers.imag], axis=-1).reshape(-1)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("interleaved", [True, False])
def test_products_depend_on_distances_only(dtype: str, tolerance: float, interleaved: bool) -> None:
    query, key = RANDOM.normal(size=(2, 64)).astype(dtype) / 8
    for m, n in PAIRS:
        products = [turned(query, m + t, interleaved) @ turned(key, n + t, interleaved) for t in SHIFTS]
        np.testing.assert_allclose(products, products[0], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_rotations(dtype: str, tolerance: float) -> None:
    x = RANDOM.normal(size=64).astype(dtype)
    np.testing.assert_array_equal(turned(x, 0), x)
    for m, n in PAIRS:
        np.testing.assert_allclose(turned(turned(x, m), n), turned(x, m + n), rtol=0, atol=tolerance)
        np.testing.assert_allclose(np.linalg.norm(turned(x, m)), np.linalg.norm(x), atol=tolerance)
        np.testing.assert_allclose(turned(x, m), by_hand(x, m), rtol=0, atol=tolerance)


def test_the_sign_of_a_distance_matters() -> None:
    query, key = RANDOM.normal(size=(2, 16)).astype("float32")
    assert abs(turned(query, 0) @ turned(key, 3) - turned(query, 3) @ turned(key, 0)) > 0.1
    # One pair, a quarter of a turn ahead: (1, 0) at place 1 points to (cos 1, sin 1).
    np.testing.assert_allclose(turned(np.array([1, 0], "float32"), 1), [np.cos(1), np.sin(1)], atol=1e-6)


def test_interleaved_is_halves_with_channels_exchanged() -> None:
    x = RANDOM.normal(size=32).astype("float32")
    exchange = np.concatenate([np.arange(0, 32, 2), np.arange(1, 32, 2)])
    for place in (0, 3, 500):
        np.testing.assert_allclose(turned(x, place)[exchange], turned(x[exchange], place, False), atol=1e-6)


def test_products_decay_with_distance() -> None:
    golden = {0: 32.5, 1: 31.538, 2: 28.956, 4: 22.604, 8: 19.817, 16: 15.775, 32: 13.384, 64: 10.090}
    golden |= {128: 9.273, 256: 6.543, 512: 5.311}
    # Each pair of a vector of ones and zeros, turned, is e^(i m θ): the measure is the mean of |partial sums|.
    start = np.tile(np.array([1, 0], "float32"), 64)
    places = np.array(sorted(golden), "int32")
    x = np.broadcast_to(start, (1, len(places), 1, 128))
    pairs = ops.convert_to_numpy(Rotary()(x, places)).reshape(len(places), 64, 2)
    measure = np.linalg.norm(np.cumsum(pairs, axis=1), axis=-1).mean(axis=-1)
    np.testing.assert_allclose(measure, [golden[place] for place in sorted(golden)], atol=2e-3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_angles_are_exact_in_half_precision(policy: str) -> None:
    layer = Rotary(dtype=policy)
    x = ops.cast(np.tile(np.array([1, 0], "float32"), 4)[None, None, None], layer.compute_dtype)
    found = layer(x, np.array([100_000], "int32"))
    assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
    expected = by_hand(np.tile(np.array([1.0, 0.0]), 4), 100_000)
    # Only the result is rounded: half precision has 8 bits or more, an angle taken in it would be off by whole turns.
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(found, "float32"))[0, 0, 0], expected, atol=2**-8)


def test_places_may_differ_between_examples() -> None:
    x = RANDOM.normal(size=(2, 3, 2, 8)).astype("float32")
    places = np.array([[0, 1, 2], [9, 4, 7]], "int32")
    together = ops.convert_to_numpy(Rotary()(x, places))
    for row in range(2):
        alone = ops.convert_to_numpy(Rotary()(x[row : row + 1], places[row]))
        np.testing.assert_allclose(together[row], alone[0], atol=1e-6)


TINY = Config(vocab_size=20, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=16, max_positions=64)
TOKENS = np.array([[5, 6, 7, 8, 9, 3, 0, 0], [3, 4, 5, 6, 7, 9, 2, 1]], "int32")


@pytest.mark.parametrize("position", ["rotary", "learned"])
def test_a_shift_of_all_places_changes_bert_and_not_roformer(position: Any) -> None:
    encoder = Encoder(TINY.but(position=position, initializer_range=0.3))
    plain, shifted = (
        ops.convert_to_numpy(encoder(TOKENS, positions=np.arange(8) + shift, mask=masks.padding())) for shift in (0, 50)
    )
    difference = abs(plain - shifted).max()
    assert difference <= 1e-4 if position == "rotary" else difference > 1e-2
    default = ops.convert_to_numpy(encoder(TOKENS))
    np.testing.assert_allclose(default, plain, atol=1e-6)


def test_rotary_models_have_no_table_and_see_the_order() -> None:
    encoder = Encoder(TINY.but(position="rotary", initializer_range=0.3))
    first = ops.convert_to_numpy(encoder(TOKENS, mask=masks.full()))
    assert not [weight.path for weight in encoder.weights if "position" in weight.path or "rotary" in weight.path]
    backwards = ops.convert_to_numpy(encoder(TOKENS[:, ::-1], mask=masks.full()))[:, ::-1]
    assert abs(first - backwards).max() > 1e-3


# Hierarchical tables.


def test_the_first_rows_are_the_table() -> None:
    layer = LearnedPosition(16, 8, hierarchical=True)
    codes = ops.convert_to_numpy(layer(np.arange(16)))
    np.testing.assert_allclose(codes, ops.convert_to_numpy(layer.embeddings.value), atol=1e-6)


def test_all_codes_differ_and_equal_their_digits() -> None:
    rows, alpha = 16, 0.4
    layer = LearnedPosition(rows, 8, hierarchical=True)
    codes = ops.convert_to_numpy(layer(np.arange(rows**2)))
    assert np.isfinite(codes).all()
    distances = np.linalg.norm(codes[:, None] - codes[None], axis=-1) + np.eye(rows**2)
    assert distances.min() > 1e-4
    table = ops.convert_to_numpy(layer.embeddings.value).astype("float64")
    digits = (table - alpha * table[0]) / (1 - alpha)
    for place in (0, 1, rows - 1, rows, 3 * rows + 5, rows**2 - 1):
        i, j = divmod(place, rows)
        np.testing.assert_allclose(codes[place], alpha * digits[i] + (1 - alpha) * digits[j], atol=1e-6)


def test_a_hierarchical_model_reads_longer_texts_and_short_ones_as_before() -> None:
    config = TINY.but(max_positions=4)
    long = Encoder(config.but(position="hierarchical"))
    assert long(TOKENS).shape == (2, 8, 16)
    short = Encoder(config)
    short.build()
    short.set_weights(long.get_weights())
    np.testing.assert_allclose(
        ops.convert_to_numpy(long(TOKENS[:, :4])), ops.convert_to_numpy(short(TOKENS[:, :4])), atol=1e-5
    )


# Relative positions


def test_buckets_are_the_originals() -> None:
    """Golden numbers of specs T11: distance (key minus query) to bucket."""
    both = {-200: 15, -64: 14, -16: 10, -8: 8, -7: 7, -1: 1, 0: 0}
    both |= {1: 17, 7: 23, 8: 24, 16: 26, 64: 30, 127: 31, 200: 31}
    past = {-200: 31, -64: 26, -32: 21, -16: 16, -1: 1, 0: 0, 1: 0, 90: 0}
    for two_way, wanted in ((True, both), (False, past)):
        found = layers.RelativeBias(1, two_way=two_way).buckets(np.array([[list(wanted)]]))
        assert ops.convert_to_numpy(found).ravel().tolist() == list(wanted.values())


def test_clipped_relative_attention_is_the_naive_sum() -> None:
    """NEZHA by a double loop: the vector of each pair's distance joins the key and the value."""
    draw = np.random.default_rng(4)
    n, heads, size, limit = 9, 2, 4, 3
    attention = layers.Attention(heads, size)
    x = draw.normal(size=(1, n, heads * size))
    table = layers.RelativeSinusoids(limit, size)(distances(ops.arange(n), ops.arange(n)))
    found = ops.convert_to_numpy(attention(ops.convert_to_tensor(x, "float32"), relative=table))[0]
    vectors = ops.convert_to_numpy(table)[0]
    assert np.array_equal(vectors[0, limit], vectors[0, n - 1]) and not np.array_equal(vectors[0, 1], vectors[1, 0])
    q, k, v = (
        (x[0] @ ops.convert_to_numpy(dense.kernel) + ops.convert_to_numpy(dense.bias)).reshape(n, heads, size)
        for dense in (attention.query, attention.key, attention.value)
    )
    mixed = np.zeros((n, heads, size))
    for i in range(n):
        for h in range(heads):
            scores = np.array([q[i, h] @ (k[j, h] + vectors[i, j]) for j in range(n)]) / size**0.5
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            mixed[i, h] = sum(weights[j] * (v[j, h] + vectors[i, j]) for j in range(n))
    kernel, bias = (ops.convert_to_numpy(w) for w in (attention.output_dense.kernel, attention.output_dense.bias))
    output = mixed.reshape(n, -1) @ kernel + bias
    np.testing.assert_allclose(found, output, atol=1e-5)
