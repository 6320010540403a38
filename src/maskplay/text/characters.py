"""What kind of character it is, and where readable text has spaces.

Only for editing vocabularies and for writing tokens out; how text is split is decided by the Rust tokenizer.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from maskplay.errors import UserError

# Scripts written without spaces, Hangul, and the punctuation and full-width forms that go with them.
ASIAN_BLOCKS = (
    (0x1100, 0x11FF),
    (0x2E80, 0xA4CF),
    (0xAC00, 0xD7FF),
    (0xF900, 0xFAFF),
    (0xFE30, 0xFE4F),
    (0xFF00, 0xFFEF),
    (0x20000, 0x3FFFF),
)
SURROGATES = re.compile("[\ud800-\udfff]")


def is_asian(character: str) -> bool:
    """Chinese characters, kana, Hangul, bopomofo and East Asian punctuation."""
    return any(first <= ord(character) <= last for first, last in ASIAN_BLOCKS)


def is_punctuation(character: str) -> bool:
    """Punctuation as BERT sees it: Unicode's, and every ASCII sign."""
    return character.isascii() and not character.isalnum() or unicodedata.category(character).startswith("P")


def listed_texts(texts: Any, what: str = "text") -> list[str]:
    """Texts as a list; one text alone would be taken for a list of its characters.

    Raises:
        UserError: one text alone, nothing that can be gone through, or something in it that is no text.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise UserError(f"expected a list of {what}s, found {texts!r:.60}")
    listed = list(texts)
    for i, text in enumerate(listed):
        if not isinstance(text, str):
            raise UserError(f"{what} {i}: expected a string, found {type(text).__name__}")
    return listed


def spaced(text: str, token: str) -> bool:
    """Whether readable text has a space between `text`, written so far, and the next word.

    Example:
        >>> [spaced("我爱", "bert"), spaced("we", "play"), spaced("we play", "."), spaced("3.", "14")]
        [False, True, False, False]
    """
    if not text or is_asian(text[-1]) or is_asian(token[0]):
        return False
    last, before, first = text[-1], text[-2:-1], token[0]
    if first in ".,!?;:%)]}”/_" or last in "([{$#@“‘/_":
        return False
    if first in "-'’":
        return not last.isalnum()
    if last in "-'’" and first.isalnum():
        return not before.isalnum()
    if first.isdigit() and (last in ".:" or last == "," and len(token) == 3):
        return not before.isdigit()  # 3.14, 10:30 and 1,000, but 3, 14
    return True


def without_surrogates(text: str) -> str:
    """Half a surrogate pair, which Rust refuses, becomes U+FFFD, which BERT ignores; every offset stays."""
    return SURROGATES.sub("\ufffd", text)


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A token's span without the spaces at its ends, unless it is nothing but spaces.

    Example:
        >>> trimmed("a bc", 1, 4), trimmed("a b", 1, 2)
        ((2, 4), (1, 2))
    """
    span = text[start:end]
    core = span.strip()
    if len(core) == len(span) or not core:
        return start, end
    return start + len(span) - len(span.lstrip()), end - len(span) + len(span.rstrip())
