"""How an output depends on one parameter or two, all others averaged out, or as at the best trial.

Friedman's partial dependence: f̄(x) = E[f(x, others)], the others drawn evenly from the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from bbmmopt.modelling import threads_for
from bbmmopt.optimizer import Optimizer
from bbmmopt.plots.axis import Axis, make_axis
from bbmmopt.plots.outputs import Output, known_space
from bbmmopt.plots.slices import make_slice
from bbmmopt.search import Domain, NoFeasiblePoint, Region
from bbmmopt.search.starts import sobol
from bbmmopt.space import Space
from bbmmopt.space.limits import Sum
from bbmmopt.trial import Trial

_CURVE, _SURFACE = 61, 25  # points along a continuous axis
_FINE = 51  # of a surface that is no average, or of one point at each place
# Points that are averaged over at each of these; fewer of many trials, each of which costs as much.
# Of 10 parameters surfaces were off by up to 0.2 % of their range; by 0.8 % with 32.
_ROWS, _ROWS_LARGE, _LARGE = 128, 32, 1000
# Under constraints each place has rows of its own, and user's functions have to be called.
_FEW_SURFACE, _FEW_CURVE, _FEW_ROWS = 17, 33, 64
_POOL = 16  # times as many rows are drawn where some are not active, or not allowed, at a place


@dataclass(frozen=True)
class Dependence:
    """An output over one parameter, or two, in the user's units.

    Attributes:
        x: The parameter along the horizontal axis.
        y: The one along the vertical axis; None for a main effect.
        value: Median, shape (m,), or (my, mx); NaN where there is no point.
        inner, outer: Of a main effect, the ends of its 68 % and 95 % bands, the lower one first.
    """

    x: Axis
    y: Axis | None
    value: np.ndarray
    inner: tuple[np.ndarray, np.ndarray] | None = None
    outer: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def axes(self) -> tuple[Axis, ...]:
        """x, and y if there is one."""
        return (self.x,) if self.y is None else (self.x, self.y)


@dataclass(frozen=True)
class Places:
    """Points that are averaged over, at each place of a panel.

    Attributes:
        axes: x, and y if there is one.
        X: Rows of the unit cube, shape (m, d), those of a place together.
        owner: The place that each belongs to, x running fastest, shape (m,).
    """

    axes: tuple[Axis, ...]
    X: np.ndarray
    owner: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(m,) of a curve; (my, mx) of a surface, as matplotlib wants it."""
        return tuple(len(axis.units) for axis in reversed(self.axes))

    @property
    def counts(self) -> np.ndarray:
        """How many points each place has, flat."""
        return np.bincount(self.owner, minlength=int(np.prod(self.shape)))

    def surface(self, output: Output) -> np.ndarray:
        """Mean of the posterior mean at each place, of `shape`, in model units."""
        sums = np.bincount(self.owner, output.mean(self.X), minlength=len(self.counts))
        with np.errstate(invalid="ignore"):
            return (sums / self.counts).reshape(self.shape)

    def effect(self, output: Output) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the average of f at each place, in model units.

        Of the average itself, by the joint posterior of what is averaged: errors that points do
        not share cancel.
        """
        counts, belief = self.counts, output.belief
        mean, std = np.full((2, len(counts)), np.nan)
        with torch.no_grad(), threads_for(len(belief.data.y)):
            for count in np.unique(counts[counts > 0]):
                places = np.flatnonzero(counts == count)
                rows = self.X[np.isin(self.owner, places)].reshape(len(places), count, -1)
                found = belief.posterior.averages(belief.data.place(rows))
                mean[places], std[places] = (part.cpu().numpy() for part in found)
        return mean.reshape(self.shape), std.reshape(self.shape)


@dataclass(frozen=True)
class Averages:
    """Where the panels of a study lie when other parameters are averaged out.

    Under constraints of the space, over the points that meet them; where a parameter is not always
    active, over those where it is.

    Attributes:
        space: The space of the model, without constraints that nobody knows.
        held: Columns that stay where they are, and where.
        unknown: Names of those constraints.
        rows: How many points to average over at each place.
    """

    space: Space
    held: Mapping[int, float]
    unknown: Sequence[str]
    rows: int

    @staticmethod
    def of(optimizer: Optimizer, output: Output, fixed: Mapping[str, Any]) -> Averages:
        """Over the space of the model, parameters held that are fixed."""
        space, unknown = known_space(optimizer.former.space)
        held = optimizer.former.held | {
            space.names.index(name): space.parameters[name].to_unit(value)
            for name, value in fixed.items()
        }
        rows = _ROWS if len(output.belief.data.y) <= _LARGE else _ROWS_LARGE
        return Averages(space, held, unknown, _FEW_ROWS if space.constraints else rows)

    def active(self) -> set[str]:
        """The parameters that are active somewhere, with what is held."""
        X = self._placed(sobol(_POOL * _ROWS, len(self.space), _generator()))
        there = np.any(self.space.active(X), axis=0)
        return {name for name, on in zip(self.space.names, there.tolist(), strict=True) if on}

    def places(self, names: Sequence[str]) -> Places:
        """The points of a panel over these parameters; none where they are never active at once."""
        columns = [self.space.names.index(name) for name in names]
        free = {j for j, c in enumerate(self.space.columns) if c.kind != "fixed"}
        alone = free <= {*columns, *self.held}  # then a place is one point
        axes = self._axes(names, alone)
        U = np.stack([u.ravel() for u in np.meshgrid(*(axis.units for axis in axes))], 1)  # (c, a)
        if any(total.equality for total in self.space.limits.sums):
            each = [self._walked(dict(zip(columns, u, strict=True))) for u in U.tolist()]
        elif self.space.limits.sums:
            others = self._placed(sobol(_POOL * self.rows, len(self.space), _generator()))
            each = [self._met(others[:1] if alone else others, columns, u) for u in U]
        else:
            others = self._others(columns)[: 1 if alone else None]
            each = [self._at(others, columns, u) for u in U]
        X = self.space.snap(np.concatenate(each))
        owner = np.repeat(np.arange(len(U)), [len(rows) for rows in each])
        kept = np.all(self.space.active(X)[:, columns], axis=1)
        if self.space.limits.functions:
            kept[kept] = self.space.feasible(X[kept])
        return Places(axes, X[kept], owner[kept])

    def _axes(self, names: Sequence[str], alone: bool) -> tuple[Axis, ...]:
        """The axes of a panel, with fewer places where each takes long to draw for."""
        points = (_CURVE, _SURFACE)
        if alone:
            points = (_CURVE, _FINE)
        elif self.space.constraints:
            points = (_FEW_CURVE, _FEW_SURFACE)
        axes = tuple(make_axis(self.space, name, points[len(names) - 1]) for name in names)
        if any(axis.cells for axis in axes):  # few of them: there is room for more along the other
            axes = tuple(make_axis(self.space, name, points[0]) for name in names)
        return axes

    def _others(self, columns: list[int]) -> np.ndarray:
        """Rows (w, d) at which the columns are active, as far as others decide that."""
        X = self._placed(sobol(self.rows, len(self.space), _generator()))
        if self.space.active(X)[:, columns].all():
            return X
        X = self._placed(sobol(_POOL * self.rows, len(self.space), _generator()))
        active = X[self.space.active(X)[:, columns].all(1)]
        # Of two that are never active at once but for one another, all: places decide.
        return (active if len(active) else X)[: self.rows]

    @staticmethod
    def _at(others: np.ndarray, columns: list[int], u: np.ndarray) -> np.ndarray:
        """Rows (w, d) with the columns of a place at theirs."""
        X = others.copy()
        X[:, columns] = u
        return X

    def _placed(self, X: np.ndarray) -> np.ndarray:
        X[:, list(self.held)] = list(self.held.values())
        return self.space.snap(X)

    @cached_property
    def _linear(self) -> Space:
        """The space without functions, which would be called thousands of times at each place."""
        functions = self.space.limits.functions
        return Space(
            self.space.parameters, [c for c in self.space.constraints if c not in functions]
        )

    def _met(self, others: np.ndarray, columns: list[int], u: np.ndarray) -> np.ndarray:
        """Those of the rows (w, d), put at a place, that meet the sums; up to `rows`.

        Where that is none, walks look further; along log scales they would take seconds each.
        """
        X = self.space.snap(self._at(others, columns, u))
        X = X[self._linear.feasible(X)]
        if len(X) or any(total.curved for total in self.space.limits.sums):
            return X[: self.rows]
        return self._walked(dict(zip(columns, u.tolist(), strict=True)))

    def _walked(self, at: Mapping[int, float]) -> np.ndarray:
        """Rows (w, d) drawn among those that meet the sums, with a place's columns at theirs.

        Columns that are in no sum make no difference to the others: what was drawn for another
        place serves again.
        """
        tied = np.unique(np.concatenate([total.columns for total in self.space.limits.sums]))
        there = {j: u for j, u in at.items() if j in tied}
        key = tuple(sorted(there.items()))
        if key not in self._drawn:
            self._drawn[key] = self._draw(there)
        return self._at(self._drawn[key], list(at), np.array(list(at.values())))

    @cached_property
    def _drawn(self) -> dict[tuple[tuple[int, float], ...], np.ndarray]:
        """What `_walked` has drawn, by the columns in sums and where they are."""
        return {}

    def _draw(self, at: Mapping[int, float]) -> np.ndarray:
        """Rows (w, d) that meet the sums with some columns where they are; none, perhaps."""
        where = {**self.held, **at}
        if not all(self._in_reach(total, where) for total in self.space.limits.sums):
            return np.empty((0, len(self.space)))
        try:
            return Region(Domain(self._linear, where)).sample(self.rows, _generator())
        except NoFeasiblePoint:
            return np.empty((0, len(self.space)))

    def _in_reach(self, total: Sum, where: Mapping[int, float]) -> bool:
        """Whether a sum by itself can be met: quicker said than by linear programming."""
        ends = []
        for j, c in zip(total.columns.tolist(), total.coefficients.tolist(), strict=True):
            units = [where[j]] if j in where else [0.0, 1.0]
            parameter = self.space.parameters[self.space.names[j]]
            ends.append([c * parameter.from_unit(u) for u in units])
        least, most = sum(map(min, ends)), sum(map(max, ends))
        return least <= total.at_most + total.tolerance and most >= total.at_least - total.tolerance


def _generator() -> torch.Generator:
    """Always the same points: what is drawn follows from the data alone."""
    return torch.Generator().manual_seed(0)


def averaged(
    output: Output, averages: Averages, names: Sequence[str]
) -> dict[tuple[str, ...], Dependence]:
    """Main effects of parameters under (x,), surfaces of pairs under (x, y), y after x.

    Raises:
        ValueError: If a parameter is nowhere active, or no point meets the constraints.
    """
    places = {drawn: averages.places(drawn) for drawn in _panels(names)}
    for drawn, there in places.items():
        if len(drawn) == 1 and not len(there.X):
            raise ValueError(
                f"no point that may be tried has a {drawn[0]!r}: leave it out of parameters, or "
                f"fix other values."
            )
    return {drawn: _dependence(output, there) for drawn, there in places.items()}


def sliced(
    output: Output,
    optimizer: Optimizer,
    names: Sequence[str],
    fixed: Mapping[str, Any],
    trials: Sequence[Trial],
) -> dict[tuple[str, ...], Dependence]:
    """The same on slices through the best trial: see `make_slice`."""
    lengthscales, found = output.belief.lengthscales.numpy(), {}
    for drawn in _panels(names):
        x, y = (*drawn, None)[:2]
        where = make_slice(optimizer, lengthscales, x, y, fixed, trials, surface=_FINE)
        kept = where.space.active(where.rows)[:, [axis.column for axis in where.axes]].all(1)
        if where.allowed is not None:
            kept &= where.allowed.ravel()
        at = np.flatnonzero(kept)
        found[drawn] = _dependence(output, Places(where.axes, where.rows[at], at))
    return found


def _panels(names: Sequence[str]) -> list[tuple[str, ...]]:
    """(a,), (a, b), (a, c), (b,), (b, c), (c,) of a, b, c."""
    return [
        (x, *rest) for i, x in enumerate(names) for rest in [(), *((y,) for y in names[i + 1 :])]
    ]


def _dependence(output: Output, places: Places) -> Dependence:
    if len(places.axes) == 2:
        return Dependence(*places.axes, output.in_user_units(places.surface(output)))
    mean, std = places.effect(output)
    bands = [output.ends(mean, std, k) for k in (1, 2)]
    return Dependence(places.axes[0], None, output.in_user_units(mean), bands[0], bands[1])
