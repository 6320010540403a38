"""Counts are those of a plain dictionary, whoever counts."""

import gzip
import pickle
import random
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maskplay as mp
from maskplay.errors import DataError, UserError
from words.references import generated, ngrams_of
from words.test_discovery import Tight


def ordered(counts: Counter[str], least: int = 1) -> list[tuple[str, int]]:
    return sorted(((text, count) for text, count in counts.items() if count >= least), key=lambda x: (-x[1], x[0]))


def split(line: str) -> list[str]:
    return line.split()


def fails(line: str) -> list[str]:
    if "!" in line:
        raise ValueError(f"cannot cut {line!r}")
    return line.split()


LINES = st.lists(st.text(st.sampled_from("一二 𠀀😀a，\r\t"), max_size=20), max_size=9)


@settings(max_examples=80, deadline=None)
@given(LINES, st.integers(1, 6), st.integers(1, 4))
def test_ngrams_are_those_of_a_dictionary(lines, n, workers):
    counts = mp.words.count(iter([line + "\n" for line in lines]), n=n, workers=workers)
    lines = [line.removesuffix("\r") for line in lines]
    assert list(counts) == ordered(ngrams_of(lines, n))
    assert counts.total == sum(max(0, len(line) - n + 1) for line in lines)


def test_ngrams_of_files(tmp_path):
    lines = generated(0, 3000)
    (tmp_path / "a.txt").write_text("\n".join(lines[:1000]), encoding="utf-8")
    (tmp_path / "b.gz").write_bytes(gzip.compress("\n".join(lines[1000:]).encode()))
    for workers in (1, 2):
        assert list(mp.words.count(tmp_path, n=3, min_count=4, workers=workers)) == ordered(ngrams_of(lines, 3), 4)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("form", ["files", "packed", "texts"])
def test_words_of_a_tokenizer(tmp_path, monkeypatch, workers, form):
    monkeypatch.setattr("maskplay.words.counting.BATCH", 1000)
    lines = generated(1, 2000)
    expected = Counter(word for line in lines for word in line.split())
    if form == "files":
        for i in range(3):
            (tmp_path / f"{i}.txt").write_text("\n".join(lines[i::3]), encoding="utf-8")
        sources = str(tmp_path)
    elif form == "packed":
        (tmp_path / "a.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
        sources = tmp_path / "a.gz"
    else:
        sources = iter(lines)
    told: list[tuple] = []
    counts = mp.words.count(
        sources, tokenizer=split, min_count=2, workers=workers, progress=lambda *step: told.append(step)
    )
    assert list(counts) == ordered(expected, 2) and counts.total > 1000
    assert [*dict.fromkeys(done for _, done, _ in told)] == list(range(1, told[-1][1] + 1))
    assert [done == of for _, done, of in told] == [False] * (len(told) - 1) + [True]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_tokenizers_error_surfaces(tmp_path, workers):
    (tmp_path / "a.txt").write_text("a b\n" * 500 + "oh!\n" + "c\n" * 500)
    with pytest.raises(ValueError, match="cannot cut 'oh!'"):
        mp.words.count(tmp_path, tokenizer=fails, workers=workers)


def test_a_damaged_file_surfaces_from_a_worker(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a b\n" * 500 + b"\xff\n" + b"c\n" * 500)
    for options in ({"tokenizer": split, "workers": 2}, {"n": 2, "workers": 2}):
        with pytest.raises(DataError, match=r"a\.txt, line 501: expected UTF-8"):
            mp.words.count(tmp_path, **options)


def test_written_counts(tmp_path):
    counts = mp.words.count(iter(["a\tb\\a\tb\\"]), n=3)
    counts.write(tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_text("utf-8").splitlines() == [
        *("text\tcount", "\\tb\\\\\t2", "a\\tb\t2", "\\\\a\\t\t1", "b\\\\a\t1")
    ]
    assert mp.words.read_vocabulary(tmp_path / "a.tsv") == counts.counts()
    with pytest.raises(UserError, match=r"ends in \.tsv, \.parquet"):
        counts.write(tmp_path / "a.txt")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, of the `parquet` extra, is not installed")
    counts.write(tmp_path / "a.parquet")
    assert parquet.read_table(tmp_path / "a.parquet").to_pydict()["count"] == [2, 2, 1, 1]


def test_standard_input_is_read_here(tmp_path, monkeypatch):
    """Processes have none: what is piped in must not be lost."""
    for name, text in (("in", "一 二\n"), ("a.txt", "二 三\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    with open(tmp_path / "in") as file:
        monkeypatch.setattr(sys, "stdin", file)
        counts = mp.words.count(["-", tmp_path / "a.txt"], tokenizer=split, workers=2)
    assert {row.text: row.count for row in counts} == {"一": 1, "二": 2, "三": 1}


def test_progress_of_batches_ends_once(tmp_path, monkeypatch):
    monkeypatch.setattr("maskplay.words.counting.BATCH", 3)
    monkeypatch.setattr("maskplay.words.counting.LARGE_BATCH", 3)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("天 地\n".encode() * 40))
    told: list[tuple[int, int]] = []
    counts = mp.words.count(
        tmp_path / "a.txt.gz", tokenizer=split, workers=2, progress=lambda step, done, of: told.append((done, of))
    )
    assert counts.total == 80 and len(told) > 5
    assert [done == of for done, of in told] == [False] * (len(told) - 1) + [True]


@pytest.mark.parametrize("n", [5, 6])
def test_long_ngrams_of_many_characters(n):
    """Only the frequent characters have to fit; what equals another in count stands in the order of the text."""
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    lines = [rare, *generated(4, 600), "\0宙天地玄黄" * 5]
    expected = ngrams_of(lines, n)
    assert list(mp.words.count(iter(lines), n=n, min_count=3)) == ordered(expected, 3)
    assert sum(count >= 3 for count in expected.values()) > 20
    with pytest.raises(UserError, match=f"n: {n} of .* or a greater min_count"):
        mp.words.count(iter(lines), n=n)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_field_is_looked_for_where_it_can_be(tmp_path, workers):
    (tmp_path / "a.txt").write_text('{"body": "一"}\n' * 9)
    for what in ({"n": 1}, {"tokenizer": split}):
        with pytest.raises(UserError, match="field: 'body' is looked for in files .jsonl, .ndjson or .json; found .*a"):
            mp.words.count(tmp_path / "a.txt", **what, field="body", workers=workers)
    (tmp_path / "b.jsonl").write_text('{"body": "二"}\n' * 9)  # beside plain text, which has no fields
    assert mp.words.count(tmp_path, tokenizer=split, field="body", workers=workers).total == 27


def test_too_many_characters_are_told(monkeypatch):
    for module in ("symbols", "counting"):
        monkeypatch.setattr(f"maskplay.words.{module}.MOST", 3)
    for n in (1, 2):
        with pytest.raises(UserError, match="n: a corpus of more than 2 different characters cannot be counted"):
            mp.words.count(iter(["天地玄黄"]), n=n)


@pytest.mark.parametrize(
    "options, told",
    [
        ({}, "expected either n or a tokenizer"),
        ({"n": 2, "tokenizer": split}, "expected either n or a tokenizer"),
        ({"n": 0}, "n: expected a whole number from 1 on"),
        ({"n": 13}, "n: 13 of 60 different characters that occur 1 times or more do not fit 64 bits"),
        ({"n": 2, "min_count": 0}, "min_count: "),
        ({"tokenizer": split, "workers": -1}, "workers: "),
        ({"tokenizer": "jieba"}, "tokenizer: expected a function from a line to its words, found 'jieba'"),
    ],
)
def test_wrong_options(options, told):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 60)))
    with pytest.raises(UserError, match=told):
        mp.words.count(iter([text]), **options)


@pytest.mark.parametrize("above", ["", "𠀀"])
def test_a_zero_is_a_character(above):
    text = "a\0\0b\0" + above
    for n in (1, 2, 3):
        assert list(mp.words.count(iter([text, "\0"]), n=n)) == ordered(ngrams_of([text, "\0"], n))


def test_long_lines_of_several_files(tmp_path, monkeypatch):
    """Threads put down pieces of lines, which must not mix."""
    monkeypatch.setattr("maskplay.words.reader.BLOCK", 40)
    lines = ["".join(random.Random(i).choices([chr(0x4E00 + 20 * i + k) for k in range(20)], k=9000)) for i in range(3)]
    for i, line in enumerate(lines):
        (tmp_path / f"{i}.txt").write_text(line, encoding="utf-8")
    for n in (2, 4):
        assert list(mp.words.count(tmp_path, n=n, workers=3)) == ordered(ngrams_of(lines, n))


def test_counting_does_not_depend_on_the_order_of_lines():
    lines = generated(2, 500)
    mixed = random.Random(0).sample(lines, len(lines))
    assert list(mp.words.count(iter(lines), n=2)) == list(mp.words.count(iter(mixed), n=2, workers=3))


def test_a_line_feed_in_a_word_stays_on_its_line(tmp_path):
    counts = mp.words.count(iter(["a b"]), tokenizer=lambda line: ["a\nb"])
    counts.write(tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_text() == "text\tcount\na\\nb\t1\n"


def test_batches_are_larger_where_most_words_are_new(monkeypatch):
    from maskplay.words import counting

    for name, value in (("BATCH", 100), ("LARGE_BATCH", 1000), ("SAMPLE", 50)):
        monkeypatch.setattr(counting, name, value)
    for lines, most in ((["天 地"] * 1000, 103), ([f"{i} {-i}" for i in range(500)], 1010)):
        batches = [*counting._batches(iter(lines), str.split)]
        assert [line for batch in batches for line in batch] == lines and len(batches) > 2
        assert {sum(map(len, batch)) > most * 0.9 for batch in batches[:-1]} == {True}
        assert max(sum(map(len, batch)) for batch in batches) <= most
        counts = {word: count for word, count in mp.words.count(iter(lines), tokenizer=str.split, workers=2)}
        assert counts == Counter(word for line in lines for word in line.split())


def test_the_most_frequent_stand_in_order_too():
    often = {"乙": 70_000, "丁": 80_000, "三": 65_535, "七": 65_536, "一": 70_000, "二": 2, "丙": 2}
    counts = mp.words.count(iter(["".join(text * times for text, times in often.items())]), n=1)
    assert [*counts] == sorted(often.items(), key=lambda item: (-item[1], item[0]))


def test_a_segmenter_is_given_many_lines_at_once(monkeypatch):
    lines = ["天地 玄黄", "\u3000玄黄"] * 40
    words, calls = mp.words.Vocabulary({"天地": 3, "玄黄": 2}), []
    many = words.many
    monkeypatch.setattr(words, "many", lambda texts: calls.append(len(texts)) or many(texts))
    assert dict(mp.words.count(iter(lines), tokenizer=words)) == {"天地": 40, "玄黄": 80}  # white space is no word
    assert calls == [80]


def test_counting_keeps_within_the_memory(tmp_path, monkeypatch):
    lines = generated(3, 900)
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    whole = mp.words.count(tmp_path / "a.txt", n=3)
    monkeypatch.setattr("maskplay.words.counting.Budget", Tight)
    spilled = mp.words.count(tmp_path / "a.txt", n=3, memory="1G", folder=tmp_path)
    assert list(spilled) == list(whole) and sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]
    for name, value in (("memory", "1G"), ("folder", tmp_path)):
        with pytest.raises(UserError, match=f"{name}: it is for n-grams"):
            mp.words.count(iter(lines), tokenizer=split, **{name: value})


@pytest.mark.parametrize("what", [{"n": 2}, {"n": 5}, {"tokenizer": split}])
def test_counts_travel_to_other_processes(what):
    counts = mp.words.count(iter(["天地 玄黄 天地", "a\0b c d"]), **what)
    assert list(pickle.loads(pickle.dumps(counts))) == list(counts) != []


def test_counts_are_words_for_others():
    field, general = (mp.words.count(iter(texts), n=2) for texts in (["天地天地玄黄"], ["天地玄黄玄黄"]))
    assert [row.word for row in mp.words.contrast(field, general)][0] == "地天"
    assert list(mp.words.segment(iter(["天地玄黄"]), field)) == [["天地", "玄黄"]]
    assert mp.words.Vocabulary(field).counts == field.counts() == {"天地": 2, "地天": 1, "地玄": 1, "玄黄": 1}
    new = mp.words.discover(iter(["天地", "玄黄", "地天"]), min_count=1, cohesion=(0,), known=general)
    assert [row.word for row in new] == ["地天"] and "地玄" in general and "地天" not in general
    assert repr(general) == "Counts(different=4, total=5)"
    for wrong in ("words.tsv", str.split, None):
        with pytest.raises(UserError, match="expected words with their counts, found"):
            list(mp.words.segment(iter(["天地"]), wrong))


@pytest.mark.parametrize("tokenizer, told", [(lambda line: [1, 2], UserError), (lambda line: None, TypeError)])
def test_a_tokenizer_gives_words(tokenizer, told):
    with pytest.raises(told):
        mp.words.count(iter(["a"]), tokenizer=tokenizer)


def test_half_a_pair_in_a_table(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    mp.words.count(iter(["一\ud800"]), tokenizer=list).write(tmp_path / "c.parquet")
    assert parquet.read_table(tmp_path / "c.parquet").to_pydict() == {"text": ["一", "?"], "count": [1, 1]}


def test_a_table_is_written_in_parts(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("maskplay.words.counting.ROWS", 2)
    counts = mp.words.count(iter(["一二三四五"]), n=1)
    counts.write(tmp_path / "c.parquet")
    file = parquet.ParquetFile(tmp_path / "c.parquet")
    assert file.metadata.num_row_groups == 3 and file.read()["text"].to_pylist() == [row.text for row in counts]
