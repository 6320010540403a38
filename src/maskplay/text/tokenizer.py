"""The tokenizer: text to token ids with character offsets, and back.

One class for every kind of vocabulary: WordPiece, words, byte-level BPE, SentencePiece, llama2.c. A kind only splits
text; special tokens, truncation and checks are here, the same for all. A tokenizer never changes: every edit of the
vocabulary returns a new one.
"""

import json
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Self

from maskplay.errors import UserError
from maskplay.storage import write_atomically
from maskplay.text import folders, wordpiece
from maskplay.text.byte_bpe import ByteBPE, guessed, pairs_of, read_pair
from maskplay.text.characters import listed_texts, without_surrogates
from maskplay.text.encoding import Encoding, Frame
from maskplay.text.forms import BERT, named
from maskplay.text.kind import Flat, Kind, Pieces
from maskplay.text.llama2c import read_llama2c
from maskplay.text.sentence_pieces import read_model
from maskplay.text.vocabulary import in_order
from maskplay.text.wordpiece import WordPiece
from maskplay.text.words import Segmenter, segmented


class Tokenizer:
    """Text to ids with offsets into the original text, and back, for every kind of vocabulary.

    Made by `load` (a folder or file of any kind), `from_vocab` (BERT's WordPiece, words), `from_merges` (byte-level
    BPE: RoBERTa, GPT-2), `from_sentencepiece` (ALBERT, T5, LLaMA), `from_llama2c` or `from_characters`. Text that
    happens to spell a special token is ordinary text.

    Attributes:
        vocab: token to id, in id order; not to be changed.
        kind: "WordPiece", "byte-level BPE", "SentencePiece" or "llama2.c".
        form: the special tokens by role, and what stands around a text.
        lowercase, segmenter: whether text is lower-cased before it is split; what finds words in it first, or None.
        pad_id, unk_id, cls_id, sep_id, mask_id, bos_id, eos_id: ids of the special tokens, None where there is none
            (`special` asks for one that must be there).

    Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, and its released tokenization.py; where the two
    differ (final sigma, characters younger than Unicode 8) ids are those of the `tokenizers` package. The sources of
    the other kinds stand in their files.

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

    def __init__(self, kind: Kind, where: str = "vocabulary") -> None:
        """A checked vocabulary; `where` is what errors call it.

        Raises:
            UserError: a token is empty, repeated or not text, or a special token is missing.
        """
        if isinstance(kind, str | os.PathLike):
            raise UserError(f"{kind!r:.80}: a file is opened with Tokenizer.load(path)")
        kind.check(where)
        self._kind, self.kind, self.vocab, self.form = kind, kind.name, kind.vocab, kind.form
        self.lowercase, self.segmenter = getattr(kind, "lowercase", False), getattr(kind, "segmenter", None)
        ids = {role: self.vocab[token] for role, token in self.form.roles.items()}
        self.pad_id, self.unk_id = ids.get("pad"), ids.get("unk")
        self.cls_id, self.sep_id, self.mask_id = ids.get("cls"), ids.get("sep"), ids.get("mask")
        self.bos_id, self.eos_id = ids.get("bos"), ids.get("eos")
        form = self.form
        around = (form.before, form.between, form.after)
        before, between, after = ([self.vocab[token] for token in tokens] for tokens in around)
        self._frame = Frame(before, between, after, form.second)
        # [UNK] is not hidden: it stands for something that was there.
        self._hidden = {self.vocab[token] for token in form.specials if token != form.unk or form.unk == form.eos}

    # Opening and saving

    @classmethod
    def load(cls, path: str | os.PathLike[str], segmenter: Segmenter | None = None) -> Self:
        """The tokenizer in a model folder, or in one file of it, whatever its kind.

        The first of these decides: tokenizer.json (WordPiece, byte-level BPE, SentencePiece), tokenizer.bin (llama2.c),
        spiece.model, tokenizer.model or the like, vocab.json with merges.txt (or OpenAI's encoder.json, vocab.bpe),
        vocab.txt. tokenizer_config.json beside it gives case and special tokens. Google's checkpoints come without it;
        then the vocabulary decides: one that holds a word with a capital letter is cased, one of Chinese words is split
        by jieba first (or by `segmenter`).

        Raises:
            UserError: nothing to load, half of a pair, or it is malformed or not supported; names the file.
            MissingExtra: a .model file without the package sentencepiece.
        """
        return cls(*folders.read(Path(path), segmenter))

    @staticmethod
    def lies_in(folder: str | os.PathLike[str]) -> bool:
        """Whether a folder holds a file that `load` would open."""
        return folders.lies_in(Path(folder)) is not None

    @classmethod
    def from_vocab(
        cls,
        source: str | os.PathLike[str] | Sequence[str] | Mapping[str, int],
        lowercase: bool = True,
        segmenter: Segmenter | None = None,
    ) -> Self:
        """BERT's WordPiece from a vocab.txt (one token a line), a list of tokens or a dictionary from token to id.

        Args:
            source: the file or the tokens.
            lowercase: whether text is lower-cased (and stripped of accents) before it is split.
            segmenter: for WoBERT and T5-PEGASUS: any function from a text to its words; those that are in the
                vocabulary become one token. A vocabulary of Chinese words gets jieba if none is given.

        Raises:
            UserError: the file cannot be read, is not UTF-8, is too large, or holds no usable vocabulary.
        """
        path = Path(source) if isinstance(source, (str, os.PathLike)) else None
        if path is None and not isinstance(source, Iterable):
            raise UserError(f"from_vocab: expected a file or a list of tokens, found a {type(source).__name__}")
        where = "vocabulary" if path is None else f"{path}"
        tokens = wordpiece.read_vocab(path) if path else in_order(source, where) if isinstance(source, dict) else source
        plain = WordPiece(tuple(tokens), BERT, (), lowercase)  # pyrefly: ignore[bad-argument-type]
        plain.check(where)
        return cls(segmented(plain, {}, segmenter, where), where)

    @classmethod
    def from_merges(
        cls,
        vocab: str | os.PathLike[str] | Mapping[str, int],
        merges: str | os.PathLike[str] | Sequence[tuple[str, str]],
        form: str | None = None,
    ) -> Self:
        """Byte-level BPE from vocab.json and merges.txt, or from a dictionary and a list of pairs.

        Args:
            vocab: token to id; ids 0, 1, 2 ... each once.
            merges: pairs of tokens, the first to be merged first.
            form: "roberta" (`<s> a </s></s> b </s>`), "gpt2" (nothing around the text) or "plain" (no special tokens);
                by default the one whose special tokens are there.

        Raises:
            UserError: a file cannot be read, or the two do not belong together.

        Example:
            >>> from maskplay.text.byte_bpe import CHARACTER
            >>> vocab = {token: i for i, token in enumerate([*CHARACTER.values(), "Ġa", "ab"])}
            >>> tokenizer = Tokenizer.from_merges(vocab, [("Ġ", "a"), ("a", "b")])
            >>> tokenizer.encode("ab ab é").tokens
            ['ab', 'Ġa', 'b', 'Ġ', 'Ã', '©']
        """
        if isinstance(vocab, (str, os.PathLike)) != isinstance(merges, (str, os.PathLike)):
            raise UserError("expected two files, or a dictionary and a list of pairs")
        if isinstance(vocab, (str, os.PathLike)) and isinstance(merges, (str, os.PathLike)):
            return cls(read_pair(Path(vocab), Path(merges), named(form)), f"{vocab}")
        tokens = in_order(vocab, "vocabulary")
        return cls(ByteBPE(tokens, named(form) or guessed(tokens), (), pairs_of(merges)))

    @classmethod
    def from_sentencepiece(
        cls,
        path: str | os.PathLike[str],
        form: str | None = None,
        lowercase: bool | None = None,
        sentinels: int | None = None,
    ) -> Self:
        """A SentencePiece model file, unigram or BPE.

        Args:
            path: spiece.model, tokenizer.model ...
            form: "albert" (`[CLS] a [SEP] b [SEP]`), "t5" (`a </s> b </s>`), "llama" (`<s> a`) or "plain" (nothing
                around the text); by default the one whose special tokens are there.
            lowercase: ALBERT only; by default what tokenizer_config.json says, else true.
            sentinels: T5 only: how many tokens `<extra_id_0>` ... follow the model's own; by default what
                tokenizer_config.json says, else 100, none if the model holds them itself (mT5).

        Raises:
            CheckpointError: it is damaged, or a kind of model that is not supported.
            MissingExtra: the package sentencepiece is not installed.
        """
        return cls(read_model(Path(path), named(form), lowercase, sentinels), f"{path}")

    @classmethod
    def from_llama2c(cls, path: str | os.PathLike[str]) -> Self:
        """llama2.c's tokenizer.bin.

        Raises:
            CheckpointError: it is another file, or a damaged one.
        """
        return cls(read_llama2c(Path(path)), f"{path}")

    @classmethod
    def from_characters(cls, texts: Iterable[str] | Mapping[str, int], max_size: int) -> Self:
        """A lower-case vocabulary of single characters, for training a small encoder from nothing.

        Holds the special tokens, a-z and 0-9 (as words and as pieces, so that no Latin word is unknown), then the
        characters of `texts` (or of counts by character), the most frequent first, until `max_size` tokens. A character
        that forms words (Greek, kana ...) brings its `##` piece.

        Raises:
            UserError: `max_size` has no room for the fixed tokens.

        Example:
            >>> tokenizer = Tokenizer.from_characters(["山高水长", "高山"], max_size=80)
            >>> list(tokenizer.vocab)[-3:]
            ['山', '高', '水']
        """
        return cls(wordpiece.of_characters(texts, max_size))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the files that `load` and `transformers` open: tokenizer_config.json, and by kind

        WordPiece: vocab.txt, tokenizer.json. Byte-level BPE: vocab.json, merges.txt, tokenizer.json. SentencePiece:
        spiece.model (LLaMA: tokenizer.model), or tokenizer.json if it came from one. llama2.c: tokenizer.bin and
        tokenizer.model.
        """
        folder = Path(folder)
        settings = json.dumps(self._kind.settings(), indent=2, ensure_ascii=False)
        self._kind.write(folder)
        write_atomically(folder / "tokenizer_config.json", settings + "\n")

    # Encoding

    def encode(
        self, text: str, pair: str | None = None, max_length: int | None = None, specials: bool = False
    ) -> Encoding:
        """One text or pair with its special tokens: for BERT `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`.

        Args:
            text: any string.
            pair: a second string.
            max_length: most tokens in all, special ones included; what is too long is cut on the right, of a pair the
                longer one first. A long text is read only as far as it is needed.
            specials: read "[MASK]" in the text as the mask token, "<extra_id_0>" as a sentinel. Otherwise no text can
                produce a special token.

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
        texts = listed_texts(texts)
        pairs = [None] * len(texts) if pairs is None else pairs
        if isinstance(pairs, str) or len(texts) != len(pairs):
            found = "a text" if isinstance(pairs, str) else len(pairs)
            raise UserError(f"expected a list of texts and as many pairs, found {len(texts)} and {found}")
        second = [i for i, pair in enumerate(pairs) if pair is not None]
        partner = listed_texts([pairs[i] for i in second], "pair")
        rooms = [self._room(max_length, pair) for pair in pairs]
        pieces = self._pieces([*texts, *partner], [*rooms, *(rooms[i] for i in second)], specials)
        partners = dict(zip(second, pieces[len(texts) :]))
        assembled = (self._frame.around(pieces[i], partners.get(i), rooms[i]) for i in range(len(texts)))
        return [Encoding(ids, s, o, [self._kind.tokens[i] for i in ids], p) for ids, s, o, p in assembled]

    def split(self, texts: Sequence[str]) -> Flat:
        """Whole texts without special tokens around them, as arrays: for corpora.

        Returns:
            The tokens of all texts, one text after another: `ids`, int32 `(tokens,)`, and `offsets`, each token's
            `(start, end)` in its own text, int64 `(tokens, 2)`; and `sizes`, how many each text has, int64 `(texts,)`.

        Example:
            >>> found = Tokenizer.from_characters(["山高水长"], max_size=90).split(["山高", "长"])
            >>> found.ids.tolist(), found.offsets.tolist(), found.sizes.tolist()
            ([77, 80, 79], [[0, 1], [1, 2], [0, 1]], [2, 1])
        """
        return self._kind.split_flat([without_surrogates(text) for text in listed_texts(texts)])

    def _room(self, max_length: int | None, pair: str | None) -> int | None:
        if max_length is None:
            return None
        specials = self._frame.size(pair is not None)
        least = max(specials, 1)
        if isinstance(max_length, bool) or not isinstance(max_length, Integral) or max_length < least:
            raise UserError(f"max_length: expected at least {least} (the special tokens), found {max_length!r:.40}")
        return int(max_length) - specials

    def _pieces(self, texts: list[Any], rooms: list[int | None], specials: bool) -> list[Pieces]:
        """Each text's pieces; where a room is given, at least that many pieces or all there are.

        A long text is not read to its end: its beginning is split, up to a place where its kind may cut, and a longer
        beginning only if that gave too few pieces.
        """
        found: dict[int, Pieces] = {}
        pending, reach = list(range(len(texts))), 2
        while pending:
            heads = [self._head(texts[i], rooms[i], reach) for i in pending]
            for i, head, pieces in zip(pending, heads, self._kind.split(heads, specials)):
                room = rooms[i]
                if room is None or len(head) == len(texts[i]) or len(pieces.ids) >= room:
                    found[i] = pieces
            pending, reach = [i for i in pending if i not in found], reach * 4
        return [found[i] for i in range(len(texts))]

    def _head(self, text: str, room: int | None, reach: int) -> str:
        if room is not None and len(text) > (room + 16) * reach:
            text = text[: self._kind.cut(text, (room + 16) * reach)]
        return without_surrogates(text)

    # Decoding

    def decode(self, ids: Iterable[int], skip_specials: bool = True) -> str:
        """Readable text; byte-level BPE gives back exactly what was encoded.

        `skip_specials` leaves out all special tokens but [UNK], which stands for something that was there. Bytes that
        are no UTF-8 become U+FFFD.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        hidden = self._hidden if skip_specials else set()
        return self._kind.join([self._kind.tokens[i] for i in map(self._checked, ids) if i not in hidden])

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary strings of ids; `UserError` for an id outside the vocabulary."""
        return [self._kind.tokens[self._checked(i)] for i in ids]

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """The ids of vocabulary strings; `UserError` for a string that is not a token."""
        tokens = listed_texts(tokens, "token")
        for token in tokens:
            if token not in self.vocab:
                raise UserError(f"{token!r} is not a token of this vocabulary")
        return [self.vocab[token] for token in tokens]

    def special(self, role: str) -> int:
        """The id of the special token with a role (pad, unk, cls, sep, mask, bos, eos) that is needed.

        Raises:
            UserError: this form has no such token.

        Example:
            >>> Tokenizer.from_characters(["山"], max_size=80).special("mask")
            4
        """
        token = self.form.roles.get(role)
        if token is None:
            there = ", ".join(f"{role} {token}" for role, token in self.form.roles.items()) or "none at all"
            raise UserError(f"this {self._kind.name} tokenizer has no {role} token; its special tokens: {there}")
        return self.vocab[token]

    def _checked(self, i: Any) -> int:
        try:
            i = operator.index(i)  # also of a backend's tensor
        except TypeError:
            raise UserError(f"token ids: expected integers, found {i!r:.60}") from None
        if not 0 <= i < len(self.vocab):
            raise UserError(f"token id {i}: the vocabulary has ids 0 to {len(self.vocab) - 1}")
        return i

    # Editing the vocabulary

    def keep(self, ids: Sequence[int]) -> Self:
        """A new tokenizer with these tokens only, numbered in this order.

        Row `j` of the shortened embedding is row `ids[j]` of the old one. A text all of whose tokens are kept is split
        into the same tokens as before; any other is split into what is left. For that a vocabulary needs more than the
        tokens themselves: its special tokens, bytes, and what its tokens are merged from; `complete` adds them.

        Raises:
            UserError: an id is unknown or repeated, or something that is needed is left out.
        """
        ids = [self._checked(i) for i in ids]
        tokens, chosen = self.tokens(ids), set(ids)
        if len(chosen) != len(tokens):
            twice = next(token for token in tokens if tokens.count(token) > 1)
            raise UserError(f"the token {twice!r} is in the list already")
        missing = self.tokens(sorted(self._kind.needs(chosen) - chosen))
        if missing:
            some = " ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
            raise UserError(f"cannot keep these tokens alone: missing {some}, which they need; complete(ids) adds them")
        return type(self)(self._kind.keep(ids))

    def complete(self, ids: Iterable[int]) -> list[int]:
        """The ids and after them, in order, the others without which `keep` cannot keep them."""
        chosen = list(dict.fromkeys(self._checked(i) for i in ids))
        return [*chosen, *sorted(self._kind.needs(chosen) - set(chosen))]

    def simplified(self) -> list[int]:
        """Ids worth keeping for plain Chinese text, in their old order: about 13,600 of bert-base-chinese's 21,128.

        Left out are pieces and entries of several characters that hold a Chinese character (`##中`: BERT makes every
        Chinese character a word, so it cannot occur), kana, Hangul or punctuation (`##の`, `[unused1]`, `...`).
        Special tokens, added tokens, single characters, Latin words and pieces stay, and in a vocabulary of words
        Chinese words.

        Raises:
            UserError: the vocabulary is not WordPiece.

        Source: `load_vocab(simplified=True)` of bert4keras.
        """
        if not isinstance(self._kind, WordPiece):
            raise UserError(f"only a WordPiece vocabulary can be simplified, this is {self._kind.name}")
        return self._kind.simplified()

    def add(self, tokens: Sequence[str]) -> Self:
        """A new tokenizer with these tokens appended; in text they are matched as a whole, before the rest is split.

        A token may be of several Chinese characters ("机器学习"). In WordPiece, one that begins or ends with a letter
        is not found inside a longer word, and a lower-case tokenizer finds it in any case; elsewhere it is found
        wherever it stands. llama2.c's file has no such tokens.

        Raises:
            UserError: a token is empty, holds a space, starts with ##, or is (but for case) in the vocabulary already.

        Example:
            >>> tokenizer = Tokenizer.from_characters(["机器学习"], max_size=90).add(["机器学习"])
            >>> tokenizer.encode("我爱机器学习").tokens
            ['[CLS]', '[UNK]', '[UNK]', '机器学习', '[SEP]']
        """
        return type(self)(self._kind.add(listed_texts(tokens, "token")))

    # The rest

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self.vocab)

    def __len__(self) -> int:
        return len(self.vocab)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self._kind == other._kind

    def __hash__(self) -> int:
        return hash(self._kind)

    def __repr__(self) -> str:
        case = "lower-case" if self.lowercase else "cased"
        return f"Tokenizer({self._kind.name}, {len(self)} tokens, {case})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._kind,)
