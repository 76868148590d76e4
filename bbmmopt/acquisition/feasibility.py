"""Constraints: how likely a point is to keep them, and what it is worth if it may not.

Every output is turned so that larger is better: a point is feasible where each constraint's output
is at least its bound, in the units of that output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbmmopt.acquisition.base import (
    Acquisition,
    Fantasised,
    FantasyAcquisition,
    Posterior,
    elementwise,
    single_candidates,
)
from bbmmopt.acquisition.noisy import log_ei, log_mean_exp
from bbmmopt.acquisition.normal import log_cdf


def log_probability_of_feasibility(
    means: Tensor, stds: Tensor, bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """log P(c_j ≥ bound_j for all j) for independent c_j ~ N(μ_j, σ_j²), and its derivatives.

        Σ_j log Φ(u_j),    u_j = (μ_j - bound_j) / σ_j

    Args:
        means: Shape (C, ...).
        stds: Shape (C, ...).
        bounds: Shape (C,).

    Returns:
        The value (...) and its derivatives in means and stds, each (C, ...).
    """
    u = (means - bounds.reshape(-1, *[1] * (means.ndim - 1))) / stds
    value, slope = log_cdf(u)
    return value.sum(0), slope / stds, -u * slope / stds


@dataclass(frozen=True)
class LogProbabilityOfFeasibility(Acquisition):
    """log of the probability that a point keeps all constraints, taken as independent.

    Attributes:
        posteriors: Belief about each of C ≥ 1 constraint outputs.
        bounds: What each of them must reach, shape (C,).
        noise: Variance that a new observation adds to each, for outputs that must reach their
            bound as observed; 0 for all by default.
    """

    posteriors: Sequence[Posterior]
    bounds: Tensor
    noise: float = 0.0

    def __call__(self, X: Tensor) -> Tensor:
        """Score each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        X = single_candidates(self, X)
        parts = [posterior.marginals(X) for posterior in self.posteriors]
        means, stds = (torch.stack(column) for column in zip(*parts, strict=True))
        return elementwise(self._formula, means, stds)

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        parts = [posterior.linearise(X) for posterior in self.posteriors]
        means = torch.stack([mean for mean, _, _ in parts])
        stds = torch.stack([std for _, std, _ in parts])
        value, by_means, by_stds = self._formula(means, stds)
        pulled = [
            pullback(by_mean, by_std)
            for (_, _, pullback), by_mean, by_std in zip(parts, by_means, by_stds, strict=True)
        ]
        return value, torch.stack(pulled).sum(0)

    def _formula(self, means: Tensor, stds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.noise:
            return log_probability_of_feasibility(means, stds, self.bounds)
        wider = (stds.square() + self.noise).sqrt()
        value, by_means, by_wider = log_probability_of_feasibility(means, wider, self.bounds)
        return value, by_means, by_wider * stds / wider


@dataclass(frozen=True)
class ConstrainedLogExpectedImprovement(FantasyAcquisition):
    """How much one more trial is expected to improve on the best feasible one, in logs.

        log 1/S Σ_s EI_s(x) Π_j Φ((μ_js(x) - bound_j) / σ_j(x))

    `NoisyLogExpectedImprovement` where an improvement counts only if it is feasible: objective and
    constraints are independent given a fantasy, which is a joint draw of each of them.

    Source: Letham et al. (2019), Bayesian Analysis 14(2), 495-519,
    https://arxiv.org/abs/1706.07094.

    Attributes:
        beliefs: About the objective, then about each of C ≥ 0 constraint outputs, under S
            fantasies.
        bounds: What each constraint output must reach, shape (C,).
        best: The largest feasible value of the objective in each fantasy, shape (S,): see
            `best_feasible`.
    """

    beliefs: Sequence[Fantasised]
    bounds: Tensor
    best: Tensor

    def formula(self, means: Tensor, stds: Tensor) -> Tensor:
        improvement = log_ei(means[0], stds[0], self.best.unsqueeze(-1))  # (S, m)
        feasible = elementwise(
            lambda m, s: log_probability_of_feasibility(m, s, self.bounds),
            means[1:],
            stds[1:].unsqueeze(1).expand_as(means[1:]),
        )
        return log_mean_exp(improvement + feasible)


def best_feasible(f: Tensor, c: Tensor, bounds: Tensor, worst: float | Tensor) -> Tensor:
    """The largest feasible value in each of S joint samples, shape (S,).

    Args:
        f: The objective at k points, shape (S, k).
        c: The constraint outputs there, shape (C, S, k).
        bounds: What each of them must reach, shape (C,).
        worst: What stands for the best where nothing is feasible: a value that any feasible point
            would improve on.
    """
    feasible = (c >= bounds.reshape(-1, 1, 1)).all(0)
    # A column of its own for "nothing is feasible", so that k may be 0.
    least = f.new_full((len(f), 1), -torch.inf)
    best = torch.cat([torch.where(feasible, f, -torch.inf), least], -1).amax(-1)
    return torch.where(best.isinf(), worst, best)
