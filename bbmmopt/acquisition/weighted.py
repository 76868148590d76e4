"""Acquisition functions, in logs, weighted by something else that a point is judged by."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bbmmopt.acquisition.analytic import PosteriorMean
from bbmmopt.acquisition.base import Acquisition, Posterior, elementwise, single_candidates
from bbmmopt.acquisition.feasibility import LogProbabilityOfFeasibility
from bbmmopt.acquisition.normal import LOG_ROOT_2PI

_TINY = 1e-300
_UNLIKELY = 1e3  # what each nat that is missing of a probability asked for costs


class Weighted(Acquisition):
    """An acquisition function of single candidates, in logs, times a power of a weight.

        acquisition(x) + exponent · log weight(x)

    Attributes:
        acquisition: In logs.
    """

    acquisition: Acquisition

    @property
    @abstractmethod
    def weight(self) -> tuple[float, Acquisition]:
        """The exponent, and the log of the weight."""

    def __call__(self, X: Tensor) -> Tensor:
        """Score each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        exponent, log_weight = self.weight
        return self.acquisition(X) + exponent * log_weight(X)

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        exponent, log_weight = self.weight
        value, gradient = self.acquisition.value_and_gradient(X)
        more, slope = log_weight.value_and_gradient(X)
        return value + exponent * more, gradient + exponent * slope


@dataclass(frozen=True)
class PerCost(Weighted):
    """What is gained per second: acquisition(x) - α E[log cost(x)].

    Source: Snoek et al. (2012), https://arxiv.org/abs/1206.2944, for α = 1; Lee et al. (2020),
    https://arxiv.org/abs/2003.10870, let cost count less as the search goes on.

    Attributes:
        acquisition: In logs.
        cost: Belief about the log of what a trial costs.
        exponent: α, from 0 for cost that does not matter to 1.
    """

    acquisition: Acquisition
    cost: Posterior
    exponent: float = 1.0

    @property
    def weight(self) -> tuple[float, Acquisition]:
        return -self.exponent, PosteriorMean(self.cost)


@dataclass(frozen=True)
class Feasible(Weighted):
    """What is gained if constraints are kept: acquisition(x) + log P(c_j(x) ≥ bound_j for all j).

    Also for trials that may fail: then c is a latent output, and they succeed where it is at least
    its bound.

    Attributes:
        acquisition: In logs.
        posteriors: Belief about each of C ≥ 1 outputs, independent of what is to be gained.
        bounds: What each of them must reach, shape (C,).
        noise: See `LogProbabilityOfFeasibility`.
    """

    acquisition: Acquisition
    posteriors: Sequence[Posterior]
    bounds: Tensor
    noise: float = 0.0

    @property
    def weight(self) -> tuple[float, Acquisition]:
        return 1.0, LogProbabilityOfFeasibility(self.posteriors, self.bounds, self.noise)


@dataclass(frozen=True)
class Log(Acquisition):
    """log of an acquisition of single candidates that is positive, or next to nothing.

    Attributes:
        acquisition: Not in logs.
    """

    acquisition: Acquisition

    def __call__(self, X: Tensor) -> Tensor:
        """Score each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        single_candidates(self, X)
        return self.acquisition(X).clamp_min(_TINY).log()

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.acquisition.value_and_gradient(X)
        value = value.clamp_min(_TINY)
        return value.log(), gradient / value.unsqueeze(-1)


@dataclass(frozen=True)
class LikelyFeasible(Acquisition):
    """Any acquisition where constraints are likely enough to hold, and a slope towards there.

        acquisition(x) - 1000 max(log p - log P(feasible at x), 0)

    Attributes:
        acquisition: Of single candidates, of the order of 1.
        feasible: log P.
        probability: p.
    """

    acquisition: Acquisition
    feasible: LogProbabilityOfFeasibility
    probability: float = 0.95

    def __call__(self, X: Tensor) -> Tensor:
        """Score each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        short = (math.log(self.probability) - self.feasible(X)).clamp_min(0.0)
        return self.acquisition(X) - _UNLIKELY * short

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.acquisition.value_and_gradient(X)
        log_probability, slope = self.feasible.value_and_gradient(X)
        short = math.log(self.probability) - log_probability
        weight = _UNLIKELY * (short > 0)
        return value - weight * short, gradient + weight.unsqueeze(-1) * slope


@dataclass(frozen=True)
class PriorGuided(Weighted):
    """A user's belief about where the optimum is: acquisition(x) + α log π(x).

    Source: Hvarfner et al. (2022), https://arxiv.org/abs/2204.11051, where α = β/n fades with the
    number of trials n.

    Attributes:
        acquisition: In logs.
        prior: log π.
        exponent: α ≥ 0.
    """

    acquisition: Acquisition
    prior: LogPrior
    exponent: float = 1.0

    @property
    def weight(self) -> tuple[float, Acquisition]:
        return self.exponent, self.prior


@dataclass(frozen=True)
class LogPrior(Acquisition):
    """log π(x) = Σ_j log π_j(x_j): independent densities of some columns, the others uniform.

    Attributes:
        densities: By column.
        active: Which columns of rows (..., d) count, bool (..., d); all if left out.
    """

    densities: Mapping[int, Density]
    active: Callable[[Tensor], Tensor] | None = None

    def __call__(self, X: Tensor) -> Tensor:
        """Score each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        X = single_candidates(self, X)
        value, active = X.new_zeros(X.shape[:-1]), self._active(X)
        for j, density in self.densities.items():
            more = elementwise(density.log, X[..., j])
            value = value + (more if active is None else more * active[..., j])
        return value

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient, active = X.new_zeros(len(X)), torch.zeros_like(X), self._active(X)
        for j, density in self.densities.items():
            more, gradient[:, j] = density.log(X[:, j])
            value = value + (more if active is None else more * active[:, j])
        return value, gradient if active is None else gradient * active

    def _active(self, X: Tensor) -> Tensor | None:
        return None if self.active is None else self.active(X).to(X.dtype)


class Density(Protocol):
    """A positive density on [0, 1]."""

    def log(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Its log and the derivative of that, elementwise."""
        ...

    def quantile(self, u: Tensor) -> Tensor:
        """Where it has the share u in [0, 1] of its mass below, elementwise."""
        ...


@dataclass(frozen=True)
class Normal:
    """N(mean, std²) cut off at 0 and 1.

    Attributes:
        mean: In [0, 1].
        std: Positive.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not (0.0 <= self.mean <= 1.0 and 0.0 < self.std < math.inf):
            raise ValueError(
                f"a prior on [0, 1] needs a mean in it and a positive std; got mean "
                f"{self.mean:g}, std {self.std:g}. Scale both like the column."
            )

    def log(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-z²/2 - log(σ √2π Z), z = (x - mean)/σ, Z what N has in [0, 1]; and its derivative."""
        z = (x - self.mean) / self.std
        root = self.std * math.sqrt(2)
        inside = 0.5 * (math.erf(self.mean / root) + math.erf((1 - self.mean) / root))
        constant = math.log(self.std) + LOG_ROOT_2PI + math.log(inside)
        return -0.5 * z.square() - constant, -z / self.std

    def quantile(self, u: Tensor) -> Tensor:
        ends = torch.tensor([-self.mean, 1 - self.mean], dtype=u.dtype, device=u.device)
        below, above = torch.special.ndtr(ends / self.std)
        z = torch.special.ndtri(below + u * (above - below))
        return (self.mean + self.std * z).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Levels:
    """A density that is constant on each of k equal parts of [0, 1]: k levels, or k categories.

    Attributes:
        weights: How likely each of them is, relative to the others; positive.
    """

    weights: Sequence[float]

    def __post_init__(self) -> None:
        if not self.weights or not all(0.0 < w < math.inf for w in self.weights):
            raise ValueError(
                f"weights of levels must be positive and finite; got {list(self.weights)}. "
                f"To rule a level out, leave it out of the space."
            )

    def log(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log(k w_i / Σw) for the ⌊x k⌋-th level; and its derivative, which is 0."""
        weights = torch.tensor(self.weights, dtype=x.dtype, device=x.device)
        level = (x * len(weights)).long().clamp(0, len(weights) - 1)
        return weights.log()[level] - weights.mean().log(), torch.zeros_like(x)

    def quantile(self, u: Tensor) -> Tensor:
        weights = torch.tensor(self.weights, dtype=u.dtype, device=u.device)
        below = torch.cat([weights.new_zeros(1), weights.cumsum(0)]) / weights.sum()
        level = torch.searchsorted(below[1:-1], u, right=True)
        share = (u - below[level]) / (weights / weights.sum())[level]
        return ((level + share.clamp(0.0, 1.0)) / len(weights)).clamp(0.0, 1.0)
