"""n-gram models are those of a slow program with dictionaries, their probabilities add up to 1, and ARPA files hold
them."""

import gzip
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import maskplay as mp
from maskplay.errors import DataError, UserError
from maskplay.words.ngram_model import Level
from words.model_references import END, START, KneserNey
from words.references import generated

TEXTS = st.lists(st.text(st.sampled_from("一二三𠀀a， \u3000\r\x01"), max_size=9), max_size=9)


def contexts(lines: list[str], order: int) -> list[tuple[str, ...]]:
    """What stands before characters, and what does not."""
    some = {(START, *line.strip()[:k]) for line in lines for k in range(order) if not set(line) & set(" \u3000\r\x01")}
    return sorted(some | {(), ("一",), ("二", "一"), ("三", "，", "𠀀"), ("？", "一")})


def probabilities(model: mp.words.NgramModel, before: tuple[str, ...], lasts: list[str]) -> np.ndarray:
    """Of each of some characters after the same ones."""
    ids = {symbol: i for i, symbol in enumerate(model.symbols)}
    unknown = ids["<unk>"]
    rows = [[0, *(ids.get(x, unknown) for x in before), ids[last]] for last in lasts]
    scores = model.scores(np.concatenate(rows).astype(np.int32))
    row = scores[min(len(before), model.order - 1)]
    return 10.0 ** row.reshape(len(rows), -1)[:, -1].astype(np.float64)


@settings(max_examples=60)
@given(TEXTS, st.integers(2, 5), st.integers(1, 3), st.integers(1, 2))
@example(["一二"] * 3, 4, 2, 1)
@example(["一"], 5, 1, 1)
def test_a_model_is_what_dictionaries_say(lines, order, min_count, workers):
    reference = KneserNey(lines, order, min_count)
    if not reference.raw:
        with pytest.raises(UserError, match="the corpus: expected some text, found none"):
            mp.words.train_ngrams(iter(lines), order=order)
        return
    model = mp.words.train_ngrams(iter(lines), order=order, min_count=min_count, workers=workers)
    for before in contexts(lines, order):
        mine = probabilities(model, before, reference.vocabulary)
        theirs = [reference.probability(last, before) for last in reference.vocabulary]
        np.testing.assert_allclose(mine, theirs, rtol=2e-5)
        np.testing.assert_allclose(mine.sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("order, min_count", [(2, 1), (4, 1), (4, 2)])
def test_discounts_are_estimated_where_there_is_enough(tmp_path, monkeypatch, order, min_count):
    """The corpus of several files is read in blocks that end inside lines."""
    lines = generated(0, 700, words=200)
    reference = KneserNey(lines, order, min_count)
    assert sum(reference.discounts[n] != [0, 0.5, 1, 1.5] for n in range(1, order + 1)) >= order // 2
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("\n".join(lines[i::3]), encoding="utf-8")
    monkeypatch.setattr("maskplay.words.kneser_ney.BLOCK", 50)
    models = [mp.words.train_ngrams(tmp_path, order=order, min_count=min_count, workers=workers) for workers in (1, 2)]
    counts = [sum(len(g) == n and (n < 3 or c >= min_count) for g, c in reference.raw.items()) for n in (2, order)]
    assert [len(models[0].levels[n - 1].keys) for n in (2, order)] == counts
    for model in models:
        for before in [(), *[tuple(lines[i][:k]) for i in range(40) for k in (1, 3) if len(lines[i].split()) == 1]]:
            mine = probabilities(model, before, reference.vocabulary)
            theirs = [reference.probability(last, before) for last in reference.vocabulary]
            np.testing.assert_allclose(mine, theirs, rtol=5e-5)
            np.testing.assert_allclose(mine.sum(), 1, rtol=1e-5)


def test_by_hand():
    """Three bigrams once each; half of each count is left to the four characters that may come."""
    model = mp.words.train_ngrams(iter(["一二"]), order=2)
    single = 0.5 / 3 + 0.5 / 4
    np.testing.assert_allclose(probabilities(model, (), ["一", "<unk>"]), [single, 0.5 / 4], rtol=1e-6)
    np.testing.assert_allclose(probabilities(model, ("一",), ["二", "一"]), [0.5 + single / 2, single / 2], rtol=1e-6)


def test_scores_have_every_length_of_context():
    lines = generated(1, 300)
    model = mp.words.train_ngrams(iter(lines), order=4, min_count=1)
    reference = KneserNey(lines, 4, 1)
    text = max((part for line in lines for part in line.split()), key=len)
    scores = model.scores(model.ids(text))
    for i, last in enumerate(text):
        for k in range(4):
            expected = np.log10(reference.probability(last, tuple(text[max(0, i - k) : i])))
            assert scores[k, i] == pytest.approx(expected, abs=2e-5)


def test_perplexity():
    lines = generated(2, 300)
    reference = KneserNey(lines, 3, 1)
    model = mp.words.train_ngrams(iter(lines), order=3, min_count=1)
    held_out = [*generated(3, 20), "没见过", "一 二", ""]
    logs = []
    for sentence in (part for line in held_out for part in line.split()):
        known = [x if x in reference.vocabulary else "<unk>" for x in sentence]
        marked = (START, *known, END)
        logs += [np.log10(reference.probability(marked[i], marked[:i])) for i in range(1, len(marked))]
    assert model.perplexity(held_out) == pytest.approx(10 ** -np.mean(logs), rel=1e-4)
    assert model.perplexity(held_out) > 3 * model.perplexity(lines)
    assert np.isnan(model.perplexity([]))


def same(one: mp.words.NgramModel, other: mp.words.NgramModel) -> bool:
    return one.symbols == other.symbols and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one.levels, other.levels, strict=True)
        for name in ("keys", "log_probs", "back_offs")
    )


@pytest.mark.parametrize("order, min_count", [(2, 1), (4, 2), (5, 1)])
def test_arpa_there_and_back(tmp_path, monkeypatch, order, min_count):
    monkeypatch.setattr("maskplay.words.arpa.ROWS", 100)
    model = mp.words.train_ngrams(iter(generated(4, 200)), order=order, min_count=min_count)
    path = tmp_path / "new" / "a.arpa"
    mp.words.write_arpa(model, path)
    assert same(mp.words.read_arpa(path), model)
    packed = tmp_path / "a.arpa.gz"
    packed.write_bytes(gzip.compress(path.read_bytes().replace(b"\n", b"\r\n")))
    again = mp.words.read_arpa(packed)
    mp.words.write_arpa(again, tmp_path / "b.arpa")
    assert (tmp_path / "b.arpa").read_bytes() == path.read_bytes()
    assert same(pickle.loads(pickle.dumps(again)), model) and "_table" not in again.levels[1].__getstate__()


def test_arpa_of_a_high_order(tmp_path):
    model = mp.words.train_ngrams(iter(["一二三一二一一三二一三三"] * 9), order=12)
    mp.words.write_arpa(model, tmp_path / "a.arpa")
    assert same(mp.words.read_arpa(tmp_path / "a.arpa"), model)


FOREIGN = """
\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-99\t<s>\t-0.3
-0.9\t二\t-0.2
-0.7\t一\t-0.4
-0.6\t</s>
-1.5\t<UNK>

\\2-grams:
-0.25\t<s> 一\t0.1
-0.5 一 二 -0.05
-0.125\t二 </s>

\\3-grams:
-0.75\t<s> 一 二

\\end\\
"""


def test_files_of_other_programs(tmp_path):
    """Any order, marks in lower case or upper, weights left out, blanks for tabs; backing off is adding weights."""
    path = tmp_path / "a.arpa"
    path.write_text(FOREIGN, encoding="utf-8")
    model = mp.words.read_arpa(path)
    assert model.symbols == ["", "<s>", "</s>", "一", "二", "<unk>"]
    scores = model.scores(np.array([1, 3, 4, 2, 5]))[-1]  # <s> 一 二 </s> <unk>
    np.testing.assert_allclose(scores[1:], [-0.25, -0.75, -0.05 - 0.125, -1.5], rtol=1e-6)
    scores = model.scores(model.ids("二一二"))[-1]
    np.testing.assert_allclose(scores, [-0.9, -0.2 - 0.7, -0.5], rtol=1e-6)
    spelled = FOREIGN.replace("\t", " \t", 3).replace("-0.7\t一", "-0.7  一").replace("二\t-0.2", "二  -0.2\t").lstrip()
    path.write_text("A comment\n\n" + spelled, encoding="utf-8")
    assert (mp.words.read_arpa(path).scores(model.ids("二一二"))[-1] == scores).all()
    path.write_text(FOREIGN.replace("-1.5\t<UNK>", "-inf\t<UNK>\t-inf"), encoding="utf-8")
    assert mp.words.read_arpa(path).scores(model.ids("人"))[0, 0] == -100
    path.write_text(FOREIGN.replace("-1.5\t<UNK>\n", "").replace("ngram 1=5", "ngram 1=4"), encoding="utf-8")
    model = mp.words.read_arpa(path)
    assert model.scores(model.ids("人"))[0, 0] == -100


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("\\data\\", "data", r"line 2: expected the line \data\ of an ARPA file, found 'data'"),
        ("ngram 2=3", "ngram 3=3", "line 4: expected the count of 2-grams"),
        ("ngram 2=3", "ngram 2=9999999999", "line 4: expected the count of 2-grams (up to 64-grams, 268,435,456 "),
        ("ngram 1=5\nngram 2=3\nngram 3=1", "", r"expected a line ngram 1=COUNT, found '\\1-grams:'"),
        ("ngram 1=5", "ngram 1=6", r"line 13: expected log10 of a probability, a character, perhaps a back-off weight"),
        ("ngram 1=5", "ngram 1=4", r"line 12: expected the line \2-grams:, found '-1.5\t<UNK>'"),
        ("-0.9\t二", "x\t二", r"line 9: expected log10 of a probability"),
        ("-0.9\t二", "0.9\t二", r"line 9: expected log10 of a probability"),
        ("-0.9\t二", "nan\t二", r"line 9: expected log10 of a probability"),
        ("二\t-0.2", "二\t-0.2\t1", r"line 9: expected log10 of a probability"),
        ("二\t-0.2", "二\t1e30", r"line 9: expected log10 of a probability"),
        ("-0.7\t一", "-0.7\t二", "line 10: expected each character once, found '二'"),
        ("-0.7\t一", "-0.7\t一一", "line 10: expected a model of single characters, found '一一'"),
        ("\t<s> 一\t", "\t<s> 三\t", "line 15: expected log10 of a probability, 2 of its characters"),
        ("\t<s> 一\t", "\t<s> 一 一\t", "line 15: expected log10 of a probability, 2 of its characters"),
        ("\t<s> 一\t", "\t二 </s>\t", "line 17: expected each n-gram once, found '二 </s>'"),
        ("\t<s> 一 二", "\t<s> 二 二", "line 20: expected an n-gram whose first 2 are one too, found '<s> 二 二'"),
        ("\\end\\", "", r"expected the line \end\, found ''"),
        ("\\3-grams:\n-0.75\t<s> 一 二\n\n\\end\\\n", "\\3-grams:", "expected 1 3-grams, found 'the end behind 0'"),
        ("-0.75", "-0.75" + "0" * 2**23, "line 20: expected a line of at most 1000 characters"),
    ],
)
def test_a_damaged_arpa_file_is_one_line(tmp_path, old, new, told):
    path = tmp_path / "a.arpa"
    assert old in FOREIGN
    path.write_text(FOREIGN.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError) as error:
        mp.words.read_arpa(path)
    assert str(error.value).startswith(str(path)) and told in str(error.value) and "\n" not in str(error.value)


def test_names_of_arpa_files(tmp_path):
    model = mp.words.train_ngrams(iter(["天地玄黄"] * 3))
    with pytest.raises(UserError, match=r"a\.arpa\.gz: a model is written as text; expected a name without \.gz"):
        mp.words.write_arpa(model, tmp_path / "a.arpa.gz")
    (tmp_path / "a.arpa").touch()
    with pytest.raises(DataError, match=r"a\.arpa, line 1: expected the line"):
        mp.words.read_arpa(tmp_path / "a.arpa")


def test_a_file_that_breaks_off(tmp_path):
    path = tmp_path / "a.arpa.gz"
    path.write_bytes(gzip.compress(FOREIGN.encode())[:-15])
    with pytest.raises(DataError, match="it ends too early"):
        mp.words.read_arpa(path)
    path = tmp_path / "a.arpa"
    path.write_bytes(FOREIGN.encode()[:-40] + b"\xff")
    with pytest.raises(DataError, match=r"a\.arpa, line \d+: expected UTF-8"):
        mp.words.read_arpa(path)


@pytest.mark.parametrize(
    "options, told",
    [
        ({"order": 1}, "order: expected a whole number from 2 on, found 1"),
        ({"order": 12}, "order: 12 of 62 different characters do not fit 64 bits; expected at most 10"),
        ({"min_count": 0}, "min_count: expected a whole number from 1 on, found 0"),
        ({"workers": 0}, "workers: expected a whole number from 1 on, found 0"),
    ],
)
def test_wrong_options(options, told):
    with pytest.raises(UserError, match=told):
        mp.words.train_ngrams(iter(["".join(map(chr, range(0x4E00, 0x4E00 + 60)))]), **options)


def test_places_that_share_a_cell_of_the_table():
    """Levels find their n-grams whatever collides: all of some thousands, and none of those that are not there."""
    draw = np.random.default_rng(0)
    keys = np.unique(draw.integers(1, 2**40, 5000).astype(np.uint64))
    level = Level(keys, np.zeros(len(keys) + 1, np.float32), np.zeros(len(keys) + 1, np.float32))
    before, ids = (keys >> np.uint64(21)).astype(np.int64), (keys & np.uint64(2**21 - 1)).astype(np.int64)
    known = before > 0
    np.testing.assert_array_equal(level.places(before, ids)[known], np.arange(1, len(keys) + 1)[known])
    other = ids ^ 1
    there = np.isin((before << 21 | other).astype(np.uint64), keys)
    assert not level.places(before, other)[~there].any()


def test_a_real_corpus(data: Path):
    """Held-out text is about as surprising as lines next to it, and more so than the text of the model."""
    lines = [line for _, line in zip(range(4000), mp.corpus.lines(data / "corpus" / "oiwiki.txt.xz"))]
    model = mp.words.train_ngrams(iter(lines[:3600]))
    seen, held_out = model.perplexity(lines[:400]), model.perplexity(lines[3600:])
    assert 1 < seen < held_out < 400


def test_training_needs_no_place_for_files(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    assert mp.words.train_ngrams(iter(["天地玄黄"] * 5), workers=2).order == 4
