"""The knowledge gradient: what an observation is worth for the decision made after it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bbmmopt.acquisition.active import CovarianceAcquisition
from bbmmopt.acquisition.base import JointPosterior, NoiseVariance
from bbmmopt.acquisition.normal import log_h

_FAR = 1e60  # lines that meet further out than this are taken to meet here: powers must exist
_LOWEST = -1e300


def log_knowledge_gradient(mean: Tensor, slopes: Tensor) -> Tensor:
    """log of `knowledge_gradient`, without ever forming it: it has digits where that underflows.

    -1e300, with gradients 0, where the knowledge gradient is 0: if all slopes are the same.
    """
    mean, slopes = torch.broadcast_tensors(mean, slopes)
    return _LogKnowledgeGradient.apply(mean, slopes)


def knowledge_gradient(mean: Tensor, slopes: Tensor) -> Tensor:
    """E[max_a (μ_a + b_a Z)] - max_a μ_a for Z ~ N(0, 1), exactly; differentiable.

    What an observation with standardised outcome Z is worth if afterwards the best of A options is
    taken. The maximum is a convex function of Z, made of lines; with the lines that are highest
    somewhere in order of slope, and c_k where line k meets line k + 1,

        Σ_k (b_{k+1} - b_k) h(-|c_k|),    h(u) = φ(u) + u Φ(u)

    All terms are positive: nothing cancels. It has a kink, as max μ has, where two options tie.

    Source: Frazier, Powell & Dayanik (2009), https://doi.org/10.1287/ijoc.1080.0314;
    the lines are found by walking along the envelope instead of by their stack of lines.

    Args:
        mean: μ, means of the options, shape (A,) or (..., A).
        slopes: b, how much each mean moves with Z, shape (..., A).

    Returns:
        Shape (...).
    """
    return log_knowledge_gradient(mean, slopes).exp()


@torch.no_grad()
def _envelope(mean: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Which lines are highest somewhere, from z = -∞ to ∞: for means and slopes (m, A).

    In each step of the walk, the line taken next is, of those that are steeper than the present
    one, the one that crosses it first. O(A) time per row and step, as many steps as the longest
    envelope has lines; no memory of size A².

    Returns:
        Indices of lines (m, E), and which of them there are (m, E): a row with fewer than E lines
        repeats its last.
    """
    lowest = slopes.amin(-1, keepdim=True)
    current = mean.masked_fill(slopes > lowest, -math.inf).argmax(-1, keepdim=True)  # (m, 1)
    lines, present = [current], [torch.ones_like(current, dtype=torch.bool)]
    for _ in range(mean.shape[-1] - 1):
        rise = slopes - slopes.gather(-1, current)
        gap = mean.gather(-1, current) - mean
        crossing = (gap / rise.clamp_min(1e-300)).clamp(-_FAR, _FAR)
        first, following = crossing.where(rise > 0, math.inf).min(-1, keepdim=True)
        ahead = first < math.inf
        if not bool(ahead.any()):
            break
        current = torch.where(ahead, following, current)
        lines.append(current)
        present.append(ahead)
    return torch.cat(lines, -1), torch.cat(present, -1)


@torch.no_grad()
def _log_knowledge_gradient(mean: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values (m,), and their derivatives in means and slopes (m, A)."""
    by_mean, by_slopes = torch.zeros_like(mean), torch.zeros_like(slopes)
    lines, present = _envelope(mean, slopes)
    if lines.shape[-1] == 1:
        return torch.full_like(mean[..., 0], _LOWEST), by_mean, by_slopes
    below, above, real = lines[..., :-1], lines[..., 1:], present[..., 1:]  # (m, E - 1)
    rise = torch.where(real, slopes.gather(-1, above) - slopes.gather(-1, below), 1.0)
    gap = torch.where(real, mean.gather(-1, below) - mean.gather(-1, above), 0.0)
    c = (gap / rise).clamp(-_FAR, _FAR)
    height, slope = log_h(-c.abs())  # slope = Φ/h
    terms = torch.where(real, rise.log() + height, _LOWEST)
    top = terms.amax(-1, keepdim=True)
    value = top + (terms - top).exp().sum(-1, keepdim=True).log()  # (m, 1)
    # With t = Δb h(-|c|), c = Δμ/Δb: ∂t/∂Δμ = -sign(c) Φ(-|c|) and ∂t/∂Δb = h + |c| Φ = φ(c).
    weight = torch.where(real, (terms - value).exp() / rise, 0.0)
    by_gap = -c.sign() * weight * slope
    by_rise = weight * (1 + c.abs() * slope)
    by_mean.scatter_add_(-1, below, by_gap).scatter_add_(-1, above, -by_gap)
    by_slopes.scatter_add_(-1, above, by_rise).scatter_add_(-1, below, -by_rise)
    return value.squeeze(-1), by_mean, by_slopes


class _LogKnowledgeGradient(torch.autograd.Function):
    """`_log_knowledge_gradient` for autograd and for any leading shape."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, slopes: Tensor) -> Tensor:
        shape = mean.shape
        flat = (part.reshape(-1, shape[-1]) for part in (mean, slopes))
        value, by_mean, by_slopes = _log_knowledge_gradient(*flat)
        ctx.save_for_backward(by_mean.reshape(shape), by_slopes.reshape(shape))
        return value.reshape(shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        by_mean, by_slopes = ctx.saved_tensors
        gradient = gradient.unsqueeze(-1)
        return gradient * by_mean, gradient * by_slopes


@dataclass(frozen=True)
class KnowledgeGradient(CovarianceAcquisition):
    """How much one more trial is expected to raise the highest posterior mean, in logs.

    The mean is looked at on given points and at the candidate x itself, before the trial and after
    it; observing f(x) moves it at a by b_a Z, with

        b_a(x) = cov(a, x) / √(σ²(x) + noise)

    Unlike expected improvement it values what a trial says about other places, and noise.

    Source: Scott, Frazier & Powell (2011), https://doi.org/10.1137/100801275, where the points are
    those of the trials; `knowledge_gradient` for the formula.

    Attributes:
        posterior: Belief about f after the trials so far.
        points: Where else the maximum might be, shape (A, d).
        noise: Variance of an observation's noise, ≥ 0; where it is a function, at the candidate.
    """

    posterior: JointPosterior
    points: Tensor
    noise: NoiseVariance

    @cached_property
    def _means(self) -> Tensor:
        """Of f at the points, shape (A,)."""
        with torch.no_grad():
            return self.posterior.marginals(self.points)[0]

    def anchors(self) -> Tensor:
        return self.points

    def formula(self, mean: Tensor, std: Tensor, cross: Tensor, noise: Tensor) -> Tensor:
        variance = std.square().unsqueeze(-1)
        means = torch.cat([self._means.expand_as(cross), mean.unsqueeze(-1)], -1)
        slopes = torch.cat([cross, variance], -1) / (variance + noise.unsqueeze(-1)).sqrt()
        return log_knowledge_gradient(means, slopes)
