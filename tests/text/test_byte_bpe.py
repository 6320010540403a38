"""Byte-level BPE against one written in plain Python, `transformers`, and real vocabularies; its files and edits."""

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskplay.errors import UserError
from maskplay.text import Tokenizer
from maskplay.text.byte_bpe import CHARACTER
from text import small

MIXED = "Hello  world! Don't stop, they'll go: 3.14\n\n我爱北京。今天 天气 😀 e\u0301 naïve\t x \u3000 "

# The oracle


WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def reference(text: str, merges: list[tuple[str, str]]) -> list[str]:
    """GPT-2's BPE as its paper tells it: in every word, the earliest merge, everywhere, again and again."""
    ranks = {pair: i for i, pair in enumerate(merges)}
    found = []
    for word in WORD.findall(text):
        pieces = [CHARACTER[byte] for byte in word.encode()]
        while True:
            pairs = [pair for pair in zip(pieces, pieces[1:]) if pair in ranks]
            if not pairs:
                break
            first = min(pairs, key=ranks.__getitem__)
            joined, at = [], 0
            while at < len(pieces):
                size = 2 if tuple(pieces[at : at + 2]) == first else 1
                joined.append("".join(pieces[at : at + size]))
                at += size
            pieces = joined
        found += pieces
    return found


alphabet = st.sampled_from(
    [*"aeghinoprtyTD ", " the", " play", "ing", "'t", "'ll", "3.14", "我们", "今天天气", "。", "é", "😀", "\n", "_"]
)


@settings(deadline=None, max_examples=300)
@given(text=st.lists(alphabet, max_size=40).map("".join))
@example(text=MIXED)
def test_tokens_equal_the_reference(text):
    tokenizer = small.gpt2()
    assert tokenizer.encode(text).tokens == reference(text, small.merged()[1])


def test_the_reference_can_tell():
    merges = small.merged()[1]
    assert reference("playing", merges) != reference("playing", merges[:5]) != reference("playings", merges[:5])


@pytest.fixture(scope="module")
def real(data) -> Tokenizer:
    return Tokenizer.from_merges(data / "vocabs" / "gpt2-encoder.json", data / "vocabs" / "gpt2-vocab.bpe")


def test_the_vocabulary_of_gpt2(real):
    assert len(real) == 50257 and real.eos_id == real.bos_id == 50256 and real.unk_id is None
    assert real.encode("Hello world").ids == [15496, 995]  # as its authors' encoder.py has it
    assert real.encode(MIXED).tokens == reference(MIXED, list(real._kind.merges))
    assert real.decode(real.encode(MIXED).ids) == MIXED
    assert real.decode([*real.encode("a").ids, 50256]) == "a" and real.decode([50256], False) == "<|endoftext|>"


def test_a_part_of_a_character_points_to_it():
    encoding = small.gpt2().encode("x😀é")
    assert encoding.tokens == ["x", "ð", "Ł", "ĺ", "Ģ", "Ã©"]
    assert encoding.offsets == [(0, 1), (1, 2), (1, 2), (1, 2), (1, 2), (2, 3)]
    assert small.gpt2().decode(encoding.ids[:3]) == "x\ufffd"


def test_a_space_before_the_text():
    vocab, merges = small.merged()
    kind = small.gpt2()._kind
    tokenizer = Tokenizer(type(kind)(kind.tokens, kind.form, (), kind.merges, prefix_space=True))
    encoding = tokenizer.encode("the dog")
    assert encoding.tokens == ["Ġthe", "Ġdog"] and encoding.offsets == [(0, 3), (4, 7)]


# Beside transformers


@pytest.mark.parametrize("kind", ["gpt2", "roberta"])
def test_transformers_agrees(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = small.KINDS[kind]()
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (MIXED, "", "a", "我们 playing", "Don't 😀"):
        output = theirs(text, "playing 我", return_offsets_mapping=True)
        encoding = ours.encode(text, "playing 我")
        assert encoding.ids == output["input_ids"]
        if kind == "roberta":  # theirs are empty for spaces alone
            pairs = zip(encoding.parts, encoding.offsets, output["offset_mapping"])
            assert all(a == b or (text, "playing 我")[part or 0][slice(*a)].isspace() for part, a, b in pairs)
    if kind == "roberta":
        assert theirs("the <mask> dog")["input_ids"] == ours.encode("the <mask> dog", specials=True).ids
    theirs.save_pretrained(tmp_path / "back")
    back = Tokenizer.load(tmp_path / "back")
    assert back.encode(MIXED, "b") == ours.encode(MIXED, "b") and back.form.before == ours.form.before
    (tmp_path / "tokenizer.json").unlink()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)(MIXED)["input_ids"] == ours.encode(MIXED).ids


# Files


def test_three_ways_to_lie_in_a_folder(tmp_path):
    tokenizer = small.roberta().add(["机器学习", "Qq"])
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path) == tokenizer
    (tmp_path / "tokenizer.json").unlink()
    assert Tokenizer.load(tmp_path) == tokenizer == Tokenizer.load(tmp_path / "merges.txt")
    (tmp_path / "vocab.json").rename(tmp_path / "encoder.json")
    (tmp_path / "merges.txt").rename(tmp_path / "vocab.bpe")
    assert Tokenizer.load(tmp_path) == tokenizer
    assert Tokenizer.from_merges(tmp_path / "encoder.json", tmp_path / "vocab.bpe", "roberta") == tokenizer


def write(folder, vocab, merges):
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{m}\n" for m in merges), encoding="utf-8")


@pytest.mark.parametrize(
    "change, merges, message",
    [
        (
            {},
            ["Ġ t", "Ġ zz"],
            r"vocab.json: merge 2 \('Ġ' 'zz'\): 'zz' is not in the vocabulary; do these merges belong",
        ),
        ({}, ["Ġ t", "h"], "merges.txt, line 3: expected two tokens to merge"),
        ({}, ["a b c"], "merges.txt, line 2: expected two tokens"),
        ({"!": 7}, [], "vocab.json: expected ids 0 to 500, each once"),
        ({"!": True}, [], "vocab.json: expected ids 0 to 500, each once"),
        ({"new": 5000}, [], "each once; 'new' has 5000"),
        ({"": 501}, [], "token 501: expected a token"),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, merges, message):
    write(tmp_path, {**small.gpt2().vocab, **change}, merges)
    with pytest.raises(UserError, match=message):
        Tokenizer.load(tmp_path)


def test_added_tokens_with_impossible_numbers(tmp_path):
    write(tmp_path, small.gpt2().vocab, [])
    entries = {"1" * 5000: {"content": "zz"}, "²": {"content": "yy"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": entries}), encoding="utf-8")
    assert not {"zz", "yy"} & {*Tokenizer.load(tmp_path).vocab}


def test_a_vocabulary_without_bytes(tmp_path):
    with pytest.raises(UserError, match="a token for each of 256 bytes, 255 are missing"):
        Tokenizer.from_merges({"a": 0}, [])
    with pytest.raises(UserError, match="looks like BERT's WordPiece: open it with Tokenizer.from_vocab"):
        Tokenizer.from_merges(small.wordpiece().vocab, [])
    with pytest.raises(UserError, match="expected two files, or a dictionary and a list"):
        Tokenizer.from_merges({"a": 0}, tmp_path)
    with pytest.raises(UserError, match="form: expected one of bert, albert, roberta"):
        Tokenizer.from_merges({"a": 0}, [], form="bart")


@pytest.mark.parametrize("merges", [None, b"ab", ["a b"], ["ab"], [("a",)], [("a", "b", "c")], [(1, 2)], [3]])
def test_merges_are_pairs(merges):
    with pytest.raises(UserError, match="merges: expected a list of pairs|merge 1: expected two tokens to merge"):
        Tokenizer.from_merges(small.gpt2().vocab, merges)


@pytest.mark.parametrize(
    "where, value, message",
    [
        ("normalizer", {"type": "Lowercase"}, "expected GPT-2's byte-level BPE .*found normalizer Lowercase"),
        ("pre_tokenizer.use_regex", False, "expected GPT-2's byte-level BPE"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}]}, "found .* Sequence"),
        ("pre_tokenizer.add_prefix_space", 3, "add_prefix_space: expected true or false, found 3"),
        ("model.dropout", 0.5, "dropout"),
        ("model.merges", [["a"]], "merge 1: expected two tokens to merge"),
        ("model.merges", [["a", 5]], "merge 1: expected two tokens to merge"),
        ("model.merges", "a b", "expected a list of merges, found str"),
        ("model.vocab", [["a", 1.0]], "expected a vocabulary"),
        ("model.type", "WordLevel", "found WordLevel"),
        ("post_processor", {"type": "TemplateProcessing", "single": [{"A": 1}], "pair": []}, "special tokens around"),
        ("post_processor", {"type": "RobertaProcessing", "cls": ["<x>", 0], "sep": ["</s>", 2]}, "'<x>' is not in"),
        ("post_processor", {"type": "Sequence", "processors": 5}, "special tokens around"),
    ],
)
def test_broken_tokenizer_json(tmp_path, where, value, message):
    small.roberta().save(tmp_path)
    small.change(tmp_path, where, value)
    with pytest.raises(UserError, match=f"tokenizer.json.*({message})"):
        Tokenizer.load(tmp_path)


# Editing


def test_a_token_needs_its_parts():
    tokenizer = small.gpt2()
    ids = tokenizer.ids(["Ġplaying"])
    with pytest.raises(UserError, match=r"missing .* which they need; complete\(ids\) adds them"):
        tokenizer.keep([*range(256), 500, *ids])
    complete = tokenizer.complete(ids)
    kept = tokenizer.keep(complete)
    assert kept.encode(" playing").tokens == ["Ġplaying"] and len(kept) == len(complete) < 280
    assert kept.decode(kept.encode(MIXED).ids) == MIXED
