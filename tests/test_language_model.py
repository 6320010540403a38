"""An encoder with its heads: sizes of the released model, the tied table, and a Keras model's whole life."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from gradients import weight_gradients
from maskplay import families, masks
from maskplay.config import Config
from maskplay.errors import UserError
from maskplay.language_model import LanguageModel, named_weights
from maskplay.layers.initializer import to_be_filled

CONFIG = Config(
    vocab_size=20,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    intermediate_size=16,
    max_positions=16,
    initializer_range=0.3,
)
TOKENS = np.array([[5, 6, 7, 8, 9, 3, 0, 0], [3, 4, 5, 6, 7, 9, 2, 1]], "int32")
SEGMENTS = np.array([[0, 0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1]], "int32")
RULE = masks.prefix() & masks.padding()


def numpy(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(x)


def assert_same(one: dict[str, Any], other: dict[str, Any], atol: float = 0) -> None:
    assert set(one) == set(other) == {"hidden", "pooled", "nsp", "mlm"}
    for name in one:
        np.testing.assert_allclose(numpy(one[name]), numpy(other[name]), rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel(CONFIG)


def test_sizes_of_the_released_chinese_model() -> None:
    model = LanguageModel(families.BERT.config)
    with to_be_filled():
        model.build()
    assert model.encoder.count_params() == 101_677_056
    assert model.pooler.count_params() == 590_592
    assert model.mlm.count_params() == 613_256
    assert model.nsp.count_params() == 1_538
    assert model.count_params() == 102_882_442


def test_the_head_holds_no_second_table(model: LanguageModel) -> None:
    model(TOKENS)
    large = [name for name, weight in named_weights(model).items() if CONFIG.vocab_size in weight.shape]
    assert sorted(large) == ["encoder/embedding/token/embeddings", "mlm/bias"]
    assert len({id(weight) for weight in model.weights}) == len(model.weights)


def test_the_tied_table_learns_from_both_uses(model: LanguageModel) -> None:
    table = model.encoder.embedding.token.embeddings
    model(TOKENS)

    def loss(stop_input: bool, stop_output: bool) -> Any:
        hidden = model.encoder(TOKENS, mask=masks.causal())
        hidden = ops.stop_gradient(hidden) if stop_input else hidden
        transformed = model.mlm.norm(ops.gelu(model.mlm.transform(hidden), approximate=False))
        rows = ops.convert_to_tensor(table)
        return ops.sum(
            ops.tanh(ops.matmul(transformed, ops.transpose(ops.stop_gradient(rows) if stop_output else rows)))
        )

    def tied() -> Any:
        return ops.sum(ops.tanh(model.score(model.encoder(TOKENS, mask=masks.causal())) - model.mlm.bias))

    (both,) = weight_gradients(tied, [table])
    (as_input,) = weight_gradients(lambda: loss(False, True), [table])
    (as_output,) = weight_gradients(lambda: loss(True, False), [table])
    assert abs(as_input).max() > 1e-3 and abs(as_output).max() > 1e-3
    np.testing.assert_allclose(both, as_input + as_output, atol=1e-3 * abs(both).max())


def test_scores_at_places_are_the_scores_there(model: LanguageModel) -> None:
    at = np.array([[1, 3], [5, 0]], "int32")
    full, some = model(TOKENS), model(TOKENS, at=at)
    np.testing.assert_allclose(numpy(some["mlm"]), np.take_along_axis(numpy(full["mlm"]), at[..., None], 1), atol=1e-5)
    assert some["hidden"].shape == (2, 8, 16)
    np.testing.assert_array_equal(numpy(model(TOKENS, at=at.tolist())["mlm"]), numpy(some["mlm"]))


def test_config_clone_and_save(model: LanguageModel, tmp_path: Path) -> None:
    outputs = model(TOKENS, segments=SEGMENTS, mask=RULE)
    twin = LanguageModel.from_config(model.get_config())
    assert twin.config == CONFIG and twin.heads == model.heads
    clone = keras.models.clone_model(model)
    for other in (twin, clone):
        other(TOKENS)
        other.set_weights(model.get_weights())
        assert_same(other(TOKENS, segments=SEGMENTS, mask=RULE), outputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded(TOKENS, segments=SEGMENTS, mask=RULE), outputs)
    assert list(named_weights(loaded)) == list(named_weights(model))


def test_as_one_layer_of_a_graph(model: LanguageModel, tmp_path: Path) -> None:
    tokens, segments, at = (keras.Input((None,), dtype="int32") for _ in range(3))
    results = model(tokens, segments=segments, mask=RULE, at=at)
    assert results["mlm"].shape == (None, None, 20) and results["nsp"].shape == (None, 2)
    graph = keras.Model([tokens, segments, at], results)
    places = np.array([[1], [5]], "int32")
    assert_same(graph([TOKENS, SEGMENTS, places]), model(TOKENS, segments=SEGMENTS, mask=RULE, at=places))
    graph.save(tmp_path / "graph.keras")
    loaded = keras.models.load_model(tmp_path / "graph.keras")
    assert_same(loaded([TOKENS, SEGMENTS, places]), graph([TOKENS, SEGMENTS, places]))


def test_half_precision_is_finite_and_of_the_promised_kind() -> None:
    model = LanguageModel(CONFIG, dtype="mixed_float16")
    symbols = model(keras.Input((None,), dtype="int32"))
    for name, result in model(TOKENS, training=True).items():
        assert np.isfinite(numpy(ops.cast(result, "float32"))).all(), name
        assert keras.backend.standardize_dtype(result.dtype) == symbols[name].dtype, name


def test_fit_compiled(model: LanguageModel) -> None:
    model = LanguageModel(CONFIG, heads=["mlm"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), {"mlm": loss}, jit_compile=keras.backend.backend() != "torch")
    losses = model.fit(TOKENS, {"mlm": TOKENS}, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]


def test_a_dictionary_is_its_arguments(model: LanguageModel) -> None:
    inputs = {"tokens": TOKENS, "segments": SEGMENTS}
    assert_same(model(inputs), model(TOKENS, SEGMENTS))
    assert_same(model(inputs, mask=RULE), model(TOKENS, SEGMENTS, mask=RULE))
    assert_same(model({"tokens": TOKENS.tolist()}), model(TOKENS))
    classes = LanguageModel(CONFIG, heads=["pooler", "nsp"])
    classes.compile("sgd", {"nsp": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
    classes.fit(inputs, {"nsp": np.array([0, 1])}, verbose=0)
    found = classes.predict(inputs, verbose=0)["nsp"]
    np.testing.assert_allclose(found, numpy(classes(TOKENS, SEGMENTS)["nsp"]), atol=1e-5)
    with pytest.raises(UserError, match="expected a dictionary with 'tokens', found ids"):
        model({"ids": TOKENS})


def test_the_encoder_may_be_used_first() -> None:
    model = LanguageModel(CONFIG)
    model.encoder.embedding.build()
    hidden = numpy(model.encoder(TOKENS))
    model.build()
    model.build()
    np.testing.assert_array_equal(numpy(model(TOKENS)["hidden"]), hidden)
    assert len(model.weights) == len(named_weights(model)) == 30


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: LanguageModel(CONFIG, heads=["ner"]), "found ner"),
        (lambda: LanguageModel(CONFIG)(TOKENS, decoder_tokens=TOKENS), "decoder_tokens: expected none"),
        (lambda: LanguageModel(CONFIG.but(num_decoder_layers=1)), "no head but 'lm' on a decoder"),
        (lambda: LanguageModel(CONFIG.but(num_decoder_layers=1), heads=[])(TOKENS), "this has a decoder"),
        (lambda: LanguageModel(CONFIG, heads=["nsp"]), "reads the pooler"),
        (lambda: LanguageModel(CONFIG, heads=[]).score(np.ones((1, 1, 16))), "no head that scores tokens"),
        (lambda: LanguageModel(CONFIG)(np.ones((1, 17), "int32")), "at most 16"),
        (lambda: LanguageModel(CONFIG)("文本"), "tokens: expected ids, found the text '文本'"),
        (lambda: LanguageModel(CONFIG)([[1, 2], [3]]), "tokens: expected rows of one length, found"),
        (lambda: LanguageModel(CONFIG)([1, 2]), r"tokens: expected integers \(batch, length\), found int.* \(2,\)"),
        (lambda: LanguageModel(CONFIG)(["文", "本"]), "tokens: expected ids, found the text"),
        (lambda: LanguageModel(CONFIG)(TOKENS, at=[[99], [0]]), r"at: expected places .* from 0 to 7, found \[\[99"),
        (lambda: LanguageModel(CONFIG)(TOKENS, at=[[0], [-1]]), "at: expected places"),
        (lambda: LanguageModel(CONFIG)(TOKENS[:, :0]), "tokens: expected at least one in each row, found none"),
        (lambda: LanguageModel(CONFIG)(TOKENS, at=[0, 1]), r"at: expected places \(batch, positions\)"),
        (lambda: LanguageModel(CONFIG, heads="mlm"), "heads: expected a list such as .*, found the text 'mlm'"),
        (lambda: LanguageModel(CONFIG.but(embedding_size=8), heads=["lm"]), "hidden_size .* embedding_size is 8"),
        (lambda: LanguageModel({"vocab_size": 3, "hidden": 3}), "unknown field hidden"),
    ],
)
def test_mistakes_are_one_clear_line(wrong: Any, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        wrong()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [-1, -100, 20, 2**20])
def test_ids_that_no_token_has(wrong: int) -> None:
    """Also where the backend would count a negative one from the end of the table."""
    model = LanguageModel(CONFIG)
    for tokens in (np.array([[wrong, 2]]), ops.convert_to_tensor([[3, wrong]])):
        with pytest.raises(UserError, match=f"tokens: expected ids from 0 to 19, found {wrong}"):
            model(tokens)
