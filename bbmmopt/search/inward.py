"""Find a feasible point by the slopes of the functions that draw its bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import minimize

from bbmmopt.search.polytope import Polytope

Curved = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Maps a row to numbers that must be 0, shape (q,), and at least 0, shape (p,)."""


def shortfall(row: np.ndarray, curved: Curved) -> float:
    """How far a row is from meeting the functions, 0 or more."""
    equal, positive = curved(row)
    parts = np.concatenate([-np.abs(equal), positive])
    return float(-np.minimum(np.nan_to_num(parts, nan=-1e30), 0.0).sum())


def climb_in(
    x: np.ndarray, free: np.ndarray, polytope: Polytope, curved: Curved
) -> Iterator[np.ndarray]:
    """Rows on the way from x to where the functions are met, and a little further.

    The squares of the shortfalls are minimised by SLSQP within the polytope, thrice at most. That
    comes to the region from outside, so rows beyond its ends, along the way, are given too.

    Args:
        x: A row in the polytope, shape (d,).
        free: The columns that may change, shape (d,).
        polytope: Linear constraints.
        curved: The functions.
    """
    columns = np.flatnonzero(free)
    if not len(columns):
        return

    def row_of(u: np.ndarray) -> np.ndarray:
        row = x.copy()
        row[columns] = u.clip(0.0, 1.0)
        return row

    def cost(u: np.ndarray) -> float:
        equal, positive = curved(row_of(u))
        return float((equal**2).sum() + (np.minimum(positive, 0.0) ** 2).sum())

    linear = [
        {"type": kind, "fun": lambda u, A=A, b=b: b - A @ row_of(u)}
        for kind, A, b in (("eq", polytope.E, polytope.e), ("ineq", polytope.G, polytope.h))
        if len(A)
    ]
    start = x[columns]
    for _ in range(3):
        end = minimize(
            cost,
            start,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * len(columns),
            constraints=linear,
            options={"maxiter": 200, "ftol": 1e-18, "eps": 1e-7},
        ).x
        for beyond in (0.0, 1e-6, 1e-4, 1e-2, 0.1, 0.5, 1.0, 2.0):
            yield row_of(end + beyond * (end - start))
        start = end
