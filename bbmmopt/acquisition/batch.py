"""Expected improvement of several trials together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bbmmopt.acquisition.base import Acquisition
from bbmmopt.acquisition.noisy import triangular_root

# The positive part is replaced by `log_fat_plus`, which is above it by at most 0.8 τ, where x = 0:
# the expected improvement comes out too large by 2 τ² p, p the density of the best of the batch at
# `best`. Far below, the tail takes over where less than τ³/10x² is expected, x away.
_TAU_PLUS = 1e-6  # in units of `scale`
# The largest log is replaced by `fat_max`, which is above it by at most τ (√q - 1).
_TAU_MAX = 1e-2

# log(1 + eᶻ) has curvature 1/4 at z = 0 and α/(1 + z²) has -2α: convex for α < 1/8.
_ALPHA = 0.1
_ROUNDS = 6  # Newton steps of `fat_max`: enough, up to rounding, for q in the thousands


class JointFantasised(Protocol):
    """Beliefs under S fantasies about points that are looked at together."""

    def joint(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Means (S, ..., q) and covariance (..., q, q) of f over groups of q points X (..., q, d).

        Differentiable in X.
        """
        ...


@dataclass(frozen=True)
class NoisyBatchLogExpectedImprovement(Acquisition):
    """How much q trials are expected to improve on the best together, whatever that is, in logs.

        log 1/(S R) Σ_s Σ_r max_i w(x_i) max(f_sri - best_s, 0),    f_sr = μ_s + L e_sr,  L Lᵀ = Σ

    By Monte Carlo on fixed base samples, under S fantasies: joint draws of f at the trials that may
    be the best and at the pending ones. New points are drawn given these, so that all share one
    draw. Both maxima are replaced by smooth ones with fat tails: every candidate has a slope,
    however far below the best it is. They make the value too large by at most 0.01 (√q - 1), and
    by 0.8e-6 of `scale` in the improvement.

    A weight of each point multiplies what it gains, as weights do where points are alone; so for
    q = 1 this is, but for Monte Carlo, the weighted `NoisyLogExpectedImprovement`.

    Source: Ament et al. (2023), https://arxiv.org/abs/2310.20708, with another fat maximum.

    Attributes:
        belief: About f under S fantasies.
        best: The largest value of f in each fantasy, shape (S,).
        base: Standard normal, shape (S, R, q) or wider.
        scale: Standard deviation of f before the data, or another measure of the size of f.
        weights: Exponents and logs of weights of single candidates, whose sum is log w.
    """

    belief: JointFantasised
    best: Tensor
    base: Tensor
    scale: float = 1.0
    weights: Sequence[tuple[float, Acquisition]] = ()

    def __call__(self, X: Tensor) -> Tensor:
        """Score each group: X of shape (..., q, d) gives values of shape (...).

        Raises:
            ValueError: If X is no group, or one of more candidates than `base` has columns.
        """
        if X.ndim < 2 or X.shape[-2] > self.base.shape[-1]:
            raise ValueError(
                f"NoisyBatchLogExpectedImprovement has base samples for groups of up to "
                f"{self.base.shape[-1]} candidates: X must have shape (..., q, d) with no larger "
                f"q; got {tuple(X.shape)}."
            )
        means, covariance = self.belief.joint(X)
        L = triangular_root(covariance, self.scale**2)
        spread = torch.einsum("...ij,srj->...sri", L, self.base[..., : X.shape[-2]])
        f = means.movedim(0, -2).unsqueeze(-2) + spread  # (..., S, R, q)
        gains = log_fat_plus(f - self.best[:, None, None], _TAU_PLUS * self.scale)
        rows = X.reshape(-1, 1, X.shape[-1])
        for exponent, log_weight in self.weights:
            more = exponent * log_weight(rows).reshape(X.shape[:-1])  # (..., q)
            gains = gains + more[..., None, None, :]
        together = fat_max(gains, _TAU_MAX).logsumexp((-2, -1))
        return together - math.log(self.base.shape[0] * self.base.shape[1])


def log_fat_plus(x: Tensor, tau: float) -> Tensor:
    """log of a smooth, increasing and convex max(x, 0) that falls only like 1/x², elementwise.

        τ [log(1 + eᶻ) + α / (1 + z²)],    z = x / τ,    α = 0.1

    Above max(x, 0) by at most 0.8 τ, where x = 0; all of that has the integral 2 τ².
    """
    z = x / tau
    plus = torch.logaddexp(z, torch.zeros_like(z))
    return (plus + _ALPHA / (1 + z.square())).log() + math.log(tau)


def fat_max(x: Tensor, tau: float) -> Tensor:
    """A smooth maximum over the last dimension that every element has a part in: (..., q) to (...).

    The m that solves Σ_i φ((x_i - m) / τ) = 1 for φ(t) = 1 / (1 - t)². For φ = exp it would be
    τ log Σ exp(x_i / τ). It is between the maximum and τ (√q - 1) above; its derivatives are
    positive, sum to 1, and fall with the third power of the distance from the maximum.
    """
    largest = x.detach().amax(-1, keepdim=True)
    below = (largest - x.detach()) / tau
    m = torch.zeros_like(largest)
    for _ in range(_ROUNDS):
        # Newton for (Σφ)^-½ = 1: concave in m and, where one element counts or all are the same,
        # linear. So the steps never overshoot, and few are needed.
        r = (1 + m + below).reciprocal()
        total = r.square().sum(-1, keepdim=True)
        m = m + (total.sqrt() - 1) * total / r.pow(3).sum(-1, keepdim=True)
    weights = (1 + m + below).pow(-3)
    weights = weights / weights.sum(-1, keepdim=True)
    return (largest + tau * m).squeeze(-1) + (weights * (x - x.detach())).sum(-1)
