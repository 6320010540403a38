"""Byte-level BPE: GPT-2's and English RoBERTa's vocabularies, which split any string and give it back unchanged.

Text is cut into words by GPT-2's rule, a word's UTF-8 bytes are written as 256 printable characters, and pairs are
merged in the order of merges.txt.

Source: Radford et al. 2019, https://openai.com/research/better-language-models, and its released encoder.py.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from maskplay.errors import CheckpointError, UserError
from maskplay.storage import read_json, write_atomically
from maskplay.text.forms import GPT2, PLAIN, ROBERTA, Form
from maskplay.text.kind import check_new, foreign, kept
from maskplay.text.merges import closure, kept_merges, parts_of
from maskplay.text.rust import RustKind
from maskplay.text.vocabulary import (
    Added,
    RustFile,
    added_entries,
    flag,
    in_order,
    read_lines,
    read_settings,
    with_roles,
)

# A byte that prints stands for itself; the others follow from U+0100 on, in order.
PRINTING = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
SILENT = [byte for byte in range(256) if byte not in PRINTING]
CHARACTER = {byte: chr(byte) for byte in PRINTING} | {byte: chr(256 + i) for i, byte in enumerate(SILENT)}
BYTE = {character: byte for byte, character in CHARACTER.items()}
# No word goes on after a character that is followed by a space, nor from Chinese punctuation into a character.
END = re.compile(r"(?<=\S)(?=\s)|(?<=[，。！？；：、])(?=[\u4e00-\u9fff])")
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))  # Hugging Face's names, OpenAI's


@dataclass(frozen=True)
class ByteBPE(RustKind):
    """Bytes, merged in order.

    Attributes:
        merges: the pairs, the first to be merged first.
        prefix_space: whether a text is split as if a space stood before it.
    """

    merges: tuple[tuple[str, str], ...] = ()
    prefix_space: bool = False

    name: ClassVar[str] = "byte-level BPE"

    def check(self, where: str) -> None:
        super().check(where)
        bare = [token for token in CHARACTER.values() if token not in self.vocab]
        if bare:
            hint = foreign(set(self.tokens), self.name)
            raise UserError(f"{where}: expected a token for each of 256 bytes, {len(bare)} are missing{hint}")
        for i, (a, b) in enumerate(self.merges):
            unknown = [token for token in (a, b, a + b) if token not in self.vocab]
            if unknown:
                raise UserError(
                    f"{where}: merge {i + 1} ({a!r} {b!r}): {unknown[0]!r} is not in the vocabulary; do these merges "
                    "belong to this vocabulary?"
                )

    # Splitting and joining

    def cut(self, text: str, at: int) -> int:
        end = None if self.added else END.search(text, at)
        return end.start() if end else len(text)

    def join(self, tokens: Sequence[str]) -> str:
        whole = {*self.form.specials, *(added.token for added in self.added)}
        text = b""
        for token in tokens:
            plain = token not in whole and all(character in BYTE for character in token)
            text += bytes(BYTE[character] for character in token) if plain else token.encode()
        return text.decode("utf-8", errors="replace")

    # Editing

    @cached_property
    def _parts(self) -> dict[str, set[str]]:
        return parts_of(self.merges)

    def needs(self, ids: Iterable[int]) -> set[int]:
        tokens = closure((self.tokens[i] for i in ids), lambda token: self._parts.get(token, ()))
        return super().needs(ids) | {self.vocab[token] for token in (*tokens, *CHARACTER.values())}

    def keep(self, ids: Sequence[int]) -> Self:
        tokens = tuple(self.tokens[i] for i in ids)
        return replace(self, tokens=tokens, merges=kept_merges(self.merges, tokens), added=kept(self.added, tokens))

    def add(self, tokens: Sequence[str]) -> Self:
        check_new(tokens, self.tokens)
        added = (*self.added, *(Added(token, normalized=False) for token in tokens))
        return replace(self, tokens=(*self.tokens, *tokens), added=added)

    # Rust and files

    def rust(self, specials: Sequence[str] = ()) -> tokenizers.Tokenizer:
        rust = tokenizers.Tokenizer(models.BPE(self.vocab, list(self.merges)))
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=self.prefix_space)
        return self.found_whole(rust, specials)

    def write(self, folder: Path) -> None:
        rust = self.rust(self.form.specials)
        if self.form == ROBERTA:
            sep, cls = [(name, self.vocab[name]) for name in ("</s>", "<s>")]
            rust.post_processor = processors.RobertaProcessing(sep, cls, True, self.prefix_space)
        else:
            rust.post_processor = self.framed() or processors.ByteLevel(trim_offsets=False)
        rust.decoder = decoders.ByteLevel()
        write_atomically(folder / "vocab.json", json.dumps(self.vocab, ensure_ascii=False))
        write_atomically(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in self.merges))
        write_atomically(folder / "tokenizer.json", rust.to_str())

    def settings(self) -> dict[str, Any]:
        added = {
            str(self.vocab[one.token]): {"content": one.token, "single_word": one.single_word, "lstrip": False}
            | {"rstrip": False, "normalized": False, "special": False}
            for one in self.added
        }
        more = {"added_tokens_decoder": added} if added else {}
        return super().settings() | {"add_prefix_space": self.prefix_space} | more


# Reading


def read_pair(vocab_path: Path, merges_path: Path, form: Form | None = None) -> ByteBPE:
    """vocab.json and merges.txt, with the settings of the tokenizer_config.json beside them."""
    config = vocab_path.with_name("tokenizer_config.json")
    settings = read_settings(vocab_path.parent)
    vocab = read_json(vocab_path)
    added = []
    for token, (i, entry) in added_entries(settings, {}).items():
        vocab.setdefault(token, i)
        if not entry.get("special"):
            added.append(Added(token, bool(entry.get("single_word")), False))
    tokens = in_order(vocab, f"{vocab_path}")
    form = with_roles(guessed(tokens), settings, tokens) if form is None else form
    prefix_space = flag(settings, "add_prefix_space", False, config)
    return ByteBPE(tokens, form, tuple(added), read_merges(merges_path), prefix_space)


def guessed(tokens: Iterable[str]) -> Form:
    """The form by the special tokens that are there: RoBERTa's, GPT-2's, or none at all."""
    known = set(tokens)
    return next(form for form in (ROBERTA, GPT2, PLAIN) if known.issuperset(form.specials))


def read_merges(path: Path) -> tuple[tuple[str, str], ...]:
    """The pairs of a merges.txt; a first line `#version` is skipped."""
    merges = []
    for number, line in enumerate(read_lines(path), 1):
        if line and not (number == 1 and line.startswith("#version")):
            merges.append(_pair(line.split(" "), f"{path}, line {number}"))
    return tuple(merges)


def pairs_of(merges: Any) -> tuple[tuple[str, str], ...]:
    """Merges handed over as a list of pairs; a string of two letters is none."""
    if isinstance(merges, str | bytes) or not isinstance(merges, Iterable):
        raise UserError(f"merges: expected a list of pairs, found {merges!r:.80}")
    return tuple(_pair(list(m) if isinstance(m, tuple) else m, f"merge {i + 1}") for i, m in enumerate(merges))


def _pair(parts: Any, where: str) -> tuple[str, str]:
    if not (isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) and part for part in parts)):
        raise UserError(f"{where}: expected two tokens to merge, with one space between them, found {str(parts)[:80]}")
    return parts[0], parts[1]


def rust_merges(model: dict[str, Any], path: Path) -> tuple[tuple[str, str], ...]:
    """The merges of a tokenizer.json, as "a b" or as ["a", "b"]."""
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise UserError(f"{path}: expected a list of merges, found {type(merges).__name__}")
    split = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return tuple(_pair(merge, f"{path}, merge {i + 1}") for i, merge in enumerate(split))


def from_rust(file: RustFile) -> ByteBPE:
    """The byte-level BPE in a tokenizer.json; `UserError` for another kind of BPE."""
    splitter, model, path = file.splitter, file.model, file.path
    fixed = {"continuing_subword_prefix": "", "end_of_word_suffix": "", "dropout": None, "byte_fallback": False}
    odd = [key for key, usual in fixed.items() if (model.get(key) or usual) != usual]
    if file.normalizer or splitter.get("type") != "ByteLevel" or splitter.get("use_regex", True) is not True or odd:
        raise CheckpointError(
            f"{path}: expected GPT-2's byte-level BPE (no normalizer, pre_tokenizer ByteLevel), found normalizer "
            f"{file.normalizer.get('type')}, pre_tokenizer {splitter.get('type')}{''.join(f', {key}' for key in odd)}"
        )
    tokens = file.tokens(model.get("vocab"))
    prefix_space = flag(splitter, "add_prefix_space", False, path)
    form = file.form(tokens, ROBERTA, GPT2, PLAIN)
    return ByteBPE(tokens, form, file.added, rust_merges(model, path), prefix_space)
