"""Accuracy and macro F1: by hand, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskplay.errors import UserError
from maskplay.metrics import accuracy, confusion, macro_f1

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=40)


def test_by_hand():
    truth, guesses = ["a", "a", "b", "c"], ["a", "b", "b", "d"]
    labels, counts = confusion(truth, guesses)
    assert labels.tolist() == ["a", "b", "c", "d"]
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert accuracy(truth, guesses) == 0.5
    assert macro_f1(truth, guesses) == pytest.approx((2 / 3 + 2 / 3 + 0 + 0) / 4)
    assert macro_f1(guesses, guesses) == accuracy(guesses, guesses) == 1.0


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(deadline=None)
@given(pairs=pairs, names=st.booleans())
def test_scikit_learn_agrees(pairs, names):
    reference = pytest.importorskip("sklearn.metrics")
    truth, guesses = np.array(pairs).T
    if names:
        truth, guesses = (np.array(list("pqrstu"))[x] for x in (truth, guesses))
    labels, counts = confusion(truth, guesses)
    assert (counts == reference.confusion_matrix(truth, guesses, labels=labels)).all()
    assert accuracy(truth, guesses) == pytest.approx(reference.accuracy_score(truth, guesses))
    assert macro_f1(truth, guesses) == pytest.approx(
        reference.f1_score(truth, guesses, average="macro", zero_division=0)
    )


@pytest.mark.parametrize("truth, guesses", [([], []), ([1], [1, 2]), ([[1]], [[1]]), (1, 1)])
def test_what_cannot_be_compared(truth, guesses):
    for metric in (accuracy, macro_f1, confusion):
        with pytest.raises(UserError, match="as many guesses as labels"):
            metric(truth, guesses)


def test_many_labels_take_little_memory():
    truth = np.arange(100_000)
    assert accuracy(truth, truth) == macro_f1(truth, truth) == 1.0  # not by way of a table of 10^10 counts
    assert accuracy(truth, truth + 1) == 0.0
