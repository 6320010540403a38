"""The encoder: who sees whom in truth, equal numbers on every path, and a Keras layer's whole life."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from gradients import gradient, weight_gradients
from maskplay import masks
from maskplay.config import Config
from maskplay.encoder import Encoder
from maskplay.errors import UserError

CONFIG = Config(
    vocab_size=20,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=16,
    max_positions=16,
    dropout=0.0,
    attention_dropout=0.0,
    initializer_range=0.3,  # fresh weights of the usual size hide what a mask does
)
N = 8
TOKENS = np.array([[5, 6, 7, 8, 9, 3, 0, 0], [3, 4, 5, 6, 7, 9, 2, 1]], "int32")
SEGMENTS = np.array([[0, 0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1]], "int32")
ORDER = np.array([[3, 0, 1, 2, 5, 4, 7, 6], [7, 6, 0, 1, 2, 3, 5, 4]], "int32")
DOCUMENTS = np.array([[1, 1, 1, 2, 2, 2, 0, 0], [1, 1, 2, 2, 2, 2, 3, 3]], "int32")
FACTS = {"segments": SEGMENTS, "order": ORDER, "documents": DOCUMENTS}
RULES = [
    "full()",
    "causal()",
    "reverse()",
    "padding()",
    "prefix() & padding()",
    "permuted() & padding()",
    "permuted(True)",
    "documents() & padding()",
    "window(1) & causal()",
    "sparse(3) & padding()",
    "fixed(3, 1)",
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(CONFIG)


@pytest.fixture(scope="module")
def rotary() -> Encoder:
    return Encoder(CONFIG.but(position="rotary"))


def numpy(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(x)


def facts_for(mask: masks.Mask, **facts: np.ndarray) -> dict[str, np.ndarray]:
    """Segments also choose embeddings, so only the facts that a rule needs are given."""
    return {name: fact for name, fact in (facts or FACTS).items() if name in mask.needs}


def run(encoder: Encoder, mask: masks.Mask, tokens: np.ndarray = TOKENS, **arguments: Any) -> np.ndarray:
    return numpy(encoder(tokens, mask=mask, **{**facts_for(mask), **arguments}))


def reach(mask: masks.Mask, layers: int) -> np.ndarray:
    """`(batch, n, n)`: does anything of token j arrive at token i through this many layers? A token keeps itself."""
    facts = {"valid": TOKENS != 0, **FACTS}
    step = np.broadcast_to(mask.dense(N, **{k: v for k, v in facts.items() if k in mask.needs}), (2, N, N))
    step = step | np.eye(N, dtype=bool)
    reached = np.eye(N, dtype=bool)
    for _ in range(layers):
        reached = (step.astype(int) @ reached.astype(int)) > 0
    return reached


# Who sees whom, in truth.


@pytest.mark.parametrize("text", RULES)
def test_nothing_leaks(encoder: Encoder, text: str) -> None:
    mask = masks.parse(text)
    reached = reach(mask, CONFIG.num_layers)
    valid = TOKENS != 0
    # One batch of all changes: example (row, j) is row with token j replaced; facts stay those of the row.
    places = [(row, j) for row in range(2) for j in range(N)]
    tokens = np.stack([TOKENS[row] for row, _ in places])
    changed = tokens.copy()
    changed[range(len(places)), [j for _, j in places]] = 13
    rows = [row for row, _ in places]
    facts = {name: fact[rows] for name, fact in facts_for(mask).items()}
    before, after = (numpy(encoder(x, mask=mask, valid=valid[rows], **facts)) for x in (tokens, changed))
    same = (before == after).all(axis=-1)
    for (row, j), unmoved in zip(places, same):
        np.testing.assert_array_equal(unmoved, ~reached[row, :, j], err_msg=f"{text}: token {j} of example {row}")


@pytest.mark.parametrize("text", ["full()", "causal()", "prefix() & padding()", "window(1) & causal()"])
@pytest.mark.parametrize("details", [False, True])
def test_gradients_do_not_leak(encoder: Encoder, text: str, details: bool) -> None:
    mask = masks.parse(text)
    block = encoder.blocks[0]
    x = np.random.default_rng(0).normal(size=(2, N, 16)).astype("float32")
    visible = ops.convert_to_tensor(
        np.broadcast_to(mask.dense(N, **facts_for(mask), valid=TOKENS != 0), (2, N, N))[:, None]
    )
    reached = reach(mask, 1)
    for i in (0, 3, 7):

        def output(x: Any, i: int = i) -> Any:
            result = block(x, visible=visible, details=details)
            return ops.sum((result[0] if details else result)[:, i] ** 3)

        slope = abs(gradient(output, x)).max(axis=-1)
        np.testing.assert_array_equal(slope == 0, ~reached[:, i, :])


@pytest.mark.parametrize("text", RULES)
def test_fused_and_written_out_attention_agree(encoder: Encoder, rotary: Encoder, text: str) -> None:
    mask = masks.parse(text)
    for each in (encoder, rotary):
        details = each(TOKENS, mask=mask, details=True, **facts_for(mask))
        np.testing.assert_allclose(numpy(details["hidden"]), run(each, mask), atol=1e-5)
    assert len(details["states"]) == CONFIG.num_layers + 1 and len(details["attentions"]) == CONFIG.num_layers
    visible = np.broadcast_to(mask.dense(N, valid=TOKENS != 0, **facts_for(mask)), (2, N, N))
    for attention in map(numpy, details["attentions"]):
        assert attention.shape == (2, CONFIG.num_heads, N, N)
        assert (attention[~np.broadcast_to(visible[:, None], attention.shape)] == 0).all()
        sums = np.broadcast_to(visible.any(axis=-1)[:, None], (2, CONFIG.num_heads, N)).astype("float32")
        np.testing.assert_allclose(attention.sum(axis=-1), sums, atol=1e-5)


@pytest.mark.parametrize("details", [False, True])
def test_rows_that_see_nothing_give_zero_and_finite_gradients(encoder: Encoder, details: bool) -> None:
    attention = encoder.blocks[0].attention
    attention.output_dense.bias.assign(np.zeros(16))
    x = np.random.default_rng(0).normal(size=(2, N, 16)).astype("float32")
    visible = np.ones((2, 1, N, N), bool)
    visible[0, 0, 1] = False
    visible[1] = False
    visible = ops.convert_to_tensor(visible)

    def mixed(x: Any) -> Any:
        result = attention(x, visible=visible, details=details)
        return result[0] if details else result

    found = numpy(mixed(ops.convert_to_tensor(x)))
    assert (found[0, 1] == 0).all() and (found[1] == 0).all() and (found[0, 0] != 0).any()
    slope = gradient(lambda x: ops.sum(mixed(x) ** 2), x)
    assert np.isfinite(slope).all() and (slope[1] == 0).all() and (slope[0] != 0).any()
    nothing = encoder(np.zeros((2, N), "int32"), details=details)  # padding alone
    assert np.isfinite(numpy(nothing["hidden"] if details else nothing)).all()


@pytest.mark.parametrize("name", ["encoder", "rotary"])
def test_permuted_equals_causal_on_reordered_tokens(name: str, request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue(name)
    drawn = np.argsort(ORDER, axis=1)  # the token that comes t-th
    reordered = numpy(
        encoder(np.take_along_axis(TOKENS, drawn, 1), positions=drawn.astype("int32"), mask=masks.causal())
    )
    natural = run(encoder, masks.permuted())
    np.testing.assert_allclose(natural, np.take_along_axis(reordered, ORDER[..., None], 1), atol=1e-5)


def test_permuted_outputs_do_not_know_what_they_predict(encoder: Encoder) -> None:
    # Two orders with the same first four tokens: the same outputs there, whatever is asked next.
    orders = np.array([[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 7, 6, 5, 4]], "int32")
    same = numpy(encoder(TOKENS[[1, 1]], order=orders, mask=masks.permuted()))
    np.testing.assert_array_equal(same[0, :4], same[1, :4])
    assert abs(same[0, 4:] - same[1, 4:]).max() > 1e-3


def test_a_source_is_encoded_as_if_alone(encoder: Encoder) -> None:
    mask = masks.prefix() & masks.padding()
    whole = run(encoder, mask)
    alone = numpy(encoder(TOKENS[[0, 0], :3], mask=masks.full()))
    np.testing.assert_allclose(whole[0, :3], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    "text",
    ["padding()", "prefix() & padding()", "prefix()", "causal()", "causal() & padding()", "documents() & padding()"],
)
def test_padding_changes_nothing(encoder: Encoder, rotary: Encoder, text: str) -> None:
    mask = masks.parse(text)
    longer = np.pad(TOKENS, ((0, 0), (0, 3)))
    padded = {name: np.pad(fact, ((0, 0), (0, 3))) for name, fact in facts_for(mask).items()}
    for each in (encoder, rotary):
        long = numpy(each(longer, mask=mask, **padded))[:, :N]
        np.testing.assert_allclose(long[TOKENS != 0], run(each, mask)[TOKENS != 0], atol=5e-6)


def test_a_segment_that_serves_a_row_leaks_nothing(encoder: Encoder) -> None:
    """It is every token's: all are targets, each of which sees what comes before it."""
    mask, whole = masks.prefix() & masks.padding(), np.ones((2, N), "int32")
    expected = numpy(encoder(TOKENS, segments=whole, mask=mask))
    np.testing.assert_allclose(numpy(encoder(TOKENS, segments=whole[:, :1], mask=mask)), expected, atol=1e-6)
    graph = encoder.graph(mask)
    found = graph({"tokens": ops.convert_to_tensor(TOKENS), "segments": ops.convert_to_tensor(whole[:, :1])})
    np.testing.assert_allclose(numpy(found), expected, atol=1e-6)


# Decoding step by step.


def decoded(
    encoder: Encoder, mask: masks.Mask, chunks: list[int], step: Callable[..., Any] | None = None, **facts: Any
) -> np.ndarray:
    cache, start, parts = encoder.new_cache(2, sum(chunks) + 2), 0, []
    for chunk in chunks:
        now = slice(start, start + chunk)
        given = {name: fact[:, now] for name, fact in facts.items()}
        hidden, cache = (step or encoder)(mask=mask, cache=cache, **given)
        parts.append(numpy(hidden))
        start += chunk
    assert int(cache["length"]) == start
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        # Chunks of 1 and 3 mostly: every other shape costs JAX another compilation of every operation.
        ("causal()", [1] * N),
        ("causal() & padding()", [3, 1, 1, 3]),
        ("prefix()", [3, 1, 1, 1, 2]),  # what sees each other comes together, padding too
        ("prefix() & padding()", [3, 1, 3, 1]),
        ("window(2) & causal()", [1, 3, 1, 3]),
        ("sparse(3) & causal() & padding()", [3, 3, 1, 1]),
        ("documents() & causal()", [1, 3, 1, 3]),
        ("full()", [N]),
    ],
)
def test_cached_steps_equal_the_full_pass(encoder: Encoder, rotary: Encoder, text: str, chunks: list[int]) -> None:
    mask = masks.parse(text)
    for each in (encoder, rotary):
        stepwise = decoded(each, mask, chunks, tokens=TOKENS, **facts_for(mask))
        np.testing.assert_allclose(stepwise, run(each, mask), atol=1e-5)


def test_cached_facts_that_serve_all_rows(encoder: Encoder) -> None:
    mask = masks.prefix() & masks.padding()
    one = {"segments": (np.arange(N) > 2).astype("int32")[None], "valid": (np.arange(N) < N - 1)[None]}
    every = {name: np.repeat(fact, 2, axis=0) for name, fact in one.items()}
    found, expected = (decoded(encoder, mask, [3, 3, 2], tokens=TOKENS, **facts) for facts in (one, every))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cached_steps_in_a_drawn_order(encoder: Encoder, rotary: Encoder) -> None:
    drawn = np.argsort(ORDER, axis=1).astype("int32")
    for each in (encoder, rotary):
        stepwise = decoded(
            each,
            masks.permuted() & masks.padding(),
            [1, 3, 1, 3],
            tokens=np.take_along_axis(TOKENS, drawn, 1),
            positions=drawn,
            order=np.broadcast_to(np.arange(N, dtype="int32"), (2, N)),
        )
        full = run(each, masks.permuted() & masks.padding())
        np.testing.assert_allclose(np.take_along_axis(stepwise, ORDER[..., None], 1), full, atol=1e-5)


def test_cached_steps_compile_once(encoder: Encoder) -> None:
    mask, traces = masks.prefix() & masks.padding(), []

    def step(tokens: Any, segments: Any, cache: Any) -> Any:
        traces.append(tokens.shape)
        return encoder(tokens, segments=segments, mask=mask, cache=cache)

    match keras.backend.backend():
        case "jax":
            import jax

            compiled = jax.jit(step)
        case "tensorflow":
            import tensorflow as tf

            compiled = tf.function(step)
        case _:
            compiled = step

    def convert(mask: Any, **arguments: Any) -> Any:
        return compiled(**{k: v if k == "cache" else ops.convert_to_tensor(v) for k, v in arguments.items()})

    stepwise = decoded(encoder, mask, [3, 1, 1, 1, 1, 1], convert, tokens=TOKENS, segments=SEGMENTS)
    np.testing.assert_allclose(stepwise, run(encoder, mask), atol=1e-5)
    if keras.backend.backend() != "torch":
        assert [tuple(shape) for shape in traces] == [(2, 3), (2, 1)]


# Static rules in Keras' own machinery.


def test_a_loss_from_inside_counts_once() -> None:
    # Keras' own add_loss is the loss layer: the total equals that of the same loss given from outside.
    class MeanSquare(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(ops.mean(x**2))
            return x

    encoder = Encoder(CONFIG)
    tokens = keras.Input((N,), dtype="int32")
    hidden = encoder(tokens, mask=masks.causal())
    inside, outside = keras.Model(tokens, MeanSquare()(hidden)), keras.Model(tokens, hidden)
    inside.compile("sgd")
    outside.compile("sgd", "mse")
    zeros = np.zeros((2, N, 16), "float32")
    assert inside.evaluate(TOKENS, verbose=0) == pytest.approx(outside.evaluate(TOKENS, zeros, verbose=0), rel=1e-5)


def test_moving_averages_of_the_weights() -> None:
    # Keras' own: the closed form over three steps, swapped in and out again.
    encoder = Encoder(CONFIG.but(num_layers=1))
    tokens = keras.Input((N,), dtype="int32")
    model = keras.Model(tokens, encoder(tokens, mask=masks.full()))
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, "mse")
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(model)
    averages = [numpy(w.value).copy() for w in model.trainable_weights]
    for step in range(3):
        model.train_on_batch(TOKENS, np.full((2, N, 16), step, "float32"))
        now = [numpy(w.value).copy() for w in model.trainable_weights]
        averages = now if step == 0 else [0.5 * a + 0.5 * w for a, w in zip(averages, now)]
    swap.on_test_begin()
    for weight, average in zip(model.trainable_weights, averages):
        np.testing.assert_allclose(numpy(weight.value), average, atol=1e-6)
    swap.on_test_end()
    for weight, last in zip(model.trainable_weights, now):
        np.testing.assert_allclose(numpy(weight.value), last, atol=1e-6)  # TensorFlow swaps by adding and subtracting


# Inputs of every kind, and mistakes.


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_policies_are_finite(policy: str) -> None:
    encoder = Encoder(CONFIG.but(dropout=0.1, attention_dropout=0.1, position="rotary"), dtype=policy)
    for mask in (masks.prefix() & masks.padding(), masks.permuted(strict=True)):
        for training in (False, True):
            hidden = encoder(TOKENS, mask=mask, training=training, **facts_for(mask))
            assert keras.backend.standardize_dtype(hidden.dtype) == encoder.compute_dtype
            assert np.isfinite(numpy(ops.cast(hidden, "float32"))).all()


def test_half_precision_does_not_overflow_in_long_products() -> None:
    attention = Encoder(CONFIG.but(num_layers=1), dtype="mixed_float16").blocks[0].attention
    x = ops.full((1, 2, 16), 16.0, "float16")
    attention.build((1, 2, 16))
    attention.query.kernel.assign(np.full((16, 16), 0.5))
    attention.key.kernel.assign(np.full((16, 16), 0.5))
    for details in (False, True):  # 8 products of 128 · 128: 131072, more than float16 holds
        result = attention(x, details=details)
        assert np.isfinite(numpy(ops.cast(result[0] if details else result, "float32"))).all()


def test_dropout_acts_in_training_only() -> None:
    encoder = Encoder(CONFIG.but(dropout=0.2, attention_dropout=0.2))
    one, two = (numpy(encoder(TOKENS, training=True)) for _ in range(2))
    assert abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(numpy(encoder(TOKENS)), numpy(encoder(TOKENS, training=False)))


def test_inputs_of_other_kinds(encoder: Encoder) -> None:
    expected = run(encoder, masks.padding())
    kinds = (TOKENS.astype("int64"), TOKENS.astype("uint8"), ops.convert_to_tensor(TOKENS))
    for tokens in (*kinds, list(TOKENS), TOKENS.tolist()):
        np.testing.assert_array_equal(numpy(encoder(tokens)), expected)
    for valid in (TOKENS != 0, (TOKENS != 0).astype("int64"), (TOKENS != 0).tolist()):
        np.testing.assert_array_equal(numpy(encoder(TOKENS, valid=valid)), expected)
    np.testing.assert_array_equal(numpy(encoder(TOKENS, mask=None)), expected)
    np.testing.assert_allclose(numpy(encoder(TOKENS, segments=np.zeros((2, N), "int64"))), expected, atol=1e-6)
    assert encoder(TOKENS[:, :1]).shape == (2, 1, 16)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda e: e(np.ones((1, 17), "int32")), "at most 16 tokens .* found 17"),
        (lambda e: e(TOKENS, segments=TOKENS[:, 1:]), r"segments: expected the tokens' shape \(2, 8\), found \(2, 7\)"),
        (lambda e: e(TOKENS, memory=np.ones((2, 3, 16), "float32")), "memory: expected none"),
        (lambda e: e(TOKENS, condition=np.ones((2, 3), "float32")), r"condition: expected none, found \(2, 3\)"),
        (lambda e: e(TOKENS, mask=masks.prefix()), "prefix.. needs the fact 'segments'"),
        (lambda e: e(TOKENS, mask="causal()"), "expected a rule .* found str"),
        (lambda e: e(TOKENS, order=ORDER[:, :1], mask=masks.permuted()), r"order: expected .* found \(2, 1\)"),
        (lambda e: e(TOKENS, mask=TOKENS != 0), "expected a rule"),
        (lambda e: e(TOKENS[0]), r"expected integers \(batch, length\), found int32 \(8,\)"),
        (lambda e: e(TOKENS.astype("float32")), "found float32"),
        (lambda e: e(TOKENS, cache=e.new_cache(2, N), details=True), "exclude each other"),
        (lambda e: e(TOKENS, cache=e.new_cache(2, 4)), "room for 4 more tokens, found 8"),
        (lambda e: e(TOKENS[:, :2], cache=e(TOKENS[:, :3], cache=e.new_cache(2, 4))[1]), "room for 1 more"),
        (lambda e: e.new_cache(2, 17), "at most 16"),
        (lambda e: e(TOKENS, mask=masks.prefix(), cache=e.new_cache(2, N)), "segments"),
    ],
)
def test_mistakes_are_one_clear_line(encoder: Encoder, wrong: Any, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        wrong(encoder)
    assert "\n" not in str(caught.value)


def test_weight_paths_and_sizes() -> None:
    encoder = Encoder(CONFIG.but(embedding_size=4, num_layers=1, head_size=4))
    encoder.build()
    shapes = {weight.path.removeprefix("encoder/"): tuple(weight.shape) for weight in encoder.weights}
    assert shapes == {
        "embedding/token/embeddings": (20, 4),
        "embedding/segment/embeddings": (2, 4),
        "embedding/position/embeddings": (16, 4),
        "embedding/norm/gamma": (4,),
        "embedding/norm/beta": (4,),
        "embedding/projection/kernel": (4, 16),
        "embedding/projection/bias": (16,),
        **{f"block_0/attention/{name}/kernel": (16, 8) for name in ("query", "key", "value")},
        **{f"block_0/attention/{name}/bias": (8,) for name in ("query", "key", "value")},
        "block_0/attention/output/kernel": (8, 16),
        "block_0/attention/output/bias": (16,),
        "block_0/attention_norm/gamma": (16,),
        "block_0/attention_norm/beta": (16,),
        "block_0/feed/inner/kernel": (16, 16),
        "block_0/feed/inner/bias": (16,),
        "block_0/feed/outer/kernel": (16, 16),
        "block_0/feed/outer/bias": (16,),
        "block_0/feed_norm/gamma": (16,),
        "block_0/feed_norm/beta": (16,),
    }


def test_gradients_reach_every_weight(encoder: Encoder) -> None:
    slopes = weight_gradients(
        lambda: ops.sum(encoder(TOKENS, segments=SEGMENTS, mask=masks.padding()) ** 3), encoder.trainable_weights
    )
    dead = [w.path for w, slope in zip(encoder.trainable_weights, slopes) if not abs(slope).max() > 0]
    # A key's bias adds the same to all scores of a query, which a softmax does not see.
    assert all(path.endswith("attention/key/bias") for path in dead)
    assert all(np.isfinite(slope).all() for slope in slopes)
