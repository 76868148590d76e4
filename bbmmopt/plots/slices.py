"""Slices of a space: one or two parameters along the axes of a picture, the others held."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bbmmopt.former import Former, fixed_value
from bbmmopt.optimizer import NoCompleteTrial, Optimizer
from bbmmopt.plots.axis import Axis, make_axis
from bbmmopt.space import Space
from bbmmopt.space.checks import did_you_mean, listing
from bbmmopt.trial import Trial, TrialState

_CURVE, _SURFACE = 401, 101  # points along an axis
_CHUNK = 1024  # rows evaluated at once: bounds the memory of their covariance with the data


@dataclass(frozen=True)
class Slice:
    """The points of a space that a picture shows.

    Attributes:
        former: Where trials lie, in the space that the model is over.
        x: The parameter along the horizontal axis.
        y: The one along the vertical axis; None for a curve.
        held: Values of the others, as far as they matter on this slice.
        base: A row of the unit cube on the slice, shape (d,).
    """

    former: Former
    x: Axis
    y: Axis | None
    held: dict[str, Any]
    base: np.ndarray

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

    def rows(self) -> np.ndarray:
        """The rows of the unit cube to evaluate at, shape (prod(shape), d), on the lattice."""
        grids = np.meshgrid(*(axis.units for axis in self.axes))  # each of self.shape
        X = np.tile(self.base, (grids[0].size, 1))
        for axis, grid in zip(self.axes, grids, strict=True):
            X[:, axis.column] = grid.ravel()
        return self.space.snap(X)

    def row_at(self, params: Mapping[str, Any]) -> np.ndarray:
        """The row on this slice at the x and y of a point, shape (d,)."""
        row = self.base.copy()
        for axis in self.axes:
            row[axis.column] = axis.parameter.to_unit(params[axis.name])
        return self.space.snap(row)

    def shows(self, params: Mapping[str, Any]) -> bool:
        """Whether a point has its place: an x and a y, which not all have, within the bounds."""
        return all(
            self.former.has(axis.name, params)
            and 0 <= axis.parameter.to_unit(params[axis.name]) <= 1
            for axis in self.axes
        )

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether a point lies on the slice: all that is held, and matters, has its value there."""
        free = [axis.column for axis in self.axes]
        row = self.former.row(params)
        return row is not None and bool(
            np.array_equal(np.delete(self.row_at(params), free), np.delete(row, free))
        )

    def place(self, trials: Sequence[Trial]) -> list[np.ndarray]:
        """Coordinates of trials in the picture: one array (n,) per axis."""
        return [
            np.array([axis.coordinate(t.params[axis.name], t.number) for t in trials])
            for axis in self.axes
        ]


def make_slice(
    optimizer: Optimizer,
    lengthscales: np.ndarray,
    x: str | None,
    y: str | None,
    fixed: Mapping[str, Any] | None,
    trials: Sequence[Trial],
) -> Slice:
    """Settle what is drawn and what is held.

    Args:
        optimizer: Whose space it is.
        lengthscales: Of each column: the shortest are drawn if x and y are left out.
        x: A parameter, or None.
        y: A second one, or None.
        fixed: Values to hold parameters at.
        trials: Where held values come from that `fixed` does not give: a parameter is held at the
            value of the best trial that has it, or in the middle of its range.

    Raises:
        ValueError, TypeError: If a parameter is unknown, held and drawn at once, has only one
            value, or is not active on the slice.
    """
    former, space = optimizer.former, optimizer.former.space
    fixed = optimizer.space.validate_partial(fixed or {}, where="fixed")
    _check_drawn(optimizer.space, x, y, fixed)
    ranked = _best_first(optimizer, trials)
    settled = dict(fixed)
    settled |= {name: fixed_value(optimizer.space.parameters[name]) for name in former.ranges}
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
    points = _CURVE if len(drawn) == 1 else _SURFACE
    # A curve also goes through the trials: what happens there is narrow.
    some = [t.params for t in trials if len(drawn) == 1 and former.has(drawn[0], t.params)]
    through = [params[drawn[0]] for params in some]
    axes = [make_axis(space, name, points, through) for name in drawn]
    place = Slice(former, axes[0], axes[1] if len(axes) > 1 else None, {}, base.clip(0.0, 1.0))
    active = np.any(space.active(place.rows()), axis=0).tolist()  # (d,)
    for name in (*drawn, *fixed):
        if not active[space.names.index(name)]:
            raise ValueError(
                f"parameter {name!r} is not active on this slice: {_missing(space, name, values)}"
            )
    held = {
        name: value
        for name, value, on, column in zip(
            space.names, values.values(), active, space.columns, strict=True
        )
        if on and name not in drawn and column.kind != "fixed"
    }
    return Slice(former, place.x, place.y, held, place.base)


def in_chunks(function: Callable[[np.ndarray], Any], X: np.ndarray) -> list[Any]:
    """The function of each thousand rows of X (m, d)."""
    return [function(X[i : i + _CHUNK]) for i in range(0, len(X), _CHUNK)]


def need_complete(optimizer: Optimizer, trials: Sequence[Trial], what: str) -> None:
    """Raise NoCompleteTrial, saying what there is instead, unless a trial is complete."""
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        return
    counts = {state: sum(t.state == state for t in trials) for state in TrialState}
    there = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"
    raise NoCompleteTrial(
        f"{what} needs at least one complete trial; study {optimizer.study!r} has {there}. "
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


def _best_first(optimizer: Optimizer, trials: Sequence[Trial]) -> list[Trial]:
    """Complete trials, feasible ones first, then by the first objective."""
    problem = optimizer.problem
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return sorted(
        complete, key=lambda t: (not problem.is_feasible(t), -problem.to_model(t.values or {})[0])
    )


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
    return [space.names[j] for j in sorted(numbers[:2] or free[:1])]


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
