"""The rules behind `maskplay.masks`: what a rule is, how it is evaluated, planned, drawn, combined and saved.

A rule is written once, against NumPy or `keras.ops` (the argument `xp`), for all queries or those at the places `at`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from keras import ops

from maskplay import pictures
from maskplay.errors import UserError, whole_number

_register = keras.saving.register_keras_serializable(package="maskplay")
MOST = 2**31 - 1  # what an integer of a backend holds


@dataclass(frozen=True)
class Facts:
    """What the tokens of one call carry; arrays or tensors `(length,)` or `(batch, length)`, or None when unknown.

    Attributes:
        length: number of keys.
        segments: ints; for `prefix`, 0 = source, 1 = target.
        order: ints, each token's place in the drawn order (a permutation of 0 … length-1).
        documents: ints, the same number for tokens of the same document.
        valid: bools or 0/1 ints, False for padding.

    Example:
        >>> from maskplay import masks
        >>> masks.documents().sees(Facts(2, documents=np.array([7, 8])), None, np).astype(int)
        array([[1, 0],
               [0, 1]])
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
    """How a rule can be executed without losing anything. The encoder makes use of "full" and "causal".

    Attributes:
        kind: "full" (nothing is hidden), "causal" (plainly causal, a fused kernel may be told so), "blocks" (local,
            atrous or sparse structure, which never needs an n × n matrix), or "dense".
        window: for blocks, keys at distance <= window are seen; None without a local part.
        stride: for blocks, keys at distances that are multiples of stride are seen; None without an atrous part.
        causal: for blocks, only keys that are not later.
        rest: the rule that must still hold inside the blocks (`full()` when nothing is left).

    Example:
        >>> from maskplay import masks
        >>> (masks.window(2) & masks.causal() & masks.padding()).plan()
        Plan(kind='blocks', window=2, stride=None, causal=True, rest=padding())
    """

    kind: Literal["full", "causal", "blocks", "dense"]
    window: int | None = None
    stride: int | None = None
    causal: bool = False
    rest: "Mask | None" = None


class Mask:
    """A static visibility rule; made by the functions of `maskplay.masks`, combined with `&` and `|`.

    Rules compare equal by value, hash, and serialise with Keras (`keras.saving.serialize_keras_object`).

    Example:
        >>> from maskplay import masks
        >>> masks.causal() & masks.padding() == masks.padding() & masks.causal()
        True
    """

    name: ClassVar[str]
    needs: frozenset[str] = frozenset()  # the facts it reads

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
            >>> from maskplay import masks
            >>> masks.prefix().dense(4, segments=[0, 0, 1, 1]).astype(int)
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
            >>> from maskplay import masks
            >>> masks.causal().rows([3], 5).astype(int)
            array([[1, 1, 1, 1, 0]])
        """
        given = {"segments": segments, "order": order, "documents": documents, "valid": valid}
        given = {name: fact for name, fact in given.items() if fact is not None}
        tensors = any(ops.is_tensor(value) for value in (*given.values(), at, n))
        xp, array = (ops, ops.convert_to_tensor) if tensors else (np, np.asarray)
        n = n if ops.is_tensor(n) else whole_number("a mask's n", n, 0, MOST)
        batches = set()
        for name, fact in given.items():
            given[name] = fact = array(fact)
            known = isinstance(n, int) and len(fact.shape) > 0 and fact.shape[-1] is not None
            if len(fact.shape) not in (1, 2) or (known and fact.shape[-1] != n):
                raise UserError(
                    f"the mask fact '{name}': expected shape ({n},) or (batch, {n}), found {tuple(fact.shape)}"
                )
            batches.update({fact.shape[0]} - {None, 1} if len(fact.shape) == 2 else ())
        if len(batches) > 1:
            raise UserError(f"mask facts: expected one batch size, found {' and '.join(map(str, sorted(batches)))}")
        if at is not None:
            at = array(at)
            if len(at.shape) != 1 or (not tensors and at.size and not 0 <= at.min() <= at.max() < n):
                raise UserError(f"a mask's rows at: expected places 0 … {n - 1} of shape (queries,), found {at}")
        visible = self.sees(Facts(n, **given), at, xp)
        size = ops.shape if tensors else np.shape
        return xp.broadcast_to(visible, (*size(visible)[:-2], n if at is None else size(at)[0], n))

    def plan(self) -> Plan:
        """How an attention layer may execute this rule.

        Example:
            >>> from maskplay import masks
            >>> causal = masks.causal()
            >>> causal.plan().kind, (causal & masks.window(4)).plan().window, masks.prefix().plan().kind
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
                    rest=combine(And, rest),
                )
        return Plan("dense")

    def picture(self, n: int, tokens: Sequence[str] | None = None, format: str = "svg", **facts: Any) -> Any:
        """Draw the rule: rows are queries, columns are keys, a filled cell is "sees".

        Args:
            n: number of tokens.
            tokens: labels for rows and columns, default the places 0 … n-1.
            format: "svg" or "text" (for a terminal) give text; "png" gives bytes and needs the `plot` extra.
            **facts: as for `dense`, without a batch axis.

        Example:
            >>> from maskplay import masks
            >>> print(masks.causal().picture(3, format="text"))
            0 ■ · ·
            1 ■ ■ ·
            2 ■ ■ ■
        """
        if isinstance(n, int) and n > pictures.LARGEST:
            raise UserError(f"a picture shows at most {pictures.LARGEST} tokens, found {n}")
        matrix = ops.convert_to_numpy(self.dense(whole_number("a mask picture's n", n, 1, MOST), **facts))
        if matrix.ndim != 2:
            raise UserError("a mask picture shows one sequence: give each fact the shape (n,), without a batch axis")
        labels = [str(token) for token in (range(n) if tokens is None else tokens)]
        return pictures.draw(matrix, labels, str(self), format)

    def __and__(self, other: "Mask") -> "Mask":
        return combine(And, [self, other]) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: "Mask") -> "Mask":
        return combine(Or, [self, other]) if isinstance(other, Mask) else NotImplemented

    def __bool__(self) -> bool:
        raise UserError(f"{self}: a mask is neither true nor false; join rules with & and |, not with and, or, not")

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

    def rank(self, facts: Facts, xp: Any) -> Any:
        """Ranks `(length,)` or `(batch, length)`, ints."""
        raise NotImplementedError

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        query, key = _pair(self.rank(facts, xp), at, xp)
        return key <= query


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
    needs = frozenset({"segments"})

    def rank(self, facts: Facts, xp: Any) -> Any:
        # UniLM's rank is the cumulative sum of segments. Counting also each return from 1 to 0 closes its two traps:
        # padding (segment 0) after the target would share the last target's rank, and so would a second source.
        segments = facts.need("segments", self)
        size = np.shape if xp is np else ops.shape
        segments = xp.broadcast_to(segments, (*size(segments)[:-1], facts.length))  # also where one serves a whole row
        before = xp.concatenate([segments[..., :1], segments[..., :-1]], axis=-1)
        steps = xp.logical_or(xp.not_equal(segments, 0), xp.not_equal(segments, before))
        return xp.cumsum(_cast(steps, xp), axis=-1)


@_register
@dataclass(frozen=True, repr=False)
class Permuted(RankMask):
    strict: bool = False
    name = "permuted"
    needs = frozenset({"order"})

    def rank(self, facts: Facts, xp: Any) -> Any:
        return facts.need("order", self)

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        query, key = _pair(self.rank(facts, xp), at, xp)
        return key < query if self.strict else key <= query


# Rules about what two tokens share, or how far apart they are.


@_register
@dataclass(frozen=True, repr=False)
class Padding(Mask):
    name = "padding"
    needs = frozenset({"valid"})

    def sees(self, facts: Facts, at: Any, xp: Any) -> Any:
        return xp.not_equal(facts.need("valid", self), 0)[..., None, :]


@_register
@dataclass(frozen=True, repr=False)
class Documents(Mask):
    name = "documents"
    needs = frozenset({"documents"})

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


@dataclass(frozen=True, repr=False)
class _Combination(Mask):
    parts: tuple[Mask, ...]
    sign: ClassVar[str]

    def __repr__(self) -> str:
        return f" {self.sign} ".join(f"({part})" if isinstance(part, Or) else str(part) for part in self.parts)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset().union(*(part.needs for part in self.parts))

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
class And(_Combination):
    name = "and"
    sign = "&"


@_register
class Or(_Combination):
    name = "or"
    sign = "|"


def combine(kind: type[And] | type[Or], rules: Sequence[Mask]) -> Mask:
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
