"""Choices of other libraries as ours: any objects, of which some may look the same."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from bbmmopt.space import Categorical
from bbmmopt.space.checks import Value, shown


def choices_of(items: Sequence[Any]) -> list[Value] | dict[str, Any]:
    """What a Categorical is made of: the items, or labels where no storage could keep them.

    Nor can they stay as they are where they are equal, though not the same: True and 1.
    """
    if all(map(_is_plain, items)) and len(set(items)) == len(items):
        return list(items)
    labels: list[str] = []
    for item in items:
        label = label_of(item)
        alike = sum(known == label or known.startswith(f"{label} #") for known in labels)
        labels.append(f"{label} #{alike + 1}" if alike else label)
    return dict(zip(labels, items, strict=True))


def label_of(item: Any) -> str:
    """What an object is called, the same in every process."""
    name = item if isinstance(item, str) else getattr(item, "__name__", None)
    return name if isinstance(name, str) and name else without_addresses(shown(item))


def without_addresses(text: str) -> str:
    """A repr without what differs from process to process."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", text)


def label_in(parameter: Categorical, item: Any) -> Any:
    """The label of an object that is one of the choices; anything else as it is."""
    for label, choice in (parameter.objects or {}).items():
        if same(choice, item):
            return label
    return item


def distinct(items: Iterable[Any]) -> list[Any]:
    """The items, each once."""
    found: list[Any] = []
    for item in items:
        if not any(same(item, other) for other in found):
            found.append(item)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two choices are the same: 1, 1.0 and True are not, NaN is; nor do arrays say."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    try:
        equal = one == other
    except ValueError:  # of tuples that hold arrays
        return False
    return equal if isinstance(equal, bool) else False


def _is_plain(item: Any) -> bool:
    """Whether a storage can keep it."""
    return isinstance(item, Value) and not (isinstance(item, float) and not math.isfinite(item))
