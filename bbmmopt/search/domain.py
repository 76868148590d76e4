"""Where to look for candidates: a space, less what is fixed and what was seen."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import numpy as np

from bbmmopt.search.polytope import NoFeasiblePoint
from bbmmopt.space import Space

_RELAX = 8  # ordered columns of more levels than this are climbed as if continuous, then rounded


class SpaceExhausted(RuntimeError):
    """Every point that may still be proposed has been tried."""


@dataclass(frozen=True)
class Domain:
    """A space, less what is fixed and what was seen.

    Attributes:
        space: The space.
        fixed: Values of columns that must not change, in [0, 1].
        seen: Rows (as bytes) that must not be proposed.
    """

    space: Space
    fixed: Mapping[int, float] = field(default_factory=dict)
    seen: Set[bytes] = frozenset()

    def place(self, X: np.ndarray) -> np.ndarray:
        """Move rows onto the lattice with the fixed columns at their values."""
        if self.fixed:
            X = X.copy()
            X[..., list(self.fixed)] = list(self.fixed.values())
        return self.space.snap(X)

    def feasible(self, X: np.ndarray) -> np.ndarray:
        """Which rows stand for points that meet the constraints, but for rounding, shape (m,)."""
        return self.space.feasible(X, exact=True)

    def unseen(self, X: np.ndarray) -> np.ndarray:
        """Which rows may be proposed, shape (m,).

        Seen rows are encodings of points handed out, which are decimals. A row a rounding error
        away from one (1 - 1e-16 beside a bound, say) would be handed out as the same point, so
        rows are rounded to what would be handed out before they are looked up.
        """
        if not self.seen:
            return np.ones(len(X), dtype=bool)
        return np.array([key not in self.seen for key in self.keys(X)], dtype=bool)

    def keys(self, X: np.ndarray) -> list[bytes]:
        """What `seen` would hold of each row, once it was handed out."""
        rows = np.ascontiguousarray(X)
        if any(c.kind == "continuous" for c in self.space.columns):
            rows = [self.space.encode(self.space.decode(row)) for row in rows]
        return [row.tobytes() for row in rows]

    def agrees(self, X: np.ndarray) -> np.ndarray:
        """Which rows have the fixed columns at their values, where they matter, shape (m,)."""
        columns, values = list(self.fixed), list(self.fixed.values())
        return ((X[:, columns] == values) | ~self.space.active(X)[:, columns]).all(1)

    def enumerate(self) -> np.ndarray:
        """All unseen points of a finite space that meet its constraints, shape (k, d).

        Raises:
            SpaceExhausted: If there is none left.
            NoFeasiblePoint: If there was none from the start.
        """
        X = self.space.enumerate()
        if self.space.constraints:
            among = X[self.agrees(X)]
            X = among[self.feasible(among)]
            if not len(X):
                raise NoFeasiblePoint(
                    f"none of the {len(among)} points of the space"
                    f"{' with the parameters fixed as asked' if self.fixed else ''} meets its "
                    f"constraints {list(self.space.constraints)!r}. Loosen them, or the bounds."
                )
        left = X[self.unseen(X) & self.agrees(X)]
        if not len(left):
            within = " with the parameters fixed as asked" if self.fixed else ""
            within += " that meet the constraints" if self.space.constraints else ""
            raise SpaceExhausted(
                f"all {int(self.agrees(X).sum())} points of the space{within} have been tried. "
                f'Widen the space, or declare noise="noisy" to have points tried again.'
            )
        return left

    def bounds(self, X: np.ndarray, *, relax: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Per-row bounds of a climb: only active columns that can move a little are free.

        Args:
            X: The rows, on the lattice.
            relax: Whether ordered columns of many levels may leave the lattice.
        """
        free = np.array(
            [
                c.kind == "continuous"
                or (relax and c.kind == "ordered" and (c.levels or 0) > _RELAX)
                for c in self.space.columns
            ]
        )
        free[list(self.fixed)] = False
        free = free & self.space.active(X)
        return np.where(free, 0.0, X), np.where(free, 1.0, X)

    @property
    def discrete(self) -> list[int]:
        """Columns that discrete moves may change."""
        kinds = ("ordered", "categorical")
        columns = enumerate(self.space.columns)
        return [j for j, c in columns if c.kind in kinds and j not in self.fixed]

    def neighbours(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All rows that differ from a row of X in one active discrete parameter.

        Every other category; the two adjacent levels of an ordered one.

        Returns:
            The rows, on the lattice, and for each the index of the row of X it came from.
        """
        active = self.space.active(X)
        rows, owner = [np.empty((0, X.shape[1]))], [np.empty(0, dtype=int)]
        for j in self.discrete:
            column = self.space.columns[j]
            lattice = self.space.parameters[column.name].lattice
            assert lattice is not None and column.levels is not None
            for i in np.flatnonzero(active[:, j]):
                level = lattice.level(float(X[i, j]))
                others = [level - 1, level + 1]
                if column.kind == "categorical":
                    others = [k for k in range(column.levels) if k != level]
                others = [k for k in others if 0 <= k < column.levels]
                moved = np.repeat(X[i : i + 1], len(others), axis=0)
                moved[:, j] = [lattice.position(k) for k in others]
                rows.append(moved)
                owner.append(np.full(len(others), i))
        return self.place(np.concatenate(rows)), np.concatenate(owner)
