"""Maximise a smooth function under linear constraints, or under others, from many starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize

from bbmmopt.search.budget import Budget
from bbmmopt.search.gradient import Ascent, ValueAndGradient, _Rows
from bbmmopt.search.polytope import Polytope, least_distance

_NUDGE = 1e-6  # of a finite difference of a constraint, in the unit cube


def ascend_within(
    function: ValueAndGradient,
    X: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    scale: np.ndarray,
    polytope: Polytope,
    *,
    max_rounds: int = 100,
    tolerance: float = 1e-4,
    budget: Budget | None = None,
) -> Ascent:
    """`ascend` where rows must also stay in a polytope; every row of X must lie in it.

    The same batch of BFGS climbs. Gradients are projected onto the equalities; where the step
    would leave the polytope, it becomes the solution of the quadratic model within it, found as a
    least-distance problem. So every point met is feasible, no step is cut short at a face, and
    faces are found and left as in sequential quadratic programming, of which this is a case.

    Args:
        function, X, lower, upper, scale, max_rounds, tolerance, budget: As in `ascend`.
        polytope: Where to stay, in the coordinates of X; its own box is not looked at.
    """
    budget = budget or Budget()
    rows = _RowsWithin(function, X, lower, upper, scale, tolerance, budget, polytope)
    return rows.climb(max_rounds)


class _RowsWithin(_Rows):
    """The rows still climbing, in U = X / scale."""

    _PER_ROW = (*_Rows._PER_ROW, "_P")

    def __init__(
        self,
        function: ValueAndGradient,
        X: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        scale: np.ndarray,
        tolerance: float,
        budget: Budget,
        polytope: Polytope,
    ) -> None:
        self._G, self._h = polytope.G * scale, polytope.h
        # Projectors onto the free columns and the equalities, (m, d, d).
        free = lower < upper
        masks, which = np.unique(free, axis=0, return_inverse=True)
        E = np.array([row / max(float(np.linalg.norm(row)), 1e-300) for row in polytope.E * scale])
        scaled = Polytope(
            E.reshape(polytope.E.shape), polytope.e, self._G, self._h, lower[0], upper[0]
        )
        bases = [scaled.tangent(mask) for mask in masks]
        self._P = np.stack([Z @ Z.T for Z in bases])[which.reshape(-1)]
        super().__init__(function, X, lower, upper, scale, tolerance, budget)

    def _evaluate(self, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        f, g = super()._evaluate(U)
        return f, np.matmul(self._P, g[:, :, None])[:, :, 0]

    def _hopeless(self) -> np.ndarray:
        """As before, but for what the step without constraints promises: a face may be left."""
        promised = 0.5 * np.einsum("mi,mij,mj->m", self._g, self._H, self._g)
        self._best = min(self._best, float(self._f.min()))
        return ~self._fresh & (self._f - 4.0 * promised > self._best)

    def _update(self, s: np.ndarray, y: np.ndarray, took: np.ndarray) -> None:
        super()._update(s, y, took)
        sy = np.einsum("md,md->m", s, y)
        size = np.einsum("md,md->m", s, s) * np.einsum("md,md->m", y, y)
        # Straight slopes, which end at a vertex only, are run down in growing steps.
        self._H[took & (sy <= 1e-10 * np.sqrt(size))] *= 4.0

    def _direction(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        g = self._g
        D = -np.matmul(self._H, g[:, :, None])[:, :, 0]
        wrong = np.einsum("md,md->m", D, g) >= 0
        D[wrong] = -g[wrong]
        slope = np.abs(g).max(1)
        room = (self._h - self._U @ self._G.T).clip(min=0.0)
        up, down = self._hi - self._U, self._U - self._lo
        leaves = (up < D).any(1) | (down < -D).any(1)
        leaves |= (room < D @ self._G.T).any(1)
        for i in np.flatnonzero(leaves & np.isfinite(D).all(1)):
            A = np.vstack([self._G @ self._P[i], self._P[i], -self._P[i]])
            b = np.concatenate([room[i], up[i].clip(min=0.0), down[i].clip(min=0.0)])
            D[i] = _within(D[i], None if wrong[i] else self._H[i], g[i], A, b)
            length = float(np.linalg.norm(D[i]))
            slope[i] = -float(g[i] @ D[i]) / length if length > 1e-14 else 0.0
        length = np.sqrt(np.einsum("md,md->m", D, D))
        first = np.minimum(0.2 / np.maximum(length, 1e-300), 1.0)
        return np.where(self._fresh | wrong, first, 1.0), D, slope


def _within(
    step: np.ndarray, H: np.ndarray | None, g: np.ndarray, A: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """The step d of least g d + ½ d H⁻¹ d with A d ≤ b; `step` is -H g, and H = None the identity.

    The plain gradient's when rounding spoils that; zero when no step leads down.
    """
    try:
        L = np.eye(len(g)) if H is None else np.linalg.cholesky(H)
        y = least_distance(A @ L, b - A @ step)
    except np.linalg.LinAlgError:
        L, y = None, None
    if L is not None and y is not None:
        step = step + L @ y
        if g @ step < 0:
            return step
    return np.zeros_like(g) if H is None else _within(-g, None, g, A, b)


class _SpentError(Exception):
    """The budget is spent in the middle of a climb that others do the steps of."""


def ascend_curved(
    function: ValueAndGradient,
    X: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    scale: np.ndarray,
    polytope: Polytope,
    curved: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    *,
    max_rounds: int = 100,
    tolerance: float = 1e-6,
    budget: Budget | None = None,
) -> Ascent:
    """`ascend_within` under further constraints that need not be linear, row by row by SLSQP.

    What comes back may miss the constraints by a little, or by a lot where they have no slope:
    the caller has to look.

    Source: Kraft (1988), A software package for sequential quadratic programming.

    Args:
        function, X, lower, upper, scale, polytope, max_rounds: As in `ascend_within`.
        curved: Maps a row to numbers that must be 0, shape (q,), and at least 0, shape (p,). Their
            slopes are taken by finite differences.
        tolerance: Where a row stops: the gain of a step.
        budget: Asked before each call; where it allows no more, rows stay as they are. No limit if
            left out.
    """
    budget = budget or Budget()
    ends, values, rounds, evaluations = X.copy(), np.full(len(X), -np.inf), 0, 0
    for i, x in enumerate(X):
        free = np.flatnonzero(lower[i] < upper[i])
        if not len(free):
            continue
        row = _CurvedRow(function, x, free, scale[free], curved, budget)
        try:
            solved = minimize(
                row.cost,
                x[free] / scale[free],
                jac=True,
                method="SLSQP",
                bounds=np.column_stack([lower[i, free], upper[i, free]]) / scale[free, None],
                constraints=row.limits(polytope),
                options={"maxiter": max_rounds, "ftol": tolerance},
            )
        except _SpentError:
            return Ascent(ends, values, max(rounds, row.calls), evaluations + row.calls)
        rounds, evaluations = max(rounds, row.calls), evaluations + row.calls
        if np.isfinite(solved.x).all() and np.isfinite(solved.fun):
            ends[i], values[i] = row.whole(solved.x), -solved.fun
    return Ascent(ends, values, rounds, evaluations)


class _CurvedRow:
    """One row as SLSQP sees it: its free columns, as u = x / scale.

    Attributes:
        calls: How often the function was called.
    """

    def __init__(
        self,
        function: ValueAndGradient,
        x: np.ndarray,
        free: np.ndarray,
        scale: np.ndarray,
        curved: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        budget: Budget,
    ) -> None:
        self._function, self._x, self._free, self._scale = function, x, free, scale
        self._curved, self._budget = curved, budget
        self.calls = 0

    def whole(self, u: np.ndarray) -> np.ndarray:
        """The row itself, shape (d,)."""
        row = self._x.copy()
        row[self._free] = (u * self._scale).clip(0.0, 1.0)
        return row

    def cost(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """What is minimised, and its gradient in u."""
        if not self._budget.allows(1):
            raise _SpentError
        self._budget.spend(1)
        self.calls += 1
        value, gradient = self._function(self.whole(u)[None])
        return -float(value[0]), -gradient[0, self._free] * self._scale

    def limits(self, polytope: Polytope) -> list[dict[str, Any]]:
        """Its constraints, as SLSQP takes them: what must be 0, and what at least 0."""
        limits: list[dict[str, Any]] = [
            {
                "type": kind,
                "fun": lambda u, w=w: self._curved(self.whole(u))[w],
                "jac": lambda u, w=w: self._slopes(u, w),
            }
            for w, kind in enumerate(("eq", "ineq"))
            if len(self._curved(self._x)[w])
        ]
        for kind, A, b in (("eq", polytope.E, polytope.e), ("ineq", polytope.G, polytope.h)):
            if len(A):
                J = -A[:, self._free] * self._scale
                fun = lambda u, A=A, b=b: b - A @ self.whole(u)  # noqa: E731
                limits.append({"type": kind, "fun": fun, "jac": lambda u, J=J: J})
        return limits

    def _slopes(self, u: np.ndarray, which: int) -> np.ndarray:
        """Gradients in u of the curved constraints of a kind, by differences, (q, free)."""
        row = self.whole(u)
        at = self._curved(row)[which]
        J = np.empty((len(at), len(self._free)))
        for k, j in enumerate(self._free.tolist()):
            nudged = row.copy()
            nudged[j] += _NUDGE if row[j] < 0.5 else -_NUDGE
            difference = self._curved(nudged)[which] - at
            J[:, k] = difference / (nudged[j] - row[j]) * self._scale[k]
        return J
