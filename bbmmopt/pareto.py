"""Several objectives at once: which values are worth having, and how much room they leave.

Larger is better in every objective. a dominates b if a ≥ b everywhere and a > b somewhere. The
hypervolume of some values is the volume of all that lies between them and a reference point r,
∪ᵢ [r, yᵢ]; boxes cut what lies above r and outside that volume into disjoint pieces.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

# Comparisons of rows with rows at a time where all pairs may be needed: 4 MiB of booleans.
_PAIRS = 2**22
_BLOCK = 256


def is_dominated(Y: np.ndarray) -> np.ndarray:
    """Whether another row dominates each row of Y (n, k), shape (n,).

    Equal rows do not dominate one another. Rows with a NaN count as dominated, and dominate none.
    O(n log n) for k ≤ 2; else O(n f) for a front of f rows, in bounded memory.
    """
    return ~pareto_front_of(Y)


def pareto_front_of(Y: np.ndarray) -> np.ndarray:
    """Mask (n,) of the rows of Y (n, k) that no row dominates: all copies of each such value."""
    Y = _rows(Y)
    mask = np.logical_not(np.isnan(Y).any(axis=1))
    unique, index = np.unique(Y[mask], axis=0, return_inverse=True)
    mask[mask] = _undominated(unique)[index.reshape(-1)]  # numpy 2.0 gave it another shape
    return mask


def hypervolume(Y: np.ndarray, reference: np.ndarray) -> float:
    """Volume of what Y (n, k) dominates above the reference (k,): ∪ᵢ [r, yᵢ].

    Exact for every k: in O(n log n) for k = 2, by a sweep along the last objective for k = 3; for
    more, one dimension at a time, by what each point adds to the points with a larger last
    coordinate. Rows that are not above the reference in every objective contribute nothing.

    Source: While, Bradstreet & Barone (2012), "A fast way of calculating exact hypervolumes", IEEE
    Trans. Evolutionary Computation 16(1), for k > 3.
    """
    Y, reference = _checked(Y, reference)
    return _volume(_front(Y, reference) - reference)


def boxes(Y: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners (b, k) of disjoint boxes: all above the reference (k,) that Y (n, k) does not reach.

    A lower corner is finite, an upper one may be ∞. With f points in the front above the
    reference, b = 1 for k = 1, f + 1 for k = 2 and at most 2f + 1 for k = 3. The improvement in
    hypervolume by a value y is then Σ_boxes Πⱼ (min(yⱼ, uⱼ) - lⱼ)+.

    Raises:
        ValueError: If k > 3, where the number of boxes gets out of hand.
    """
    Y, reference = _checked(Y, reference)
    _check_objectives(len(reference))
    return _boxes_of_front(_front(Y, reference), reference)


def boxes_of_each(
    Ys: Sequence[np.ndarray] | np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of S sets of values, each (n, k) with its own n: corners (S, b, k).

    All have the same b: where boxes are missing, empty ones follow, with both corners at the
    reference. Equal fronts are cut up once.

    Raises:
        ValueError: If k > 3, or if there are no sets.
    """
    if len(Ys) == 0:
        raise ValueError("Ys must hold at least one set of values; got none.")
    each, known = [], {}
    for Y in Ys:
        Y, r = _checked(Y, reference)
        _check_objectives(len(r))
        front = _front(Y, r)
        key = front.tobytes()
        if key not in known:
            known[key] = _boxes_of_front(front, r)
        each.append(known[key])
    shape = (len(each), max(len(lower) for lower, _ in each), each[0][0].shape[1])
    lowers, uppers = np.empty(shape), np.empty(shape)
    lowers[:] = uppers[:] = np.asarray(reference, dtype=float)
    for s, (lower, upper) in enumerate(each):
        lowers[s, : len(lower)], uppers[s, : len(upper)] = lower, upper
    return lowers, uppers


def infer_reference_point(Y: np.ndarray) -> np.ndarray:
    """A point (k,) a little below the front of Y (n, k): nadir - 0.1 (ideal - nadir).

    The nadir is the smallest value of each objective in the front, the ideal the largest. Where
    they are equal, as for a front of one point, ideal - nadir gives way to the range of all rows;
    where that is 0 too, to the size of the value itself, and for 0 to 1. The result is strictly
    below the nadir. Rows that are not finite are left out.

    Raises:
        ValueError: If no row is finite.
    """
    Y = _rows(Y)
    Y = Y[np.isfinite(Y).all(axis=1)]
    if not len(Y):
        raise ValueError("a reference point needs at least one row of finite values; got none.")
    front = Y[pareto_front_of(Y)]
    nadir = front.min(axis=0)
    spread = front.max(axis=0) - nadir
    for instead in (np.ptp(Y, axis=0), np.abs(nadir), 1.0):
        spread = np.where(spread > 0, spread, instead)
    return np.minimum(nadir - 0.1 * spread, np.nextafter(nadir, -np.inf))


def attainment_surface(Ys: Sequence[np.ndarray], share: float) -> np.ndarray:
    """Corners (c, 2) of what at least this share of S sets of values attains, ascending.

    A set attains z if one of its values is at least z in both objectives; what a share of the sets
    attains is the union of all up to a corner, ∪ (-∞, corner].

    Source: Grunert da Fonseca, Fonseca & Hall (2001), "Inferential performance assessment of
    stochastic optimisers and the attainment function", EMO 2001, for the attainment function; of
    fronts drawn from Gaussian processes, Binois, Ginsbourger & Roustant (2015), "Quantifying
    uncertainty on Pareto fronts with Gaussian process conditional simulations", European Journal
    of Operational Research 243(2).

    Args:
        Ys: The sets, each (n, 2) with its own n, larger being better; an empty one attains nothing.
        share: Above 0, at most 1.

    Raises:
        ValueError: If there are no sets, one is not (n, 2), or the share is out of range.
    """
    Ys = [_rows(Y) for Y in Ys]
    if not Ys or any(Y.shape[1] != 2 for Y in Ys):
        shapes = [Y.shape for Y in Ys]
        raise ValueError(f"attainment needs sets of values (n, 2), at least one; got {shapes}.")
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1; got {share!r}.")
    x = np.unique(np.concatenate([Y[:, 0] for Y in Ys]))
    heights = np.full((len(Ys), len(x)), -np.inf)  # the most of the second that goes with x
    for height, Y in zip(heights, Ys, strict=True):
        Y = Y[np.argsort(Y[:, 0])]
        most = np.append(np.maximum.accumulate(Y[::-1, 1])[::-1], -np.inf)
        height[:] = most[np.searchsorted(Y[:, 0], x)]
    count = math.ceil(share * len(Ys) - 1e-9)  # of sets; 0.9 * 10 is not above 9
    heights.partition(len(Ys) - count, axis=0)
    corners = np.stack([x, heights[len(Ys) - count]], axis=1)
    corners = corners[np.isfinite(corners).all(axis=1)]
    return corners[pareto_front_of(corners)]


def _rows(Y: np.ndarray) -> np.ndarray:
    Y = np.asarray(Y, dtype=float)
    if Y.ndim != 2 or Y.shape[1] == 0:
        raise ValueError(f"Y must have shape (n, k), one row per point; got shape {Y.shape}.")
    return Y


def _checked(Y: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    Y, reference = _rows(Y), np.asarray(reference, dtype=float)
    if reference.shape != Y.shape[1:]:
        raise ValueError(
            f"reference must have shape ({Y.shape[1]},), one value per objective of Y; got shape "
            f"{reference.shape}."
        )
    if not np.isfinite(reference).all():
        raise ValueError(f"reference must be finite; got {reference.tolist()}.")
    if np.isposinf(Y).any():
        raise ValueError("Y must not hold +inf, above which there is no room.")
    return Y, reference


def _check_objectives(k: int) -> None:
    if k > 3:
        raise ValueError(
            f"boxes are for at most 3 objectives; got {k}. For more, scalarise at random: "
            f"bbmmopt.acquisition.scalarised.hypervolume_scalarisation."
        )


def _front(Y: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """What counts of Y: the non-dominated values above the reference, once each, ascending."""
    unique = np.unique(Y[(reference < Y).all(axis=1)], axis=0)
    return unique[_undominated(unique)]


def _undominated(Y: np.ndarray) -> np.ndarray:
    """Mask (n,) of the front of distinct rows Y (n, k) in ascending lexicographic order.

    In that order only later rows can dominate.
    """
    n, k = Y.shape
    if k == 1:
        return np.arange(n) == n - 1
    if k == 2:
        mask = np.ones(n, dtype=bool)
        largest_from = np.maximum.accumulate(Y[::-1, 1])[::-1]
        mask[:-1] = Y[:-1, 1] > largest_from[1:]
        return mask
    mask = np.zeros(n, dtype=bool)
    stop = n
    front = np.empty((0, k))
    while stop > 0:
        start = max(0, stop - max(1, min(_BLOCK, _PAIRS // max(1, len(front)))))
        candidates = np.arange(start, stop)
        candidates = candidates[~_at_least(Y[start:stop], front).any(axis=1)]
        block = Y[candidates]
        above = _at_least(block, block)
        np.fill_diagonal(above, False)
        candidates = candidates[~above.any(axis=1)]
        mask[candidates] = True
        front = np.concatenate([Y[candidates], front])
        stop = start
    return mask


def _at_least(Y: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether row j of `other` (m, k) is at least row i of Y (n, k) everywhere, shape (n, m)."""
    result = np.ones((len(Y), len(other)), dtype=bool)
    for y, o in zip(Y.T, other.T, strict=True):
        result &= o >= y[:, None]
    return result


class _Staircase:
    """What a growing set of points in the plane does not reach, above a corner.

    Strips from left to right: [edges[i], edges[i + 1]] × [floors[i], ∞), floors falling.
    """

    def __init__(self, x: float, y: float, mark: float) -> None:
        self.edges = [x, np.inf]
        self.depths = [-y]  # minus the floors: bisection wants them ascending
        self.marks = [mark]

    def insert(self, x: float, y: float, mark: float) -> list[tuple[float, float, float, float]]:
        """Let all up to (x, y) be reached; returns the strips (left, right, floor, mark) cut by it.

        There are none if it was reached before. New strips carry the mark; they are two at most.
        """
        edges, depths, marks = self.edges, self.depths, self.marks
        first = bisect_left(depths, -y)
        stop = bisect_left(edges, x)
        if first >= stop:
            return []
        cut = [(edges[i], edges[i + 1], -depths[i], marks[i]) for i in range(first, stop)]
        if x < edges[stop]:
            depths[first:stop] = [-y, depths[stop - 1]]
            marks[first:stop] = [mark, mark]
            edges[first + 1 : stop] = [x]
        else:
            depths[first:stop] = [-y]
            marks[first:stop] = [mark]
            edges[first + 1 : stop] = []
        return cut

    def strips(self) -> list[tuple[float, float, float, float]]:
        floors = [-depth for depth in self.depths]
        return list(zip(self.edges[:-1], self.edges[1:], floors, self.marks, strict=True))


def _downwards(front: np.ndarray) -> list[list[float]]:
    """The rows of a front (f, 3) with the largest third coordinate first."""
    return front[np.argsort(-front[:, 2], kind="stable")].tolist()


def _boxes_of_front(front: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    k = len(reference)
    if k == 1:
        return np.append(reference, front)[-1:, None], np.full((1, 1), np.inf)
    if k == 2:
        # Ascending in the first objective, hence descending in the second.
        edges = np.concatenate([reference[:1], front[:, 0], [np.inf]])
        floors = np.append(front[:, 1], reference[1])
        lower = np.stack([edges[:-1], floors], axis=1)
        return lower, np.stack([edges[1:], np.full(len(floors), np.inf)], axis=1)
    # Between two values of the third objective the cross-section is a staircase. A strip of it
    # becomes a box when a lower point cuts it; each point ends as many as it likes, and begins two.
    below = _Staircase(reference[0], reference[1], np.inf)
    found = []
    for x, y, z in _downwards(front):
        found += [
            (left, floor, z, right, np.inf, top)
            for left, right, floor, top in below.insert(x, y, z)
            if z < top
        ]
    found += [
        (left, floor, reference[2], right, np.inf, top)
        for left, right, floor, top in below.strips()
    ]
    corners = np.array(found, dtype=float)
    return corners[:, :3], corners[:, 3:]


def _volume(Y: np.ndarray) -> float:
    """Hypervolume over 0 of a front Y (f, k): distinct, positive, ascending."""
    n, k = Y.shape
    if n == 0:
        return 0.0
    if n == 1:
        return float(Y[0].prod())
    if k == 1:
        return float(Y[-1, 0])
    if k == 2:
        return float(np.diff(Y[:, 0], prepend=0.0) @ Y[:, 1])
    if k == 3:
        below, total = _Staircase(0.0, 0.0, 0.0), 0.0
        for x, y, z in _downwards(Y):
            cut = below.insert(x, y, 0.0)
            total += z * sum((min(right, x) - left) * (y - floor) for left, right, floor, _ in cut)
        return total
    # A point adds its own box less what points with a larger last coordinate take of it. Limited
    # to that box, they all end where it does: one dimension less.
    Y = Y[np.argsort(Y[:, -1], kind="stable")]
    total = 0.0
    for i, y in enumerate(Y[:, :-1]):
        limited = np.unique(np.minimum(Y[i + 1 :, :-1], y), axis=0)
        taken = _volume(limited[_undominated(limited)])
        total += float(Y[i, -1]) * (float(y.prod()) - taken)
    return total
