"""The encoder as a functional graph: fitted, saved, cut into parts, shared, frozen by name."""

from pathlib import Path

import keras
import numpy as np
import pytest

from maskplay import masks
from maskplay.encoder import Encoder, submodel
from maskplay.errors import UserError
from test_encoder import CONFIG, SEGMENTS, TOKENS, N, numpy, run


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(CONFIG)


def test_functional_fit_save_and_load(tmp_path: Path) -> None:
    mask = masks.prefix() & masks.padding()
    encoder = Encoder(CONFIG)
    tokens, segments = (keras.Input((None,), dtype="int32", name=name) for name in ("tokens", "segments"))
    hidden = encoder(tokens, segments=segments, mask=mask)
    assert hidden.shape == (None, None, 16)
    model = keras.Model([tokens, segments], keras.layers.Dense(2, name="head")(hidden))
    np.testing.assert_allclose(
        model.predict([TOKENS, SEGMENTS], verbose=0),
        numpy(model.get_layer("head")(encoder(TOKENS, segments=SEGMENTS, mask=mask))),
        atol=1e-5,
    )
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit([TOKENS, SEGMENTS], TOKENS % 2, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(loaded([TOKENS, SEGMENTS])), numpy(model([TOKENS, SEGMENTS])))
    assert loaded.get_layer("encoder").config == CONFIG
    shorter = loaded([TOKENS[:, :3], SEGMENTS[:, :3]])
    np.testing.assert_allclose(numpy(shorter)[1], numpy(loaded([TOKENS, SEGMENTS]))[1, :3], atol=1e-5)


def test_parts_of_a_second_graph(encoder: Encoder) -> None:
    """Both graphs have the same layers, whose `output` is that of the first."""
    first, second = (encoder.graph(mask) for mask in (masks.full(), masks.causal()))
    last = encoder.layers_in_order[-1].name
    for graph in (first, second):
        same = submodel(graph, ["tokens", "segments"], last)([TOKENS, SEGMENTS])
        np.testing.assert_array_equal(numpy(same), numpy(graph({"tokens": TOKENS, "segments": SEGMENTS})))


def test_graph_and_its_parts(encoder: Encoder, tmp_path: Path) -> None:
    mask = masks.prefix() & masks.padding()
    graph = encoder.graph(mask)
    names = ["tokens", "segments", "embedding", "visibility", "block_0", "block_1"]
    assert [layer.name for layer in graph.layers] == names
    assert all(weight is other for weight, other in zip(graph.weights, encoder.weights, strict=True))
    inputs = {"tokens": TOKENS, "segments": SEGMENTS}
    full = run(encoder, mask)
    np.testing.assert_allclose(numpy(graph(inputs)), full, atol=1e-6)
    first = submodel(graph, ["tokens", "segments"], ["block_0", "visibility"])
    second = submodel(graph, ["block_0", "visibility"], "block_1")
    np.testing.assert_allclose(numpy(second(first([TOKENS, SEGMENTS]))), full, atol=1e-6)
    graph.save(tmp_path / "graph.keras")
    np.testing.assert_array_equal(
        numpy(keras.models.load_model(tmp_path / "graph.keras")(inputs)), numpy(graph(inputs))
    )
    assert list(Encoder(CONFIG.but(num_segments=0)).graph(masks.permuted()).input) == ["tokens", "order"]
    assert "visibility" not in [layer.name for layer in encoder.graph(masks.causal()).layers]


def test_submodel_names_what_is_missing(encoder: Encoder) -> None:
    graph = encoder.graph()
    with pytest.raises(UserError, match="no layer called 'block_9'; there are tokens"):
        submodel(graph, "block_0", "block_9")
    with pytest.raises(UserError, match="cannot be computed"):
        submodel(graph, "block_0", "block_1")  # without who sees whom


def test_one_encoder_in_two_models() -> None:
    encoder = Encoder(CONFIG)
    tokens = keras.Input((N,), dtype="int32")
    one = keras.Model(tokens, keras.layers.Dense(2)(encoder(tokens, mask=masks.causal())))
    other = keras.Model(tokens, keras.layers.Dense(3)(encoder(tokens)[:, 0]))
    before = numpy(other(TOKENS))
    one.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    one.train_on_batch(TOKENS, TOKENS % 2)
    assert abs(numpy(other(TOKENS)) - before).max() > 1e-4
    shared = {id(weight) for weight in one.weights} & {id(weight) for weight in other.weights}
    assert shared == {id(weight) for weight in encoder.weights}


def test_a_shared_embedding_is_in_no_file(tmp_path: Path) -> None:
    encoder = Encoder(CONFIG)
    decoder = Encoder(CONFIG, cross=True, embedding=encoder.embedding)
    source, target = (keras.Input((None,), dtype="int32") for _ in range(2))
    model = keras.Model([source, target], decoder(target, memory=encoder(source), mask=masks.causal()))
    with pytest.raises(UserError, match="decoder: shares another encoder's embedding, .* num_decoder_layers"):
        model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    expected, weights = numpy(model([TOKENS, TOKENS])), encoder.weights
    for weight in weights:
        weight.assign(numpy(weight) * 0)
    model.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(numpy(model([TOKENS, TOKENS])), expected)


def test_freezing_by_name() -> None:
    encoder = Encoder(CONFIG)
    graph = encoder.graph(masks.full())
    for name in ("embedding", "block_0"):
        graph.get_layer(name).trainable = False
    before = [numpy(weight.value).copy() for weight in encoder.weights]
    graph.compile("adam", "mse")
    graph.train_on_batch({"tokens": TOKENS, "segments": SEGMENTS}, np.ones((2, N, 16), "float32"))
    moved = {w.path.split("/")[1] for w, old in zip(encoder.weights, before) if (numpy(w.value) != old).any()}
    assert moved == {"block_1"}
    assert {w.path.split("/")[1] for w in encoder.trainable_weights} == {"block_1"}
