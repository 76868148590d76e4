"""Prior beliefs about kernel parameters, in named and versioned sets.

A set is never edited once released: a change of numbers is a new set with a new name, so that a
study resumed a year later is modelled as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np


@dataclass(frozen=True)
class LogNormal:
    """log x ~ N(location, scale²)."""

    location: float
    scale: float

    @property
    def mode(self) -> float:
        """The x of largest density, exp(location - scale²)."""
        return math.exp(self.location - self.scale**2)


@dataclass(frozen=True)
class Prior:
    """What is believed of one positive parameter, and where the search for it ends.

    Attributes:
        density: Its prior density; None for a flat one in log x.
        start: Where a fit begins that has nothing better: the mode, unless said otherwise. NaN for
            wherever the parameter stands.
        low, high: Bounds, in the units of the parameter.
    """

    density: LogNormal | None
    start: float
    low: float
    high: float


@dataclass(frozen=True)
class PriorSet:
    """A prior for every role a parameter can have.

    Attributes:
        name: Name and version.
        by_role: From a role ("lengthscale", "variance", "noise", …) to a function that takes the
            number of inputs d of the kernel and returns the prior.
        unit_scales: Whether it is made for inputs in the unit cube and standardised targets.
    """

    name: str
    by_role: Mapping[str, Callable[[int], Prior]]
    unit_scales: bool = False

    def prior(self, role: str, dims: int) -> Prior:
        """The prior of this role; a role the set does not know has a flat one and no start."""
        make = self.by_role.get(role)
        return make(dims) if make else Prior(None, math.nan, 1e-9, 1e9)


def _lengthscale(dims: int) -> Prior:
    density = LogNormal(math.sqrt(2) + 0.5 * math.log(dims), math.sqrt(3))
    return Prior(density, density.mode, 5e-3, 1e3)


def _flat_lengthscale(dims: int) -> Prior:
    return Prior(None, math.sqrt(dims) / 5, 1e-6, 1e6)


def _whatever_dims(prior: Prior) -> Callable[[int], Prior]:
    return partial(_given, prior)  # and no lambda: models are pickled with their priors


def _given(prior: Prior, dims: int) -> Prior:
    return prior


DIMENSION_SCALED = PriorSet(
    "dimension-scaled-1",
    {
        "lengthscale": _lengthscale,
        # Targets are standardised, so s² near 1; wide enough for data that are mostly flat.
        "variance": _whatever_dims(Prior(LogNormal(0.5, 0.7071), 1.0, 1e-2, 1e2)),
        "noise": _whatever_dims(Prior(LogNormal(-4.0, 1.0), math.exp(-5.0), 1e-4, 10.0)),
        # ℓ = 0.5 means a correlation of 0.14 between categories, ℓ = 3 one of 0.72.
        "category_lengthscale": _whatever_dims(Prior(LogNormal(0.25, 1.0), 0.5, 5e-2, 50.0)),
    },
    unit_scales=True,
)
"""For inputs in the unit cube and standardised targets with unknown noise.

Lengthscales LogNormal(√2 + ½ ln d, √3), so that the prior's complexity does not grow with d:
Hvarfner, Hellsten & Nardi (2024), https://arxiv.org/abs/2402.02229. Noise variance LogNormal(-4, 1)
with a floor of 1e-4.
"""

EXACT_OBJECTIVE = PriorSet(
    "exact-objective-1",
    {**DIMENSION_SCALED.by_role, "noise": _whatever_dims(Prior(None, 1e-6, 1e-8, 1e-4))},
    unit_scales=True,
)
"""As `dimension-scaled-1`, for a deterministic function: noise near 1e-6, only for stability."""

FLAT = PriorSet(
    "flat-1",
    {
        "lengthscale": _flat_lengthscale,
        "variance": _whatever_dims(Prior(None, 1.0, 1e-9, 1e9)),
        "noise": _whatever_dims(Prior(None, 1e-2, 1e-10, 1e9)),
        "category_lengthscale": _whatever_dims(Prior(None, 1.0, 1e-2, 1e3)),
    },
)
"""No prior, wide bounds: plain maximum likelihood, for data in any units."""

PRIOR_SETS = {s.name: s for s in (DIMENSION_SCALED, EXACT_OBJECTIVE, FLAT)}


def prior_set(name: str | PriorSet) -> PriorSet:
    """Look a set of priors up by its name.

    Raises:
        ValueError: If there is none of that name.
    """
    if isinstance(name, PriorSet):
        return name
    if name not in PRIOR_SETS:
        raise ValueError(f"no prior set {name!r}; there are {', '.join(sorted(PRIOR_SETS))}.")
    return PRIOR_SETS[name]


@dataclass(frozen=True)
class LogPriors:
    """The priors of a flat vector u of log-parameters, all at once.

    Attributes:
        has: 1 where there is a prior, else 0.
        location, precision: Of log x; precision 0 where there is no prior.
        start, low, high: In u.
    """

    has: np.ndarray
    location: np.ndarray
    precision: np.ndarray
    start: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @staticmethod
    def of(priors: list[Prior]) -> LogPriors:
        """Collect one prior per entry of u."""
        densities = [p.density for p in priors]
        return LogPriors(
            has=np.array([1.0 if d else 0.0 for d in densities]),
            location=np.array([d.location if d else 0.0 for d in densities]),
            precision=np.array([1 / d.scale**2 if d else 0.0 for d in densities]),
            start=np.log([p.start for p in priors]),
            low=np.log([p.low for p in priors]),
            high=np.log([p.high for p in priors]),
        )

    def log_density(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """log p(x) at x = exp(u), up to a constant, and its gradient in u.

        The density is that of x, not of log x: so the mode is `LogNormal.mode`.
        """
        off = u - self.location
        pull = self.precision * off
        return -float(self.has @ u + 0.5 * (pull @ off)), -self.has - pull
