"""Acquisition functions that learn f everywhere, instead of looking for its maximum."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bbmmopt.acquisition.base import (
    Acquisition,
    JointPosterior,
    MarginalAcquisition,
    NoiseVariance,
    Posterior,
    noise_at,
    single_candidates,
)

_TINY = 1e-300


class CovarianceAcquisition(Acquisition):
    """An acquisition function of a noisy observation and its covariances with given points."""

    posterior: JointPosterior
    noise: NoiseVariance

    @cached_property
    def _cross(self) -> Callable[[Tensor], Tensor]:
        """Covariances with the given points, which are solved for once: X (m, d) to (m, k)."""
        return self.posterior.covariance_with(self.anchors())

    @abstractmethod
    def anchors(self) -> Tensor:
        """The given points, shape (k, d)."""

    @abstractmethod
    def formula(self, mean: Tensor, std: Tensor, cross: Tensor, noise: Tensor) -> Tensor:
        """Values (m,) from means (m,), standard deviations (m,), covariances (m, k) of f, and
        variances of the noise, (m,) or (); smooth.
        """

    def __call__(self, X: Tensor) -> Tensor:
        """Score each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        X = single_candidates(self, X)
        flat = X.reshape(-1, X.shape[-1])
        cross = self._cross(flat)
        noise = noise_at(self.noise, flat)
        return self.formula(*self.posterior.marginals(flat), cross, noise).reshape(X.shape[:-1])

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        mean, std, pullback = self.posterior.linearise(X)
        leaves = [part.detach().requires_grad_(True) for part in (mean, std, X)]
        with torch.enable_grad():
            cross = self._cross(leaves[2])
            value = self.formula(leaves[0], leaves[1], cross, noise_at(self.noise, leaves[2]))
            gradients = torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
        by_mean, by_std, by_cross = gradients
        return value.detach(), pullback(by_mean, by_std) + by_cross


@dataclass(frozen=True)
class PosteriorVariance(MarginalAcquisition):
    """Where f is least certain. The value is log σ, which has the same maximum as σ².

    Source: MacKay (1992), Neural Computation 4(4), 590-604: of all single observations with the
    same noise, the one where σ is largest says most about f as a whole.

    Attributes:
        posterior: Belief about f after the trials so far.
    """

    posterior: Posterior

    def formula(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return std.log(), torch.zeros_like(mean), std.reciprocal()


def log_variance_reduction(std: Tensor, cross: Tensor, noise: float | Tensor) -> Tensor:
    """log of the mean of c_i² / (σ² + noise) over i: how far variances fall, in logs.

    An observation of f(x) with this noise takes c² / (σ² + noise) off the variance of any value of
    f whose covariance with f(x) is c. Finite, about -2072, even where all covariances are 0.

    Args:
        std: σ, standard deviations of f(x), shape (...).
        cross: Covariances of f(x) with M values of f, shape (..., M).
        noise: Variance of the observation's noise, ≥ 0: a number, or one for each, shape (...).

    Returns:
        Shape (...).
    """
    scale = cross.detach().abs().amax(-1).clamp_min(_TINY)  # squares must not underflow
    mean = (cross / scale.unsqueeze(-1)).square().mean(-1).clamp_min(_TINY)
    return mean.log() + 2 * scale.log() - (std.square() + noise).log()


@dataclass(frozen=True)
class IntegratedVariance(CovarianceAcquisition):
    """How far one more trial lowers the variance of f, on average over given points.

        log 1/M Σ_i cov(z_i, x)² / (σ²(x) + noise)

    The mean variance after the trial is the one before, which no x changes, minus this: whatever
    maximises the one minimises the other. Trials still pending are to be in the posterior already.

    Source: Cohn (1996), Neural Networks 9(6), 1071-1083; for Gaussian processes Seo et al. (2000),
    IJCNN, "Gaussian process regression: active data selection and test point rejection".

    Attributes:
        posterior: Belief about f after the trials so far.
        points: Where f is to be known, shape (M, d).
        noise: Variance of an observation's noise, ≥ 0; where it is a function, at the candidate.
    """

    posterior: JointPosterior
    points: Tensor
    noise: NoiseVariance

    def anchors(self) -> Tensor:
        return self.points

    def formula(self, mean: Tensor, std: Tensor, cross: Tensor, noise: Tensor) -> Tensor:
        return log_variance_reduction(std, cross, noise)
