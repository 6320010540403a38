"""SentencePiece's vocabularies as a tokenizer.json: unigram (T5, ALBERT, XLM-R) and merges over characters (LLaMA).

They need no `sentencepiece`. Of the file's own normalization only known steps are taken, none with a regular expression
that is not ours.
"""

import base64
import binascii
import json
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import tokenizers
from tokenizers import decoders

from maskplay.errors import CheckpointError, UserError
from maskplay.storage import write_atomically
from maskplay.text.byte_bpe import rust_merges
from maskplay.text.forms import ALBERT, LLAMA, PLAIN, T5
from maskplay.text.kind import Pieces, check_new, kept
from maskplay.text.merges import BYTES, SPACE, SPACES, closure, joined, kept_merges, parts_of, separable
from maskplay.text.rust import RustKind
from maskplay.text.vocabulary import Added, RustFile, with_roles

NORMALIZERS: dict[str, tuple[str, ...]] = {
    "NFC": (),
    "NFD": (),
    "NFKC": (),
    "NFKD": (),
    "Nmt": (),
    "StripAccents": (),
    "Lowercase": (),
    "Strip": ("strip_left", "strip_right"),
    "Prepend": ("prepend",),
    "Replace": ("pattern", "content"),
    "Precompiled": ("precompiled_charsmap",),
}
SPLITTERS: dict[str, tuple[str, ...]] = {
    "WhitespaceSplit": (),
    "Metaspace": ("replacement", "prepend_scheme", "add_prefix_space", "split"),
}
PATTERNS = (" {2,}",)  # the regular expressions of released files
GROWING = 1  # steps that may put several characters in place of one
REPLACEMENT = 256  # bytes that one normalization step may put in place of a character; NFKC needs 33


@dataclass(frozen=True)
class Metaspace(RustKind):
    """Pieces with `▁` for a space, chosen by their scores (unigram) or merged in order.

    Attributes:
        scores: one for each token of a unigram vocabulary; () for merges.
        merges: the pairs, the first to be merged first.
        byte_fallback: whether a character that is no token becomes its bytes, `<0xE4>`.
        normalizer, splitter: the JSON of these parts, as far as they are known.
    """

    scores: tuple[float, ...] = ()
    merges: tuple[tuple[str, str], ...] = ()
    byte_fallback: bool = False
    normalizer: str = "null"
    splitter: str = "null"

    name: ClassVar[str] = "SentencePiece"

    def check(self, where: str) -> None:
        super().check(where)
        if self.form.unk is None and not self.byte_fallback:
            raise UserError(f"{where}: expected a token for what is unknown")
        for i, (a, b) in enumerate(self.merges):
            if not {a, b, a + b} <= self.vocab.keys():
                raise UserError(f"{where}: merge {i + 1} ({a!r} {b!r}): not all of it is in the vocabulary")
        try:
            _ = self._plain
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}") from None

    @property
    def lowercase(self) -> bool:
        return '"Lowercase"' in self.normalizer

    # Splitting and joining

    def split(self, texts: Sequence[str], specials: bool) -> list[Pieces]:
        pieces = super().split(texts, specials)
        return [Pieces(ids, self._exact(text, ids, spans)) for text, (ids, spans) in zip(texts, pieces)]

    def _exact(self, text: str, ids: list[int], spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Rust gives a space that it puts before a word the word's first letter, and `é` of two characters the `e`."""
        exact = []
        before = 0
        for i, (start, end), (after, _) in zip(ids, spans, [*spans[1:], (len(text), 0)]):
            if not self.tokens[i].strip(SPACE) and not text[start:end].isspace():
                start, end = before if text[before:start].isspace() else start, start
            while start < end < after and unicodedata.category(text[end]).startswith("M"):
                end += 1
            exact.append((start, end))
            before = end
        return exact

    @cached_property
    def _separable(self) -> bool:
        return not self.added and separable(self.tokens)

    def cut(self, text: str, at: int) -> int:
        space = SPACES.search(text, at) if self._separable else None
        return space.start() if space else len(text)

    @cached_property
    def prefix(self) -> bool:
        """Whether a text is split as if a space stood before it."""
        parts = ((self.normalizer, "normalizers"), (self.splitter, "pretokenizers"))
        steps = [step for part, key in parts for step in _steps(json.loads(part), key)]
        spaces = [step for step in steps if step["type"] in ("Metaspace", "Prepend")]
        return any(step.get("prepend_scheme", "always") != "never" for step in spaces)

    def join(self, tokens: Sequence[str]) -> str:
        return joined(tokens, self.prefix)

    # Editing

    @cached_property
    def _parts(self) -> dict[str, set[str]]:
        return parts_of(self.merges)

    def needs(self, ids: Iterable[int]) -> set[int]:
        tokens = closure((self.tokens[i] for i in ids), lambda token: self._parts.get(token, ()))
        more = {self.vocab[token] for token in (*tokens, *(BYTES if self.byte_fallback else ())) if token in self.vocab}
        if self.scores:  # what is unknown is charged by the lowest score
            more.add(self.scores.index(min(self.scores)))
        return super().needs(ids) | more

    def keep(self, ids: Sequence[int]) -> Self:
        tokens = tuple(self.tokens[i] for i in ids)
        merges = kept_merges(self.merges, tokens)
        scores = tuple(self.scores[i] for i in ids) if self.scores else ()
        return replace(self, tokens=tokens, scores=scores, merges=merges, added=kept(self.added, tokens))

    def add(self, tokens: Sequence[str]) -> Self:
        check_new(tokens, self.tokens)
        scores = (*self.scores, *[0.0] * len(tokens)) if self.scores else ()
        added = (*self.added, *(Added(token, normalized=False) for token in tokens))
        return replace(self, tokens=(*self.tokens, *tokens), scores=scores, added=added)

    # Rust and files

    def rust(self, specials: Sequence[str] = ()) -> tokenizers.Tokenizer:
        if self.scores:
            unk = None if self.form.unk is None else self.vocab[self.form.unk]
            hidden = set(self.form.specials) - {self.form.unk, *specials}
            # A name with a space is found in no text: spaces are `▁` by then.
            pairs = [(f"\0 {name}" if name in hidden else name, score) for name, score in zip(self.tokens, self.scores)]
            model: dict[str, Any] = {"type": "Unigram", "unk_id": unk, "vocab": pairs}
        else:
            model = {"type": "BPE", "unk_token": self.form.unk, "fuse_unk": True, "dropout": None}
            model |= {"vocab": self.vocab, "merges": [list(pair) for pair in self.merges], "ignore_merges": False}
        content = {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": json.loads(self.normalizer),
            "pre_tokenizer": json.loads(self.splitter),
            "model": model | {"byte_fallback": self.byte_fallback},
        }
        try:
            rust = tokenizers.Tokenizer.from_str(json.dumps(content))
        except BaseException as error:
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                raise CheckpointError(f"this {self.name} vocabulary cannot be used: {error}") from None
            raise
        return self.found_whole(rust, specials)

    def write(self, folder: Path) -> None:
        rust = self.rust(self.form.specials)
        if (framed := self.framed()) is not None:
            rust.post_processor = framed
        if self.byte_fallback:
            steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
            rust.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if self.prefix else [])])
        else:
            rust.decoder = decoders.Metaspace(SPACE, "always" if self.prefix else "never")
        content = json.loads(rust.to_str())
        if self.scores:  # Rust reads a number from text as one beside it; what we write is what we read
            content["model"]["vocab"] = list(zip(self.tokens, self.scores))
        write_atomically(folder / "tokenizer.json", json.dumps(content, ensure_ascii=False))


# Reading


def from_rust(file: RustFile) -> Metaspace:
    """The unigram vocabulary, or the merges over characters, in a tokenizer.json.

    Raises:
        UserError: it contradicts itself, or holds steps that are not known.
    """
    path, model = file.path, file.model
    scores: dict[str, float] = {}
    merges: tuple[tuple[str, str], ...] = ()
    unk: Any = model.get("unk_token")
    vocab = model.get("vocab")
    if model.get("type") == "Unigram":
        scores = _scores(vocab, path)
        vocab = {piece: i for i, piece in enumerate(scores)}
        unk_id = model.get("unk_id")
        if unk_id is not None and (type(unk_id) is not int or not 0 <= unk_id < len(vocab)):
            raise UserError(f"{path}: unk_id: expected an id of the vocabulary, found {unk_id!r}")
        unk = None if unk_id is None else list(vocab)[unk_id]
    else:
        merges = rust_merges(model, path)
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout", "ignore_merges"):
        if model.get(key):
            raise CheckpointError(f"{path}: model: {key}: expected none, found {str(model[key])[:80]}: not supported")
    tokens = file.tokens(vocab)
    form = with_roles(file.form(tokens, ALBERT, T5, LLAMA, PLAIN), {"unk_token": unk}, tokens)
    return Metaspace(
        tokens,
        form,
        file.added,
        tuple(scores.get(token, 0.0) for token in tokens) if scores else (),
        merges,
        model.get("byte_fallback") is True,
        json.dumps(_known(file.normalizer, "normalizers", NORMALIZERS, path)),
        json.dumps(_known(file.splitter, "pretokenizers", SPLITTERS, path)),
    )


def _scores(entries: Any, path: Path) -> dict[str, float]:
    scores: dict[str, float] = {}
    for i, entry in enumerate(entries if isinstance(entries, list) else [None]):
        fits = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and entry[0] not in scores
        if not fits or type(entry[1]) not in (int, float) or not math.isfinite(entry[1]):
            raise UserError(f"{path}: vocab: expected [piece, score], each piece once; entry {i} is {str(entry)[:80]}")
        scores[entry[0]] = float(entry[1])
    return scores


def _steps(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if not part:
        return []
    return part[key] if part.get("type") == "Sequence" else [part]


def _known(part: dict[str, Any], key: str, known: dict[str, tuple[str, ...]], path: Path) -> dict[str, Any] | None:
    """A normalizer or pre_tokenizer with its known steps and settings; `CheckpointError` for any other step."""
    steps = part.get(key) if part.get("type") == "Sequence" else [part] if part else []
    if isinstance(steps, list) and sum(isinstance(step, dict) and _grows(step) for step in steps) > GROWING:
        raise CheckpointError(f"{path}: {key}: expected at most {GROWING} steps that lengthen text, found more")
    taken = []
    for step in steps if isinstance(steps, list) else [None]:
        kind = step.get("type") if isinstance(step, dict) else None
        if not isinstance(step, dict) or not isinstance(kind, str) or kind not in known or not _harmless(step):
            raise CheckpointError(f"{path}: {key}: expected steps of SentencePiece, found {str(step)[:120]}")
        taken.append({"type": kind} | {name: step[name] for name in known[kind] if name in step})
    return {"type": "Sequence", key: taken} if taken else None


def _grows(step: dict[str, Any]) -> bool:
    """Whether a step may put many characters for one; of several, one multiplies what the other made."""
    content = step.get("content")
    return step.get("type") == "Precompiled" or isinstance(content, str) and len(content) > 1


def _harmless(step: dict[str, Any]) -> bool:
    if step["type"] == "Precompiled":
        try:
            check_charsmap(base64.b64decode(step.get("precompiled_charsmap") or "", validate=True))
        except (binascii.Error, TypeError, ValueError):
            return False
    if step["type"] == "Replace":
        pattern = step.get("pattern")
        known = isinstance(pattern, dict) and (bool(pattern.get("String")) or pattern.get("Regex") in PATTERNS)
        return known and len(str(step.get("content"))) <= 16
    if step["type"] == "Metaspace":
        return step.get("replacement") == SPACE
    return len(str(step.get("prepend", ""))) <= 16


def check_charsmap(charsmap: bytes) -> None:
    """Raise `ValueError` unless a precompiled table of replacements has its two parts and no replacement is long."""
    size = int.from_bytes(charsmap[:4], "little")
    if charsmap and not (len(charsmap) >= 4 and size % 4 == 0 and 0 < size <= len(charsmap) - 4):
        raise ValueError("the table's size is wrong")
    if max(map(len, charsmap[4 + size :].split(b"\0"))) > REPLACEMENT:
        raise ValueError("a replacement is too long")
