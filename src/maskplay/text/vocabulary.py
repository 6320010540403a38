"""Vocabulary files: read with limits, checked token by token, every fault told with file and line.

Three files can describe a BERT tokenizer: Google's vocab.txt, the tokenizer_config.json beside it, and the
tokenizer.json of the Rust package. Of the last only the fields BERT needs are taken: a file never brings its own
regular expressions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from maskplay.errors import UserError
from maskplay.storage import read_json
from maskplay.text.characters import SURROGATES

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECE = "##"  # marks a piece that continues a word
WORD_LIMIT = 100  # characters; BERT reads a longer word as [UNK]
VOCAB_BYTES = 32 * 2**20
VOCAB_TOKENS = 2**20


class Added(NamedTuple):
    """A token that is matched in text as a whole, before WordPiece.

    Attributes:
        token: the text to match.
        single_word: not inside a longer word.
        normalized: in lower-cased text, in any case.
    """

    token: str
    single_word: bool
    normalized: bool = True


@dataclass(frozen=True)
class Vocabulary:
    """What a folder says about its tokenizer; `tokens` in id order."""

    tokens: Sequence[str]
    lowercase: bool = True
    strip_accents: bool | None = None  # None: as `lowercase`
    added: Sequence[Added] = ()


def index_tokens(tokens: Iterable[str], where: str) -> dict[str, int]:
    """Token to id, once every token is known to be usable and no special token is missing.

    Raises:
        UserError: names `where` and the line (the id plus one).
    """
    index: dict[str, int] = {}
    for i, token in enumerate(tokens):
        line = f"{where}, line {i + 1}"
        if i == VOCAB_TOKENS:
            raise UserError(f"{line}: expected at most {VOCAB_TOKENS} tokens")
        if not isinstance(token, str) or not token:
            raise UserError(f"{line}: expected a token, found {'an empty line' if token == '' else repr(token)}")
        if "\n" in token or "\r" in token or SURROGATES.search(token):
            raise UserError(f"{line}: {token!r} cannot be a token")
        if index.setdefault(token, i) != i:
            raise UserError(f"{line}: the token {token!r} was already on line {index[token] + 1}")
    missing = [name for name in SPECIALS if name not in index]
    if missing:
        raise UserError(f"{where}: expected the special tokens {' '.join(SPECIALS)}; missing {' '.join(missing)}")
    return index


def read_vocab(path: Path) -> list[str]:
    """The lines of a vocab.txt; a byte-order mark and Windows line ends are tolerated.

    Raises:
        UserError: the file cannot be read, is too large, or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(VOCAB_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) > VOCAB_BYTES:
        raise UserError(f"{path}: expected a vocabulary of at most {VOCAB_BYTES // 2**20} MiB, found a larger file")
    try:
        # Only \n ends a line: the vocabulary of bert-base-chinese holds U+2028, where splitlines() would cut.
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x} at offset {error.start}"
        raise UserError(f"{path}, line {line}: expected UTF-8, found {found}") from None
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_google(path: Path) -> Vocabulary:
    """A vocab.txt, with the settings of the tokenizer_config.json beside it.

    Google's checkpoints come without settings; then the vocabulary decides: a word with a capital letter means cased.
    """
    tokens = read_vocab(path)
    config = path.with_name("tokenizer_config.json")
    settings = read_json(config) if config.is_file() else {}
    settings.setdefault("do_lower_case", not any(map(_has_capital, tokens)))
    return Vocabulary(tokens, *_case(settings, "do_lower_case", ["tokenize_chinese_chars"], config))


def read_rust(path: Path) -> Vocabulary:
    """The BERT tokenizer in a tokenizer.json.

    Raises:
        UserError: it is another kind of tokenizer, or contradicts itself.
    """
    content = read_json(path)
    parts = [content.get(key) for key in ("model", "normalizer", "pre_tokenizer")]
    model, normalizer, splitter = (part if isinstance(part, dict) else {} for part in parts)
    kinds = [part.get("type") for part in (model, normalizer, splitter)]
    if kinds != ["WordPiece", "BertNormalizer", "BertPreTokenizer"]:
        raise UserError(f"{path}: expected a BERT tokenizer (WordPiece), found {', '.join(map(str, kinds))}")
    fixed = {"unk_token": "[UNK]", "continuing_subword_prefix": PIECE, "max_input_chars_per_word": WORD_LIMIT}
    for key, expected in fixed.items():
        if model.get(key) != expected:
            raise UserError(f"{path}: {key}: expected {expected!r}, found {model.get(key)!r}")
    vocab, entries = model.get("vocab"), content.get("added_tokens") or []
    if not isinstance(vocab, dict) or not isinstance(entries, list):
        raise UserError(f"{path}: expected a vocabulary and a list of added tokens")
    vocab, added = dict(vocab), []
    for entry in entries:
        token = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(token, str) or vocab.setdefault(token, entry.get("id")) != entry.get("id"):
            raise UserError(f"{path}: the added token {token!r} has no text, or two ids")
        if not entry.get("special"):
            if entry.get("lstrip") or entry.get("rstrip"):
                raise UserError(f"{path}: the added token {token!r} takes in the spaces around it: not supported")
            added.append(Added(token, bool(entry.get("single_word")), bool(entry.get("normalized"))))
    tokens: list[str | None] = [None] * len(vocab)
    for token, i in vocab.items():
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < len(vocab) or tokens[i] is not None:
            raise UserError(f"{path}: expected ids 0 to {len(vocab) - 1}, each once; {token!r} has {i!r}")
        tokens[i] = token
    in_order = [token for token in tokens if token is not None]
    return Vocabulary(in_order, *_case(normalizer, "lowercase", ["handle_chinese_chars", "clean_text"], path), added)


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
