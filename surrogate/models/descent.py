"""Minimise a smooth function of a few dozen variables in a box, each evaluation being dear."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_SUFFICIENT = 1e-4  # Armijo: the part of the predicted decrease a step must reach
_FIRST = 0.5  # largest change of a variable in the first step, before curvature is known
_FALLEN = 0.5  # the part of its slope that a step may still have, where only slopes are known
_LARGEST = 2.0  # and in any step: the variables are logarithms, so a factor of 7


@dataclass(frozen=True)
class Minimum:
    """Where a descent ended.

    Attributes:
        x: Shape (p,).
        value: The function there.
        gradient: Its gradient there, shape (p,).
        inverse_hessian: Estimate of the inverse Hessian there, shape (p, p), or None when no step
            was taken and none was given; start a later descent nearby with it.
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
    tolerance: float = 1e-4,
    max_evaluations: int = 200,
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
        inverse_hessian: A guess of it, shape (p, p).
        tolerance: Stop when a full step is predicted to gain less than this, in units of the
            function.
        max_evaluations: Stop after this many, converged or not.
    """
    x = np.clip(x, low, high)
    f, g = function(x)
    curvature = _Curvature(len(x), inverse_hessian)
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
        t = min(1.0, curvature.limit / float(np.abs(d).max()))
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
) -> Minimum:
    """`minimise` for a function known by its gradient alone.

    A step is taken once the slope along it has fallen to half of what it was, uphill counted: so
    it neither passes the minimum by far nor needs to know how high it is.

    Args:
        gradient: Gradient at x (p,).
        x, low, high, inverse_hessian, tolerance, max_evaluations: As for `minimise`.

    Returns:
        Its value is NaN.
    """
    x = np.clip(x, low, high)
    g = gradient(x)
    curvature = _Curvature(len(x), inverse_hessian)
    evaluations = 1

    def end(converged: bool, message: str) -> Minimum:
        return Minimum(x, math.nan, g, curvature.inverse, evaluations, converged, message)

    while True:
        d, g_free, slope = curvature.direction(x, g, low, high)
        if -0.5 * slope <= tolerance:
            return end(True, f"a full step would gain less than {tolerance:g}")
        t = min(1.0, curvature.limit / float(np.abs(d).max()))
        while True:
            if evaluations >= max_evaluations:
                return end(False, f"stopped after {evaluations} evaluations")
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


class _Curvature:
    """An estimate H of the inverse Hessian, by BFGS."""

    def __init__(self, p: int, inverse_hessian: np.ndarray | None) -> None:
        self._H = np.eye(p) if inverse_hessian is None else inverse_hessian.copy()
        self._known = inverse_hessian is not None  # whether H carries any curvature

    @property
    def inverse(self) -> np.ndarray | None:
        """H, or None where nothing is known."""
        return self._H if self._known else None

    @property
    def limit(self) -> float:
        """The largest change of a variable in one step."""
        return _LARGEST if self._known else _FIRST

    def direction(
        self, x: np.ndarray, g: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Where to go from x inside the box; g without what bounds hold; the slope that way."""
        held = _outward(-g, x, low, high)
        g_free = np.where(held, 0.0, g)
        d = np.where(held, 0.0, -(_with_held(self._H, held) @ g_free))
        # A variable that H drives out of the box though its own slope points inwards stays.
        d[_outward(d, x, low, high)] = 0.0
        slope = float(d @ g_free)
        if slope > 0 or (slope == 0 and g_free.any()):
            # Rounding spoilt H. The plain gradient never points uphill.
            self._H, self._known = np.eye(len(x)), False
            d, slope = -g_free, -float(g_free @ g_free)
        return d, g_free, slope

    def learn(self, s: np.ndarray, y: np.ndarray) -> None:
        """A step s changed the gradient by y."""
        sy = float(s @ y)
        if sy <= 1e-10 * float(np.linalg.norm(s) * np.linalg.norm(y)):
            return
        if not self._known:
            self._H, self._known = self._H * (sy / float(y @ y)), True
        Hy = self._H @ y
        H = self._H + np.outer(s, s) * ((1 + float(y @ Hy) / sy) / sy)
        cross = np.outer(s, Hy) / sy
        self._H = H - cross - cross.T


def _outward(d: np.ndarray, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which entries of the step d from x would leave the box at once."""
    return ((x <= low) & (d < 0)) | ((x >= high) & (d > 0))


def _with_held(H: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Inverse of the Hessian's block over the variables that are not held, zero elsewhere.

    By the inverse of the whole: the block of an inverse is not the inverse of the block. With
    H_ff alone, BFGS never learns how steep the function is along a bound.
    """
    if not held.any():
        return H
    rows = H[held]
    return H - rows.T @ np.linalg.solve(rows[:, held], rows)
