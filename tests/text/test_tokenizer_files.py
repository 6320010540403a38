"""The tokenizer's files: what is saved comes back, those of others open, and broken ones are told."""

import pytest

from maskplay.errors import UserError
from maskplay.text import Tokenizer
from text import small
from text.test_tokenizer import TINY, cased, uncased


@pytest.mark.parametrize("tokenizer", [cased, uncased])
def test_save_and_load(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert Tokenizer.load(tmp_path) == tokenizer
    (tmp_path / "tokenizer.json").unlink()
    assert Tokenizer.load(tmp_path) == tokenizer != Tokenizer.from_vocab(TINY, not tokenizer.lowercase)


def test_windows_and_google_files(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*TINY, "\u2028"]).encode())
    tokenizer = Tokenizer.load(tmp_path)
    assert list(tokenizer.vocab) == [*TINY, "\u2028"] and not tokenizer.lowercase  # "K" says that it is cased
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "strip_accents": false}')
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.lowercase and tokenizer.encode("É").tokens[1] == "é"


@pytest.mark.parametrize("name", ["bert-base-chinese", "bert-base-uncased", "bert-base-cased", "roformer-char"])
def test_google_folders_know_their_case(data, tmp_path, name):
    (tmp_path / "vocab.txt").write_bytes((data / "vocabs" / f"{name}-vocab.txt").read_bytes())
    assert Tokenizer.load(tmp_path).lowercase == (name != "bert-base-cased")


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n\r\n\r\n"])
def test_blank_lines_at_the_end_are_none(tmp_path, end):
    (tmp_path / "vocab.txt").write_bytes("\n".join(TINY).encode() + end)
    assert list(Tokenizer.load(tmp_path).vocab) == list(Tokenizer.from_vocab(tmp_path / "vocab.txt").vocab) == TINY


@pytest.mark.parametrize(
    "content, message",
    [
        ("\n".join([*TINY, "我"]), f"line {len(TINY) + 1}: the token '我' was already on line 6"),
        ("\n".join([*TINY, "", "x"]), f"line {len(TINY) + 1}: expected a token, found an empty line"),
        ("[PAD]\n[CLS]\n我\n", r"missing \[UNK\] \[SEP\] \[MASK\]"),
        ("", r"missing \[PAD\]"),
        (b"[PAD]\n\xff\n", "line 2: expected UTF-8, found byte 0xff at offset 6"),
        (b"x" * (33 * 2**20), "at most 32 MiB"),
    ],
)
def test_broken_vocabularies(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    for read in (Tokenizer.load, lambda folder: Tokenizer.from_vocab(folder / "vocab.txt")):
        with pytest.raises(UserError, match=f"vocab.txt.*{message}"):
            read(tmp_path)


def test_nothing_to_load(tmp_path):
    with pytest.raises(UserError, match="expected a tokenizer .tokenizer.json or .* or vocab.txt., found none of them"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="absent.txt: cannot be read"):
        Tokenizer.from_vocab(tmp_path / "absent.txt")


def test_too_many_tokens(monkeypatch):
    monkeypatch.setattr("maskplay.text.kind.VOCAB_TOKENS", 10)
    assert len(Tokenizer.from_vocab(TINY[:10])) == 10
    with pytest.raises(UserError, match="line 11: expected at most 10 tokens"):
        Tokenizer.from_vocab(TINY[:11])


@pytest.mark.parametrize(
    "where, value, message",
    [
        ("model.type", "BPE", "expected a list of merges"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}, "expected a BERT tokenizer"),
        ("normalizer", None, "expected a BERT tokenizer"),
        ("model", [], "expected a BERT tokenizer"),
        ("model.unk_token", "<unk>", "unk_token: expected '.UNK.', found '<unk>'"),
        ("model.max_input_chars_per_word", 10, "max_input_chars_per_word: expected 100"),
        ("model.vocab", ["a"], "expected a vocabulary"),
        ("model.vocab.我", 7, "each once; '爱' has 6|each once; '北' has 7"),
        ("model.vocab.我", "x", "'我' has 'x'"),
        ("model.vocab.我", 10**6, "'我' has 1000000"),
        ("added_tokens", [{"content": "我", "id": 0}], "the added token '我' has no text, or two ids"),
        ("added_tokens", ["我"], "the added token None"),
        ("added_tokens", [{"content": "我", "id": 5, "lstrip": True}], "takes in the spaces"),
        ("normalizer.handle_chinese_chars", False, "handle_chinese_chars: expected true, found False"),
        ("normalizer.lowercase", "yes", "lowercase: expected true or false, found 'yes'"),
        ("normalizer.strip_accents", 1, "strip_accents: expected true, false or null"),
    ],
)
def test_broken_tokenizer_json(tmp_path, where, value, message):
    uncased.save(tmp_path)
    small.change(tmp_path, where, value)
    with pytest.raises(UserError, match=f"tokenizer.json.*({message})"):
        Tokenizer.load(tmp_path)
