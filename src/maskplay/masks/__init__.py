"""Who may see whom: attention masks as static rules over what tokens carry.

A token carries facts: its place in the sequence, its segment, its document, its place in a drawn order, whether it is
real. A rule says which key each query sees, and most rules are an *order*: query q sees key k exactly when
rank(k) <= rank(q). A rule holds no tensors, so one rule serves eager calls, `fit`, functional graphs, saving and cached
decoding; the facts arrive with each call. Rules combine with `&` and `|`.

Sources: "Transformer 如戏，全靠 Mask" (kexue.fm/archives/6933), UniLM (arXiv:1905.03197), XLNet (arXiv:1906.08237),
sparse attention (kexue.fm/archives/6853, arXiv:1904.10509).
"""

import ast
from collections.abc import Callable

from maskplay.errors import UserError, whole_number
from maskplay.masks.rules import (
    MOST,
    Atrous,
    Causal,
    Documents,
    Facts,
    Fixed,
    Full,
    Mask,
    Padding,
    Permuted,
    Plan,
    Prefix,
    Reverse,
    Window,
)

__all__ = [
    "Facts",
    "Mask",
    "Plan",
    "atrous",
    "causal",
    "documents",
    "fixed",
    "full",
    "padding",
    "parse",
    "permuted",
    "prefix",
    "reverse",
    "sparse",
    "window",
]


def full() -> Mask:
    """Every token sees every token, padding too.

    Example:
        >>> bool(full().dense(3).all())
        True
    """
    return Full()


def causal() -> Mask:
    """A token sees itself and what comes before it: GPT, left-to-right language models.

    Example:
        >>> int(causal().dense(4).sum())
        10
    """
    return Causal()


def reverse() -> Mask:
    """A token sees itself and what comes after it: right-to-left language models.

    Example:
        >>> bool((reverse().dense(4) == causal().dense(4).T).all())
        True
    """
    return Reverse()


def prefix() -> Mask:
    """The source (segment 0) sees itself in both directions, the target (segment 1) sees the source and its own past.

    UniLM's seq2seq mask, also SimBERT's. Where a new source follows a target (several turns, or the zeros of padding),
    it counts as later: it sees everything before it and nothing before it sees it, so nothing leaks.

    Needs the fact `segments`.

    Example:
        >>> prefix().dense(3, segments=[0, 1, 0]).astype(int)  # the last token is padding
        array([[1, 0, 0],
               [1, 1, 0],
               [1, 1, 1]])
    """
    return Prefix()


def permuted(strict: bool = False) -> Mask:
    """A token sees the tokens that come no later in a drawn order: permuted language models (XLNet's content stream).

    Args:
        strict: a token does not see itself: the mask of XLNet's query stream. The first token then sees nothing, and
            an attention row that sees nothing is 0. In a single stream (strict=False) the output at a token never
            knows which position it will be asked about: two orders with the same beginning give the same outputs.

    Needs the fact `order`: each token's place in the drawn order. Any other ranks serve as well (turns of a dialogue,
    say): equal ranks see each other.

    Example:
        >>> permuted().dense(3, order=[2, 0, 1]).astype(int)
        array([[1, 1, 1],
               [0, 1, 0],
               [0, 1, 1]])
    """
    if not isinstance(strict, bool):
        raise UserError(f"permuted(strict): expected True or False, found {strict!r}")
    return Permuted(strict)


def padding() -> Mask:
    """A token sees the tokens that are real. Needs the fact `valid` (the encoder fills it from the padding id).

    Example:
        >>> padding().dense(2, valid=[True, False]).astype(int)
        array([[1, 0],
               [1, 0]])
    """
    return Padding()


def documents() -> Mask:
    """A token sees the tokens of its own document: several texts packed into one row. Needs the fact `documents`.

    Example:
        >>> documents().dense(3, documents=[7, 7, 8]).astype(int)
        array([[1, 1, 0],
               [1, 1, 0],
               [0, 0, 1]])
    """
    return Documents()


def window(w: int) -> Mask:
    """A token sees the tokens at distance at most `w`, on both sides: local attention.

    Example:
        >>> int(window(4).dense(16).sum())  # n(2w+1) - w(w+1)
        124
    """
    return Window(whole_number("window(w)", w, 0, MOST))


def atrous(k: int) -> Mask:
    """A token sees the tokens at distances that are multiples of `k` (膨胀注意力).

    Example:
        >>> int(atrous(4).dense(16).sum())
        64
    """
    return Atrous(whole_number("atrous(k)", k, 1, MOST))


def sparse(k: int) -> Mask:
    """Local and atrous together: `window(k) | atrous(k)`, the symmetric form of OpenAI's strided attention.

    Example:
        >>> int(sparse(4).dense(16).sum()), int((sparse(4) & causal()).dense(16).sum())
        (148, 82)
    """
    whole_number("sparse(k)", k, 1, MOST)
    return window(k) | atrous(k)


def fixed(l: int, c: int) -> Mask:  # noqa: E741 (the paper's letter)
    """A token sees its own block of `l` tokens and the last `c` tokens of every block (OpenAI's fixed pattern).

    Example:
        >>> fixed(2, 1).dense(4).astype(int)
        array([[1, 1, 0, 1],
               [1, 1, 0, 1],
               [0, 1, 1, 1],
               [0, 1, 1, 1]])
    """
    block, summary = whole_number("fixed(l, c): l", l, 1, MOST), whole_number("fixed(l, c): c", c, 0, MOST)
    if summary > block:
        raise UserError(f"fixed(l, c): expected c <= l, found l={l}, c={c}")
    return Fixed(block, summary)


RULES: dict[str, Callable[..., Mask]] = {
    rule.__name__: rule
    for rule in (full, causal, reverse, prefix, permuted, padding, documents, window, atrous, sparse, fixed)
}


def parse(text: str) -> Mask:
    """Read a rule as it is typed in Python or printed by `repr`; nothing else is evaluated.

    Raises:
        UserError: not an expression of rules joined by `&` and `|`.

    Example:
        >>> parse("causal() & (window(2) | atrous(4))")
        (atrous(4) | window(2)) & causal()
    """

    def build(node: ast.AST) -> Mask:
        match node:
            case ast.BinOp(left, ast.BitAnd(), right):
                return build(left) & build(right)
            case ast.BinOp(left, ast.BitOr(), right):
                return build(left) | build(right)
            case ast.Name(name) if name in RULES:
                return RULES[name]()
            case ast.Call(ast.Name(name), arguments, keywords) if name in RULES and all(k.arg for k in keywords):
                named = {str(k.arg): ast.literal_eval(k.value) for k in keywords}
                return RULES[name](*map(ast.literal_eval, arguments), **named)
        raise SyntaxError

    try:
        if not isinstance(text, str) or len(text) > 1000:
            raise SyntaxError
        return build(ast.parse(text.strip(), mode="eval").body)
    except UserError:
        raise
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        raise UserError(
            f"expected a mask such as 'prefix() & padding()' made of {', '.join(RULES)}; found {text!r:.80}"
        ) from None
