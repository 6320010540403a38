"""The errors a user can cause, each one clear line: what was expected, what was found, where, what to try.

The command line prints their text without a traceback and leaves with exit code 2; everything else is our own bug and
keeps its traceback.
"""

import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any


def listed(names: Iterable[object], most: int = 10) -> str:
    """Names in one line, however many there are.

    Example:
        >>> listed("abcde", most=3)
        'a, b, c and 2 more'
    """
    shown = [str(name) for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


class UserError(ValueError):
    """Something the user handed over is wrong: a path, a file's contents, an option.

    Example:
        >>> raise UserError("labels: expected at least two, found one")
        Traceback (most recent call last):
        maskplay.errors.UserError: labels: expected at least two, found one
    """

    _keras_call_info_injected = True  # inside a layer's call, Keras would wrap the line in a listing of all arguments


def whole_number(name: str, found: Any, least: int, most: int | None = None) -> int:
    """A setting as an int, also one of NumPy's.

    Args:
        name: how the user knows it.
        found: what was given.
        least: the least that makes sense.
        most: the most, if there is one.

    Raises:
        UserError: it is no whole number, or not in this range.

    Example:
        >>> whole_number("workers", 2, least=1)
        2
        >>> whole_number("workers", 2.5, least=1)
        Traceback (most recent call last):
        maskplay.errors.UserError: workers: expected a whole number from 1 on, found 2.5
    """
    try:
        number = None if isinstance(found, bool) else operator.index(found)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        until = "on" if most is None else f"to {most:,}"
        raise UserError(f"{name}: expected a whole number from {least} {until}, found {found!r:.40}")
    return number


def within(value: Any, least: float, most: float) -> bool:
    """Whether a value is a number in these bounds, also one of NumPy's.

    Example:
        >>> within(0.5, 0, 1), within("0.5", 0, 1)
        (True, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and least <= float(value) <= most


class CheckpointError(UserError):
    """A checkpoint cannot be opened, or does not fit the model; the text names the file and the tensor."""


class DataError(UserError):
    """A data file is malformed; the text names the file and the line."""


class MissingExtra(ImportError, UserError):
    """An optional dependency is not installed; the text names the extra that brings it, or those of which one does.

    Example:
        >>> raise MissingExtra("a PNG picture", "plot")
        Traceback (most recent call last):
        maskplay.errors.MissingExtra: a PNG picture needs the extra 'plot': pip install 'maskplay[plot]'
    """

    def __init__(self, what: str, extra: str, *others: str) -> None:
        names = " or ".join(f"'{name}'" for name in (extra, *others))
        commands = " or ".join(f"pip install 'maskplay[{name}]'" for name in (extra, *others))
        super().__init__(f"{what} needs the extra {names}: {commands}")
