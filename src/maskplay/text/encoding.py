"""What encoding a text gives: ids, segments, and the way back to the characters."""

from dataclasses import dataclass


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
