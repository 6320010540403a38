"""Kinds that the Rust package `tokenizers` splits.

Rust only splits text into pieces. Special tokens and truncation are added elsewhere, in the open, because Rust panics
on some of their settings and keeps others as state shared by all threads.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import tokenizers
from tokenizers import AddedToken, processors

from maskplay.errors import CheckpointError
from maskplay.text.characters import trimmed
from maskplay.text.kind import Kind, Pieces
from maskplay.text.vocabulary import Added


@dataclass(frozen=True)
class RustKind(Kind):
    """A kind whose pieces come from a `tokenizers.Tokenizer`, made once and never changed after."""

    added: tuple[Added, ...] = ()

    @abstractmethod
    def rust(self, specials: Sequence[str] = ()) -> tokenizers.Tokenizer:
        """The Rust tokenizer; `specials` are the names it finds in text."""

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        return self.rust()

    @cached_property
    def _cloze(self) -> tokenizers.Tokenizer:
        return self.rust(self.form.gaps)

    def found_whole(self, rust: tokenizers.Tokenizer, specials: Sequence[str]) -> tokenizers.Tokenizer:
        """Let it find these special tokens and the added ones; the mask takes in the space before it, as in RoBERTa."""
        mask = self.form.mask
        rust.add_special_tokens([AddedToken(name, lstrip=name == mask, normalized=False) for name in specials])
        rust.add_tokens([AddedToken(one.token, single_word=one.single_word, normalized=False) for one in self.added])
        return rust

    def framed(self) -> processors.TemplateProcessing | None:
        """What puts the form's special tokens around texts; None where there are none."""
        single, pair, names = self.form.template()
        special_tokens = [(name, self.vocab[name]) for name in names]
        return processors.TemplateProcessing(single=single, pair=pair, special_tokens=special_tokens) if names else None

    def split(self, texts: Sequence[str], specials: bool) -> list[Pieces]:
        rust = self._cloze if specials else self._plain
        try:
            encodings = rust.encode_batch(list(texts), add_special_tokens=False)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # a panic is no Exception, so that nobody catches it unaware
                raise
            raise CheckpointError(f"this {self.name} vocabulary cannot split its text: {error}") from None
        return [Pieces(e.ids, [trimmed(text, *span) for span in e.offsets]) for text, e in zip(texts, encodings)]
