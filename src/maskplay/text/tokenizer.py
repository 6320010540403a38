"""The tokenizer: text to token ids with character offsets, and back.

BERT's WordPiece (cased, uncased, Chinese) run by the Rust package `tokenizers`. Rust only splits text into pieces;
special tokens and truncation are added here, in the open, because Rust panics on some of their settings and keeps
others as state shared by all threads. A tokenizer never changes: every edit of the vocabulary returns a new one.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any, Self

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from maskplay.errors import UserError
from maskplay.storage import write_atomically
from maskplay.text.characters import is_asian, is_punctuation, spaced, without_surrogates
from maskplay.text.vocabulary import (
    PIECE,
    SPECIALS,
    WORD_LIMIT,
    Added,
    Vocabulary,
    index_tokens,
    read_google,
    read_rust,
    read_vocab,
)

# Characters that always stand alone for BERT: text cut in front of one splits into the same pieces as the whole text.
# Brackets are left out because of [MASK], the underscore because Rust counts it among the letters.
SEPARATORS = " \t\n\r\u3000!\"#$%&'()*+,-./:;<=>?@^`{|}~，。、！？；：（）《》「」『』【】“”‘’…—"
IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff"


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encoded text (or pair): five lists of the same length, one entry a token.

    Attributes:
        ids: vocabulary ids.
        segments: 0 up to and including the first [SEP], 1 after it.
        offsets: `(start, end)`, the token's characters in its own original text; `(0, 0)` for [CLS] and [SEP].
            Tokens made of one character (a decomposed Hangul syllable) share its span.
        tokens: vocabulary strings.
        parts: 0 for tokens of the text, 1 for tokens of its pair, None for [CLS] and [SEP].
    """

    ids: list[int]
    segments: list[int]
    offsets: list[tuple[int, int]]
    tokens: list[str]
    parts: list[int | None]

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """WordPiece as BERT defines it, with offsets into the original text.

    Made by `from_vocab`, `load` or `from_characters`. Special tokens are recognised by name: [PAD], [UNK], [CLS],
    [SEP], [MASK]; text that happens to spell one is ordinary text.

    Attributes:
        vocab: token to id, in id order; not to be changed.
        lowercase: whether text is lower-cased (and stripped of accents) before it is split.
        pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens.

    Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, and its released tokenization.py; where the two
    differ (final sigma, characters younger than Unicode 8) ids are those of the `tokenizers` package.

    Example:
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "我", "爱", "play", "##ing"]
        >>> tokenizer = Tokenizer.from_vocab(tokens)
        >>> encoding = tokenizer.encode("我爱 Playing")
        >>> encoding.tokens
        ['[CLS]', '我', '爱', 'play', '##ing', '[SEP]']
        >>> encoding.offsets
        [(0, 0), (0, 1), (1, 2), (3, 7), (7, 10), (0, 0)]
        >>> tokenizer.decode(encoding.ids)
        '我爱playing'
    """

    def __init__(self, vocabulary: Vocabulary, where: str = "vocabulary") -> None:
        """A checked vocabulary; `where` is what errors call it.

        Raises:
            UserError: a token is empty, repeated or not text, or a special token is missing.
        """
        self.vocab = index_tokens(vocabulary.tokens, where)
        self._vocabulary = replace(vocabulary, tokens=tuple(self.vocab), added=tuple(vocabulary.added))
        self._tokens = self._vocabulary.tokens
        self.lowercase = vocabulary.lowercase
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (self.vocab[name] for name in SPECIALS)
        self._plain = self._rust()
        added = [token for token, _, _ in vocabulary.added]
        inside = {*"".join(added), *"".join(map(self._normalized, added))}
        separators = "".join(c for c in SEPARATORS if c not in inside)
        self._separator = re.compile(f"[{re.escape(separators)}{'' if added else IDEOGRAPHS}]")

    # Opening and saving

    @classmethod
    def from_vocab(cls, source: str | os.PathLike[str] | Sequence[str], lowercase: bool = True) -> Self:
        """A tokenizer from a vocab.txt (one token a line) or from a list of tokens.

        Raises:
            UserError: the file cannot be read, is not UTF-8, is too large, or holds no usable vocabulary.
        """
        if isinstance(source, (str, os.PathLike)):
            return cls(Vocabulary(read_vocab(Path(source)), lowercase), f"{source}")
        return cls(Vocabulary(source, lowercase))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """The tokenizer in a model folder: tokenizer.json if there is one, else vocab.txt.

        Beside vocab.txt, tokenizer_config.json says whether to lower-case. Google's checkpoints come without it; then
        the vocabulary decides: one that holds a word with a capital letter is cased.

        Raises:
            UserError: nothing to load, or it is malformed or not BERT's WordPiece; names the file.
        """
        for name, read in (("tokenizer.json", read_rust), ("vocab.txt", read_google)):
            path = Path(folder) / name
            if path.is_file():
                return cls(read(path), f"{path}")
        raise UserError(f"{folder}: expected a tokenizer (tokenizer.json or vocab.txt), found neither")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write vocab.txt, tokenizer_config.json and tokenizer.json, which `transformers` opens as well."""
        rust = self._rust(SPECIALS)
        rust.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", self.cls_id), ("[SEP]", self.sep_id)],
        )
        rust.decoder = decoders.WordPiece(prefix=PIECE)
        settings = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": self.lowercase,
            "strip_accents": self._vocabulary.strip_accents,
            "tokenize_chinese_chars": True,
        }
        folder = Path(folder)
        write_atomically(folder / "vocab.txt", "".join(f"{token}\n" for token in self._tokens))
        write_atomically(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
        write_atomically(folder / "tokenizer.json", rust.to_str(pretty=True))

    @classmethod
    def from_characters(cls, texts: Iterable[str], max_size: int) -> Self:
        """A lower-case vocabulary of single characters, for training a small encoder from nothing.

        Holds the special tokens, a-z and 0-9 (as words and as pieces, so that no Latin word is unknown), then the
        characters of `texts`, the most frequent first, until `max_size` tokens. A character that forms words (Greek,
        kana ...) brings its `##` piece.

        Raises:
            UserError: `max_size` has no room for the fixed tokens.

        Example:
            >>> tokenizer = Tokenizer.from_characters(["山高水长", "高山"], max_size=80)
            >>> list(tokenizer.vocab)[-3:]
            ['山', '高', '水']
        """
        latin = [*ascii_lowercase, *digits]
        chosen = dict.fromkeys([*SPECIALS, *latin, *(PIECE + c for c in latin)])
        if max_size < len(chosen):
            raise UserError(
                f"max_size: expected at least {len(chosen)} (special tokens, a-z and 0-9), found {max_size}"
            )
        raw: Counter[str] = Counter()
        for text in texts:
            raw.update(text)
        split = cls.from_vocab(list(chosen))
        counts: Counter[tuple[str, ...]] = Counter()
        for character, count in raw.items():
            # Between two letters a character shows its nature: gone, a gap, a word of its own, or part of the word.
            words = split._words(f"x{character}x")
            if len(words) == 1:
                counts.update({(c, PIECE + c): count for c in words[0][1:-1]})
            else:
                counts.update({(word,): count for word in words[1:-1]})
        for forms, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            new = [form for form in forms if form not in chosen]
            if len(chosen) + len(new) <= max_size:
                chosen.update(dict.fromkeys(new))
        return cls.from_vocab(list(chosen))

    # Encoding

    def encode(
        self, text: str, pair: str | None = None, max_length: int | None = None, specials: bool = False
    ) -> Encoding:
        """One text or pair as `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`.

        Args:
            text: any string.
            pair: a second string.
            max_length: most tokens in all, special ones included; what is too long is cut on the right, of a pair the
                longer one first. A long text is read only as far as it is needed.
            specials: read "[MASK]" in the text as the mask token. Otherwise no text can produce a special token.

        Raises:
            UserError: not a string, or no room for the special tokens.
        """
        return self.encode_batch([text], None if pair is None else [pair], max_length, specials)[0]

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str | None] | None = None,
        max_length: int | None = None,
        specials: bool = False,
    ) -> list[Encoding]:
        """Many texts at once, on all processor cores; each as `encode` does it. A pair may be None."""
        pairs = [None] * len(texts) if pairs is None else pairs
        if isinstance(texts, str) or len(texts) != len(pairs):
            raise UserError(f"expected a list of texts and as many pairs, found {len(texts)} and {len(pairs)}")
        rooms = [self._room(max_length, pair) for pair in pairs]
        second = [i for i, pair in enumerate(pairs) if pair is not None]
        pieces = self._pieces([*texts, *(pairs[i] for i in second)], [*rooms, *(rooms[i] for i in second)], specials)
        partners = dict(zip(second, pieces[len(texts) :]))
        return [self._assemble(pieces[i], partners.get(i), rooms[i]) for i in range(len(texts))]

    @staticmethod
    def _room(max_length: int | None, pair: str | None) -> int | None:
        if max_length is None:
            return None
        least = 2 if pair is None else 3
        if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < least:
            raise UserError(f"max_length: expected at least {least} (the special tokens), found {max_length!r}")
        return max_length - least

    def _pieces(self, texts: list[Any], rooms: list[int | None], specials: bool) -> list[tokenizers.Encoding]:
        """Each text's pieces; where a room is given, at least that many pieces or all there are.

        A long text is not read to its end: its beginning is split, up to a separator, and a longer beginning only if
        that gave too few pieces.
        """
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"text {i}: expected a string, found {type(text).__name__}")
        rust = self._cloze if specials else self._plain
        found: dict[int, tokenizers.Encoding] = {}
        pending, reach = list(range(len(texts))), 2
        while pending:
            heads = [self._head(texts[i], rooms[i], reach) for i in pending]
            encodings = rust.encode_batch(heads, add_special_tokens=False)
            for i, head, encoding in zip(pending, heads, encodings):
                room = rooms[i]
                if room is None or len(head) == len(texts[i]) or len(encoding) >= room:
                    found[i] = encoding
            pending, reach = [i for i in pending if i not in found], reach * 4
        return [found[i] for i in range(len(texts))]

    def _head(self, text: str, room: int | None, reach: int) -> str:
        if room is not None and len(text) > (room + 16) * reach:
            separator = self._separator.search(text, (room + 16) * reach)
            text = text[: separator.start()] if separator else text
        return without_surrogates(text)

    def _assemble(self, a: tokenizers.Encoding, b: tokenizers.Encoding | None, room: int | None) -> Encoding:
        ids, more = a.ids, [] if b is None else b.ids
        m, n = len(ids), len(more)
        if room is not None and m + n > room:
            # Dropping the last token of the longer text, of the second when equal, again and again, ends here.
            n = min(n, max(room // 2, room - m))
            m = min(m, room - n)
        ids = [self.cls_id, *ids[:m], self.sep_id]
        offsets = [(0, 0), *a.offsets[:m], (0, 0)]
        parts: list[int | None] = [None, *[0] * m, None]
        segments = [0] * (m + 2)
        if b is not None:
            ids += [*more[:n], self.sep_id]
            offsets += [*b.offsets[:n], (0, 0)]
            parts += [*[1] * n, None]
            segments += [1] * (n + 1)
        return Encoding(ids, segments, offsets, [self._tokens[i] for i in ids], parts)

    # Decoding

    def decode(self, ids: Iterable[int], skip_specials: bool = True) -> str:
        """Readable text: pieces joined, no spaces beside Chinese characters, English punctuation set close.

        `skip_specials` leaves out all special tokens but [UNK], which stands for something that was there.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        hidden = {self.pad_id, self.cls_id, self.sep_id, self.mask_id} if skip_specials else set()
        text = ""
        for token in self.tokens(i for i in ids if i not in hidden):
            if token.startswith(PIECE) and len(token) > len(PIECE):
                text += token.removeprefix(PIECE)
            else:
                text += f" {token}" if spaced(text, token) else token
        return text

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary strings of ids; `UserError` for an id outside the vocabulary."""
        return [self._tokens[self._checked(i)] for i in ids]

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """The ids of vocabulary strings; `UserError` for a string that is not a token."""
        tokens = list(tokens)
        for token in tokens:
            if token not in self.vocab:
                raise UserError(f"{token!r} is not a token of this vocabulary")
        return [self.vocab[token] for token in tokens]

    def _checked(self, i: int) -> int:
        if not 0 <= i < len(self._tokens):
            raise UserError(f"token id {i}: the vocabulary has ids 0 to {len(self._tokens) - 1}")
        return int(i)

    # Editing the vocabulary

    def keep(self, ids: Sequence[int]) -> Self:
        """A new tokenizer with these tokens only, numbered in this order.

        Row `j` of the shortened embedding is row `ids[j]` of the old one.

        Raises:
            UserError: an id is unknown or repeated, or a special token is left out.
        """
        tokens = self.tokens(ids)
        kept = set(tokens)
        return self._with(tokens, [added for added in self._vocabulary.added if added.token in kept])

    def simplified(self) -> list[int]:
        """Ids worth keeping for plain Chinese text, in their old order: about 13,600 of bert-base-chinese's 21,128.

        Left out are pieces and entries of several characters that hold a Chinese character (`##中`: BERT makes every
        Chinese character a word, so it cannot occur), kana, Hangul or punctuation (`##の`, `[unused1]`, `...`).
        Special tokens, added tokens, single characters, Latin words and pieces stay.

        Source: `load_vocab(simplified=True)` of bert4keras.
        """
        wanted = {*SPECIALS, *(added.token for added in self._vocabulary.added)}

        def keeps(token: str) -> bool:
            text = token.removeprefix(PIECE)
            return token in wanted or len(token) == 1 or not any(is_asian(c) or is_punctuation(c) for c in text)

        return [i for token, i in self.vocab.items() if keeps(token)]

    def add(self, tokens: Sequence[str]) -> Self:
        """A new tokenizer with these tokens appended; in text they are matched as a whole, before WordPiece.

        A token may be of several Chinese characters ("机器学习"). One that begins or ends with a letter is not found
        inside a longer word; a lower-case tokenizer finds it in any case.

        Raises:
            UserError: a token is empty, holds a space, starts with ##, or is (but for case) in the vocabulary already.

        Example:
            >>> tokenizer = Tokenizer.from_characters(["机器学习"], max_size=90).add(["机器学习"])
            >>> tokenizer.encode("我爱机器学习").tokens
            ['[CLS]', '[UNK]', '[UNK]', '机器学习', '[SEP]']
        """
        forms = {self._normalized(added.token) for added in self._vocabulary.added}
        for token in tokens:
            form = self._normalized(token)
            if not form.strip() or token.startswith(PIECE) or any(c.isspace() for c in token):
                raise UserError(f"cannot add {token!r}: expected text without spaces that does not start with {PIECE}")
            if form in forms or token in self.vocab:
                raise UserError(f"cannot add {token!r}: it is in the vocabulary already")
            forms.add(form)
        new = [Added(token, single_word=not self._alone(token[0]) or not self._alone(token[-1])) for token in tokens]
        return self._with([*self._tokens, *tokens], [*self._vocabulary.added, *new])

    def _with(self, tokens: Sequence[str], added: Sequence[Added]) -> Self:
        return type(self)(replace(self._vocabulary, tokens=tokens, added=added))

    # The rest

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self._vocabulary == other._vocabulary

    def __hash__(self) -> int:
        return hash(self._vocabulary)

    def __repr__(self) -> str:
        return f"Tokenizer({len(self)} tokens, {'lower-case' if self.lowercase else 'cased'})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._vocabulary,)

    def _normalized(self, text: str) -> str:
        return self._plain.normalizer.normalize_str(without_surrogates(text))

    def _alone(self, character: str) -> bool:
        """Whether a character is a word of its own wherever it stands: Chinese characters and punctuation."""
        return len(self._words(f"x{character}x")) == 3

    def _words(self, text: str) -> list[str]:
        return [word for word, _ in self._plain.pre_tokenizer.pre_tokenize_str(self._normalized(text))]

    def _rust(self, specials: Sequence[str] = ()) -> tokenizers.Tokenizer:
        """The Rust tokenizer; `specials` are the names it finds in text. It is never changed after this."""
        rust = tokenizers.Tokenizer(
            models.WordPiece(
                self.vocab, unk_token="[UNK]", max_input_chars_per_word=WORD_LIMIT, continuing_subword_prefix=PIECE
            )
        )
        accents = self._vocabulary.strip_accents
        rust.normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=accents, lowercase=self.lowercase
        )
        rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        rust.add_special_tokens(list(specials))
        for added in self._vocabulary.added:
            rust.add_tokens([AddedToken(added.token, single_word=added.single_word, normalized=added.normalized)])
        return rust

    @cached_property
    def _cloze(self) -> tokenizers.Tokenizer:
        return self._rust(["[MASK]"])
