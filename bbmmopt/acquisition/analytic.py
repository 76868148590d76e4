"""Acquisition functions in closed form, for one candidate at a time. Larger f is better."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bbmmopt.acquisition.base import MarginalAcquisition, Posterior
from bbmmopt.acquisition.normal import LOG_ROOT_2PI, log_cdf, log_h


def log_expected_improvement(
    mean: Tensor, std: Tensor, best: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """log E[max(f - best, 0)] for f ~ N(mean, std²), and its derivatives in mean and std.

        log σ + log h(u),    u = (μ - best) / σ,    h(u) = φ(u) + u Φ(u)

    In logs, because a few std below `best` the expectation underflows to 0 and takes its gradient
    with it. Source: Ament et al. (2023), https://arxiv.org/abs/2310.20708, eq. 9.
    """
    u = (mean - best) / std
    value, slope = log_h(u)
    # d/dσ = (1 - u Φ/h) / σ = φ / (σ h): the second form where the first would cancel.
    upper = torch.exp(-0.5 * u.clamp_min(0.0).square() - LOG_ROOT_2PI - value)
    by_std = torch.where(u < 0, 1 - u * slope, upper) / std
    return std.log() + value, slope / std, by_std


@dataclass(frozen=True)
class LogExpectedImprovement(MarginalAcquisition):
    """How much one more trial is expected to improve on the best so far, in logs.

    Attributes:
        posterior: Belief about f after the trials so far.
        best: What is to be improved on, in the units of the posterior mean.
    """

    posterior: Posterior
    best: float

    def formula(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return log_expected_improvement(mean, std, self.best)


@dataclass(frozen=True)
class LogProbabilityOfImprovement(MarginalAcquisition):
    """log P(f > best), for f ~ N(mean, std²): log Φ(u), u = (μ - best) / σ.

    Greedy: it asks whether, not by how much; set `best` a little above the incumbent to explore.
    Source: Kushner (1964), J. Basic Engineering 86(1), 97-106.

    Attributes:
        posterior: Belief about f after the trials so far.
        best: What is to be improved on, in the units of the posterior mean.
    """

    posterior: Posterior
    best: float

    def formula(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u = (mean - self.best) / std
        value, slope = log_cdf(u)
        return value, slope / std, -u * slope / std


@dataclass(frozen=True)
class UpperConfidenceBound(MarginalAcquisition):
    """Optimism: μ + √β σ.

    Source: Srinivas et al. (2010), https://arxiv.org/abs/0912.3995.

    Attributes:
        posterior: Belief about f after the trials so far.
        beta: Weight of the variance, ≥ 0.
    """

    posterior: Posterior
    beta: float = 4.0

    def formula(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        root = self.beta**0.5
        return mean + root * std, torch.ones_like(mean), torch.full_like(std, root)


@dataclass(frozen=True)
class PosteriorMean(MarginalAcquisition):
    """The mean itself: where the model believes f to be largest.

    Attributes:
        posterior: Belief about f after the trials so far.
    """

    posterior: Posterior

    def formula(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return mean, torch.ones_like(mean), torch.zeros_like(std)


@dataclass(frozen=True)
class ExpectedGain(MarginalAcquisition):
    """How much g(f) is expected to exceed g(best), for an increasing g that is linear in pieces.

        E[max(g(f) - g(best), 0)] = Σ_j s_j (EI(t_j) - EI(t_{j+1})),    EI(t) = E[max(f - t, 0)]

    with g of slope s_j between t_j and t_{j+1}, t_0 = best, and the last piece without end. So what
    is expected in model units becomes what is expected in the user's, in which g may be warped.

    Attributes:
        posterior: Belief about f.
        knots: t_0 < t_1 < …, shape (k,).
        slopes: s_0, s_1 … ≥ 0, shape (k,).
    """

    posterior: Posterior
    knots: Tensor
    slopes: Tensor

    def formula(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u = (mean.unsqueeze(-1) - self.knots) / std.unsqueeze(-1)  # (..., k)
        value, _ = log_h(u)
        above = torch.special.ndtr(u)
        density = torch.exp(-0.5 * u.square() - LOG_ROOT_2PI)
        expected = std.unsqueeze(-1) * value.exp()
        return self._sum(expected), self._sum(above), self._sum(density)

    def _sum(self, at_knots: Tensor) -> Tensor:
        """Σ_j s_j (a_j - a_{j+1}) over a (..., k), with 0 after the last."""
        beyond = torch.cat([at_knots[..., 1:], torch.zeros_like(at_knots[..., :1])], -1)
        return ((at_knots - beyond) * self.slopes).sum(-1)
