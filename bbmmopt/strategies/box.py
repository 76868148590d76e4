"""A box in the unit cube: its sides, candidates in it, and climbs that do not leave it.

Source: Eriksson et al. (2019), Scalable global optimization via local Bayesian optimization
(TuRBO), https://arxiv.org/abs/1910.01739.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bbmmopt.search import Budget, Domain, Found, Region, ascend
from bbmmopt.search.maximise import Scored
from bbmmopt.search.starts import sobol
from bbmmopt.space import Space

_STRETCH = 4.0  # most by which one side differs from the mean side
_CHANGED = 20  # about how many coordinates of a candidate differ from the centre
_CLIMBS, _ROUNDS = 4, 12  # short climbs: candidates are many
_LATE = 64  # candidates where the time is over before the first is scored


@dataclass(frozen=True)
class Box:
    """A box in the unit cube: closed intervals of every column.

    Attributes:
        centre: Shape (d,), on the lattice of the space.
        lower, upper: Shape (d,), with lower ≤ centre ≤ upper. The whole of a categorical column.
        share: Part of the categories that may be exchanged at once, in (0, 1].
    """

    centre: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    share: float

    @staticmethod
    def around(centre: np.ndarray, length: float, scale: np.ndarray, space: Space) -> Box:
        """The box of mean side `length`, its sides in proportion to the lengthscales.

        Sides wᵢ L, wᵢ = ℓᵢ / (Π ℓⱼ)^(1/d) over the ordered columns, no less than a fourth nor more
        than four times their mean, so that columns that hardly matter do not use it up; columns of
        levels at least as wide as reaches the next ones.

        Args:
            centre: Shape (d,).
            length: L.
            scale: Lengthscales, shape (d,).
            space: The space.
        """
        kinds = np.array([column.kind for column in space.columns])
        sized = np.isin(kinds, ("continuous", "ordered"))
        half = np.full(len(centre), np.inf)
        if sized.any():
            logs = np.log(scale[sized])
            logs = (logs - logs.mean()).clip(-math.log(_STRETCH), math.log(_STRETCH))
            half[sized] = 0.5 * length * np.exp(logs - logs.mean())
        for j in np.flatnonzero(kinds == "ordered").tolist():
            positions = space.parameters[space.names[j]].lattice
            assert positions is not None
            level = positions.level(float(centre[j]))
            near = [
                positions.position(k) for k in (level - 1, level + 1) if 0 <= k < positions.size
            ]
            half[j] = max([half[j], *(abs(p - centre[j]) for p in near)])
        # Half a unit of rounding more, or the next level might lie just outside.
        lower = (centre - half - 1e-12).clip(0.0, 1.0)
        upper = (centre + half + 1e-12).clip(0.0, 1.0)
        return Box(centre, lower, upper, min(1.0, length))

    def contains(self, X: np.ndarray, space: Space, fixed: Mapping[int, float]) -> np.ndarray:
        """Which rows lie in the box, in the columns that matter there and are free, (m,)."""
        free = np.array([c.kind in ("continuous", "ordered") for c in space.columns])
        free[list(fixed)] = False
        inside = (self.lower <= X) & (self.upper >= X)
        return np.all(inside | ~free | ~space.active(X), axis=1)


def usual_count(d: int) -> int:
    """How many candidates there are in d dimensions: 200 d, from 2000 to 5000."""
    return min(5000, max(2000, 200 * d))


def raw_count(usual: int, budget: Budget) -> int:
    """How many of the usual candidates a budget has, once something is kept for climbs."""
    return budget.keeping(int(min(budget.left / 2, _CLIMBS * _ROUNDS))).most(usual, _LATE)


def candidates(
    box: Box, domain: Domain, generator: torch.Generator, count: int | None = None
) -> np.ndarray:
    """Feasible rows on the lattice that differ from the centre, in the box, shape (m, d).

    A scrambled Sobol sequence, of which each row keeps a coordinate with probability
    min(1, 20 / d), and one at least; the others are the centre's. Categories that are kept are
    those of the sequence with probability min(1, L), L being the length of the region.

    Args:
        box: The box.
        domain: What may be proposed.
        generator: Randomness.
        count: m, but for rows that meet no constraint; `usual_count` if left out.
    """
    space, d = domain.space, len(box.centre)
    count = count or usual_count(d)
    kinds = np.array([column.kind for column in space.columns])
    free = kinds != "fixed"
    free[list(domain.fixed)] = False
    columns = np.flatnonzero(free)
    if not len(columns):
        return box.centre[None]
    U = sobol(count, d, generator)
    odds = np.where(kinds == "categorical", box.share, 1.0) * min(1.0, _CHANGED / len(columns))
    keep = torch.rand(count, d, generator=generator, dtype=torch.float64).numpy() < odds
    forced = torch.randint(len(columns), (count,), generator=generator).numpy()
    keep &= free
    none = ~keep.any(1)
    keep[none, columns[forced[none]]] = True
    X = np.where(keep, box.lower + U * (box.upper - box.lower), box.centre)
    X = domain.place(X)
    # Rounding may have left the box: such coordinates stay at the centre.
    outside = ((box.lower > X) | (box.upper < X)) & (kinds == "ordered") & space.active(X)
    X = domain.place(np.where(outside, box.centre, X))
    if space.constraints:
        X = _feasible(X, box, domain, generator)
    return X[box.contains(X, space, domain.fixed)]


def _feasible(X: np.ndarray, box: Box, domain: Domain, generator: torch.Generator) -> np.ndarray:
    """Those of X that meet the constraints, and where these are few others near the centre."""
    region = Region(domain)
    good = domain.feasible(X)
    kept = X[good]
    if len(kept) >= len(X) // 4:
        return kept
    near = region.near(box.centre[None], 1024, generator)
    if domain.feasible(box.centre[None])[0]:
        pulled = X[~good][:64]
        pulled = region.pull_back(pulled, np.tile(box.centre, (len(pulled), 1)))
        near = np.concatenate([near, pulled[domain.feasible(pulled)]])
    return np.concatenate([kept, near])


def climb_within(
    scored: Scored,
    X: np.ndarray,
    values: Tensor,
    domain: Domain,
    box: Box,
    scale: np.ndarray,
    climbed: Scored | None = None,
    budget: Budget | None = None,
) -> Found | None:
    """Climb within the box from the best candidates; the best unseen of all that was met.

    Args:
        scored: What is maximised.
        X: Candidates in the box, shape (m, d).
        values: Their scores, shape (m,).
        domain: What may be proposed.
        box: The box.
        scale: Length over which the score changes in each column, shape (d,).
        climbed: What has the gradients, where that is another function.
        budget: How much may be done; no limit if left out.
    """
    climbed, budget = climbed or scored, budget or Budget()
    order = values.argsort(descending=True, stable=True).numpy()
    evaluations = len(X)
    starts = X[order[: int(min(_CLIMBS, max(1, budget.left / _ROUNDS)))]]

    def function(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = climbed.value_and_gradient(torch.from_numpy(rows))
        return value.numpy(), gradient.numpy()

    lower, upper = domain.bounds(starts)
    free = lower < upper
    lower, upper = np.where(free, box.lower, lower), np.where(free, box.upper, upper)
    room = budget.keeping(len(starts))  # who are scored again
    if free.any() and room.allows(len(starts)):
        ascent = ascend(function, starts, lower, upper, scale, max_rounds=_ROUNDS, budget=room)
        evaluations += ascent.evaluations
        if domain.space.constraints:
            ends = Region(domain).pull_back(ascent.X, starts)
            ends = ends[domain.feasible(ends)]
        else:
            ends = domain.place(ascent.X)
        ends = ends[box.contains(ends, domain.space, domain.fixed)]
        if len(ends):
            budget.spend(len(ends))
            evaluations += len(ends)
            with torch.no_grad():
                more = scored(torch.from_numpy(ends).unsqueeze(-2))
            X, values = np.concatenate([ends, X]), torch.cat([more, values])
            order = values.argsort(descending=True, stable=True).numpy()
    for block in np.array_split(order, max(1, len(order) // 16)):
        allowed = block[domain.unseen(X[block])]
        if len(allowed):
            best = int(allowed[0])
            return Found(X[best], float(values[best]), evaluations)
    return None
