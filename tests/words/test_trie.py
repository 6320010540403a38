"""The hash table and the trie find everything that a search by hand finds."""

import numpy as np
import pytest

from maskplay.words.trie import Table, Trie


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_a_table_knows_its_keys(dtype):
    draw = np.random.default_rng(0)
    keys = np.unique(draw.integers(0, 2**31, 20_000).astype(dtype))
    table = Table(keys)
    assert len(table._late) > 100  # what the test is about
    wanted = np.concatenate([draw.choice(keys, 5000), draw.integers(0, 2**31, 5000).astype(dtype), keys[:1] * 0])
    at, index = table.find(wanted)
    known = {key: i for i, key in enumerate(keys.tolist())}
    expected = [(i, known[key]) for i, key in enumerate(wanted.tolist()) if key in known]
    assert list(zip(at.tolist(), index.tolist())) == expected


def test_a_trie_finds_every_occurrence():
    draw = np.random.default_rng(1)
    text = draw.integers(0, 4, 3000).astype(np.uint16)  # 0 ends a run
    words = {n: np.unique(draw.integers(1, 4, (12, n)), axis=0) for n in (2, 3, 5, 7)}
    trie = Trie(words)
    found = {
        (n, at, number)
        for n, places, numbers in trie.occurrences(np.concatenate([text, np.zeros(8, np.uint16)]), len(text))
        for at, number in zip(places.tolist(), numbers.tolist())
    }
    expected, number = set(), 0
    for n, some in words.items():
        for word in some:
            places = [i for i in range(len(text) - n + 1) if (text[i : i + n] == word).all()]
            expected |= {(n, i, number) for i in places}
            number += 1
    assert found == expected and len(expected) > 1000 and trie.size == number


def test_an_empty_trie():
    assert list(Trie({}).occurrences(np.zeros(5, np.uint16), 3)) == []
    assert list(Trie({2: np.zeros((0, 2), int)}).occurrences(np.zeros(5, np.uint16), 3)) == []


def test_no_further_than_words_go():
    trie = Trie({2: np.array([[1, 2]]), 9: np.full((1, 9), 3)})
    assert [n for n, _, _ in trie.occurrences(np.array([1, 2, *[0] * 10], np.uint16), 3)] == [2, 3]
