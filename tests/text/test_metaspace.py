"""SentencePiece vocabularies as tokenizer.json: without the library, beside `tokenizers`, hostile files."""

import base64
import json
import random
import sys

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from maskplay.errors import UserError
from maskplay.text import Tokenizer
from text import small

TEXTS = ["the dog ran ﬁ", "We play 3.14! été 今天天气", "½ é 😀", "", "  two  spaces ", "e\u0301a 한"]


def test_needs_no_sentencepiece(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    small.unigram.__wrapped__().save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    encoding = tokenizer.encode("the dog", "½")
    assert encoding.tokens == ["▁the", "▁dog", "</s>", "▁", "1", "<unk>", "2", "</s>"]
    assert encoding.offsets == [(0, 3), (4, 7), (0, 0), (0, 0), (0, 1), (0, 1), (0, 1), (0, 0)]
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 2, None)


def llama_file(folder) -> tokenizers.Tokenizer:
    """Merges over characters with bytes, as in LLaMA's released tokenizer.json."""
    source = small.llama()
    merges = []
    for token in source.tokens(range(259, len(source))):
        pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
        merges += [pair for pair in pairs if set(pair) <= source.vocab.keys()]
    rust = tokenizers.Tokenizer(models.BPE(source.vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    rust.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    rust.add_special_tokens(["<unk>", "<s>", "</s>"])
    rust.save(str(folder / "tokenizer.json"))
    return rust


def test_llamas_form(tmp_path):
    theirs = llama_file(tmp_path)
    ours = Tokenizer.load(tmp_path)
    assert ours.form == small.llama().form
    for text in TEXTS:
        assert ours.encode(text, "b").ids == theirs.encode(text, "b").ids
        assert ours.decode(ours.encode(text).ids) == text
    assert ours.encode("the dog 😀") == small.llama().encode("the dog 😀")
    assert "<s>" not in ours.encode("the <s> </s> <unk>").tokens[1:]
    ours.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again") == ours
    again = tokenizers.Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    for text in TEXTS:
        assert again.encode(text, "b").ids == theirs.encode(text, "b").ids
        assert again.decode(again.encode(text).ids) == text


def test_tokenizers_agrees(tmp_path):
    ours = small.unigram()
    ours.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        output, encoding = theirs.encode(text, "b"), ours.encode(text, "b")
        assert encoding.ids == output.ids and encoding.segments == output.type_ids
        if ours.unk_id not in encoding.ids:  # we show what is unknown
            assert ours.decode(encoding.ids) == theirs.decode(output.ids)
    assert ours.encode("a <extra_id_0> b", specials=True).ids == theirs.encode("a <extra_id_0> b").ids


# Hostile files


def precompiled(table: bytes) -> dict:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


@pytest.mark.parametrize(
    "where, value, message",
    [
        (
            "normalizer",
            {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""},
            "expected steps of Sentence",
        ),
        ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 99}, "expected steps"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Sequence"}]}, "expected steps"),
        ("normalizer", {"type": "Sequence", "normalizers": 5}, "expected steps"),
        ("normalizer", precompiled(b"\x08\0\0\0abcd"), "expected steps"),
        ("normalizer", precompiled(b"\x04\0\0\0abcd" + b"x" * 300), "expected steps"),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "?"}, "expected steps"),
        ("normalizer", {"type": "Prepend", "prepend": "x" * 99}, "expected steps"),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "x"}}, "pretokenizers: expected steps"),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "_"}, "pretokenizers: expected steps"),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "sometimes"}, "cannot be used"),
        ("model.unk_id", 999, "unk_id: expected an id of the vocabulary, found 999"),
        ("model.unk_id", True, "unk_id: expected an id"),
        ("model.vocab", [["a", 1.0], ["a", 2.0]], "each piece once; entry 1"),
        ("model.vocab", [["a", float("inf")]], "entry 0"),
        ("model.vocab", [["a"]], "entry 0"),
        ("model.vocab", {"a": 0}, "entry 0 is None"),
        ("model.dropout", 0.1, "dropout"),
        ("post_processor.single", [{"Sequence": {"id": "A", "type_id": 0}}], "special tokens around"),
        ("post_processor.pair", [{"Sequence": {"id": "A", "type_id": 7}}] * 2, "special tokens around"),
    ],
)
def test_broken_tokenizer_json(tmp_path, where, value, message):
    small.unigram().save(tmp_path)
    small.change(tmp_path, where, value)
    with pytest.raises(UserError, match=f"tokenizer.json.*({message})|{message}"):
        Tokenizer.load(tmp_path).encode("a")


def paths(value, trail=()):
    """Every place in a JSON value."""
    yield trail
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(inner, (*trail, key))


@pytest.mark.parametrize("kind", ["unigram", "roberta", "wordpiece"])
def test_any_part_may_be_anything(kind, tmp_path, capfd):
    """200 files with one part put out or replaced: opened, or one line that names the file."""
    small.KINDS[kind]().save(tmp_path)
    path = tmp_path / "tokenizer.json"
    whole = path.read_text(encoding="utf-8")
    places = [trail for trail in paths(json.loads(whole)) if trail and trail[:2] != ("model", "vocab")]
    places = [trail for trail in places if trail[:2] != ("model", "merges") or len(trail) < 3]
    places += [("model", "vocab")]
    r = random.Random(0)
    values = [None, 0, -1, 2**70, "", "x", [], {}, True, [[]], {"type": "Sequence"}, 1e308, "\ud800"]
    for _ in range(200):
        content = json.loads(whole)
        *folders, last = r.choice(places)
        inner = content
        for folder in folders:
            inner = inner[folder]
        if r.random() < 0.3:
            del inner[last]
        else:
            inner[last] = r.choice(values)
        path.write_text(json.dumps(content), encoding="utf-8")
        try:
            Tokenizer.load(tmp_path).encode("the dog 我 [MASK] <mask>", "b", specials=True)
        except UserError as error:
            assert "\n" not in str(error)
            assert str(path) in str(error) or "cannot" in str(error)


def test_a_table_of_replacements(tmp_path):
    """The precompiled table of a real model, agrees with the library's; a damaged one ends in an error."""
    pytest.importorskip("sentencepiece")
    source = small.t5()._kind
    pieces = [[token, score] for token, score in zip(source.tokens, source.scores)]
    rust = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": precompiled(source.charsmap),
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces},
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(rust), encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    for text in TEXTS[:3]:
        assert tokenizer.encode(text).tokens == [t for t in small.t5().encode(text).tokens if t != "</s>"]
        assert tokenizer.encode(text).offsets == small.t5().encode(text).offsets[:-1]
    r = random.Random(1)
    for _ in range(60):
        table = bytearray(source.charsmap)
        for _ in range(r.choice([1, 10, 1000])):
            table[r.randrange(4, len(table))] = r.randrange(256)
        rust["normalizer"] = precompiled(bytes(table))
        path.write_text(json.dumps(rust), encoding="utf-8")
        try:
            Tokenizer.load(tmp_path).encode("ﬁne ＡＢＣ e\u0301 ½ ①")
        except UserError as error:
            assert "\n" not in str(error)


def test_steps_that_multiply_text_are_refused(tmp_path):
    rust = tokenizers.Tokenizer(models.BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>"))
    rust.normalizer = normalizers.Sequence([normalizers.Replace("a", "a" * 16)] * 8)
    rust.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="normalizers: expected at most 1 steps that lengthen text, found more"):
        Tokenizer.load(tmp_path)


def test_only_known_splitting(tmp_path):
    rust = tokenizers.Tokenizer(models.BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="pretokenizers: expected steps of SentencePiece, found .*Whitespace"):
        Tokenizer.load(tmp_path)
