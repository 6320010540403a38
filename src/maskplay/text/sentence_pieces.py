"""SentencePiece's own models (spiece.model, tokenizer.model): unigram and BPE, with offsets into the original text.

Split by the package `sentencepiece` (extra `sp`), from a model that was read, checked and written anew here. The
library tells where each character of its normalized text comes from; offsets are made of that, so that every piece of
one character (`1⁄2` for `½`, the bytes of an emoji) points to it.

Source: Kudo and Richardson 2018, https://arxiv.org/abs/1808.06226.
"""

import math
import re
import struct
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from maskplay.errors import CheckpointError, MissingExtra, UserError
from maskplay.protobuf import BYTES, FIXED32, read_message, write_field
from maskplay.storage import write_atomically
from maskplay.text.characters import trimmed
from maskplay.text.forms import ALBERT, LLAMA, T5, Form
from maskplay.text.kind import Kind, Pieces, check_new
from maskplay.text.merges import BYTE as BYTE_TOKEN
from maskplay.text.merges import SPACE, SPACES, closure, halves, joined, separable
from maskplay.text.metaspace import check_charsmap
from maskplay.text.vocabulary import VOCAB_TOKENS, flag, read_bytes, read_settings

# Numbers of sentencepiece_model.proto: kinds of models, types of pieces.
UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SENTINEL = re.compile(f"{SPACE}?<extra_id_[0-9]+>")
FAIRSEQ = "sentencepiece.bpe.model"  # the name that transformers gives to models of XLM-R, mBART and the like
SENTINELS = 100  # what T5 has beyond its model file, unless the file or its settings say otherwise


class Piece(NamedTuple):
    """One entry of the vocabulary; `type` is NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED or BYTE."""

    piece: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePieces(Kind):
    """A SentencePiece model.

    Attributes:
        scores, types: of each token.
        unigram: whether the best path is taken, or pairs are merged.
        charsmap: the precompiled table of replacements; b"" for none.
        dummy_prefix: whether a text is split as if a space stood before it.
        squeeze: whether several spaces count as one, and those at the ends not at all.
        lowercase, strip_accents, quotes: what ALBERT does to a text first.
    """

    scores: tuple[float, ...]
    types: tuple[int, ...]
    unigram: bool = True
    charsmap: bytes = b""
    dummy_prefix: bool = True
    squeeze: bool = True
    lowercase: bool = False
    strip_accents: bool = False
    quotes: bool = False

    name: ClassVar[str] = "SentencePiece"

    def check(self, where: str) -> None:
        super().check(where)
        if self.types.count(UNKNOWN) != 1:
            raise CheckpointError(f"{where}: expected one piece for what is unknown, found {self.types.count(UNKNOWN)}")
        for token, kind in zip(self.tokens, self.types):
            if kind == BYTE and not BYTE_TOKEN.fullmatch(token):
                raise CheckpointError(f"{where}: expected bytes as <0x00> to <0xFF>, found {token!r}")
        if 0 < self.types.count(BYTE) < 256:
            raise CheckpointError(f"{where}: expected all 256 bytes or none, found {self.types.count(BYTE)}")
        try:
            _ = self._plain
        except UserError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            raise CheckpointError(f"{where}: not a SentencePiece model that can be used: {error}") from None

    # Splitting and joining

    def split(self, texts: Sequence[str], specials: bool) -> list[Pieces]:
        engine, aliases = self._cloze if specials else self._plain
        prepared = [self.prepared(text) for text in texts]
        plain = [text for text, _ in prepared]
        if not plain:
            return []
        found = zip(texts, prepared, engine.encode(plain, return_type="offset_mapping"))
        pieces = []
        for text, (plain_text, origin), one in found:
            _, offsets = engine.normalize(plain_text, with_offsets=True)
            spans = self._spans(one["pieces"], one["ids"], offsets)
            if origin is not None:
                spans = [(origin[a][0], origin[b - 1][1] if b > a else origin[a][0]) for a, b in spans]
            ids = [aliases.get(i, i) for i in one["ids"]]
            pieces.append(Pieces(ids, [trimmed(text, *span) for span in spans]))
        return pieces

    def _spans(self, pieces: list[str], ids: list[int], offsets: list[int]) -> list[tuple[int, int]]:
        """Where each piece comes from; `offsets[k]` is the place of the normalized text's character k."""
        ends = [*offsets[1:]]  # the end of what character k comes from: the next place that is further on
        for k in range(len(ends) - 2, -1, -1):
            if ends[k] <= offsets[k]:
                ends[k] = ends[k + 1]
        spans, at, within = [], 0, 0
        for piece, i in zip(pieces, ids):
            if i < len(self.types) and self.types[i] == BYTE:
                byte = int(piece[3:5], 16)
                within = within - 1 if within else (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
                end, step = at + 1, 0 if within else 1
            else:
                end, step = at + len(piece), len(piece)
            dummy = self.dummy_prefix and at == 0 and end == 1 and offsets[0] == offsets[1]
            spans.append((offsets[at], offsets[at] if dummy else ends[end - 1]))
            at += step
        return spans

    def prepared(self, text: str) -> tuple[str, list[tuple[int, int]] | None]:
        """The text that the model gets, and the span each of its characters comes from (None: it is the text)."""
        if not (self.lowercase or self.strip_accents or self.quotes):
            return text, None
        characters, origin = [], []
        at = 0
        while at < len(text):
            end = at + (2 if self.quotes and text[at : at + 2] in ("``", "''") else 1)
            form = '"' if end > at + 1 else text[at]
            if self.strip_accents:
                form = "".join(c for c in unicodedata.normalize("NFKD", form) if not unicodedata.combining(c))
            form = form.lower() if self.lowercase else form
            characters.append(form)
            origin += [(at, end)] * len(form)
            at = end
        return "".join(characters), [*origin, (len(text), len(text))]

    @cached_property
    def _separable(self) -> bool:
        return separable(self.tokens)

    def cut(self, text: str, at: int) -> int:
        space = SPACES.search(text, at) if self._separable else None
        return space.start() if space else len(text)

    def join(self, tokens: Sequence[str]) -> str:
        return joined(tokens, self.dummy_prefix)

    # The library

    @cached_property
    def _plain(self) -> tuple[Any, dict[int, int]]:
        return self._engine(())

    @cached_property
    def _cloze(self) -> tuple[Any, dict[int, int]]:
        return self._engine(self.form.gaps)

    def _engine(self, gaps: Sequence[str]) -> tuple[Any, dict[int, int]]:
        """The library's processor, and the ids of its own that stand for one of ours.

        It finds the `gaps` in text, with or without a space before them; no other special token.
        """
        try:
            import sentencepiece
        except ImportError:
            raise MissingExtra("a SentencePiece model", "sp") from None
        specials = set(self.form.specials)
        pieces, aliases = [], {}
        for token, score, kind in zip(self.tokens, self.scores, self.types):
            if token in specials and kind != UNKNOWN:
                kind = USER_DEFINED if token in gaps else CONTROL
            elif kind == USER_DEFINED:
                token = self.prepared(token)[0] or token
            pieces.append(Piece(token, score, kind))
        for gap in gaps:
            bare = gap.removeprefix(SPACE)
            for name in {bare, SPACE + bare, self.prepared(bare)[0], SPACE + self.prepared(bare)[0]} - {gap}:
                if name not in self.vocab:
                    aliases[len(pieces)] = self.vocab[gap]
                    pieces.append(Piece(name, 0.0, USER_DEFINED))
        model = self._model(pieces)
        return sentencepiece.SentencePieceProcessor(model_proto=model), aliases

    def _model(self, pieces: Iterable[Piece]) -> bytes:
        """The model file with these pieces."""
        ids = {40: self.form.unk, 41: self.form.bos, 42: self.form.eos, 43: self.form.pad}
        names = {45: "<unk>", 46: "<s>", 47: "</s>", 48: "<pad>"}
        trainer = [write_field(3, UNIGRAM if self.unigram else BPE), write_field(35, int(BYTE in self.types))]
        trainer += [write_field(n, 2**64 - 1 if name is None else self.vocab[name]) for n, name in ids.items()]
        trainer += [write_field(n, (ids[n - 5] or name).encode()) for n, name in names.items()]
        normalizer = [write_field(1, b"checked"), write_field(2, self.charsmap)]
        normalizer += [write_field(3, int(self.dummy_prefix)), write_field(4, int(self.squeeze)), write_field(5, 1)]
        specs = write_field(2, b"".join(trainer)) + write_field(3, b"".join(normalizer))
        return b"".join(map(write_piece, pieces)) + specs

    # Editing

    def needs(self, ids: Iterable[int]) -> set[int]:
        more = {i for i, kind in enumerate(self.types) if kind in (UNKNOWN, BYTE)}
        tokens: Iterable[str] = ()
        if self.unigram:  # what is unknown is charged by the lowest score
            more.add(min((i for i, kind in enumerate(self.types) if kind == NORMAL), key=lambda i: self.scores[i]))
        else:
            tokens = closure((self.tokens[i] for i in ids), self._parts)
        return super().needs(ids) | more | {self.vocab[token] for token in tokens}

    def _parts(self, token: str) -> list[str]:
        """The tokens that the library may have merged into this one."""
        if self.types[self.vocab[token]] != NORMAL:
            return []
        return [part for pair in halves(token) if all(map(self._merges, pair)) for part in pair]

    def _merges(self, token: str) -> bool:
        return token in self.vocab and self.types[self.vocab[token]] in (NORMAL, USER_DEFINED)

    def keep(self, ids: Sequence[int]) -> Self:
        columns = [tuple(column[i] for i in ids) for column in (self.tokens, self.scores, self.types)]
        others = tuple(name for name in self.form.others if name in set(columns[0]))
        form = self.form.but(others=others)
        return replace(self, tokens=columns[0], form=form, scores=columns[1], types=columns[2])

    def add(self, tokens: Sequence[str]) -> Self:
        known = set(self.tokens)
        check_new(tokens, known)
        check_new([self.prepared(token)[0] for token in tokens], known)
        count = len(tokens)
        scores, types = (*self.scores, *[0.0] * count), (*self.types, *[USER_DEFINED] * count)
        return replace(self, tokens=(*self.tokens, *tokens), scores=scores, types=types)

    # Files

    def write(self, folder: Path) -> None:
        name = "tokenizer.model" if self.form.saved_as == LLAMA.saved_as else "spiece.model"
        own = slice(0, len(self.tokens) - self._counted)
        pieces = map(Piece, self.tokens[own], self.scores[own], self.types[own])
        write_atomically(folder / name, self._model(pieces))

    @property
    def _counted(self) -> int:
        """How many tokens at the end are T5's sentinels, which its files do not hold but count."""
        count = len(self.form.others)
        return count if count and self.tokens[-count:] == _sentinels(count) else 0

    def settings(self) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if self.form.saved_as == ALBERT.saved_as:
            more = {"do_lower_case": self.lowercase, "keep_accents": not self.strip_accents}
        if self.form.saved_as == T5.saved_as:
            more = {"extra_ids": self._counted}
        return super().settings() | more


# Reading


def read_model(
    path: Path, form: Form | None = None, lowercase: bool | None = None, sentinels: int | None = None
) -> SentencePieces:
    """A SentencePiece model file, with the settings of the tokenizer_config.json beside it.

    Raises:
        CheckpointError: it is damaged, or a kind of model that is not supported.
    """
    try:
        pieces, unigram, (charsmap, dummy_prefix, squeeze) = _read(read_bytes(path), f"{path}")
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise CheckpointError(f"{path}: not a SentencePiece model, or a damaged one: {error}") from None
    tokens = [piece.piece for piece in pieces]
    settings, config = read_settings(path.parent), path.with_name("tokenizer_config.json")
    form = form or _guessed(tokens, settings, f"{path}")
    if form == LLAMA and not flag(settings, "add_bos_token", True, config):
        form = form.but(before=(), between=())
    found = tuple(token for token in tokens if SENTINEL.fullmatch(token))
    if form.saved_as == T5.saved_as and not found:
        count = settings.get("extra_ids", 0 if "MT5" in str(settings.get("tokenizer_class")) else SENTINELS)
        count = count if sentinels is None else sentinels
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 1000:
            raise UserError(f"{config}: extra_ids: expected a number from 0 to 1000, found {count!r}")
        found = _sentinels(count)
        pieces += [Piece(name, 0.0, CONTROL) for name in found]
    unknown = [piece.piece for piece in pieces if piece.type == UNKNOWN]
    albert = form.saved_as == ALBERT.saved_as
    return SentencePieces(
        tuple(piece.piece for piece in pieces),
        form.but(unk=unknown[0] if unknown else None, others=found),
        tuple(piece.score for piece in pieces),
        tuple(piece.type for piece in pieces),
        unigram,
        charsmap,
        dummy_prefix,
        squeeze,
        lowercase=flag(settings, "do_lower_case", albert, config) and albert if lowercase is None else lowercase,
        strip_accents=albert and not flag(settings, "keep_accents", False, config),
        quotes=albert,
    )


def _sentinels(count: int) -> tuple[str, ...]:
    return tuple(f"<extra_id_{i}>" for i in reversed(range(count)))


def _read(content: bytes, where: str) -> tuple[list[Piece], bool, tuple[bytes, bool, bool]]:
    """Pieces, whether they are unigram, and (charsmap, dummy_prefix, squeeze)."""
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, _, value in read_message(content):
        if isinstance(value, int) or number not in (1, 2, 3):
            continue
        if number == 1:
            pieces.append(read_piece(value))
            if len(pieces) > VOCAB_TOKENS:
                raise CheckpointError(f"{where}: expected at most {VOCAB_TOKENS} pieces")
        else:
            (trainer if number == 2 else normalizer).update({n: v for n, _, v in read_message(value)})
    kind = trainer.get(3, UNIGRAM)
    if not pieces or kind not in (UNIGRAM, BPE):
        found = f"type {kind}, {len(pieces)} pieces"
        raise CheckpointError(f"{where}: expected a SentencePiece model, unigram or BPE, found {found}")
    if trainer.get(24) or not normalizer.get(5, 1):
        raise CheckpointError(f"{where}: expected spaces to be marked at the beginning of words")
    charsmap = normalizer.get(2, b"")
    if not isinstance(charsmap, bytes):
        raise ValueError("the normalizer's table is no bytes")
    check_charsmap(charsmap)
    return pieces, kind == UNIGRAM, (charsmap, bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)))


def _guessed(tokens: Sequence[str], settings: dict[str, Any], where: str) -> Form:
    """ALBERT's, T5's or LLaMA's form, by the tokenizer's class or by the special tokens that are there."""
    known = set(tokens)
    named = str(settings.get("tokenizer_class") or "").removesuffix("Fast").replace("MT5", "T5")
    if not named and Path(where).name == FAIRSEQ:  # XLM-R's, whose ids are not the model's own
        named = "XLMRobertaTokenizer"
    for form in (ALBERT, LLAMA, T5) if "<s>" in known else (ALBERT, T5, LLAMA):
        fits = form.saved_as == named if named else not {"<cls>", "<mask>"} & known
        if fits and known.issuperset(form.specials):
            return form
    raise CheckpointError(
        f"{where}: expected a vocabulary of ALBERT, T5 or LLaMA, found {named or 'special tokens of another family'}; "
        "use its tokenizer.json, or say the form: Tokenizer.from_sentencepiece(path, form='plain')"
    )


def read_piece(content: bytes) -> Piece:
    """One vocabulary entry; `ValueError` when it is no text, has no finite score or an unknown type."""
    piece, score, kind = "", 0.0, NORMAL
    for number, wire, value in read_message(content):
        if number == 1 and isinstance(value, bytes) and wire == BYTES:
            piece = value.decode("utf-8")
        elif number == 2 and isinstance(value, bytes) and wire == FIXED32:
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    if not math.isfinite(score) or not NORMAL <= kind <= BYTE:
        raise ValueError(f"piece {piece[:40]!r} has score {score} and type {kind}")
    return Piece(piece, score, kind)


def write_piece(piece: Piece) -> bytes:
    """The entry as a field of the model."""
    content = write_field(1, piece.piece.encode()) + write_field(2, float(piece.score)) + write_field(3, piece.type)
    return write_field(1, content)
