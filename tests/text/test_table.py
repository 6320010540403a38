"""Splitting by looking characters up: ids and offsets are those of the Rust tokenizer, on every text."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskplay.errors import UserError
from maskplay.text import Tokenizer, table
from text.test_tokenizer import MIXED, TINY, any_string, cased, texts, uncased

tokenizers = [cased, uncased]
tokenizers += [Tokenizer(replace(one._kind, strip_accents=not one.lowercase)) for one in (cased, uncased)]
adding = uncased.add(["北京天"])
pairs = lambda text: [text[i : i + 2] for i in range(0, len(text), 2)]  # noqa: E731
by_words = Tokenizer.from_vocab([*TINY, "北京"], segmenter=pairs)


def same(tokenizer, some):
    found = tokenizer.split(some)
    each = tokenizer.encode_batch(some)
    frame = tokenizer._frame
    inner = slice(len(frame.before), -len(frame.after))
    assert found.sizes.tolist() == [len(one.ids[inner]) for one in each]
    assert found.ids.tolist() == [i for one in each for i in one.ids[inner]]
    assert list(map(tuple, found.offsets.tolist())) == [span for one in each for span in one.offsets[inner]]


@settings(deadline=None)
@given(some=st.lists(st.one_of(texts, any_string), max_size=5))
@example(some=[MIXED, "", "\n", MIXED[3:], "a" * 101, "北京天安门\n北京"])
@example(some=["e", "\u0301", "中\u0301国", "\u1112", "\u1161\u11ab"])
def test_equal_to_rust(some):
    for tokenizer in (*tokenizers, adding, by_words):
        same(tokenizer, some)


def test_every_character_between_others():
    characters = [chr(i) for i in range(0x11000) if not 0xD800 <= i < 0xE000]
    for tokenizer in tokenizers:
        same(tokenizer, [f"北{c}a{c}{c} {c}" for c in characters])


def test_runs_are_forgotten_when_they_are_many(monkeypatch):
    monkeypatch.setattr(table, "MOST_RUNS", 3)
    tokenizer = Tokenizer.from_vocab(TINY)
    for i in range(9):
        same(tokenizer, [f"我ab{i}b a{i} 爱 {'b' * 70}"])
        assert len(tokenizer._kind._table.runs) <= 3 + 3


def test_arrays():
    found = uncased.split(["play我", "", " 爱"])
    assert found.ids.dtype == "int32" and found.offsets.dtype == np.int64
    assert found.offsets.tolist() == [[0, 4], [4, 5], [1, 2]] and found.sizes.tolist() == [2, 0, 1]
    assert [len(part) for part in uncased.split([])] == [0, 0, 0]
    with pytest.raises(UserError, match="text 1: expected a string, found int"):
        uncased.split(["a", 1])
