"""llama2.c's tokenizer beside run.c's loop in plain Python and SentencePiece; damaged files."""

import random
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskplay.errors import UserError
from maskplay.text import Tokenizer
from maskplay.text.llama2c import FIRST
from text import small


def reference(text: str, pieces: list[str], scores: list[float]) -> list[int]:
    """encode() of run.c, line by line: look up characters, then merge the best pair again and again."""
    index = {piece: i for i, piece in enumerate(pieces)}
    tokens = [1]
    if text:
        tokens.append(index[" "])
    for character in text:
        if character in index:
            tokens.append(index[character])
        else:
            tokens += [byte + 3 for byte in character.encode()]
    while True:
        best_score, best_at, best_id = -1e10, -1, -1
        for k in range(len(tokens) - 1):
            i = index.get(pieces[tokens[k]] + pieces[tokens[k + 1]], -1)
            if i != -1 and scores[i] > best_score:
                best_score, best_at, best_id = scores[i], k, i
        if best_at == -1:
            return tokens
        tokens[best_at : best_at + 2] = [best_id]


def stored(path) -> tuple[list[str], list[float]]:
    """The pieces and scores of a file, read independently."""
    content, at = path.read_bytes(), 4
    pieces, scores = [], []
    while at < len(content):
        score, size = struct.unpack_from("<fi", content, at)
        pieces.append(content[at + 8 : at + 8 + size].decode())
        scores.append(score)
        at += 8 + size
    return pieces, scores


letters = st.sampled_from(
    [*"aeghinoprst .,'", " the", "Once upon a time", "  ", "<0x41>", "<s>", "é", "我", "😀", "\n", "\t"]
)
texts = st.lists(letters, max_size=25).map("".join)


@pytest.fixture(params=["tok512.bin", "aidreams_tok512.bin"])
def path(request, data):
    return data / "ckpt_stories260k" / request.param


def test_real_files_as_run_c_reads_them(path):
    tokenizer = Tokenizer.from_llama2c(path)
    pieces, scores = stored(path)

    @settings(max_examples=150, deadline=None)
    @given(text=texts)
    @example(text="")
    @example(text="Once upon a time, there was a little girl named Lily.")
    def agree(text):
        encoding = tokenizer.encode(text)
        assert encoding.ids == reference(text, pieces, scores)
        assert tokenizer.decode(encoding.ids) == text

    agree()


def test_once_upon_a_time(data):
    tokenizer = Tokenizer.load(data / "ckpt_stories260k" / "tok512.bin")
    encoding = tokenizer.encode("Once upon a time")
    assert encoding.ids == [1, 403, 407, 261, 378]
    assert encoding.tokens == ["<s>", "▁Once", "▁upon", "▁a", "▁time"]
    assert encoding.offsets == [(0, 0), (0, 4), (5, 9), (10, 11), (12, 16)]
    assert tokenizer.decode([1, 403, 407, 2]) == "Once upon" and tokenizer.decode([403, 407], False) == "Once upon"


def test_sentencepiece_agrees(path, tmp_path):
    """Two files are written; the library reads the other one."""
    pytest.importorskip("sentencepiece")
    ours = Tokenizer.load(path)
    ours.save(tmp_path)
    assert (tmp_path / "tokenizer.bin").read_bytes() == path.read_bytes() and Tokenizer.load(tmp_path) == ours
    other = Tokenizer.load(tmp_path / "tokenizer.model")

    @settings(max_examples=100, deadline=None)
    @given(text=texts)
    @example(text="Once upon a time, ﬁ 😀  two")
    def agree(text):
        assert ours.encode(text, "b") == other.encode(text, "b")

    agree()


@settings(max_examples=150, deadline=None)
@given(text=texts, chosen=st.lists(st.text("ab ", min_size=2, max_size=4), unique=True, max_size=12), seed=st.randoms())
def test_any_scores(tmp_path_factory, text, chosen, seed):
    """Equal scores, pieces that cannot be reached, spaces inside pieces."""
    pieces = [" ", "a", "b", "e", *(piece for piece in chosen)]
    scores = [float(-seed.randrange(4)) for _ in pieces]
    path = tmp_path_factory.mktemp("scores") / "tokenizer.bin"
    path.write_bytes(small.llama2c_file(list(zip(pieces, scores))))
    text = text + "abba a aab  b" * 2
    assert Tokenizer.load(path).encode(text).ids == reference(text, *stored(path))


def test_a_long_word_is_merged_in_time():
    text = "playing" * 20_000
    tokenizer = small.llama2c()
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert len(tokenizer.encode("the dog ran " * 100_000, max_length=64)) == 64


def whole() -> bytes:
    return small.llama2c_file([(" ", 0.0), ("a", -1.0)])


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "expected llama2.c's tokenizer"),
        (whole()[:-1], r"found a piece of 1 bytes at byte \d+ \(token 260\)"),
        (whole()[:-5], "unpack_from requires"),
        (whole() + struct.pack("<fi", -1.0, -5), "a piece of -5 bytes"),
        (whole() + struct.pack("<fi", -1.0, 0), "a piece of 0 bytes"),
        (whole() + struct.pack("<fi", float("nan"), 1) + b"b", "the score nan"),
        (whole() + struct.pack("<fi", -1e11, 1) + b"b", "the score -9"),
        (whole() + struct.pack("<fi", -1.0, 1) + b"\xff", "can't decode byte"),
        (whole() + struct.pack("<fi", -1.0, 1) + b"a", "token 261: the token 'a' was already on token 260"),
        (whole().replace(b"<0x05>", b"<0x06>"), "token 8: expected '<0x05>' as in llama2.c, found '<0x06>'"),
        (whole()[:100], "token 7: expected '<0x04>'|a piece|unpack"),
        (b"PK\x03\x04" + b"\0" * 50, "a piece of 0 bytes"),
    ],
)
def test_each_fault_is_named(tmp_path, content, message):
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"tokenizer.bin.*({message})"):
        Tokenizer.load(path)


def test_damaged_files_are_refused(tmp_path):
    content = small.llama2c_file(
        [(t.replace("▁", " "), -1.0 * i) for i, t in enumerate(small.llama2c().vocab) if i > 258]
    )
    path = tmp_path / "tokenizer.bin"
    r = random.Random(0)
    for i in range(200):
        damaged = bytearray(content)
        if i % 2:
            del damaged[r.randrange(len(damaged)) :]
        for _ in range(r.choice([1, 5, 100])):
            if damaged:
                damaged[r.randrange(len(damaged))] = r.randrange(256)
        path.write_bytes(damaged)
        try:
            Tokenizer.load(path).encode("Once upon a time 我")
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_what_it_cannot_do():
    tokenizer = small.llama2c()
    with pytest.raises(UserError, match="knows no added tokens"):
        tokenizer.add(["x"])
    ids = [*range(len(tokenizer))]
    with pytest.raises(UserError, match="expected the first 259 tokens first and in order"):
        tokenizer.keep([*ids[1:], 0])
    assert len(FIRST) == 259
