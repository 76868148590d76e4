"""What the model believes of the front of several objectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bbmmopt.modelling import Belief
from bbmmopt.optimizer import Optimizer
from bbmmopt.pareto import attainment_surface, pareto_front_of
from bbmmopt.plots.table import Table, columns_of
from bbmmopt.problem import Problem
from bbmmopt.search import Domain, Region
from bbmmopt.search.starts import around, change_discrete, sobol
from bbmmopt.space import Space
from bbmmopt.trial import Trial, TrialState

_SHARES = (0.1, 0.5, 0.9)
_PATHS = 64  # functions drawn of each output; shares have a standard error of 4 to 6 %
_SPREAD = 2048  # candidates all over the space
_ROUNDS, _MORE = 10, 1024  # then so many around the fronts found so far, so often
_ON_EACH, _ON_MEAN = 100, 400  # points kept of a drawn front, and of the mean's
_CORNERS = 400  # of what a share of the fronts attains
_LIST = 20_000  # finite spaces of up to so many points are looked at whole
_SURELY = 0.95  # constraints hold with this probability where the mean counts, as in `recommend`


@dataclass(frozen=True)
class _Outputs:
    """Mean and drawn functions of the objectives, where constraints hold.

    Attributes:
        objectives, constraints: Beliefs.
        functions: Of each of them, in this order: its mean and those drawn, at rows (m, d).
    """

    objectives: tuple[Belief, ...]
    constraints: tuple[Belief, ...]
    functions: tuple[Callable[[np.ndarray], np.ndarray], ...]

    def at(self, X: np.ndarray) -> np.ndarray:
        """Values at rows X (m, d), in model units, shape (1 + S, m, k): mean first, then draws.

        NaN where the constraints do not hold.
        """
        k = len(self.objectives)
        each = [function(X) for function in self.functions]  # each (1 + S, m)
        values = np.stack(each[:k], -1)
        chance = np.ones(len(X))
        for drawn, belief in zip(each[k:], self.constraints, strict=True):
            values[1:][drawn[1:] < belief.bound] = np.nan
            mean, std = (torch.from_numpy(part) for part in belief.marginals(X))
            chance *= torch.special.ndtr((mean - belief.bound) / std).numpy()
        values[0][chance < _SURELY] = np.nan
        return values


def believed_front(optimizer: Optimizer, problem: Problem) -> Table:
    """See `bbmmopt.plots.pareto_belief_data`.

    Candidates are spread over the space, and bred around those on any of the fronts: of the mean,
    and of each drawn function, all of which are thinned out evenly. It follows from the seed and
    what was told.

    Args:
        optimizer: The run.
        problem: Its problem, with the objectives that are looked at.
    """
    beliefs = optimizer.beliefs()
    named = dict(zip(optimizer.problem.names, beliefs.objectives, strict=True))
    objectives = tuple(named[name] for name in problem.names)
    draws = torch.Generator().manual_seed(optimizer.seed % 2**63)
    count = _PATHS if len(objectives) == 2 else 0
    every = (*objectives, *beliefs.constraints)
    functions = tuple(belief.mean_and_draws(count, draws) for belief in every)
    outputs = _Outputs(objectives, beliefs.constraints, functions)
    former = optimizer.former
    domain = Domain(former.space, former.held)
    X, values = _candidates(domain, outputs, draws)
    rows = _expected_rows(problem, objectives, X, values[0], optimizer)
    rows += _pending_rows(problem, objectives, optimizer)
    rows += _attained_rows(problem, objectives, values[1:])
    return _as_table(problem, former.space, rows, count)


def _candidates(
    domain: Domain, outputs: _Outputs, draws: torch.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (m, d) that are on a front, all fronts included, and their values (1 + S, m, k)."""
    space = domain.space
    X = _told(domain, outputs.objectives[0].data.X)
    if space.size is not None and space.size <= _LIST:
        return _those_on_a_front(np.concatenate([X, domain.enumerate()]), outputs)
    region = Region(domain) if space.constraints else None
    if region is None:
        spread = domain.place(sobol(_SPREAD, len(space), draws))
    else:
        spread = region.sample(_SPREAD, draws)
    X, values = _those_on_a_front(np.concatenate([X, spread]), outputs)
    for _ in range(_ROUNDS):
        if not len(X):
            break
        parents = X[torch.randperm(len(X), generator=draws)[:_MORE].numpy()]
        if region is None:
            crossed = _cross(parents, draws)
            moved = change_discrete(space, around(crossed, _MORE // 2, draws), draws)
            more = domain.place(np.concatenate([moved, around(parents, _MORE // 2, draws)]))
        else:
            more = region.near(parents[: _MORE // 4], _MORE, draws)
        new, its = _those_on_a_front(more, outputs)
        X, values = _kept(np.concatenate([X, new]), np.concatenate([values, its], axis=1))
    return X, values


def _told(domain: Domain, X: np.ndarray) -> np.ndarray:
    """Those of the told rows that lie where candidates may."""
    X = X[((X >= 0) & (X <= 1)).all(1)]
    return X[domain.agrees(X) & domain.feasible(X)] if len(X) else X


def _cross(X: np.ndarray, draws: torch.Generator) -> np.ndarray:
    """Each row with about half of its columns from another one."""
    other = X[torch.randint(len(X), (len(X),), generator=draws).numpy()]
    coin = torch.rand(X.shape, generator=draws, dtype=torch.float64).numpy()
    return np.where(coin < 0.5, X, other)


def _those_on_a_front(X: np.ndarray, outputs: _Outputs) -> tuple[np.ndarray, np.ndarray]:
    return _kept(X, outputs.at(X))


def _kept(X: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the rows that are on none of the fronts, nor those that come twice."""
    first = np.unique(X, axis=0, return_index=True)[1]
    chosen = np.zeros(len(X), dtype=bool)
    for i, Y in enumerate(values[:, first]):
        front = np.flatnonzero(pareto_front_of(Y))
        chosen[first[front[_spread_over(Y[front], _ON_EACH if i else _ON_MEAN)]]] = True
    return X[chosen], values[:, chosen]


def _spread_over(Y: np.ndarray, most: int) -> np.ndarray:
    """Indices of up to `most` of the values of a front (f, k), its ends and about evenly spread."""
    if len(Y) <= most:
        return np.arange(len(Y))
    Z = (Y - Y.min(0)) / np.where(np.ptp(Y, axis=0) > 0, np.ptp(Y, axis=0), 1.0)
    if Y.shape[1] == 2:  # by the length of the way along it
        order = np.lexsort((-Z[:, 1], Z[:, 0]))
        way = np.append(0.0, np.hypot(*np.diff(Z[order], axis=0).T).cumsum())
        return order[np.unique(np.searchsorted(way, np.linspace(0.0, way[-1], most)))]
    chosen = list(Z.argmax(0))
    away = np.full(len(Z), np.inf)
    for i in chosen:
        away = np.minimum(away, ((Z - Z[i]) ** 2).sum(1))
    while len(chosen) < most and away.max() > 0:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, ((Z - Z[chosen[-1]]) ** 2).sum(1))
    return np.unique(chosen)


# --------------------------------------------------------------------------------------
# As rows, in the user's units
# --------------------------------------------------------------------------------------


def _expected_rows(
    problem: Problem,
    objectives: Sequence[Belief],
    X: np.ndarray,
    mean: np.ndarray,
    optimizer: Optimizer,
) -> list[dict[str, Any]]:
    """The front of the posterior mean, in order of the first objective."""
    some = np.flatnonzero(pareto_front_of(mean))
    some = some[_spread_over(mean[some], _ON_MEAN)]
    some = some[np.argsort(mean[some, 0], kind="stable")]
    decoded = (optimizer.space.decode(x) for x in X[some])
    ends = _predicted(problem, objectives, X[some])
    return [
        {"kind": "expected", "params": params, **parts}
        for params, parts in zip(decoded, ends, strict=True)
    ]


def _pending_rows(
    problem: Problem, objectives: Sequence[Belief], optimizer: Optimizer
) -> list[dict[str, Any]]:
    """Trials that run or wait, at what is expected of them."""
    states = (TrialState.RUNNING, TrialState.WAITING)
    placed: list[tuple[Trial, np.ndarray]] = []
    for trial in optimizer.trials:
        row = optimizer.former.row(trial.params) if trial.state in states else None
        if row is not None:
            placed.append((trial, row))
    if not placed:
        return []
    ends = _predicted(problem, objectives, np.array([row for _, row in placed]))
    return [
        {"kind": "pending", "trial": trial.number, "params": trial.params, **parts}
        for (trial, _), parts in zip(placed, ends, strict=True)
    ]


def _predicted(
    problem: Problem, objectives: Sequence[Belief], X: np.ndarray
) -> list[dict[str, dict[str, float]]]:
    """values, low and high of each row: the median and the ends of the central 68 %."""
    if not len(X):
        return []
    parts = []
    for belief in objectives:
        mean, std = belief.marginals(X)
        parts.append([belief.transform.inverse(mean + k * std) for k in (0, -1, 1)])
    # (3, k, m); where the sign flips, so do the ends.
    middle, low, high = (
        {name: np.asarray(v) for name, v in problem.from_model([p[i] for p in parts]).items()}
        for i in range(3)
    )
    return [
        {
            "values": {name: float(middle[name][i]) for name in problem.names},
            "low": {name: float(min(low[name][i], high[name][i])) for name in problem.names},
            "high": {name: float(max(low[name][i], high[name][i])) for name in problem.names},
        }
        for i in range(len(X))
    ]


def _attained_rows(
    problem: Problem, objectives: Sequence[Belief], values: np.ndarray
) -> list[dict[str, Any]]:
    """Corners of what shares of the drawn fronts attain, in order of the first objective."""
    if not len(values):
        return []
    fronts = [Y[pareto_front_of(Y)] for Y in values]
    fronts = [Y[_spread_over(Y, 2 * _ON_EACH)] for Y in fronts]
    rows = []
    for share in _SHARES:
        corners = attainment_surface(fronts, share)
        corners = corners[_spread_over(corners, _CORNERS)]
        ends = [b.transform.inverse(z) for b, z in zip(objectives, corners.T, strict=True)]
        columns = problem.from_model(ends)
        rows += [
            {
                "kind": "attained",
                "share": share,
                "values": {name: float(columns[name][i]) for name in problem.names},
            }
            for i in range(len(corners))
        ]
    return rows


def _as_table(problem: Problem, space: Space, rows: list[dict[str, Any]], draws: int) -> Table:
    kinds = np.empty(len(rows), dtype=object)
    kinds[:] = [row["kind"] for row in rows]
    columns: dict[str, np.ndarray] = {"kind": kinds}
    for name in ("share", "trial"):
        columns[name] = np.array([row.get(name, np.nan) for row in rows], dtype=float)
    for part in ("values", "low", "high"):
        columns |= columns_of(part, problem.names, [row.get(part, {}) for row in rows])
    params = [row.get("params", {}) for row in rows]
    return Table(columns | columns_of("params", space.names, params), draws=draws)
