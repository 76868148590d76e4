"""Conditions: which parameters are there for which values of others, as trials show it.

A study of Optuna never says so: its objective asks for a parameter, or does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

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
    rows = _distinct(points, parents)
    present: dict[str, set[int]] = {}
    for i, (names, _) in enumerate(rows):
        for name in names:
            present.setdefault(name, set()).add(i)
    values = {name: {i: rows[i][1][name] for i in present.get(name, ())} for name in parents}
    when: dict[str, dict[str, list[int]]] = {}
    unexplained: set[str] = set()
    for name in sorted(present, key=lambda name: (-len(present[name]), name)):
        inside, left, found = present[name], set(range(len(rows))), {}
        while left != inside:
            choices = []
            for parent, levels in parents.items():
                if parent in found or parent not in when or not present[parent] > inside:
                    continue
                there = {i: values[parent][i] for i in left & present[parent]}
                allowed = _allowed(levels, {there[i] for i in inside}, set(there.values()))
                kept = {i for i, value in there.items() if value in allowed}
                choices.append((len(kept), len(allowed), parent, allowed, kept))
            best = min(choices, default=None, key=lambda choice: choice[:3])
            if best is None or len(best[4]) == len(left):
                unexplained.add(name)
                break
            found[best[2]], left = best[3], best[4]
        else:
            when[name] = found
    return Conditions(when, unexplained)


def is_active(when: Mapping[str, Mapping[str, Sequence[int]]], name: str, point: Point) -> bool:
    """Whether a parameter is there at a point."""
    return all(
        parent in point and point[parent] in values and is_active(when, parent, point)
        for parent, values in when[name].items()
    )


def _distinct(
    points: Iterable[Point], parents: Mapping[str, Levels]
) -> list[tuple[frozenset[str], dict[str, Number]]]:
    """The points that differ in which parameters they have, or in values that may decide that."""
    names = list(parents)
    found = {(frozenset(point), tuple(point.get(name) for name in names)) for point in points}
    order = sorted(found, key=lambda row: (sorted(row[0]), list(map(repr, row[1]))))
    return [
        (there, {n: v for n, v in zip(names, values, strict=True) if v is not None})
        for there, values in order
    ]


def _allowed(levels: Levels, with_it: Set[Number], tried: Set[Number]) -> list[int]:
    """The values of a parent for which a parameter is there.

    Args:
        levels: All of them.
        with_it: Those with which it was there.
        tried: Those that were tried.
    """
    if not levels.ordered:
        return sorted(map(int, with_it))
    first, last, without = min(with_it), max(with_it), tried - with_it
    below = max((value for value in without if value < first), default=-math.inf)
    above = min((value for value in without if value > last), default=math.inf)
    inside = {level for level in levels.values if below + first < 2 * level < last + above}
    return sorted({*map(int, with_it), *inside})
