"""Slices of a space: one or two parameters along the axes of a picture, the others held."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bbmmopt.former import Former, LeftOut, fixed_value
from bbmmopt.plots.axis import Axis, make_axis
from bbmmopt.plots.shares import Share, decided, shares_of
from bbmmopt.plots.table import Table, columns_of
from bbmmopt.problem import Problem
from bbmmopt.space import Space
from bbmmopt.space.checks import did_you_mean, listing
from bbmmopt.study import NoCompleteTrial, StoredStudy
from bbmmopt.trial import Trial, TrialState

_CURVE, _SURFACE = 401, 101  # points along an axis
_CHUNK = 1024  # rows evaluated at once: bounds the memory of their covariance with the data
_MISSED = 1e-6  # in the unit interval: by as much a point that was entered may miss a sum


@dataclass(frozen=True)
class Slice:
    """The points of a space that a picture shows.

    Attributes:
        former: Where trials lie, in the space that the model is over.
        x: The parameter along the horizontal axis.
        y: The one along the vertical axis; None for a curve.
        held: Values of the others, as far as they matter on this slice and stay the same.
        base: A row of the unit cube on the slice, shape (d,).
        shares: Those that make up the rest of a sum, as of a mixture, while x and y move.
    """

    former: Former
    x: Axis
    y: Axis | None
    held: dict[str, Any]
    base: np.ndarray
    shares: tuple[Share, ...] = ()

    @property
    def space(self) -> Space:
        """The space that the model is over."""
        return self.former.space

    @property
    def axes(self) -> tuple[Axis, ...]:
        """x, and y if there is one."""
        return (self.x,) if self.y is None else (self.x, self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """(m,) of a curve; (my, mx) of a surface, as matplotlib wants it."""
        return tuple(len(axis.units) for axis in reversed(self.axes))

    @cached_property
    def rows(self) -> np.ndarray:
        """The rows of the unit cube to evaluate at, shape (prod(shape), d), on the lattice."""
        return self.rows_at(*np.meshgrid(*(axis.units for axis in self.axes)))

    def rows_at(self, *units: np.ndarray) -> np.ndarray:
        """The rows at places along x, and y if there is one, of any one shape: (m, d)."""
        X = np.tile(self.base, (units[0].size, 1))
        for axis, along in zip(self.axes, units, strict=True):
            X[:, axis.column] = along.ravel()
        for share in self.shares:
            X = share.fill(self.space, X)
        return self.space.snap(X)

    def row_at(self, params: Mapping[str, Any]) -> np.ndarray:
        """The row on this slice at the x and y of a point, shape (d,)."""
        point = self.point(params)
        places = (axis.parameter.to_unit(point[axis.name]) for axis in self.axes)
        return self.rows_at(*map(np.array, places))[0]

    @cached_property
    def allowed(self) -> np.ndarray | None:
        """Which of its points may be tried, of `shape`; None if that is not known, or all may."""
        if not self.space.constraints or self.unknown:
            return None
        return self.space.feasible(self.rows).reshape(self.shape)

    def possible(self, values: np.ndarray) -> np.ndarray:
        """Those of the values, of `shape`, where points may be tried; all where none may."""
        if self.allowed is None or not self.allowed.any():
            return values.ravel()
        return values[self.allowed]

    @property
    def unknown(self) -> list[str]:
        """Constraints of the space that are functions which were not stored."""
        return [c.name for c in self.space.limits.functions if not c.is_known]

    @property
    def notes(self) -> list[str]:
        """What there is to say of the slice besides what is held."""
        said = [str(share) for share in self.shares]
        if self.unknown:
            said.append(f"not stored, so not shown: where {' and '.join(self.unknown)} allows none")
        return said

    def table(self, columns: Mapping[str, np.ndarray], **facts: Any) -> Table:
        """The points of the slice, and columns of values at them, each of `shape`.

        The x axis runs fastest. Parameters that move along are there too, and whether a point may
        be tried, which is not known where a function was not stored.
        """
        moving = (name for share in self.shares for name in share.names)
        names = [*(axis.name for axis in self.axes), *moving]
        values = [self._values(name) for name in names]
        points = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
        allowed = np.ones(self.shape, dtype=bool) if self.allowed is None else self.allowed
        return Table(
            columns_of("params", names, points)
            | {name: values.ravel() for name, values in columns.items()}
            | ({} if self.unknown else {"allowed": allowed.ravel()}),
            x=self.x.name,
            y=None if self.y is None else self.y.name,
            held=dict(self.held),
            **facts,
        )

    def _values(self, name: str) -> list[Any]:
        """The values of a parameter at the rows, None where it is not active."""
        j = self.space.names.index(name)
        units, where = np.unique(self.rows[:, j], return_inverse=True)
        values = [self.space.parameters[name].from_unit(u) for u in units.tolist()]
        active = self.space.active(self.rows)[:, j]
        pairs = zip(where.tolist(), active.tolist(), strict=True)
        return [values[i] if on else None for i, on in pairs]

    def point(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """A point, in a study that was extended with former values of what it has none of."""
        if not self.former.extended:
            return params
        try:
            return self.former.point(params)
        except LeftOut:
            return params

    def shows(self, params: Mapping[str, Any]) -> bool:
        """Whether a point has its place: an x and a y, which not all have, within the bounds."""
        point = self.point(params)
        return all(
            self.former.has(axis.name, point) and 0 <= axis.parameter.to_unit(point[axis.name]) <= 1
            for axis in self.axes
        )

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether a point lies on the slice: all that is held, and matters, has its value there."""
        row = self.former.row(params)
        if row is None:
            return False
        free = [axis.column for axis in self.axes]
        moving = [self.space.names.index(name) for s in self.shares for name in s.names]
        here = self.row_at(params)
        close = np.abs(here - row)[moving] <= _MISSED
        held = np.delete(here, free + moving), np.delete(row, free + moving)
        return bool(np.array_equal(*held) and close.all())

    def place(self, trials: Sequence[Trial]) -> list[np.ndarray]:
        """Coordinates of trials in the picture: one array (n,) per axis."""
        points = [(self.point(trial.params), trial.number) for trial in trials]
        return [
            np.array([axis.coordinate(point[axis.name], number) for point, number in points])
            for axis in self.axes
        ]


def make_slice(
    study: StoredStudy,
    lengthscales: np.ndarray,
    x: str | None,
    y: str | None,
    fixed: Mapping[str, Any] | None,
    trials: Sequence[Trial],
    *,
    surface: int = _SURFACE,
) -> Slice:
    """Settle what is drawn and what is held.

    Args:
        study: Whose space it is.
        lengthscales: Of each column: the shortest are drawn if x and y are left out.
        x: A parameter, or None.
        y: A second one, or None.
        fixed: Values to hold parameters at.
        trials: Where held values come from that `fixed` does not give: a parameter is held at the
            value of the best trial that has it, or in the middle of its range. Of several
            objectives, the best is the one of the front that is nearest to the best of each.
        surface: How many points along an axis of a surface.

    Raises:
        ValueError, TypeError: If a parameter is unknown, held and drawn at once, has only one
            value, is not active on the slice, or follows from the others by a sum.
    """
    former, space = study.former, study.former.space
    fixed = study.space.validate_partial(fixed or {}, where="fixed")
    _check_drawn(study.space, x, y, fixed)
    ranked = _best_first(study.problem, trials)
    settled = dict(fixed)
    settled |= {name: fixed_value(study.space.parameters[name]) for name in former.ranges}
    values = {
        name: settled[name]
        if name in settled
        else next(
            (t.params[name] for t in ranked if former.has(name, t.params)), parameter.from_unit(0.5)
        )
        for name, parameter in space.parameters.items()
    }
    base = np.array([space.parameters[name].to_unit(v) for name, v in values.items()])  # (d,)
    drawn = [name for name in (x, y) if name is not None] or _most_relevant(
        space, lengthscales, space.active(space.snap(base)), settled
    )
    total = decided(space, drawn, settled)
    if total is not None:
        raise ValueError(
            f"{total} {total.demand()}, so that {' and '.join(total.names)} decide each other: "
            f"leave one of them that is neither drawn nor fixed."
        )
    points = _CURVE if len(drawn) == 1 else surface
    # A curve also goes through the trials: what happens there is narrow.
    some = [t.params for t in trials if len(drawn) == 1 and former.has(drawn[0], t.params)]
    through = [params[drawn[0]] for params in some]
    axes = [make_axis(space, name, points, through) for name in drawn]
    shares = shares_of(space, drawn, settled)
    place = Slice(
        former, axes[0], axes[1] if len(axes) > 1 else None, {}, base.clip(0.0, 1.0), shares
    )
    active = np.any(space.active(place.rows), axis=0).tolist()  # (d,)
    for name in (*drawn, *fixed):
        if not active[space.names.index(name)]:
            raise ValueError(
                f"parameter {name!r} is not active on this slice: {_missing(space, name, values)}"
            )
    moving = [name for share in shares for name in share.names]
    held = {
        name: value
        for name, value, on, column in zip(
            space.names, values.values(), active, space.columns, strict=True
        )
        if on and name not in (*drawn, *moving) and column.kind != "fixed"
    }
    return replace(place, held=held)


def in_chunks(function: Callable[[np.ndarray], Any], X: np.ndarray) -> list[Any]:
    """The function of each thousand rows of X (m, d)."""
    return [function(X[i : i + _CHUNK]) for i in range(0, len(X), _CHUNK)]


def need_complete(study: StoredStudy, trials: Sequence[Trial], what: str) -> None:
    """Raise NoCompleteTrial, saying what there is instead, unless a trial is complete."""
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        return
    counts = {state: sum(t.state == state for t in trials) for state in TrialState}
    there = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"
    raise NoCompleteTrial(
        f"{what} needs at least one complete trial; study {study.study!r} has {there}. "
        f"Tell a result first."
    )


def _check_drawn(space: Space, x: str | None, y: str | None, fixed: Mapping[str, Any]) -> None:
    if x is None and y is not None:
        raise ValueError(f"y={y!r} needs an x as well; for a curve give x alone.")
    if x is not None and x == y:
        raise ValueError(f"x and y are both {x!r}; leave y out for a curve.")
    for axis, name in (("x", x), ("y", y)):
        if name is None:
            continue
        if name not in space.names:
            hint = did_you_mean(name, space.names) or f" The space has {listing(space.names)}."
            raise ValueError(f"{axis} must be a parameter of the space; got {name!r}.{hint}")
        if name in fixed:
            raise ValueError(f"parameter {name!r} is both {axis} and fixed; drop one of them.")
        if space.parameters[name].kind == "fixed":
            raise ValueError(f"parameter {name!r} has a single value: there is nothing to draw.")


def _best_first(problem: Problem, trials: Sequence[Trial]) -> list[Trial]:
    """Complete trials, the best first, then feasible ones, by the first objective."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    complete.sort(key=lambda t: (not problem.is_feasible(t), -problem.to_model(t.values or {})[0]))
    front = problem.pareto_front_of(complete)
    if len(problem.objectives) > 1 and front:
        Y = np.array([problem.to_model(t.values or {}) for t in front])  # (f, k)
        Y = Y / np.maximum(np.abs(Y).max(0), 1e-300)  # or the widest doubles would overflow
        short = (Y.max(0) - Y) / np.maximum(np.ptp(Y, axis=0), 1e-300)  # in ranges of the front
        complete.insert(0, front[int(np.square(short).sum(1).argmin())])
    return complete


def _most_relevant(
    space: Space, lengthscales: np.ndarray, active: np.ndarray, fixed: Mapping[str, Any]
) -> list[str]:
    """The one or two parameters along which the model changes fastest, in the space's order.

    Real ones first, then ordered ones; a categorical one only where there is nothing else.
    """
    free = [
        j
        for j, column in enumerate(space.columns)
        if active[j] and column.name not in fixed and column.kind != "fixed"
    ]
    ranks = {"continuous": 0, "ordered": 1, "categorical": 2}
    free.sort(key=lambda j: (ranks[space.columns[j].kind], lengthscales[j]))
    if not free:
        raise ValueError("every parameter is fixed: there is nothing left to draw.")
    numbers = [j for j in free if space.columns[j].kind != "categorical"]
    chosen: list[int] = []
    for j in numbers or free:
        drawn = [space.names[k] for k in (*chosen, j)]
        if len(chosen) < (2 if numbers else 1) and decided(space, drawn, fixed) is None:
            chosen.append(j)
    if not chosen:
        raise ValueError("what is fixed decides all the others: there is nothing left to draw.")
    return [space.names[j] for j in sorted(chosen)]


def _missing(space: Space, name: str, values: Mapping[str, Any]) -> str:
    """Which values would make a parameter active."""
    needs: dict[str, Any] = {}
    todo = [name]
    while todo:
        for parent, allowed in (space.parameters[todo.pop()].when or {}).items():
            todo.append(parent)
            if values[parent] not in allowed:
                needs[parent] = allowed
    words = " and ".join(f"{p!r} to be {' or '.join(map(repr, v))}" for p, v in needs.items())
    advice = {parent: allowed[0] for parent, allowed in needs.items()}
    return f"it needs {words}. Pass fixed={advice!r}, or choose another parameter."
