"""Text is cut into words that give it back, in the best of all ways, by every method; fitting words never makes a text
less probable."""

import itertools
import math
import pickle
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import maskplay as mp
from maskplay.errors import DataError, UserError
from maskplay.pretext import prepare
from maskplay.words import NgramSegmenter, Vocabulary, lattice, vocabulary
from maskplay.words.cutting import code_points, pieces
from words.model_references import best, expected
from words.references import generated

MODELS = {order: mp.words.train_ngrams(iter(generated(0, 300)), order=order, min_count=1) for order in (2, 3, 4)}
CHINESE = st.text(st.sampled_from([*(chr(0x4E00 + i) for i in range(12)), *"北京大学㐀𠀀"]), max_size=9)
SEEN = "".join(x for line in generated(0, 300) for x in line if x >= "一" and x.isalpha())
PIECES = st.builds(lambda start, length: SEEN[start : start + length], st.integers(0, len(SEEN)), st.integers(0, 9))
KINDS = ["北京大学", "大学", "𠀀", "天", "iPhone15", "3.5%", "，", " \n", "９．５％", "O'R", "。.%", "テ"]
MIXED = st.lists(st.sampled_from([*KINDS, "e\u0301", "\u0301\u0302"]))
WORDS = {"北京": 5, "大学": 5, "北京大学": 3, "大": 2, "学": 1, "京大": 4, "𠀀𠀀": 2, "𠀀": 1, "T恤": 9, "学𠀀": 0.5}


def score_by_ngrams(segmenter: NgramSegmenter, word: str) -> float:
    """log10 of what a word costs, one character after the other."""
    model, joins, total = segmenter.model, segmenter.joins, 0.0
    for i in range(len(word)):
        before = min(i, len(joins) - 1, model.order - 1)
        total += float(model.scores(model.ids(word[i - before : i + 1]))[before, before])
        total += math.log10(joins[min(i, len(joins)) - 1]) if i else 0.0
    return total


@settings(max_examples=40)
@given(
    st.lists(PIECES | CHINESE, max_size=4),
    st.sampled_from([2, 3, 4]),
    st.sampled_from([(0.25, 0.003, 0.01, 0.001), (0.9, 0.8), (1.0, 1.0, 1.0), (0.5, 0.4, 0.3, 0.2, 0.1)]),
)
@example(["北", "", "北京大学北京大学"], 4, (1.0, 1.0))
def test_tags_are_the_best_of_all_ways(texts, order, joins):
    segmenter = NgramSegmenter(MODELS[order], joins)
    for text, words in zip(texts, segmenter.many(texts), strict=True):
        assert "".join(words) == text
        total = sum(score_by_ngrams(segmenter, word) for word in words)
        assert total == pytest.approx(best(text, lambda word: score_by_ngrams(segmenter, word)), abs=1e-4)


def score_by_words(vocabulary: Vocabulary, word: str) -> float:
    """Natural log."""
    if word in vocabulary.counts:
        return math.log(vocabulary.counts[word] / sum(vocabulary.counts.values()))
    return vocabulary.unknown if len(word) == 1 else -math.inf


@settings(max_examples=100)
@given(st.lists(CHINESE, max_size=5), st.dictionaries(CHINESE.filter(bool), st.floats(0.1, 9), min_size=1))
@example(["北京大学北京", "", "京大学𠀀𠀀"], WORDS)
def test_words_are_the_best_of_all_ways(texts, counts):
    vocabulary = Vocabulary(counts)
    assert "T恤" not in vocabulary.counts
    for text, words in zip(texts, vocabulary.many(texts), strict=True):
        assert "".join(words) == text
        total = math.fsum(score_by_words(vocabulary, word) for word in words)
        assert total == pytest.approx(best(text, lambda word: score_by_words(vocabulary, word)))


@settings(max_examples=60)
@given(st.lists(CHINESE, min_size=1, max_size=5), st.dictionaries(CHINESE.filter(bool), st.floats(0.1, 9), min_size=1))
@example(["北京大学北京", "", "京大学𠀀𠀀"], WORDS)
def test_expected_counts_are_those_of_all_ways(texts, counts):
    vocabulary = Vocabulary(counts)
    theirs, log = expected(texts, lambda word: score_by_words(vocabulary, word))
    known = {word: count for word, count in theirs.items() if word in vocabulary.counts and count > 1e-300}
    if not known:
        with pytest.raises(UserError, match="the text: expected some of the vocabulary's words, found none"):
            vocabulary.refined(iter(texts))
        return
    refined, likelihood = vocabulary.refined(iter(texts))
    assert likelihood == pytest.approx(log, abs=1e-9)
    assert refined.counts == pytest.approx(known) and refined.unknown == vocabulary.unknown


@settings(max_examples=40)
@given(st.lists(CHINESE.filter(bool), min_size=1, max_size=9), st.integers(0, 99))
def test_the_likelihood_never_falls(texts, seed):
    """Words of the texts, at random; characters outside of them cost the same all the time."""
    draw = random.Random(seed)
    pieces = [text[i : i + n] for text in texts for n in (1, 2, 3) for i in range(len(text) - n + 1)]
    vocabulary = Vocabulary({piece: draw.uniform(0.1, 5) for piece in draw.sample(pieces, 1 + len(pieces) // 2)})
    likelihoods = []
    for _ in range(6):
        vocabulary, likelihood = vocabulary.refined(iter(texts))
        likelihoods.append(likelihood)
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(likelihoods))


def test_fitting_improves_words_of_a_made_up_language():
    """Counts of words that others' occurrences inflate are set right: 地玄 is never a word."""
    lines = ["天地玄黄", "天地", "玄黄", "天地天地", "玄黄天地玄黄"] * 5
    words = Vocabulary({"天地": 1, "玄黄": 1, "地玄": 2, "天": 1, "地": 1, "玄": 1, "黄": 1})
    for _ in range(8):
        words, _ = words.refined(iter(lines))
    assert words.counts["天地"] == pytest.approx(25, abs=0.1) and words.counts.get("地玄", 0) < 0.01


@settings(max_examples=40)
@example(["0", "'0", "0", "%", "", "0'", "0", "", "一"], 1)
@given(st.lists(st.one_of(st.text(max_size=30), MIXED.map("".join)), max_size=9), st.sampled_from([1, 7, 2**17]))
def test_joined_words_are_the_text(texts, batch):
    segmenters = [NgramSegmenter(MODELS[3]), Vocabulary(WORDS)]
    whole = [segmenter.many(texts) for segmenter in segmenters]
    assert whole == [[segmenter(text) for text in texts] for segmenter in segmenters]
    for found in whole:
        assert ["".join(words) for words in found] == texts and all(all(words) for words in found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskplay.words.cutting.BATCH", batch)
        for segmenter, found in zip(segmenters, whole):
            assert list(mp.words.segment(iter(texts), segmenter)) == found


def test_what_is_no_chinese():
    words = Vocabulary({"天地": 1})
    for expected_words in (
        ["iPhone15", "，", "天地", " \t\u3000", "3.5%", "。", "。"],
        ["O'Reilly", ".", " ", "U.S.A", ".", "-", "1"],
        ["１９９８", "年", "９．５％", "阿", "·", "天地", "天地"],
        ["été", "テ", "ス", "😀", "а1б"],
        ["re\u0301sume\u0302\u0301", " ", "हिन्दी", "，", "𝐀𝐁", "天地", "\u0301", "😀", "\ufe0f", "a"],
        ["l'e\u0301te\u0301", "，", "\u0301", "\u0302", "e"],
        [".", ".", "5", ".", ".", "%"],
    ):
        assert words("".join(expected_words)) == expected_words


@pytest.mark.parametrize("workers", [1, 2])
def test_streams_in_order(tmp_path, monkeypatch, workers):
    monkeypatch.setattr("maskplay.words.cutting.BATCH", 200)
    lines = generated(5, 300)
    segmenter = NgramSegmenter(MODELS[4])
    expected_words = segmenter.many(lines)
    path = tmp_path / "a.txt"
    path.write_bytes("\r\n".join([*lines, ""]).encode())
    assert list(mp.words.segment(path, MODELS[4], workers=workers)) == expected_words
    endless = mp.words.segment(itertools.chain(lines, itertools.repeat("天地")), segmenter, workers=workers)
    assert list(itertools.islice(endless, len(lines))) == expected_words
    endless.close()


def test_whatever_cuts():
    lines = generated(6, 800)
    found = mp.words.discover(iter(lines), min_count=5)
    counts = dict(zip(found.word.tolist(), found.frequency.tolist()))
    ways = [mp.words.segment(iter(lines), by) for by in (found, counts, Vocabulary(counts))]
    first, second, third = map(list, ways)
    assert first == second == third and max(len(word) for words in first for word in words) > 2


def test_one_long_run():
    text = "".join(x for line in generated(9, 400) for x in line if x.isalpha() and not x.isascii())
    assert len(text) > 3000
    for segmenter in (NgramSegmenter(MODELS[4]), Vocabulary({text[:2]: 3, text[2:5]: 2})):
        words = segmenter(text)
        assert "".join(words) == text and len(words) < len(text)


def test_segmenters_from_files(tmp_path):
    mp.words.write_arpa(MODELS[3], tmp_path / "a.arpa")
    lines = generated(7, 50)
    assert mp.words.load_segmenter(tmp_path / "a.arpa").many(lines) == NgramSegmenter(MODELS[3]).many(lines)
    found = mp.words.discover(iter(generated(6, 800)), min_count=5)
    for name in ("a.tsv", "a.txt"):
        found.write(tmp_path / name)
        rows = [row for row in found if name == "a.tsv" or len(row.word) > 1 and not row.word.isascii()]
        by = {row.word: row.frequency for row in rows}
        assert mp.words.load_segmenter(tmp_path / name).many(lines) == Vocabulary(by).many(lines)
        assert mp.words.read_vocabulary(tmp_path / name) == by
    with pytest.raises(UserError, match=r"a\.bin: expected a name that ends in \.arpa, or in \.tsv or \.txt"):
        mp.words.load_segmenter(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "text, told",
    [
        ("天地 3\n玄黄\n", "line 2: expected a word and its count, found '玄黄'"),
        ("天地\t3\n玄黄\tx\n", "line 2: expected a word and its count"),
        ("天地\t0\n", "line 1: expected a word and its count"),
        ("天地\tinf\n", "line 1: expected a word and its count"),
        ("word\tfrequency\n天地\t1\n\n天地\t2\n", "line 4: the word '天地' was there before"),
        ("word\tfrequency\n", "expected words and their counts, found none"),
        ("", "expected words and their counts, found none"),
    ],
)
def test_a_damaged_vocabulary_is_one_line(tmp_path, text, told):
    path = tmp_path / "a.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as error:
        mp.words.read_vocabulary(path)
    assert str(error.value).startswith(str(path)) and told in str(error.value)


def test_words_too_long_to_be_any_are_passed_over(tmp_path):
    mp.words.discover(iter(["天地玄黄" * 150, "宇宙"] * 4), min_count=2).write(tmp_path / "a.tsv")
    words = mp.words.read_vocabulary(tmp_path / "a.tsv")
    assert "宇宙" in words and max(map(len, words)) <= 100


def test_counts_of_any_size():
    assert Vocabulary({"天地": 1e-320, "玄黄": 1e6})("天地玄黄") == ["天", "地", "玄黄"]
    assert Vocabulary({"天地": 1e299, "玄黄": 1e299, "天": 1.0})("天地玄黄") == ["天地", "玄黄"]


def test_shares_cut_as_counts_do():
    shares = {"天地": 1e-3, "玄黄": 1e-3, "其他": 0.998}
    counts = {word: 1e6 * share for word, share in shares.items()}
    assert Vocabulary(shares)("天地玄黄") == Vocabulary(counts)("天地玄黄") == ["天地", "玄黄"]


def test_wrong_arguments():
    for joins in (3, ("x", "y"), (0.5,), (0.5, 0), (0.5, math.inf), (0.5, math.nan), (0.5,) * 257):
        with pytest.raises(UserError, match="joins: expected 2 to 256 numbers above 0"):
            NgramSegmenter(MODELS[2], joins)
    with pytest.raises(UserError, match="model: expected an n-gram model, found 'model.arpa'; read_arpa makes one"):
        NgramSegmenter("model.arpa")
    with pytest.raises(UserError, match="by: .*found 'model.arpa'; load_segmenter opens"):
        mp.words.segment(iter(["天"]), "model.arpa")  # before anything is asked for
    with pytest.raises(UserError, match="workers: expected a whole number"):
        mp.words.segment(iter(["天"]), {"天": 1}, workers=0)
    assert repr(Vocabulary({"天": 1})) == "Vocabulary(words=1)"
    assert repr(NgramSegmenter(MODELS[2], (0.5, 1))) == f"NgramSegmenter({MODELS[2]}, joins=(0.5, 1))"
    with pytest.raises(UserError, match="the vocabulary: expected Chinese words, found none in 1 entries"):
        Vocabulary({"abc": 3})
    with pytest.raises(UserError, match="the vocabulary: expected counts above 0, found 0.0 of '天'"):
        Vocabulary({"天": 0})
    with pytest.raises(UserError, match="the vocabulary: expected words with counts from 0 on, found 'x' of '天'"):
        Vocabulary({"天": "x"})
    with pytest.raises(UserError, match="text 1: expected a string, found int"):
        list(mp.words.segment(iter(["天", 3]), {"天": 1}))


def test_many_texts_come_in_any_form():
    by = Vocabulary({"天地": 2})
    assert by.many(iter(["天地", "天"])) == by.many({"天地": 0, "天": 0}) == [["天地"], ["天"]]
    with pytest.raises(UserError, match=r"expected texts, found one: write \['天地'\]"):
        by.many("天地")
    with pytest.raises(UserError, match="text 0: expected a string, found list"):
        by(["天地"])


class OneByOne:
    """The same words without a way to ask for many."""

    def __init__(self, segmenter: mp.words.Segmenter) -> None:
        self.segmenter = segmenter

    def __call__(self, text: str) -> list[str]:
        return self.segmenter(text)


def test_whole_word_masking(tmp_path):
    lines = [line.strip() for line in generated(8, 60) if line.strip()]
    tokenizer = mp.Tokenizer.from_characters(lines, max_size=300)
    segmenter = pickle.loads(pickle.dumps(NgramSegmenter(MODELS[4])))  # as it gets to a worker
    found = prepare([lines], tmp_path / "a", tokenizer, segmenter)
    each = prepare([lines], tmp_path / "b", tokenizer, OneByOne(segmenter))
    characters = prepare([lines], tmp_path / "c", tokenizer)
    assert np.array_equal(found.words, each.words) and np.array_equal(found.ids, each.ids)
    assert found.words.sum() < characters.words.sum()


@settings(max_examples=60)
@given(st.text(st.sampled_from("北京大学㐀𠀀天，"), max_size=60))
def test_a_long_run_falls_apart_where_no_word_lies_across(text):
    """Cut where a word certainly ends, it is cut as before."""
    words = Vocabulary(WORDS)
    with pytest.MonkeyPatch.context() as patch:
        whole = words(text)
        patch.setattr(vocabulary, "LONG", 1)
        assert words(text) == whole
        points = code_points(text)
        _, starts, lengths = pieces(points, np.array([0, len(points)]))
        apart, sizes = words.apart(points, starts, lengths)
    assert sizes.sum() == lengths.sum() and {*starts.tolist()} <= {*apart.tolist()}
    places = np.concatenate([np.arange(a, a + n) for a, n in zip(apart, sizes)] or [[]])
    assert places.tolist() == sorted(p for a, n in zip(starts, lengths) for p in range(a, a + n))
    for start in {*apart.tolist()} - {*starts.tolist()}:
        inside = next(a for a, n in zip(starts, lengths) if a < start < a + n)
        assert not any(text[a : a + n] in WORDS for n in (2, 4) for a in range(max(inside, start - n + 1), start))


def test_perplexity_is_of_lines():
    with pytest.raises(UserError, match="expected lines, found one text"):
        MODELS[2].perplexity("天地")


@pytest.mark.parametrize("unknown", [-math.inf, math.nan, "x"])
def test_what_is_unknown_has_a_price(unknown):
    with pytest.raises(UserError, match="unknown: expected the log of a probability, a finite number"):
        mp.words.Vocabulary({"天地": 3}, unknown=unknown)


@pytest.mark.parametrize("span", [1, 2, 7, 30])
@pytest.mark.parametrize("joins", [(0.3, 0.2), (0.25, 0.003, 0.01, 0.001)])
def test_spans_of_a_run_are_cut_as_the_whole(monkeypatch, span, joins):
    draw = np.random.default_rng(span)
    scores = draw.normal(-2.0, 1.0, (len(joins), 900)).astype("float32")
    runs = lattice.Runs(np.array([3, 100, 700, 150]), np.array([90, 50, 1, 400]))
    logs = [math.log10(join) for join in joins]
    whole = lattice.best_tags(scores, runs, logs)
    monkeypatch.setattr(lattice, "SPAN", span)
    np.testing.assert_array_equal(lattice.best_tags(scores, runs, logs), whole)
    assert 0.2 < whole.mean() < 0.9
    assert len(lattice.best_tags(scores, lattice.Runs(np.array([], int), np.array([], int)), logs)) == 0
