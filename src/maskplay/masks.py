"""Who may see whom: attention masks as static rules over what tokens carry.

A token carries facts: its place in the sequence, its segment, its document, its place in a drawn order, whether it is
real. A rule says which key each query sees, and most rules are an *order*: query q sees key k exactly when
rank(k) <= rank(q). A rule holds no tensors, so one rule serves eager calls, `fit`, functional graphs, saving and cached
decoding; the facts arrive with each call. Rules combine with `&` and `|`.

Sources: "Transformer 如戏，全靠 Mask" (kexue.fm/archives/6933), UniLM (arXiv:1905.03197), XLNet (arXiv:1906.08237),
sparse attention (kexue.fm/archives/6853, arXiv:1904.10509).
"""

import ast
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from keras import ops

from maskplay.errors import MissingExtra, UserError

_register = keras.saving.register_keras_serializable(package="maskplay")


@dataclass(frozen=True)
class Facts:
    """What the tokens of one call carry; arrays or tensors `(length,)` or `(batch, length)`, or None when unknown.

    Attributes:
        length: number of keys.
        segments: ints; for `prefix`, 0 = source, 1 = target.
        order: ints, each token's place in the drawn order (a permutation of 0 … length-1).
        documents: ints, the same number for tokens of the same document.
        valid: bools or 0/1 ints, False for padding.
    """

    length: Any
    segments: Any = None
    order: Any = None
    documents: Any = None
    valid: Any = None

    def need(self, name: str, rule: "Mask") -> Any:
        fact = getattr(self, name)
        if fact is None:
            raise UserError(f"the mask {rule} needs the fact '{name}', which this call does not give: pass {name}=…")
        return fact


@dataclass(frozen=True)
class Plan:
    """How a rule can be executed without losing anything.

    Attributes:
        kind: "full" (nothing is hidden), "causal" (plainly causal, a fused kernel may be told so), "blocks" (local,
            atrous or sparse structure, which never needs an n × n matrix), or "dense".
        window: for blocks, keys at distance <= window are seen; None without a local part.
        stride: for blocks, keys at distances that are multiples of stride are seen; None without an atrous part.
        causal: for blocks, only keys that are not later.
        rest: the rule that must still hold inside the blocks (`full()` when nothing is left).
    """

    kind: Literal["full", "causal", "blocks", "dense"]
    window: int | None = None
    stride: int | None = None
    causal: bool = False
    rest: "Mask | None" = None


class Mask:
    """A static visibility rule; made by the functions of this module, combined with `&` and `|`.

    Rules compare equal by value, hash, and serialise with Keras (`keras.saving.serialize_keras_object`).
    """

    name: ClassVar[str]

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        """Visibility broadcastable to `(batch, queries, keys)`, for the queries at the places `at` (None = all)."""
        raise NotImplementedError

    def dense(self, n: int, segments: Any = None, order: Any = None, documents: Any = None, valid: Any = None) -> Any:
        """The whole rule as one boolean matrix, the reference that every faster execution must equal.

        Args:
            n: number of tokens.
            segments, order, documents, valid: the facts the rule needs, `(n,)` or `(batch, n)`; see `Facts`.

        Returns:
            Booleans, True = query (row) sees key (column): `(n, n)`, or `(batch, n, n)` when a fact that the rule uses
            has a batch axis. NumPy for NumPy arrays and lists, a backend tensor for backend tensors.

        Raises:
            UserError: a fact the rule needs is missing, or its length is not `n`.

        Example:
            >>> prefix().dense(4, segments=[0, 0, 1, 1]).astype(int)
            array([[1, 1, 0, 0],
                   [1, 1, 0, 0],
                   [1, 1, 1, 0],
                   [1, 1, 1, 1]])
        """
        return self.rows(None, n, segments=segments, order=order, documents=documents, valid=valid)

    def rows(
        self, at: Any, n: int, segments: Any = None, order: Any = None, documents: Any = None, valid: Any = None
    ) -> Any:
        """The rows of `dense` for the queries at the places `at`, without building the others: cached decoding.

        Args:
            at: ints `(queries,)`, places among the `n` keys.
            n: number of keys; the facts describe the keys, the queries are among them.

        Returns:
            Booleans `(queries, n)` or `(batch, queries, n)`.

        Example:
            >>> causal().rows([3], 5).astype(int)
            array([[1, 1, 1, 1, 0]])
        """
        given = {"segments": segments, "order": order, "documents": documents, "valid": valid}
        tensors = [fact for fact in (*given.values(), at) if keras.ops.is_tensor(fact)]
        xp = ops if tensors else np
        for name, fact in given.items():
            if fact is None:
                continue
            fact = ops.convert_to_tensor(fact) if tensors else np.asarray(fact)
            if len(fact.shape) not in (1, 2) or fact.shape[-1] != n:
                raise UserError(
                    f"the mask fact '{name}': expected shape ({n},) or (batch, {n}), found {tuple(fact.shape)}"
                )
            given[name] = fact
        if at is not None:
            at = ops.convert_to_tensor(at, "int32") if tensors else np.asarray(at)
        visible = self.sees(Facts(n, **given), at, xp)
        shape = (n if at is None else at.shape[0], n)
        return xp.broadcast_to(visible, tuple(visible.shape[:-2]) + shape)

    def plan(self) -> Plan:
        """How an attention layer may execute this rule.

        Example:
            >>> causal().plan().kind, (causal() & window(4)).plan().window, prefix().plan().kind
            ('causal', 4, 'dense')
        """
        parts = list(self.parts) if isinstance(self, And) else [self]
        if parts == [Full()]:
            return Plan("full")
        if parts == [Causal()]:
            return Plan("causal", causal=True)
        for part in parts:
            arms = list(part.parts) if isinstance(part, Or) else [part]
            windows = [arm.distance for arm in arms if isinstance(arm, Window)]
            strides = [arm.stride for arm in arms if isinstance(arm, Atrous)]
            if len(windows) + len(strides) == len(arms) and len(windows) <= 1 and len(strides) <= 1:
                rest = [other for other in parts if other is not part and other != Causal()]
                return Plan(
                    "blocks",
                    window=windows[0] if windows else None,
                    stride=strides[0] if strides else None,
                    causal=Causal() in parts,
                    rest=_combine(And, rest),
                )
        return Plan("dense")

    def picture(self, n: int, tokens: Sequence[str] | None = None, format: str = "svg", **facts: Any) -> Any:
        """Draw the rule: rows are queries, columns are keys, a filled cell is "sees".

        Args:
            n: number of tokens.
            tokens: labels for rows and columns, default the places 0 … n-1.
            format: "svg" gives text; "png" gives bytes and needs the `plot` extra.
            **facts: as for `dense`, without a batch axis.

        Example:
            >>> causal().picture(3).startswith("<svg")
            True
        """
        matrix, labels = self._drawable(n, tokens, facts)
        if format == "png":
            return _png(matrix, labels, str(self))
        if format != "svg":
            raise UserError(f"a mask picture's format: expected 'svg' or 'png', found {format!r}")
        cell, margin = 18, 22 + 9 * max(len(label) for label in labels)
        side = margin + cell * n + 8
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side + 20}" font-family="monospace" '
            f'font-size="12">',
            f"<title>{escape(str(self))}</title>",
            f'<text x="8" y="{side + 12}">{escape(str(self))}: rows see columns</text>',
        ]
        for i, label in enumerate(labels):
            middle = margin + cell * i + 13
            lines.append(f'<text x="{margin - 6}" y="{middle}" text-anchor="end">{escape(label)}</text>')
            lines.append(
                f'<text x="{middle - 4}" y="{margin - 6}" transform="rotate(-90 {middle} {margin - 6})">'
                f"{escape(label)}</text>"
            )
            for j in range(n):
                x, y, fill = margin + cell * j, margin + cell * i, "#2f6f8f" if matrix[i, j] else "#eef2f4"
                lines.append(f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{fill}"/>')
        return "\n".join([*lines, "</svg>", ""])

    def sketch(self, n: int, tokens: Sequence[str] | None = None, **facts: Any) -> str:
        """The same drawing as text for a terminal.

        Example:
            >>> print(causal().sketch(3))
            0 ■ · ·
            1 ■ ■ ·
            2 ■ ■ ■
        """
        matrix, labels = self._drawable(n, tokens, facts)
        width = max(len(label) for label in labels)
        return "\n".join(
            f"{label:>{width}} " + " ".join("■" if seen else "·" for seen in row)
            for label, row in zip(labels, matrix, strict=True)
        )

    def _drawable(self, n: int, tokens: Sequence[str] | None, facts: dict[str, Any]) -> tuple[np.ndarray, list[str]]:
        if not 1 <= n <= 512:
            raise UserError(f"a mask picture shows 1 to 512 tokens, found {n}")
        labels = [str(i) for i in range(n)] if tokens is None else [str(token) for token in tokens]
        if len(labels) != n:
            raise UserError(f"a mask picture of {n} tokens needs {n} labels, found {len(labels)}")
        matrix = ops.convert_to_numpy(self.dense(n, **facts))
        if matrix.ndim != 2:
            raise UserError("a mask picture shows one sequence: give each fact the shape (n,), without a batch axis")
        return matrix, labels

    def __and__(self, other: "Mask") -> "Mask":
        return _combine(And, [self, other]) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: "Mask") -> "Mask":
        return _combine(Or, [self, other]) if isinstance(other, Mask) else NotImplemented

    def __repr__(self) -> str:
        arguments = (getattr(self, field.name) for field in dataclasses.fields(self))  # type: ignore[arg-type]
        return f"{self.name}({', '.join(map(repr, arguments))})"

    def get_config(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Mask":
        return cls(**config)


# Rules that are an order: rank(key) <= rank(query).


class RankMask(Mask):
    """A rule of the form rank(key) <= rank(query); every token sees itself."""

    strict = False

    def rank(self, facts: Facts, xp: Any) -> Any:
        """Ranks `(length,)` or `(batch, length)`, ints."""
        raise NotImplementedError

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        query, key = _pair(self.rank(facts, xp), at, xp)
        return key < query if self.strict else key <= query


@_register
@dataclass(frozen=True, repr=False)
class Full(Mask):
    name = "full"

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        return xp.ones((1, 1), dtype="bool")


@_register
@dataclass(frozen=True, repr=False)
class Causal(RankMask):
    name = "causal"

    def rank(self, facts: Facts, xp: Any) -> Any:
        return xp.arange(facts.length)


@_register
@dataclass(frozen=True, repr=False)
class Reverse(RankMask):
    name = "reverse"

    def rank(self, facts: Facts, xp: Any) -> Any:
        return -xp.arange(facts.length)


@_register
@dataclass(frozen=True, repr=False)
class Prefix(RankMask):
    name = "prefix"

    def rank(self, facts: Facts, xp: Any) -> Any:
        # UniLM's rank is the cumulative sum of segments. Counting also each return from 1 to 0 closes its two traps:
        # padding (segment 0) after the target would share the last target's rank, and so would a second source.
        segments = facts.need("segments", self)
        before = xp.concatenate([segments[..., :1], segments[..., :-1]], axis=-1)
        steps = xp.logical_or(segments != 0, segments != before)
        return xp.cumsum(_cast(steps, xp), axis=-1)


@_register
@dataclass(frozen=True, repr=False)
class Permuted(RankMask):
    strict: bool = False
    name = "permuted"

    def rank(self, facts: Facts, xp: Any) -> Any:
        return facts.need("order", self)


# Rules about what two tokens share, or how far apart they are.


@_register
@dataclass(frozen=True, repr=False)
class Padding(Mask):
    name = "padding"

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        return facts.need("valid", self)[..., None, :] != 0


@_register
@dataclass(frozen=True, repr=False)
class Documents(Mask):
    name = "documents"

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        query, key = _pair(facts.need("documents", self), at, xp)
        return query == key


@_register
@dataclass(frozen=True, repr=False)
class Window(Mask):
    distance: int
    name = "window"

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        query, key = _pair(xp.arange(facts.length), at, xp)
        return xp.abs(query - key) <= self.distance


@_register
@dataclass(frozen=True, repr=False)
class Atrous(Mask):
    stride: int
    name = "atrous"

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        query, key = _pair(xp.arange(facts.length), at, xp)
        return query % self.stride == key % self.stride


@_register
@dataclass(frozen=True, repr=False)
class Fixed(Mask):
    block: int
    summary: int
    name = "fixed"

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        query, key = _pair(xp.arange(facts.length), at, xp)
        return xp.logical_or(query // self.block == key // self.block, key % self.block >= self.block - self.summary)


# Combinations.


class _Combination(Mask):
    parts: tuple[Mask, ...]
    sign: ClassVar[str]

    def __repr__(self) -> str:
        return f" {self.sign} ".join(f"({part})" if isinstance(part, Or) else str(part) for part in self.parts)

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        first, *others = (part.sees(facts, at, xp) for part in self.parts)
        join = xp.logical_and if isinstance(self, And) else xp.logical_or
        for other in others:
            first = join(first, other)
        return first

    def get_config(self) -> dict[str, Any]:
        return {"parts": [keras.saving.serialize_keras_object(part) for part in self.parts]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Mask:
        return cls(tuple(keras.saving.deserialize_keras_object(part) for part in config["parts"]))  # type: ignore[call-arg]


@_register
@dataclass(frozen=True, repr=False)
class And(_Combination):
    parts: tuple[Mask, ...]
    name = "and"
    sign = "&"


@_register
@dataclass(frozen=True, repr=False)
class Or(_Combination):
    parts: tuple[Mask, ...]
    name = "or"
    sign = "|"


def _combine(kind: type[And] | type[Or], rules: Sequence[Mask]) -> Mask:
    """One flat combination, without repetitions and in a fixed order, so that `a & b == b & a`."""
    parts: set[Mask] = set()
    for rule in rules:
        parts.update(rule.parts if isinstance(rule, kind) else [rule])
    if Full() in parts:
        if kind is Or:
            return Full()
        parts.discard(Full())
    if len(parts) < 2:
        return parts.pop() if parts else Full()
    return kind(tuple(sorted(parts, key=str)))


def _pair(fact: Any, at: Any, xp: Any) -> tuple[Any, Any]:
    """A per-token fact as queries `(..., queries, 1)` and keys `(..., 1, keys)`."""
    query = fact if at is None else xp.take(fact, at, axis=-1)
    return query[..., :, None], fact[..., None, :]


def _cast(x: Any, xp: Any) -> Any:
    return x.astype("int32") if xp is np else ops.cast(x, "int32")


# The rules as a user types them.


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
    return Window(_count("window(w)", w, 0))


def atrous(k: int) -> Mask:
    """A token sees the tokens at distances that are multiples of `k` (膨胀注意力).

    Example:
        >>> int(atrous(4).dense(16).sum())
        64
    """
    return Atrous(_count("atrous(k)", k, 1))


def sparse(k: int) -> Mask:
    """Local and atrous together: `window(k) | atrous(k)`, the symmetric form of OpenAI's strided attention.

    Example:
        >>> int(sparse(4).dense(16).sum()), int((sparse(4) & causal()).dense(16).sum())
        (148, 82)
    """
    return window(_count("sparse(k)", k, 1)) | atrous(k)


def fixed(l: int, c: int) -> Mask:  # noqa: E741 (the paper's letter)
    """A token sees its own block of `l` tokens and the last `c` tokens of every block (OpenAI's fixed pattern).

    Example:
        >>> fixed(2, 1).dense(4).astype(int)
        array([[1, 1, 0, 1],
               [1, 1, 0, 1],
               [0, 1, 1, 1],
               [0, 1, 1, 1]])
    """
    if _count("fixed(l, c): c", c, 0) > _count("fixed(l, c): l", l, 1):
        raise UserError(f"fixed(l, c): expected c <= l, found l={l}, c={c}")
    return Fixed(l, c)


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
        causal() & (atrous(4) | window(2))
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
        if len(text) > 1000:
            raise SyntaxError
        return build(ast.parse(text.strip(), mode="eval").body)
    except UserError:
        raise
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        known = ", ".join(RULES)
        raise UserError(f"expected a mask such as 'prefix() & padding()' made of {known}; found {text[:80]!r}") from None


def _count(what: str, value: int, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{what}: expected an integer of at least {least}, found {value!r}")
    return value


def _png(matrix: np.ndarray, labels: list[str], title: str) -> bytes:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("a mask picture as PNG", "plot") from None
    import io

    figure = Figure(figsize=(1 + 0.25 * len(labels), 1.3 + 0.25 * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1.4)
    axes.set_title(title, fontsize=9)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
