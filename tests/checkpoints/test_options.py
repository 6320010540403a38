"""What `mp.load` can change on the way, for every family: the vocabulary, positions, conditions, scores."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import maskplay as mp
from maskplay.checkpoints.load import stretch
from maskplay.language_model import named_weights
from parity.cases import CASES
from parity.opened import distinct, opened, source

# A row a family; those of ELECTRA and LaBSE score no tokens.
SCORING = {CASES[name].family: name for name in distinct() if "condition" not in name and "bare" not in name}
del SCORING["electra"], SCORING["labse"]


def scores(b: mp.Pretrained, tokens: np.ndarray) -> np.ndarray:
    more = {} if b.network.decoder is None else {"decoder_tokens": tokens[:, :3]}
    return keras.ops.convert_to_numpy(b.logits(tokens, **more))


@pytest.mark.parametrize("name", SCORING.values())
def test_kept_and_compound_tokens(name: str) -> None:
    """A smaller vocabulary gives the same scores for the tokens that are kept; a new one starts as a mean."""
    arrays, config = source(name)
    whole = opened(name)
    keep = [0, 1, 2, *range(30, 4, -3)]
    part = mp.load(arrays, config=config, keep_tokens=keep, compound_tokens=[[7, 9]], **CASES[name].options)
    assert part.config.vocab_size == len(keep) + 1
    tokens = np.array([[3, 5, 4, 9, 6]])
    found, expected = scores(part, tokens), scores(whole, np.array(keep)[tokens])
    np.testing.assert_allclose(found[..., :-1], expected[..., keep], atol=1e-4)
    # A product with the mean of two vectors is the mean of two products.
    mean = expected[..., [7, 9]].mean(-1)
    np.testing.assert_allclose(found[..., -1], mean, atol=1e-4)


def test_positions_are_interpolated() -> None:
    table = np.arange(8.0).reshape(4, 2)
    assert stretch(table, 7)[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert stretch(table, 2).tolist() == table[:2].tolist()
    assert stretch(table, 5, first=2)[:, 0].tolist() == [0, 2, 4, 5, 6]  # the rows before the first place stay
    arrays, config = source("roberta_hf")
    long = mp.load(arrays, config=config, max_positions=24)
    assert long.config.longest == 22 and scores(long, np.full((1, 22), 5)).shape[1] == 22
    table = "encoder/embedding/position/embeddings"
    ours, theirs = (named_weights(b.network)[table] for b in (long, opened("roberta_hf")))
    np.testing.assert_array_equal(ours.numpy()[[0, 1, 2, -1]], theirs.numpy()[[0, 1, 2, -1]])


@pytest.mark.parametrize("changes", [{"position": "hierarchical"}, {"position": "learned"}, {"keep": 5}])
def test_places_counted_from_padding_stay(changes: dict[str, Any]) -> None:
    """RoBERTa's places begin behind the padding token's id: the table moves with it, and where none are counted so."""
    arrays, config = source("roberta_hf")
    whole = opened("roberta_hf")
    keep = list(range(whole.config.vocab_size))
    if "keep" in changes:
        keep.insert(changes["keep"], keep.pop(whole.config.pad_id))
        changes = {"keep_tokens": keep}
    found = mp.load(arrays, config=config, **changes)
    tokens = np.array([[3, 5, 7, 9, 6, 8]])
    moved = np.array(keep).argsort()[tokens]
    assert not (tokens == whole.config.pad_id).any() and found.config.pad_id == keep.index(whole.config.pad_id)
    np.testing.assert_allclose(scores(found, moved), scores(whole, tokens)[..., keep], atol=1e-4)
    if found.config.position != "hierarchical":
        assert found.config.longest == whole.config.longest


@pytest.mark.parametrize("name", ["simbert", "albert", "gpt2_converted", "gpt2_ml"])
def test_a_condition_changes_nothing_until_trained(name: str) -> None:
    arrays, config = source(name)
    made = mp.load(arrays, config=config, condition_size=3, **CASES[name].options)
    tokens, condition = np.array([[3, 5, 7, 9]]), np.array([[0.5, -1.0, 2.0]], "float32")
    before = keras.ops.convert_to_numpy(made.logits(tokens, condition=condition))
    np.testing.assert_allclose(before, scores(opened(name), tokens), atol=1e-5)
    assert any("gamma_kernel" in name for name in made.report.left_empty)
    named_weights(made.network)["encoder/block_0/feed_norm/beta_kernel"].assign(np.ones((3, made.config.hidden_size)))
    after = keras.ops.convert_to_numpy(made.logits(tokens, condition=condition))
    assert abs(after - before).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("gpt2_hf", {"position": "rotary"}, "position='rotary' needs other weights than this checkpoint's 'learned'"),
        ("t5_hf", {"scores": "own"}, "scores='own' needs other weights"),
        ("roberta_hf", {"attention": "gau"}, "attention='gau' needs other weights"),
        ("llama_hf", {"condition_size": 4}, "only norm 'layer' takes a condition"),
        ("llama_hf", {"hidden_size": 4}, "hidden_size cannot be changed at load"),
        ("roberta_hf", {"activation": "gated_silu"}, "activation='gated_silu' needs other weights"),
        ("nezha_hf", {"max_positions": 128}, "max_positions: distances were learnt up to 4, .* any length"),
        ("t5_hf", {"max_positions": 512}, "max_positions: distances were learnt up to"),
        ("gpt2_hf", {"compound_tokens": [5]}, "compound_tokens: expected a list of token ids from 0 to .*, found 5"),
    ],
)
def test_what_needs_other_weights_is_refused(name: str, options: dict[str, object], says: str) -> None:
    arrays, config = source(name)
    with pytest.raises(mp.UserError, match=says):
        mp.load(arrays, config=config, **options)


def test_two_models_share_an_encoder() -> None:
    """Training one moves the other: there is one set of weights."""
    b = opened("electra_hf")
    one, other = b.encoder.graph(mask=mp.masks.padding()), b.encoder.graph(mask=mp.masks.causal())
    assert [id(w) for w in one.weights] == [id(w) for w in other.weights]


def test_llama2c_becomes_transformers_form(tmp_path: Path) -> None:
    """Neighbouring channels turn there, channels half a head apart here: reordered, the scores are the same."""
    arrays, config = source("llama2c")
    before = mp.load(arrays, config=config)
    before.save(tmp_path / "hf", format="huggingface")
    after = mp.load(tmp_path / "hf")
    assert (before.config.position, after.config.position) == ("rotary", "rotary_halves")
    tokens = np.array([[3, 5, 7, 9, 11, 2]])
    np.testing.assert_allclose(scores(after, tokens), scores(before, tokens), atol=1e-4)


def test_task_types_count_where_the_config_says_so() -> None:
    """ERNIE's first one is part of every segment; a file whose config does not speak of them has a tensor too many."""
    arrays, config = source("ernie")
    task = np.random.default_rng(0).normal(size=(3, 24)).astype("float32")
    name, says = "ernie.embeddings.task_type_embeddings.weight", {**config, "use_task_id": True}
    more = {**arrays, name: task}
    for b in (mp.load(more, config=says), mp.load(more, config=config, strict=False)):
        added = named_weights(b.network)["encoder/embedding/segment/embeddings"].numpy()
        added = added - arrays["ernie.embeddings.token_type_embeddings.weight"]
        np.testing.assert_allclose(added, added * 0 + (0 if b.report.problems else task[0]), atol=1e-6)
    assert b.report.left_over == [name]
    for wrong in (task[:0], task[:, 1:]):
        with pytest.raises(mp.CheckpointError, match="left over ernie.embeddings.task_type"):
            mp.load({**more, name: wrong}, config=says)


@pytest.mark.parametrize("form", ["google", "huggingface"])
def test_how_fresh_weights_are_drawn_is_no_part_of_a_checkpoint(form: str, tmp_path: Path) -> None:
    sizes = dict(vocab_size=30, hidden_size=16, num_layers=1, num_decoder_layers=1, num_heads=2, intermediate_size=8)
    config = mp.families.T5.config.but(**sizes, head_size=None, initializer_range=0.5)
    t5 = mp.Pretrained(mp.LanguageModel(config, ["lm"]), family="t5")
    t5.save(tmp_path / "out", form)
    back = mp.load(tmp_path / "out")
    assert back.config == config.but(initializer_range=back.config.initializer_range)
    if form == "huggingface":
        other = mp.Pretrained(mp.LanguageModel(config.but(attention_dropout=0.2), ["lm"]), family="t5")
        with pytest.raises(mp.CheckpointError, match="cannot say attention_dropout = 0.2"):
            other.save(tmp_path / "no", form)
