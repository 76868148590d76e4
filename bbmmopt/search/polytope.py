"""A box cut by linear constraints: its nearest points, its interior, moves that stay in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp, nnls

_FLAT = 1e-8  # a polytope thinner than this is taken for an equality
_LOOSE = 1e-5  # nothing that has no say is refused for less: whole points are checked exactly
_ZERO = 1e-12  # a normalised row shorter than this has nothing left of it


class NoFeasiblePoint(ValueError):
    """No point of the space meets its constraints, or none was found; the message says which."""


def least_distance(G: np.ndarray, h: np.ndarray) -> np.ndarray | None:
    """The shortest y with G y ≤ h; None if there is none.

    Constraints join as they turn out to be broken: most never do, and the others make small
    problems of non-negative least squares.

    Source: Lawson & Hanson (1974), Solving Least Squares Problems, chapter 23 (problem LDP).

    Args:
        G: Shape (p, d).
        h: Shape (p,).
    """
    y = np.zeros(G.shape[1])
    if (h >= 0).all():
        return y
    length = np.sqrt(np.einsum("pd,pd->p", G, G))
    ruled = length > _ZERO
    if (h[~ruled] < -_FLAT).any() or not ruled.any():
        return None if (h[~ruled] < -_FLAT).any() else y
    G, h = G[ruled] / length[ruled, None], h[ruled] / length[ruled]
    unit = max(-h.min(), 1e-300)  # lengths are about one in units of the worst violation
    h = h / unit
    used = np.zeros(len(h), dtype=bool)
    while True:
        broken = (G @ y > h + 1e-11) & ~used
        if not broken.any():
            return unit * y
        used |= broken
        E = np.vstack([-G[used].T, -h[used]])
        f = np.zeros(len(E))
        f[-1] = 1.0
        try:
            r = E @ nnls(E, f, maxiter=30 * E.shape[1] + 100)[0] - f
        except RuntimeError:
            return None
        if r[-1] > -1e-12:  # -1 / (1 + ‖y‖²): a million times the worst violation is no distance
            return None
        y = -r[:-1] / r[-1]


@dataclass(frozen=True)
class Polytope:
    """The points x of the box [low, high] with E x = e and G x ≤ h.

    Attributes:
        E, e: Equalities of unit length, shape (q, d) and (q,).
        G, h: Inequalities of unit length, shape (p, d) and (p,).
        low, high: Shape (d,).
    """

    E: np.ndarray
    e: np.ndarray
    G: np.ndarray
    h: np.ndarray
    low: np.ndarray
    high: np.ndarray
    _bases: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(
        cls,
        A: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
    ) -> Polytope:
        """The points of a box with lower ≤ A x ≤ upper.

        Parallel rows are made one first, so that two limits that meet become an equality.

        Raises:
            NoFeasiblePoint: If parallel rows contradict each other.
        """
        rows: list[tuple[np.ndarray, float, float]] = []
        for a, least, most in zip(A, lower.tolist(), upper.tolist(), strict=True):
            length = float(np.linalg.norm(a))
            if length < 1e-300:
                continue  # all of it is fixed: the check of whole points decides
            a, least, most = a / length, least / length, most / length
            for i, (other, u, v) in enumerate(rows):
                sign = np.sign(a @ other)
                if np.abs(a - sign * other).max() < _ZERO:
                    s, t = (least, most) if sign > 0 else (-most, -least)
                    rows[i] = (other, max(u, s), min(v, t))
                    break
            else:
                rows.append((a, least, most))
        if any(u > v + _FLAT for _, u, v in rows):
            raise NoFeasiblePoint("two of them contradict each other.")
        same = [(a, (u + v) / 2) for a, u, v in rows if v - u <= _FLAT]
        apart = [(a, v) for a, u, v in rows if v - u > _FLAT and np.isfinite(v)]
        apart += [(-a, -u) for a, u, v in rows if v - u > _FLAT and np.isfinite(u)]
        d = len(low)
        E, G = (np.array([a for a, _ in part]).reshape(len(part), d) for part in (same, apart))
        e, h = (np.array([b for _, b in part]) for part in (same, apart))
        return cls(E, e, G, h, low, high)

    def tangent(self, free: np.ndarray) -> np.ndarray:
        """Orthonormal moves of the free columns that keep the equalities, shape (d, k)."""
        return self._basis(free)[0]

    def _basis(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`tangent`, and the pseudo-inverse of the equalities in the free columns; remembered."""
        key = free.tobytes()
        if key not in self._bases:
            columns = np.flatnonzero(free)
            Z, inverse = np.zeros((len(free), len(columns))), np.zeros((len(columns), len(self.E)))
            Z[columns, np.arange(len(columns))] = 1.0
            if len(self.E) and len(columns):
                U, s, Vt = np.linalg.svd(self.E[:, columns])
                rank = int((s > 1e-10 * max(float(s.max()), 1e-3)).sum())
                Z = Z @ Vt[rank:].T
                inverse = Vt[:rank].T / s[:rank] @ U[:, :rank].T
            self._bases[key] = Z, inverse
        return self._bases[key]

    def straighten(self, X: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Rows of X moved in the free columns, as little as possible, onto the equalities."""
        if not len(self.E) or not free.any():
            return X
        X, inverse = X.copy(), self._basis(free)[1]
        for _ in range(2):  # once more for the last digits
            X[..., free] -= (X @ self.E.T - self.e) @ inverse.T
        return X

    def project(self, x: np.ndarray, free: np.ndarray) -> np.ndarray | None:
        """The nearest point that differs from x (d,) in the free columns only; None if none."""
        on = self.straighten(x, free)
        if len(self.E) and np.abs(self.E @ on - self.e).max() > _FLAT:
            return None
        Z = self.tangent(free)
        columns = np.flatnonzero(free)
        G = np.vstack([self.G @ Z, Z[columns], -Z[columns]])
        room = [self.h - self.G @ on, self.high[columns] - on[columns]]
        y = least_distance(G, np.concatenate([*room, on[columns] - self.low[columns]]))
        if y is None:
            return None
        return self.polish(on + Z @ y, free)

    def polish(self, x: np.ndarray, free: np.ndarray) -> np.ndarray:
        """A point a rounding error outside, in the box and on the equalities to the last digits."""
        x = np.where(free, x.clip(self.low, self.high), x)
        if len(self.E) and np.abs(self.E @ x - self.e).max() > 1e-15:
            inside = free & (x > self.low + 1e-9) & (x < self.high - 1e-9)
            exact = self.straighten(x, inside)
            if ((exact >= self.low) & (exact <= self.high))[inside].all():
                return exact
        return x

    def interior(self, x: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, Polytope]:
        """A point well inside, x in all but the free columns, and the polytope with the equalities
        that its inequalities imply.

        The centre of the largest ball within the equalities (Chebyshev's), by linear programming.

        Raises:
            NoFeasiblePoint: If there is none.
        """
        columns = np.flatnonzero(free)
        if not len(columns):
            off = np.concatenate([np.abs(self.E @ x - self.e), self.G @ x - self.h])
            if (off > _LOOSE).any():
                raise NoFeasiblePoint("what is fixed breaks them.")
            return x, self
        Z = self.tangent(free)
        eye = np.eye(len(free))[columns]
        G = np.vstack([self.G, eye, -eye])
        room = np.concatenate([self.h, self.high[columns], -self.low[columns]])
        room = room - G[:, ~free] @ x[~free]
        size = np.linalg.norm(G @ Z, axis=1)  # of each row, within the equalities
        A = np.hstack([G[:, columns], size[:, None]])
        equal = {
            "A_eq": np.hstack([self.E[:, columns], np.zeros((len(self.E), 1))]),
            "b_eq": self.e - self.E[:, ~free] @ x[~free],
        }
        if not len(self.E):
            equal = {}
        bounds = [(None, None)] * len(columns) + [(0.0, 1.0)]
        cost = np.zeros(len(columns) + 1)
        cost[-1] = -1.0
        solved = linprog(cost, A_ub=A, b_ub=room, bounds=bounds, **equal)
        if solved.x is None:
            raise NoFeasiblePoint("the linear ones contradict each other or what is fixed.")
        inside = x.copy()
        inside[columns] = solved.x[:-1]
        if not Z.shape[1] or solved.x[-1] > 10 * _FLAT:
            return self.straighten(inside, free), self
        implied = []
        for i in np.flatnonzero(size > 1e-9):
            cost = np.append(G[i, columns], 0.0)
            slack = linprog(
                cost, A_ub=A[:, :-1] @ np.eye(len(columns), len(columns) + 1), b_ub=room,
                bounds=bounds, **equal,
            )  # fmt: skip
            if slack.x is None or room[i] - slack.fun <= 10 * _FLAT:
                implied.append(i)
        if not implied:
            return self.straighten(inside, free), self
        flat = replace(
            self,
            E=np.vstack([self.E, G[implied]]),
            e=np.concatenate([self.e, room[implied] + G[implied][:, ~free] @ x[~free]]),
            _bases={},
        )
        # A flat polytope has at least one dimension less, so this ends.
        return flat.interior(x, free)

    def nearest_lattice(
        self, x: np.ndarray, free: np.ndarray, levels: dict[int, int]
    ) -> np.ndarray | None:
        """A point near x whose columns in `levels` are at the middle of one of so many cells.

        The nearest one in the sum of absolute differences, or one at most a quarter further away,
        by mixed-integer programming. None if there is none; also where 20,000 nodes of its tree
        were not enough, which takes large numbers and coefficients that hardly fit together.

        Args:
            x: Shape (d,).
            free: Columns that may change: those of `levels` and continuous ones, shape (d,).
            levels: {column: number of levels}.
        """
        columns = np.flatnonzero(free)
        k = len(columns)
        unit = np.array([1 / levels[j] if j in levels else 1.0 for j in columns.tolist()])
        start = np.array([0.5 / levels[j] if j in levels else 0.0 for j in columns.tolist()])
        # Variables: levels or positions, then how far each is from x.
        base = x.copy()
        base[columns] = start
        A = np.vstack([self.E, self.G])
        lower = np.concatenate([self.e, np.full(len(self.h), -np.inf)]) - A @ base
        upper = np.concatenate([self.e, self.h]) - A @ base
        away: Any = x[columns] - start
        eye, none = np.eye(k), np.zeros((len(A), k))
        whole = np.array([j in levels for j in columns.tolist()])
        most = [levels[j] - 1.0 if j in levels else 1.0 for j in columns.tolist()]
        limits: Any = (lower, upper), (np.zeros(2 * k), np.concatenate([most, np.full(k, np.inf)]))
        solved = milp(
            np.concatenate([np.zeros(k), np.ones(k)]),
            constraints=[
                LinearConstraint(np.hstack([A[:, columns] * unit, none]), *limits[0]),
                LinearConstraint(np.hstack([eye * unit, -eye]), -np.inf, away),
                LinearConstraint(np.hstack([eye * unit, eye]), away, np.inf),
            ],
            integrality=np.concatenate([whole, np.zeros(k, dtype=bool)]).astype(int),
            bounds=Bounds(*limits[1]),
            options={"node_limit": 20_000, "mip_rel_gap": 0.2},
        )
        if solved.x is None:
            return None
        moved = x.copy()
        steps = np.where(whole, np.round(solved.x[:k]), solved.x[:k])
        # (i + ½) / k, the same double that `Space.snap` gives.
        count = np.array([levels.get(j, 1) for j in columns.tolist()], dtype=float)
        moved[columns] = np.where(whole, (steps + 0.5) / count, steps)
        return self.project(moved, free & ~np.isin(np.arange(len(free)), list(levels)))
