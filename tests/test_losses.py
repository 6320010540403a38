"""The token loss against Keras' own, against a double loop, and at its edges."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from gradients import gradient
from maskplay import _backend, autodiff, losses
from maskplay.errors import UserError
from maskplay.losses import TokenCrossEntropy, token_losses

RANDOM = np.random.default_rng(5)
BATCH, LENGTH, CLASSES = 3, 7, 500
LOGITS = (3 * RANDOM.standard_normal((BATCH, LENGTH, CLASSES))).astype("float32")
LABELS = RANDOM.integers(0, CLASSES, (BATCH, LENGTH)).astype("int32")
MASKED = np.where(RANDOM.random((BATCH, LENGTH)) < 0.6, -100, LABELS)


def by_hand(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> float:
    """Σ m·ce / Σ m in float64, one token at a time."""
    total = 0.0
    for at in np.ndindex(labels.shape):
        if weights[at]:
            row = logits[at].astype("float64")
            total += weights[at] * (np.log(np.exp(row - row.max()).sum()) + row.max() - row[labels[at]])
    return total / weights.sum()


def test_equals_keras() -> None:
    ours = TokenCrossEntropy(reduction="none")(LABELS, LOGITS)
    stock = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")(LABELS, LOGITS)
    np.testing.assert_allclose(ops.convert_to_numpy(ours), ops.convert_to_numpy(stock), rtol=1e-6, atol=2e-6)
    stock = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, LOGITS)
    assert float(TokenCrossEntropy()(LABELS, LOGITS)) == pytest.approx(float(stock), rel=1e-6)


def test_what_does_not_count_may_be_infinite() -> None:
    logits = np.array([[[-np.inf, 0.0, 1.0], [2.0, 0.0, -1.0]]], "float32")
    labels = np.array([[-100, 1]])
    assert float(TokenCrossEntropy()(labels, logits)) == pytest.approx(by_hand(labels, logits, labels != -100))
    slope = gradient(lambda x: TokenCrossEntropy()(labels, x), logits)
    assert np.isfinite(slope).all() and not slope[0, 0].any() and slope[0, 1].any()


def test_gradient_equals_keras() -> None:
    stock_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours = gradient(lambda x: TokenCrossEntropy()(LABELS, x), LOGITS)
    stock = gradient(lambda x: stock_loss(LABELS, x), LOGITS)
    assert np.abs(stock).max() > 0.02
    np.testing.assert_allclose(ours, stock, atol=1e-6)


def test_ignores_a_label_and_divides_by_what_counts() -> None:
    expected = by_hand(MASKED, LOGITS, (MASKED != -100).astype("float64"))
    assert float(TokenCrossEntropy()(MASKED, LOGITS)) == pytest.approx(expected, rel=1e-6)
    other = np.where(MASKED == -100, 0, MASKED)
    expected = by_hand(other, LOGITS, (other != 0).astype("float64"))
    assert float(TokenCrossEntropy(ignore_class=0)(other, LOGITS)) == pytest.approx(expected, rel=1e-6)
    step = gradient(lambda x: TokenCrossEntropy()(MASKED, x), LOGITS)
    assert not step[MASKED == -100].any() and step[MASKED != -100].any(axis=-1).all()


@pytest.mark.parametrize("shape", [(BATCH, LENGTH), (BATCH,)])
@pytest.mark.parametrize("ignore", [-100, None])
def test_weights(shape: tuple[int, ...], ignore: int | None) -> None:
    labels = LABELS if ignore is None else MASKED
    weights = RANDOM.random(shape).astype("float32")
    full = np.broadcast_to(weights.reshape(*shape, *[1] * (2 - len(shape))), labels.shape) * (labels != -100)
    loss = TokenCrossEntropy(ignore_class=ignore)(labels, LOGITS, weights)
    assert float(loss) == pytest.approx(by_hand(labels, LOGITS, full), rel=1e-6)


def test_nothing_counts() -> None:
    nothing = np.full_like(LABELS, -100)
    assert float(TokenCrossEntropy()(nothing, LOGITS)) == 0.0
    assert not gradient(lambda x: TokenCrossEntropy()(nothing, x), LOGITS).any()


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[[1e4, -1e4, 0.0], [-1e30, 0.0, 1.0], [-np.inf, 0.0, 0.0]]], "float32")
    labels = np.array([[0, 2, 1]], "int32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(TokenCrossEntropy(reduction="none")(labels, logits)),
        [[0.0, np.log1p(np.exp(-1.0)), np.log(2.0)]],
        rtol=1e-6,
    )
    assert np.isfinite(gradient(lambda x: TokenCrossEntropy()(labels, x), logits)).all()


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = ops.cast(ops.zeros((1, 2, 30000)), "bfloat16")
    labels = [[29999, 20001]]  # not bfloat16 numbers
    loss = TokenCrossEntropy()(labels, logits)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss) == pytest.approx(np.log(30000.0), rel=1e-6)


def test_large_labels_survive_a_half_precision_default() -> None:
    before = keras.config.floatx()
    keras.config.set_floatx("bfloat16")
    try:
        logits = np.zeros((1, 1, 5000), "float32")
        logits[0, 0, 4001] = 50.0
        assert float(TokenCrossEntropy()([[4001]], logits)) == pytest.approx(0.0, abs=1e-6)
    finally:
        keras.config.set_floatx(before)


def test_labels_with_a_last_axis_of_one_and_without_a_length() -> None:
    loss = TokenCrossEntropy()
    expected = float(loss(LABELS, LOGITS))
    assert float(loss(LABELS[..., None], LOGITS)) == pytest.approx(expected, rel=1e-6)
    flat = float(loss(LABELS.reshape(-1), LOGITS.reshape(-1, CLASSES)))
    assert flat == pytest.approx(expected, rel=1e-6)


def test_trains_in_compile_and_survives_saving(tmp_path) -> None:
    model = keras.Sequential([keras.layers.Input((5,), dtype="int32"), keras.layers.Embedding(9, 9)])
    model.compile(keras.optimizers.Adam(0.1), loss=TokenCrossEntropy(ignore_class=8))
    tokens = RANDOM.integers(0, 9, (16, 5)).astype("int32")
    before = model.train_on_batch(tokens, tokens)
    for _ in range(30):
        after = model.train_on_batch(tokens, tokens)
    assert after < 0.2 * before
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.loss.get_config() == model.loss.get_config()
    assert again.loss.ignore_class == 8


def test_a_fixed_number_of_tokens_makes_accumulation_exact() -> None:
    """Micro-batches with 1, 8, 3 and 6 targets are one batch if the loss divides by a constant, not by each count."""
    x, labels = RANDOM.normal(size=(8, 4, 3)).astype("float32"), RANDOM.integers(0, 5, (8, 4))
    counted = np.zeros((4, 8), bool)
    for row, targets in zip(counted, (1, 8, 3, 6)):
        row[:targets] = True
    labels[~counted.reshape(8, 4)] = -100
    start = [RANDOM.normal(size=(3, 5)).astype("float32"), np.zeros(5, "float32")]

    def trained(loss, rows: int, loss_weights=None) -> np.ndarray:
        model = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(5)])
        model.set_weights(start)
        steps = len(x) // rows
        optimizer = keras.optimizers.SGD(1.0, momentum=0.9, gradient_accumulation_steps=steps if steps > 1 else None)
        model.compile(optimizer, loss, loss_weights=loss_weights)
        model.fit(x, labels, batch_size=rows, epochs=2, shuffle=False, verbose=0)
        return model.get_weights()[0]

    tokens = 4.5  # of a micro-batch of 2 rows, on average
    whole = trained(TokenCrossEntropy(), 8)  # the mean over all 18 tokens
    np.testing.assert_allclose(trained(TokenCrossEntropy(reduction="sum"), 8, 1 / (4 * tokens)), whole, atol=1e-6)
    np.testing.assert_allclose(trained(TokenCrossEntropy(reduction="sum"), 2, 1 / tokens), whole, atol=1e-6)
    assert np.abs(trained(TokenCrossEntropy(), 2) - whole).max() > 1e-2  # a mean of means


WIDTH, PLACES = 12, 8
TABLE = RANDOM.normal(size=(CLASSES, WIDTH)).astype("float32")
BIAS = RANDOM.normal(size=CLASSES).astype("float32")


def vectors(places: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(places)
    x = draw.normal(size=(BATCH, places, WIDTH)).astype("float32")
    labels = draw.integers(0, CLASSES, (BATCH, places))
    return x, np.where(draw.random(labels.shape) < 0.4, -100, labels).astype("int32"), draw.random(labels.shape)


@pytest.fixture
def few_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for those of eight places of every row."""
    monkeypatch.setattr(losses, "LOGITS", PLACES * BATCH * CLASSES)


@pytest.mark.usefixtures("few_logits")
@pytest.mark.parametrize("places", [1, PLACES, 2 * PLACES + 5])
def test_losses_without_logits(places: int) -> None:
    """Losses, hits and all three gradients against those of logits in float64; every loss has a slope of its own."""
    x, labels, weights = vectors(places)
    logits = x.astype("float64") @ TABLE.T.astype("float64") + BIAS
    counted = labels >= 0
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    right = np.take_along_axis(shares, np.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    found = ops.convert_to_numpy(token_losses(x, TABLE, BIAS, labels))
    np.testing.assert_allclose(found[..., 0], np.where(counted, -np.log(right), 0), atol=2e-5)
    np.testing.assert_array_equal(found[..., 1], counted & (logits.argmax(axis=-1) == labels))
    pull = shares * counted[..., None]
    pull[np.nonzero(counted) + (labels[counted],)] -= 1
    pull *= weights[..., None]
    expected = (pull @ TABLE, np.einsum("bpc,bpw->cw", pull, x.astype("float64")), pull.sum(axis=(0, 1)))
    scale = ops.convert_to_tensor(weights.astype("float32"))
    given = [x, TABLE, BIAS]
    for i, slope in enumerate(expected):

        def loss(tensor, i=i):
            return ops.sum(token_losses(*given[:i], tensor, *given[i + 1 :], labels)[..., 0] * scale)

        np.testing.assert_allclose(gradient(loss, given[i]), slope, atol=2e-5)


@pytest.mark.usefixtures("few_logits")
def test_losses_without_logits_in_half_precision() -> None:
    x, labels, _ = vectors(PLACES + 3)
    exact = ops.convert_to_numpy(token_losses(x, TABLE, BIAS, labels))
    rough = token_losses(ops.cast(x, "bfloat16"), TABLE, BIAS, labels)
    assert keras.backend.standardize_dtype(rough.dtype) == "float32"
    largest = np.abs(x @ TABLE.T + BIAS).max()  # a loss is the difference of two such, each with bfloat16's eight bits
    np.testing.assert_allclose(ops.convert_to_numpy(rough)[..., 0], exact[..., 0], atol=2 * 2**-7 * largest)
    # The logits alone have eight bits: those of one product give the same losses, save where one is rounded otherwise.
    half = [ops.cast(value, "bfloat16") for value in (x, TABLE.T, BIAS)]
    logits = ops.convert_to_numpy(ops.cast(ops.matmul(half[0], half[1]) + half[2], "float32")).astype("float64")
    wanted = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, np.maximum(labels, 0)[..., None], -1)[..., 0]
    assert np.median(np.abs(ops.convert_to_numpy(rough)[..., 0] - wanted)[labels >= 0]) < 1e-3


def test_of_equally_high_logits_the_first_is_the_answer() -> None:
    found = token_losses(np.zeros((1, 2, WIDTH), "float32"), TABLE, np.zeros(CLASSES, "float32"), np.array([[0, 1]]))
    np.testing.assert_array_equal(found[0, :, 1], [1, 0])


@pytest.mark.usefixtures("few_logits")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_slopes_of_losses_without_logits_have_slopes(dtype: str) -> None:
    """What a gradient penalty needs, as with logits: the slope of the length of the table's slope."""
    x, labels, _ = vectors(2 * PLACES + 5)
    labels = np.maximum(labels, 0)
    x, bias = ops.cast(x, dtype), ops.convert_to_tensor(BIAS)

    def whole(table):
        logits = ops.cast(ops.matmul(x, ops.cast(ops.transpose(table), dtype)) + ops.cast(bias, dtype), "float32")
        return TokenCrossEntropy(reduction="sum")(labels, logits)

    def parts(table):
        return ops.sum(token_losses(x, table, bias, labels)[..., 0])

    found, expected = (
        gradient(lambda table, of=of: ops.sum(autodiff.gradient(of, table) ** 2), TABLE) for of in (parts, whole)
    )
    assert np.abs(expected).max() > 1
    near = np.abs(found - expected).max() / np.abs(expected).max()
    assert near < (1e-4 if dtype == "float32" else 0.05)


def test_losses_without_logits_of_any_length() -> None:
    """TensorFlow compiles the second shape for all that follow: then it knows neither rows nor places."""

    def losses_and_slope(x, labels):
        def total(table):
            return ops.sum(token_losses(x, table, BIAS, labels)[..., 0])

        return token_losses(x, TABLE, BIAS, labels), autodiff.gradient(total, ops.convert_to_tensor(TABLE))

    fast = _backend.compiled(losses_and_slope, [])
    for rows, places in ((2, 3), (2, 5), (3, 4), (1, 1)):
        x, labels, _ = vectors(places)
        given = [ops.convert_to_tensor(each[:rows]) for each in (x, labels)]
        for found, expected in zip(fast(*given), losses_and_slope(*given), strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(expected), atol=1e-5)


def test_losses_are_of_logits() -> None:
    """Under any of its names Keras' sparse cross-entropy is that of logits; what cannot be turned is refused."""
    sparse = keras.losses.SparseCategoricalCrossentropy
    for loss in (None, sparse, keras.losses.sparse_categorical_crossentropy):
        assert losses.of_logits(loss).from_logits
    for name in ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"):
        assert losses.of_logits(name).from_logits
    categorical = keras.losses.categorical_crossentropy
    given = functools.partial(categorical, from_logits=True)
    for loss in (sparse(from_logits=True), given, TokenCrossEntropy(), keras.losses.MeanSquaredError()):
        assert losses.of_logits(loss) is loss
    for loss in (sparse(), categorical, "categorical_crossentropy", "CategoricalCrossentropy", "binary_crossentropy"):
        with pytest.raises(UserError, match="made with from_logits=True, found .*[cC]rossentropy without"):
            losses.of_logits(loss)
