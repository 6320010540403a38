"""One step of training with each trick, against NumPy in float64; what a model keeps of it; every kind of model.

The model of the references is a mean of embeddings, then linear, then softmax. Its losses with tricks are written out
here, and differentiated by finite differences.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from gradients import compile_without_kernels
from maskplay.config import Config
from maskplay.errors import UserError
from maskplay.language_model import LanguageModel
from maskplay.losses import TokenCrossEntropy
from maskplay.plays import Classify
from maskplay.pretrained import load
from maskplay.regularization import FGM, GradientPenalty, RDrop, Step, VirtualAdversarial, regularize
from maskplay.text.tokenizer import Tokenizer

ROWS, TOKENS, WIDTH, CLASSES = 6, 7, 3, 3
RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, TOKENS - 1, (ROWS, 4))  # the last token does not occur
Y = RANDOM.integers(0, CLASSES, ROWS)
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 1.0])
START = [RANDOM.normal(size=shape) for shape in ((TOKENS, WIDTH), (WIDTH, CLASSES), (CLASSES,))]
RATE = 0.5
PAIRS = [(RDrop(), FGM("token/")), (GradientPenalty("token/"), VirtualAdversarial("token/", seed=1))]


@keras.saving.register_keras_serializable(package="maskplay_tests")
class Scaled(keras.layers.Layer):
    """Dropout that can be foretold: in training the n-th pass is multiplied by 1 + n/2."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.passes = keras.random.SeedGenerator(0)

    def call(self, x, training=False):
        if not training:
            return x
        return x * (1 + ops.cast(self.passes.next()[1], x.dtype) / 2)


def model_of(*extra, eagerly=False, jit_compile="auto", from_logits=True):
    model = keras.Sequential(
        [
            keras.layers.Embedding(TOKENS, WIDTH, name="token"),
            keras.layers.GlobalAveragePooling1D(),
            *extra,
            keras.layers.Dense(CLASSES, None if from_logits else "softmax", name="scores"),
        ]
    )
    model.build((None, X.shape[1]))
    for weight, value in zip(model.weights, START):
        weight.assign(value)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits, reduction="mean_with_sample_weight")
    how = {"run_eagerly": eagerly, "jit_compile": jit_compile}
    model.compile(keras.optimizers.SGD(RATE), loss, weighted_metrics=["accuracy"], **how)
    return model


def step(model, weights=WEIGHTS, **kwargs):
    """One step on the batch: what `fit` reports, and the weights after it."""
    history = model.fit(X, Y, batch_size=ROWS, sample_weight=weights, verbose=0, shuffle=False, **kwargs)
    return {name: values[0] for name, values in history.history.items()}, model.get_weights()


def log_softmax(scores):
    peak = scores.max(axis=-1, keepdims=True)
    return scores - peak - np.log(np.exp(scores - peak).sum(axis=-1, keepdims=True))


def scores(parameters, scale=1.0):
    table, kernel, bias = parameters
    return scale * table[X].mean(axis=1) @ kernel + bias


def plain(parameters, scale=1.0):
    right = log_softmax(scores(parameters, scale))[np.arange(ROWS), Y]
    return -(right * WEIGHTS).sum() / WEIGHTS.sum()


def slope(parameters):
    """∂ plain / ∂ table, by hand."""
    wrong = np.exp(log_softmax(scores(parameters))) - np.eye(CLASSES)[Y]
    by_row = (wrong * WEIGHTS[:, None] / WEIGHTS.sum()) @ parameters[1].T / X.shape[1]
    table = np.zeros((TOKENS, WIDTH))
    for row, tokens in enumerate(X):
        for token in tokens:
            table[token] += by_row[row]
    return table


def unit(x):
    return x / np.sqrt((x**2).sum())


def divergence(p, q):
    """KL(p ‖ q) of logits, for each row."""
    p, q = log_softmax(p), log_softmax(q)
    return (np.exp(p) * (p - q)).sum(axis=-1)


def gradients(function, parameters, h=1e-5):
    """By central differences."""
    slopes = [np.zeros_like(x) for x in parameters]
    for x, found in zip(parameters, slopes):
        for i in np.ndindex(x.shape):
            kept = x[i]
            x[i] = kept + h
            up = function(parameters)
            x[i] = kept - h
            found[i] = (up - function(parameters)) / (2 * h)
            x[i] = kept
    return slopes


def after(function):
    """The loss at the start, and the weights after a step down."""
    parameters = [x.copy() for x in START]
    slopes = gradients(function, parameters)
    return function(parameters), [x - RATE * g for x, g in zip(parameters, slopes)]


def check(model, function, atol=2e-6):
    """A step of the model is a step down the function; metrics and what is not trained are those of the plain pass."""
    logs, weights = step(model)
    loss, expected = after(function)
    assert logs["loss"] == pytest.approx(loss, abs=1e-5)
    right = scores(START).argmax(axis=-1) == Y
    assert logs["accuracy"] == pytest.approx((right * WEIGHTS).sum() / WEIGHTS.sum())
    for found, wanted in zip(weights, expected):
        np.testing.assert_allclose(found, wanted, atol=atol)
    # The tolerance tells it from plain training.
    distance = max(np.abs(a - b).max() for a, b in zip(expected, after(plain)[1]))
    return distance / atol


eager = pytest.mark.parametrize("eagerly", [False, True])


def test_plain_training_is_that_of_the_reference() -> None:
    assert check(regularize(model_of()), plain) == 0


@eager
def test_fgm(eagerly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_without_kernels(monkeypatch)
    moved = 0.8 * unit(slope(START))
    np.testing.assert_allclose(slope(START), gradients(plain, START)[0], atol=1e-8)
    model = regularize(model_of(eagerly=eagerly, jit_compile=not eagerly), FGM("token/", 0.8))
    assert check(model, lambda p: plain([p[0] + moved, *p[1:]])) > 1000
    assert (model.get_weights()[0][-1] == START[0][-1].astype("float32")).all()


@eager
def test_gradient_penalty(eagerly: bool) -> None:
    model = regularize(model_of(eagerly=eagerly), GradientPenalty("token/", 3.0))
    assert check(model, lambda p: plain(p) + 3 / 2 * (slope(p) ** 2).sum()) > 1000


@pytest.mark.parametrize("eagerly, iterations", [(False, 1), (True, 2)])
def test_virtual_adversarial_training(eagerly: bool, iterations: int) -> None:
    noise = keras.random.normal((TOKENS, WIDTH), dtype="float32", seed=keras.random.SeedGenerator(5))
    direction, fixed = ops.convert_to_numpy(noise).astype("float64"), scores(START)
    for _ in range(iterations):
        at = START[0] + 2.0 * unit(direction)
        (direction,) = gradients(lambda p: divergence(fixed, scores([*p, *START[1:]])).mean(), [at])
    moved = 0.7 * unit(direction)

    def loss(p):
        return plain(p) + 1.5 * divergence(fixed, scores([p[0] + moved, *p[1:]])).mean()

    trick = VirtualAdversarial("token/", xi=2.0, epsilon=0.7, weight=1.5, iterations=iterations, seed=5)
    assert check(regularize(model_of(eagerly=eagerly), trick), loss) > 1000


@eager
def test_r_drop(eagerly: bool) -> None:
    def loss(p):
        one, two = scores(p), scores(p, 1.5)  # the second pass is scaled by 1.5
        apart = ((divergence(one, two) + divergence(two, one)) * WEIGHTS).sum() / WEIGHTS.sum()
        return (plain(p) + plain(p, 1.5)) / 2 + 3.0 / 4 * apart

    model = regularize(model_of(Scaled(), eagerly=eagerly), RDrop(3.0))
    assert check(model, loss) > 1000
    (state,) = [v for v in model.variables if "seed" in v.path]
    assert ops.convert_to_numpy(state).tolist() == [0, 2]  # two passes were drawn


def test_tricks_work_through_each_other() -> None:
    """R-Drop inside FGM: the second pass is perturbed, too."""

    def both(p, scales):
        one, two = (scores(p, scale) for scale in scales)
        apart = ((divergence(one, two) + divergence(two, one)) * WEIGHTS).sum() / WEIGHTS.sum()
        return sum(plain(p, scale) for scale in scales) / 2 + 4 / 4 * apart

    # The passes: plain 0; for the slope 1 and 2; for the loss 3 and 4.
    moved = 0.5 * unit(gradients(lambda p: both(p, [1.5, 2.0]), [x.copy() for x in START])[0])
    model = regularize(model_of(Scaled()), RDrop(), FGM("token/", 0.5))
    assert check(model, lambda p: both([p[0] + moved, *p[1:]], [2.5, 3.0]), atol=1e-5) > 1000


def test_outputs_may_be_probabilities() -> None:
    def tricks(**kwargs):
        return RDrop(3.0, **kwargs), VirtualAdversarial("token/", seed=2, **kwargs)

    logs, weights = step(regularize(model_of(Scaled(), from_logits=False), *tricks(from_logits=False)))
    expected = step(regularize(model_of(Scaled()), *tricks()))
    assert logs["loss"] == pytest.approx(expected[0]["loss"], abs=1e-5)
    for found, wanted in zip(weights, expected[1]):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "trick",
    [FGM("token/", 0.0), GradientPenalty("token/", 0), VirtualAdversarial("token/", weight=0), RDrop()],
    ids=lambda trick: type(trick).__name__,
)
def test_without_strength_or_dropout_training_is_plain(trick) -> None:
    logs, weights = step(regularize(model_of(), trick))
    expected = step(model_of())
    assert logs["loss"] == pytest.approx(expected[0]["loss"], abs=1e-6)
    for found, wanted in zip(weights, expected[1]):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_last_word_counts() -> None:
    """Nothing traced and no generator is left behind of tricks that were replaced."""
    model = model_of()
    fresh = {tricks: step(regularize(model_of(), *tricks))[1] for tricks in [(), (FGM("token/"),)]}
    assert np.abs(fresh[()][0] - fresh[FGM("token/"),][0]).max() > 1e-2
    for tricks in [(), (VirtualAdversarial("token/"), RDrop()), (FGM("token/"),), ()]:
        assert regularize(model, *tricks) is model
        model.set_weights([x.astype("float32") for x in START])
        _, weights = step(model)
        for found, wanted in zip(weights, fresh.get(tricks, weights)):
            np.testing.assert_array_equal(found, wanted)
        assert len(model.variables) == (4 if len(tricks) == 2 else 3)


@pytest.mark.parametrize("tricks", PAIRS)
def test_evaluating_and_predicting_know_nothing_of_it(tricks) -> None:
    model, twin = model_of(), model_of()
    config = model.get_config()
    assert regularize(model, *tricks).get_config() == config
    weighted = dict(sample_weight=WEIGHTS, verbose=0)
    assert model.evaluate(X, Y, **weighted) == twin.evaluate(X, Y, **weighted)
    logs, weights = step(model, validation_data=(X, Y, WEIGHTS))
    twin.set_weights(weights)
    assert [logs["val_loss"], logs["val_accuracy"]] == pytest.approx(twin.evaluate(X, Y, **weighted), abs=1e-6)
    np.testing.assert_array_equal(model.predict(X, verbose=0), twin.predict(X, verbose=0))


def test_the_noise_moves_on_and_follows_from_its_seed() -> None:
    def run(seed):
        model = regularize(model_of(), trick := VirtualAdversarial("token/", seed=seed))
        weights = [step(model)[1][0] for _ in range(2)]
        assert ops.convert_to_numpy(trick.noise.state).tolist() == [seed, 2]
        return weights

    for one, same, other in zip(run(3), run(3), run(4)):
        np.testing.assert_array_equal(one, same)
        assert np.abs(one - other).max() > 1e-4


def test_two_inputs_two_outputs_and_weights_for_each() -> None:
    """Dictionaries of targets and of weights; the losses of the single outputs are those of the plain pass."""
    left, right = (keras.Input((4,), dtype="int32", name=name) for name in ("left", "right"))
    table = keras.layers.Embedding(TOKENS, WIDTH, name="token")
    segments = keras.layers.Embedding(TOKENS, WIDTH, name="segment")
    hidden = keras.layers.Dropout(0.3)(table(left) + segments(right))
    outputs = {
        "each": keras.layers.Dense(4, name="each")(hidden),
        "whole": keras.layers.Dense(CLASSES, name="whole")(keras.layers.GlobalMaxPooling1D()(hidden)),
    }
    model = keras.Model({"left": left, "right": right}, outputs)
    mean = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    model.compile(keras.optimizers.Adam(0.05), {"each": TokenCrossEntropy(), "whole": mean})
    x, y = {"left": X, "right": X[::-1].copy()}, {"each": X % 4, "whole": Y}
    weights = {"each": (X > 2).astype("float32"), "whole": WEIGHTS}
    before = model.evaluate(x, y, sample_weight=weights, return_dict=True, verbose=0)
    regularize(model, RDrop(1.0), GradientPenalty("token/"), FGM(["token/", "segment/"], 0.1))
    history = model.fit(x, y, sample_weight=weights, batch_size=3, epochs=15, verbose=0).history
    assert {"loss", "each_loss", "whole_loss"} == set(history)
    end = model.evaluate(x, y, sample_weight=weights, return_dict=True, verbose=0)
    assert all(end[name] < 0.9 * before[name] for name in before)


@pytest.mark.parametrize(
    "tricks",
    [
        (RDrop(), FGM("embedding/token", 0.1)),
        (GradientPenalty("embedding/token"), VirtualAdversarial("embedding/token", 0.1, 0.1)),
    ],
)
def test_classify_from_fit_to_a_loaded_folder(tricks, tmp_path) -> None:
    train = [("好吃", "pos"), ("难吃", "neg"), ("真好", "pos"), ("太难", "neg")]
    tokenizer = Tokenizer.from_characters([text for text, _ in train], max_size=99)
    # Without dropout of its probabilities attention is fused where it can be.
    tiny = Config(vocab_size=99, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32).but(
        attention_dropout=0.0
    )
    keras.utils.set_random_seed(3)
    bert = SimpleNamespace(network=LanguageModel(tiny), tokenizer=tokenizer, family="bert")
    play = regularize(Classify(bert, ["neg", "pos"]), *tricks)
    play.compile(keras.optimizers.Adam(1e-2))
    play.fit(train, validation_data=train, epochs=15, verbose=0)
    assert play.predict([text for text, _ in train]) == [label for _, label in train]
    arrays = play.batches(train, shuffle=False)[0][0]
    expected = play.predict_on_batch(arrays)
    play.save(tmp_path / "reviews")
    play.save(tmp_path / "reviews.keras")
    for again in load(tmp_path / "reviews"), keras.models.load_model(tmp_path / "reviews.keras"):
        np.testing.assert_allclose(again.predict_on_batch(arrays), expected, atol=1e-6)
        assert again.compute_loss.__func__ is keras.Model.compute_loss


@pytest.mark.parametrize("tricks", PAIRS)
def test_it_survives_compile_and_mixed_precision_and_accumulation(tricks) -> None:
    inputs = keras.Input((4,), dtype="int32")
    hidden = keras.layers.Embedding(TOKENS, 8, dtype="mixed_bfloat16", name="token")(inputs)
    hidden = keras.layers.Dropout(0.2, seed=1)(keras.layers.GlobalAveragePooling1D()(hidden))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="mixed_bfloat16")(hidden))
    regularize(model, *tricks)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.1, gradient_accumulation_steps=2), loss, metrics=["accuracy"])
    history = model.fit(X, Y, batch_size=3, epochs=25, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert int(model.optimizer.iterations) == 50 // 2


def test_float16_under_a_loss_scale() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = regularize(model_of(), FGM("token/"), GradientPenalty("token/"))
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    found = [step(model) for _ in range(3)]
    assert all(np.isfinite(x).all() for x in found[-1][1]) and found[-1][0]["loss"] < found[0][0]["loss"]


def test_slopes_that_float16_would_lose() -> None:
    embedding = keras.layers.Embedding(3, 2, dtype="mixed_float16", name="token")
    model = keras.Sequential([keras.Input((2,), dtype="int32"), embedding], name="half")
    model.dtype_policy = "mixed_float16"
    seen = Step(model, ops.array([[0, 1], [1, 1]]), None, None)
    tables = [embedding.embeddings]
    found, (slope,) = seen.slopes(lambda y: 1e-8 * ops.sum(ops.cast(y, "float32")), tables, [tables[0].value])
    np.testing.assert_allclose(ops.convert_to_numpy(slope), 1e-8 * np.array([[1, 1], [3, 3], [0, 0]]), rtol=1e-2)
    np.testing.assert_allclose(float(found), 1e-8 * float(ops.sum(model(seen.x))), rtol=1e-2, atol=1e-12)


def test_padding_does_not_thin_r_drop() -> None:
    found = []
    for length in (3, 5):
        scaled = Scaled()
        scaled.supports_masking = True
        layers = [keras.layers.Embedding(TOKENS, WIDTH, mask_zero=True), scaled, keras.layers.Dense(CLASSES)]
        model = keras.Sequential([keras.Input((length,), dtype="int32"), *layers])
        for weight, value in zip(model.weights, START):
            weight.assign(value)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
        model.compile("sgd", loss)
        x, y = np.zeros((2, length), "int32"), np.zeros((2, length), "int32")
        x[:, :3], y[:, :3] = [[1, 2, 3], [4, 5, 6]], [[0, 1, 2], [2, 1, 0]]
        found.append(regularize(model, RDrop()).fit(x, y, verbose=0).history["loss"][0])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@keras.saving.register_keras_serializable(package="maskplay_tests")
class Active(keras.layers.Layer):
    """Adds the mean of its inputs' squares to the loss."""

    def call(self, x):
        self.add_loss(ops.mean(x**2))
        return x


def test_what_layers_add_to_the_loss_is_part_of_it() -> None:
    """Once in each pass; the added loss and the weights' regularizers are perturbed like all the rest."""
    model = keras.Sequential(
        [
            keras.layers.Embedding(TOKENS, WIDTH, embeddings_regularizer=keras.regularizers.L2(0.1), name="token"),
            keras.layers.GlobalAveragePooling1D(),
            Active(),
            keras.layers.Dense(CLASSES, name="scores"),
        ]
    )
    model.build((None, X.shape[1]))
    for weight, value in zip(model.weights, START):
        weight.assign(value)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    model.compile(keras.optimizers.SGD(RATE), loss, weighted_metrics=["accuracy"])

    def whole(p):
        return plain(p) + 0.1 * (p[0] ** 2).sum() + (p[0][X].mean(axis=1) ** 2).mean()

    moved = 0.5 * unit(gradients(whole, [x.copy() for x in START])[0])
    assert check(regularize(model, RDrop(), FGM("token/", 0.5)), lambda p: whole([p[0] + moved, *p[1:]])) > 1000


def test_what_is_refused() -> None:
    model = model_of()
    with pytest.raises(UserError, match="regularize: expected FGM"):
        regularize(model, "FGM")
    with pytest.raises(UserError, match="FGM: expected patterns"):
        FGM([])
    with pytest.raises(UserError, match="FGM: expected regular expressions for paths, as 'embedding/token', found 3"):
        FGM(3)
    assert FGM("token/", epsilon=np.float32(0.5)).epsilon == 0.5
    with pytest.raises(UserError, match="weight to be a number from 0 up, found -1"):
        RDrop(-1)
    with pytest.raises(UserError, match="iterations: expected a whole number from 1 on, found 0"):
        VirtualAdversarial("token/", iterations=0)
    with pytest.raises(UserError, match="seed: expected a whole number from 0 on, found 0.5"):
        VirtualAdversarial("token/", seed=0.5)
    assert VirtualAdversarial("token/", seed=np.int64(3)).noise.get_config()["seed"] == 3
    with pytest.raises(UserError, match="GradientPenalty: the pattern 'embedding/token' is found in no weight's path"):
        step(regularize(model, GradientPenalty("embedding/token")))

    class Silent(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return super().compute_loss(x, y, y_pred, sample_weight)

    with pytest.raises(UserError, match="Silent.compute_loss must take `training`"):
        regularize(Silent(), RDrop())

    single = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    single.compile("sgd", "mse")
    with pytest.raises(UserError, match="at least 2 classes, found shape"):
        regularize(single, RDrop()).fit(np.ones((2, 2)), np.ones(2), verbose=0)
