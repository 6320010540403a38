"""What vocabularies have in common that are built by merging: a token's parts, bytes, and the mark for a space.

A shortened vocabulary keeps the splitting of a text exactly when it holds all its tokens and all that they can have
been merged from; `closure` finds the latter.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

SPACE = "▁"  # stands for a space in SentencePiece's vocabularies
SPACES = re.compile(r"(?<=\S)(?= )")  # in front of spaces: where a text may be cut if its vocabulary is `separable`
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def halves(token: str) -> Iterator[tuple[str, str]]:
    """Every way to cut a token in two.

    Example:
        >>> list(halves("abc"))
        [('a', 'bc'), ('ab', 'c')]
    """
    return ((token[:i], token[i:]) for i in range(1, len(token)))


def closure(tokens: Iterable[str], parts: Callable[[str], Iterable[str]]) -> set[str]:
    """The tokens and their parts, the parts' parts and so on.

    Example:
        >>> sorted(closure(["abc"], lambda token: [token[:-1]] if len(token) > 1 else []))
        ['a', 'ab', 'abc']
    """
    found: set[str] = set()
    pending = list(tokens)
    while pending:
        token = pending.pop()
        if token not in found:
            found.add(token)
            pending.extend(parts(token))
    return found


def parts_of(merges: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Each token that is merged, with all that it may be merged from.

    Example:
        >>> {token: sorted(parts) for token, parts in parts_of([("a", "b"), ("ab", "c")]).items()}
        {'ab': ['a', 'b'], 'abc': ['ab', 'c']}
    """
    parts: dict[str, set[str]] = {}
    for a, b in merges:
        parts.setdefault(a + b, set()).update((a, b))
    return parts


def kept_merges(merges: Iterable[tuple[str, str]], tokens: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The merges that a vocabulary of these tokens can still make.

    Example:
        >>> kept_merges([("a", "b"), ("ab", "c")], ["a", "b", "ab"])
        (('a', 'b'),)
    """
    there = set(tokens)
    return tuple(pair for pair in merges if there.issuperset((*pair, "".join(pair))))


def joined(tokens: Sequence[str], prefix: bool) -> str:
    """Text of SentencePiece's tokens: `▁` is a space, `<0xE4>` a byte; `prefix`: the first space was not in the text.

    Example:
        >>> joined(["▁a", "▁", "<0xE6>", "<0x88>", "<0x91>"], prefix=True)
        'a 我'
    """
    text = b""
    for token in tokens:
        byte = BYTE.fullmatch(token)
        text += bytes([int(byte[1], 16)]) if byte else token.replace(SPACE, " ").encode()
    return text.removeprefix(b" " if prefix else b"").decode("utf-8", errors="replace")


def separable(tokens: Iterable[str]) -> bool:
    """Whether no token reaches over a space, so that text in front of a space is split as if it ended there."""
    tokens = set(tokens)
    return SPACE in tokens and not any(SPACE in token.lstrip(SPACE) for token in tokens)
