"""Improve a batch of candidates as a whole, its points moving together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bbmmopt.search.budget import Budget
from bbmmopt.search.domain import Domain
from bbmmopt.search.gradient import ascend
from bbmmopt.search.maximise import Search, maximise
from bbmmopt.search.starts import around, boltzmann, sobol

_RAW = 128  # batches scored to find starts
_STARTS = 8
_MEMORY = 4_000_000  # entries of the inverse Hessians of all climbs
_VARIABLES = 2000  # that are climbed in at once, at most
_ROUNDS = 2  # most alternations between climbs and moves of single points
_POINTS = 256  # raw ones for the moves of all points of a batch, once around
_MOST = 4096  # candidates, q for each batch, that are scored for the move of one point
_GAIN = 1e-6  # nats, below which a batch is no better


class Grouped(Protocol):
    """What is maximised: scores of batches, by automatic differentiation."""

    def __call__(self, X: Tensor, /) -> Tensor:
        """Scores of batches X (m, q, d), shape (m,)."""
        ...


@dataclass(frozen=True)
class FoundBatch:
    """The best batch met.

    Attributes:
        X: Its points, shape (q, d).
        value: Its score; NaN where the budget did not allow to look.
        before: That of the batch it was to improve on.
        evaluations: How many candidates were scored, q for each batch.
    """

    X: np.ndarray
    value: float
    before: float
    evaluations: int


def maximise_together(
    acquisition: Grouped,
    batch: np.ndarray,
    domain: Domain,
    *,
    generator: torch.Generator,
    scale: Tensor,
    search: Search | None = None,
    budget: Budget | None = None,
) -> FoundBatch:
    """Return the best batch found, starting from one: never a worse one.

    Climbs in the continuous columns of all points at once, q · d variables, from the batch itself
    and from others near it: all of its points moved a little, or one of them put elsewhere. In a
    space that has discrete parameters or constraints they alternate with moves of one point at a
    time, the others held, each a search of the whole space by `maximise`; with constraints on
    inputs those moves are all, so that everything `maximise` knows about them holds. Only batches
    of unseen, feasible points on the lattice that differ from each other compete.

    Args:
        acquisition: What to maximise.
        batch: Points that may be proposed, shape (q, d).
        domain: Where.
        generator: Randomness.
        scale: Length over which the acquisition changes in each column, shape (d,).
        search: How hard each climb is, as `climb_rounds` has it.
        budget: How many candidates may be scored, and how long; no limit if left out.
    """
    budget = (budget or Budget()).groups(len(batch))
    together = _Together(acquisition, domain, generator, scale, search or Search(), budget)
    if not budget.allows(1):
        return FoundBatch(batch, float("nan"), float("nan"), 0)
    X, value = batch, float(together.score(batch[None])[0])
    before, single = value, bool(domain.discrete or domain.space.constraints)
    for k in range(_ROUNDS):
        start = value
        if not domain.space.constraints:
            X, value = together.climb(X, value, alone=k > 0)
        if not single:
            break
        X, value = together.move_each(X, value)
        if value <= start + _GAIN:
            break
    if value <= before + _GAIN:
        X, value = batch, before
    return FoundBatch(X, value, before, together.evaluations * len(batch))


class _Together:
    """One search for a batch."""

    def __init__(
        self,
        acquisition: Grouped,
        domain: Domain,
        generator: torch.Generator,
        scale: Tensor,
        search: Search,
        budget: Budget,
    ) -> None:
        self._acquisition, self._domain, self._generator = acquisition, domain, generator
        self._scale, self._search, self._budget = scale, search, budget
        self.evaluations = 0

    def score(self, groups: np.ndarray) -> Tensor:
        """Scores of batches (m, q, d), shape (m,)."""
        self._budget.spend(len(groups))
        self.evaluations += len(groups)
        with torch.no_grad():
            return self._acquisition(torch.from_numpy(np.ascontiguousarray(groups)))

    def climb(self, X: np.ndarray, value: float, *, alone: bool) -> tuple[np.ndarray, float]:
        """The best batch that climbs from X (q, d) and from others lead to, or X.

        Args:
            X: The batch.
            value: Its score.
            alone: Whether to climb from nowhere else.
        """
        q, d = X.shape
        starts = self._starts(X) if not alone and q * d <= _VARIABLES else X[None]
        flat = starts.reshape(-1, d)
        lower, upper = self._domain.bounds(flat)
        # Those that end a climb are scored again, where rounding took them.
        room = self._budget.keeping(len(starts))
        if q * d > _VARIABLES or not (lower < upper).any() or not room.allows(len(starts)):
            return X, value

        def function(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            groups = torch.from_numpy(rows.reshape(-1, q, d)).requires_grad_(True)
            with torch.enable_grad():
                values = self._acquisition(groups)
                (gradient,) = torch.autograd.grad(values.sum(), groups)
            return values.detach().numpy(), gradient.numpy().reshape(rows.shape)

        ascent = ascend(
            function,
            starts.reshape(len(starts), -1),
            lower.reshape(len(starts), -1),
            upper.reshape(len(starts), -1),
            np.tile(self._scale.numpy(), q),
            max_rounds=self._search.climb_rounds,
            budget=room,
        )
        self.evaluations += ascent.evaluations
        ends = self._domain.place(ascent.X.reshape(-1, d)).reshape(-1, q, d)
        values = self.score(ends)
        for i in values.argsort(descending=True, stable=True).tolist():
            if float(values[i]) <= value + _GAIN:
                break
            if self._allowed(ends[i]):
                return ends[i], float(values[i])
        return X, value

    def _starts(self, X: np.ndarray) -> np.ndarray:
        """Batches to climb from, X the first of them, shape (m, q, d)."""
        q, d = X.shape
        count = int(min(_STARTS, max(1, _MEMORY // (q * d) ** 2), max(1, self._budget.left / 40)))
        raw = int(min(_RAW, self._budget.left / 4))
        if count < 2 or raw < count or self._budget.is_late:
            return X[None]
        moved, put = raw - raw // 2, raw // 2
        groups = np.repeat(X[None], raw, axis=0)
        near = around(X.reshape(1, -1), moved, self._generator).reshape(-1, q, d)
        keep = np.array([column.kind == "continuous" for column in self._domain.space.columns])
        groups[:moved] = np.where(keep, near, X)
        which = np.arange(put) % q
        groups[moved + np.arange(put), which] = sobol(put, d, self._generator)
        groups = self._domain.place(groups.reshape(-1, d)).reshape(-1, q, d)
        values = self.score(groups)
        chosen = boltzmann(values, count - 1, self._generator).numpy()
        return np.concatenate([X[None], groups[chosen]])

    def move_each(self, X: np.ndarray, value: float) -> tuple[np.ndarray, float]:
        """X (q, d) with one point after another where it is best, given the others."""
        search = replace(self._search, raw=max(16, _POINTS // len(X)), starts=2, rounds=1)
        for i in range(len(X)):
            budget = self._budget.part(len(X) - i).capped(max(64, _MOST // len(X)))
            if not budget.allows(2):
                break
            others = np.delete(X, i, axis=0)
            found = maximise(
                _One(self._acquisition, X, i),
                replace(self._domain, seen=self._domain.seen | set(self._domain.keys(others))),
                generator=self._generator,
                scale=self._scale,
                centres=X[i : i + 1],
                search=search,
                budget=budget,
            )
            self.evaluations += found.evaluations
            if found.value > value + _GAIN:
                X, value = X.copy(), found.value
                X[i] = found.x
        return X, value

    def _allowed(self, X: np.ndarray) -> bool:
        """Whether the points of a batch may be proposed together."""
        return len(set(self._domain.keys(X))) == len(X) and bool(self._domain.unseen(X).all())


@dataclass(frozen=True)
class _One:
    """The score of a batch as a function of one of its points.

    Attributes:
        acquisition: Of batches.
        X: The batch, shape (q, d).
        i: Which point.
    """

    acquisition: Grouped
    X: np.ndarray
    i: int

    def __call__(self, X: Tensor) -> Tensor:
        """Scores with that point at X (m, 1, d), shape (m,)."""
        held = torch.from_numpy(self.X).expand(len(X), -1, -1)
        return self.acquisition(torch.cat([held[:, : self.i], X, held[:, self.i + 1 :]], 1))

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Scores with that point at X (m, d), and their gradients in it, shape (m, d)."""
        X = X.detach().requires_grad_(True)
        with torch.enable_grad():
            values = self(X.unsqueeze(-2))
            (gradient,) = torch.autograd.grad(values.sum(), X)
        return values.detach(), gradient
