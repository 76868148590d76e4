"""Maps between a parameter's values and positions in [0, 1].

Four scales, two shapes. `LinearScale` and `LogScale` place real numbers; `Lattice` and
`LogLattice` place the levels 0 … k - 1 of a discrete parameter. Every map runs in plain Python
floats, so that one value has one position, bit for bit: vectorised logarithms may differ in the
last digit from machine to machine, and rows are compared for equality to find repeated points.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

# Up to here u * k, in doubles, falls into the same cell of the lattice as the exact product.
_EXACT = 2**50

# A log lattice of up to so many levels keeps its positions in a table (80 kB).
TABLE = 10_000


@dataclass(frozen=True)
class LinearScale:
    """low … high, spread evenly over [0, 1].

    `from_unit` rounds to a decimal: the smallest power of ten of which at least 1e12 fit into the
    range. Without that, low + (x - low)/(high - low) · (high - low) would miss x by an ulp. Where
    such a decimal is finer than doubles are, nothing is rounded, and nothing needs to be: x - low
    is then exact.

    Attributes:
        low: Value at 0.
        high: Value at 1; greater than low, with a finite difference.
    """

    low: float
    high: float

    @cached_property
    def _digits(self) -> int:
        return math.ceil(12 - math.log10(self.high - self.low))

    def _round(self, x: float) -> float:
        try:
            return round(x, self._digits) + 0.0  # + 0.0 makes -0.0 a plain zero
        except OverflowError:  # nearest to a bound above 1.79e308
            return math.copysign(math.inf, x)

    def to_unit(self, x: float) -> float:
        """Position of x; outside [0, 1] when x is outside the range."""
        return (x - self.low) / (self.high - self.low)

    def from_unit(self, u: float) -> float:
        """Value at u, clipped to the range. The decimal nearest to a bound stands for the bound."""
        if u <= 0.0:
            return self.low
        if u >= 1.0:
            return self.high
        x = min(max(self.low + u * (self.high - self.low), self.low), self.high)
        return _with_bounds(self._round(x), self._round, self.low, self.high)


@dataclass(frozen=True)
class LogScale:
    """low … high, spread over [0, 1] by their logarithms.

    `from_unit` rounds to 12 significant digits, 11 where the range spans over 1e130: the rounding
    error of log x then comes near half a unit of the twelfth. Ranges within a factor of two are
    placed and rounded like a `LinearScale`, whose decimals are finer there, with log1p.

    Attributes:
        low: Value at 0; positive.
        high: Value at 1; greater than low.
    """

    low: float
    high: float

    @cached_property
    def _span(self) -> float:
        if self._narrow:
            return math.log1p((self.high - self.low) / self.low)
        return math.log(self.high) - math.log(self.low)

    @cached_property
    def _narrow(self) -> bool:
        return self.high / 2 <= self.low

    @cached_property
    def _linear(self) -> LinearScale:
        return LinearScale(self.low, self.high)

    def _round(self, x: float) -> float:
        if self._narrow:
            return self._linear._round(x)
        return float(f"{x:.12g}" if self._span < 300 else f"{x:.11g}")

    def to_unit(self, x: float) -> float:
        """Position of x > 0; outside [0, 1] when x is outside the range."""
        if self._narrow and x > self.low / 2:
            return math.log1p((x - self.low) / self.low) / self._span
        return (math.log(x) - math.log(self.low)) / self._span

    def from_unit(self, u: float) -> float:
        """Value at u, clipped to the range. The decimal nearest to a bound stands for the bound."""
        if u <= 0.0:
            return self.low
        if u >= 1.0:
            return self.high
        if self._narrow:
            x = self.low + self.low * math.expm1(u * self._span)
        else:
            x = math.exp(min(math.log(self.low) + u * self._span, math.log(self.high)))
        x = min(max(x, self.low), self.high)
        return _with_bounds(self._round(x), self._round, self.low, self.high)


def _with_bounds(x: float, rounded: Callable[[float], float], low: float, high: float) -> float:
    """x, or the bound that rounds to the same decimal: so the bounds are values, and stay apart."""
    if x == rounded(low):
        return low
    return high if x == rounded(high) else x


@dataclass(frozen=True)
class Lattice:
    """k levels, each in the middle of its k-th of [0, 1], so a uniform u meets all alike.

        position(i) = (i + ½) / k,    level(u) = ⌊u k⌋

    Exact up to 2**52 levels. Beyond, neighbouring levels share a double and `level` returns the
    nearest that has one.

    Attributes:
        size: k.
    """

    size: int

    @property
    def even(self) -> bool:
        """Whether (⌊u k⌋ + ½) / k, in doubles, snaps onto the lattice."""
        return self.size <= _EXACT

    def position(self, i: int) -> float:
        """Where level i lies; levels below 0 or above k - 1 lie outside [0, 1]."""
        return (2 * i + 1) / (2 * self.size)  # of Python ints: rounded once, whatever their size

    def level(self, u: float) -> int:
        """The level in whose cell u lies, clipped to 0 … k - 1."""
        if self.even:
            i = math.floor(u * self.size)
        else:
            numerator, denominator = u.as_integer_ratio()
            i = numerator * self.size // denominator
        return min(max(i, 0), self.size - 1)

    def levels(self, U: np.ndarray) -> np.ndarray:
        """`level` of each element: int64, of U's shape."""
        if self.even:
            return np.floor(U * self.size).clip(0, self.size - 1).astype(np.int64)
        return _each(self.level, U, np.int64)

    def snap(self, U: np.ndarray) -> np.ndarray:
        """The position of the level of each element: float64, of U's shape."""
        if self.even:
            return (np.floor(U * self.size).clip(0, self.size - 1) + 0.5) / self.size
        return _each(lambda u: self.position(self.level(u)), U, np.float64)

    def positions(self) -> np.ndarray:
        """Positions of all levels, shape (k,)."""
        return (np.arange(self.size) + 0.5) / self.size


@dataclass(frozen=True)
class LogLattice:
    """The integers low … high, spread over [0, 1] by their logarithms.

    Integer v owns the positions between those of v - ½ and v + ½, so that `low` and `high` have
    cells of full width:

        position(i) = log((low + i) / (low - ½)) / log((high + ½) / (low - ½))

    Written with log1p of i + ½, which is exact to the last digits for close bounds too. Exact
    while high ≤ 2**40; beyond, exp and log are off by whole integers when the range is wide.

    Attributes:
        low: The integer of level 0; at least 1.
        high: The integer of the last level; greater than low.
    """

    low: int
    high: int
    even: ClassVar[bool] = False

    @cached_property
    def size(self) -> int:
        """Number of levels."""
        return self.high - self.low + 1

    @cached_property
    def _start(self) -> float:
        return self.low - 0.5

    @cached_property
    def _span(self) -> float:
        return math.log1p(self.size / self._start)

    @cached_property
    def _table(self) -> np.ndarray:
        return np.array([self.position(i) for i in range(self.size)])  # (k,)

    @cached_property
    def _edges(self) -> np.ndarray:
        return np.array([self._place(i) for i in range(1, self.size)])  # (k - 1,)

    def _place(self, steps: float) -> float:
        return math.log1p(steps / self._start) / self._span

    def position(self, i: int) -> float:
        """Where the integer low + i ≥ 1 lies; outside [0, 1] when outside low … high."""
        return self._place(i + 0.5)

    def level(self, u: float) -> int:
        """The level in whose cell u lies, clipped to 0 … k - 1."""
        if self.size <= TABLE:  # the same table as in `levels`, so that both agree at every edge
            return int(np.searchsorted(self._edges, u, side="right"))
        i = math.floor(self._start * math.expm1(min(u, 1.0) * self._span))
        return min(max(i, 0), self.size - 1)

    def levels(self, U: np.ndarray) -> np.ndarray:
        """`level` of each element: int64, of U's shape."""
        if self.size <= TABLE:
            return np.searchsorted(self._edges, U, side="right")
        return _each(self.level, U, np.int64)

    def snap(self, U: np.ndarray) -> np.ndarray:
        """The position of the level of each element: float64, of U's shape."""
        if self.size <= TABLE:
            return self._table[self.levels(U)]
        return _each(lambda u: self.position(self.level(u)), U, np.float64)

    def positions(self) -> np.ndarray:
        """Positions of all levels, shape (k,)."""
        return np.array([self.position(i) for i in range(self.size)])


def _each(function: Callable[[float], float], U: np.ndarray, dtype: type) -> np.ndarray:
    """Apply a scalar function to each element. Slow (about 1 µs each), and exact."""
    return np.array([function(u) for u in U.ravel().tolist()], dtype=dtype).reshape(U.shape)
