"""What holds for every kind of tokenizer: offsets, truncation, special tokens, keep, add, files."""

import copy
import pickle
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskplay.errors import UserError
from maskplay.text import Tokenizer
from maskplay.text.byte_bpe import BYTE
from maskplay.text.merges import BYTE as BYTE_TOKEN
from text import small
from text.reference import agreed, truncate, words

kinds = pytest.mark.parametrize("kind", small.KINDS)
phrases = st.sampled_from(
    ["the dog", "今天天气", "机器学习", "playing", " ", "  ", "ﬁ", "½", "①", "ＡＢＣ", "e\u0301", "😀", "한"]
)
names = st.sampled_from(
    ["[MASK]", "<mask>", "<s>", "</s>", "[CLS]", "<pad>", "<unk>", "<extra_id_0>", "<|endoftext|>", "<0x41>"]
)
# SentencePiece reads its own mark for a space as a space.
characters = st.characters(blacklist_categories=["Cs", "Cn"], blacklist_characters="▁").filter(agreed)
texts = st.lists(st.one_of(phrases, characters, st.sampled_from("abdegty 天气我.,'\n")), max_size=25).map("".join)
hostile = st.lists(st.one_of(phrases, names, st.text(st.characters(), max_size=5)), max_size=12).map("".join)


def plain(encoding):
    return [token for token, part in zip(encoding.tokens, encoding.parts) if part is not None]


def spans(encoding):
    return [span for span, part in zip(encoding.offsets, encoding.parts) if part is not None]


# Offsets


def surface(tokenizer: Tokenizer, token: str) -> bytes:
    """What a token says it stands for."""
    if tokenizer._kind.name == "byte-level BPE":
        return bytes(BYTE[c] for c in token)
    if byte := BYTE_TOKEN.fullmatch(token):
        return bytes([int(byte[1], 16)])
    return token.removeprefix("##").replace("▁", " ").encode()


def normal(tokenizer: Tokenizer, text: str) -> bytes:
    """A piece of text as the tokenizer's kind normalizes it."""
    if tokenizer._kind.name == "WordPiece":
        return "".join(words(text, tokenizer.lowercase)).encode()
    if tokenizer.form.saved_as == "AlbertTokenizer":
        text = unicodedata.normalize("NFKD", text.replace("``", '"').replace("''", '"'))
        text = "".join(c for c in text if not unicodedata.combining(c)).lower()
    if tokenizer.form.saved_as in ("AlbertTokenizer", "T5Tokenizer"):
        text = unicodedata.normalize("NFKC", text)
    return text.encode()


def stands_for(said: bytes, there: bytes, shared: bool) -> bool:
    """Spaces aside, which belong to no token's span; a part of what is there if other tokens share it."""
    return said.strip(b" ") in there if shared else said.decode().strip() == there.decode().strip()


@kinds
def test_offsets_give_back_the_token(kind):
    """A token's span normalizes to the token; where two tokens share a character, it holds each of them."""
    tokenizer = small.KINDS[kind]()

    @settings(max_examples=150, deadline=None)
    @given(text=texts)
    @example(text="Hello  ﬁne ½ ＡＢＣ 我爱今天天气 😀 e\u0301 \u3000x\n")
    @example(text="  dogs 한국\u200b playing")
    def check(text):
        encoding = tokenizer.encode(text)
        tokens, found = plain(encoding), spans(encoding)
        for k, (token, (start, end)) in enumerate(zip(tokens, found)):
            assert 0 <= start <= end <= len(text)
            assert k == 0 or (start >= found[k - 1][0] and end >= found[k - 1][1])
            assert text[start:end].isspace() or text[start:end] == text[start:end].strip()
            if token == tokenizer.form.unk:
                assert start < end
                continue
            shared = k and found[k - 1][1] > start or k + 1 < len(found) and found[k + 1][0] < end
            assert stands_for(surface(tokenizer, token), normal(tokenizer, text[start:end]), bool(shared))

    check()


# Special tokens and truncation


@kinds
def test_no_string_breaks_it_or_makes_a_special_token(kind):
    tokenizer = small.KINDS[kind]()
    special = {tokenizer.vocab[token] for token in tokenizer.form.specials} - {tokenizer.unk_id}

    @settings(max_examples=150, deadline=None)
    @given(text=hostile, pair=st.none() | hostile, length=st.none() | st.integers(5, 12), specials=st.booleans())
    @example(text="a\ud800<mask>", pair="\udfff", length=None, specials=True)
    def check(text, pair, length, specials):
        encoding = tokenizer.encode(text, pair, length, specials)
        sizes = {0: len(text), 1: len(pair or "")}
        inner = [i for i, part in zip(encoding.ids, encoding.parts) if part is not None]
        assert all(0 <= a <= b <= sizes[p] for (a, b), p in zip(encoding.offsets, encoding.parts) if p is not None)
        assert length is None or len(encoding) <= length
        assert specials or not special & set(inner)
        assert {tokenizer.vocab[token] for token in tokenizer.form.gaps} >= special & set(inner)
        tokenizer.decode(encoding.ids, skip_specials=False)

    check()


@pytest.mark.parametrize("kind", [kind for kind in small.KINDS if kind not in ("gpt2", "llama", "llama2c")])
def test_gaps_on_request(kind):
    tokenizer = small.KINDS[kind]()
    gap = tokenizer.form.gaps[0]
    text = f"the {gap} dog {gap}"
    encoding = tokenizer.encode(text, specials=True)
    assert encoding.tokens.count(gap) == 2
    assert [text[a:b] for token, (a, b) in zip(encoding.tokens, encoding.offsets) if token == gap] == [gap, gap]
    assert gap not in tokenizer.encode(text).tokens


@kinds
def test_frames(kind):
    tokenizer = small.KINDS[kind]()
    a, b = plain(tokenizer.encode("the dog")), plain(tokenizer.encode("我们"))
    frames = {
        "gpt2": ([*a], [*a, *b]),
        "roberta": (["<s>", *a, "</s>"], ["<s>", *a, "</s>", "</s>", *b, "</s>"]),
        "t5": ([*a, "</s>"], [*a, "</s>", *b, "</s>"]),
        "unigram": ([*a, "</s>"], [*a, "</s>", *b, "</s>"]),
        "llama": (["<s>", *a], ["<s>", *a, "<s>", *b]),
        "llama2c": (["<s>", *a], ["<s>", *a, "<s>", *b]),
    }
    single, pair = frames.get(kind, (["[CLS]", *a, "[SEP]"], ["[CLS]", *a, "[SEP]", *b, "[SEP]"]))
    assert tokenizer.encode("the dog").tokens == single and tokenizer.encode("the dog", "我们").tokens == pair
    segments = tokenizer.encode("the dog", "我们").segments
    assert set(segments) == ({0} if kind in ("gpt2", "roberta", "t5", "unigram") else {0, 1})
    assert segments == sorted(segments) and not any(tokenizer.encode("the dog").segments)


@kinds
def test_truncation_equals_cutting_the_full_encoding(kind):
    tokenizer = small.KINDS[kind]()

    @settings(max_examples=60, deadline=None)
    @given(a=texts, b=st.none() | texts, repeat=st.integers(1, 40), room=st.integers(1, 12))
    @example(a="the dog ran, 我们。 " * 5, b=None, repeat=40, room=3)
    def check(a, b, repeat, room):
        a = a * repeat
        whole = tokenizer.encode(a)
        kept_a, kept_b = truncate(plain(whole), plain(tokenizer.encode(b or "")), room)
        form = tokenizer.form
        around = len(form.before) + len(form.after) + (0 if b is None else len(form.between))
        encoding = tokenizer.encode(a, b, max_length=room + around)
        parts = {p: [t for t, q in zip(encoding.tokens, encoding.parts) if p == q] for p in (0, 1)}
        assert (parts[0], parts[1]) == (kept_a, kept_b)
        assert spans(encoding)[: len(kept_a)] == spans(whole)[: len(kept_a)]

    check()


def test_special_tokens_that_are_not_there():
    tokenizer = small.gpt2()
    assert tokenizer.mask_id is tokenizer.pad_id is tokenizer.cls_id is None and tokenizer.special("eos") == 500
    with pytest.raises(UserError, match="no mask token; its special tokens: bos <.endoftext.>, eos <.endoftext.>"):
        tokenizer.special("mask")
    assert (small.t5().pad_id, small.t5().eos_id, small.t5().bos_id) == (0, 1, None)
    assert small.roberta().cls_id == small.roberta().bos_id == 0
    assert small.albert().special("mask") == 4 and small.llama().bos_id == 1


# Editing


@kinds
def test_keep_changes_no_text_whose_tokens_are_all_kept(kind):
    tokenizer = small.KINDS[kind]()

    @settings(max_examples=80, deadline=None)
    @given(st.sets(st.integers(0, len(tokenizer) - 1)), st.lists(texts, min_size=1, max_size=4), st.randoms())
    def check(ids, samples, random):
        for sample in samples[1:]:
            ids |= set(tokenizer.encode(sample).ids)
        ids = tokenizer.complete(sorted(ids))
        if kind != "llama2c":
            random.shuffle(ids)
        else:
            ids.sort()
        kept = tokenizer.keep(ids)
        assert kept.tokens(range(len(kept))) == tokenizer.tokens(ids)
        for sample in samples:
            before, after = tokenizer.encode(sample), kept.encode(sample)
            if set(before.ids) <= set(ids):
                assert after.tokens == before.tokens and after.offsets == before.offsets
            assert kept.vocab.keys() >= set(after.tokens)

    check()


@kinds
def test_keep_says_what_is_missing(kind):
    tokenizer = small.KINDS[kind]()
    whole = tokenizer.complete(range(len(tokenizer)))
    assert whole == [*range(len(tokenizer))]
    for wrong, message in (([*whole, 5], "already"), ([len(whole)], "token id"), ([-1], "token id"), ([], "missing")):
        with pytest.raises(UserError, match=message):
            tokenizer.keep(wrong)
    assert tokenizer.keep(tokenizer.complete([])).encode("天 dog").ids


@pytest.mark.parametrize("kind", [kind for kind in small.KINDS if kind != "llama2c"])
def test_added_tokens(kind, tmp_path):
    tokenizer = small.KINDS[kind]().add(["自然语言", "Qq"])
    text = "学自然语言, Qq 自然"
    encoding = tokenizer.encode(text)
    found = {token: text[a:b] for token, (a, b) in zip(encoding.tokens, encoding.offsets)}
    assert found["自然语言"] == "自然语言" and found["Qq"] == "Qq"
    assert encoding.ids.count(len(tokenizer) - 2) == 1
    small_one = tokenizer.keep(tokenizer.complete([*encoding.ids]))
    assert small_one.encode(text).tokens == encoding.tokens
    if kind != "words":  # its segmenter is a function of ours
        small_one.save(tmp_path)
        assert Tokenizer.load(tmp_path) == small_one and Tokenizer.load(tmp_path).encode(text).tokens == encoding.tokens
    for wrong in ("", " ", "a b", "the" if kind == "wordpiece" else tokenizer.tokens([len(tokenizer) - 1])[0]):
        with pytest.raises(UserError, match="cannot add"):
            tokenizer.add([wrong])
    with pytest.raises(UserError, match="cannot add"):
        tokenizer.add(["新词", "新词"])


# Files and copies


@kinds
def test_save_load_copy(kind, tmp_path):
    tokenizer = small.KINDS[kind]()
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path, segmenter=small.longest_words if kind == "words" else None)
    for other in (again, pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert other == tokenizer and hash(other) == hash(tokenizer) and repr(other) == repr(tokenizer)
        assert other.encode("the dog 今天 ½", "b") == tokenizer.encode("the dog 今天 ½", "b")
    shorter = tokenizer.keep(sorted(tokenizer.complete([5])))
    assert tokenizer != shorter and Tokenizer.lies_in(tmp_path)


@pytest.mark.parametrize("kind", ["gpt2", "roberta", "llama", "llama2c"])
def test_what_was_encoded_comes_back(kind):
    """Bytes lose nothing."""
    tokenizer = small.KINDS[kind]()

    @settings(max_examples=200, deadline=None)
    @given(text=st.text(st.characters(blacklist_categories=["Cs"]).filter(lambda c: c != "▁" or "gpt" in kind)))
    @example(text=" \x00\xff\u0100 \u200b ")
    def check(text):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text

    check()
