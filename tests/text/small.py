"""A small tokenizer of every kind, trained or built in a second, for the tests of what holds for all of them."""

import io
import json
import struct
import tempfile
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from maskplay.text import Tokenizer
from maskplay.text.merges import BYTES

CORPUS = (
    """
Once upon a time there was a little girl who liked to play outside in the park with her dog.
The dog ran after the ball, and the girl ran after the dog; they played until it was dark.
"Don't run so fast!" said the girl, and they'd laughed together: 3.14, 42 and 1,000 times.
今天天气很好，我们去公园玩。小女孩喜欢和她的狗一起跑步。
我们今天去北京，明天去上海，后天回家。天气预报说明天有雨。
机器学习是人工智能的一个分支，自然语言处理也是。
Playing with words is fun, playing with numbers is fun too, playing alone is not.
été naïve café über größer — mixed 中文 and English text, again and again.
""".strip().split("\n")
    * 12
)


def model(**options) -> bytes:
    """A SentencePiece model trained on the corpus."""
    sentencepiece = pytest.importorskip("sentencepiece")
    out = io.BytesIO()
    settings = {"vocab_size": 300, "hard_vocab_limit": False, "normalization_rule_name": "nfkc", "minloglevel": 2}
    settings |= {"character_coverage": 1.0, "num_threads": 1} | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=out, **settings)
    return out.getvalue()


def opened(content: bytes, name: str, **options) -> Tokenizer:
    """A tokenizer from the bytes of a model file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return Tokenizer.from_sentencepiece(path, **options)


ALBERT = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
LLAMA = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 520, "normalization_rule_name": "identity"}
LLAMA |= {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "split_digits": True}


@cache
def albert() -> Tokenizer:
    return opened(model(**ALBERT), "spiece.model")


@cache
def t5() -> Tokenizer:
    return opened(model(**T5), "spiece.model", sentinels=10)


@cache
def llama() -> Tokenizer:
    return opened(model(**LLAMA), "tokenizer.model")


@cache
def merged() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-level vocabulary and merges, trained with `tokenizers`."""
    rust = tokenizers.Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    rust.train_from_iterator(CORPUS, trainer)
    found = json.loads(rust.to_str())["model"]
    return found["vocab"], [tuple(pair) for pair in found["merges"]]


@cache
def gpt2() -> Tokenizer:
    vocab, merges = merged()
    return Tokenizer.from_merges({**vocab, "<|endoftext|>": len(vocab)}, merges)


@cache
def roberta() -> Tokenizer:
    vocab, merges = merged()
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(vocab, key=vocab.__getitem__), "<mask>"]
    return Tokenizer.from_merges({token: i for i, token in enumerate(tokens)}, merges)


@cache
def unigram() -> Tokenizer:
    """A tokenizer.json of SentencePiece's unigram kind, trained with `tokenizers`, in T5's form."""
    rust = tokenizers.Tokenizer(models.Unigram())
    rust.normalizer = tokenizers.normalizers.NFKC()
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=specials, unk_token="<unk>", show_progress=False, initial_alphabet=[]
    )
    rust.train_from_iterator(CORPUS, trainer)
    rust.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    with tempfile.TemporaryDirectory() as folder:
        rust.save(f"{folder}/tokenizer.json")
        return Tokenizer.load(folder)


def llama2c_file(pieces: list[tuple[str, float]]) -> bytes:
    """A tokenizer.bin with these pieces after the fixed ones."""
    entries = [("<unk>", 0.0), ("\n<s>\n", 0.0), ("\n</s>\n", 0.0), *((byte, 0.0) for byte in BYTES), *pieces]
    stored = [(piece.encode(), score) for piece, score in entries]
    body = b"".join(struct.pack("<fi", score, len(piece)) + piece for piece, score in stored)
    return struct.pack("<i", max(len(piece) for piece, _ in stored)) + body


@cache
def llama2c() -> Tokenizer:
    """The pieces of the small LLaMA model in llama2.c's file."""
    source = llama()
    scores = source._kind.scores
    pieces = [(token.replace("▁", " "), scores[i]) for token, i in source.vocab.items() if i >= 259]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.bin"
        path.write_bytes(llama2c_file(pieces))
        return Tokenizer.load(path)


WORDS = ["天气", "今天", "我们", "机器", "学习", "机器学习", "北京", "play", "##ing", "dog", "girl", "the"]
LETTERS = sorted({c for line in CORPUS for c in line.lower() if not c.isspace()} | set("一二三é"))


def longest_words(text: str) -> list[str]:
    """A segmenter: the longest word of the list, else single characters; other runs as they are."""
    found = []
    at = 0
    while at < len(text):
        if text[at].isascii() and text[at].isalnum():
            end = at + 1
            while end < len(text) and text[end].isascii() and text[end].isalnum():
                end += 1
        else:
            sizes = [n for n in (4, 3, 2) if text[at : at + n] in WORDS]
            end = at + (sizes[0] if sizes else 1)
        found.append(text[at:end])
        at = end
    return found


@cache
def wordpiece() -> Tokenizer:
    pieces = [f"##{c}" for c in LETTERS if c.isalnum() and c.isascii()]
    return Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *pieces, *WORDS])


@cache
def words() -> Tokenizer:
    return Tokenizer.from_vocab(list(wordpiece().vocab), segmenter=longest_words)


KINDS = {
    "wordpiece": wordpiece,
    "words": words,
    "gpt2": gpt2,
    "roberta": roberta,
    "albert": albert,
    "t5": t5,
    "llama": llama,
    "unigram": unigram,
    "llama2c": llama2c,
}


def change(folder: Path, where: str, value: object) -> None:
    """Put a value into a folder's tokenizer.json, at a place like "model.vocab"."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    *outer, last = where.split(".")
    inner = content
    for name in outer:
        inner = inner[name]
    inner[last] = value
    path.write_text(json.dumps(content), encoding="utf-8")
