"""Expected improvement on a best value that is not known exactly, and draws of what it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from bbmmopt.acquisition.analytic import log_expected_improvement
from bbmmopt.acquisition.base import Fantasised, FantasyAcquisition, elementwise
from bbmmopt.acquisition.normal import log_h

_ROUNDING = 1e-10  # variances below this fraction of the scale given are rounding of zero
_HALF_CELL = 2.0**-31  # torch's Sobol points are multiples of 2^-30, and may be 0


@dataclass(frozen=True)
class NoisyLogExpectedImprovement(FantasyAcquisition):
    """How much one more trial is expected to improve on the best, in logs, whatever that is.

        log 1/S Σ_s EI_s(x),    EI_s(x) = E[max(f(x) - best_s, 0) | fantasy s]

    The fantasies are joint draws of f itself at the trials that may be the best and at the pending
    ones: their mean integrates over what noise leaves open about both. Given a draw, f(x) is
    integrated in closed form. With one fantasy it is `LogExpectedImprovement`.

    Source: Letham et al. (2019), Bayesian Analysis 14(2), 495-519,
    https://arxiv.org/abs/1706.07094.

    Attributes:
        beliefs: About f under S fantasies; one.
        best: The largest value of f in each fantasy, shape (S,).
    """

    beliefs: Sequence[Fantasised]
    best: Tensor

    def formula(self, means: Tensor, stds: Tensor) -> Tensor:
        (mean,), (std,) = means, stds
        return log_mean_exp(log_ei(mean, std, self.best.unsqueeze(-1)))

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        # As autograd would, at half of the time: climbs take a few dozen small steps like this.
        mean, std, pullback = self.beliefs[0].linearise(X)
        parts, by_mean, by_std = log_expected_improvement(mean, std, self.best.unsqueeze(-1))
        value = log_mean_exp(parts)
        weight = (parts - parts.logsumexp(0)).exp_()  # (S, m)
        return value, pullback(by_mean.mul_(weight), by_std.mul_(weight).sum(0))


def log_ei(mean: Tensor, std: Tensor, best: float | Tensor) -> Tensor:
    """`log_expected_improvement` for autograd; the three are broadcast, `best` is a constant."""
    if not torch.is_grad_enabled():
        return std.log() + log_h((mean - best) / std)[0]
    mean, std = torch.broadcast_tensors(mean, std)
    return elementwise(lambda m, s: log_expected_improvement(m, s, best), mean, std)


def log_mean_exp(values: Tensor) -> Tensor:
    """log 1/S Σ_s exp(v_s) over the first dimension: (S, ...) to (...)."""
    return values.logsumexp(0) - math.log(len(values))


def base_samples(count: int, dims: int, generator: torch.Generator) -> Tensor:
    """Standard normal vectors that fill their space evenly, shape (count, dims).

    Scrambled Sobol points through the inverse of Φ; independent draws where the points have too
    few dimensions. Most even where `count` is a power of two. Columns of a wider call are others:
    ask once for as many as will be needed.
    """
    if dims > SobolEngine.MAXDIM:
        return torch.randn(count, dims, generator=generator, dtype=torch.float64)
    seed = int(torch.randint(2**31, (), generator=generator))
    points = SobolEngine(dims, scramble=True, seed=seed).draw(count, dtype=torch.float64)
    return torch.special.ndtri(points + _HALF_CELL)


def draw(mean: Tensor, covariance: Tensor, base: Tensor, *, scale: float) -> Tensor:
    """Joint samples of N(mean, covariance), shape (S, k): mean + L base.

    Row j of L depends on the first j points alone, so one more point leaves the samples at the
    others as they were.

    Args:
        mean: Shape (k,).
        covariance: Positive semidefinite up to rounding, shape (k, k).
        base: Standard normal, shape (S, k) or wider.
        scale: The variance that rounding is relative to: that of f before the data. Points known
            up to 1e-10 of it, given those before them, get what these imply.
    """
    return mean + base[:, : len(mean)] @ triangular_root(covariance, scale).mT


def triangular_root(covariance: Tensor, scale: float) -> Tensor:
    """Lower triangular L with L Lᵀ = covariance (..., k, k), semidefinite up to rounding.

    A pivot below 1e-10 · scale counts as zero, and so does its column: nothing is added to the
    diagonal, nothing ever fails, and the gradient stays finite.
    """
    least = _ROUNDING * scale
    L, failed = torch.linalg.cholesky_ex(covariance)
    pivots = L.detach().diagonal(dim1=-2, dim2=-1).square()
    if bool(((failed == 0) & (pivots >= least).all(-1)).all()):
        return L
    # One column at a time; `left` is what the columns so far do not explain.
    columns, left = [], covariance
    for j in range(covariance.shape[-1]):
        pivot = left[..., :1, :1]
        known = pivot < least
        column = torch.where(known, 0.0, left[..., :1] / torch.where(known, 1.0, pivot).sqrt())
        left = left[..., 1:, 1:] - column[..., 1:, :] * column[..., 1:, :].mT
        columns.append(torch.nn.functional.pad(column, (0, 0, j, 0)))
    return torch.cat(columns, -1)


def prune_baseline(samples: Tensor) -> Tensor:
    """Which of k ≥ 1 points are the best of a joint sample (S, k) at least once: bool (k,).

    Points of value -∞, those that are not feasible in a sample, are never its best.
    """
    return ((samples == samples.amax(-1, keepdim=True)) & ~samples.isneginf()).any(0)
