"""Discovered words are those of a slow program with dictionaries, however the work is cut up; faithful ones the
original's."""

import gzip
import lzma
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import maskplay as mp
from maskplay.errors import DataError, UserError
from maskplay.words import budget, discovery, freedom, grams, reader, symbols, tokens
from maskplay.words.symbols import Kept
from words.references import exact, faithful, generated


class Tight(budget.Budget):
    """A limit that nothing fits into."""

    def __init__(self, *settings: object) -> None:
        self.left = 4000

    def check(self, count: int, size: int, what: str) -> None:
        """They do not fit either."""


def small(patch: pytest.MonkeyPatch, chunk: int) -> None:
    """Make every buffer so small that what is tested crosses its ends."""
    for module in (grams, tokens, freedom):
        patch.setattr(module, "CHUNK", chunk)
    for module, name in ((freedom, "SPAN"), (freedom, "HELD"), (grams, "RUN"), (grams, "BUCKET")):
        patch.setattr(module, name, 2 * chunk)
    patch.setattr("maskplay.words.reader.BLOCK", chunk)


def rows(found: mp.words.Found) -> dict[str, tuple]:
    return {row.word: (row.frequency, row.occurrences, *row[3:6]) for row in found}


def assert_same(found: mp.words.Found, expected: dict[str, tuple]) -> None:
    mine = rows(found)
    assert mine.keys() == expected.keys()
    for word, values in expected.items():
        assert mine[word] == pytest.approx(values, rel=1e-9, abs=1e-9, nan_ok=True), word


PIECES = ["天", "地", "玄黄", "宇宙洪荒", "𠀀", "𠀀𠮷", "a", "ab1", "，", " ", "\r", "", "😀"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), max_size=12),
    st.integers(1, 4),
    st.sampled_from([(2, 4, 6), (0, 0, 0), (0.5, 1, 1.5), (1,), (0.2, 0.3), (-9, -9, -9)]),
    st.sampled_from([2, 5, 64]),
    st.booleans(),
)
@example([], 1, (2, 4, 6), 64, False)
@example(["天地玄黄" * 20], 2, (-9, -9, -9), 2, True)  # one token fills several blocks
@example(["玄黄玄黄", "玄黄", "黄玄"], 2, (0, 0, 0), 5, False)  # overlapping, touching
def test_exact_is_what_dictionaries_say(lines, least, thresholds, chunk, tight):
    with pytest.MonkeyPatch.context() as patch:
        small(patch, chunk)
        if tight:
            patch.setattr(discovery, "Budget", Tight)
        found = mp.words.discover(iter(lines), min_count=least, cohesion=thresholds, workers=1 + tight)
    assert_same(found, exact(lines, least, thresholds))
    assert found.characters == sum(map(len, "".join(lines).translate({ord(x): None for x in "， \r😀"}).split()))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_files_are_read_like_texts(tmp_path, ending, last):
    lines = generated(0, 400)
    path = tmp_path / "a.txt"
    path.write_bytes((ending.join(lines) + ending * last).encode())
    found = mp.words.discover(path, min_count=5, workers=2)
    assert len(found) > 40
    assert_same(found, exact(lines, 5))


def test_by_hand():
    """Of 13 characters 天地 is there 4 times: ln(13·4 / (4·5)); on its right stand 天, 人 and two ends of runs."""
    found = rows(mp.words.discover(iter(["天地天地人", "天地", "天地，地上中下"]), min_count=2, cohesion=(0.1,)))
    assert found["天地"] == pytest.approx((4, 4, math.log(2.6), math.log(4), math.log(4)))
    assert set(found) == {"天地"}  # 地 stands alone once


@pytest.mark.parametrize("seed, lines", [(1, 3000), (2, 1200), (3, 5000)])
def test_faithful_is_the_original(tmp_path, seed, lines):
    text = "\n".join(generated(seed, lines)) + "\n \tend\r\n\r\r"
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    expected = faithful(text, 32)
    found = mp.words.discover(path, mode="faithful", workers=2)
    assert {row.word: row.frequency for row in found} == expected
    assert len(expected) > 30 and expected != {row.word: row.frequency for row in mp.words.discover(path, min_count=32)}


def test_faithful_on_real_text(data: Path, tmp_path):
    with lzma.open(data / "corpus" / "oiwiki.txt.xz", "rt", encoding="utf-8", newline="") as file:
        text = file.read(300_000)
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    expected = faithful(text, 16)
    found = mp.words.discover(path, mode="faithful", min_count=16)
    assert {row.word: row.frequency for row in found} == expected and len(expected) > 500


@pytest.mark.parametrize("mode", ["exact", "faithful"])
@pytest.mark.parametrize("texts", [[], ["", "，"]])
def test_no_text_has_no_words(mode, texts):
    found = mp.words.discover(iter(texts), mode=mode)
    assert list(found) == [] and found.characters == 0


@pytest.mark.parametrize("mode", ["exact", "faithful"])
def test_nothing_depends_on_how_the_work_is_cut(tmp_path, monkeypatch, mode):
    lines = generated(4, 600, words=150)
    outputs = set()
    for i, (workers, tight, chunk) in enumerate([(1, False, 2**18), (2, False, 999), (3, True, 500), (1, True, 2**18)]):
        random.Random(i).shuffle(lines)
        folder = tmp_path / f"{mode}{i}"
        folder.mkdir()
        for part in range(i + 1):
            (folder / f"{part}.txt").write_text("\n".join(lines[part :: i + 1]), encoding="utf-8")
        with monkeypatch.context() as patch:
            small(patch, chunk)
            if tight:
                patch.setattr(discovery, "Budget", Tight)
            found = mp.words.discover(folder, mode=mode, min_count=6, workers=workers, folder=tmp_path)
        found.write(tmp_path / "words.tsv")
        outputs.add((tmp_path / "words.tsv").read_bytes())
    assert len(outputs) == 1 and outputs.pop().count(b"\n") > 80
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_options_choose(tmp_path):
    lines = [*generated(5, 2000), *["北京大学的大学"] * 20, *["大学城"] * 2]
    everything = mp.words.discover(iter(lines), min_count=10)
    all_words = [row.word for row in everything]
    assert all_words == [row.word for row in sorted(everything, key=lambda row: (-row.frequency, row.word))]

    def chosen(**options):
        return [row.word for row in mp.words.discover(iter(lines), min_count=10, **options)]

    assert chosen(min_length=2, max_length=3) == [word for word in all_words if 2 <= len(word) <= 3]
    (tmp_path / "known.txt").write_text(f"{all_words[0]} 12 n\n{all_words[3]}\t7\n\n", encoding="utf-8")
    unknown = [word for i, word in enumerate(all_words) if i not in (0, 3)]
    packed = gzip.compress(f"word\tfrequency\n{all_words[0]}\t7\n{all_words[3]}\t7\n".encode())
    (tmp_path / "known.tsv.gz").write_bytes(packed)
    assert chosen(known=tmp_path / "known.tsv.gz") == unknown
    assert chosen(known=tmp_path / "known.txt") == chosen(known=[all_words[0], all_words[3]]) == unknown
    first, last = all_words[1][0], all_words[2][-1]
    assert chosen(not_first=first, not_last=last) == [w for w in all_words if w[0] != first and w[-1] != last]
    free = [row.word for row in everything if not min(row.left_freedom, row.right_freedom) < 2]
    alone = [row.word for row in everything if row.frequency >= 0.9 * row.occurrences]
    assert chosen(min_freedom=2) == free and len(free) < len(all_words)
    assert chosen(min_alone=0.9) == alone and len(alone) < len(all_words)


@pytest.mark.parametrize("alone, all_", [(7, 25), (7, 100), (15, 29)])
def test_a_share_that_is_reached_is_enough(alone, all_):
    lines = ["天地"] * alone + ["玄天地黄"] * (all_ - alone)
    found = mp.words.discover(iter(lines), min_count=2, min_length=2, cohesion=(-9, -9, -9), min_alone=alone / all_)
    assert ("天地", alone, all_) in [row[:3] for row in found]
    agreed = mp.words.agreed(found, iter(lines), {"天地": alone, "玄天地黄": all_}, least=alone / all_)
    assert "天地" in agreed


def test_known_words_of_another_corpus():
    old = mp.words.discover(iter(["天地"] * 9), min_count=2, cohesion=(0.1,))
    new = mp.words.discover(iter(["天地", "玄黄"] * 9), min_count=2, cohesion=(0.1,), known=old)
    assert "天地" in set(old.word) and "天地" not in set(new.word) and "玄黄" in set(new.word)


@pytest.mark.parametrize(
    "table, missing",
    [
        ("text\tcount\n天地\t9\n", {"天地"}),
        ("word\tcount\n天地\t9\n", {"天地"}),
        ("text\t7\n天地\t9\n", {"天地", "text"}),  # no header
        ("text\tcount\n \t9\n天地 \t3\n", set()),  # blanks were counted, which are no words here
    ],
)
def test_known_words_of_a_table(tmp_path, table, missing):
    (tmp_path / "known.tsv").write_text(table, encoding="utf-8")
    texts, options = ["天地", "text", "9"] * 9, {"min_count": 2, "cohesion": (0.1,) * 3}
    found = {row.word for row in mp.words.discover(iter(texts), **options)}
    assert {"天地", "text", "9"} <= found
    unknown = mp.words.discover(iter(texts), **options, known=tmp_path / "known.tsv")
    assert {row.word for row in unknown} == found - missing


def test_known_words_of_jieba():
    pytest.importorskip("jieba", reason="the `words` extra is not installed")
    found = mp.words.discover(iter(["北京大学", "玄黄宙宇"] * 5), min_count=2, cohesion=(0, 0, 0), known="jieba")
    assert [row.word for row in found] == ["玄黄宙宇"]


def test_runs_stay_whole(monkeypatch):
    lines = ["用iPhone15拍", "iPhone15和iPhone", "a玄b玄", "玄 x9x9，iPhone15"] * 3
    for chunk in (2, 2**18):
        with monkeypatch.context() as patch:
            small(patch, chunk)
            found = mp.words.discover(iter(lines), min_count=3, cohesion=(9,), runs=True)
        assert {row.word: row.frequency for row in found} == {
            **{"iPhone15": 9, "玄": 9, "iPhone": 3, "用": 3, "拍": 3, "和": 3, "a": 3, "b": 3, "x9x9": 3}
        }
    assert found.characters == 39


def test_a_run_over_many_blocks_is_one(monkeypatch):
    blocks = ["用ab", "c", "1" * 40, "2，", "x", "y"]
    assert "".join(Kept([], runs=True).whole(iter(blocks))) == "".join(blocks)
    assert [*Kept([], runs=True).whole(iter(blocks))] == ["用", "abc" + "1" * 40 + "2，", "xy"]


def test_more_symbols_than_ids(monkeypatch):
    """Only the most frequent symbols get an id; the others end runs."""
    lines = ["甲乙丙"] * 9 + ["丁甲乙"] * 2
    monkeypatch.setattr("maskplay.words.symbols.MOST", 2)
    found = mp.words.discover(iter(lines), min_count=10, cohesion=(0.5,))
    assert {row.word: row.frequency for row in found} == {"甲乙": 11} and found.characters == 33
    with pytest.raises(UserError, match="different symbols occur 9 times or more; expected a greater one"):
        mp.words.discover(iter(lines), min_count=9, cohesion=(0.5,))  # 丙 would be lost without a word


def test_the_score_is_cohesion_and_freedom():
    found = mp.words.discover(iter(generated(6, 2000)), min_count=10, min_length=2)
    sizes = np.array([len(word) for word in found.word.tolist()])
    expected = found.cohesion / (sizes - 1) + np.minimum(found.left_freedom, found.right_freedom)
    np.testing.assert_allclose(found.score, expected)


def test_written_files(tmp_path):
    found = mp.words.discover(iter(["人", *["天地"] * 4]), min_count=1, cohesion=(0.1,))
    for name in ("a.tsv", "a.txt"):
        found.write(tmp_path / name)
    header, first, second = (tmp_path / "a.tsv").read_text("utf-8").splitlines()
    assert header.split("\t") == list(mp.words.Word._fields) and first.split("\t")[:3] == ["天地", "4", "4"]
    assert second == "人\t1\t1\tnan\tnan\tnan\tnan"
    assert (tmp_path / "a.txt").read_text("utf-8") == "天地 4\n"  # a single character's count would replace jieba's
    texts = ["20，天地，AI，3月"] * 4  # by 20 jieba would cut 2010, by AI AIR, which it keeps together otherwise
    mp.words.discover(iter(texts), cohesion=(0.1,)).write(tmp_path / "b.txt")
    assert (tmp_path / "b.txt").read_text("utf-8") == "3月 4\n天地 4\n"
    for name in ("a.csv", "a"):
        with pytest.raises(UserError, match="ends in .tsv, .parquet, .txt"):
            found.write(tmp_path / name)


def test_parquet(tmp_path, monkeypatch):
    found = mp.words.discover(iter(["人", *["天地"] * 4]), min_count=1, cohesion=(0.1,))
    with monkeypatch.context() as hidden:
        hidden.setitem(__import__("sys").modules, "pyarrow.parquet", None)
        with pytest.raises(mp.MissingExtra, match="maskplay\\[parquet\\]"):
            found.write(tmp_path / "a.parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, of the `parquet` extra, is not installed")
    found.write(tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert list(table) == list(mp.words.Word._fields) and table["word"] == ["天地", "人"]
    mp.words.discover(iter([])).write(tmp_path / "none.parquet")
    assert parquet.read_schema(tmp_path / "none.parquet").equals(parquet.read_schema(tmp_path / "a.parquet"))


def test_default_min_count_grows_with_the_corpus():
    counts = [mp.words.discovery.default_min_count(10**k) for k in range(11)]
    assert counts == sorted(counts) and (counts[0], counts[7], counts[8], counts[10]) == (2, 32, 32, 320)


@pytest.mark.parametrize(
    "options, told",
    [
        ({"mode": "quick"}, "mode: expected exact or faithful, found 'quick'"),
        ({"min_count": 0}, "min_count: expected a whole number from 1 on"),
        ({"cohesion": ()}, "cohesion: expected a list of numbers"),
        ({"cohesion": "2,4,6"}, "cohesion: expected a list of numbers, .* found '2,4,6'"),
        ({"cohesion": 3.0}, "cohesion: expected a list of numbers"),
        ({"known": 3}, "known: expected words or a file of them, found 3"),
        ({"memory": float("nan")}, "memory: expected a size"),
        ({"memory": "9" * 400}, "memory: expected a size"),
        ({"min_alone": 7}, "min_alone: expected a share from 0 to 1, found 7"),
        ({"min_length": 5, "max_length": 2}, "max_length: expected at least min_length, 5, found 2"),
        ({"folder": "/no/such/folder"}, "folder: expected one that is there, found '/no/such/folder'"),
        ({"cohesion": (1,), "mode": "faithful"}, "the original has 3 thresholds, found 1"),
        ({"cohesion": range(40), "min_count": 1}, "expected at most 20 thresholds"),
        ({"runs": True, "mode": "faithful"}, "runs: "),
        ({"workers": 0}, "workers: expected a whole number from 1 on, found 0"),
        ({"known": "no such file"}, "no such file"),
        ({"known": [("天地", 3)]}, "known: expected words, found \\('天地', 3\\)"),
    ],
)
def test_wrong_options(options, told):
    with pytest.raises(UserError, match=told):
        mp.words.discover(iter(["天地玄黄"]), **options)


def test_a_damaged_file_is_one_line_and_leaves_nothing(tmp_path):
    for i in range(40):
        (tmp_path / f"{i:02}.txt").write_bytes("天地\n".encode() * 9 + b"\xff\n" * (i == 20))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for workers in (1, 2):
        with pytest.raises(DataError, match=r"20\.txt, line 10: expected UTF-8, found byte 0xff"):
            mp.words.discover(str(tmp_path / "*.txt"), workers=workers, folder=scratch)
    assert not list(scratch.iterdir())


def test_longer_ngrams():
    lines = generated(7, 800)
    found = mp.words.discover(iter(lines), min_count=4, cohesion=(1, 2, 3, 4, 5))
    assert_same(found, exact(lines, 4, (1, 2, 3, 4, 5)))


@pytest.mark.parametrize("workers", [1, 2])
def test_longer_ngrams_among_many_rare_symbols(tmp_path, monkeypatch, workers):
    """Six of a few frequent symbols fit where six of all would not; the rare ones are neighbours all the same."""
    small(monkeypatch, 64)
    draw = random.Random(3)
    rare = [chr(0x4E00 + i) for i in range(3000)]
    draw.shuffle(rare)
    lines = [line + "".join(draw.sample(rare, 9)) + line for line in generated(7, 300)] + ["".join(rare)]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = mp.words.discover(path, min_count=12, cohesion=(1, 2, 3, 4, 5), workers=workers)
    assert_same(found, exact(lines, 12, (1, 2, 3, 4, 5)))
    assert any(len(row.word) > 5 for row in found)
    with pytest.raises(UserError, match="n-grams of 6 out of 30.. different symbols that occur 1 times or more do"):
        mp.words.discover(path, min_count=1, cohesion=(1, 2, 3, 4, 5))
    monkeypatch.setattr(discovery, "Budget", Tight)
    assert_same(mp.words.discover(path, min_count=12, cohesion=(1, 2, 3, 4, 5)), rows(found))


def test_a_table_of_known_words_has_a_header(tmp_path):
    options = {"min_count": 2, "cohesion": (0.1, 0.1, 0.1)}
    known = mp.words.discover(iter(["天地"] * 4), **options)
    known.write(tmp_path / "known.tsv")
    found = mp.words.discover(iter(["word 天地 玄黄"] * 4), min_length=2, **options, known=tmp_path / "known.tsv")
    assert [row.word for row in found] == ["word", "玄黄"]


@pytest.mark.parametrize("mode", ["exact", "faithful"])
def test_long_lines_are_not_held(tmp_path, monkeypatch, mode):
    """Where memory is limited a long line goes to the file in parts, and no other thread's text gets between them."""
    monkeypatch.setattr(reader, "BLOCK", 64)
    for i in range(4):
        (tmp_path / f"{i}.txt").write_text("，".join(generated(i, 60)) + "\n", encoding="utf-8")
    monkeypatch.setattr(discovery, "Budget", Tight)
    found = [mp.words.discover(tmp_path, mode=mode, min_count=3, workers=workers) for workers in (1, 2, 3)]
    assert len(found[0]) > 20
    for other in found[1:]:
        assert_same(other, rows(found[0]))


def test_one_strange_character_takes_no_other_way(monkeypatch):
    """Halves of characters of which none is kept end runs, where whole ones that are kept are symbols."""
    kept = symbols.Kept([(0x4E00, 0x9FFF), (0x20000, 0x3FFFF)])
    monkeypatch.setattr(symbols.Kept, "_wide", None)
    codes, tally = kept.encode("一😀二")
    assert codes.tolist() == [0x4E00, 0, 0, 0x4E8C] and tally.low.sum() == 2
    with pytest.raises(TypeError):
        kept.encode("一𠀀二")


@pytest.mark.parametrize("chunk", [3, 8, 50])
def test_tokens_longer_than_what_is_read_at_a_time(monkeypatch, chunk):
    """Whole ones, others of whose n-grams one is no member, and what follows them."""
    monkeypatch.setattr(tokens, "CHUNK", chunk)
    cycle = "天地玄黄" * 40
    texts = ["宇宙", cycle, "洪荒" * 60, "宇宙，" + cycle + "日月" * 9, cycle, "月宇宙", cycle[:-1] + "辰"] * 2
    for cohesion in ((1.0,), (0.5, 0.7), (0.2, 0.5, 0.5)):
        found = mp.words.discover(iter(texts), min_count=2, cohesion=cohesion)
        assert_same(found, exact(texts, 2, cohesion))
        assert any(len(row.word) > 100 for row in found)


@pytest.mark.parametrize(
    "options",
    [
        {"min_freedom": math.nan},
        {"min_freedom": -1},
        {"min_freedom": "2"},
        {"min_alone": None},
        {"min_length": "2"},
        {"min_length": 0},
        {"max_length": 0},
        {"max_length": 2.5},
        {"not_first": ["的"]},
        {"memory": [1]},
        {"folder": 3},
    ],
)
def test_options_that_mean_nothing(options):
    with pytest.raises(UserError, match=next(iter(options))):
        mp.words.discover(iter(["天地"]), **options)


def test_found_words_are_known_by_their_text():
    found = mp.words.discover(iter(["宇宙洪荒", "宇宙"]), min_count=2, cohesion=(0.5,), min_length=2)
    assert "宇宙" in found and "洪荒" not in found and 3 not in found
    assert repr(found) == "Found(words=1, characters=6, min_count=2)"


def test_found_words_are_a_sequence():
    found = mp.words.discover(iter(["宇宙洪荒", "宇宙"]), min_count=1, cohesion=(0.1,))
    assert list(found[1:]) == list(found)[1:] and found[-1] == list(found)[-1] and len(found[9:]) == 0
    assert list(found[found.word == found[1].word]) == [found[1]] == list(found[np.array([1])])
    assert found[:1].characters == found.characters


@pytest.mark.parametrize("limit", [budget.Budget, Tight])
def test_progress_never_goes_back(monkeypatch, limit):
    """Also where n-grams go through files first."""
    small(monkeypatch, 50)
    monkeypatch.setattr(discovery, "Budget", limit)
    told: dict[str, list[tuple[int, int]]] = {}
    mp.words.discover(iter(generated(3, 200)), progress=lambda step, *done: told.setdefault(step, []).append(done))
    assert len(told["counting"]) > 2
    for step, shares in told.items():
        done = [share for share, _ in shares]
        assert done == sorted(done) and len({of for _, of in shares}) == 1 and shares[-1][0] == shares[-1][1], step


def test_a_file_of_words_is_a_file(tmp_path):
    for read in (mp.words.read_vocabulary, mp.words.read_arpa, mp.words.load_segmenter):
        folder = tmp_path / "words.arpa" if read is mp.words.load_segmenter else tmp_path
        folder.mkdir(exist_ok=True)
        with pytest.raises(UserError, match="expected a file, found a folder"):
            read(folder)
