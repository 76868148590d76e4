"""Conditions: which parameters are there for which values of others, as trials show it.

A study of Optuna never says so: its objective asks for a parameter, or does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import reduce
from operator import or_

from bbmmopt.integrations.optuna.distributions import Number

Point = Mapping[str, Number]


@dataclass(frozen=True)
class Levels:
    """The values of a parameter that may decide over others.

    Attributes:
        values: All of them.
        ordered: Whether what holds for one is likely for those next to it.
    """

    values: Sequence[int]
    ordered: bool


@dataclass(frozen=True)
class Conditions:
    """What was found.

    Attributes:
        when: {parameter: {parent: values}} of those that explain all trials; {} of a parameter that
            is in each.
        unexplained: Parameters of which no values of others say when they are there.
    """

    when: Mapping[str, Mapping[str, list[int]]]
    unexplained: Set[str]


def find_conditions(points: Iterable[Point], parents: Mapping[str, Levels]) -> Conditions:
    """The conditions under which each parameter was there.

    Beginning with nothing, the condition of a parameter is narrowed by that parent which leaves the
    fewest points without it, until none is left. A parent is there wherever the parameter is, and
    elsewhere too, so that nothing depends on itself. Of ordered parents it takes an interval, which
    ends halfway to the next value that was tried without the parameter: any other set would soon
    explain anything. Of others, values that were never tried count as values without it.

    Args:
        points: {parameter: value} of the trials that came to their end.
        parents: The parameters that may decide over others.
    """
    # Sets of points are the bits of integers: some hundred times as fast as sets.
    present: dict[str, int] = {}
    having: dict[str, dict[Number, int]] = {name: {} for name in parents}
    everywhere = 0
    for i, point in enumerate(points):
        everywhere |= 1 << i
        for name, value in point.items():
            present[name] = present.get(name, 0) | 1 << i
            if name in parents:
                having[name][value] = having[name].get(value, 0) | 1 << i
    when: dict[str, dict[str, list[int]]] = {}
    unexplained: set[str] = set()
    for name in sorted(present, key=lambda name: (-present[name].bit_count(), name)):
        inside, left, found = present[name], everywhere, {}
        possible = [
            parent
            for parent in parents
            if parent in when and present[parent] != inside == present[parent] & inside
        ]
        while left != inside:
            choices = []
            for parent in possible:
                tried = {value: bits & left for value, bits in having[parent].items()}
                with_it = {value for value, bits in tried.items() if bits & inside}
                without = {value for value, bits in tried.items() if bits} - with_it
                allowed = _allowed(parents[parent], with_it, without)
                kept = reduce(or_, (tried.get(value, 0) for value in allowed))
                choices.append((kept.bit_count(), len(allowed), parent, allowed, kept))
            best = min(choices, default=None, key=lambda choice: choice[:3])
            if best is None or best[4] == left:
                unexplained.add(name)
                break
            found[best[2]], left = best[3], best[4]
            possible.remove(best[2])
        else:
            when[name] = found
    return Conditions(when, unexplained)


def is_active(when: Mapping[str, Mapping[str, Sequence[int]]], name: str, point: Point) -> bool:
    """Whether a parameter is there at a point."""
    return all(
        parent in point and point[parent] in values and is_active(when, parent, point)
        for parent, values in when[name].items()
    )


def _allowed(levels: Levels, with_it: Set[Number], without: Set[Number]) -> list[int]:
    """The values of a parent for which a parameter is there.

    Args:
        levels: All of them.
        with_it: Those with which it was there.
        without: Those with which it never was.
    """
    if not levels.ordered:
        return sorted(map(int, with_it))
    first, last = min(with_it), max(with_it)
    below = max((value for value in without if value < first), default=-math.inf)
    above = min((value for value in without if value > last), default=math.inf)
    inside = {level for level in levels.values if below + first < 2 * level < last + above}
    return sorted({*map(int, with_it), *inside})
