"""Vocabulary files, untrusted: read with limits, every fault told with file and line.

Shared by all kinds: reading a file's bytes, lines and JSON, bringing a `{token: id}` dictionary into order, and the
parts of a tokenizer.json that are the same for every model. Of the latter only known settings are taken: a file never
brings its own regular expressions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from maskplay.errors import CheckpointError, UserError
from maskplay.storage import read_json
from maskplay.text.forms import FORMS, ROLES, Form

VOCAB_BYTES = 32 * 2**20
VOCAB_TOKENS = 2**20


class Added(NamedTuple):
    """A token that is matched in text as a whole, before the rest is split.

    Attributes:
        token: the text to match.
        single_word: not inside a longer word.
        normalized: in normalized text, in any case.
    """

    token: str
    single_word: bool = False
    normalized: bool = True


def read_bytes(path: Path, limit: int = VOCAB_BYTES) -> bytes:
    """A whole file; `UserError` when it cannot be read or is larger than `limit` bytes."""
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) > limit:
        raise UserError(f"{path}: expected a vocabulary of at most {limit // 2**20} MiB, found a larger file")
    return content


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file; a byte-order mark and Windows line ends are tolerated.

    Raises:
        UserError: the file cannot be read, is too large, or is not UTF-8.
    """
    content = read_bytes(path)
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


def in_order(vocab: Any, where: str) -> tuple[str, ...]:
    """The tokens of a `{token: id}` dictionary by id; `UserError` unless the ids are 0, 1, 2 ... each once."""
    if not isinstance(vocab, dict):
        raise UserError(f"{where}: expected a vocabulary, token to id, found {type(vocab).__name__}")
    tokens: list[str | None] = [None] * len(vocab)
    for token, i in vocab.items():
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < len(vocab) or tokens[i] is not None:
            raise UserError(f"{where}: expected ids 0 to {len(vocab) - 1}, each once; {token!r} has {i!r}")
        tokens[i] = token
    return tuple(token for token in tokens if token is not None)


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json and the older special_tokens_map.json of a folder, as far as they are there."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings |= read_json(folder / name)
    return settings


def added_entries(settings: dict[str, Any], later: dict[str, Any]) -> dict[str, tuple[int, dict[str, Any]]]:
    """Added tokens by name, with id and flags: those of tokenizer_config.json, and of the older added_tokens.json."""
    named = settings.get("additional_special_tokens")
    named = named if isinstance(named, list) else []
    named = [each.get("content") if isinstance(each, dict) else each for each in named]
    found = {token: (i, {"special": token in named}) for token, i in later.items() if isinstance(i, int)}
    entries = settings.get("added_tokens_decoder")
    for i, entry in entries.items() if isinstance(entries, dict) else ():
        if isinstance(entry, dict) and isinstance(entry.get("content"), str) and i.isdecimal() and len(i) < 10:
            found[entry["content"]] = int(i), entry
    return found


def flag(settings: dict[str, Any], name: str, default: bool, path: Path) -> bool:
    """A true-or-false setting."""
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise UserError(f"{path}: {name}: expected true or false, found {value!r}")
    return value


def with_roles(form: Form, settings: dict[str, Any], tokens: Iterable[str]) -> Form:
    """A form with the special tokens that the settings name, as far as the vocabulary has them."""
    known = set(tokens)
    changes = {}
    for role in ROLES:
        value = settings.get(f"{role}_token")
        name = value.get("content") if isinstance(value, dict) else value
        if isinstance(name, str) and name in known:
            changes[role] = name
    return as_known(form.but(**changes))


def as_known(form: Form) -> Form:
    """A form that equals one of ours but for its class is that one."""
    return next((one for one in FORMS.values() if one.but(saved_as=form.saved_as) == form), form)


@dataclass(frozen=True)
class RustFile:
    """A tokenizer.json: its parts, checked as far as they are the same for every kind.

    Attributes:
        path: the file.
        model, normalizer, splitter, processor: the objects of that name ({} when there is none).
        vocab: token to id of the added tokens.
        added: the added tokens that are not special.
        specials: the names of those that are.
        settings: tokenizer_config.json beside it.
    """

    path: Path
    model: dict[str, Any]
    normalizer: dict[str, Any]
    splitter: dict[str, Any]
    processor: dict[str, Any]
    vocab: dict[str, int]
    added: tuple[Added, ...]
    specials: tuple[str, ...]
    settings: dict[str, Any]

    def tokens(self, vocab: Any) -> tuple[str, ...]:
        """The model's vocabulary and the added tokens together, in id order."""
        if not isinstance(vocab, dict):
            raise UserError(f"{self.path}: expected a vocabulary and a list of added tokens")
        for token, i in self.vocab.items():
            if vocab.get(token, i) != i:
                raise UserError(f"{self.path}: the added token {token!r} has no text, or two ids")
        return in_order({**vocab, **self.vocab}, f"{self.path}")

    def form(self, tokens: tuple[str, ...], *candidates: Form) -> Form:
        """The first of the candidates whose special tokens are there, changed to what the file and its settings say."""
        known = set(tokens)
        form = next(one for one in candidates if known.issuperset(one.specials))
        saved_as = self.settings.get("tokenizer_class")
        saved_as = saved_as if isinstance(saved_as, str) else form.saved_as
        form = form.but(**frame(self.processor, self.path), saved_as=saved_as)
        form = with_roles(form, self.settings, tokens)
        missing = [name for name in form.specials if name not in known]
        if missing:
            raise UserError(f"{self.path}: post_processor: {missing[0]!r} is not in the vocabulary")
        others = tuple(name for name in self.specials if name not in form.specials)
        return as_known(form.but(others=others))


def read_rust(path: Path) -> RustFile:
    """The parts of a tokenizer.json; `UserError` when it contradicts itself."""
    content = read_json(path)

    def part(key: str) -> dict[str, Any]:
        return value if isinstance(value := content.get(key), dict) else {}

    entries = content.get("added_tokens") or []
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected a vocabulary and a list of added tokens")
    vocab: dict[str, int] = {}
    added, specials = [], []
    for entry in entries:
        token = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(token, str) or not token or vocab.setdefault(token, entry.get("id")) != entry.get("id"):
            raise UserError(f"{path}: the added token {token!r} has no text, or two ids")
        if entry.get("special"):
            specials.append(token)
        elif entry.get("lstrip") or entry.get("rstrip"):
            raise UserError(f"{path}: the added token {token!r} takes in the spaces around it: not supported")
        else:
            added.append(Added(token, bool(entry.get("single_word")), bool(entry.get("normalized"))))
    model = part("model")
    if "type" not in model:  # files of 2020 leave it out: RoBERTa's, GPT-2's, BERT's
        marks = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece"}
        model["type"] = next((kind for mark, kind in marks.items() if mark in model), None)
    return RustFile(
        path,
        model,
        part("normalizer"),
        part("pre_tokenizer"),
        part("post_processor"),
        vocab,
        tuple(added),
        tuple(specials),
        read_settings(path.parent),
    )


def frame(processor: dict[str, Any], path: Path) -> dict[str, Any]:
    """The frame that a post_processor describes, as fields of a `Form`."""
    kind = processor.get("type")
    try:
        if kind in (None, "ByteLevel"):
            return {"before": (), "between": (), "after": (), "second": 0}
        if kind == "Sequence":
            steps = [step for step in processor["processors"] if step["type"] != "ByteLevel"]
            if len(steps) < 2:
                return frame(steps[0] if steps else {}, path)
        if kind in ("RobertaProcessing", "BertProcessing"):
            cls, sep = processor["cls"][0], processor["sep"][0]
            if not isinstance(cls, str) or not isinstance(sep, str):
                raise ValueError("names that are no text")
            twice = 2 if kind == "RobertaProcessing" else 1
            return {"before": (cls,), "between": (sep,) * twice, "after": (sep,), "second": 2 - twice}
        if kind == "TemplateProcessing":
            return _template(processor)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        pass
    raise CheckpointError(f"{path}: post_processor {kind}: expected special tokens around and between two texts")


def _template(processor: dict[str, Any]) -> dict[str, Any]:
    names: list[list[str]] = []
    segments: list[int] = []
    for part in ("single", "pair"):
        names.append([])
        for step in processor[part]:
            ((what, value),) = step.items()
            names[-1].append(f"\0{value['id']}" if what == "Sequence" else str(value["id"]))
            segments.append(int(value["type_id"]))
    single, pair = names
    a, first, second = single.index("\0A"), pair.index("\0A"), pair.index("\0B")
    before, between, after = pair[:first], pair[first + 1 : second], pair[second + 1 :]
    if single[:a] != before or single[a + 1 :] != after or not first < second:
        raise ValueError("the pair has another frame than the single text")
    second_segment = segments[len(single) + second]
    if second_segment not in (0, 1):
        raise ValueError("segment")
    return {"before": tuple(before), "between": tuple(between), "after": tuple(after), "second": second_segment}
