"""Checks of arguments: an integer, a number, one of some names. Arrays: see `ops`, `csrc`."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

__all__ = ["checked_choice", "checked_integer", "checked_number"]

Choice = TypeVar("Choice", bound=str)

_INT32_END = 2**31


def checked_integer(name: str, value: Any, *, low: int, high: int = _INT32_END) -> int:
    """Return `value` as a Python int, low <= value < high.

    Python's and NumPy's integers are accepted, truth values and floats are not.

    Args:
        name: the argument's name, for the message.
        value: the argument.
        low: the smallest value allowed.
        high: one more than the largest value allowed; without it, the kernels' int32.

    Raises:
        TypeError: not an integer.
        ValueError: out of range.
    """
    if type(value) is int and low <= value < high:
        return value
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if low <= number < high:
        return number
    if number < low and high == _INT32_END:
        raise ValueError(f"{name}: expected at least {low}, got {number}")
    raise ValueError(f"{name}: expected {low} <= {name} < {high}, got {number}")


def checked_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    above: float = -math.inf,
    high: float = math.inf,
) -> float:
    """Return `value` as a finite Python float, low <= value <= high and above < value.

    Python's and NumPy's integers and floats are accepted, truth values and text are not.

    Args:
        name: the argument's name, for the message.
        value: the argument.
        low: the smallest value allowed.
        above: a bound that is not allowed itself.
        high: the largest value allowed.

    Raises:
        TypeError: not a number.
        ValueError: NaN, infinite, or out of range.
    """
    bounds = [f"from {low:g}"] if low > -math.inf else []
    bounds += [f"above {above:g}"] if above > -math.inf else []
    bounds += [f"up to {high:g}"] if high < math.inf else []
    wanted = " ".join(["a finite number", *bounds])
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise TypeError(f"{name}: expected {wanted}, got {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected {wanted}, got {value!r}") from None
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high and number > above):
        raise ValueError(f"{name}: expected {wanted}, got {value}")
    return number


def checked_choice(name: str, value: Any, choices: Sequence[Choice]) -> Choice:
    """Return `value`, one of `choices`.

    Args:
        name: the argument's name, for the message.
        value: the argument.
        choices: the names that are allowed.

    Raises:
        ValueError: another one.
    """
    for choice in choices:
        if isinstance(value, str) and value == choice:
            return choice
    *first, last = map(repr, choices)
    wanted = f"{', '.join(first)} or {last}" if first else last
    raise ValueError(f"{name}: expected {wanted}, got {value!r}")
