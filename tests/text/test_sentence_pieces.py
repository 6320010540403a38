"""SentencePiece models beside the library and `transformers`; damaged files; forms."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskplay.errors import CheckpointError, MissingExtra, UserError
from maskplay.protobuf import read_message, write_field
from maskplay.text import Tokenizer
from maskplay.text.sentence_pieces import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Piece, write_piece
from text import small

sentencepiece = pytest.importorskip("sentencepiece")
REAL = ["sentencepiece-test_model", "llama2-tokenizer", "xlnet-en-spiece", "chinese-xlnet-spiece"]
MIXED = "Hello  world! ﬁne ＡＢＣ ① ½ ㎏ 我爱北京 😀 𠮷 e\u0301 한국 don't\n\u3000x\u200b ｶﾞ "

letters = st.sampled_from(
    [*"aeghinort ", " the", "play", "  ", "我们", "今天", "ﬁ", "½", "Ｂ", "e\u0301", "😀", "𠮷", "한", "\u200b", "\n"]
)
texts = st.lists(letters, max_size=30).map("".join)


def inner(encoding):
    return [i for i, part in zip(encoding.ids, encoding.parts) if part is not None]


# Beside the library


@pytest.mark.parametrize("name", REAL)
def test_ids_are_the_librarys(data, name):
    path = data / "vocabs" / f"{name}.model"
    ours = Tokenizer.from_sentencepiece(path, form="plain")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert list(ours.vocab) == [theirs.id_to_piece(i) for i in range(len(theirs))]

    @settings(max_examples=80, deadline=None)
    @given(text=texts)
    @example(text=MIXED)
    @example(text="")
    def agree(text):
        encoding = ours.encode(text)
        assert encoding.ids == theirs.encode(text)
        if ours.unk_id not in encoding.ids and name != "llama2-tokenizer":
            assert ours.decode(encoding.ids) == theirs.decode(encoding.ids)

    agree()


def test_offsets_of_characters_that_change():
    encoding = small.t5().encode("Ａ½ﬁn e\u0301")
    found = [(token, "Ａ½ﬁn e\u0301"[a:b]) for token, (a, b) in zip(encoding.tokens, encoding.offsets)]
    assert found[:5] == [("▁", ""), ("<unk>", "Ａ"), ("1", "½"), ("<unk>", "½"), ("2", "½")]
    assert found[-3:-1] == [("▁", " "), ("é", "e\u0301")]
    assert [t for t, s in found if s == "ﬁ" or s == "ﬁn"] == ["f", "in"]
    encoding = small.llama().encode("😀我 𠮷")
    assert [a for a, _ in encoding.offsets] == [0, 0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3]


def test_albert_prepares_its_text():
    tokenizer = small.albert()
    text = "``Ünïted'' Dogs Été"
    encoding = tokenizer.encode(text)
    joined = "".join(encoding.tokens[1:-1]).replace("▁", " ").strip()
    assert joined == '"united" dogs ete'
    found = {token: text[a:b] for token, (a, b) in zip(encoding.tokens, encoding.offsets)}
    assert '"' in found and found['"'] == "''" and found["▁dog"] == "Dog"
    assert tokenizer.lowercase and not small.t5().lowercase


# Beside transformers


@pytest.mark.parametrize("kind", ["albert", "t5", "llama"])
def test_transformers_agrees(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("google.protobuf")
    ours = small.KINDS[kind]()
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == len(ours)
    for text in ("the dog ran", "We play 3.14!", "ﬁne ½ ＡＢＣ 我们", "today, été 今天天气", "Don't 😀 girl"):
        assert theirs(text)["input_ids"] == ours.encode(text).ids
        assert theirs(text, "playing 我")["input_ids"] == ours.encode(text, "playing 我").ids
    theirs.save_pretrained(tmp_path / "back")
    back = Tokenizer.load(tmp_path / "back")
    for text in ("the dog ran ﬁ", "We play 3.14! été 今天天气", "½ é 😀"):
        first, second = ours.encode(text, "b"), back.encode(text, "b")
        assert first.ids == second.ids and first.offsets == second.offsets and first.parts == second.parts
    assert back.form.specials[:3] == ours.form.specials[:3] and back.form.before == ours.form.before


# Forms


def test_forms_are_recognised(data, tmp_path):
    assert [small.KINDS[k]().form.saved_as for k in ("albert", "t5", "llama")] == [
        "AlbertTokenizer",
        "T5Tokenizer",
        "LlamaTokenizer",
    ]
    assert Tokenizer.load(data / "vocabs" / "llama2-tokenizer.model").encode("Hello world").ids == [1, 15043, 3186]
    with pytest.raises(CheckpointError, match="xlnet-en-spiece.model: expected a vocabulary of ALBERT, T5 or LLaMA"):
        Tokenizer.load(data / "vocabs" / "xlnet-en-spiece.model")
    (tmp_path / "tokenizer.model").write_bytes((data / "vocabs" / "llama2-tokenizer.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    with pytest.raises(CheckpointError, match="found XLMRobertaTokenizer; use its tokenizer.json, or say the form"):
        Tokenizer.load(tmp_path)


def test_sentinels(tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(small.model(**small.T5))
    plain = Tokenizer.from_sentencepiece(path, sentinels=0)
    full = Tokenizer.load(path)
    assert len(full) == len(plain) + 100
    assert full.vocab["<extra_id_0>"] == len(full) - 1 and full.vocab["<extra_id_99>"] == len(plain)
    text = "the <extra_id_0> dog<extra_id_1>."
    encoding = full.encode(text, specials=True)
    assert [t for t in encoding.tokens if "extra" in t] == ["<extra_id_0>", "<extra_id_1>"]
    assert "▁dog" in encoding.tokens and full.decode(encoding.ids) == "the dog."
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "MT5Tokenizer"}')
    assert len(Tokenizer.load(tmp_path)) == len(plain)
    (tmp_path / "tokenizer_config.json").write_text('{"extra_ids": -5}')
    with pytest.raises(UserError, match="extra_ids: expected a number from 0 to 1000, found -5"):
        Tokenizer.load(tmp_path)


def test_sentinels_in_the_model_itself(tmp_path):
    """mT5's are pieces with the space before them."""
    path = tmp_path / "spiece.model"
    own = [Piece(f"▁<extra_id_{i}>", 0.0, USER_DEFINED) for i in (1, 0)]
    path.write_bytes(small.model(**small.T5) + b"".join(map(write_piece, own)))
    tokenizer = Tokenizer.load(path)
    assert tokenizer.tokens([len(tokenizer) - 1]) == ["▁<extra_id_0>"]
    for text in ("the <extra_id_0> dog", "the<extra_id_0> dog", "<extra_id_0>"):
        assert tokenizer.encode(text, specials=True).tokens.count("▁<extra_id_0>") == 1
        assert "▁<extra_id_0>" not in tokenizer.encode(text).tokens


# Damaged files


ATTACK = """
import random, sys
from maskplay.errors import UserError
from maskplay.text import Tokenizer
copy, *paths = sys.argv[1:]
wholes = [open(path, "rb").read() for path in paths]
opened = 0
for i in range(200):
    r = random.Random(i)
    content = bytearray(wholes[i // 4 % len(wholes)])
    if i % 4 == 0:
        del content[r.randrange(len(content)):]
    elif i % 4 == 1:  # the settings and the table of replacements are at the end
        for _ in range(r.choice([1, 5, 50])):
            content[-1 - r.randrange(min(len(content), 60_000))] = r.randrange(256)
    elif i % 4 == 2:
        for _ in range(r.choice([1, 5, 50, 500])):
            content[r.randrange(len(content))] = r.randrange(256)
    else:
        at = r.randrange(len(content))
        content[at:at + r.randrange(500)] = r.randbytes(r.randrange(500))
    open(copy, "wb").write(content)
    try:
        tokenizer = Tokenizer.load(copy)
        tokenizer.encode("Hello  ﬁne ＡＢＣ 我爱 😀 e\\u0301 ½ <extra_id_0>" * 3, specials=True)
        opened += 1
    except UserError as error:
        assert copy in str(error), error
        assert "\\n" not in str(error), error
print("opened", opened)
"""


def attack(tmp_path: Path, *models: Path) -> None:
    """200 damaged files in a process of its own, which a crash in the library would end."""
    copy = tmp_path / "copy.model"
    process = subprocess.run(
        [sys.executable, "-c", ATTACK, str(copy), *map(str, models)], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stdout.startswith("opened ")


def test_damaged_models_are_refused(tmp_path):
    for name, options in (("t5", small.T5), ("llama", small.LLAMA)):
        (tmp_path / name).write_bytes(small.model(**options))
    attack(tmp_path, tmp_path / "t5", tmp_path / "llama")


def test_damaged_real_models_are_refused(data, tmp_path):
    attack(tmp_path, data / "vocabs" / "sentencepiece-test_model.model")


def built(*pieces: Piece, trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    return b"".join(map(write_piece, pieces)) + write_field(2, trainer) + write_field(3, normalizer)


BASE = [
    Piece("<unk>", 0.0, UNKNOWN),
    Piece("<s>", 0.0, CONTROL),
    Piece("</s>", 0.0, CONTROL),
    Piece("▁a", -1.0, NORMAL),
]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "unigram or BPE, found type 1, 0 pieces"),
        (b"PK\x03\x04 not a model", "not a SentencePiece model, or a damaged one"),
        (b"\xff" * 11, "a number has more than 64 bits"),
        (built(*BASE)[:-1], "the file ends inside|it ends within a number"),
        (built(*BASE[1:]), "missing <unk>|special tokens of another family|what is unknown, found 0"),
        (built(*BASE, BASE[0]), "the token '<unk>' was already"),
        (built(*BASE, Piece("", 0.0, NORMAL)), "token 4: expected a token"),
        (built(*BASE, Piece("b", float("nan"), NORMAL)), "'b' has score nan"),
        (built(*BASE, Piece("b", 0.0, 9)), "type 9"),
        (built(*BASE, Piece("<0x41>", 0.0, BYTE)), "all 256 bytes or none, found 1"),
        (built(*BASE, trainer=write_field(3, 3)), "unigram or BPE, found type 3"),
        (built(*BASE, trainer=write_field(24, 1)), "marked at the beginning of words"),
        (built(*BASE, normalizer=write_field(2, 5)), "table is no bytes"),
        (built(*BASE, normalizer=write_field(2, b"\x08\0\0\0abcd")), "table's size is wrong"),
        (built(*BASE, normalizer=write_field(2, b"\x04\0\0\0abcd" + b"x" * 300)), "a replacement is too long"),
        (b"\0" * (33 * 2**20), "at most 32 MiB"),
    ],
)
def test_each_fault_is_named(tmp_path, content, message):
    path = tmp_path / "spiece.model"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"spiece.model.*({message})"):
        Tokenizer.load(tmp_path)


def test_too_many_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("maskplay.text.sentence_pieces.VOCAB_TOKENS", 3)
    path = tmp_path / "spiece.model"
    path.write_bytes(built(*BASE))
    with pytest.raises(CheckpointError, match="expected at most 3 pieces"):
        Tokenizer.load(path)


def test_without_the_library(tmp_path, monkeypatch):
    path = tmp_path / "spiece.model"
    path.write_bytes(built(*BASE))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtra, match=r"a SentencePiece model needs the extra 'sp': pip install 'maskplay\[sp\]'"):
        Tokenizer.load(path)


# Protocol buffers


@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 2**64 - 1) | st.binary(max_size=300))))
def test_fields_come_back(entries):
    content = b"".join(write_field(number, value) for number, value in entries)
    assert [(number, value) for number, _, value in read_message(content)] == entries


def test_pieces_as_google_reads_them():
    pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    model = pb2.ModelProto.FromString(small.model(**small.LLAMA))
    ours = small.llama()._kind
    assert [(p.piece, p.score, p.type) for p in model.pieces] == [*zip(ours.tokens, ours.scores, ours.types)]
    again = pb2.ModelProto.FromString(ours._model(map(Piece, ours.tokens, ours.scores, ours.types)))
    assert [(p.piece, p.score, p.type) for p in again.pieces] == [(p.piece, p.score, p.type) for p in model.pieces]
    assert again.trainer_spec.model_type == 2 and again.trainer_spec.byte_fallback
    assert again.normalizer_spec.precompiled_charsmap == model.normalizer_spec.precompiled_charsmap
    assert (again.trainer_spec.unk_id, again.trainer_spec.bos_id, again.trainer_spec.pad_id) == (0, 1, -1)
