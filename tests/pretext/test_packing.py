"""Rows: every token of the spans once, none too long, hardly any padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskplay.errors import UserError
from maskplay.pretext import Packed, Prepared, held_out, pack


def corpus(sizes: list[list[int]], seed: int = 0) -> Prepared:
    """One that was never on disk: for each document its sentences' lengths."""
    made = object.__new__(Prepared)
    lengths = [size for document in sizes for size in document]
    made.sentences = np.cumsum([0, *lengths])
    made.documents = np.cumsum([0, *map(len, sizes)])
    made.ids = np.arange(sum(lengths), dtype="uint32")
    made.words = np.random.default_rng(seed).random(sum(lengths)) < 0.6
    made.words[made.sentences[:-1]] = True
    return made


SIZES = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=8), min_size=1, max_size=8)


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 64))
def test_pieces_are_packed(sizes: list[int], room: int) -> None:
    rows = pack(sizes, room)
    filled = np.bincount(rows, weights=sizes) if sizes else np.zeros(0)
    assert (filled <= room).all() and (filled > 0).all()
    # None of two rows could have been one.
    assert len(filled) < 2 or np.partition(filled, 1)[:2].sum() > room


def test_too_large_a_piece_is_refused() -> None:
    with pytest.raises(UserError, match="expected 1 to 4, found 2 to 5"):
        pack([2, 5], 4)


@settings(deadline=None)
@given(SIZES, st.integers(8, 48), st.integers(2, 3), st.booleans())
def test_every_token_stands_in_one_row(sizes, room: int, specials: int, shared: bool) -> None:
    made = corpus(sizes)
    packed = Packed(made, room=room, specials=specials, shared=shared)
    rows = [
        list(zip(packed.begins[a:b].tolist(), packed.ends[a:b].tolist()))
        for a, b in zip(packed.firsts[:-1], packed.firsts[1:])
    ]
    spans = sorted(piece for row in rows for piece in row)
    assert np.concatenate([np.arange(*span) for span in spans]).tolist() == made.ids.tolist()
    assert len(packed) == len(rows) and packed.tokens == sum(end - begin + specials for begin, end in spans)
    assert all(row and sum(end - begin + specials for begin, end in row) <= room for row in rows)
    assert shared or all(len(row) == 1 for row in rows)
    borders = set(made.sentences[made.documents].tolist())
    for begin, end in spans:
        assert not any(begin < border < end for border in borders)  # a piece is of one document
        # It ends with a sentence or a word, unless it is one word too long for a row.
        assert end == len(made.ids) or made.words[end] or not made.words[begin + 1 : end + 1].any()


def test_rows_are_full() -> None:
    draw = np.random.default_rng(0)
    long = corpus([draw.integers(5, 90, 2000).tolist()])
    short = corpus([[int(size)] for size in draw.integers(5, 60, 2000)])
    for made in (long, short):
        packed = Packed(made, room=128)
        assert packed.filled > 0.97 and packed.filled == packed.tokens / (128 * len(packed))
    assert Packed(short, room=128, shared=False).filled < 0.4


def test_no_room_and_no_text() -> None:
    with pytest.raises(UserError, match="length: expected at least 4, found 3"):
        Packed(corpus([[3]]), room=3)
    with pytest.raises(UserError, match="expected some text"):
        Packed(corpus([[3]]), np.zeros((0, 2), int), room=8)


def test_held_out_text_is_not_trained_on() -> None:
    made = corpus([[3] * 500, [3] * 10, [3] * 490])
    train, dev = held_out(made, 0.1, seed=1)
    seen = np.zeros(1000, int)
    for spans, mark in ((train, 1), (dev, 10)):
        for first, end in spans:
            seen[first:end] += mark
    assert {*seen.tolist()} == {1, 10} and 60 <= (seen == 10).sum() <= 140
    assert not any(first < border < end for first, end in train for border in (500, 510))
    assert [part.tolist() for part in held_out(made, 0.1, seed=1)] == [train.tolist(), dev.tolist()]
    assert held_out(made, 0.1, seed=2)[1].tolist() != dev.tolist()
    assert len(held_out(made, 1e-9)[1]) == 1
    assert [len(spans) for spans in held_out(corpus([[3, 4]]), 0.1)] == [1, 1]
    with pytest.raises(UserError, match="expected at least two sentences"):
        held_out(corpus([[3]]), 0.1)
    for share in (-1, 0, 1, 5.0):
        with pytest.raises(UserError, match="held_out: expected a share between 0 and 1"):
            held_out(made, share)


@settings(deadline=None)
@given(SIZES, st.integers(8, 48))
def test_whole_pieces_end_with_a_sentence_wherever_one_ends(sizes, room: int) -> None:
    made = corpus(sizes)
    packed = Packed(made, room=room, specials=2, shared=False, whole=True)
    spans = sorted(zip(packed.begins.tolist(), packed.ends.tolist()))
    assert np.concatenate([np.arange(*span) for span in spans]).tolist() == made.ids.tolist()
    bounds = {*made.sentences.tolist()}
    for begin, end in spans:
        assert end in bounds or not any(begin < bound <= end for bound in bounds)
