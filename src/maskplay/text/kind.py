"""What every kind of vocabulary can do: split text into tokens with offsets, write tokens out, be edited, be saved.

A kind knows its tokens and its form and never adds special tokens by itself: `Tokenizer` frames, truncates and checks,
the same way for all of them. Kinds are immutable values; every edit returns a new one.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from maskplay.errors import UserError
from maskplay.text.characters import SURROGATES
from maskplay.text.forms import LLAMA, Form
from maskplay.text.vocabulary import VOCAB_TOKENS


class Pieces(NamedTuple):
    """One text, split: ids, and the characters `(start, end)` that each stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Flat(NamedTuple):
    """Many texts, split: the tokens of all, one text behind another.

    Attributes:
        ids: int32 `(tokens,)`.
        offsets: each token's `(start, end)` in its own text, int64 `(tokens, 2)`.
        sizes: tokens of each text, int64 `(texts,)`.
    """

    ids: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class Kind(ABC):
    """A vocabulary in id order, its form, and how it splits text."""

    tokens: tuple[str, ...]
    form: Form

    name: ClassVar[str]
    place: ClassVar[str] = "token"  # what errors number: tokens from 0, or the lines of a file from 1

    @cached_property
    def vocab(self) -> dict[str, int]:
        """Token to id."""
        return {token: i for i, token in enumerate(self.tokens)}

    def check(self, where: str) -> None:
        """Raise `UserError`, naming `where`, unless every token is usable and no special token is missing."""
        seen: set[str] = set()
        for i, token in enumerate(self.tokens):
            line = f"{where}, {self.place} {i + (self.place == 'line')}"
            if i == VOCAB_TOKENS:
                raise UserError(f"{line}: expected at most {VOCAB_TOKENS} tokens")
            if not isinstance(token, str) or not token:
                raise UserError(f"{line}: expected a token, found {'an empty line' if token == '' else repr(token)}")
            if SURROGATES.search(token) or (self.place == "line" and ("\n" in token or "\r" in token)):
                raise UserError(f"{line}: {token!r} cannot be a token")
            if token in seen:
                first = self.tokens.index(token) + (self.place == "line")
                raise UserError(f"{line}: the token {token!r} was already on {self.place} {first}")
            seen.add(token)
        missing = [name for name in self.form.specials if name not in seen]
        if missing:
            wanted = " ".join(self.form.specials)
            hint = foreign(seen, self.name)
            raise UserError(f"{where}: expected the special tokens {wanted}; missing {' '.join(missing)}{hint}")

    # Splitting and joining

    @abstractmethod
    def split(self, texts: Sequence[str], specials: bool) -> list[Pieces]:
        """Each text's tokens, none of them special but, with `specials`, those of `form.gaps` that it names.

        The texts hold no surrogates. Offsets rise, and no token begins or ends with a space unless it is nothing else.
        """

    def split_flat(self, texts: Sequence[str]) -> Flat:
        """The same without special tokens, as arrays."""
        found = self.split(texts, False)
        sizes = np.array([len(pieces.ids) for pieces in found], "int64")
        total = int(sizes.sum())
        ids = np.fromiter(chain.from_iterable(pieces.ids for pieces in found), "int32", total)
        ends = chain.from_iterable(chain.from_iterable(pieces.offsets for pieces in found))
        return Flat(ids, np.fromiter(ends, "int64", 2 * total).reshape(-1, 2), sizes)

    def cut(self, text: str, at: int) -> int:
        """A place at or after `at` where the text can be cut without changing the tokens before it."""
        return len(text)

    @abstractmethod
    def join(self, tokens: Sequence[str]) -> str:
        """Readable text."""

    # Editing

    def needs(self, ids: Iterable[int]) -> set[int]:
        """What a shortened vocabulary needs besides these ids: the special tokens, the parts its tokens are made of."""
        return {self.vocab[token] for token in self.form.specials}

    @abstractmethod
    def keep(self, ids: Sequence[int]) -> Self:
        """The same with these tokens only, which include what they need."""

    @abstractmethod
    def add(self, tokens: Sequence[str]) -> Self:
        """The same with these tokens appended, to be found in text as a whole."""

    # Files

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the files of this kind."""

    def settings(self) -> dict[str, Any]:
        """What goes into tokenizer_config.json."""
        names = {f"{role}_token": token for role, token in self.form.roles.items()}
        bos = self.form.bos is not None and self.form.bos in self.form.before
        framed = {"add_bos_token": bos} if self.form.saved_as == LLAMA.saved_as else {}
        return {"tokenizer_class": self.form.saved_as, **names, **framed}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


def foreign(tokens: set[str], name: str) -> str:
    """The end of an error's line: what this vocabulary looks like, if it is of another kind than `name`."""
    if name != "WordPiece" and {"[CLS]", "[SEP]"} <= tokens and any(token.startswith("##") for token in tokens):
        return "; this looks like BERT's WordPiece: open it with Tokenizer.from_vocab"
    if name != "byte-level BPE" and any(token.startswith("Ġ") for token in tokens):
        return "; this looks like byte-level BPE (RoBERTa, GPT-2): open it with Tokenizer.from_merges or load"
    if name == "WordPiece" and any(token.startswith("▁") for token in tokens):
        return "; this looks like SentencePiece: open its .model file with Tokenizer.from_sentencepiece"
    return ""


def check_new(tokens: Sequence[str], known: Iterable[str]) -> None:
    """Raise `UserError` unless these tokens can be added to a vocabulary that has the known ones."""
    taken = set(known)
    for token in tokens:
        if not token or any(c.isspace() for c in token):
            raise UserError(f"cannot add {token!r}: expected text without spaces")
        if token in taken:
            raise UserError(f"cannot add {token!r}: it is in the vocabulary already")
        taken.add(token)


def kept(added: Sequence[Any], tokens: Iterable[str]) -> tuple[Any, ...]:
    """Those of the added tokens that are still there."""
    there = set(tokens)
    return tuple(entry for entry in added if entry.token in there)
