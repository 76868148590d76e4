"""The part of a domain that meets the constraints of its space: draws from it, and ways back."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from bbmmopt.search.dependent import Dependent
from bbmmopt.search.domain import Domain
from bbmmopt.search.inward import climb_in, shortfall
from bbmmopt.search.polytope import NoFeasiblePoint, Polytope
from bbmmopt.search.starts import around, change_discrete, sobol
from bbmmopt.search.walk import chord, lattice_moves, walk
from bbmmopt.search.within import ascend_curved

_CHAINS = 256  # walks at once; each gives several points
_SLOW_CHAINS = 64  # where each step calls the user's functions
_ENOUGH = 0.02  # accepted part of raw points from which on more are drawn, instead of walks
_ENOUGH_SLOW = 0.25
_SEEDS = 4  # feasible settings of integers that walks begin from
_EFFORT = 16_384  # raw points looked at before giving up on functions
_GUIDED = 16  # of them, those from which a feasible point is climbed to


class Region:
    """The feasible part of a domain.

    Columns are of four kinds. Moving ones are continuous and tied by constraints; whole ones are
    integers in linear constraints; dependent ones follow from an equality over log parameters,
    which is not linear in the cube; all others are loose.

    Args:
        domain: A domain whose space has constraints.

    Raises:
        NoFeasiblePoint: If the linear constraints contradict each other.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain, self.space = domain, domain.space
        limits, columns = self.space.limits, self.space.columns
        d = len(columns)
        held = np.array([c.kind == "fixed" for c in columns])
        held[list(domain.fixed)] = True
        kinds = np.array([c.kind for c in columns])
        self._dependent = Dependent(self.space, held)
        dependent = np.isin(np.arange(d), list(self._dependent.sums))
        straight = [s for s in limits.sums if not s.curved and not dependent[s.columns].any()]
        self._curved = [s for s in limits.sums if s.curved or dependent[s.columns].any()]
        self._checked = bool(self._curved or limits.functions)
        rows = limits.rows(straight)
        tied = (rows[0] != 0).any(0) & ~held
        self.whole = {
            j: columns[j].levels or 1 for j in np.flatnonzero(tied & (kinds == "ordered")).tolist()
        }
        self.moving = (kinds == "continuous") & ~held & ~dependent & (tied | self._checked)
        integer = np.isin(np.arange(d), list(self.whole))
        self.loose = ~held & ~dependent & ~self.moving & ~integer
        margin = np.array([0.5 / self.whole[j] if j in self.whole else 0.0 for j in range(d)])
        try:
            self.polytope = Polytope.of(*rows, margin, 1.0 - margin)
        except NoFeasiblePoint as error:
            raise self._nothing(str(error)) from None
        self._linear = bool(len(self.polytope.E) + len(self.polytope.G))

    def _nothing(self, why: str) -> NoFeasiblePoint:
        fixed = [self.space.names[j] for j in self.domain.fixed]
        within = f" with {', '.join(map(repr, fixed))} fixed as asked" if fixed else ""
        ways = "Fix other values, or loosen" if fixed else "Loosen"
        given = list(self.space.constraints)
        return NoFeasiblePoint(
            f"no point of the space{within} meets its constraints {given!r}: {why} {ways} the "
            f"constraints or the bounds."
        )

    # ----------------------------------------------------------------------------------
    # Feasible points
    # ----------------------------------------------------------------------------------

    def complete(self, X: np.ndarray) -> np.ndarray:
        """Rows on the lattice, the fixed columns at their values, dependent ones solved for."""
        return self._dependent.solve(self.domain.place(X))

    @cached_property
    def anchors(self) -> np.ndarray:
        """Rows that meet the linear constraints, to walk from, shape (k, d).

        Raises:
            NoFeasiblePoint: If there is none, which linear programming has proved.
        """
        rng = np.random.default_rng(0)
        base = self.domain.place(np.full((1, len(self.space)), 0.5))[0]
        try:
            if not self.whole:
                inside, self._flat = self.polytope.interior(base, self.moving)
                return inside[None]
            self._flat, rows = self.polytope, []
            free = self._coupled
            targets = np.vstack([np.full((1, len(base)), 0.5), rng.random((_SEEDS - 1, len(base)))])
            for target in targets:
                target = np.where(free, target, base)
                row = self.polytope.nearest_lattice(target, free, self.whole)
                if row is None and not rows:
                    break
                if row is not None:
                    rows.append(row)
        except NoFeasiblePoint as error:
            raise self._nothing(str(error)) from None
        if not rows:
            raise self._nothing(
                "no values of the integers and real numbers do, all taken together."
            )
        return np.unique(np.array(rows), axis=0)

    @property
    def _coupled(self) -> np.ndarray:
        """Moving and whole columns, (d,)."""
        return self.moving | np.isin(np.arange(len(self.moving)), list(self.whole))

    def _draw_loose(self, X: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """Rows of X with the loose columns from a Sobol sequence, in place."""
        if self.loose.any():
            X[:, self.loose] = sobol(len(X), int(self.loose.sum()), generator)
        return X

    def sample(self, count: int, generator: torch.Generator) -> np.ndarray:
        """About evenly spread feasible rows, on the lattice, shape (count, d).

        A Sobol sequence, less what is not feasible, where at least 2 % are and no equality binds;
        else hit-and-run walks from the middle of the polytope, or from what raw points or climbs
        of the functions found.

        Raises:
            NoFeasiblePoint: If there is none, or functions left none of 16,384 raw points and led
                to none from the most promising ones.
        """
        anchors = self.anchors
        raw = np.empty((0, len(self.space)))
        for _ in range(4):
            if not len(self.polytope.E):
                drawn = self.complete(sobol(max(count, 256), len(self.space), generator))
                drawn = drawn[self.domain.feasible(drawn)]
                raw = np.concatenate([raw, drawn])
                if len(raw) >= count:
                    return raw[:count]
                if len(drawn) < (_ENOUGH_SLOW if self._checked else _ENOUGH) * max(count, 256):
                    break
        rng = _numpy(generator)
        if not self._checked:
            return self._walk(anchors, count, generator, rng)
        starts = raw
        if not len(starts):
            starts = self._found_by_functions(anchors, generator, rng)
        return self._walk(starts, count, generator, rng)

    def _walk(
        self, starts: np.ndarray, count: int, generator: torch.Generator, rng: np.random.Generator
    ) -> np.ndarray:
        """`count` rows from walks that begin at the given ones, loose columns drawn anew."""
        chains = min(count, _SLOW_CHAINS if self._checked else _CHAINS)
        X = np.resize(starts, (chains, starts.shape[1]))
        if not self._checked:
            X = self._draw_loose(X, generator)
            X = self.domain.place(X)
        rows = walk(
            X,
            count,
            self._flat,
            self.moving,
            self._moves,
            rng,
            allowed=self._allowed if self._checked else None,
        )
        if self._checked:
            # Loose columns are drawn anew where that is allowed; the others keep theirs.
            drawn = self.complete(self._draw_loose(rows.copy(), generator))
            rows = np.where(self.domain.feasible(drawn)[:, None], drawn, self.complete(rows))
        else:
            rows = self.domain.place(self._draw_loose(rows, generator))
        good = rows[self.domain.feasible(rows)]
        if not len(good):
            good = self.complete(np.atleast_2d(starts))
            good = good[self.domain.feasible(good)]
        if not len(good):
            raise self._nothing("what linear programming found is lost by rounding.")
        return np.resize(good, (count, good.shape[1]))

    def _found_by_functions(
        self, anchors: np.ndarray, generator: torch.Generator, rng: np.random.Generator
    ) -> np.ndarray:
        """Rows that are feasible in the functions too: drawn, or climbed to."""
        seen, rows = 0, anchors
        closest, least = np.empty((0, len(self.space))), np.empty(0)
        while seen < _EFFORT:
            rows = walk(
                self._draw_loose(np.resize(anchors, (_CHAINS, anchors.shape[1])), generator),
                2048,
                self._flat,
                self.moving,
                self._moves,
                rng,
            )
            rows = self.complete(self._draw_loose(rows, generator))
            seen += len(rows)
            good = rows[self.domain.feasible(rows)]
            if len(good):
                return good
            short = np.array([shortfall(row, self.curved) for row in rows])
            closest, least = np.vstack([closest, rows]), np.concatenate([least, short])
            best = least.argsort(kind="stable")[:_GUIDED]
            closest, least = closest[best], least[best]
        good = [row for x in closest if (row := self._climb_in(x)) is not None]
        if good:
            return np.array(good)
        names = [repr(c.name) for c in self.space.limits.functions]
        raise self._nothing(
            f"none of {seen:,} points was found to meet "
            f"{' and '.join(names) or 'the sums of log parameters'}, nor where the best "
            f"{_GUIDED} of them led."
        )

    def _climb_in(self, x: np.ndarray) -> np.ndarray | None:
        """A feasible row that the slopes of the functions lead to from x; None if they do not."""

        def onto(X: np.ndarray) -> np.ndarray:
            row = self.polytope.project(self.complete(X[None])[0], self.moving)
            return self.complete((X if row is None else row)[None])[0]

        for row in climb_in(x, self.moving & self.space.active(x), self.polytope, self.curved):
            row = onto(row)
            if self.domain.feasible(row[None])[0]:
                return row
        return None

    def curved(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is not linear in the cube: numbers that must be 0, and numbers at least 0."""
        point = self.space.decode(row)
        equal, positive = [], []
        for s in self._curved:
            width = max(1e9 * s.rounding, 1e-300)
            if s.equality:
                equal.append((s.value(point) - s.at_most) / width)
            else:
                ends = s.at_most - s.value(point), s.value(point) - s.at_least
                positive += [end / width for end in ends if np.isfinite(end)]
        positive += [c.value(point) for c in self.space.limits.functions]
        return np.array(equal), np.array(positive)

    def _allowed(self, X: np.ndarray) -> np.ndarray:
        return self.domain.feasible(self.complete(X))

    # ----------------------------------------------------------------------------------
    # Near a point
    # ----------------------------------------------------------------------------------

    def near(self, centres: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
        """Feasible rows near the feasible ones among `centres`, themselves included, (≤ k, d)."""
        rows = [c if self.domain.feasible(c[None])[0] else self.nearest(c)
                for c in self.complete(centres)]  # fmt: skip
        kept = np.array([row for row in rows if row is not None]).reshape(-1, len(self.space))
        if not len(kept):
            return kept
        moved = change_discrete(self.space, around(kept, count, generator), generator)
        anchors = np.resize(kept, (count, len(self.space)))
        # Which centre each came from is the nearest one in the columns that are tied.
        tied = self._coupled
        if tied.any():
            away = ((moved[:, None, tied] - kept[None][..., tied]) ** 2).sum(-1)
            anchors = kept[away.argmin(1)]
        moved = np.where(self.loose, moved, anchors)
        rng = _numpy(generator)
        step = rng.standard_normal((count, len(self.space))) * 10 ** rng.uniform(
            -3, np.log10(0.2), (count, 1)
        )
        if self._moves.size:
            pick = self._moves[rng.integers(len(self._moves), size=count)]
            moved += pick * rng.integers(-1, 2, (count, 1))
        moved = self.repair(self.domain.place(moved + step @ self._Z @ self._Z.T))
        moved = moved[self.domain.feasible(moved)]
        return np.concatenate([moved, kept])

    @cached_property
    def _Z(self) -> np.ndarray:
        _ = self.anchors
        return self._flat.tangent(self.moving)

    @cached_property
    def _moves(self) -> np.ndarray:
        return lattice_moves(self.polytope, self.moving, self.whole)

    def repair(self, X: np.ndarray) -> np.ndarray:
        """Rows of X on the lattice, those that broke linear constraints moved onto them.

        In the moving columns, to the last digits. Rows for which that fails come back as they are:
        the caller has to look.
        """
        X = self.complete(X)
        if self._linear and self.moving.any():
            X = np.array([self.polytope.polish(x, self.moving) for x in X]).reshape(X.shape)
            for i in np.flatnonzero(~self.domain.feasible(X)):
                moved = self.polytope.project(X[i], self.moving)
                if moved is not None:
                    X[i] = self.complete(moved[None])[0]
        return X

    def pull_back(self, X: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """Feasible rows near those of X, sought from the feasible ones of `inside` where need be.

        Integers go from there towards X by moves that keep the equalities; then the whole row
        does, as far along a straight line as is feasible.
        """
        targets = X
        X = self.repair(X)
        for i in np.flatnonzero(~self.domain.feasible(X)):
            start = inside[i]
            if len(self._moves):
                near = self.repair(self._toward(start, targets[i])[None])
                start = near[0] if self.domain.feasible(near)[0] else start
            whole = list(self.whole)
            outer, low, high = np.where(self.loose, start, X[i]), 0.0, 1.0
            outer[whole] = start[whole]
            X[i] = start
            for _ in range(40 if self.moving.any() else 0):
                middle = (low + high) / 2
                row = self.complete((start + middle * (outer - start))[None])
                if self.domain.feasible(row)[0]:
                    low, X[i] = middle, row[0]
                else:
                    high = middle
        return X

    def _toward(self, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The point that moves of integers lead to from x, each the one that nears the target most.

        Both in the tied columns alone.
        """
        moves, everywhere = self._moves, np.arange(len(x))
        size = (moves**2).sum(1)
        for _ in range(200):
            low, high = chord(np.tile(x, (len(moves), 1)), moves, self.polytope, everywhere)
            steps = np.round(moves @ (target - x) / size)
            steps = steps.clip(np.ceil(low - 1e-9), np.floor(high + 1e-9))
            gain = 2 * steps * (moves @ (target - x)) - steps**2 * size
            best = int(gain.argmax())
            if gain[best] <= 1e-12:
                break
            x = x + steps[best] * moves[best]
        return x

    def nearest(self, x: np.ndarray) -> np.ndarray | None:
        """A feasible row near x, shape (d,); None if linear constraints alone do not lead there."""
        row = self.complete(x[None])
        if not self.domain.feasible(row)[0]:
            moved = None
            if not self.whole:
                moved = self.polytope.project(row[0], self.moving)
            else:
                moved = self.polytope.nearest_lattice(row[0], self._coupled, self.whole)
            if moved is None:
                return None
            row = self.complete(moved[None])
        return row[0] if self.domain.feasible(row)[0] else None

    def climb_to(self, x: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """A feasible row as near to x as the constraints let a climb from a feasible one come."""

        def closeness(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return -((X - x) ** 2).sum(1), -2 * (X - x)

        free = ~self.loose & np.array([c.kind == "continuous" for c in self.space.columns])
        free[list(self.domain.fixed)] = False
        start = inside[None]
        lower, upper = np.where(free, 0.0, start), np.where(free, 1.0, start)
        ends = ascend_curved(
            closeness, start, lower, upper, np.ones(len(x)), self.polytope, self.curved,
            tolerance=1e-12,
        ).X  # fmt: skip
        end = self.pull_back(ends, start)
        return max(end[0], inside, key=lambda row: float(closeness(row[None])[0][0]))

    def neighbours(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`Domain.neighbours`, those that meet the constraints, once repaired, and more.

        The others are moves of several integers at once that keep the equalities, with the
        continuous columns following.
        """
        rows, owner = self.domain.neighbours(X)
        moves = np.concatenate([self._moves, -self._moves])
        if len(moves):
            more = (X[:, None] + moves).reshape(-1, X.shape[1])
            inside = ((more > 0) & (more < 1))[:, list(self.whole)].all(1)
            rows = np.concatenate([rows, self.domain.place(more[inside])])
            owner = np.concatenate([owner, np.repeat(np.arange(len(X)), len(moves))[inside]])
        # Not by other integers: those are neighbours of their own.
        rows = self.complete(rows)
        for i in np.flatnonzero(~self.domain.feasible(rows)) if self.moving.any() else ():
            moved = self.polytope.project(rows[i], self.moving) if self._linear else None
            if moved is not None:
                rows[i] = self.complete(moved[None])[0]
        keep = self.domain.feasible(rows)
        return rows[keep], owner[keep]

    def bounds(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of a climb: relaxed integers keep to the middles of their outermost cells.

        There their values are the bounds, so that linear constraints mean the same.
        """
        free = lower < upper
        return (
            np.where(free, np.maximum(lower, self.polytope.low), lower),
            np.where(free, np.minimum(upper, self.polytope.high), upper),
        )

    @property
    def straight(self) -> bool:
        """Whether all constraints are linear in the cube."""
        return not self._checked


def _numpy(generator: torch.Generator) -> np.random.Generator:
    """Faster normal draws, seeded by the generator."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
