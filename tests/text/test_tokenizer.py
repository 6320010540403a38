"""The tokenizer against a WordPiece written in plain Python, on random Unicode; edits, limits."""

import copy
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras import ops

from maskplay.errors import UserError
from maskplay.text import Tokenizer
from maskplay.text.wordpiece import IDEOGRAPHS, SEPARATORS
from text import reference

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "我 爱 北 京 a ##a b ##b ab ##ab play ##ing é K . , [ ] ##中 mask MASK ᄒ ##ᅡ ##ᆫ σ ##σ の ##の 。 i İ".split()
TINY = [*SPECIALS, *WORDS]
MIXED = "Hello, wOrld! Ünïcode e\u0301 我爱北京天安门，3.14 don't [MASK] [SEP] naïve 한국 ﬁ ΣΑΣ\u200b\t\u3000x\ufffdy😀"

cased = Tokenizer.from_vocab(TINY, lowercase=False)
uncased = Tokenizer.from_vocab(TINY)

letters = st.one_of(
    st.sampled_from("aAbBpPlayingéÉÅ我爱北京中の.,[]#-_ \t\u3000\u200b\u0301İΣσς한\x00\x1c\u2028😀"),
    st.characters(blacklist_categories=["Cs", "Cn"]).filter(reference.agreed),
)
texts = st.lists(letters, max_size=60).map("".join)
any_string = st.text(st.characters(), max_size=60)  # lone surrogates and unassigned characters included


def plain(encoding):
    return [token for token, part in zip(encoding.tokens, encoding.parts) if part is not None]


def vocabulary(data: Path, name: str) -> Tokenizer:
    return Tokenizer.from_vocab(data / "vocabs" / f"{name}-vocab.txt", lowercase="-cased" not in name)


# The pieces


def test_ids_of_a_dictionary_count_and_not_its_order() -> None:
    ids = {token: i for i, token in enumerate(TINY)}
    assert Tokenizer.from_vocab(dict(reversed(ids.items()))).vocab == uncased.vocab == ids


@settings(deadline=None)
@given(text=texts)
@example(text=MIXED)
@example(text="a" * 100)
@example(text="a" * 101)
@example(text="aé" * 50)
def test_tokens_equal_the_reference(text):
    for tokenizer in (cased, uncased):
        encoding = tokenizer.encode(text)
        assert plain(encoding) == reference.tokens(text, tokenizer.vocab, tokenizer.lowercase)
        assert tokenizer.ids(encoding.tokens) == encoding.ids


@pytest.mark.parametrize("name", ["bert-base-chinese", "bert-base-uncased", "bert-base-cased"])
def test_tokens_equal_the_reference_with_real_vocabularies(data, name):
    tokenizer = vocabulary(data, name)

    @settings(max_examples=60, deadline=None)
    @given(text=texts)
    @example(text=MIXED)
    def agree(text):
        assert plain(tokenizer.encode(text)) == reference.tokens(text, tokenizer.vocab, tokenizer.lowercase)

    agree()


def test_the_reference_can_tell():
    """A control: the oracle notices another case, another vocabulary, another text."""
    assert plain(cased.encode("Play")) != reference.tokens("Play", uncased.vocab, True)
    assert reference.tokens("play", {}, True) == ["[UNK]"]
    assert reference.tokens("ab", dict.fromkeys(["a", "##b"]), True) == ["a", "##b"]


# The offsets


def check_offsets(tokenizer, text, encoding):
    """Spans are in range, in order and apart (pieces of one decomposed character share it), and hold their token."""
    last = (0, 0)
    for (start, end), token in list(zip(encoding.offsets, encoding.tokens))[1:-1]:
        assert 0 <= start < end <= len(text)
        assert start >= last[1] or (start, end) == last and end - start == 1
        last = (start, end)
        if token != "[UNK]":
            normal = "".join(reference.words(text[start:end], tokenizer.lowercase))
            piece = token.removeprefix("##") if token != "##" else token
            assert piece == normal or piece in normal and end - start == 1


@settings(deadline=None)
@given(text=texts)
@example(text=MIXED)
def test_offsets_are_ordered_and_give_back_the_token(text):
    for tokenizer in (cased, uncased):
        check_offsets(tokenizer, text, tokenizer.encode(text))


def test_offsets_with_a_real_vocabulary(data):
    tokenizer = vocabulary(data, "bert-base-chinese")

    @settings(max_examples=60, deadline=None)
    @given(text=texts)
    @example(text=MIXED)
    def check(text):
        check_offsets(tokenizer, text, tokenizer.encode(text))

    check()


def test_offsets_count_characters_of_the_original():
    text = "😀 e\u0301A爱\u200b爱 한"
    encoding = uncased.encode(text)
    assert [(token, text[start:end]) for token, (start, end) in zip(encoding.tokens, encoding.offsets)] == [
        ("[CLS]", ""),
        ("[UNK]", "😀"),
        ("[UNK]", "e\u0301A"),
        ("爱", "爱"),
        ("爱", "爱"),
        ("ᄒ", "한"),
        ("##ᅡ", "한"),
        ("##ᆫ", "한"),
        ("[SEP]", ""),
    ]


# Special tokens


def test_text_cannot_produce_special_tokens():
    text = "[MASK] [CLS][SEP] [PAD] [unk] [UNK]"
    special = {cased.pad_id, cased.cls_id, cased.sep_id, cased.mask_id}
    for tokenizer in (cased, uncased):
        assert not special & set(tokenizer.encode(text).ids[1:-1])


def test_a_mask_on_request():
    encoding = uncased.encode("我[MASK][MASK]爱[mask] [SEP]", specials=True)
    assert encoding.tokens[:5] == ["[CLS]", "我", "[MASK]", "[MASK]", "爱"]
    assert encoding.tokens.count("[MASK]") == 2 and encoding.tokens.count("[SEP]") == 1
    assert encoding.offsets[2:4] == [(1, 7), (7, 13)]
    assert encoding.parts[2] == 0


def test_specials_are_decided_by_each_call():
    """Calls from many threads never see each other's choice."""

    def masks(specials):
        return {uncased.encode("我[MASK]爱", specials=specials).ids.count(uncased.mask_id) for _ in range(50)}

    with ThreadPoolExecutor(8) as pool:
        wanted = [True, False] * 8
        assert list(pool.map(masks, wanted)) == [{1} if w else {0} for w in wanted]


# Pairs and truncation


def test_pairs():
    encoding = uncased.encode("我爱", "北 京")
    assert encoding.tokens == ["[CLS]", "我", "爱", "[SEP]", "北", "京", "[SEP]"]
    assert encoding.segments == [0, 0, 0, 0, 1, 1, 1]
    assert encoding.parts == [None, 0, 0, None, 1, 1, None]
    assert encoding.offsets == [(0, 0), (0, 1), (1, 2), (0, 0), (0, 1), (2, 3), (0, 0)]
    assert len(encoding) == 7


def test_batches_equal_single_calls_and_pairs_may_be_missing():
    firsts, seconds = ["我", "ab" * 30, ""], ["爱", None, "a b"]
    batch = uncased.encode_batch(firsts, seconds, max_length=6)
    assert batch == [uncased.encode(a, b, max_length=6) for a, b in zip(firsts, seconds)]
    assert uncased.encode_batch([]) == []


@settings(deadline=None)
@given(a=texts, b=st.none() | texts, repeat=st.integers(1, 40), room=st.integers(0, 12))
def test_truncation_equals_cutting_the_full_encoding(a, b, repeat, room):
    a = a * repeat
    full_a, full_b = (plain(uncased.encode(text or "")) for text in (a, b))
    kept_a, kept_b = reference.truncate(full_a, full_b, room)
    encoding = uncased.encode(a, b, max_length=room + (2 if b is None else 3))
    parts = {p: [t for t, q in zip(encoding.tokens, encoding.parts) if p == q] for p in (0, 1)}
    assert (parts[0], parts[1]) == (kept_a, kept_b)
    whole = uncased.encode(a)
    assert encoding.offsets[1 : 1 + len(kept_a)] == whole.offsets[1 : 1 + len(kept_a)]


@settings(deadline=None)
@given(text=texts, repeat=st.integers(5, 60), specials=st.booleans(), length=st.integers(2, 9))
def test_reading_only_the_beginning_changes_nothing(text, repeat, specials, length):
    tokenizer = uncased.add(["爱北", "a.b", "pl=y"])
    text = (text + "爱北 a.b pl≠y[MASK]a") * repeat
    whole = tokenizer.encode(text, specials=specials)
    cut = tokenizer.encode(text, max_length=length, specials=specials)
    assert cut.ids[:-1] == whole.ids[: length - 1] and cut.offsets[:-1] == whole.offsets[: length - 1]


def test_separators_always_stand_alone():
    """What the cut relies on: each of them ends a word, whatever follows, and Rust does not take it for a letter."""
    for character in [*SEPARATORS, *map(chr, range(0x3400, 0x4DC0, 97)), *map(chr, range(0x4E00, 0xA000, 997))]:
        for tokenizer in (cased, uncased):
            assert tokenizer._kind.words(f"x{character}x") in (["x", "x"], ["x", character, "x"])
    assert set("\u3400\u4dbf\u4e00\u9fff") <= set(IDEOGRAPHS)


def test_a_long_text_costs_little():
    for text in ("我爱北京，" * 1_000_000, "play ing, " * 500_000, "我" * 5_000_000):
        start = time.perf_counter()
        assert len(uncased.encode(text, max_length=128)) == 128
        assert time.perf_counter() - start < 0.5


def test_a_long_text_without_words():
    assert uncased.encode(" " * 100_000, max_length=8).ids == [uncased.cls_id, uncased.sep_id]
    encoding = uncased.encode("a" * 100_000 + " 我", max_length=8)
    assert encoding.tokens == ["[CLS]", "[UNK]", "我", "[SEP]"] and encoding.offsets[1] == (0, 100_000)


@pytest.mark.parametrize("length, pair", [(1, None), (0, None), (-1, None), (2, "a"), (True, None), (2.5, None)])
def test_no_room_for_the_special_tokens(length, pair):
    with pytest.raises(UserError, match="max_length: expected at least"):
        uncased.encode("a", pair, max_length=length)


@settings(deadline=None)
@given(text=any_string, pair=st.none() | any_string, length=st.none() | st.integers(3, 9), specials=st.booleans())
@example(text="a\ud800b", pair="\udfff", length=None, specials=True)
def test_no_string_breaks_it(text, pair, length, specials):
    """Rust's panics are no Exceptions; none may escape, and every offset stays in the text."""
    encoding = uncased.encode(text, pair, length, specials)
    sizes = {0: len(text), 1: len(pair or "")}
    assert all(0 <= a < b <= sizes[p] for (a, b), p in zip(encoding.offsets, encoding.parts) if p is not None)


def test_what_is_not_text():
    with pytest.raises(UserError, match="text 1: expected a string, found int"):
        uncased.encode_batch(["a", 3])
    with pytest.raises(UserError, match="expected a list of texts"):
        uncased.encode_batch("a")
    with pytest.raises(UserError, match="as many pairs, found 2 and 1"):
        uncased.encode_batch(["a", "b"], ["a"])
    with pytest.raises(UserError, match="as many pairs, found 2 and a text"):
        uncased.encode_batch(["a", "b"], "ab")
    with pytest.raises(UserError, match="pair 0: expected a string, found int"):
        uncased.encode("a", 3)
    for use in (uncased.encode_batch, uncased.split, uncased.ids, uncased.add):
        for odd in ("play", b"play", None):  # a text is no list of its characters
            with pytest.raises(UserError, match="expected a list of (texts|tokens), found"):
                use(odd)
    assert len(uncased.encode_batch(text for text in ["a"])) == 1
    for make, told in (
        (lambda: Tokenizer.from_characters(["a", 3], 100), "text 1: expected a string, found int"),
        (lambda: Tokenizer.from_characters([], "100"), "max_size: expected a whole number"),
        (lambda: Tokenizer.from_vocab(None), "from_vocab: expected a file or a list of tokens, found a NoneType"),
        (lambda: Tokenizer.from_vocab(SPECIALS, segmenter="jieba"), "segmenter: expected a function"),
        (lambda: Tokenizer.from_vocab({"[PAD]": 0, "a": 2}), "vocabulary: expected ids 0 to 1, each once; 'a' has 2"),
    ):
        with pytest.raises(UserError, match=told):
            make()


def test_numpys_numbers_are_lengths_and_ids():
    assert uncased.encode("a b c", max_length=np.int64(3)) == uncased.encode("a b c", max_length=3)
    assert uncased.keep(iter(np.arange(len(uncased)))) == uncased


# Decoding


@pytest.mark.parametrize(
    "text, back",
    [
        ("我爱 Playing，", "我爱playing，"),
        ("don't (really) stop: it's 3.14% of $5, well-known!", None),
        ("see https://example or a/b, c_d", None),
        ("at 10:30, 14 of 1,000", None),
        ("「你好」，世界。", None),
    ],
)
def test_decode_gives_readable_text(data, text, back):
    tokenizer = vocabulary(data, "bert-base-chinese")
    assert tokenizer.decode(tokenizer.encode(text).ids) == (text if back is None else back)


def test_decode_and_special_tokens():
    encoding = uncased.encode("我[MASK]zz爱", specials=True)
    assert uncased.decode(encoding.ids) == "我[UNK]爱"
    assert uncased.decode(encoding.ids, skip_specials=False) == "[CLS]我[MASK] [UNK]爱[SEP]"


def test_decode_takes_a_backends_numbers():
    ids = uncased.encode("我爱北京").ids
    for some in (np.array(ids), ops.convert_to_tensor(ids), iter(ids)):
        assert uncased.decode(some) == uncased.decode(ids) == "我爱北京"
    for wrong in ([2.7, 5.0], np.array([2.5]), ["我"]):
        with pytest.raises(UserError, match="token ids: expected integers, found"):
            uncased.decode(wrong)


def test_ids_and_tokens():
    assert uncased.tokens([4, 5]) == ["[MASK]", "我"] and uncased.ids(["我", "##a"]) == [5, 10]
    assert len(uncased) == uncased.vocab_size == len(TINY) and list(uncased.vocab) == TINY
    assert uncased.tokens([uncased.pad_id, uncased.unk_id, uncased.cls_id, uncased.sep_id, uncased.mask_id]) == SPECIALS
    for wrong in (-1, len(TINY)):
        with pytest.raises(UserError, match=f"token id {wrong}: the vocabulary has ids 0 to"):
            uncased.tokens([wrong])
    with pytest.raises(UserError, match="'zz' is not a token"):
        uncased.ids(["zz"])


# Editing


def test_keep_renumbers():
    ids = [4, 3, 2, 1, 0, *range(20, 5, -1)]
    small = cased.keep(ids)
    assert list(small.vocab) == cased.tokens(ids) and not small.lowercase
    assert small.encode("爱K").tokens == ["[CLS]", "爱", "K", "[SEP]"] and len(cased) == len(TINY)
    for wrong, message in (([0, 1, 2, 3], "missing \\[MASK\\]"), ([*range(6), 5], "already"), ([99], "token id 99")):
        with pytest.raises(UserError, match=message):
            cased.keep(wrong)


def test_simplified_leaves_out_what_cannot_occur():
    kept = uncased.add(["爱北"]).simplified()
    out = set(range(len(TINY) + 1)) - set(kept)
    assert {TINY[i] for i in out} == {"##中", "##の", "##ᅡ", "##ᆫ"} and kept == sorted(kept)


def test_simplified_changes_no_chinese_text(data):
    tokenizer = vocabulary(data, "bert-base-chinese")
    small = tokenizer.keep(tokenizer.simplified())
    assert 12_000 < len(small) < 14_000
    text = "自然语言处理（NLP）是人工智能的一个分支，playing 3.14！"
    assert small.encode(text).tokens == tokenizer.encode(text).tokens


def test_added_tokens_match_as_a_whole():
    tokenizer = uncased.add(["北京", "Play", "GPT京"])
    text = "我爱北京PLAY，playing gpt京 北\u200b京 xPlay"
    encoding = tokenizer.encode(text)
    found = [(token, text[a:b]) for token, (a, b) in zip(encoding.tokens, encoding.offsets)]
    assert found[3:5] == [("北京", "北京"), ("Play", "PLAY")]
    assert found[6:10] == [("play", "play"), ("##ing", "ing"), ("GPT京", "gpt京"), ("北京", "北\u200b京")]
    assert encoding.ids[3] == len(TINY) and found[10] == ("[UNK]", "xPlay")
    assert tokenizer.decode(encoding.ids[3:5]) == "北京Play"
    assert uncased.encode("北京").tokens == ["[CLS]", "北", "京", "[SEP]"]  # the old one is as it was


def test_added_tokens_survive_edits_and_files(tmp_path):
    tokenizer = uncased.add(["北京"]).add(["爱北"])
    assert tokenizer.encode("爱北京").tokens == ["[CLS]", "爱北", "京", "[SEP]"]
    small = tokenizer.keep([*range(9), len(TINY)])
    small.save(tmp_path)
    for again in (small, Tokenizer.load(tmp_path), pickle.loads(pickle.dumps(small)), copy.deepcopy(small)):
        assert again.encode("爱北京").tokens == ["[CLS]", "爱", "北京", "[SEP]"] and again == small


@pytest.mark.parametrize("token", ["", " ", "a b", "\u200b", "##x", "我", "[MASK]"])
def test_what_cannot_be_added(token):
    with pytest.raises(UserError, match="cannot add"):
        uncased.add([token])
    with pytest.raises(UserError, match="already"):
        uncased.add(["新词", "新词"])


def test_a_vocabulary_of_characters():
    tokenizer = Tokenizer.from_characters(["山高水长。山高！", "É я高 \u200b\u3000😀"], max_size=400)
    assert list(tokenizer.vocab)[:5] == SPECIALS and tokenizer.lowercase
    rest = list(tokenizer.vocab)[5 + 72 :]
    assert rest[:2] == ["高", "山"] and set(rest) == {*"高山水长。！я😀", "##я", "##😀"}
    encoding = tokenizer.encode("Hello World2 яя 山。")
    assert tokenizer.unk_id not in encoding.ids and tokenizer.decode(encoding.ids) == "hello world2 яя山。"
    assert len(Tokenizer.from_characters(["山高水长山"], max_size=78)) == 78
    assert list(Tokenizer.from_characters(["高水山长山"], max_size=79).vocab)[77:] == ["山", "水"]
    with pytest.raises(UserError, match="max_size: expected at least 77"):
        Tokenizer.from_characters(["山"], max_size=76)


def test_transformers_agrees(data, tmp_path):
    transformers = pytest.importorskip("transformers")
    for name in ("bert-base-chinese", "bert-base-cased"):
        ours = vocabulary(data, name).add(["机器学习", "Transformer"])
        folder = tmp_path / name
        ours.save(folder)
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        for text in (MIXED.replace("[MASK] [SEP]", ""), "我爱机器学习GPT，transformer Transformers", "", "İs ΑΣ"):
            output = theirs(text, "playing 我", return_offsets_mapping=True)
            encoding = ours.encode(text, "playing 我")
            assert encoding.ids == output["input_ids"] and encoding.segments == output["token_type_ids"]
            assert encoding.offsets == output["offset_mapping"]
        assert theirs("我[MASK]爱")["input_ids"] == ours.encode("我[MASK]爱", specials=True).ids
        theirs.save_pretrained(tmp_path / "back")
        assert Tokenizer.load(tmp_path / "back") == ours
        fast = transformers.BertTokenizerFast.from_pretrained(folder)
        assert fast("我爱 Playing")["input_ids"] == ours.encode("我爱 Playing").ids
