"""Word-level Chinese vocabularies (WoBERT, T5-PEGASUS, RoFormer): words that a segmenter finds, WordPiece for the rest.

A word of the vocabulary is one token; any other is split as BERT does it, Chinese into single characters.

Source: Su 2020, https://kexue.fm/archives/7758, and the tokenizers of WoBERT and T5-PEGASUS.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from types import ModuleType
from typing import Any, Self

from tokenizers import normalizers

from maskplay.errors import MissingExtra, UserError
from maskplay.text.kind import Flat, Kind, Pieces
from maskplay.text.vocabulary import RustFile
from maskplay.text.wordpiece import PIECE, WordPiece, from_rust

Segmenter = Callable[[str], Sequence[str]]
WORD = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]{2,}")
MANY = 1000  # a vocabulary with more Chinese words than this is meant for a segmenter
SEPARATORS = " \t\n\r\u3000，。！？；：、（）《》“”"  # no word of jieba's goes over one of these
CLASS = "RoFormerTokenizer"  # the class of `transformers` that segments as well


def jieba(text: str) -> list[str]:
    """Words by jieba's dictionary, without its guesses at new words, as in the training of WoBERT.

    Raises:
        MissingExtra: jieba is not installed.
    """
    return _jieba().lcut(text, HMM=False)


@cache
def _jieba() -> ModuleType:
    try:
        import jieba as package
    except ImportError:
        raise MissingExtra("a vocabulary of Chinese words", "words") from None
    package.setLogLevel("WARNING")
    return package


@dataclass(frozen=True)
class Words(WordPiece):
    """WordPiece after a segmenter: any function from a text to its words, which are the text when joined.

    The segmenter sees text as it is split: cleaned, perhaps lower-cased.
    """

    segmenter: Segmenter = jieba

    def split(self, texts: Sequence[str], specials: bool) -> list[Pieces]:
        found = [list(self._words(text, specials)) for text in texts]
        rest = list(dict.fromkeys(word for words in found for word, _, token in words if token is None))
        pieces = dict(zip(rest, super().split(rest, False)))
        results = []
        for words in found:
            ids: list[int] = []
            offsets: list[tuple[int, int]] = []
            for word, origin, token in words:
                if token is None:
                    ids += pieces[word].ids
                    offsets += [(origin[a][0], origin[b - 1][1]) for a, b in pieces[word].offsets]
                else:
                    ids.append(token)
                    offsets.append((origin[0][0], origin[-1][1]))
            results.append(Pieces(ids, offsets))
        return results

    def split_flat(self, texts: Sequence[str]) -> Flat:
        return Kind.split_flat(self, texts)  # from `split`, not from the table

    def _words(self, text: str, specials: bool) -> Iterator[tuple[str, list[tuple[int, int]], int | None]]:
        """The words of a text, where their characters come from, and their id if they are tokens."""
        at = 0
        for gap in self._gaps.finditer(text) if specials else ():
            yield from self._segmented(text, at, gap.start())
            yield gap[0], [gap.span()], self.vocab[gap[0]]
            at = gap.end()
        yield from self._segmented(text, at, len(text))

    def _segmented(self, text: str, start: int, end: int) -> Iterator[tuple[str, list[tuple[int, int]], int | None]]:
        forms = [self._form(character) for character in text[start:end]]
        origin = [(i, i + 1) for i, form in enumerate(forms, start) for _ in form]
        plain, at = "".join(forms), 0
        for added in [*(self._added.finditer(plain) if self.added else ()), None]:
            stop = added.start() if added else len(plain)
            for word in self._checked(plain[at:stop]):
                whole = word in self.vocab and word not in self.form.specials and not word.startswith(PIECE)
                yield word, origin[at : at + len(word)], self.vocab[word] if whole else None
                at += len(word)
            if added:
                at = added.end()
                yield added[0], origin[stop:at], self._spelled[added[0]]

    def _checked(self, text: str) -> Sequence[str]:
        """The segmenter's words, once it is sure that nothing was added or lost."""
        words = self.segmenter(text) if text else []
        try:
            words = words if isinstance(words, Sequence) else list(words)
            whole = "".join(words) == text
        except TypeError:  # nothing to go through, or not of texts
            whole = False
        if not whole:
            raise UserError(f"the segmenter: expected words that are the text when joined, found {str(words)[:80]}")
        return words

    def _form(self, character: str) -> str:
        """A character as it is split; "" when it is left out."""
        if character not in self._forms:
            self._forms[character] = self._normalizer.normalize_str(character)
        return self._forms[character]

    @cached_property
    def _forms(self) -> dict[str, str]:
        return {}

    @cached_property
    def _normalizer(self) -> normalizers.Normalizer:
        return normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=False, strip_accents=self.strip_accents, lowercase=self.lowercase
        )

    @cached_property
    def _gaps(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.form.gaps)))

    @cached_property
    def _spelled(self) -> dict[str, int]:
        """Added tokens as they stand in text, to their ids."""
        return {"".join(map(self._form, added.token)): self.vocab[added.token] for added in self.added}

    @cached_property
    def _added(self) -> re.Pattern[str]:
        single = {"".join(map(self._form, added.token)): added.single_word for added in self.added}
        longest = sorted(single, key=len, reverse=True)
        return re.compile("|".join(rf"(?<!\w){re.escape(t)}(?!\w)" if single[t] else re.escape(t) for t in longest))

    def cut(self, text: str, at: int) -> int:
        # Where another segmenter may be interrupted is not known.
        return super().cut(text, at) if self.segmenter is jieba else len(text)

    @cached_property
    def _separator(self) -> re.Pattern[str]:
        inside = {*"".join(added.token for added in self.added), *"".join(self._spelled)}
        return re.compile(f"[{''.join(c for c in SEPARATORS if c not in inside)}]")

    def simplified(self) -> list[int]:
        words = (i for token, i in self.vocab.items() if WORD.fullmatch(token))
        return sorted({*super().simplified(), *words})

    def settings(self) -> dict[str, Any]:
        name = getattr(self.segmenter, "__name__", type(self.segmenter).__name__)
        return super().settings() | {"tokenizer_class": CLASS, "segmenter": name}

    @classmethod
    def over(cls, plain: WordPiece, segmenter: Segmenter) -> Self:
        """A WordPiece vocabulary with a segmenter before it."""
        same = {field.name: getattr(plain, field.name) for field in fields(WordPiece)}
        return cls(**same, segmenter=segmenter)


def segments(tokens: Iterable[str]) -> bool:
    """Whether a vocabulary is one of Chinese words."""
    return sum(WORD.fullmatch(token) is not None for token in tokens) > MANY


def segmented(plain: WordPiece, settings: dict[str, Any], segmenter: Segmenter | None, where: str) -> WordPiece:
    """The vocabulary with the segmenter that is given, or that its files and tokens ask for; else as it is.

    Raises:
        UserError: it was saved with a segmenter that only its user has.
    """
    if segmenter is not None:
        if not callable(segmenter):
            raise UserError(f"segmenter: expected a function from a text to its words, found {segmenter!r:.80}")
        return Words.over(plain, segmenter)
    named = settings.get("segmenter")
    if named not in (None, "jieba"):
        raise UserError(f"{where}: saved with a segmenter {str(named)[:80]!r} of your own: pass it, segmenter=...")
    hinted = named == "jieba" or CLASS in str(settings.get("tokenizer_class"))
    if segments(plain.tokens) or hinted and any(map(WORD.fullmatch, plain.tokens)):
        return Words.over(plain, jieba)
    return plain


def from_rust_words(file: RustFile) -> WordPiece:
    """As `wordpiece.from_rust`; a RoFormer's file leaves the Chinese characters to its segmenter."""
    if CLASS in str(file.settings.get("tokenizer_class")):
        file = replace(file, normalizer=file.normalizer | {"handle_chinese_chars": True})
    return from_rust(file)
