"""Masks against a naive double loop, their counts and limits, and what a rule must survive: text, JSON, tracing."""

import json
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from maskplay import masks
from maskplay.errors import UserError

GOLDEN = {(16, 4): (64, 124, 148, 82), (128, 8): (2048, 2104, 3784, 1956), (512, 16): (16384, 16624, 31504, 16008)}


# The oracle, written from the definitions and knowing nothing of the code: does query i see key j?


def naive_pair(rule: str, i: int, j: int, facts: dict[str, list[Any]]) -> bool:
    name, _, arguments = rule.partition(" ")
    numbers = [int(number) for number in arguments.split()]
    match name:
        case "full":
            return True
        case "causal":
            return j <= i
        case "reverse":
            return j >= i
        case "prefix":
            # Sources and targets alternate in turns. A source token sees its own turn's source and all that came
            # before; a target token sees all that came before, and itself.
            def turn_start(t: int) -> int:
                while t > 0 and not facts["segments"][t] and not facts["segments"][t - 1]:
                    t -= 1
                return t

            if facts["segments"][i]:
                return j <= i
            return j <= i or (not facts["segments"][j] and turn_start(j) == turn_start(i))
        case "permuted":
            return facts["order"][j] < facts["order"][i] if numbers[0] else facts["order"][j] <= facts["order"][i]
        case "padding":
            return bool(facts["valid"][j])
        case "documents":
            return facts["documents"][i] == facts["documents"][j]
        case "window":
            return abs(i - j) <= numbers[0]
        case "atrous":
            return (i - j) % numbers[0] == 0
        case "sparse":
            return abs(i - j) <= numbers[0] or (i - j) % numbers[0] == 0
        case "fixed":
            block, summary = numbers
            return j // block == i // block or j % block in range(block - summary, block)
    raise AssertionError(name)


def naive(tree: Any, i: int, j: int, facts: dict[str, list[Any]]) -> bool:
    if isinstance(tree, str):
        return naive_pair(tree, i, j, facts)
    sign, *arms = tree
    return (all if sign == "&" else any)(naive(arm, i, j, facts) for arm in arms)


def rule_of(tree: Any) -> masks.Mask:
    if isinstance(tree, str):
        name, _, arguments = tree.partition(" ")
        numbers = [int(number) for number in arguments.split()]
        return masks.permuted(bool(numbers[0])) if name == "permuted" else getattr(masks, name)(*numbers)
    sign, first, *others = tree
    rule = rule_of(first)
    for other in others:
        rule = rule & rule_of(other) if sign == "&" else rule | rule_of(other)
    return rule


NUMBER = st.integers(1, 9).map(str)
LEAVES = st.one_of(
    st.sampled_from(
        ["full", "causal", "reverse", "prefix", "permuted 0", "permuted 1", "padding", "documents", "window 0"]
    ),
    st.builds("{} {}".format, st.sampled_from(["window", "atrous", "sparse"]), NUMBER),
    st.integers(1, 6).flatmap(lambda block: st.integers(0, block).map(lambda summary: f"fixed {block} {summary}")),
)
TREES = st.recursive(
    LEAVES,
    lambda arms: st.tuples(st.sampled_from("&|"), st.lists(arms, min_size=1, max_size=3)).map(lambda t: (t[0], *t[1])),
    max_leaves=6,
)


@st.composite
def situations(draw: Any) -> tuple[int, dict[str, np.ndarray]]:
    """A length and random facts, each with or without a batch axis of 2."""
    n = draw(st.integers(1, 11))

    def fact(values: st.SearchStrategy[Any]) -> np.ndarray:
        return np.array(draw(st.one_of(values, st.lists(values, min_size=2, max_size=2))))

    def each(element: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(element, min_size=n, max_size=n)

    return n, {
        "segments": fact(each(st.integers(0, 1))),
        "order": fact(st.permutations(range(n))),
        "documents": fact(each(st.integers(0, 2))),
        "valid": fact(each(st.booleans())),
    }


@settings(max_examples=70, deadline=None)
@given(tree=TREES, situation=situations())
def test_every_rule_equals_the_double_loop(tree: Any, situation: tuple[int, dict[str, np.ndarray]]) -> None:
    n, facts = situation
    dense = rule_of(tree).dense(n, **facts)
    assert dense.dtype == bool and dense.shape[-2:] == (n, n)
    for row in range(2):
        of_row = {name: fact[row] if fact.ndim == 2 else fact for name, fact in facts.items()}
        expected = [[naive(tree, i, j, of_row) for j in range(n)] for i in range(n)]
        np.testing.assert_array_equal(dense[row] if dense.ndim == 3 else dense, expected)


@settings(max_examples=40, deadline=None)
@given(tree=TREES, situation=situations(), data=st.data())
def test_rows_are_rows_of_the_whole(tree: Any, situation: tuple[int, dict[str, np.ndarray]], data: Any) -> None:
    n, facts = situation
    at = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=4))
    rule = rule_of(tree)
    np.testing.assert_array_equal(rule.rows(at, n, **facts), rule.dense(n, **facts)[..., at, :])


@settings(max_examples=70, deadline=None)
@given(tree=TREES, situation=situations())
def test_plan_rebuilds_the_rule(tree: Any, situation: tuple[int, dict[str, np.ndarray]]) -> None:
    n, facts = situation
    rule = rule_of(tree)
    plan = rule.plan()
    i, j = np.indices((n, n))
    match plan.kind:
        case "full":
            rebuilt = np.ones((n, n), bool)
        case "causal":
            rebuilt = j <= i
        case "blocks":
            assert plan.window is not None or plan.stride is not None
            near = abs(i - j) <= plan.window if plan.window is not None else False
            far = (i - j) % plan.stride == 0 if plan.stride is not None else False
            rebuilt = near | far
            if plan.causal:
                rebuilt = rebuilt & (j <= i)
            assert plan.rest is not None
            rebuilt = rebuilt & plan.rest.dense(n, **facts)
        case "dense":
            return
    dense = rule.dense(n, **facts)
    np.testing.assert_array_equal(dense, np.broadcast_to(rebuilt, dense.shape))


@pytest.mark.parametrize(
    ("text", "kind", "window", "stride", "causal", "rest"),
    [
        ("full()", "full", None, None, False, None),
        ("causal()", "causal", None, None, True, None),
        ("causal() & padding()", "dense", None, None, False, None),
        ("window(3)", "blocks", 3, None, False, "full()"),
        ("window(3) & causal() & padding()", "blocks", 3, None, True, "padding()"),
        ("atrous(4) & documents() & padding()", "blocks", None, 4, False, "documents() & padding()"),
        ("sparse(4) & causal()", "blocks", 4, 4, True, "full()"),
        ("window(2) | causal()", "dense", None, None, False, None),
        ("window(2) | window(3) | atrous(2)", "dense", None, None, False, None),
        ("fixed(4, 1)", "dense", None, None, False, None),
    ],
)
def test_plan_finds_what_can_run_fast(
    text: str, kind: str, window: int | None, stride: int | None, causal: bool, rest: str | None
) -> None:
    plan = masks.parse(text).plan()
    assert (plan.kind, plan.window, plan.stride, plan.causal) == (kind, window, stride, causal)
    assert (None if plan.rest is None else str(plan.rest)) == rest


@pytest.mark.parametrize(("n", "k"), GOLDEN)
def test_counts(n: int, k: int) -> None:
    rules = (masks.atrous(k), masks.window(k), masks.sparse(k), masks.sparse(k) & masks.causal())
    assert tuple(int(rule.dense(n).sum()) for rule in rules) == GOLDEN[n, k]
    quotient, rest = divmod(n, k)
    assert GOLDEN[n, k][0] == rest * (quotient + 1) ** 2 + (k - rest) * quotient**2
    assert GOLDEN[n, k][1] == n * (2 * k + 1) - k * (k + 1)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_limits(n: int) -> None:
    full, causal, reverse = (rule.dense(n) for rule in (masks.full(), masks.causal(), masks.reverse()))
    assert full.all()
    for rule, facts, limit in (
        (masks.prefix(), {"segments": [0] * n}, full),
        (masks.prefix(), {"segments": [1] * n}, causal),
        (masks.permuted(), {"order": range(n)}, causal),
        (masks.permuted(), {"order": range(n)[::-1]}, reverse),
        (masks.permuted(strict=True), {"order": range(n)}, causal & ~np.eye(n, dtype=bool)),
        (masks.window(n - 1), {}, full),
        (masks.window(n + 3), {}, full),
        (masks.window(0), {}, np.eye(n, dtype=bool)),
        (masks.atrous(1), {}, full),
        (masks.sparse(1), {}, full),
        (masks.atrous(n), {}, np.eye(n, dtype=bool)),
        (masks.fixed(n, 0), {}, full),
        (masks.fixed(1, 1), {}, full),
    ):
        np.testing.assert_array_equal(rule.dense(n, **{k: list(v) for k, v in facts.items()}), limit, err_msg=str(rule))


def test_the_smallest_window_that_reaches_everything_through_one_atrous_layer() -> None:
    atrous = masks.atrous(8).dense(64).astype(int)
    assert [w for w in range(1, 9) if (masks.window(w).dense(64) @ atrous > 0).all()][0] == 7


def test_prefix_padding_after_the_target_stays_out_of_the_target() -> None:
    dense = masks.prefix().dense(6, segments=[0, 0, 1, 1, 0, 0])
    assert not dense[:4, 4:].any()
    dense = (masks.prefix() & masks.padding()).dense(6, segments=[0, 0, 1, 1, 0, 0], valid=[1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(dense[:4, :4], masks.prefix().dense(4, segments=[0, 0, 1, 1]))
    assert not dense[:, 4:].any()


def test_prefix_of_several_turns_does_not_leak_into_the_past() -> None:
    dense = masks.prefix().dense(8, segments=[0, 0, 1, 1, 0, 0, 1, 1])
    assert not dense[:4, 4:].any()
    assert dense[4:6, :6].all() and not dense[4:6, 6:].any()
    np.testing.assert_array_equal(dense[6:], masks.causal().dense(8)[6:])


def test_prefix_of_segments_of_other_types() -> None:
    expected = masks.prefix().dense(4, segments=[0, 0, 1, 1])
    for segments in (np.array([0, 0, 1, 1], bool), np.array([0, 0, 1, 1], "uint8"), np.array([0.0, 0.0, 1.0, 1.0])):
        np.testing.assert_array_equal(masks.prefix().dense(4, segments=segments), expected)


# Rules as values.


@settings(max_examples=70, deadline=None)
@given(one=TREES, other=TREES)
def test_combinations_commute_and_repeat_nothing(one: Any, other: Any) -> None:
    a, b = rule_of(one), rule_of(other)
    for left, right in ((a & b, b & a), (a | b, b | a), (a & a, a), (a | a, a), (a & masks.full(), a)):
        assert left == right and hash(left) == hash(right)
    assert a | masks.full() == masks.full()
    assert {a: 1}[rule_of(one)] == 1


def test_different_rules_differ() -> None:
    rules = [
        *(masks.full(), masks.causal(), masks.reverse(), masks.prefix(), masks.permuted(), masks.permuted(True)),
        *(masks.padding(), masks.documents(), masks.window(2), masks.window(3), masks.atrous(2), masks.fixed(2, 1)),
        *(masks.causal() & masks.padding(), masks.causal() | masks.padding(), masks.sparse(2)),
    ]
    assert len(set(rules)) == len(rules)
    assert masks.causal() != "causal()"
    with pytest.raises(TypeError):
        masks.causal() & True


def test_needs_lists_the_facts() -> None:
    rule = (masks.prefix() & masks.padding()) | (masks.window(2) & masks.documents())
    assert rule.needs == {"segments", "valid", "documents"}


@settings(max_examples=40, deadline=None)
@given(tree=TREES)
def test_json_round_trip(tree: Any) -> None:
    rule = rule_of(tree)
    text = json.dumps(keras.saving.serialize_keras_object(rule))
    assert keras.saving.deserialize_keras_object(json.loads(text)) == rule


@settings(max_examples=70, deadline=None)
@given(tree=TREES)
def test_parse_reads_what_repr_writes(tree: Any) -> None:
    rule = rule_of(tree)
    assert masks.parse(repr(rule)) == rule


def test_parse_reads_what_people_type() -> None:
    assert masks.parse(" prefix & padding ") == masks.prefix() & masks.padding()
    assert masks.parse("fixed(c=1, l=4)") == masks.fixed(4, 1)
    assert masks.parse("permuted(strict=True)") == masks.permuted(strict=True)
    assert masks.parse("causal() & (window(2) | atrous(4))") == masks.causal() & (masks.window(2) | masks.atrous(4))
    assert masks.parse("causal() & window(2) | full()") == masks.full()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cause()",
        "causal() + padding()",
        "~causal()",
        "not causal()",
        "causal() and padding()",
        "[causal()]",
        "causal().dense(3)",
        "__import__('os').system('touch owned')",
        "window(__import__('os').getpid())",
        "window(w=open('owned', 'w'))",
        "window(1 if open('owned', 'w') else 2)",
        "(lambda: causal())()",
        "full(*[open('owned', 'w')])",
        "full(**{})",
        "Causal()",
        "RULES['full']()",
        "parse('full()')",
        "window(2",
        "window",
        "window(1.5)",
        "window('2')",
        "window(True)",
        "window(2, 3)",
        "permuted([])",
        "permuted('no')",
        "\0",
        "(" * 400 + "full()" + ")" * 400,
        "full()" + " & full()" * 2000,
        "window(9" + "9" * 5000 + ")",
    ],
)
def test_parse_evaluates_nothing_else(text: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        masks.parse(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not list(tmp_path.iterdir())


# What users get wrong.


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: masks.prefix().dense(3), "segments"),
        (lambda: masks.permuted().dense(3), "order"),
        (lambda: (masks.causal() & masks.documents()).dense(3), "documents"),
        (lambda: masks.padding().rows([0], 3), "valid"),
        (lambda: masks.prefix().dense(3, segments=[0, 1]), r"expected shape \(3,\) or \(batch, 3\), found \(2,\)"),
        (lambda: masks.prefix().dense(3, segments=np.zeros((2, 3, 1))), "found"),
        (lambda: masks.prefix().dense(3, segments=0), r"found \(\)"),
        (lambda: masks.causal().dense(3, valid=[1, 1]), "valid"),
        (lambda: masks.causal().dense(-1), "whole number from 0"),
        (lambda: masks.causal().dense(3.0), "whole number from 0"),
        (lambda: masks.causal().rows([3], 3), "0 … 2"),
        (lambda: masks.causal().rows([-1], 3), "0 … 2"),
        (
            lambda: (masks.padding() & masks.documents()).dense(2, valid=np.ones((2, 2)), documents=np.ones((3, 2))),
            "2 and 3",
        ),
        (lambda: masks.window(-1), "from 0 to 2,147,483,647, found -1"),
        (lambda: masks.window(None), "found None"),
        (lambda: masks.parse("atrous(99999999999999999999)"), "atrous.*to 2,147,483,647"),
        (lambda: masks.window(2**31), "to 2,147,483,647, found 2147483648"),
        (lambda: masks.atrous(0), "whole number from 1"),
        (lambda: masks.parse(5), "expected a mask such as .*found 5"),
        (lambda: masks.parse(["causal()"]), "expected a mask such as"),
        (lambda: masks.sparse(0), r"sparse\(k\)"),
        (lambda: masks.fixed(2, 3), "c <= l"),
        (lambda: masks.fixed(0, 0), "whole number from 1"),
        (lambda: masks.permuted("yes"), "True or False"),
        (lambda: masks.causal().picture(0), "whole number from 1"),
        (lambda: masks.causal().picture(2, format="jpg"), "svg, text, png"),
        (lambda: masks.causal().picture(600), "at most 512"),
        (lambda: masks.causal().picture(2, tokens=["a"]), "needs 2 labels, found 1"),
        (lambda: masks.padding().picture(2, valid=[[1, 1]]), "without a batch axis"),
        (lambda: masks.prefix() and masks.padding(), "prefix.*: a mask is neither true nor false; join rules with &"),
        (lambda: not masks.causal(), "neither true nor false"),
    ],
)
def test_mistakes_are_one_clear_line(wrong: Any, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_numpy_integers_are_integers() -> None:
    assert str(masks.window(np.int64(3)) & masks.fixed(np.int32(4), np.int8(1))) == "fixed(4, 1) & window(3)"
    assert masks.causal().dense(np.int64(3)).shape == (3, 3)


# Tensors in, tensors out; traced with lengths unknown.

FACTS = {
    "segments": np.array([[0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 1]], "int32"),
    "order": np.array([[3, 1, 2, 0, 5, 4], [0, 5, 1, 4, 2, 3]], "int32"),
    "documents": np.array([[1, 1, 2, 2, 3, 3], [1, 1, 1, 1, 2, 2]], "int32"),
    "valid": np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], bool),
}
ALL = {
    **{text: masks.parse(text) for text in ("full()", "causal()", "reverse()", "prefix()", "permuted()", "padding()")},
    **{text: masks.parse(text) for text in ("permuted(True)", "documents()", "window(2)", "sparse(2)", "fixed(3, 1)")},
    "mixed": masks.parse("(prefix() & padding()) | (documents() & window(1))"),
}


@pytest.mark.parametrize("rule", ALL.values(), ids=str)
def test_tensors_in_tensors_out(rule: masks.Mask) -> None:
    tensors = {name: ops.convert_to_tensor(fact) for name, fact in FACTS.items()}
    dense = rule.dense(6, **tensors)
    assert ops.is_tensor(dense) and keras.backend.standardize_dtype(dense.dtype) == "bool"
    np.testing.assert_array_equal(ops.convert_to_numpy(dense), rule.dense(6, **FACTS))
    rows = rule.rows(ops.array([4, 1]), 6, **tensors)
    np.testing.assert_array_equal(ops.convert_to_numpy(rows), rule.rows([4, 1], 6, **FACTS))
    only_facts = rule.rows([4, 1], 6, **tensors)
    np.testing.assert_array_equal(ops.convert_to_numpy(only_facts), rule.rows([4, 1], 6, **FACTS))


def traced(function: Any) -> Any:
    """The function as its backend compiles it, with every length unknown where the backend can."""
    match keras.backend.backend():
        case "jax":
            import jax

            return jax.jit(function)
        case "tensorflow":
            import tensorflow as tf

            unknown = [tf.TensorSpec((None, None), tf.as_dtype(fact.dtype)) for fact in FACTS.values()]
            return tf.function(function, input_signature=unknown)
    return function


@pytest.mark.parametrize("rule", [ALL["mixed"], masks.causal() & masks.window(1)], ids=str)
def test_traced(rule: masks.Mask) -> None:
    def evaluate(*facts: Any) -> Any:
        return rule.dense(ops.shape(facts[0])[1], **dict(zip(FACTS, facts)))

    compiled = traced(evaluate)
    for n in (6, 3):
        facts = {name: fact[:, :n] for name, fact in FACTS.items()}
        np.testing.assert_array_equal(
            ops.convert_to_numpy(compiled(*map(ops.convert_to_tensor, facts.values()))), rule.dense(n, **facts)
        )
