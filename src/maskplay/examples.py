"""Examples as people write them, where Keras takes arrays: lists of (text, label), dictionaries, table rows."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from maskplay.errors import DataError, UserError, listed


def examples_of(x: Any, name: str = "x") -> list[Any] | None:
    """A list of examples or texts as such; None for what only Keras understands.

    Raises:
        UserError: neither.
    """
    if isinstance(x, list):
        return x
    if getattr(getattr(x, "dtype", None), "kind", None) in ("O", "S", "U"):  # strings of NumPy or pandas
        return x.tolist()
    strange = isinstance(x, str | bytes | int | float | tuple | set | Iterator)
    nothing = x is None and name == "x"  # there need be no data to validate on
    if strange or nothing or (isinstance(x, Mapping) and "text" in x) or _is_frame(x):
        raise UserError(
            f"{name}: expected a list of texts or examples, or what Keras takes: arrays by name, tokens and segments, "
            f"or a dataset; found a {type(x).__name__}{': give its rows, a dictionary each' * _is_frame(x)}"
        )
    return None


def row_of(example: Any, i: int, labels: Sequence[str] | None) -> tuple[str, str | None, int]:
    """An example in any of its forms as (text, text2, number of its label), 0 where no `labels` are wanted.

    Raises:
        DataError: it has no text, or a label that is not among them.
    """
    text2 = label = None
    match example:
        case str() if labels is None:
            text = example
        case [text, label] if labels is not None:
            pass
        case [text, text2, label] if labels is not None:
            pass
        case [text, text2] | [text, text2, _] if labels is None:
            pass
        case Mapping():
            text, text2, label = (example.get(name) for name in ("text", "text2", "label"))
        case _:
            text, text2, label = (getattr(example, name, None) for name in ("text", "text2", "label"))
    where = f"example {i}" + (f" (line {example.line})" if hasattr(example, "line") else "")
    if not isinstance(text, str) or not isinstance(text2, str | None):
        form = "a text or (text, text2)" if labels is None else "(text, label) or (text, text2, label)"
        raise DataError(f"{where}: expected {form}, or an object with text; found {str(example)[:80]!r}")
    if labels is None:
        return text, text2, 0
    if not isinstance(label, str) or label not in labels:
        kind = "" if isinstance(label, str) else " (labels are strings)"
        raise DataError(f"{where}: expected a label among {listed(map(repr, labels))}, found {label!r:.80}{kind}")
    return text, text2, labels.index(label)


def texts_in(texts: Any) -> Any:
    """Texts or examples that can be counted and cut into parts.

    Raises:
        UserError: a text alone, a set, a dictionary, a generator, or nothing of the kind.
    """
    if isinstance(texts, str):
        raise UserError(f"expected a list of texts, found one: write [{texts[:40]!r}]")
    listlike = hasattr(texts, "__len__") and hasattr(texts, "__getitem__")
    if not listlike or isinstance(texts, bytes | Mapping) or _is_frame(texts):
        advice = ": give its rows, a dictionary each" if _is_frame(texts) else ""
        raise UserError(f"expected a list of texts or examples, found a {type(texts).__name__}{advice}")
    return texts


def _is_frame(x: Any) -> bool:
    """Whether it is a table, of pandas say, whose elements would be its columns' names."""
    return "text" in getattr(x, "columns", ())


def names_of(labels: Any) -> tuple[str, ...]:
    """The labels of a classifier, in their order.

    Raises:
        UserError: fewer than two, one twice, one that UTF-8 cannot write, or a set, whose order is another each time.
    """
    ordered = isinstance(labels, Iterable) and not isinstance(labels, str | bytes | set | frozenset | Mapping)
    names = tuple(labels) if ordered else ()
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise UserError(f"labels: expected a list of at least two names, found {labels!r:.200}")
    if len(set(names)) != len(names):
        twice = [name for name, times in Counter(names).items() if times > 1]
        raise UserError(f"labels: expected each name once, found twice {listed(twice)}")
    if odd := [name for name in names if any("\ud800" <= c <= "\udfff" for c in name)]:
        raise UserError(f"labels: expected text, found half of a character in {odd[0]!r:.80}")
    return names


def weights_of(examples: Sequence[Any], labels: Sequence[str], class_weight: Any, sample_weight: Any) -> Any:
    """What each example counts, `(examples,)`: Keras' `class_weight` by the names of the classes or their numbers.

    Raises:
        UserError: it names a class that is not there, or something that is no number.
    """
    if class_weight is None:
        return sample_weight
    if not isinstance(class_weight, Mapping):
        raise UserError(f"class_weight: expected numbers by label, {{{labels[0]!r}: 2.0}}, found {class_weight!r:.80}")
    by_number = np.ones(len(labels))
    for name, weight in class_weight.items():
        number = labels.index(name) if name in labels else name
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number < len(labels):
            raise UserError(f"class_weight: expected names among {listed(map(repr, labels))}, found {name!r:.80}")
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise UserError(f"class_weight: expected a number for {name!r:.80}, found {weight!r:.80}")
        by_number[number] = weight
    weights = by_number[[row_of(example, i, labels)[2] for i, example in enumerate(examples)]]
    if sample_weight is None:
        return weights
    if np.shape(sample_weight) != weights.shape:  # a single one would go for all
        raise UserError(f"sample_weight: expected {len(weights)}, one an example, found {np.shape(sample_weight)}")
    return weights * np.asarray(sample_weight)
