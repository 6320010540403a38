"""The words of a field are found by the formula, and none where there is no difference."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskplay as mp
from maskplay.errors import UserError

COUNTS = st.dictionaries(st.sampled_from("天地玄黄宇宙"), st.integers(1, 50), min_size=2)


def by_the_formula(field: dict, general: dict, prior: float) -> dict[str, tuple[float, float]]:
    """Log odds ratio and z of each word, one after the other."""
    n, m, found = sum(field.values()), sum(general.values()), {}
    for word in {*field, *general}:
        y, x = field.get(word, 0), general.get(word, 0)
        a = prior * (y + x) / (n + m)
        log_odds = math.log((y + a) / (n + prior - y - a)) - math.log((x + a) / (m + prior - x - a))
        found[word] = log_odds, log_odds / math.sqrt(1 / (y + a) + 1 / (x + a))
    return found


@given(COUNTS, COUNTS, st.floats(0.5, 5000))
def test_the_formula(field, general, prior):
    rows = mp.words.contrast(field, general, prior=prior)
    expected = by_the_formula(field, general, prior)
    assert len(rows) == len(expected)
    for row in rows:
        assert (row.log_odds, row.z) == pytest.approx(expected[row.word], abs=1e-9)
    assert {row.word: (row.frequency, row.general) for row in rows} == {
        word: (field.get(word, 0), general.get(word, 0)) for word in expected
    }
    assert [row.z for row in rows] == sorted((row.z for row in rows), reverse=True)
    scale = sum(field.values()) / sum(general.values())
    totals = {word: field.get(word, 0) + scale * general.get(word, 0) for word in expected}
    mean = sum(totals.values()) / len(totals)
    shares = {word: (field.get(word, 0) + mean / 2) / (total + mean) for word, total in totals.items()}
    assert {row.word: row.share for row in rows} == pytest.approx(shares, abs=1e-12)
    other = mp.words.contrast(general, field, prior=prior)
    assert {row.word: -row.z for row in other} == pytest.approx({row.word: row.z for row in rows}, abs=1e-9)


def test_terms_come_first_and_chance_does_not_count():
    draw = random.Random(0)
    words, weights = [f"词{i}" for i in range(300)], [1 / (i + 1) for i in range(300)]
    field, general = (Counter(draw.choices(words, weights, k=20_000)) for _ in range(2))
    assert sum(abs(row.z) > 3 for row in mp.words.contrast(field, general)) < 5
    field |= {"算子": 60, "词7": 3 * field["词7"], "孤例": 1}
    rows = mp.words.contrast(field, general)
    assert {row.word for row in rows[:2]} == {"算子", "词7"}
    assert next(row.z for row in rows if row.word == "孤例") < 2


def test_what_was_discovered():
    found = [mp.words.discover(iter([word, "的"] * 9), min_count=2, cohesion=(0.1,)) for word in ("算子", "天气")]
    counts = [dict(zip(one.word.tolist(), one.frequency.tolist())) for one in found]
    assert mp.words.contrast(*found) == mp.words.contrast(*counts)


def test_words_counted_alike_on_both_sides():
    """In general texts 算子 stands in a longer word only, where `discover` does not count it."""
    texts = ["算子", "算子谱"] * 20, ["算子理论", "天气很好"] * 50
    found = [mp.words.discover(iter(lines), min_count=5, cohesion=(0.3,) * 3) for lines in texts]
    assert {row.word: row.general for row in mp.words.contrast(*found)}["算子"] == 0
    words = mp.words.Vocabulary(found[0])
    field, general = (mp.words.count(iter(lines), tokenizer=words) for lines in texts)
    assert {row.word: row[1:3] for row in mp.words.contrast(field, general)}["算子"] == (20, 50)


def test_files(tmp_path):
    rows = mp.words.contrast({"天地": 3, "玄黄": 1}, {"天地": 1.5, "宇宙": 2})
    mp.words.write_contrast(rows, tmp_path / "a.tsv")
    header, *lines = (tmp_path / "a.tsv").read_text("utf-8").splitlines()
    assert header.split("\t") == list(mp.words.Contrast._fields) and len(lines) == 3
    first = next(line for line in lines if line.startswith("天地")).split("\t")
    row = next(row for row in rows if row.word == "天地")
    assert first == ["天地", "3", "1.5", f"{row.log_odds:.4f}", f"{row.z:.4f}", f"{row.share:.4f}"]
    with pytest.raises(UserError, match=r"ends in \.tsv"):
        mp.words.write_contrast(rows, tmp_path / "a.csv")


def test_a_small_prior_leaves_figures():
    """Of a sum less its greatest part nothing would be left."""
    rows = mp.words.contrast({"天地": 5}, {"玄黄": 5}, prior=1e-20)
    assert [row.word for row in rows] == ["天地", "玄黄"] and rows[0].z == -rows[1].z
    assert rows[0].log_odds == pytest.approx(2 * math.log(5 / 5e-21))


def test_odd_words_stay_in_their_column(tmp_path):
    odd = {"a\tb": 3, "a\nb": 2, "a\r": 1, "a\\tb": 4, "\ud800": 5}
    mp.words.write_contrast(mp.words.contrast(odd, odd), tmp_path / "a.tsv")
    assert mp.words.read_vocabulary(tmp_path / "a.tsv") == {word.replace("\ud800", "?"): n for word, n in odd.items()}


@pytest.mark.parametrize(
    "field, general, prior",
    [
        ({}, {"天": 1, "地": 1}, 1),
        ({"天": 1, "地": 1}, {"天": 0}, 1),
        ({"天": 1}, {"天": 1}, 1),
        ({"天": -1, "地": 2}, {"天": 1}, 1),
        ({"天": math.nan, "地": 2}, {"天": 1}, 1),
        ({"天": 1, "地": 2}, {"天": 1}, 0),
        ({"天": 1, "地": 2}, {"天": 1}, math.inf),
        ({"天": 1, "地": 2}, {"天": 1}, "x"),
        ({"天": "1", "地": 2}, {"天": 1}, 1),
        ({"天": 1, 3: 2}, {"天": 1}, 1),
        ({"天": 1e308, "地": 1e308}, {"天": 1}, 1),
    ],
)
def test_wrong_arguments(field, general, prior):
    told = "contrast: expected (counts of two words|words with counts from 0)|prior: (expected a number|1 and these)"
    with pytest.raises(UserError, match=told):
        mp.words.contrast(field, general, prior=prior)
