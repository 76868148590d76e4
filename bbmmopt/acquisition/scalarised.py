"""Acquisition functions for several objectives along one direction at a time. Larger is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bbmmopt.acquisition.base import Fantasised, FantasyAcquisition, elementwise
from bbmmopt.acquisition.noisy import log_mean_exp
from bbmmopt.acquisition.normal import LOG_ROOT_2PI, QUICK, log_cdf, mills

# The integral of `log_scalarised_improvement` ends where the integrand has fallen by so many nats.
# It is cut there, at shares of the way so that none of the pieces falls by too many, and for each
# objective where its factor begins to fall and where it falls fastest.
_NATS = 22.0
_SHARES = (0.15, 0.4)
_BEGINS = -5.0  # in standard deviations
_ORDER = 8
_VALUES = 2**17  # of Φ at a time, empty pieces included: what is alive stays in cache

_TINY = 1e-300  # divides instead of 0, where what is divided is 0 too


def scalarise(values: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """How far the ray from r along λ runs below y: s(y) = minⱼ (yⱼ - rⱼ) / λⱼ, (..., k) to (...).

    The base of `hypervolume_scalarisation`, which below r goes on falling.
    """
    return ((values - reference) / weights).amin(-1)


def log_scalarised_improvement(
    means: Tensor, stds: Tensor, reference: Tensor, weights: Tensor, best: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """log E[(s(f) - b)+], s of `scalarise`, fⱼ ~ N(means[j], stds[j]²), and its derivatives.

    As s(f) > t where every fⱼ > rⱼ + λⱼ t, for independent objectives,

        E[(s(f) - b)+] = ∫_b^∞ Πⱼ Φ((μⱼ - rⱼ - λⱼ t) / σⱼ) dt

    The integrand falls and is log-concave. It is integrated by Gauss-Legendre on pieces between b
    and where it has fallen by e^-22, which Newton's method finds; all relative to its value at b,
    in logs, so that nothing underflows.

    Args:
        means, stds: Shape (k, ...).
        reference, weights: r and λ > 0, shape (k,).
        best: b, of shape (...).

    Returns:
        The value (...) and its derivatives in means and stds, each (k, ...).
    """
    return _along(means, stds, reference, weights, best, slopes=True)


def _along(
    means: Tensor,
    stds: Tensor,
    reference: Tensor,
    weights: Tensor,
    best: Tensor,
    *,
    slopes: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`log_scalarised_improvement`; without slopes, the value in place of its derivatives."""
    k, shape = len(means), means.shape[1:]
    pieces = len(_SHARES) + 1 + 2 * k
    size = max(1, _VALUES // (k * pieces * _ORDER))
    flat = (means.reshape(k, -1), stds.reshape(k, -1), best.expand(shape).reshape(-1))
    split = (part.split(size, -1) for part in flat)
    parts = [
        _scalarised(mean, std, b, reference.unsqueeze(-1), weights.unsqueeze(-1), slopes=slopes)
        for mean, std, b in zip(*split, strict=True)
    ]
    value, by_means, by_stds = (torch.cat(column, -1) for column in zip(*parts, strict=True))
    if not slopes:
        return value.reshape(shape), value, value
    return value.reshape(shape), by_means.reshape(means.shape), by_stds.reshape(means.shape)


def _scalarised(
    means: Tensor,
    stds: Tensor,
    best: Tensor,
    reference: Tensor,
    weights: Tensor,
    *,
    slopes: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`_along` for means, stds (k, m) and best (m,)."""
    width = stds / weights  # τ: the factors are Φ(a - u/τ), u = t - b
    a = (means - reference) / stds - best / width
    at_best, slope = log_cdf(a)
    least = at_best.sum(0) - _NATS
    # No further than where one factor alone has fallen so far, by Φ(-z) ≤ exp(-z²/2)/2, or where
    # the tangent at b has; then down to where all of them together have.
    end = ((a + (-2 * least).sqrt()) * width).amin(0)
    end = torch.minimum(end, _NATS / (slope / width).sum(0).clamp_min(_TINY))
    for _ in range(4):
        value, slope = log_cdf(a - end / width)
        step = (least - value.sum(0)) / (slope / width).sum(0)
        end = end - step.clamp_min(0.0)
    own = torch.cat([a * width, (a + _BEGINS) * width])
    cuts = torch.cat([*(end.unsqueeze(0) * share for share in (0.0, *_SHARES, 1.0)), own])
    cuts = torch.minimum(cuts.clamp_min(0.0), end).sort(0).values  # (pieces + 1, m)
    half = 0.5 * cuts.diff(dim=0)
    middle = 0.5 * (cuts[:-1] + cuts[1:])
    if half.device.type == "cpu":
        # Half of the pieces or more are empty, of objectives whose factor does not fall in between.
        piece, which = half.nonzero(as_tuple=True)  # (p,)
        half, middle = half[piece, which], middle[piece, which]
    else:  # where waiting for how many these are takes longer than they do
        which = torch.arange(half.numel(), device=half.device) % half.shape[1]
        half, middle = half.flatten(), middle.flatten()
    nodes, node_weights = _quadrature(half.device)
    u = middle + half * nodes.unsqueeze(-1)  # (8, p)
    z = a[:, which].unsqueeze(1) - u * width.reciprocal()[:, which].unsqueeze(1)  # (k, 8, p)
    ratio, density = _falling(z, at_best[:, which].unsqueeze(1))
    share = ratio.prod(0).mul_(half * node_weights.unsqueeze(-1))  # (8, p)

    def whole(parts: Tensor) -> Tensor:
        if parts.device.type != "cpu":  # index_add_ would add in any order there
            return parts.unflatten(-1, (-1, len(best))).sum(-2)
        return torch.zeros_like(parts[..., :1].expand(*parts.shape[:-1], len(best))).index_add_(
            -1, which, parts
        )

    total = whole(share.sum(0))  # (m,)
    value = at_best.sum(0) + total.log()
    if not slopes:
        return value, value, value
    weighted = density.div_(ratio.clamp_min_(_TINY)).mul_(share)  # (k, 8, p)
    by_means = whole(weighted.sum(1)) / (total * stds)
    by_stds = -whole(weighted.mul_(z).sum(1)) / (total * stds)
    return value, by_means, by_stds


@cache
def _quadrature(device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes in [-1, 1] and weights of Gauss-Legendre, shape (8,) each."""
    nodes, weights = np.polynomial.legendre.leggauss(_ORDER)
    return torch.from_numpy(nodes).to(device), torch.from_numpy(weights).to(device)


def _falling(z: Tensor, log_mass: Tensor) -> tuple[Tensor, Tensor]:
    """Φ(z) and φ(z), both over e^log_mass, to 1e-9: log_mass is at least log Φ(z)."""
    R, _ = mills(z.abs(), QUICK)
    density = z.square().mul_(-0.5).sub_(LOG_ROOT_2PI + log_mass).exp_()
    below = R.mul_(density)
    return torch.where(z < 0, below, (-log_mass).exp() - below), density


@dataclass(frozen=True)
class LogScalarisedImprovement(FantasyAcquisition):
    """How much one more trial is expected to improve on the best along one direction, in logs.

        log 1/S Σₛ E[(s(f(x)) - bₛ)+],    s(f) = minⱼ (fⱼ - rⱼ) / λⱼ

    With λ drawn anew for each trial, trials spread over the front; the time grows linearly with the
    number of objectives, where that of hypervolumes explodes.

    Source: Golovin & Zhang (2020), https://arxiv.org/abs/2006.04655, for the scalarisation and its
    random directions.

    Attributes:
        beliefs: One for each of k objectives, all of the same S.
        reference: r, shape (k,).
        weights: λ, shape (k,), of `random_directions`.
        best: The largest s among the trials of each fantasy, shape (S,).
    """

    beliefs: Sequence[Fantasised]
    reference: Tensor
    weights: Tensor
    best: Tensor

    def formula(self, means: Tensor, stds: Tensor) -> Tensor:
        best = self.best.unsqueeze(-1).expand(means.shape[1:])
        given, each = (self.reference, self.weights, best), stds.unsqueeze(1).expand_as(means)
        if not torch.is_grad_enabled():
            return log_mean_exp(_along(means, each, *given, slopes=False)[0])
        return log_mean_exp(
            elementwise(lambda m, s: log_scalarised_improvement(m, s, *given), means, each)
        )


def hypervolume_scalarisation(values: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """One number (...) for values (..., k), given a direction: minⱼ max(0, (yⱼ - rⱼ) / λⱼ)^k.

    It is the k-th power of how far the ray from r along λ runs below y. Hence, for λ uniform on the
    positive part of the unit sphere, the mean of its maximum over some values is their hypervolume
    over 2^-k π^(k/2) / Γ(k/2 + 1), the volume of the unit ball's positive part.

    Source: Golovin & Zhang (2020), https://arxiv.org/abs/2006.04655.

    Args:
        values: Any number of points.
        reference: r, shape (k,).
        weights: λ > 0, shape (k,), or any that broadcasts with `values`.
    """
    ray = ((values - reference) / weights).amin(-1).clamp_min(0.0)
    return ray ** values.shape[-1]


def random_directions(k: int, count: int, generator: torch.Generator) -> Tensor:
    """Uniform draws (count, k) from the positive part of the unit sphere."""
    draws = torch.randn(count, k, generator=generator, dtype=torch.float64).abs()
    return draws / draws.norm(dim=-1, keepdim=True)
