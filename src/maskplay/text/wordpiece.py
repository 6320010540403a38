"""WordPiece as BERT defines it (cased, uncased, Chinese), and vocabularies of single characters.

Two files can describe it: Google's vocab.txt with the tokenizer_config.json beside it, and the tokenizer.json of the
Rust package.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any, ClassVar, Self

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from maskplay.errors import UserError, whole_number
from maskplay.storage import read_json, write_atomically
from maskplay.text.characters import is_asian, is_punctuation, spaced, without_surrogates
from maskplay.text.forms import BERT
from maskplay.text.kind import Flat, Pieces, kept
from maskplay.text.rust import RustKind
from maskplay.text.table import Table
from maskplay.text.vocabulary import Added, RustFile, added_entries, read_lines, read_settings

PIECE = "##"  # marks a piece that continues a word
WORD_LIMIT = 100  # characters; BERT reads a longer word as [UNK]
# Characters that always stand alone for BERT: text cut in front of one splits into the same pieces as the whole text.
# Brackets are left out because of [MASK], the underscore because Rust counts it among the letters.
SEPARATORS = " \t\n\r\u3000!\"#$%&'()*+,-./:;<=>?@^`{|}~，。、！？；：（）《》「」『』【】“”‘’…—"
IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff"


@dataclass(frozen=True)
class WordPiece(RustKind):
    """The longest piece that fits, again and again, in words split at spaces, punctuation and Chinese characters."""

    lowercase: bool = True
    strip_accents: bool | None = None  # None: as `lowercase`

    name: ClassVar[str] = "WordPiece"
    place: ClassVar[str] = "line"

    # Splitting and joining

    def split(self, texts: Sequence[str], specials: bool) -> list[Pieces]:
        rust = self._cloze if specials else self._plain
        return [Pieces(e.ids, e.offsets) for e in rust.encode_batch(list(texts), add_special_tokens=False)]

    def split_flat(self, texts: Sequence[str]) -> Flat:
        # An added token may be of several characters.
        return super().split_flat(texts) if self.added else self._table.split(texts)

    @cached_property
    def _table(self) -> Table:
        return Table(self._plain)

    def cut(self, text: str, at: int) -> int:
        separator = self._separator.search(text, at)
        return separator.start() if separator else len(text)

    @cached_property
    def _separator(self) -> re.Pattern[str]:
        added = [token for token, _, _ in self.added]
        inside = {*"".join(added), *"".join(map(self.normalized, added))}
        separators = "".join(c for c in SEPARATORS if c not in inside)
        return re.compile(f"[{re.escape(separators)}{'' if added else IDEOGRAPHS}]")

    def join(self, tokens: Sequence[str]) -> str:
        """Pieces joined, no spaces beside Chinese characters, English punctuation set close."""
        text = ""
        for token in tokens:
            if token.startswith(PIECE) and len(token) > len(PIECE):
                text += token.removeprefix(PIECE)
            else:
                text += f" {token}" if spaced(text, token) else token
        return text

    def normalized(self, text: str) -> str:
        """Text as it is split: cleaned, perhaps lower-cased."""
        return self._plain.normalizer.normalize_str(without_surrogates(text))

    def words(self, text: str) -> list[str]:
        """The words that are then cut into pieces."""
        return [word for word, _ in self._plain.pre_tokenizer.pre_tokenize_str(self.normalized(text))]

    # Editing

    def keep(self, ids: Sequence[int]) -> Self:
        tokens = tuple(self.tokens[i] for i in ids)
        return replace(self, tokens=tokens, added=kept(self.added, tokens))

    def simplified(self) -> list[int]:
        """See `Tokenizer.simplified`."""
        wanted = {*self.form.specials, *(added.token for added in self.added)}

        def keeps(token: str) -> bool:
            text = token.removeprefix(PIECE)
            return token in wanted or len(token) == 1 or not any(is_asian(c) or is_punctuation(c) for c in text)

        return [i for token, i in self.vocab.items() if keeps(token)]

    def add(self, tokens: Sequence[str]) -> Self:
        forms = {self.normalized(added.token) for added in self.added}
        for token in tokens:
            form = self.normalized(token)
            if not form.strip() or token.startswith(PIECE) or any(c.isspace() for c in token):
                raise UserError(f"cannot add {token!r}: expected text without spaces that does not start with {PIECE}")
            if form in forms or token in self.vocab:
                raise UserError(f"cannot add {token!r}: it is in the vocabulary already")
            forms.add(form)
        new = [Added(token, single_word=not self._alone(token[0]) or not self._alone(token[-1])) for token in tokens]
        return replace(self, tokens=(*self.tokens, *tokens), added=(*self.added, *new))

    def _alone(self, character: str) -> bool:
        """Whether a character is a word of its own wherever it stands: Chinese characters and punctuation."""
        return len(self.words(f"x{character}x")) == 3

    # Rust and files

    def rust(self, specials: Sequence[str] = ()) -> tokenizers.Tokenizer:
        rust = tokenizers.Tokenizer(
            models.WordPiece(
                self.vocab, unk_token="[UNK]", max_input_chars_per_word=WORD_LIMIT, continuing_subword_prefix=PIECE
            )
        )
        rust.normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=self.strip_accents, lowercase=self.lowercase
        )
        rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        rust.add_special_tokens(list(specials))
        for added in self.added:
            rust.add_tokens([AddedToken(added.token, single_word=added.single_word, normalized=added.normalized)])
        return rust

    def write(self, folder: Path) -> None:
        rust = self.rust(self.form.specials)
        rust.post_processor = self.framed()
        rust.decoder = decoders.WordPiece(prefix=PIECE)
        write_atomically(folder / "vocab.txt", "".join(f"{token}\n" for token in self.tokens))
        write_atomically(folder / "tokenizer.json", rust.to_str(pretty=True))

    def settings(self) -> dict[str, Any]:
        return {
            "tokenizer_class": self.form.saved_as,
            "do_lower_case": self.lowercase,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": True,
        }


# Reading


def read_google(path: Path) -> WordPiece:
    """A vocab.txt, with the settings of the tokenizer_config.json beside it.

    Google's checkpoints come without settings; then the vocabulary decides: a word with a capital letter means cased.
    """
    tokens = read_vocab(path)
    settings = read_settings(path.parent)
    settings.setdefault("do_lower_case", not any(map(_has_capital, tokens)))
    config = path.with_name("tokenizer_config.json")
    case = _case(settings, "do_lower_case", ["tokenize_chinese_chars"], config)
    later = path.with_name("added_tokens.json")
    more = added_entries(settings, read_json(later) if later.is_file() else {})
    new = {token: i for token, (i, _) in more.items()}
    for token in tokens:
        new.pop(token, None)
    tokens += sorted(new, key=lambda token: new[token])
    if wrong := [token for i, token in enumerate(tokens) if new.get(token, i) != i]:
        raise UserError(f"{path}: the added token {wrong[0]!r} has the id {new[wrong[0]]}, expected those that follow")
    own = {token: entry for token, (_, entry) in more.items() if token not in BERT.specials}
    added = [Added(token, bool(entry.get("single_word")), entry.get("normalized") is not False)
             for token, entry in own.items() if not entry.get("special")]  # fmt: skip
    others = tuple(token for token, entry in own.items() if entry.get("special"))
    return WordPiece(tuple(tokens), BERT.but(others=others), tuple(added), *case)


def read_vocab(path: Path) -> list[str]:
    """The lines of a vocab.txt, unless the file is of another kind."""
    with_hint = {
        ".json": "the vocabulary of byte-level BPE: open its folder with Tokenizer.load, its files with from_merges",
        ".model": "a SentencePiece model: open it with Tokenizer.from_sentencepiece or Tokenizer.load",
        ".bin": "no list of tokens: open llama2.c's tokenizer with Tokenizer.from_llama2c or Tokenizer.load",
    }
    if path.suffix in with_hint:
        raise UserError(f"{path}: expected a vocab.txt, one token a line; this is {with_hint[path.suffix]}")
    lines = read_lines(path)
    while lines and not lines[-1]:  # editors leave them; no token stands behind
        lines.pop()
    return lines


def from_rust(file: RustFile) -> WordPiece:
    """The BERT tokenizer in a tokenizer.json; `UserError` for another kind of WordPiece."""
    path, model = file.path, file.model
    kinds = [part.get("type") for part in (model, file.normalizer, file.splitter)]
    if kinds != ["WordPiece", "BertNormalizer", "BertPreTokenizer"]:
        raise UserError(f"{path}: expected a BERT tokenizer (WordPiece), found {', '.join(map(str, kinds))}")
    fixed = {"unk_token": "[UNK]", "continuing_subword_prefix": PIECE, "max_input_chars_per_word": WORD_LIMIT}
    for key, expected in fixed.items():
        if model.get(key) != expected:
            raise UserError(f"{path}: {key}: expected {expected!r}, found {model.get(key)!r}")
    tokens = file.tokens(model.get("vocab"))
    case = _case(file.normalizer, "lowercase", ["handle_chinese_chars", "clean_text"], path)
    others = tuple(name for name in file.specials if name not in BERT.specials)
    return WordPiece(tokens, BERT.but(others=others), file.added, *case)


def _case(settings: dict[str, Any], name: str, needed: Sequence[str], path: Path) -> tuple[bool, bool | None]:
    """The settings for lower-casing and accents; those in `needed` must be on, as in every BERT."""
    for key in needed:
        if settings.get(key, True) is not True:
            raise UserError(f"{path}: {key}: expected true, found {settings[key]!r}, which is not supported")
    lowercase, strip_accents = settings.get(name, True), settings.get("strip_accents")
    if not isinstance(lowercase, bool):
        raise UserError(f"{path}: {name}: expected true or false, found {lowercase!r}")
    if strip_accents is not None and not isinstance(strip_accents, bool):
        raise UserError(f"{path}: strip_accents: expected true, false or null, found {strip_accents!r}")
    return lowercase, strip_accents


def _has_capital(token: str) -> bool:
    word = token.removeprefix(PIECE)
    return word.isalpha() and word != word.lower()


# Making


def of_characters(texts: Iterable[str] | Mapping[str, int], max_size: int) -> WordPiece:
    """See `Tokenizer.from_characters`."""
    latin = [*ascii_lowercase, *digits]
    chosen = dict.fromkeys([*BERT.specials, *latin, *(PIECE + c for c in latin)])
    if whole_number("max_size", max_size, 0) < len(chosen):
        raise UserError(f"max_size: expected at least {len(chosen)} (special tokens, a-z and 0-9), found {max_size}")
    raw: Counter[str] = Counter(texts) if isinstance(texts, Mapping) else Counter()
    if not isinstance(texts, Mapping):
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"text {i}: expected a string, found {type(text).__name__}")
            raw.update(text)
    split = WordPiece(tuple(chosen), BERT)
    counts: Counter[tuple[str, ...]] = Counter()
    for character, count in raw.items():
        # Between two letters a character shows its nature: gone, a gap, a word of its own, or part of the word.
        words = split.words(f"x{character}x")
        if len(words) == 1:
            counts.update({(c, PIECE + c): count for c in words[0][1:-1]})
        else:
            counts.update({(word,): count for word in words[1:-1]})
    for forms, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        new = [form for form in forms if form not in chosen]
        if len(chosen) + len(new) <= max_size:
            chosen.update(dict.fromkeys(new))
    return WordPiece(tuple(chosen), BERT)
