"""Between the values of an objective and what a Gaussian process is fitted to.

A GP expects targets that look normal. Objectives seldom do: losses have a long bad side, and the
few worst values would set the scale for all the others. Both transforms here leave the order of
values alone (but for ties among the worst), work for any finite values, and live outside the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.optimize import minimize_scalar

# Values further than this many robust standard deviations out are no more than that far out.
_FARTHEST = 1e6

# How far beyond the data a warped belief is taken back to the user's units, in ranges of the data.
_ROOM = 2.0

# Doubles end there. Predictions stop short of infinity, and scales short of 0.
_LARGEST, _SMALLEST = np.finfo(float).max, np.finfo(float).tiny


class TargetTransform(Protocol):
    """A monotone map from values (larger is better) to model units (mean 0, variance 1)."""

    def forward(self, y: np.ndarray) -> np.ndarray:
        """Model units of y (n,)."""
        ...

    def log_slope(self, y: np.ndarray) -> np.ndarray:
        """Log of the derivative of `forward` at y (n,), as if no value were cut.

        Takes standard errors, and densities, to model units; the slope itself may not fit into a
        double.
        """
        ...

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """The y of model units z, any shape."""
        ...


@dataclass(frozen=True)
class Standardise:
    """z = (max(y, low) - centre) / scale.

    Attributes:
        centre, scale: Mean and standard deviation of the values, after cutting.
        low: Worse values count as this one; -inf keeps all.
    """

    centre: float
    scale: float
    low: float = -np.inf

    @staticmethod
    def of(
        y: np.ndarray, *, winsorise: bool = True, keep: float | None = None, fence: float = 1.5
    ) -> Standardise:
        """Fit to y (n,), cutting its bad side at a fence below the lower quartile.

        Args:
            y: Values, larger is better.
            winsorise: Whether to cut.
            keep: A value that, with as much room below it, is not cut off.
            fence: How many interquartile ranges below; 1.5 is Tukey's.
        """
        low = -np.inf
        if winsorise and len(y) >= 5:
            lower, upper = _quartiles(y)
            room = fence * (upper - lower)
            low = float(lower - room)
            if not low < lower:  # at least a quarter of the values are the same
                low = -np.inf
            elif keep is not None:
                low = min(low, keep - room)
        centre, scale = _mean_and_std(np.maximum(y, low))
        return Standardise(centre, scale, low)

    def forward(self, y: np.ndarray) -> np.ndarray:
        return _shrink(np.maximum(y, self.low), self.centre, self.scale)

    def log_slope(self, y: np.ndarray) -> np.ndarray:
        return np.full(len(y), -np.log(self.scale))

    def inverse(self, z: np.ndarray) -> np.ndarray:
        return _stretch(z, self.centre, self.scale)


@dataclass(frozen=True)
class YeoJohnson:
    """A power transform that works on both signs, after and before a standardisation.

        u = (y - median) / spread;    w = ((1 + u)^λ - 1) / λ              for u ≥ 0
                                      w = -((1 - u)^(2-λ) - 1) / (2 - λ)   for u < 0

    Source: Yeo & Johnson (2000), Biometrika 87(4), 954-959, eq. 2.1.

    Attributes:
        power: λ, the value under which the w look most normal.
        median, spread: Robust location and scale of y.
        centre, scale: Mean and standard deviation of w.
        least, most: The inverse goes no further than these u. Outside 0 ≤ λ ≤ 2 one branch is
            bounded: a belief a little beyond the data would have no counterpart in the user's
            units, or one a million times too far out.
    """

    power: float
    median: float
    spread: float
    centre: float
    scale: float
    least: float = -_FARTHEST
    most: float = _FARTHEST

    @staticmethod
    def of(y: np.ndarray, power: float | None = None) -> YeoJohnson:
        """Fit to y (n,): λ, unless given, in [-2, 4] by maximum likelihood of a normal sample."""
        lower, upper = _quartiles(y)
        median = 2 * float(np.median(0.5 * y))
        spread = (upper - lower) / 1.349 or _mean_and_std(y)[1]
        spread = min(max(spread, _SMALLEST), _LARGEST)
        u = np.clip(_shrink(y, median, spread), -_FARTHEST, _FARTHEST)
        power = _likeliest_power(u) if power is None else power
        centre, scale = _mean_and_std(_power(u, power))
        room = _ROOM * (float(u.max()) - float(u.min()) or 1.0)
        least, most = float(u.min()) - room, float(u.max()) + room
        return YeoJohnson(power, median, spread, centre, scale, least, most)

    def forward(self, y: np.ndarray) -> np.ndarray:
        return (_power(self._robust(y), self.power) - self.centre) / self.scale

    def log_slope(self, y: np.ndarray) -> np.ndarray:
        u = self._robust(y)
        exponent = np.where(u >= 0, self.power - 1, 1 - self.power)
        return exponent * np.log1p(np.abs(u)) - np.log(self.scale) - np.log(self.spread)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        return _stretch(self._unwarp(z), self.median, self.spread)

    def _robust(self, y: np.ndarray) -> np.ndarray:
        return np.clip(_shrink(y, self.median, self.spread), -_FARTHEST, _FARTHEST)

    def _unwarp(self, z: np.ndarray) -> np.ndarray:
        """u of model units z."""
        w = z * self.scale + self.centre
        u = np.where(w >= 0, _unpower(w, self.power), -_unpower(-w, 2 - self.power))
        return u.clip(self.least, self.most)


def _likeliest_power(u: np.ndarray) -> float:
    """λ in [-2, 4] under which the transform of u is most likely a normal sample."""
    log_slope = (np.sign(u) * np.log1p(np.abs(u))).sum()

    def cost(power: float) -> float:
        return 0.5 * len(u) * np.log(_power(u, power).var() + 1e-300) - (power - 1) * log_slope

    found: Any = minimize_scalar(cost, bounds=(-2.0, 4.0), options={"xatol": 1e-3})
    return float(found.x)


def _shrink(y: np.ndarray, centre: float, scale: float) -> np.ndarray:
    """(y - centre) / scale."""
    # Halved first: the difference of two values near 1e308 must not overflow.
    with np.errstate(over="ignore"):  # a quotient may, for values of very mixed scales
        return (0.5 * y - 0.5 * centre) / (0.5 * scale)


def _stretch(u: np.ndarray, centre: float, scale: float) -> np.ndarray:
    """u · scale + centre, no further out than doubles go."""
    with np.errstate(over="ignore"):
        return np.clip(u * scale + centre, -_LARGEST, _LARGEST)


def _power(u: np.ndarray, power: float) -> np.ndarray:
    """The Yeo-Johnson transform of u."""
    up, down = np.log1p(np.maximum(u, 0.0)), np.log1p(np.maximum(-u, 0.0))
    return np.where(u >= 0, _box_cox(up, power), -_box_cox(down, 2 - power))


def _box_cox(log_x: np.ndarray, power: float) -> np.ndarray:
    """(x^λ - 1) / λ, its limit log x at λ = 0."""
    return log_x if abs(power) < 1e-9 else np.expm1(power * log_x) / power


def _unpower(w: np.ndarray, power: float) -> np.ndarray:
    """u ≥ 0 with ((1 + u)^λ - 1) / λ = w, for w ≥ 0; capped where no u reaches w (λ < 0)."""
    w = np.maximum(w, 0.0)
    if abs(power) < 1e-9:
        return np.expm1(np.minimum(w, np.log(_FARTHEST)))
    log_x = np.log(np.maximum(1 + power * w, 1e-300)) / power
    return np.expm1(np.minimum(log_x, np.log(_FARTHEST)))


def _quartiles(y: np.ndarray) -> tuple[float, float]:
    lower, upper = np.quantile(0.5 * y, [0.25, 0.75])  # halved: see `_shrink`
    return 2 * float(lower), 2 * float(upper)


def _mean_and_std(y: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; for values that do not differ, their size in its place."""
    if not len(y):
        return 0.0, 1.0
    largest = float(np.abs(y).max()) or 1.0  # so that squares of 1e300 do not overflow
    y = y / largest
    mean, std = float(y.mean()), float(y.std())
    std = std if std > 1e-12 * abs(mean) else 1.0
    return mean * largest, max(std * largest, _SMALLEST)
