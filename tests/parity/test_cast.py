"""The contract of the cast: what holds for every row of cases.py, whatever its family and dialect.

A new family is a row in families.py, its names in checkpoints/, and a line in cases.py; nothing is added here.
"""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import maskplay as mp
from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.load import describe
from maskplay.checkpoints.match import TABLES, refuse
from maskplay.families import FAMILIES
from maskplay.language_model import named_weights
from parity.cases import CASES
from parity.closeness import assert_within
from parity.opened import REFUSED, compared, distinct, facts, opened, run, source

LIMITS = {"logits": 1e-3, "mlm": 1e-3, "discriminator": 1e-3, "nsp": 1e-3}  # all else is hidden states: 1e-5
CAUSAL = [name for name, case in CASES.items() if case.mask.startswith("causal")]


def test_every_family_has_a_row() -> None:
    assert {case.family for case in CASES.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_original_s(name: str) -> None:
    case, found = CASES[name], run(opened(name).network, CASES[name])
    assert opened(name).family == case.family
    for key, theirs in case.expected().items():
        where = compared(case, key)
        assert_within(LIMITS.get(key, 1e-5), f"{name} {key}", found[key], theirs, where)
        if key in ("logits", "mlm"):
            assert (found[key].argmax(-1) == theirs.argmax(-1))[where].all(), "another best token"


@pytest.mark.parametrize("name", CAUSAL)
def test_step_by_step_is_the_same(name: str) -> None:
    """With a cache, one and three tokens at a time: the hidden states and scores of a full pass."""
    case, network = CASES[name], opened(name).network
    given, expected = facts(case), case.expected()
    stack, tokens, memory = network.encoder, case.inputs()["tokens"], {}
    if case.two_sided:
        valid = network.encoder.valid(tokens)
        memory = {"memory": network.encoder(tokens, valid=valid), "memory_valid": valid}
        stack, tokens, given = network.decoder, given["decoder_tokens"], {"mask": mp.masks.causal()}
    length = tokens.shape[1]
    cache, parts = stack.new_cache(len(tokens), length, **memory), []
    for start, end in steps(length):
        piece = {key: value[:, start:end] if key == "segments" else value for key, value in given.items()}
        hidden, cache = stack(tokens[:, start:end], cache=cache, **piece)
        parts.append(hidden)
    hidden = keras.ops.concatenate(parts, axis=1)
    assert_within(1e-5, f"{name} cached", hidden, expected["hidden"], case.valid())
    key = next((key for key in ("logits", "mlm") if key in expected), None)
    if key is not None:
        scores = keras.ops.convert_to_numpy(network.score(hidden))
        assert_within(1e-3, f"{name} cached {key}", scores, expected[key], case.valid())
        assert (scores.argmax(-1) == expected[key].argmax(-1))[case.valid()].all()


def steps(length: int) -> list[tuple[int, int]]:
    """Where pieces of 1, 3, 1, 3, … tokens begin and end, of 1 and 9 from the twentieth on; of 1 at the end."""
    ends = [0]
    while ends[-1] < length:
        longer = 3 if ends[-1] < 20 else 9
        ends.append(ends[-1] + (longer if len(ends) % 2 == 0 and ends[-1] + longer <= length else 1))
    return list(zip(ends, ends[1:]))


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_is_accounted_for(name: str) -> None:
    report, network = opened(name).report, opened(name).network
    assert (report.problems, report.left_over, report.passed_over) == ([], [], [])
    assert {row.theirs for row in report.filled} == set(source(name)[0])
    filled, empty = {row.ours for row in report.filled}, set(report.left_empty)
    assert filled | {path for path in empty if path in named_weights(network)} == set(named_weights(network))
    assert not filled & empty
    assert all(path.endswith("_kernel") or path.split("/")[0] not in network.heads for path in empty)


def refused(name: str, arrays: dict[str, np.ndarray], **options: str) -> str:
    """The error that these arrays give in place of the row's own, empty if there is none. Nothing is built."""
    options = {"family": CASES[name].options.get("family"), **options}
    try:
        found = describe(arrays, source(name)[1], **options)
        refuse(found.tensors.path, found.match)
    except mp.CheckpointError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def sign(name: str, report) -> bool:
    """Whether it is the name by which its table is recognised."""
    tables = [table for table in TABLES if table.family == FAMILIES[report.family].tables]
    return any(re.fullmatch(table.sign, table.spelled(name)) for table in tables if table.dialect == report.dialect)


@pytest.mark.parametrize("name", distinct())
def test_a_lost_strange_or_misshapen_tensor_is_named(name: str) -> None:
    arrays, report = source(name)[0], opened(name).report
    places = "bert/embeddings/position_embeddings"
    for lost in arrays:
        said = refused(name, {key: value for key, value in arrays.items() if key != lost})
        if sign(lost, report):
            # Without the tensor it is known by, it is nothing or another family; BERT without positions is RoFormer.
            assert said or lost == places and "model_type" not in CASES[name].config, lost
        else:
            assert re.search(rf"missing (\w+\.)?{re.escape(lost)}\b", said), (lost, said)
    drawn = np.random.default_rng(CASES[name].seed).choice(sorted(arrays), 3)
    assert "left over strange/kernel" in refused(name, {**arrays, "strange/kernel": np.ones(3, "float32")})
    for changed in drawn:
        shape = arrays[changed].shape
        wide = np.concatenate([arrays[changed], arrays[changed][..., :1]], axis=-1)
        said = refused(name, {**arrays, changed: wide})
        assert f"{changed}: expected floats of shape {shape}, found float32 {wide.shape}" in said, (changed, said)


@pytest.mark.parametrize("name", distinct())
def test_every_tensor_has_its_place(name: str) -> None:
    """Two tensors of one shape exchanged in the file: something else comes out. Eight pairs of each table."""
    case, arrays = CASES[name], source(name)[0]
    weights, rows = named_weights(opened(name).network), opened(name).report.filled
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for key, value in arrays.items():
        if not re.search(r"key(_layer)?[./]bias", key):  # softmax forgets these, where keys are not turned
            by_shape.setdefault(value.shape, []).append(key)
    pairs = [pair for names in by_shape.values() for pair in zip(names, names[1:])]
    drawn = np.random.default_rng(case.seed).permutation(len(pairs))[:8]
    usual = run(opened(name).network, case)
    for one, other in (pairs[index] for index in drawn):
        swapped = {one: arrays[other], other: arrays[one]}
        touched = [row for row in rows if row.theirs in swapped]
        for row in touched:
            weights[row.ours].assign(row.read(swapped[row.theirs]))
        found = run(opened(name).network, case)
        for row in touched:
            weights[row.ours].assign(row.read(arrays[row.theirs]))
        moved = max(np.abs(found[key] - usual[key])[np.s_[:] if where is None else where].max()
                    for key in usual for where in [compared(case, key)])  # fmt: skip
        assert moved > 1e-4, (one, other)


OF_GOOGLE = ("google", "mesh", "newslm", "brightmart")  # dialects that "google" writes


@pytest.mark.parametrize("format", ["maskplay", "google", "huggingface"])
@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name: str, format: str, tmp_path: Path) -> None:
    """What is saved is read as the same numbers under the same config, and under the names the original has."""
    case, made = CASES[name], opened(name)
    if name in REFUSED.get(format, ()):
        with pytest.raises(mp.CheckpointError, match="save as maskplay") as caught:
            made.save(tmp_path / "out", format=format)
        assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
        return
    made.save(tmp_path / "out", format=format)
    back = describe(tmp_path / "out")
    refuse(back.tensors.path, back.match)
    if case.dialect == "llama2c" and format == "huggingface":
        # There channels stand in another order; tests/checkpoints/test_options.py compares the scores.
        assert back.config == made.config.but(position="rotary_halves")
        return
    # transformers knows no WoBERT and no LaBSE: what it opens says BERT.
    family = FAMILIES[case.family].tables if format == "huggingface" else case.family
    assert (back.config, back.found.family, back.match.heads) == (made.config, family, made.network.heads)
    weights = named_weights(made.network)
    assert {row.ours for row in back.match.filled} == set(weights)
    for row in back.match.filled:
        np.testing.assert_array_equal(row.read(back.tensors[row.theirs]), keras.ops.convert_to_numpy(weights[row.ours]))
    if case.dialect == format or case.dialect in OF_GOOGLE and format == "google":
        theirs, tensors = {key: entry[1] for key, entry in case.table.items()}, open_tensors(tmp_path / "out")
        # Files of transformers' bare models leave the model's name out; we always write it.
        names = {key: key if key in theirs else key.partition(".")[2] for key in tensors.names()}
        assert {names[key]: tensors.shape(key) for key in names} == theirs


# Pairs that neither names nor a silent config tell apart, or that compute the same: what the user says holds.
UNTOLD = [("albert", "albert_unshared"), ("roformer", "nezha"), ("roformer_sim", "nezha")]


@pytest.mark.parametrize("name", distinct())
def test_a_wrong_family_is_told(name: str) -> None:
    """Opened as any other family: whose file it is, and what to do."""
    case = CASES[name]
    own = {FAMILIES[case.family].tables, case.family.removesuffix("_unshared")}
    for other, family in FAMILIES.items():
        said = refused(name, source(name)[0], family=other)
        if family.tables in own or (case.family, other) in UNTOLD and case.config.get("model_type") in (None, "albert"):
            assert said == "", other
        else:
            assert any(
                f"a checkpoint of {one}, not of {other}: load it without" in said
                or f"a checkpoint of {one}, not of {other}, and cannot become one" in said
                for one in own
            ), said


@pytest.mark.parametrize("name", distinct())
def test_a_head_it_has_not_is_told(name: str) -> None:
    case, network = CASES[name], opened(name).network
    arrays, config = source(name)
    for head in ("nsp", "rtd"):
        if head not in network.heads:
            with pytest.raises(mp.UserError, match=f"no head (pooler, )?{head}|missing|it has none"):
                mp.load(arrays, config=config, **case.options, heads=["pooler", head] if head == "nsp" else [head])


def test_albert_of_several_members_a_group_is_refused() -> None:
    arrays, config = source("albert_hf_groups")
    with pytest.raises(mp.CheckpointError, match=r"inner_group_num = 2 is not supported \(only 1\)"):
        mp.load(arrays, config={**config, "inner_group_num": 2})


def test_a_config_that_says_bert_beside_no_positions_is_refused() -> None:
    arrays, config = source("roformer")
    with pytest.raises(mp.CheckpointError, match="its tensors are those of .*, but its config says 'bert'"):
        mp.load(arrays, config={**config, "model_type": "bert"})
