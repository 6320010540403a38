"""llama2.c's tokenizer file: pieces with scores, merged greedily, bytes for characters that are no token.

Its merges are SentencePiece's BPE in forty lines, so no library is needed; saving writes the file and beside it the
tokenizer.model that `transformers` opens.

Source: https://github.com/karpathy/llama2.c, run.c (encode, decode) and tokenizer.py (the file).
"""

import heapq
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

from maskplay.errors import CheckpointError, UserError
from maskplay.storage import write_atomically
from maskplay.text.characters import trimmed
from maskplay.text.forms import LLAMA
from maskplay.text.kind import Kind, Pieces
from maskplay.text.merges import BYTES, SPACE, SPACES, closure, halves, joined, separable
from maskplay.text.sentence_pieces import BYTE, CONTROL, NORMAL, UNKNOWN, SentencePieces
from maskplay.text.vocabulary import VOCAB_TOKENS, read_bytes

FIRST = ("<unk>", "<s>", "</s>", *BYTES)  # run.c finds these by number
STORED = {"<s>": "\n<s>\n", "</s>": "\n</s>\n"}  # how the file spells them
LOWEST = -1e10  # run.c merges nothing with a lower score
PIECE_BYTES = 1024


@dataclass(frozen=True)
class Llama2C(Kind):
    """Pairs merged into the piece of the best score, the leftmost first."""

    scores: tuple[float, ...] = ()

    name: ClassVar[str] = "llama2.c"

    def check(self, where: str) -> None:
        if self.tokens[: len(FIRST)] != FIRST:
            odd = next((i for i, name in enumerate(FIRST) if self.tokens[i : i + 1] != (name,)), 0)
            found = repr(self.tokens[odd]) if odd < len(self.tokens) else "the end"
            raise CheckpointError(f"{where}, token {odd}: expected {FIRST[odd]!r} as in llama2.c, found {found}")
        super().check(where)

    # Splitting and joining

    @cached_property
    def _index(self) -> dict[str, int]:
        """The pieces that text can be merged into, with spaces as in text."""
        plain = enumerate(self.tokens[len(FIRST) :], len(FIRST))
        return {token.replace(SPACE, " "): i for i, token in plain}

    def split(self, texts: Sequence[str], specials: bool) -> list[Pieces]:
        return [self._split(text) for text in texts]

    def _split(self, text: str) -> Pieces:
        ids, spans = [], []
        for at, character in enumerate(text, 1):
            start = at - 1
            if character in self._index:
                ids.append(self._index[character])
                spans.append((start, at))
            else:
                ids += [FIRST.index("<0x00>") + byte for byte in character.encode()]
                spans += [(start, at)] * (len(ids) - len(spans))
        if text:  # a space that is not in the text
            ids[:0] = [self._index[" "]] if " " in self._index else [FIRST.index("<0x20>")]
            spans.insert(0, (0, 0))
        alive = self._merge(ids, spans)
        return Pieces([ids[k] for k in alive], [trimmed(text, *spans[k]) for k in alive])

    def _merge(self, ids: list[int], spans: list[tuple[int, int]]) -> list[int]:
        """Merge in place; the places that are left. A heap holds the pairs, two lists what is beside what."""
        words = ["" if i < len(FIRST) else self.tokens[i].replace(SPACE, " ") for i in ids]
        after, before = [*range(1, len(ids)), -1], [*range(-1, len(ids) - 1)]
        heap: list[tuple[float, int, int, str]] = []

        def offer(k: int) -> None:
            right = after[k] if k >= 0 else -1
            if right >= 0 and words[k] and words[right]:
                whole = words[k] + words[right]
                if whole in self._index:
                    heapq.heappush(heap, (-self.scores[self._index[whole]], k, right, whole))

        for k in range(len(ids)):
            offer(k)
        while heap:
            _, k, right, whole = heapq.heappop(heap)
            if after[k] != right or words[k] + words[right] != whole or not words[k]:
                continue  # one of the two has been merged since
            ids[k], words[k], spans[k] = self._index[whole], whole, (spans[k][0], spans[right][1])
            words[right], after[k] = "", after[right]
            ids[right] = -1
            if after[k] >= 0:
                before[after[k]] = k
            offer(before[k])
            offer(k)
        return [k for k, i in enumerate(ids) if i >= 0]

    @cached_property
    def _separable(self) -> bool:
        return separable(self.tokens)

    def cut(self, text: str, at: int) -> int:
        space = SPACES.search(text, at) if self._separable else None
        return space.start() if space else len(text)

    def join(self, tokens: Sequence[str]) -> str:
        return joined(tokens, prefix=True)

    # Editing

    def needs(self, ids: Iterable[int]) -> set[int]:
        def parts(token: str) -> list[str]:
            inner = self.vocab[token] >= len(FIRST)
            return [part for pair in halves(token) if inner and all(p in self.vocab for p in pair) for part in pair]

        tokens = closure((self.tokens[i] for i in ids), parts)
        return {*range(len(FIRST)), *(self.vocab[token] for token in tokens)}

    def keep(self, ids: Sequence[int]) -> Self:
        if list(ids[: len(FIRST)]) != [*range(len(FIRST))]:
            raise UserError(f"expected the first {len(FIRST)} tokens first and in order: llama2.c finds them by number")
        return replace(self, tokens=tuple(self.tokens[i] for i in ids), scores=tuple(self.scores[i] for i in ids))

    def add(self, tokens: Sequence[str]) -> Self:
        raise UserError("llama2.c's tokenizer knows no added tokens: open the model's tokenizer.model to add some")

    # Files

    def write(self, folder: Path) -> None:
        stored = [STORED.get(token, token.replace(SPACE, " ")).encode() for token in self.tokens]
        entries = (struct.pack("<fi", score, len(piece)) + piece for score, piece in zip(self.scores, stored))
        header = struct.pack("<i", max(map(len, stored)))
        write_atomically(folder / "tokenizer.bin", header + b"".join(entries))
        types = (UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(stored) - len(FIRST)))
        SentencePieces(self.tokens, LLAMA, self.scores, types, unigram=False, squeeze=False).write(folder)


def read_llama2c(path: Path) -> Llama2C:
    """llama2.c's tokenizer.bin.

    Raises:
        CheckpointError: it is another file, or a damaged one.
    """
    content = read_bytes(path)
    tokens: list[str] = []
    scores: list[float] = []
    at = 4
    try:
        (longest,) = struct.unpack_from("<i", content, 0)
        while at < len(content):
            score, size = struct.unpack_from("<fi", content, at)
            at += 8
            if not 0 < size <= min(longest, PIECE_BYTES, len(content) - at) or len(tokens) >= VOCAB_TOKENS:
                raise ValueError(f"a piece of {size} bytes")
            if not (math.isfinite(score) and score > LOWEST):
                raise ValueError(f"the score {score}")
            tokens.append(content[at : at + size].decode("utf-8"))
            scores.append(score)
            at += size
    except (struct.error, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected llama2.c's tokenizer, found {error} at byte {at} (token {len(tokens)})"
        ) from None
    spelled = {stored: token for token, stored in STORED.items()}
    return Llama2C(tuple(spelled.get(t, t).replace(" ", SPACE) for t in tokens), LLAMA, tuple(scores))
