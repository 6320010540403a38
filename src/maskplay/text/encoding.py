"""What encoding a text gives: ids, segments, and the way back to the characters."""

from dataclasses import dataclass

from maskplay.text.kind import Pieces


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encoded text (or pair): five lists of the same length, one entry a token.

    Attributes:
        ids: vocabulary ids.
        segments: BERT's: 0 up to and including the first [SEP], 1 after it; other forms have 0 everywhere.
        offsets: `(start, end)`, the token's characters in its own original text, without the space before it;
            `(0, 0)` for special tokens that were put around the text. Tokens made of one character (a decomposed
            Hangul syllable, the bytes of an emoji) share its span. A token that stands for nothing in the text (the
            space that SentencePiece puts before it) has an empty span.
        tokens: vocabulary strings.
        parts: 0 for tokens of the text, 1 for tokens of its pair, None for special tokens around them.
    """

    ids: list[int]
    segments: list[int]
    offsets: list[tuple[int, int]]
    tokens: list[str]
    parts: list[int | None]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Frame:
    """The ids that a form puts around a text or a pair, and the segment of the second text."""

    before: list[int]
    between: list[int]
    after: list[int]
    second: int

    def size(self, pair: bool) -> int:
        """How many tokens it takes."""
        return len(self.before) + len(self.after) + (len(self.between) if pair else 0)

    def around(
        self, a: Pieces, b: Pieces | None, room: int | None
    ) -> tuple[list[int], list[int], list[tuple[int, int]], list[int | None]]:
        """Ids, segments, offsets and parts; `room`: most tokens of the texts, the longer one of a pair is cut first."""
        m, n = len(a.ids), 0 if b is None else len(b.ids)
        if room is not None and m + n > room:
            # Dropping the last token of the longer text, of the second when equal, again and again, ends here.
            n = min(n, max(room // 2, room - m))
            m = min(m, room - n)
        ids = [*self.before, *a.ids[:m]]
        offsets = [*[(0, 0)] * len(self.before), *a.offsets[:m]]
        parts: list[int | None] = [*[None] * len(self.before), *[0] * m]
        segments = [0] * len(ids)
        last = 0
        if b is not None:
            last = self.second
            ids += [*self.between, *b.ids[:n]]
            offsets += [*[(0, 0)] * len(self.between), *b.offsets[:n]]
            parts += [*[None] * len(self.between), *[1] * n]
            segments += [*[0] * len(self.between), *[last] * n]
        ids += self.after
        offsets += [(0, 0)] * len(self.after)
        parts += [None] * len(self.after)
        segments += [last] * len(self.after)
        return ids, segments, offsets, parts
