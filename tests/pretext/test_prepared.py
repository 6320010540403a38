"""A corpus on disk: nothing lost, the same whoever encodes it, refused when it is not whole."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskplay.errors import UserError
from maskplay.pretext import Prepared, default_words, prepare, sentences
from maskplay.text.tokenizer import Tokenizer

LINES = ["山高水长。月白风清！“走吧。”他说。", "", "play tennis, ok? 是 Yes.", "水"]
TEXT = st.text("山水。！？”』abc .?!，1\u3000é", max_size=60)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_vocab([*Tokenizer.from_characters(LINES, max_size=200).vocab, "play", "##ok"])


def in_pairs(text: str) -> list[str]:
    """A segmenter of its own: words of two characters."""
    return [text[i : i + 2] for i in range(0, len(text), 2)]


@given(TEXT)
def test_sentences_are_the_text(text: str) -> None:
    found = sentences(text)
    assert "".join(found) == text and all(found)


def test_a_sentence_ends_behind_its_quotes() -> None:
    assert sentences("“好。”他说……（对！）是吗？？3.5 and e.g. this. That") == [
        "“好。”", "他说……", "（对！）", "是吗？？", "3.5 and e.g. this.", " That",
    ]  # fmt: skip


def test_words_leave_out_nothing_but_spaces() -> None:
    assert default_words("用BERT_1 做 naïve 分类，한국") == [*"用 BERT_1 做 naïve 分 类 ， 한 국".split()]


@given(st.text(max_size=40) | TEXT)
@example("a_\u0301b中1\x1c2\U00020000x\U0001d400y\ud800")
def test_where_words_begin(text: str) -> None:
    found, at = np.zeros(len(text), bool), 0
    for word in default_words(text):
        at = text.index(word, at)
        found[at] = True
        at += len(word)
    assert default_words.begins(text).tolist() == found.tolist()


def test_tokens_sentences_documents(tokenizer: Tokenizer, tmp_path: Path) -> None:
    found = prepare([LINES[:2], [""], LINES[2:]], tmp_path / "tokens", tokenizer)
    expected = [text for line in LINES for text in sentences(line)]
    rows = [found.ids[a:b].tolist() for a, b in zip(found.sentences[:-1], found.sentences[1:])]
    assert rows == [tokenizer.encode(text).ids[1:-1] for text in expected]
    assert found.documents.tolist() == [0, 4, len(expected)]  # a document without text is none
    assert found.ids.dtype == "uint16" and len(found.words) == len(found.ids)
    # Pieces of a word do not begin one.
    tokens = tokenizer.tokens(found.ids.tolist())
    assert [token for token, begins in zip(tokens, found.words) if not begins] == [t for t in tokens if t[:2] == "##"]


def test_a_word_is_looked_for_in_its_own_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in their order, found 'play'"):  # which stands in the next sentence
        prepare([["PLAY。play"]], tmp_path / "tokens", tokenizer, words=lambda text: [text.strip("。").lower()])


def test_words_of_a_segmenter(tokenizer: Tokenizer, tmp_path: Path) -> None:
    found = prepare([["山高水长。月白", "风"]], tmp_path / "tokens", tokenizer, words=in_pairs)
    assert found.words.astype(int).tolist() == [1, 0, 1, 0, 1, 1, 0, 1]
    with pytest.raises(UserError, match="expected the words of a text in their order, found '他'"):
        prepare([["山高"]], tmp_path / "other", tokenizer, words=lambda text: ["他"])
    assert not (tmp_path / "other").exists()


def test_processes_change_nothing(tokenizer: Tokenizer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("maskplay.pretext.prepared.BLOCK", 40)
    counted: list[int] = []
    documents = [LINES * 3, LINES, [LINES[0]] * 5]
    prepare(documents, tmp_path / "one", tokenizer, progress=counted.append)
    prepare(documents, tmp_path / "two", tokenizer, workers=2)
    for name in ("ids", "words", "sentences", "documents"):
        one, two = ((tmp_path / folder / f"{name}.npy").read_bytes() for folder in ("one", "two"))
        assert one == two, name
    assert sum(counted) == sum(len(line) for document in documents for line in document) and len(counted) > 3


def test_a_long_line_is_several_of_its_document(tokenizer: Tokenizer, tmp_path: Path, monkeypatch) -> None:
    line = "山高水长" * 9 + "。" + "山高 水长" * 9 + "山" * 90
    whole = prepare([[line], ["风清"]], tmp_path / "whole", tokenizer)
    monkeypatch.setattr("maskplay.pretext.prepared.BLOCK", 40)
    parts = prepare([[line], ["风清"]], tmp_path / "parts", tokenizer)
    assert parts.ids.tolist() == whole.ids.tolist() and parts.words.tolist() == whole.words.tolist()
    assert len(parts.documents) == len(whole.documents) == 3
    assert {*whole.sentences.tolist()} < {*parts.sentences.tolist()} and np.diff(parts.sentences).max() <= 40


@settings(max_examples=25, deadline=None)
@given(documents=st.lists(st.lists(TEXT, max_size=3), max_size=4))
def test_all_that_has_tokens_is_there(tokenizer: Tokenizer, tmp_path_factory, documents) -> None:
    folder = tmp_path_factory.mktemp("any") / "tokens"
    texts = [text for document in documents for line in document for text in sentences(line)]
    expected = [tokenizer.encode(text).ids[1:-1] for text in texts]
    whole = [i for ids in expected for i in ids]
    if not whole:
        with pytest.raises(UserError, match="expected some text, found none"):
            prepare(documents, folder, tokenizer)
        assert not any(folder.parent.iterdir())
        return
    found = prepare(documents, folder, tokenizer)
    assert found.ids.tolist() == whole and np.diff(found.sentences).tolist() == [len(ids) for ids in expected if ids]
    assert (np.diff(found.documents) > 0).all() and found.words[0]


def test_a_damaged_folder_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    prepare([LINES], tmp_path / "tokens", tokenizer)
    kept = (tmp_path / "tokens" / "ids.npy").read_bytes()
    (tmp_path / "tokens" / "ids.npy").write_bytes(kept[:-8])
    with pytest.raises(UserError, match="ids.npy: missing or damaged"):
        Prepared(tmp_path / "tokens")
    np.save(tmp_path / "tokens" / "ids.npy", np.zeros(3, "uint16"))
    with pytest.raises(UserError, match="do not belong together"):
        Prepared(tmp_path / "tokens")
    (tmp_path / "tokens" / "ids.npy").write_bytes(b"")
    with pytest.raises(UserError, match="ids.npy: missing or damaged"):
        Prepared(tmp_path / "tokens")
    (tmp_path / "tokens" / "ids.npy").write_bytes(kept)
    whole = (tmp_path / "tokens" / "sentences.npy").read_bytes()
    for other in (np.zeros(0, "int64"), np.int64(3)):
        np.save(tmp_path / "tokens" / "sentences.npy", other)
        with pytest.raises(UserError, match="do not belong together"):
            Prepared(tmp_path / "tokens")
    (tmp_path / "tokens" / "sentences.npy").write_bytes(whole)
    marker = tmp_path / "tokens" / "maskplay.json"
    said = marker.read_text(encoding="utf-8")
    marker.write_text('{"format": "tokens", "version": 1}', encoding="utf-8")
    with pytest.raises(UserError, match="do not belong together"):
        Prepared(tmp_path / "tokens")
    marker.write_text(said, encoding="utf-8")
    np.save(tmp_path / "tokens" / "ids.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserError, match="ids.npy: missing or damaged"):
        Prepared(tmp_path / "tokens")
    with pytest.raises(UserError, match="cannot be read"):
        Prepared(tmp_path)
    (tmp_path / "maskplay.json").write_text('{"format": "play"}')
    with pytest.raises(UserError, match="expected a corpus prepared by maskplay, found play"):
        Prepared(tmp_path)


def test_a_text_is_no_document(tmp_path) -> None:
    with pytest.raises(UserError, match="a document: expected a list of lines, found a text"):
        prepare(["山高"], tmp_path / "tokens", Tokenizer.from_characters(["山高"], max_size=80))
