"""Pairs: two texts each, in their order, cut to a row fairly; what is no pair is told with its line."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskplay import corpus
from maskplay.errors import UserError
from maskplay.pretext import Pairs, Prepared, held_out, prepare
from maskplay.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_characters(["天地玄黄。"], max_size=100)


def made(sizes: list[tuple[int, int]]) -> Prepared:
    """One that was never on disk: texts of so many tokens, every third token a sentence."""
    found = object.__new__(Prepared)
    ends, firsts = [0], [0]
    for size in np.ravel(sizes):
        start = ends[-1]
        ends += [*range(start + 3, start + size, 3), start + int(size)]
        firsts.append(len(ends) - 1)
    found.sentences, found.documents, found.pairs = np.array(ends), np.array(firsts), True
    found.ids = np.arange(ends[-1], dtype="uint32")
    return found


SIZES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12)


@given(SIZES, st.integers(5, 60))
def test_every_pair_is_a_row(sizes, room: int) -> None:
    corpus = made(sizes)
    rows = Pairs(corpus, room=room)
    starts = np.cumsum([0, *np.ravel(sizes)])[:-1]
    assert rows.begins.tolist() == starts.tolist() and rows.firsts.tolist() == list(range(0, 2 * len(sizes) + 1, 2))
    kept = (rows.ends - rows.begins).reshape(-1, 2)
    for (one, other), (a, b) in zip(sizes, kept.tolist()):
        assert 1 <= a <= one and 1 <= b <= other and a + b == min(one + other, room - 3)
        # What is cut is not shorter than what is not, but by one where the room is odd.
        assert (a == one or a >= b - 1) and (b == other or b >= a)
    assert rows.tokens == (kept.sum(axis=1) + 3).sum() and 0 < rows.filled <= 1


@given(SIZES.filter(lambda sizes: len(sizes) > 1), st.floats(0.01, 0.99))
def test_whole_pairs_are_held_out(sizes, share: float) -> None:
    corpus = made(sizes)
    sides = [Pairs(corpus, spans, room=90) for spans in held_out(corpus, share)]
    assert sum(map(len, sides)) == len(sizes) and min(map(len, sides)) >= 1
    met = sorted(begin for side in sides for begin in side.begins.tolist())
    assert met == Pairs(corpus, room=90).begins.tolist()


def test_a_pair_keeps_its_sentences_together(tmp_path: Path) -> None:
    pairs = [("天地。玄黄。", "天"), ("地", "玄。黄。天。")] * 3
    found = prepare(pairs, tmp_path / "tokens", TOKENIZER, pairs=True)
    assert found.pairs and Prepared(tmp_path / "tokens").pairs and len(found.documents) == 13
    rows = Pairs(found, room=20)
    texts = ["".join(TOKENIZER.tokens(found.ids[begin:end].tolist())) for begin, end in zip(rows.begins, rows.ends)]
    assert list(zip(texts[::2], texts[1::2])) == pairs
    assert not prepare([["天地。", "玄黄。"]], tmp_path / "plain", TOKENIZER).pairs
    for bad, message in (
        ([("天", "\x00")], "found one without any token: '\\\\x00'"),
        ([("天", "地", "玄")], "expected two texts, found \\('天', '地', '玄'\\)"),
        (["天地"], "expected two texts, found '天地'"),
        ([], "expected some text, found none"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(bad, tmp_path / "bad", TOKENIZER, pairs=True)
    assert not (tmp_path / "bad").exists()
    with pytest.raises(UserError, match="expected at least 5, found 4"):
        Pairs(found, room=4)
    with pytest.raises(UserError, match="expected some pairs, found none"):
        Pairs(found, np.zeros((1, 2), "int64"), room=20)


def test_files_of_pairs(tmp_path: Path) -> None:
    table = tmp_path / "pairs.tsv.gz"
    table.write_bytes(gzip.compress("\ufeff天\t地\r\n\r\n玄 \t 黄".encode()))
    lines = tmp_path / "pairs.jsonl"
    lines.write_text(json.dumps({"text": "天\t。", "text2": "地", "q": "玄", "a": "黄"}) + "\n", encoding="utf-8")
    assert list(corpus.pairs([table, lines])) == [("天", "地"), ("玄 ", " 黄"), ("天\t。", "地")]
    assert list(corpus.pairs(lines, ("q", "a"))) == [("玄", "黄")]


@pytest.mark.parametrize(
    "content, found",
    [("天\t地\n玄黄\n", "'玄黄'"), ("天\t地\n玄\t黄\t宇\n", "'玄\\\\t黄\\\\t宇'"), ("天\t地\n玄\t \n", "'玄\\\\t '")],
)
def test_a_line_that_is_no_pair(content: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=f"pairs.tsv, line 2: expected two texts with a tab between, found {found}"):
        list(corpus.pairs(path))


def test_a_json_line_that_is_no_pair(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    for row, message in (
        ({"text": "天"}, "expected an object with a string 'text2'"),
        ({"text": "天", "text2": " "}, "expected two texts"),
        ({"text": "天", "text2": "\ud800"}, "lone surrogate"),
    ):
        path.write_text(json.dumps(row) + "\n")
        with pytest.raises(UserError, match=f"pairs.jsonl, line 1: .*{message}"):
            list(corpus.pairs(path))
