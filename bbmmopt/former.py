"""Former: the points of a study that was extended, in the space that its model is over now.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from bbmmopt.space import Categorical, Integer, Ordinal, Parameter, Real, Space
from bbmmopt.space.checks import reading, shown
from bbmmopt.space.parameters import parameter_from_json

# Widths of the space beyond its bounds up to which a model can place a trial: the distances to one
# farther away would have no digits left for those within.
FARTHEST = 20.0


class LeftOut(ValueError):
    """A trial cannot train the model; the message says why, to follow "1 trial: "."""


@dataclass(frozen=True)
class Former:
    """How points that were tried before the problem was what it is now become rows.

    Attributes:
        own: The space of the study as it is now.
        extended: Whether it was ever another one; if not, a row is what the space encodes.
        values: {name: value} of parameters in trials that have none, as they were added later;
            and of parameters that are gone, the only value at which a trial is about the function
            that is looked at now.
        ranges: Parameters that are fixed now, as they were before: the model still learns from
            trials with other values.
    """

    own: Space
    extended: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Parameter] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any], space: Space) -> Former:
        """What the settings of a stored study say.

        Raises:
            ValueError: If they are damaged.
        """
        stored = settings.get("extended")
        if stored is None:
            return cls(space)
        with reading("what is stored of earlier parameters is damaged: "):
            if not isinstance(stored, Mapping) or set(stored) != {"former", "ranges"}:
                raise ValueError(f"expected former and ranges; got {shown(stored)}.")
            ranges = {
                name: parameter_from_json(fields, None).checked()
                for name, fields in dict(stored["ranges"]).items()
            }
            return cls(space, True, dict(stored["former"]), ranges)

    def to_json(self) -> dict[str, Any]:
        """What `of` reads, in JSON types."""
        ranges = {name: parameter.to_json() for name, parameter in self.ranges.items()}
        return {"former": dict(self.values), "ranges": ranges}

    @cached_property
    def space(self) -> Space:
        """What the model is over: the study's own space, fixed parameters over former ranges."""
        if not self.ranges:
            return self.own
        parameters = {name: self.ranges.get(name, p) for name, p in self.own.parameters.items()}
        return Space(parameters, self.own.constraints)

    @cached_property
    def held(self) -> dict[int, float]:
        """The columns of `space` that suggestions are held at, and where."""
        names = self.own.names
        return {names.index(name): self._held_at(name) for name in self.ranges}

    def _held_at(self, name: str) -> float:
        """The place of a fixed value, rounded as values that are handed out are."""
        parameter = self.ranges[name]
        there = parameter.to_unit(fixed_value(self.own.parameters[name]))
        return parameter.to_unit(parameter.from_unit(there))

    # --------------------------------------------------------------------------- points

    def row(self, params: Mapping[str, Any]) -> np.ndarray | None:
        """The row of a point in the model's space, shape (d,); None if it has no place there."""
        if not self.extended:
            return self.own.encode(params)
        try:
            return self._row(params)
        except LeftOut:
            return None

    def within(self, X: np.ndarray) -> np.ndarray:
        """Which rows (n, d) of the model's space may be proposed, constraints aside, shape (n,)."""
        inside = np.asarray(((X >= 0) & (X <= 1)).all(1))
        if not self.held:
            return inside
        columns, places = list(self.held), list(self.held.values())
        at_places = (X[:, columns] == places) | ~self.space.active(X)[:, columns]
        return np.asarray(inside & at_places.all(1))

    def has(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether a point says a value of this parameter that the model's space has a place for."""
        if name not in params:
            return False
        try:
            self.space.parameters[name].check(params[name], outside=True)
        except (ValueError, TypeError):
            return False
        return True

    def reason(self, params: Mapping[str, Any]) -> str | None:
        """Why a point cannot train the model; None if it can."""
        try:
            self._row(params)
        except LeftOut as error:
            return str(error)
        return None

    def point(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A value for each parameter that matters at a point, former ones where it has none.

        Raises:
            LeftOut: If one is not known, or the point is about another function.
        """
        for name, value in params.items():
            if name in self.own.parameters:
                continue
            if name not in self.values:
                raise LeftOut(f"{name!r} is no parameter any more, and no former value is known")
            if not same(self.values[name], value):
                raise LeftOut(
                    f"{name!r}, which is no parameter any more, was not {shown(self.values[name])}"
                )
        point = {name: self._value(name, params) for name in self._active(params)}
        return {name: point[name] for name in self.own.names if name in point}

    def asks_for(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether a former value of this parameter says something about a point."""
        if name not in self.own.parameters:
            return name in params
        return name not in params and self._matters(name, params)

    def _row(self, params: Mapping[str, Any]) -> np.ndarray:
        point = self.point(params)
        row = np.full(len(self.own), 0.5)
        for j, name in enumerate(self.own.names):
            if name in point:
                row[j] = self._place(name, point[name])
        return row

    def _active(self, params: Mapping[str, Any]) -> Iterator[str]:
        return (name for name in self.own.names if self._matters(name, params))

    def _matters(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether the parameter is active at a point; not where its parents are not known."""
        return all(
            self._matters(parent, params)
            and (parent in params or parent in self.values)
            and any(same(self._value(parent, params), value) for value in values)
            for parent, values in (self.own.parameters[name].when or {}).items()
        )

    def _value(self, name: str, params: Mapping[str, Any]) -> Any:
        if name in params:
            return params[name]
        if name not in self.values:
            raise LeftOut(f"there is no value of {name!r}, nor a former one")
        return self.values[name]

    def _place(self, name: str, value: Any) -> float:
        """Where a value lies in the parameter's column.

        Raises:
            LeftOut: If it has no place there.
        """
        if name in self.ranges and same(value, fixed_value(self.own.parameters[name])):
            return self._held_at(name)
        parameter = self.space.parameters[name]
        try:
            place = parameter.to_unit(parameter.check(value, outside=True))
        except (ValueError, TypeError):
            place = _between(name, parameter, value)
        if not -FARTHEST <= place <= 1 + FARTHEST:
            raise LeftOut(f"{name!r} is too far outside its bounds")
        return place


def same(a: Any, b: Any) -> bool:
    """Whether two values of a parameter are the same: True is not 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def fixed_value(parameter: Parameter) -> Any:
    """The only value of a fixed parameter."""
    return parameter.from_unit(0.5)


def range_with(former: Parameter, now: Parameter) -> Parameter | None:
    """A former range, and in it the value at which the parameter is fixed now.

    None where that is all there is to it, or where the two are of different kinds.
    """
    value = fixed_value(now)
    found: Parameter | None = None
    if isinstance(former, Real) and isinstance(now, Real):
        low, high = min(former.low, value), max(former.high, value)
        found = replace(former, low=low, high=high, log=former.log and low > 0, when=now.when)
    elif isinstance(former, Integer) and isinstance(now, Integer):
        low, high = min(former.low, value), max(former.high, value)
        step = former.step if (value - former.low) % former.step == 0 else 1
        log = former.log and low >= 1
        found = replace(former, low=low, high=high, log=log, step=step, when=now.when)
    elif isinstance(former, Categorical | Ordinal) and type(former) is type(now):
        added = [] if any(same(value, label) for label in former.labels) else [value]
        found = replace(former, choices=[*former.labels, *added], when=now.when)
    return None if found is None or found.kind == "fixed" else found.checked()


def _between(name: str, parameter: Parameter, value: Any) -> float:
    """Where a number lies among integers that it is none of.

    Raises:
        LeftOut: If it has no place there.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(parameter, Integer) and is_number and math.isfinite(value):
        if not parameter.log and parameter.kind != "fixed":
            return ((value - parameter.low) / parameter.step + 0.5) / parameter.lattice.size
        raise LeftOut(f"the value of {name!r} has no place in {parameter!r}")
    if isinstance(parameter, Categorical | Ordinal):
        raise LeftOut(f"{name!r} was {shown(value)}, which is not among the choices")
    raise LeftOut(f"the value of {name!r} has no place in {parameter!r}")
