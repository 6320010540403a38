"""What is asked of a text: whole words hidden at the promised rate, labels that are the text itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskplay.pretext import (
    Framing,
    Laid,
    Packed,
    Rows,
    lay_out,
    masked,
    next_tokens,
    permuted,
    places_for,
    split,
    with_others,
)
from pretext.test_packing import corpus

MASK, FRAMING, ORDINARY = 4, Framing(begin=2, end=3, pad=0), np.arange(5, 1005)


def rows(seed: int, count: int = 8, length: int = 64) -> Laid:
    draw = np.random.default_rng(seed)

    def part(size: int):
        begins = draw.random(size) < 0.5
        begins[:1] = True
        return draw.integers(5, 1005, size), begins

    return lay_out([[[part(int(draw.integers(1, 20)))] for _ in range(2)] for _ in range(count)], length, FRAMING)


def test_rows_are_laid_out() -> None:
    one = (np.array([7, 8, 9]), np.array([True, False, True]))
    two = (np.array([6, 7]), np.array([False, False]))  # begins in the middle of a word
    laid = lay_out([[[one, two], [two]], [[one]]], 14, FRAMING)
    assert laid.tokens.tolist() == [[2, 7, 8, 9, 3, 6, 7, 3, 2, 6, 7, 3, 0, 0], [2, 7, 8, 9, 3] + [0] * 9]
    assert laid.segments.tolist()[0] == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert laid.positions.tolist()[0] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 0, 0]
    assert laid.documents.tolist()[0] == [1] * 8 + [2] * 4 + [0, 0]
    assert laid.words.tolist()[0] == [0, 1, 1, 2, 0, 3, 3, 0, 0, 4, 4, 0, 0, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**20), st.floats(0.05, 0.6))
def test_words_are_hidden_whole(seed: int, rate: float) -> None:
    laid = rows(seed)
    places = places_for(64, rate)
    tokens, at, labels = masked(laid, rate, MASK, ORDINARY, places, np.random.default_rng(seed))
    chosen = np.zeros(tokens.shape, bool)
    for i in range(len(tokens)):
        mine = at[i][labels[i] != -100]
        assert len({*mine.tolist()}) == len(mine) <= places
        chosen[i, mine] = True
        assert (labels[i][labels[i] != -100] == laid.tokens[i, mine]).all()
        for word in range(laid.words[i].max() + 1):
            flags = chosen[i][laid.words[i] == word]
            assert not len(flags) or (not flags.any() if word == 0 else flags.all() or not flags.any())
    assert (tokens == laid.tokens)[~chosen].all()  # nothing else is touched


@pytest.mark.parametrize("as_mask", [0.8, 1.0, 0.5])
def test_rates_and_fates(as_mask: float) -> None:
    hidden = words = 0
    fates = np.zeros(3)
    draw = np.random.default_rng(0)
    for seed in range(300):
        laid = rows(seed, count=32)
        tokens, at, labels = masked(laid, 0.15, MASK, ORDINARY, 64, draw, as_mask)
        for i in range(32):
            mine = at[i][labels[i] != -100]
            hidden += len(np.unique(laid.words[i, mine]))
            words += laid.words[i].max()
            same = tokens[i, mine] == laid.tokens[i, mine]
            masks = tokens[i, mine] == MASK
            fates += masks.sum(), same.sum(), (~masks & ~same).sum()
    assert words > 1e5 and abs(hidden - 0.15 * words) < 4 * (words * 0.15 * 0.85) ** 0.5
    half = (1 - as_mask) / 2
    if not half:
        assert not fates[1:].any()
        return
    expected = fates.sum() * np.array([as_mask, half + half / 1000, half - half / 1000])
    assert ((fates - expected) ** 2 / expected).sum() < 18.4  # chi-squared, 2 degrees, p = 1e-4


def test_too_many_targets_are_let_go_by_words() -> None:
    laid = rows(1)
    _, at, labels = masked(laid, 0.9, MASK, ORDINARY, 5, np.random.default_rng(0))
    assert at.shape == (8, 5)
    assert (labels != -100).sum(axis=1).min() >= 3  # what fits still does
    for i in range(8):
        taken = [laid.words[i, place] for place, label in zip(at[i], labels[i]) if label != -100]
        assert all(taken.count(word) == (laid.words[i] == word).sum() for word in taken)


def test_places_are_enough_nearly_always() -> None:
    assert places_for(128, 0.15) == 28 and places_for(8, 0.9) == 8
    counts = np.random.default_rng(0).binomial(128, 0.15, 100_000)
    assert (counts > 36).mean() < 2e-4


@pytest.mark.parametrize("length", [32, 128])
def test_long_words_are_hidden_as_often_as_short_ones(length: int) -> None:
    draw = np.random.default_rng(0)
    sizes = draw.integers(1, 7, 60_000)
    begins = np.zeros(sizes.sum(), bool)
    begins[np.cumsum(sizes) - sizes] = True
    laid = lay_out([[[(np.full(length - 2, 9), b)]] for b in begins[: begins.size // (length - 2) * (length - 2)]
                    .reshape(-1, length - 2)], length, FRAMING)  # fmt: skip
    word = np.square(sizes).sum() / sizes.sum()
    _, _, labels = masked(laid, 0.15, MASK, ORDINARY, places_for(length, 0.15, word), draw)
    _, _, short = masked(laid, 0.15, MASK, ORDINARY, places_for(length, 0.15), draw)
    rates = [(each != -100).sum() / (laid.words > 0).sum() for each in (labels, short)]
    assert abs(rates[0] - 0.15) < 0.0025 < 0.15 - rates[1]


def test_next_tokens_stay_in_their_piece() -> None:
    laid = rows(3)
    labels = next_tokens(laid)
    for tokens, documents, row in zip(laid.tokens, laid.documents, labels):
        for i in range(len(row)):
            inside = documents[i] and i + 1 < len(row) and documents[i + 1] == documents[i]
            assert row[i] == (tokens[i + 1] if inside else -100)


def test_a_drawn_order() -> None:
    laid = rows(4)
    order, labels = permuted(laid, np.random.default_rng(0))
    assert (np.sort(order, axis=1) == np.arange(64)).all()
    for i in range(len(order)):
        place = np.argsort(order[i])
        for document in range(1, laid.documents[i].max() + 1):
            mine = [p for p in place if laid.documents[i, p] == document]
            assert laid.positions[i, mine[0]] == 0  # from [CLS] on
            assert labels[i, mine].tolist() == [*laid.tokens[i, mine[1:]], -100]
        assert (labels[i][laid.documents[i] == 0] == -100).all()
    assert (order[0] != np.arange(64)).any()


def test_halves() -> None:
    draw = np.random.default_rng(0)
    ids, begins = np.arange(9), np.array([1, 0, 0, 1, 0, 1, 1, 0, 0], bool)
    cuts = set()
    for _ in range(100):
        (a, left), (b, right) = split((ids, begins), draw)
        assert [*a, *b] == ids.tolist() and [*left, *right] == begins.tolist()
        cuts.add(len(a))
    assert cuts == {3, 5, 6}
    (a, _), (b, _) = split((ids, np.zeros(9, bool)), draw)  # a single word
    assert (len(a), len(b)) == (4, 5)
    (a, _), (b, _) = split((ids[:1], begins[:1]), draw)
    assert (len(a), len(b)) == (1, 0)


def test_every_row_once_before_any_twice() -> None:
    packed = Packed(corpus([[10] * 50]), room=16)
    order = Rows(packed, seed=3)
    first, second = order.numbers(0, len(packed)), order.numbers(len(packed), len(packed))
    assert sorted(first) == sorted(second) == [*range(len(packed))] and first.tolist() != second.tolist()
    across = Rows(packed, seed=3).numbers(len(packed) - 2, 4)
    assert across.tolist() == [*first[-2:], *second[:2]]
    pieces = [ids for row in first for ids, _ in order.pieces(row)]
    assert sorted(np.concatenate(pieces).tolist()) == [*range(500)]


@pytest.mark.parametrize("missing", ["begin", "both"])
def test_special_tokens_of_a_decoder(missing: str) -> None:
    class Only:
        cls_id = sep_id = pad_id = None
        bos_id, eos_id = (None, 7) if missing == "begin" else (5, 7)

        def special(self, role: str) -> int:
            return 7

    assert Framing.of(Only()) == Framing(7 if missing == "begin" else 5, 7, 0)


def test_what_follows_anyway_is_not_asked_about() -> None:
    """A batch with more rows than the corpus has a row twice: its own end is not another's."""
    texts = [(np.arange(5, 11), np.ones(6, bool)), (np.arange(15, 21), np.ones(6, bool))] * 4
    ends, asked = [np.array([3])] * 8, []
    for seed in range(50):
        pairs, wrong = with_others(texts, ends, 12, np.random.default_rng(seed))
        for (a, b), label in zip(pairs, wrong.tolist()):
            asked.append(label)
            if label == 1:
                assert a[0][0] != b[0][0] - 3
    assert {*asked} == {-100, 0, 1}
