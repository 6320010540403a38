"""WordPiece in plain Python, after the description in BERT's paper and README: the oracle for the tokenizer.

Written for clarity, not speed. Like the Rust tokenizer it lower-cases character by character, so a final sigma is an
ordinary one. `AGREED` tells the characters on which Python's Unicode tables and Rust's older ones agree.
"""

import unicodedata

CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),  # BERT's own code begins at 2B820; both users of the Rust package and we live with this hole
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def agreed(character: str) -> bool:
    """Characters of Unicode 3.2 whose category has not changed since."""
    old, new = unicodedata.ucd_3_2_0.category(character), unicodedata.category(character)
    return old == new and old not in ("Cn", "Cs")


def is_punctuation(character: str) -> bool:
    ascii_sign = character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    return ascii_sign or unicodedata.category(character).startswith("P")


def clean(character: str) -> str:
    """One character, cleaned: nothing, a space, or itself; Chinese characters get room."""
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    if character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co"):
        return ""
    return f" {character} " if any(a <= ord(character) <= b for a, b in CHINESE) else character


def words(text: str, lowercase: bool) -> list[str]:
    """The words of a text, normalised; every punctuation sign is one."""
    text = "".join(map(clean, text))
    if lowercase:
        text = "".join(character.lower() for character in text)
        text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    text = "".join(f" {character} " if is_punctuation(character) else character for character in text)
    return text.split()


def pieces(word: str, vocab: dict[str, int]) -> list[str]:
    """The longest piece that fits, again and again."""
    if len(word) > 100:
        return ["[UNK]"]
    found, start = [], 0
    while start < len(word):
        fits = (("##" if start else "") + word[start:end] for end in range(len(word), start, -1))
        piece = next((piece for piece in fits if piece in vocab), None)
        if piece is None:
            return ["[UNK]"]
        found.append(piece)
        start += len(piece) - 2 * (start > 0)
    return found


def tokens(text: str, vocab: dict[str, int], lowercase: bool) -> list[str]:
    return [piece for word in words(text, lowercase) for piece in pieces(word, vocab)]


def truncate(a: list, b: list, room: int) -> tuple[list, list]:
    """BERT's own way with pairs: the longer one loses its last token, the second when they are equal."""
    a, b = list(a), list(b)
    while len(a) + len(b) > room:
        (a if len(a) > len(b) else b).pop()
    return a, b
