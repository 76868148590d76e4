"""Hit-and-run: even draws from a polytope, integers and forbidden parts included."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np

from bbmmopt.search.polytope import Polytope

_SHRINKS = 8  # attempts to find an allowed point on one line
_EDGE = 1e-12
_MOST_GROUPS = 2000  # of integers that are tried for a move together


def walk(
    X: np.ndarray,
    count: int,
    polytope: Polytope,
    moving: np.ndarray,
    moves: np.ndarray,
    rng: np.random.Generator,
    *,
    allowed: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """`count` points of hit-and-run walks from the rows of X (m, d), all of which walk at once.

    A step of the continuous columns goes to an even draw from the line through the point in a
    random direction, which leaves the uniform distribution as it is whatever the shape; halfway
    through the warm-up, directions take on the spread of the walks, for shapes that are longer one
    way. A step of the integers goes to an even draw from the lattice line of one of `moves`. Where
    a draw is not `allowed`, the line is cut there and drawn from again, as in slice sampling.

    Source: Smith (1984), Operations Research 32(6); Neal (2003), Slice sampling, section 4.1.

    Args:
        X: Starts, in the polytope and allowed.
        count: How many points.
        polytope: Where to walk.
        moving: The continuous columns, shape (d,).
        moves: Steps of integers by one, shape (k, d).
        rng: Randomness.
        allowed: Which rows may be met, beyond the polytope.
    """
    Z = polytope.tangent(moving)  # (d, k)
    X = polytope.straighten(X.copy(), moving) if Z.shape[1] else X.copy()
    dims = Z.shape[1] + len(moves)
    if dims == 0:
        return np.resize(X, (count, X.shape[1]))
    many = allowed is None
    warm = min(40 + 10 * dims, 400) if many else min(10 + 2 * dims, 30)
    apart = min(5 + dims, 60) if many else 2
    rounds = -(-count // len(X))
    columns = np.flatnonzero(moving)
    spread, kept = Z, []
    for t in range(warm + apart * (rounds - 1) + 1):
        if t == warm // 2 and len(X) >= 4 * Z.shape[1] > 0:
            spread = Z @ _root(X @ Z)
        if Z.shape[1] and (not len(moves) or rng.random() < 0.5):
            D = rng.standard_normal((len(X), Z.shape[1])) @ spread.T
            low, high = chord(X, D, polytope, columns)
            X = _draw(X, D, low, high, rng, allowed)
        else:
            D = moves[rng.integers(len(moves), size=len(X))]
            low, high = chord(X, D, polytope, np.arange(X.shape[1]))
            X = _draw(X, D, np.ceil(low - 1e-9), np.floor(high + 1e-9), rng, allowed, whole=True)
        if t >= warm and (t - warm) % apart == 0:
            kept.append(X)
    return np.concatenate(kept)[:count]


def chord(
    X: np.ndarray, D: np.ndarray, polytope: Polytope, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far each row may go along D, back and forth, shape (m,) each."""
    slopes = np.hstack([D @ polytope.G.T, D[:, columns], -D[:, columns]])
    inside = X[:, columns]
    room = [polytope.h - X @ polytope.G.T, polytope.high[columns] - inside]
    slack = np.hstack([*room, inside - polytope.low[columns]]).clip(min=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = slack / slopes
    high = np.where(slopes > _EDGE, ends, np.inf).min(1)
    low = np.where(slopes < -_EDGE, ends, -np.inf).max(1)
    still = ~np.isfinite(high - low)
    return np.where(still, 0.0, low), np.where(still, 0.0, high)


def _draw(
    X: np.ndarray,
    D: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    rng: np.random.Generator,
    allowed: Callable[[np.ndarray], np.ndarray] | None,
    *,
    whole: bool = False,
) -> np.ndarray:
    """An even draw from each line X + t D, low ≤ t ≤ high, perhaps whole t, that is allowed."""
    end = X.copy()
    left = np.arange(len(X))
    for _ in range(1 if allowed is None else _SHRINKS):
        a, b = low[left], high[left]
        t = a + rng.random(len(left)) * (b - a)
        if whole:
            t = np.floor(a + rng.random(len(left)) * (b - a + 1)).clip(a, b)
        trial = X[left] + t[:, None] * D[left]
        if allowed is None:
            return trial
        good = allowed(trial)
        end[left[good]] = trial[good]
        behind = t < 0
        low[left] = np.where(~good & behind, np.ceil(t + 0.5) if whole else t, low[left])
        high[left] = np.where(~good & ~behind, np.floor(t - 0.5) if whole else t, high[left])
        left = left[~good]
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        if not len(left):
            break
    return end


def _root(Y: np.ndarray) -> np.ndarray:
    """A square root of the covariance of the rows of Y, no direction quite lost."""
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(Y.T)))
    values = np.maximum(values, 1e-6 * max(float(values[-1]), 1e-300))
    return vectors * np.sqrt(values / values[-1])


def lattice_moves(polytope: Polytope, moving: np.ndarray, whole: Mapping[int, int]) -> np.ndarray:
    """Steps of the integer columns by whole levels that keep the equalities, shape (k, d).

    Each integer alone, where the continuous columns can make up for it (in the least-squares way);
    of the others, those two that make up for each other, and three or four where two do not lead
    everywhere.
    """
    d, columns = len(moving), list(whole)
    if not columns:
        return np.empty((0, d))
    unit = np.array([1 / whole[j] for j in columns])
    alone = np.zeros((len(columns), d))
    alone[np.arange(len(columns)), columns] = unit
    if not len(polytope.E):
        return alone
    left = polytope.E @ alone.T  # (q, k): what a step of each leaves to be made up for
    if moving.any():
        fitted = -np.linalg.pinv(polytope.E[:, moving], rcond=1e-10) @ left
        alone[:, moving] = fitted.T
        left = polytope.E @ alone.T
    small = 1e-10 * float(unit.max())
    free = np.abs(left).max(0) < small
    moves = list(alone[free])
    tied = np.flatnonzero(~free).tolist()
    for i, j in itertools.combinations(tied, 2):
        a, b = left[:, i], left[:, j]
        k = int(np.abs(b).argmax())
        ratio = Fraction(float(a[k] / b[k])).limit_denominator(1000)
        p, q = ratio.denominator, -ratio.numerator  # p steps of i and q of j
        if np.abs(p * a + q * b).max() < p * small:
            moves.append(p * alone[i] + q * alone[j])
    wanted = len(columns) - np.linalg.matrix_rank(left, tol=small) if tied else len(moves)
    for size in (3, 4):
        moves += _joint_moves(alone, left, tied, size, wanted, moves, small)
    return np.array(moves).reshape(len(moves), d)


def _joint_moves(
    alone: np.ndarray,
    left: np.ndarray,
    tied: list[int],
    size: int,
    wanted: int,
    known: list[np.ndarray],
    small: float,
) -> list[np.ndarray]:
    """Steps of `size` integers by one or two that lead where the known moves do not."""
    found: list[np.ndarray] = []
    signs = np.array(list(itertools.product((1, 2), *[(-2, -1, 1, 2)] * (size - 1))))
    signs = signs[np.abs(signs).sum(1).argsort(kind="stable")]  # short steps first
    rank = int(np.linalg.matrix_rank(np.array(known))) if known else 0
    for group in itertools.islice(itertools.combinations(tied, size), _MOST_GROUPS):
        if rank >= wanted:
            break
        kept = signs[np.abs(signs @ left[:, group].T).max(1) < size * small]
        if len(kept):
            more = [*known, *found, kept[0] @ alone[list(group)]]
            if np.linalg.matrix_rank(np.array(more)) > rank:
                found, rank = more[len(known) :], rank + 1
    return found
