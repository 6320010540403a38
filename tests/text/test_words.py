"""Words before WordPiece: beside bert4keras' rule in plain Python, with jieba, with any segmenter."""

import json
import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskplay.errors import MissingExtra, UserError
from maskplay.text import Tokenizer
from maskplay.text.words import MANY, SEPARATORS, jieba
from text import reference, small

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def cleaned(text: str) -> str:
    """The text that the segmenter sees: BERT's cleaning and lower-casing, no room made for Chinese characters."""
    characters = ("".join(reference.clean(c)) for c in text)
    text = "".join(c if c == " " else c.strip(" ") for c in characters)
    text = unicodedata.normalize("NFD", "".join(c.lower() for c in text))
    return "".join(c for c in text if unicodedata.category(c) != "Mn")


def oracle(text: str, vocab: dict[str, int], segmenter) -> list[str]:
    """A word of the vocabulary is a token, any other is split as ever: the rule of WoBERT's tokenizer."""
    found = []
    for word in segmenter(cleaned(text)):
        found += [word] if word in vocab else reference.tokens(word, vocab, True)
    return found


letters = st.sampled_from(
    [
        *"aebdghilnpty ",
        "今天",
        "天气",
        "我们",
        "机器学习",
        "机器",
        "学习",
        "北京",
        "一",
        "，",
        "。",
        "É",
        "dog",
        "play",
        "\n",
    ]
)
texts = st.lists(letters, max_size=30).map("".join)


@settings(deadline=None, max_examples=200)
@given(text=texts)
@example(text="今天天气很好，我们 playing DOG é 机器学习人工")
def test_tokens_equal_the_rule(text):
    tokenizer = small.words()
    encoding = tokenizer.encode(text)
    assert encoding.tokens[1:-1] == oracle(text, tokenizer.vocab, small.longest_words)


def test_offsets():
    tokenizer = small.words()
    text = "Ｘ 今\u200b天天气 Playing 机器学习é"
    encoding = tokenizer.encode(text)
    found = [(token, text[a:b]) for token, (a, b) in zip(encoding.tokens, encoding.offsets)]
    assert found[1:-1] == [
        ("[UNK]", "Ｘ"),
        ("今天", "今\u200b天"),
        ("天气", "天气"),
        ("play", "Play"),
        ("##ing", "ing"),
        ("机器学习", "机器学习"),
        ("e", "é"),
    ]
    assert small.wordpiece().encode("今天").tokens == ["[CLS]", "今", "天", "[SEP]"]
    assert tokenizer.decode(tokenizer.encode("今天 playing").ids) == "今天playing"


def test_masks_and_added_tokens():
    tokenizer = small.words().add(["天我", "Qq"])
    text = "今天我们[MASK]qq，qqs 今天"
    assert tokenizer.encode(text, specials=True).tokens[1:-1] == [
        *("今", "天我", "们", "[MASK]", "Qq", "，"),
        *tokenizer.encode("qqs").tokens[1:-1],
        "今天",
    ]
    assert "[MASK]" not in tokenizer.encode(text).tokens
    assert tokenizer.keep(tokenizer.complete(tokenizer.ids(["天我"]))).encode("天我").tokens[1] == "天我"


def test_simplified_keeps_words():
    kept = small.words().simplified()
    words = small.words().ids(["天气", "机器学习"])
    assert set(words) <= set(kept) and not set(words) & set(small.wordpiece().simplified())


# Segmenters


@pytest.mark.parametrize("segmenter", [lambda text: None, lambda text: [1, 2], lambda text: 3])
def test_a_segmenter_that_gives_no_words(segmenter):
    tokenizer = Tokenizer.from_vocab([*SPECIALS, "a"], segmenter=segmenter)
    with pytest.raises(UserError, match="the segmenter: expected words that are the text when joined"):
        tokenizer.encode("a")


def test_a_segmenter_that_loses_text():
    tokenizer = Tokenizer.from_vocab([*SPECIALS, "a"], segmenter=lambda text: text.split())
    assert tokenizer.encode("a").tokens == ["[CLS]", "a", "[SEP]"]
    with pytest.raises(UserError, match="the segmenter: expected words that are the text when joined"):
        tokenizer.encode("a a")


def test_jieba_finds_the_words():
    pytest.importorskip("jieba")
    tokenizer = Tokenizer.from_vocab([*SPECIALS, *"今天气很好我们去北京", "我们", "北京", "天气"], segmenter=jieba)
    text = "我们去北京, 天气很好"
    encoding = tokenizer.encode(text)
    assert encoding.tokens[1:-1] == ["我们", "去", "北京", "[UNK]", "天气", "很", "好"]
    assert encoding.offsets[1:4] == [(0, 2), (2, 3), (3, 5)]


def test_without_jieba(monkeypatch):
    from maskplay.text import words

    words._jieba.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    tokenizer = Tokenizer.from_vocab([*SPECIALS, "a"], segmenter=jieba)
    with pytest.raises(MissingExtra, match=r"a vocabulary of Chinese words needs the extra 'words'"):
        tokenizer.encode("a")


def test_where_a_long_text_may_be_cut():
    package = pytest.importorskip("jieba")
    for character in SEPARATORS:
        assert character in package.lcut(f"天气{character}很好{character}x", HMM=False)
    tokenizer = Tokenizer.from_vocab([*SPECIALS, *"今天气很好", "天气"], segmenter=jieba)
    text = "天气很好，" * 300_000
    assert tokenizer.encode(text, max_length=32).tokens == tokenizer.encode(text[:200], max_length=32).tokens


# Which vocabularies are of words


def chinese_words() -> list[str]:
    return [chr(0x4E00 + i) + chr(0x4E01 + i) for i in range(MANY + 1)]


def test_a_vocabulary_of_words_is_recognised(tmp_path):
    pytest.importorskip("jieba")
    tokens = [*SPECIALS, *chinese_words(), "天气", "天", "气"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    assert Tokenizer.from_vocab(tokens).encode("天气").tokens[1] == "天气"
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("天气").tokens[1] == "天气"
    tokenizer.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved") == tokenizer
    (tmp_path / "saved" / "tokenizer.json").unlink()
    assert Tokenizer.load(tmp_path / "saved") == tokenizer
    few = tokenizer.keep(tokenizer.complete(tokenizer.ids(["天气"])))
    few.save(tmp_path / "few")
    assert Tokenizer.load(tmp_path / "few").encode("天气").tokens[1] == "天气"


def test_a_character_vocabulary_is_not(data):
    for name in ("bert-base-chinese", "roformer-char"):
        assert "Words" not in type(Tokenizer.from_vocab(data / "vocabs" / f"{name}-vocab.txt")._kind).__name__


def test_a_segmenter_of_ones_own_is_asked_for(tmp_path):
    tokenizer = small.words()
    tokenizer.save(tmp_path)
    with pytest.raises(UserError, match="saved with a segmenter 'longest_words' of your own: pass it"):
        Tokenizer.load(tmp_path)
    assert Tokenizer.load(tmp_path, segmenter=small.longest_words) == tokenizer
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    assert theirs("the dog")["input_ids"] == tokenizer.encode("the dog").ids


def test_a_segmenter_of_ours(tmp_path):
    import maskplay as mp

    tokenizer = Tokenizer.from_vocab([*small.words().vocab], segmenter=mp.words.Vocabulary({"天地": 3, "玄黄": 2}))
    tokenizer.save(tmp_path)
    with pytest.raises(UserError, match="saved with a segmenter 'Vocabulary' of your own: pass it"):
        Tokenizer.load(tmp_path)


def test_roformers_file(tmp_path):
    """It leaves the Chinese characters to its segmenter, and says so by its class alone."""
    pytest.importorskip("jieba")
    Tokenizer.from_vocab([*SPECIALS, *"今天气很好", "天气"]).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["normalizer"]["handle_chinese_chars"] = False
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match="handle_chinese_chars"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "RoFormerTokenizer"}')
    assert Tokenizer.load(tmp_path).encode("天气很好").tokens == ["[CLS]", "天气", "很", "好", "[SEP]"]
