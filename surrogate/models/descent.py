"""Minimise a smooth function in a box, each evaluation being dear.

Of a few dozen variables; or of those and thousands of others that are alike.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_SUFFICIENT = 1e-4  # Armijo: the part of the predicted decrease a step must reach
_FIRST = 0.5  # largest change of a variable in the first step, before curvature is known
_FALLEN = 0.5  # the part of its slope that a step may still have, where only slopes are known
_REMEMBERED = 10  # steps, where curvature is not kept whole
_WIDEST = 30.0  # times the steps of a variable, at most, that those of another may be
_LARGEST = 2.0  # and in any step: the variables are logarithms, so a factor of 7
_STOPPED = "ended early, as asked"


@dataclass(frozen=True)
class Minimum:
    """Where a descent ended.

    Attributes:
        x: Shape (p,).
        value: The function there.
        gradient: Its gradient there, shape (p,).
        inverse_hessian: Estimate of the inverse Hessian there, shape (p, p), or None when no step
            was taken and none was given; start a later descent nearby with it. Of the first
            variables alone where only their curvature was kept whole.
        evaluations: How often the function was called.
        converged: Whether it stopped because little was left to gain.
        message: Why it stopped.
    """

    x: np.ndarray
    value: float
    gradient: np.ndarray
    inverse_hessian: np.ndarray | None
    evaluations: int
    converged: bool
    message: str


def minimise(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    x: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    inverse_hessian: np.ndarray | None = None,
    dense: int | None = None,
    columns: int = 1,
    tolerance: float = 1e-4,
    max_evaluations: int = 200,
    stop: Callable[[], bool] | None = None,
) -> Minimum:
    """Projected BFGS with backtracking; stops when the quadratic model promises too little.

    The inverse Hessian is kept whole, which for a few dozen variables is L-BFGS that forgets
    nothing, and can be handed on: a warm start takes two or three evaluations where one that has
    to learn the curvature again takes fifteen. A library routine in its place spent more time
    in the threads of its linear algebra than the likelihood took at n = 100.

    Source: Nocedal & Wright (2006), Numerical Optimization, eq. 6.17 (update), 6.20 (its start),
    sections 3.5 (interpolation) and 16.7 (projection).

    Args:
        function: Value and gradient at x (p,); a value may be inf.
        x: Where to start.
        low, high: Bounds, shape (p,).
        inverse_hessian: A guess of it, shape (p, p), or of its first `dense` rows and columns.
        dense: How many of the first variables' curvature is kept whole, if not all. The rest may
            be thousands.
        columns: The rest are rows of so many; those in one column are alike.
        tolerance: Stop when a full step is predicted to gain less than this, in units of the
            function.
        max_evaluations: Stop after this many, converged or not.
        stop: Asked before each evaluation but the first: whether to end where the search is.
    """
    x = np.clip(x, low, high)
    f, g = function(x)
    curvature = _Curvature(len(x), inverse_hessian, _units(x, dense, columns), dense, columns)
    evaluations = 1

    def end(converged: bool, message: str) -> Minimum:
        return Minimum(x, f, g, curvature.inverse, evaluations, converged, message)

    if not np.isfinite(f):
        return end(False, "the function is not finite where the search starts")
    while True:
        d, g_free, slope = curvature.direction(x, g, low, high)
        # Unscaled, the gradient step over-promises where curvature is high: then a small slope,
        # which no curvature of at least 1 can turn into more than the tolerance, is asked for.
        if -0.5 * slope <= tolerance:
            return end(True, f"a full step would gain less than {tolerance:g}")
        if evaluations >= max_evaluations:
            return end(False, f"stopped after {evaluations} evaluations")
        if _asked_to(stop):
            return end(False, _STOPPED)
        t = curvature.first_step(d)
        moves = d != 0
        room = np.where(d > 0, high - x, x - low)[moves] / np.abs(d[moves])
        inside = float(room.min()) * (1 + 1e-9)  # t that just reaches a first bound
        while True:
            new = np.clip(x + t * d, low, high)
            f_new, g_new = function(new)
            evaluations += 1
            predicted = float(g_free @ (new - x))
            if f_new <= f + _SUFFICIENT * min(predicted, 0.0):
                break
            if t * float(np.abs(d).max()) < 1e-9:
                return end(False, "no step along the direction of descent gains anything")
            if evaluations >= max_evaluations:
                return end(False, f"stopped after {evaluations} evaluations")
            if _asked_to(stop):
                return end(False, _STOPPED)
            if t > inside:
                # Clipped in one of several coupled variables, a step can go uphill: end it there.
                t = inside
                continue
            # Minimum of the parabola through both values and the first slope.
            ratio = -0.5 * predicted / max(f_new - f - predicted, 1e-300)
            t *= min(max(ratio, 0.1), 0.5) if np.isfinite(f_new) else 0.2
        curvature.learn(new - x, g_new - g)
        x, f, g = new, f_new, g_new


def follow(
    gradient: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    inverse_hessian: np.ndarray | None = None,
    tolerance: float = 1e-2,
    max_evaluations: int = 50,
    stop: Callable[[], bool] | None = None,
) -> Minimum:
    """`minimise` for a function known by its gradient alone.

    A step is taken once the slope along it has fallen to half of what it was, uphill counted: so
    it neither passes the minimum by far nor needs to know how high it is.

    Args:
        gradient: Gradient at x (p,).
        x, low, high, inverse_hessian, tolerance, max_evaluations, stop: As for `minimise`.

    Returns:
        Its value is NaN.
    """
    x = np.clip(x, low, high)
    g = gradient(x)
    curvature = _Curvature(len(x), inverse_hessian, np.ones(len(x)))
    evaluations = 1

    def end(converged: bool, message: str) -> Minimum:
        return Minimum(x, math.nan, g, curvature.inverse, evaluations, converged, message)

    while True:
        d, g_free, slope = curvature.direction(x, g, low, high)
        if -0.5 * slope <= tolerance:
            return end(True, f"a full step would gain less than {tolerance:g}")
        t = curvature.first_step(d)
        while True:
            if evaluations >= max_evaluations:
                return end(False, f"stopped after {evaluations} evaluations")
            if _asked_to(stop):
                return end(False, _STOPPED)
            new = np.clip(x + t * d, low, high)
            g_new = gradient(new)
            evaluations += 1
            before, after = float(g_free @ (new - x)), float(g_new @ (new - x))
            if after <= _FALLEN * abs(before):
                break
            if t * float(np.abs(d).max()) < 1e-6:
                return end(False, "no step along the direction of descent gains anything")
            # Where the slope is 0, were it to change evenly.
            t *= min(max(before / (before - after), 0.1), 0.7)
        curvature.learn(new - x, g_new - g)
        x, g = new, g_new


def _asked_to(stop: Callable[[], bool] | None) -> bool:
    return stop is not None and stop()


class _Curvature:
    """An estimate H of the inverse Hessian by BFGS: whole, or from the last few steps.

    Where only the first `dense` variables are kept whole, H is what the last steps make of
    diag(H₀, γ S²), with H₀ of those variables given or 1 and γ anew at each step: limited-memory
    BFGS, in O(p) time and memory. Source: Nocedal & Wright (2006), algorithm 7.4 and eq. 7.20.
    The scales S of a column are one over the slopes in it, as the lengths of steps in inputs are.

    Args:
        p: How many variables there are.
        inverse_hessian: H₀.
        units: What a change of each variable is measured in, shape (p,).
        dense: How many of the first are kept whole.
        columns: Of the rest.
    """

    def __init__(
        self,
        p: int,
        inverse_hessian: np.ndarray | None,
        units: np.ndarray,
        dense: int | None = None,
        columns: int = 1,
    ) -> None:
        self._dense = p if dense is None else dense
        self._known = inverse_hessian is not None  # whether H₀ carries any curvature
        self._H = np.eye(self._dense) if inverse_hessian is None else inverse_hessian.copy()
        self._units, self._wide, self._columns = units, p > self._dense, columns
        self._squares = np.ones(p - self._dense)  # S² of each of the rest
        self._scale: float | None = None  # γ
        self._steps: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=_REMEMBERED)

    @property
    def inverse(self) -> np.ndarray | None:
        """H of the variables kept whole, or None where nothing is known."""
        if not self._known:
            return None
        if not self._steps:
            return self._H
        k = self._dense
        units = np.eye(k, len(self._units))
        return np.array([self._times(unit)[:k] for unit in units]).reshape(k, k)

    def first_step(self, d: np.ndarray) -> float:
        """How far to go in the direction d at first, 1 for all of it."""
        limit = _LARGEST if self._known else _FIRST
        return min(1.0, limit / float((np.abs(d) / self._units).max()))

    def direction(
        self, x: np.ndarray, g: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Where to go from x inside the box; g without what bounds hold; the slope that way."""
        held = _outward(-g, x, low, high)
        g_free = np.where(held, 0.0, g)
        if self._wide and self._scale is None:
            self._begin(g_free[self._dense :])
        d = np.where(held, 0.0, -self._with_held(held, g_free))
        # A variable that H drives out of the box though its own slope points inwards stays.
        d[_outward(d, x, low, high)] = 0.0
        slope = float(d @ g_free)
        if slope > 0 or (slope == 0 and g_free.any()):
            # Rounding spoilt H. The plain gradient never points uphill.
            self._H, self._known = np.eye(self._dense), False
            self._steps.clear()
            d, slope = -g_free, -float(g_free @ g_free)
        return d, g_free, slope

    def _begin(self, g: np.ndarray) -> None:
        """Scales of the rest by their first slopes; the first step changes one by `_FIRST`."""
        units = self._units[self._dense :]
        slopes = np.sqrt(np.square(g * units).reshape(-1, self._columns).mean(0))
        scales = np.minimum(slopes.max() / np.maximum(slopes, 1e-300), _WIDEST)
        self._squares = np.square(units * np.tile(scales, len(g) // self._columns))
        self._scale = _FIRST / max(float(np.abs(self._squares * g / units).max()), 1e-300)

    def learn(self, s: np.ndarray, y: np.ndarray) -> None:
        """A step s changed the gradient by y."""
        sy = float(s @ y)
        if sy <= 1e-10 * float(np.linalg.norm(s) * np.linalg.norm(y)):
            return
        k = self._dense
        first, rest = float(s[:k] @ y[:k]), float(s[k:] @ y[k:])
        if not self._known and first > 0:
            self._H = self._H * (first / float(y[:k] @ y[:k]))
        self._known = self._known or first > 0 or not k
        if self._wide:
            self._steps.append((s, y, sy))
            if rest > 0:
                self._scale = rest / float(self._squares @ np.square(y[k:]))
            return
        Hy = self._H @ y
        H = self._H + np.outer(s, s) * ((1 + float(y @ Hy) / sy) / sy)
        cross = np.outer(s, Hy) / sy
        self._H = H - cross - cross.T

    def _times(self, v: np.ndarray) -> np.ndarray:
        """H v."""
        if not self._wide:
            return self._H @ v
        assert self._scale is not None
        v, parts = v.copy(), []
        for s, y, sy in reversed(self._steps):
            parts.append(float(s @ v) / sy)
            v -= parts[-1] * y
        rest = self._scale * self._squares * v[self._dense :]
        v = np.concatenate([self._H @ v[: self._dense], rest])
        for (s, y, sy), part in zip(self._steps, reversed(parts), strict=True):
            v += (part - float(y @ v) / sy) * s
        return v

    def _with_held(self, held: np.ndarray, g: np.ndarray) -> np.ndarray:
        """g times the inverse of the Hessian's block over the variables that are not held.

        By the inverse of the whole: the block of an inverse is not the inverse of the block. With
        H_ff alone, BFGS never learns how steep the function is along a bound.
        """
        Hg = self._times(g)
        if not held.any():
            return Hg
        rows = np.stack([self._times(unit) for unit in np.eye(len(g))[held]])
        return Hg - rows.T @ np.linalg.solve(rows[:, held], Hg[held])


def _units(x: np.ndarray, dense: int | None, columns: int) -> np.ndarray:
    """1 for a logarithm; for what is no logarithm, how far the values of its column are spread."""
    rest = x[len(x) if dense is None else dense :]
    spread = rest.reshape(-1, columns).std(0) if rest.size else np.ones(columns)
    spread = np.where(spread > 0, spread, 1.0)
    return np.concatenate([np.ones(len(x) - rest.size), np.tile(spread, rest.size // columns)])


def _outward(d: np.ndarray, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which entries of the step d from x would leave the box at once."""
    return ((x <= low) & (d < 0)) | ((x >= high) & (d > 0))
