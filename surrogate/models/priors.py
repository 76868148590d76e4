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
class Normal:
    """x ~ N(mean, scale²), for a parameter of any sign.

    Attributes:
        mean: Its mean, which is also its mode.
        scale: Its standard deviation.
    """

    mean: float
    scale: float


@dataclass(frozen=True)
class Prior:
    """What is believed of one parameter, and where the search for it ends.

    Attributes:
        density: Its prior density; None for a flat one, in log x or in a real x.
        start: Where a fit begins that has nothing better: the mode, unless said otherwise. NaN for
            wherever the parameter stands.
        low, high: Bounds, in the units of the parameter.
        real: Whether it is stored as it is, and of any sign; else it is positive, and stored by
            its logarithm.
    """

    density: LogNormal | Normal | None
    start: float
    low: float
    high: float
    real: bool = False

    def __post_init__(self) -> None:
        if self.density is not None and self.real != isinstance(self.density, Normal):
            raise ValueError(
                f"a parameter stored as it is (real=True) takes a Normal prior, one stored by its "
                f"logarithm a LogNormal; got {self.density} and real={self.real}."
            )

    def stored(self, x: float) -> float:
        """x as the parameter is stored: its logarithm, unless it is real."""
        return x if self.real else math.log(x)


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


def _lengthscale(dims: int, times: float = 1.0) -> Prior:
    density = LogNormal(math.sqrt(2) + 0.5 * math.log(dims) + math.log(times), math.sqrt(3))
    return Prior(density, density.mode, 5e-3 * times, 1e3 * times)


def _flat_lengthscale(dims: int, times: float = 1.0) -> Prior:
    return Prior(None, math.sqrt(dims) / 5 * times, 1e-6 * times, 1e6 * times)


def _frequency(dims: int) -> Prior:
    return Prior(LogNormal(-0.5 * math.log(dims), math.sqrt(3)), math.nan, 1e-4, 1e2)


def _bandwidth(dims: int) -> Prior:
    # That of 1/(2πℓ), ℓ being a lengthscale.
    location = -math.sqrt(2) - 0.5 * math.log(dims) - math.log(2 * math.pi)
    return Prior(LogNormal(location, math.sqrt(3)), math.nan, 1e-4, 1e2)


_NOISE_WEIGHT = Prior(Normal(0.0, 1.0), math.nan, -20.0, 20.0, real=True)

# A compact kernel ends where another is nearly 0; on a circle of radius 1, a period is 2π long.
_SUPPORT, _CIRCLE = 5.0, 2 * math.pi


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
        # Modes at 1: even steps, no warp, a quarter of a circle, unless data say otherwise.
        "ordinal_step": _whatever_dims(Prior(LogNormal(0.5625, 0.75), 1.0, 1e-2, 1e2)),
        "warp": _whatever_dims(Prior(LogNormal(0.5625, 0.75), 1.0, 5e-2, 20.0)),
        "activity_gap": _whatever_dims(Prior(LogNormal(1.0, 1.0), 1.0, 1e-2, 1e2)),
        # Tasks start where their kernel puts them: equal columns of factors would stay equal.
        "task_factor": _whatever_dims(Prior(Normal(0.0, 1.0), math.nan, -10.0, 10.0, real=True)),
        "task_variance": _whatever_dims(Prior(LogNormal(-0.2, 1.0), 0.3, 1e-4, 1e2)),
        "weight": _whatever_dims(Prior(Normal(0.0, 1.0), math.nan, -1e3, 1e3, real=True)),
        "noise_weight": _whatever_dims(_NOISE_WEIGHT),
        "support": partial(_lengthscale, times=_SUPPORT),
        "periodic_lengthscale": partial(_lengthscale, times=_CIRCLE),
        # One period from end to end of the cube.
        "period": _whatever_dims(Prior(LogNormal(0.5, 0.7071), 1.0, 1e-2, 1e2)),
        "shape": _whatever_dims(Prior(LogNormal(1.0, 1.0), 1.0, 1e-2, 1e3)),
        "offset": _whatever_dims(Prior(LogNormal(1.0, 1.0), 1.0, 1e-3, 1e3)),
        # Waves start where their kernel puts them: equal ones would stay equal.
        "component_weight": _whatever_dims(Prior(LogNormal(0.0, 1.0), math.nan, 1e-4, 1e2)),
        "frequency": _frequency,
        "bandwidth": _bandwidth,
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
        "ordinal_step": _whatever_dims(Prior(None, 1.0, 1e-3, 1e3)),
        "warp": _whatever_dims(Prior(None, 1.0, 1e-2, 1e2)),
        "activity_gap": _whatever_dims(Prior(None, 1.0, 1e-3, 1e3)),
        "task_factor": _whatever_dims(Prior(None, math.nan, -3e4, 3e4, real=True)),
        "task_variance": _whatever_dims(Prior(None, 0.3, 1e-9, 1e9)),
        "weight": _whatever_dims(Prior(None, math.nan, -1e3, 1e3, real=True)),
        "noise_weight": _whatever_dims(_NOISE_WEIGHT),  # no belief, but what makes it a process
        "support": partial(_flat_lengthscale, times=_SUPPORT),
        "periodic_lengthscale": partial(_flat_lengthscale, times=_CIRCLE),
        "period": _whatever_dims(Prior(None, 1.0, 1e-6, 1e6)),
        "shape": _whatever_dims(Prior(None, 1.0, 1e-3, 1e4)),
        "offset": _whatever_dims(Prior(None, 1.0, 1e-6, 1e6)),
        "component_weight": _whatever_dims(Prior(None, math.nan, 1e-9, 1e9)),
        "frequency": _whatever_dims(Prior(None, math.nan, 1e-6, 1e6)),
        "bandwidth": _whatever_dims(Prior(None, math.nan, 1e-6, 1e6)),
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
    """The priors of a flat vector u of parameters as they are stored, all at once.

    That is by their logarithms, u = log x, but for real ones, u = x.

    Attributes:
        has: 1 where there is a prior of a positive x, else 0.
        location, precision: Of u; precision 0 where there is no prior.
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
            has=np.array([1.0 if isinstance(d, LogNormal) else 0.0 for d in densities]),
            location=np.array([_centre(d) for d in densities]),
            precision=np.array([1 / d.scale**2 if d else 0.0 for d in densities]),
            start=np.array([p.stored(p.start) for p in priors]),
            low=np.array([p.stored(p.low) for p in priors]),
            high=np.array([p.stored(p.high) for p in priors]),
        )

    def log_density(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        """log p(x), up to a constant, and its gradient in u.

        The density is that of x, not of log x: so the mode is `LogNormal.mode`.
        """
        off = u - self.location
        pull = self.precision * off
        return -float(self.has @ u + 0.5 * (pull @ off)), -self.has - pull


def _centre(density: LogNormal | Normal | None) -> float:
    """The mean of u."""
    if density is None:
        return 0.0
    return density.mean if isinstance(density, Normal) else density.location
