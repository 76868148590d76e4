"""Acquisition functions for settings that will be met only roughly: f near x, not at x.

The candidate x stands for w points x + δ_i, clipped to the unit cube. What f is worth there is the
mean of f over them, or a measure of its worst ones, at a level α in (0, 1]: 0.1 speaks of the worst
tenth of the perturbations.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bbmmopt.acquisition.base import Acquisition, Pullback, single_candidates

_POINTS = 4096  # evaluated at once on the sampled functions
_FAT = 0.1  # weight of the fat tail


def perturbations(count: int, std: Tensor, generator: torch.Generator) -> Tensor:
    """`count` perturbations N(0, std²) in each column, shape (count, d); std (d,), 0 for none."""
    drawn = torch.randn(
        count, len(std), generator=generator, dtype=std.dtype, device=generator.device
    )
    return std * drawn.to(std.device)


def perturbed(X: Tensor, perturbations: Tensor) -> Tensor:
    """x + δ_i, clipped to the unit cube: X (..., d) and δ (w, d) give (..., w, d)."""
    return (X.unsqueeze(-2) + perturbations).clamp(0.0, 1.0)


def value_at_risk(values: Tensor, level: float) -> Tensor:
    """The level-quantile of w equally likely values (..., w), shape (...): inf {t: P(f ≤ t) ≥ α}.

    The kth smallest value, k = ⌈α w⌉; its gradient is that value's. Less than a share α of the
    values is worse.

    Raises:
        ValueError: If the level is not in (0, 1].
    """
    k = math.ceil(_checked(level) * values.shape[-1] * (1 - 1e-12))
    return values.kthvalue(max(k, 1), dim=-1).values


def conditional_value_at_risk(values: Tensor, level: float) -> Tensor:
    """The mean of the worst share α of w equally likely values (..., w), shape (...).

        1/α ∫_0^α VaR_u du

    The value in which α falls counts by the part of it that is needed. Level 1 is the mean, a level
    of at most 1/w the minimum.

    Source: Rockafellar & Uryasev (2002), Journal of Banking & Finance 26(7), 1443-1471,
    for the lower tail.

    Raises:
        ValueError: If the level is not in (0, 1].
    """
    w = values.shape[-1]
    rank = torch.arange(w, dtype=values.dtype, device=values.device)
    weights = (_checked(level) * w - rank).clamp(0.0, 1.0)
    return values.sort(stable=True, dim=-1).values @ (weights / weights.sum())


def log_sampled_improvement(
    values: Tensor, best: float | Tensor, temperature: float = 1e-3
) -> Tensor:
    """log of the mean over samples of max(v - best, 0), smoothed so that gradients never vanish.

        log 1/S Σ_s τ ψ((v_s - best_s) / τ),    ψ(u) = log(1 + e^u) + 0.1 / (1 + u²)

    Increasing in every v, differentiable, and never off by more than (log 2 + 0.1) τ. Far below
    `best` the gradient falls like a power of the distance, where that of log E[max(v - best, 0)]
    over finitely many samples is 0.

    Source: Ament et al. (2023), https://arxiv.org/abs/2310.20708, for fat tails.

    Args:
        values: v, shape (S, ...).
        best: What is to be improved on: one number, or one for each sample, shape (S,).
        temperature: τ, in the units of the values, > 0.

    Returns:
        Shape (...).
    """
    if isinstance(best, Tensor):
        best = best.to(values.dtype).reshape(-1, *(1,) * (values.ndim - 1))
    u = (values - best) / temperature
    fat = torch.logaddexp(u, torch.zeros_like(u)) + _FAT / (1 + u.square())
    return fat.mean(0).log() + math.log(temperature)


@dataclass(frozen=True)
class SampledRisk(Acquisition):
    """An acquisition function of a risk measure, by functions sampled from the posterior.

    Each function f_s has the value ρ_s(x), a measure of f_s(x + δ_i) over i, known exactly. The
    score is the mean of ρ_s over s; with `best`, the log of how much ρ_s improves on it, as in
    `log_sampled_improvement`. Both depend on x in a piecewise smooth way: gradients jump where two
    perturbations change places.

    Source: Cakmak et al. (2020), https://arxiv.org/abs/2007.05554, for measuring risk on samples of
    the posterior; they score a candidate by its knowledge gradient.

    Attributes:
        paths: S functions sampled from the posterior, X (m, d) to values (S, m).
        perturbations: δ, shape (w, d).
        level: α, in (0, 1].
        best: Robust value to improve on, one or one for each function (S,); None to score by the
            mean alone.
        temperature: How far improvement is smoothed, in the units of f.
    """

    paths: Callable[[Tensor], Tensor]
    perturbations: Tensor
    level: float = 0.1
    best: float | Tensor | None = None
    temperature: float = 1e-3

    @abstractmethod
    def measure(self, values: Tensor) -> Tensor:
        """What f is worth, (...), that has the values (..., w)."""

    def risks(self, X: Tensor) -> Tensor:
        """ρ_s(x) for every function and every row of X (m, d): shape (S, m).

        The largest at points that were tried is what `best` may be, one for each function.
        """
        size = max(1, _POINTS // len(self.perturbations))
        return torch.cat([self._risks(part) for part in X.split(size)], -1)

    def _risks(self, X: Tensor) -> Tensor:
        points = perturbed(X, self.perturbations)  # (m, w, d)
        values = self.paths(points.flatten(0, 1))  # (S, m w)
        return self.measure(values.reshape(len(values), *points.shape[:2]))

    def __call__(self, X: Tensor) -> Tensor:
        """Score each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        X = single_candidates(self, X)
        risks = self.risks(X.reshape(-1, X.shape[-1]))
        if self.best is None:
            value = risks.mean(0)
        else:
            value = log_sampled_improvement(risks, self.best, self.temperature)
        return value.reshape(X.shape[:-1])


@dataclass(frozen=True)
class ValueAtRisk(SampledRisk):
    """What f reaches or exceeds near x but for a share α of the perturbations."""

    def measure(self, values: Tensor) -> Tensor:
        return value_at_risk(values, self.level)


@dataclass(frozen=True)
class ConditionalValueAtRisk(SampledRisk):
    """The mean of f near x over the worst share α of the perturbations."""

    def measure(self, values: Tensor) -> Tensor:
        return conditional_value_at_risk(values, self.level)


class AveragedPosterior(Protocol):
    """All that needs to be known about a model where f counts by its mean over some points."""

    def averages(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the mean of f over groups X (..., w, d), each (...)."""
        ...


@dataclass(frozen=True)
class ExpectedUnderPerturbation:
    """The belief about g(x) = 1/w Σ_i f(x + δ_i): a posterior again, exactly, without sampling.

        E[g] = 1/w Σ_i μ_i,    var[g] = 1/w² Σ_ij cov(f(x + δ_i), f(x + δ_j))

    So whatever takes a posterior is robust on this one: `LogExpectedImprovement` improves on the
    expectation under perturbation, `PosteriorMean` is that expectation. It says nothing of the
    noise: an observation at x is one of f(x), not of g(x).

    Attributes:
        posterior: Belief about f after the trials so far.
        perturbations: δ, shape (w, d).
    """

    posterior: AveragedPosterior
    perturbations: Tensor

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of g at X (..., d), each of shape (...); differentiable."""
        return self.posterior.averages(perturbed(X, self.perturbations))

    def linearise(self, X: Tensor) -> tuple[Tensor, Tensor, Pullback]:
        """The marginals at X (m, d), and how their gradients become one in X."""
        X = X.detach().requires_grad_(True)
        with torch.enable_grad():
            mean, std = self.marginals(X)

        def pullback(by_mean: Tensor, by_std: Tensor, /) -> Tensor:
            (gradient,) = torch.autograd.grad((mean, std), X, (by_mean, by_std), retain_graph=True)
            return gradient

        return mean.detach(), std.detach(), pullback


def _checked(level: float) -> float:
    if not 0 < level <= 1:
        raise ValueError(f"level must be in (0, 1], a share of the perturbations; got {level}.")
    return level
