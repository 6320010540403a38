"""Examples as people write them, where Keras takes arrays: lists of (text, label), dictionaries, table rows."""

from collections.abc import Iterator, Mapping, Sequence
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
    if strange or nothing or (isinstance(x, Mapping) and "text" in x):
        raise UserError(
            f"{name}: expected a list of texts or examples, or what Keras takes: arrays by name, tokens and segments, "
            f"or a dataset; found a {type(x).__name__}"
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
    if label not in labels:
        kind = "" if isinstance(label, str) else " (labels are strings)"
        raise DataError(f"{where}: expected a label among {listed(map(repr, labels))}, found {label!r:.80}{kind}")
    return text, text2, labels.index(label)


def weights_of(examples: Sequence[Any], labels: Sequence[str], class_weight: Any, sample_weight: Any) -> Any:
    """What each example counts, `(examples,)`: Keras' `class_weight` by the names of the classes or their numbers.

    Raises:
        UserError: it names a class that is not there.
    """
    if class_weight is None:
        return sample_weight
    by_number = np.ones(len(labels))
    for name, weight in dict(class_weight).items():
        number = labels.index(name) if name in labels else name
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(labels):
            raise UserError(f"class_weight: expected names among {listed(map(repr, labels))}, found {name!r:.80}")
        by_number[number] = weight
    numbers = [row_of(example, i, labels)[2] for i, example in enumerate(examples)]
    return by_number[numbers] * (1.0 if sample_weight is None else np.asarray(sample_weight))
