"""A corpus as token ids on disk: split into sentences and encoded once, then mapped into memory by every run.

A folder with four arrays of NumPy's own format: all ids in a row, where sentences and documents begin, and which tokens
begin a word. Text is encoded by several processes; what they find is joined in the order of the text, so the folder is
the same however many there are.
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import re
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from maskplay.errors import UserError
from maskplay.storage import MARKER, VERSION, new_folder, read_marker

__all__ = ["Prepared", "default_words", "prepare", "sentences"]

# The end of a sentence: its marks and the quotes and brackets that close behind them.
MARK, CLOSE = "。！？；…!?;", "”’」』）)\\]》\"'"
END = re.compile(rf"(?<=[{MARK}])(?![{MARK}{CLOSE}])|(?<=[{MARK}][{CLOSE}])|(?<=[.])(?=\s+[A-Z])")
# Words where nobody knows better: a run of letters and digits of an alphabet, and any other character alone.
WORD = re.compile(r"[^\W\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]+|\S")
BLOCK = 2**18  # characters that a process encodes at a time
ARRAYS = ("ids", "sentences", "documents", "words")


def sentences(text: str) -> list[str]:
    """The sentences of a line; joined they are the line.

    Example:
        >>> sentences("“走吧！”他说。我们走了。 OK. Go on")
        ['“走吧！”', '他说。', '我们走了。', ' OK.', ' Go on']
    """
    return [part for part in END.split(text) if part]


class DefaultWords:
    """Words as any vocabulary may see them: runs of letters and digits; every Chinese character alone.

    Example:
        >>> default_words("用 BERT-base 分类")
        ['用', 'BERT', '-', 'base', '分', '类']
        >>> default_words.begins("用 BERT").tolist()
        [True, False, True, False, False, False]
    """

    def __call__(self, text: str) -> list[str]:
        return WORD.findall(text)

    def begins(self, text: str) -> np.ndarray:
        """Where words begin, bool `(characters,)`."""
        kinds = _kinds()
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "uint32")
        found = kinds[np.minimum(codes, len(kinds) - 1)]
        for code in np.unique(codes[codes >= len(kinds)]).tolist():
            found[codes == code] = _kind(chr(code))
        follows = np.zeros(len(found), bool)
        follows[1:] = (found[1:] == LETTER) & (found[:-1] == LETTER)
        return (found != SPACE) & ~follows


default_words = DefaultWords()
SPACE, LETTER, SIGN = range(3)  # kinds of characters


def _kind(character: str) -> int:
    return SPACE if character.isspace() else LETTER if len(WORD.findall(f"{character}a")) == 1 else SIGN


@cache
def _kinds() -> np.ndarray:
    return np.array([_kind(chr(code)) for code in range(2**16)], "int8")


class Prepared:
    """A prepared corpus, mapped into memory.

    Args:
        folder: what `prepare` made.

    Attributes:
        ids: token ids of all text without special tokens, `(tokens,)`, uint16 or uint32.
        sentences: where each sentence begins in `ids`, and the end, int64 `(sentences + 1,)`.
        documents: which sentence each document begins with, and the end, int64 `(documents + 1,)`.
        words: whether a token begins a word, bool `(tokens,)`.
        pairs: whether documents 2i and 2i + 1 are a pair.

    Raises:
        UserError: no such folder, or something else than a prepared corpus is in it.

    Example:
        >>> import tempfile
        >>> from maskplay.text.tokenizer import Tokenizer
        >>> folder = Path(tempfile.mkdtemp()) / "tokens"
        >>> _ = prepare([["山高。"]], folder, Tokenizer.from_characters(["山高。"], max_size=90))
        >>> len(Prepared(folder).ids)
        3
    """

    ids: np.ndarray
    sentences: np.ndarray
    documents: np.ndarray
    words: np.ndarray
    pairs = False

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        description = read_marker(self.folder)
        if description.get("format") != "tokens":
            raise UserError(f"{self.folder}: expected a corpus prepared by maskplay, found {description.get('format')}")
        self.vocab_size: int = description.get("vocab_size", 0)
        self._vocab_sha256: str | None = description.get("vocab_sha256")  # older folders have none
        self.pairs = description.get("pairs") is True
        for name in ARRAYS:
            try:
                setattr(self, name, np.load(self.folder / f"{name}.npy", mmap_mode="r"))
            except (OSError, EOFError, ValueError) as error:
                raise UserError(f"{self.folder / name}.npy: missing or damaged ({error}); prepare it anew") from None
        sound = (
            all(getattr(self, name).ndim == 1 for name in ARRAYS)
            and min(len(self.sentences), len(self.documents)) > 0
            and len(self.ids) == len(self.words) == self.sentences[-1]
            and len(self.sentences) - 1 == self.documents[-1]
            and description.get("tokens") == len(self.ids)
            and not (self.pairs and len(self.documents) % 2 == 0)
        )
        if not sound:
            raise UserError(f"{self.folder}: its arrays do not belong together; prepare the corpus anew")

    def check_vocabulary(self, tokenizer: Any) -> None:
        """Refuse a tokenizer to which these ids are other tokens.

        Raises:
            UserError: the corpus was prepared with another vocabulary.
        """
        if self.vocab_size != len(tokenizer):
            found = f"a vocabulary of {self.vocab_size} tokens, the network's has {len(tokenizer)}"
        elif self._vocab_sha256 not in (None, _sha256(tokenizer)):
            found = f"another vocabulary than the network's, also of {self.vocab_size} tokens"
        else:
            return
        raise UserError(f"{self.folder}: prepared with {found}: prepare it anew")


def _sha256(tokenizer: Any) -> str:
    """Of the vocabulary, in the order of its ids."""
    return hashlib.sha256(json.dumps(list(tokenizer.vocab)).encode()).hexdigest()


def prepare(
    documents: Iterable[Sequence[str]],
    folder: str | os.PathLike[str],
    tokenizer: Any,
    words: Callable[[str], Sequence[str]] = default_words,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    pairs: bool = False,
) -> Prepared:
    """Encode a corpus and write it into a folder, whole or not at all.

    Args:
        documents: for each document its lines, each split into sentences here; a line of more than 262,144 characters
            is taken for several of the same document.
        folder: the folder to make.
        tokenizer: a `Tokenizer`.
        words: from a sentence to its words in order, for whole-word masking; what lies between them may be left out.
            `jieba.lcut`, `maskplay.text.words.jieba` and any `maskplay.words.Segmenter` are such. With several workers
            it must be importable.
        workers: processes; 1 = this one.
        progress: called with the number of characters that have been encoded since the last call.
        pairs: each document is two texts that mean the same, for the objective simbert.

    Raises:
        UserError: no text, a pair that is not two texts or has one without tokens, words that are not in the order of
            their text, or the folder's name is taken.

    Example:
        >>> import tempfile
        >>> from maskplay.text.tokenizer import Tokenizer
        >>> texts = ["山高。水长。", "风清月白"]
        >>> tokenizer = Tokenizer.from_characters(texts, max_size=100)
        >>> found = prepare([texts], Path(tempfile.mkdtemp()) / "tokens", tokenizer)
        >>> found.sentences.tolist(), found.documents.tolist()
        ([0, 3, 6, 10], [0, 3])
    """
    kind = np.dtype("uint16" if len(tokenizer) <= 2**16 else "uint32")
    if pairs:
        documents = _each_alone(documents)
    ends, firsts, count, begins = [np.zeros(1, "int64")], array("q"), 0, True
    with new_folder(folder) as made:
        with _Growing(made / "ids.npy", kind) as ids, _Growing(made / "words.npy", np.dtype(bool)) as starts:
            for block, (found, marks, lengths, counts) in _encoded(documents, tokenizer, words, workers):
                ids.write(found)
                starts.write(marks)
                ends.append(ends[-1][-1] + np.cumsum(lengths, dtype="int64"))
                for (line, first), size in zip(block, counts):
                    if pairs and not size:
                        raise UserError(f"a pair: expected two texts, found one without any token: {line!r:.80}")
                    begins |= first
                    if size and begins:
                        firsts.append(count)
                        begins = False
                    count += size
                if progress is not None:
                    progress(sum(len(line) for line, _ in block))
        if not count:
            raise UserError("the corpus: expected some text, found none")
        np.save(made / "sentences.npy", np.concatenate(ends))
        np.save(made / "documents.npy", np.append(np.array(firsts, "int64"), count))
        description = {"format": "tokens", "version": VERSION, "tokens": ids.size, "vocab_size": len(tokenizer)}
        description["vocab_sha256"] = _sha256(tokenizer)
        if pairs:
            description["pairs"] = True
        (made / MARKER).write_text(json.dumps(description) + "\n", encoding="utf-8")
    return Prepared(folder)


def _each_alone(pairs: Iterable[Sequence[str]]) -> Iterator[list[str]]:
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise UserError(f"a pair: expected two texts, found {pair!r:.80}")
        yield from ([text] for text in pair)


Block = list[tuple[str, bool]]  # lines, and whether each is the first of a document
Encoded = tuple[np.ndarray, np.ndarray, list[int], list[int]]  # ids, word starts, tokens a sentence, sentences a line


def _blocks(documents: Iterable[Sequence[str]]) -> Iterator[Block]:
    block: Block = []
    size = 0
    for document in documents:
        if isinstance(document, str):
            raise UserError(f"a document: expected a list of lines, found a text: write [[…], …] for {document!r:.60}")
        for i, line in enumerate(document):
            for start, stop in itertools.pairwise(_cuts(line)):
                block.append((line[start:stop], i == start == 0))
                size += stop - start
                if size >= BLOCK:
                    yield block
                    block, size = [], 0
    yield block


def _cuts(line: str) -> list[int]:
    """Where a line is cut so that no part is longer than a block: behind a sentence if there is one, else a word."""
    cuts = [0]
    while len(line) - cuts[-1] > BLOCK:
        start, stop = cuts[-1] + BLOCK // 2, cuts[-1] + BLOCK
        ends = (max(line.rfind(mark, start, stop) for mark in marks) + 1 for marks in (MARK, " \t"))
        cuts.append(next(filter(None, ends), stop))
    return [*cuts, len(line)]


def _encoded(
    documents: Iterable[Sequence[str]], tokenizer: Any, words: Callable[[str], Sequence[str]], workers: int
) -> Iterator[tuple[Block, Encoded]]:
    """Each block and what it was encoded to, in their order; a few are under way at a time."""
    if workers == 1:
        yield from ((block, encode(block, tokenizer, words)) for block in _blocks(documents))
        return
    # A fresh process: a copy of this one would hold the locks of threads that it does not have.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (tokenizer, words)) as pool:
        under_way: deque[tuple[Block, Future[Encoded]]] = deque()
        try:
            for block in _blocks(documents):
                under_way.append((block, pool.submit(_encode, block)))
                if len(under_way) > 2 * workers:
                    oldest, future = under_way.popleft()
                    yield oldest, future.result()
            for oldest, future in under_way:
                yield oldest, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_of_process: tuple[Any, ...] = ()


def _begin(*given: Any) -> None:
    global _of_process
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread each: there are as many processes as wanted
    _of_process = given


def _encode(block: Block) -> Encoded:
    return encode(block, *_of_process)


def encode(block: Block, tokenizer: Any, words: Callable[[str], Sequence[str]]) -> Encoded:
    """Ids of all the block's sentences, one after the other, and which of them begin a word."""
    parts = [sentences(line) for line, _ in block]
    texts = list(itertools.chain.from_iterable(parts))
    ids, offsets, sizes = tokenizer.split(texts)
    # All texts as one: which word each token's first character lies in, and where that changes.
    ends = np.cumsum([0, *map(len, texts)])
    begins = np.append(words.begins("".join(texts)) if isinstance(words, DefaultWords) else _begins(texts, words), True)
    begins[ends] = True
    word_of = np.cumsum(begins)[offsets[:, 0] + np.repeat(ends[:-1], sizes)]
    each = iter(sizes.tolist())
    lengths = [[size for size in itertools.islice(each, len(part)) if size] for part in parts]
    return ids, np.diff(word_of, prepend=0) != 0, [*itertools.chain.from_iterable(lengths)], [*map(len, lengths)]


def _begins(texts: list[str], words: Callable[[str], Sequence[str]]) -> np.ndarray:
    """Where in all texts as one a word begins."""
    begins = np.zeros(sum(map(len, texts)), bool)
    many = getattr(words, "many", None)  # one call for all of them, where there is such a method
    first = 0
    for text, found in zip(texts, many(texts) if many else map(words, texts)):
        at = 0
        for word in found:
            at = text.find(word, at)
            if at < 0:
                raise UserError(f"words: expected the words of a text in their order, found {word!r} in {text[:60]!r}")
            begins[first + at : first + at + 1] = True
            at += len(word)
        first += len(text)
    return begins


class _Growing:
    """A .npy file of one axis whose length is known at the end."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.dtype, self.size = dtype, 0
        self._file: BinaryIO = open(path, "wb")
        self._write_header()

    def _write_header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.size,)}
        np.lib.format.write_array_header_1_0(self._file, header)  # leaves room for the longest size

    def write(self, values: np.ndarray) -> None:
        self._file.write(values.astype(self.dtype).tobytes())
        self.size += len(values)

    def __enter__(self) -> "_Growing":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._file.seek(0)
            self._write_header()
        self._file.close()
