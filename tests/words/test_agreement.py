"""Words that are agreed on are those that a segmenter cuts out often enough, whatever the work is split into."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maskplay as mp
from maskplay.errors import UserError
from maskplay.words.found import Word
from words.references import generated

TEXTS = generated(3, 600)
FOUND = mp.words.discover(iter(TEXTS), min_count=5)
HALF = {row.word: row.frequency for i, row in enumerate(FOUND) if len(row.word) == 1 or i % 2}


def plain(found: mp.words.Found, texts: list[str], by: mp.words.Segmenter, least: float) -> list[Word]:
    """The same with a dictionary, one text at a time."""
    cut = Counter(word for text in texts for word in by(text))
    sure = [row.word for row in found if len(row.word) == 1 or any(symbol.isascii() for symbol in row.word)]
    return [row for row in found if row.word in sure or cut[row.word] / row.occurrences >= least]


def same(mine: list[Word], theirs: list[Word]) -> bool:
    return [row[:3] for row in mine] == [row[:3] for row in theirs] and all(
        np.array_equal(a[3:], b[3:], equal_nan=True) for a, b in zip(mine, theirs)
    )


@settings(max_examples=12, deadline=None)
@given(st.floats(0, 1))
def test_is_what_a_dictionary_says(least):
    by = mp.words.Vocabulary(HALF)
    assert same(list(mp.words.agreed(FOUND, iter(TEXTS), by, least=least)), plain(FOUND, TEXTS, by, least))


def test_leaves_out_what_is_not_cut(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    agreed = mp.words.agreed(FOUND, tmp_path / "a.txt", HALF)
    assert 10 < len(agreed) < len(FOUND)  # some stay, some go
    assert list(agreed.word) == [row.word for row in mp.words.agreed(FOUND, tmp_path / "a.txt", HALF, workers=2)]
    assert agreed.min_count == FOUND.min_count and agreed.characters == FOUND.characters
    assert len(mp.words.agreed(FOUND, iter(TEXTS), HALF, least=0)) == len(FOUND)


def test_texts_that_are_used_up():
    texts = iter(TEXTS)
    found = mp.words.discover(texts, min_count=5)
    with pytest.raises(UserError, match="expected the texts in which the words were found, found none"):
        mp.words.agreed(found, texts, HALF)


def test_letters_and_single_characters_stay():
    texts = ["买T恤，天地", "穿T恤，天地", "洗T恤，天地"]
    found = mp.words.discover(iter(texts), min_count=2, cohesion=(1.0,))
    assert {"T恤", "天地"} <= set(found.word)
    agreed = mp.words.agreed(found, iter(texts), {"天": 5, "地": 5})
    assert set(found.word) - set(agreed.word) == {"天地"}


def test_a_phrase_goes_where_its_surroundings_hold_other_words():
    """天地玄黄 is cohesive, but in the model's texts its halves have other neighbours."""
    model = mp.words.train_ngrams(iter(["天地玄黄宇宙洪荒", "宇宙天地", "玄黄天地", "洪荒玄黄"] * 30))
    texts = ["天地玄黄", "宇宙洪荒"] * 20
    found = mp.words.discover(iter(texts), min_count=5, cohesion=(0.5, 0.5, 0.5), min_length=2)
    assert set(found.word) == {"天地玄黄", "宇宙洪荒"}
    assert len(mp.words.agreed(found, iter(texts), model)) == 0


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan"), "x"])
def test_no_share(least):
    with pytest.raises(UserError, match="least: expected a share from 0 to 1"):
        mp.words.agreed(FOUND, iter(TEXTS), HALF, least=least)


def test_only_what_was_found_can_be_agreed_on():
    with pytest.raises(UserError, match="found: expected what discover found, found {'天': 1}"):
        mp.words.agreed({"天": 1}, iter(TEXTS), HALF)
