"""Checks of what a user hands over: native types, finite numbers, lists of choices.

Each raises TypeError or ValueError with what was expected, what came and what to do, written to
follow the name of the thing at fault: "parameter 'C': ".
"""

import difflib
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

Value = int | float | str | bool

_LONGEST = 300  # letters of a value in a message


def native(value: Any) -> Any:
    """The Python bool, int, float or str inside a numpy scalar, 0-d array or subclass.

    Anything else is returned as it came.
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item") and not no_number(value):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return str.__str__(value) if isinstance(value, str) else value


def no_number(value: Any) -> bool:
    """Whether an array is no number, whatever its `item` says or does.

    A date, a time span, a masked element, or a tensor without data.
    """
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    return (
        kind in ("m", "M")
        # Whoever made a masked element has loaded numpy.ma; loading it takes longer than telling.
        or ("numpy.ma" in sys.modules and bool(np.ma.is_masked(value)))
        or getattr(value, "is_meta", False) is True
    )


def is_integer(value: Any) -> bool:
    """Whether a value is an integer, of Python or numpy: booleans and time spans are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def shown(value: Any) -> str:
    """The repr for a message, cut where it is long; the type of what cannot be written."""
    try:
        text = repr(value)
    except Exception:  # an integer of over 4300 digits, say
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def did_you_mean(word: object, known: Sequence[object]) -> str:
    """ " Did you mean 'x'?" when something known looks much like the word, else ""."""
    text = word if isinstance(word, str) else shown(word)
    close = difflib.get_close_matches(text, [name for name in known if isinstance(name, str)])
    return f" Did you mean {close[0]!r}?" if close else ""


def to_float(number: int | float) -> float:
    """The nearest double; ±inf for an integer beyond them all."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def finite(name: str, value: Any) -> float:
    """The value as a finite float, or an error that calls it `name`."""
    number = native(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"{name} must be a number; got {shown(value)} ({type(value).__name__}).")
    x = to_float(number)
    if not math.isfinite(x):
        raise ValueError(f"{name} must be finite; got {shown(number)}.")
    return x + 0.0


def integral(name: str, value: Any) -> int:
    """The value as an int (3.0 is one), or an error that calls it `name`."""
    number = native(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, float):
        raise ValueError(f"{name} must be an integer; got {number!r}. Use Real for real numbers.")
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} must be an integer; got {shown(value)} ({type(value).__name__}).")
    if math.isinf(to_float(number)):
        raise ValueError(f"{name} must be below 1.8e308 in size; got {shown(number)}.")
    return number


def checked_choices(choices: Any, for_objects: str) -> tuple[Value, ...]:
    """The choices in native types: at least one, no two equal (1, 1.0 and True are equal).

    Args:
        choices: What the user gave.
        for_objects: What to use for choices that are none of these types, for the message.
    """
    if isinstance(choices, np.ndarray) and choices.ndim == 1:
        choices = choices.tolist()
    if isinstance(choices, str | bytes) or not isinstance(choices, Sequence):
        raise TypeError(
            f"choices must be a list; got {shown(choices)} ({type(choices).__name__}). "
            f"Write [a, b, …], in the order you want."
        )
    if not choices:
        raise ValueError("choices must not be empty.")
    seen: dict[Value, Value] = {}
    for given in choices:
        choice = native(given)
        if not isinstance(choice, Value):
            raise TypeError(
                f"choices must be strings, numbers or booleans; got {shown(given)} "
                f"({type(given).__name__}). For other objects use {for_objects}."
            )
        if isinstance(choice, float) and not math.isfinite(choice):
            raise ValueError(f"choices must be finite; got {choice!r}. Use {for_objects}.")
        if choice in seen:
            raise ValueError(
                f"choices must differ; {seen[choice]!r} and {choice!r} are equal. Drop one."
            )
        seen[choice] = choice
    return tuple(seen)


def checked_when(when: Any) -> dict[str, tuple[Value, ...]] | None:
    """{parent: tuple of values}, whatever single values or lists were given. None stays None."""
    if when is None:
        return None
    if not isinstance(when, Mapping) or not when:
        raise TypeError(f"when must be {{parent: value or list of values}}; got {shown(when)}.")
    result = {}
    for parent, given in when.items():
        alone = native(given)
        values = [alone] if isinstance(alone, Value) else given
        with naming(f"when[{parent!r}]: "):
            result[parent] = checked_choices(values, "their labels")
    return result


@contextmanager
def naming(prefix: str) -> Iterator[None]:
    """Put the name of the thing at fault in front of a TypeError or ValueError."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{prefix}{error}") from None


@contextmanager
def reading(prefix: str = "") -> Iterator[None]:
    """`naming` for what was read from JSON, where a wrong type is a wrong value like any other."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{prefix}{error}") from None


def listing(names: Iterable[object]) -> str:
    """'a', 'b', 'c'"""
    return ", ".join(map(repr, names))
