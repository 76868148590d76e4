"""Where fused kernels find what a formula is made of: rows of matrices, places in a vector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from surrogate.tiles.formula import (
    PROFILES,
    Categories,
    Factor,
    Formula,
    Radial,
    Tasks,
    Term,
    nowhere,
)

_LOG2E = 1 / math.log(2)
# What points are multiplied by so that ρ is made of powers of 2, as `kernels.radial` has it.
_FOLD = {"rbf": math.sqrt(_LOG2E / 2), "matern12": _LOG2E, "matern32": _LOG2E, "matern52": _LOG2E}
_RADIAL, _CATEGORIES, _TASKS = 0, 1, 2  # as in `kernels`

# Points of more dimensions, or more tasks, do not fit beside the rest of a tile.
WIDEST = 64
_MOST_COLUMNS, _MOST_TERMS, _MOST_CATEGORIES = 128, 8, 16
_MOST_NUMBERS = 2**31  # of a matrix: places in it are counted in 32 bits

# Of points that are spread out, gradients are made of direct differences too; of those that are far
# apart, what rounding left of them is there.
SPREAD, FAR = -1, -2

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Placed:
    """A factor, and where its numbers are.

    Attributes:
        factor: Which.
        row: First row of its points, or of its codes.
        theta: Place of its numbers in the vector of all.
        column: First column of its sums.
        padded: Dimensions of its points with padding, where distances are made of products; else 0,
            `SPREAD` or `FAR`, and they are direct differences.
    """

    factor: Factor
    row: int
    theta: int
    column: int
    padded: int = 0

    @property
    def numbers(self) -> Numbers:
        """What `kernels` asks of a factor."""
        factor = self.factor
        if isinstance(factor, Radial):
            profile = PROFILES.index(factor.profile)
            q, j = (int(s) for s in factor.shape) if factor.profile == "piecewise" else (0, 0)
            return (_RADIAL, profile, self.row, factor.width, self.padded, self.theta, q, j)
        if isinstance(factor, Categories):
            return (_CATEGORIES, self.row, len(factor.weights), self.theta, 0, 0, 0, 0)
        return (_TASKS, self.row, len(factor.covariance), self.theta, 0, 0, 0, 0)

    @property
    def rows(self) -> int:
        """How many rows it takes."""
        if isinstance(self.factor, Radial):
            # Both halves of z, and ‖z‖², where distances are made of products.
            halves = 1 if self.padded in (0, SPREAD) else 2
            return self.factor.width * halves + (self.padded > 0)
        return len(self.factor.weights) if isinstance(self.factor, Categories) else 1

    @property
    def columns(self) -> int:
        """How many sums a row has of it."""
        factor = self.factor
        if isinstance(factor, Radial):
            return factor.width + 1 + (factor.by_shape is not None)
        return len(factor.weights if isinstance(factor, Categories) else factor.covariance)

    @property
    def values(self) -> list[float]:
        """Its numbers in the vector of all."""
        factor = self.factor
        if isinstance(factor, Radial):
            return list(factor.shape) if factor.profile == "rational_quadratic" else []
        if isinstance(factor, Categories):
            return factor.weights.tolist()
        return (factor.covariance / self.size).reshape(-1).tolist()

    @property
    def size(self) -> float:
        """What it is divided by, to be at most 1."""
        if not isinstance(self.factor, Tasks):
            return 1.0
        return float(self.factor.covariance.abs().max()) or 1.0

    @property
    def fold(self) -> float:
        """What points are multiplied by."""
        assert isinstance(self.factor, Radial)
        return _FOLD.get(self.factor.profile, 1.0)


@dataclass(frozen=True)
class Layout:
    """A formula, and where its numbers are.

    Attributes:
        terms: Each with its factors, and the column of its own sum.
        theta: Scales of the terms as shares of `bound`, and then what factors have, in one list.
        bound: What k is divided by, to be at most 1.
        width: How many sums a row has.
    """

    terms: tuple[tuple[Term, tuple[Placed, ...], int], ...]
    theta: list[float]
    bound: float
    width: int

    @staticmethod
    def of(formula: Formula, paddings: Sequence[int]) -> Layout:
        """Side by side in the order of the formula.

        Args:
            formula: Which.
            paddings: `Placed.padded` of each of its radial factors.
        """
        scales = [term.scale for term in formula.terms]
        theta = [0.0] * len(scales)
        point, code, column, padding = 0, 0, 0, iter(paddings)
        terms: list[tuple[Term, tuple[Placed, ...], int]] = []
        for q, term in enumerate(formula.terms):
            factors: list[Placed] = []
            for factor in term.factors:
                if isinstance(factor, Radial):
                    placed = Placed(factor, point, len(theta), column, next(padding))
                    point += placed.rows
                else:
                    placed = Placed(factor, code, len(theta), column)
                    code += placed.rows
                theta += placed.values
                scales[q] *= placed.size
                column += placed.columns
                factors.append(placed)
            terms.append((term, tuple(factors), column))
            column += 1
        bound = sum(scales)
        # 0 where all of them are below what float64 knows.
        theta[: len(scales)] = [scale / (bound or 1.0) for scale in scales]
        return Layout(tuple(terms), theta, bound, column)

    @property
    def numbers(self) -> Numbers:
        """FACTORS of `kernels`."""
        return tuple(number for factor in self.factors for number in factor.numbers)

    @property
    def starts(self) -> Numbers:
        """STARTS of `kernels`."""
        return (0, *accumulate(len(factors) for _, factors, _ in self.terms))

    @property
    def places(self) -> Numbers:
        """PLACES of `kernels`."""
        return (*(f.column for f in self.factors), *(own for _, _, own in self.terms))

    @property
    def factors(self) -> Iterator[Placed]:
        """Of all terms."""
        return (factor for _, factors, _ in self.terms for factor in factors)

    @property
    def radials(self) -> list[tuple[Radial, Placed]]:
        """Factors that see points."""
        return [(f.factor, f) for f in self.factors if isinstance(f.factor, Radial)]

    @property
    def others(self) -> list[Placed]:
        """Factors that see categories or tasks."""
        return [f for f in self.factors if not isinstance(f.factor, Radial)]

    def origins(self, X: Tensor) -> list[Tensor]:
        """What to take from X (n, d) before each radial factor sees it: shapes (d,)."""
        return [radial.origin(X) if len(X) else nowhere(X) for radial, _ in self.radials]

    def points(self, X: Tensor, origins: Sequence[Tensor]) -> list[Tensor]:
        """Those of each radial factor for X (n, d), as the kernels want them: shapes (n, c)."""
        each = zip(self.radials, origins, strict=True)
        return [radial.points(X - o) * placed.fold for (radial, placed), o in each]

    def codes(self, X: Tensor) -> list[Tensor]:
        """Those of each other factor for X (n, d): shapes (n, k)."""
        factors = [f.factor for f in self.others]
        return [f.codes(X) for f in factors if not isinstance(f, Radial)]


def can_compute(formula: Formula) -> bool:
    """Whether the fused kernels have room for it."""
    if len(formula.terms) > _MOST_TERMS or not all(t.factors for t in formula.terms):
        return False
    for factor in (f for term in formula.terms for f in term.factors):
        if isinstance(factor, Radial):
            fits = factor.width <= WIDEST
        elif isinstance(factor, Categories):
            fits = len(factor.weights) <= _MOST_CATEGORIES
        else:
            fits = len(factor.covariance) <= WIDEST
        if not fits:
            return False
    radials = sum(isinstance(f, Radial) for term in formula.terms for f in term.factors)
    return Layout.of(formula, [0] * radials).width <= _MOST_COLUMNS


def power_of_2(least: int) -> int:
    """The smallest power of 2 that is not below `least`, nor below 16, as tensor cores want."""
    return max(16, 1 << max(least - 1, 0).bit_length())


def aligned(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix (k, n) with its columns padded to a multiple of 128, by 128 zeros at least.

    A tile may then reach beyond the last column without asking.
    """
    k, n = rows.shape
    shape = max(k, 1), -(-n // 128) * 128 + 128
    if math.prod(shape) >= _MOST_NUMBERS:
        raise ValueError(f"{n} points are too many for tiles='triton'; use tiles='torch'.")
    out = rows.new_zeros(shape, dtype=dtype)
    out[:k, :n] = rows
    return out


def halves(rows: Tensor) -> Tensor:
    """A matrix (k, n) in float32 as the sum of two that tensor cores multiply without rounding
    them, under each other: (2k, n).
    """
    high = (rows.contiguous().view(torch.int32) & -8192).view(torch.float32)
    return torch.cat([high, rows - high])


def powers_above(rows: Tensor) -> Tensor:
    """The least power of 2 that no entry of a row is above, or 1 for a row of zeros: shape (t,)."""
    largest = rows.abs().amax(1) if rows.shape[1] else rows.new_zeros(len(rows))
    # One power more than the largest of float64 is inf.
    return torch.where(largest > 0, torch.exp2(largest.log2().ceil().clamp_max(1023.0)), 1.0)


def ranks(C: Tensor, among: list[Tensor]) -> Tensor:
    """Small whole numbers for the codes of each column, equal where codes are: (k, n).

    Codes may be numbers that float32 cannot tell from each other.

    Args:
        C: Shape (n, k).
        among: The codes that there are, sorted, for each column; a code that is none of them is -1.
    """
    found = []
    for column, known in zip(C.mT.contiguous(), among, strict=True):
        at = torch.searchsorted(known, column)
        same = known[at.clamp_max(max(len(known) - 1, 0))] == column if len(known) else at > 0
        found.append(torch.where(same, at, -1))
    return torch.stack(found)


def half_precision(rows: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (t, n) as c (x₁ + x₂ / 2048), |x| ≤ 1 in float16: x₁ over x₂, (2t, n), and c (t,).

    c are powers of 2, one for each row.
    """
    scale = powers_above(rows)
    x = rows / scale.unsqueeze(1)
    first = x.to(torch.float16)
    second = ((x - first.to(x.dtype)) * 2048.0).to(torch.float16)
    return torch.cat([first, second]), scale
