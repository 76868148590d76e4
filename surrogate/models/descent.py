"""Minimise a smooth function of a few dozen variables in a box, each evaluation being dear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_SUFFICIENT = 1e-4  # Armijo: the part of the predicted decrease a step must reach
_FIRST = 0.5  # largest change of a variable in the first step, before curvature is known
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
    H = np.eye(len(x)) if inverse_hessian is None else inverse_hessian.copy()
    known = inverse_hessian is not None  # whether H carries any curvature
    evaluations = 1

    def end(converged: bool, message: str) -> Minimum:
        return Minimum(x, f, g, H if known else None, evaluations, converged, message)

    if not np.isfinite(f):
        return end(False, "the function is not finite where the search starts")
    while True:
        held = _outward(-g, x, low, high)
        g_free = np.where(held, 0.0, g)
        d = np.where(held, 0.0, -(_with_held(H, held) @ g_free))
        # A variable that H drives out of the box though its own slope points inwards stays.
        d[_outward(d, x, low, high)] = 0.0
        slope = float(d @ g_free)
        if slope > 0 or (slope == 0 and g_free.any()):
            # Rounding spoilt H. The plain gradient never points uphill.
            H, known = np.eye(len(x)), False
            d, slope = -g_free, -float(g_free @ g_free)
        # Unscaled, the gradient step over-promises where curvature is high: then a small slope,
        # which no curvature of at least 1 can turn into more than the tolerance, is asked for.
        if -0.5 * slope <= tolerance:
            return end(True, f"a full step would gain less than {tolerance:g}")
        if evaluations >= max_evaluations:
            return end(False, f"stopped after {evaluations} evaluations")
        limit = _LARGEST if known else _FIRST
        t = min(1.0, limit / float(np.abs(d).max()))
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
        s, y = new - x, g_new - g
        sy = float(s @ y)
        if sy > 1e-10 * float(np.linalg.norm(s) * np.linalg.norm(y)):
            if not known:
                H, known = H * (sy / float(y @ y)), True
            Hy = H @ y
            H = H + np.outer(s, s) * ((1 + float(y @ Hy) / sy) / sy)
            cross = np.outer(s, Hy) / sy
            H = H - cross - cross.T
        x, f, g = new, f_new, g_new


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
