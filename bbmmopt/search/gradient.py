"""Maximise a smooth function in a box from many starts at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bbmmopt.search.budget import Budget

ValueAndGradient = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Maps X (m, d) to values (m,) and gradients (m, d)."""

_SUFFICIENT = 1e-4  # Armijo: the part of the predicted gain a step must reach
_SHORTEST = 1e-8  # a step shorter than this, relative to the direction, is given up
_GENEROUS = 4.0  # how far beyond its promise a climb is trusted to go
_FIRST = 0.2  # length of the first step in units of `scale`, before curvature is known


@dataclass(frozen=True)
class Ascent:
    """Where each start ended.

    Attributes:
        X: Shape (m, d).
        value: Shape (m,).
        rounds: How often the function was called, each time on all rows still climbing.
        evaluations: How many rows that was in all.
    """

    X: np.ndarray
    value: np.ndarray
    rounds: int
    evaluations: int


def ascend(
    function: ValueAndGradient,
    X: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    scale: np.ndarray,
    *,
    max_rounds: int = 100,
    tolerance: float = 1e-3,
    budget: Budget | None = None,
) -> Ascent:
    """Climb from every row of X by projected BFGS, all rows in one batch.

    Every row is a search of its own: in each round it either takes the step it tried, updates its
    inverse Hessian and turns, or tries a shorter one; so no row waits for another's line search,
    and rows that are done leave the batch. Variables at a bound that the gradient pushes outwards
    are held there for the round. The inverse Hessians are kept whole, (m, d, d): for a few dozen
    starts in up to a few hundred dimensions that is cheaper than the two loops of the
    limited-memory form, which agrees with it until its memory is full.

    Source: Nocedal & Wright (2006), Numerical Optimization, eq. 6.17 (update), 6.20 (its start) and
    section 16.7 (projection).

    Args:
        function: Values and gradients of a batch.
        X: Starts, shape (m, d).
        lower, upper: Bounds of each row, shape (m, d). Equal bounds hold a variable.
        scale: Length over which the function changes in each variable, shape (d,): steps are taken
            in X / scale.
        max_rounds: Most calls of the function.
        tolerance: A row is done when its last full step gained less than a hundredth of this, or
            no free slope per unit of scale exceeds it. A row is given up when four times the gain
            its quadratic model promises would not bring it to the best value any row has met.
        budget: Asked before each call but the first, which is for the starts; no limit if left out.
    """
    return _Rows(function, X, lower, upper, scale, tolerance, budget or Budget()).climb(max_rounds)


class _Rows:
    """The rows still climbing. Works on U = X / scale and minimises f = -value."""

    _PER_ROW = (
        *("_row", "_lower", "_upper", "_lo", "_hi", "_U", "_f", "_g", "_H"),
        *("_fresh", "_step", "_D", "_done"),
    )

    def __init__(
        self,
        function: ValueAndGradient,
        X: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        scale: np.ndarray,
        tolerance: float,
        budget: Budget,
    ) -> None:
        m, d = X.shape
        self._function, self._scale, self._tolerance = function, scale, tolerance
        self._budget = budget
        self._end, self._end_value = X.copy(), np.full(m, -np.inf)
        self.rounds = self._evaluations = 0
        self._row = np.arange(m)
        self._lower, self._upper = lower, upper
        self._lo, self._hi = lower / scale, upper / scale
        self._U = np.clip(X / scale, self._lo, self._hi)
        self._f, self._g = self._evaluate(self._U)
        self._H = np.tile(np.eye(d), (m, 1, 1))
        self._fresh = np.ones(m, dtype=bool)  # no curvature seen yet
        self._step, self._D, slope = self._direction()
        self._done = slope <= tolerance
        self._best = np.inf

    def climb(self, max_rounds: int) -> Ascent:
        """Go on until every row is done, or the budget is."""
        while self.rounds < max_rounds and self.settle() and self._budget.allows(len(self._row)):
            self.step_all()
        return self.finish()

    def _evaluate(self, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._budget.spend(len(U))
        value, gradient = self._function(self._unscaled(U))
        self.rounds += 1
        self._evaluations += len(U)
        return -value, -gradient * self._scale

    def _unscaled(self, U: np.ndarray) -> np.ndarray:
        """X of U; clipped, since x / scale * scale may be off by a rounding error."""
        return np.clip(U * self._scale, self._lower, self._upper)

    def settle(self) -> bool:
        """Let rows that are done leave; False when none is left."""
        done = self._done
        if done.any():
            self._write(done)
            live = ~done
            for name in self._PER_ROW:
                setattr(self, name, getattr(self, name)[live])
        return len(self._row) > 0

    def _write(self, which: np.ndarray) -> None:
        self._end[self._row[which]] = self._unscaled(self._U)[which]
        self._end_value[self._row[which]] = -self._f[which]

    def finish(self) -> Ascent:
        """Where every row is now."""
        self._write(np.ones(len(self._row), dtype=bool))
        return Ascent(self._end, self._end_value, self.rounds, self._evaluations)

    def step_all(self) -> None:
        """One round: try each row's step; take it and turn, or shorten it."""
        trial = np.clip(self._U + self._step[:, None] * self._D, self._lo, self._hi)
        f, g = self._evaluate(trial)
        s = trial - self._U
        gain = self._f - f
        # A NaN compares false, so it counts as a step too long.
        took = gain >= -_SUFFICIENT * np.einsum("md,md->m", self._g, s)
        full = self._step >= 1.0
        self._update(s, g - self._g, took)
        self._U = np.where(took[:, None], trial, self._U)
        self._f = np.where(took, f, self._f)
        self._g = np.where(took[:, None], g, self._g)
        self._fresh = self._fresh & ~took
        step, D, slope = self._direction()
        self._step = np.where(took, step, 0.3 * self._step)
        self._D = np.where(took[:, None], D, self._D)
        little = 0.01 * self._tolerance
        self._done = self._step < _SHORTEST
        self._done |= took & (((gain < little) & full) | (slope <= self._tolerance))
        self._done |= self._hopeless()

    def _hopeless(self) -> np.ndarray:
        """Rows that would not reach the best value met with four times the gain they promise."""
        promised = -0.5 * np.einsum("md,md->m", self._g, self._D)
        self._best = min(self._best, float(self._f.min()))
        return ~self._fresh & (self._f - _GENEROUS * promised > self._best)

    def _direction(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step length (m,), direction -H g over the free variables (m, d), largest slope (m,)."""
        g = self._g
        held = ((self._lo >= self._U) & (g > 0)) | ((self._hi <= self._U) & (g < 0))
        free = np.where(held, 0.0, g)
        D = np.where(held, 0.0, -np.matmul(self._H, free[:, :, None])[:, :, 0])
        # Rounding may spoil H; the plain gradient never points uphill.
        wrong = np.einsum("md,md->m", D, free) >= 0
        D[wrong] = -free[wrong]
        length = np.sqrt(np.einsum("md,md->m", D, D))
        first = np.minimum(_FIRST / np.maximum(length, 1e-300), 1.0)
        step = np.where(self._fresh | wrong, first, 1.0)
        return step, D, np.abs(free).max(1)

    def _update(self, s: np.ndarray, y: np.ndarray, took: np.ndarray) -> None:
        """BFGS update of the inverse Hessians of the rows that moved along positive curvature."""
        sy, yy = np.einsum("md,md->m", s, y), np.einsum("md,md->m", y, y)
        good = took & (sy > 1e-10 * np.sqrt(np.einsum("md,md->m", s, s) * yy))
        if not good.any():
            return
        sy, yy = np.where(good, sy, 1.0), np.where(good, yy, 1.0)
        first = good & self._fresh
        if first.any():
            self._H[first] *= (sy / yy)[first, None, None]
        H = self._H
        Hy = np.matmul(H, y[:, :, None])[:, :, 0]
        factor = (1 + np.einsum("md,md->m", y, Hy) / sy) / sy
        # s sᵀ factor - (s Hyᵀ + Hy sᵀ) / sy, as one product of two thin matrices
        left = s[:, :, None] * (0.5 * factor[:, None] * s - Hy / sy[:, None])[:, None, :]
        change = left + left.transpose(0, 2, 1)
        self._H = H + np.where(good[:, None, None], change, 0.0)
