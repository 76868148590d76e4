"""Acquisition functions for several objectives at once. Larger is better in each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from bbmmopt.acquisition.base import Fantasised, FantasyAcquisition, elementwise
from bbmmopt.acquisition.normal import LOG_ROOT_2PI, may_hold, mills

# Fantasies × boxes × candidates at a time: 256 KiB a tensor, so that the twenty or so that are
# alive at once stay in a core's cache.
_CHUNK = 2**15

# Boxes narrower than this, in units of the length 1/(1 + |a|) over which φ changes, go by a Taylor
# series that has so many terms: the first left out is below 1e-16.
_NARROW = 1 / 32
_TERMS = 8

_TINY = 1e-300  # divides instead of 0, where what is divided is 0 too


def log_expected_hypervolume_improvement(
    means: Tensor, stds: Tensor, lower: Tensor, upper: Tensor
) -> Tensor:
    """Log of the expected hypervolume improvement, averaged over S fantasies; differentiable.

        log 1/S Σₛ Σ_boxes Πⱼ ψⱼ,    ψⱼ = E[(min(fⱼ, uⱼ) - lⱼ)+],    fⱼ ~ N(means[j, s], stds[j]²)

    where the boxes [l, u] of each fantasy are those of `bbmmopt.pareto.boxes`. Objectives are
    independent. With a = (l - μ)/σ, c = (u - μ)/σ and h of `normal.log_h`,

        ψ = σ (h(-a) - h(-c)),    ∂ψ/∂μ = Φ(-a) - Φ(-c),    ∂ψ/∂σ = φ(a) - φ(c)

    each of which is written so that it does not cancel, and kept as a multiple of φ(a) where a > 0,
    so that it does not underflow.

    Sources: Emmerich, Deutz & Klinkenberg (2011), "Hypervolume-based expected improvement", IEEE
    CEC, 2147-2154, for the exact sum over cells; Daulton et al. (2021),
    https://arxiv.org/abs/2105.08195, for the mean over sampled fronts; Ament et al. (2023),
    https://arxiv.org/abs/2310.20708, for taking logs.

    Args:
        means, stds: Shapes (k, S, m) and (k, m), for k objectives and m candidates.
        lower, upper: Corners of the boxes, each (S, b, k); lower finite, upper ∞ where a box has
            no end. Empty boxes, with two equal corners, count for nothing.

    Returns:
        Shape (m,); -inf if there is no box, or none that is not empty.
    """
    k, S, m = means.shape
    if stds.shape != (k, m) or lower.shape != upper.shape or lower.shape[::2] != (S, k):
        raise ValueError(
            f"means (k, S, m), stds (k, m), lower and upper (S, b, k) do not fit together; got "
            f"{tuple(means.shape)}, {tuple(stds.shape)}, {tuple(lower.shape)} and "
            f"{tuple(upper.shape)}."
        )
    if torch.is_grad_enabled() and (means.requires_grad or stds.requires_grad):
        return elementwise(
            lambda m, s: _over_fantasies(m, s, lower, upper, slopes=True), means, stds
        )
    return _over_fantasies(means.detach(), stds.detach(), lower, upper, slopes=False)[0]


@dataclass(frozen=True)
class LogExpectedHypervolumeImprovement(FantasyAcquisition):
    """How much hypervolume one more trial is expected to add, in logs.

    With the front that was observed and one fantasy, this is expected hypervolume improvement; with
    S fronts sampled from the beliefs, each with the beliefs as they would be after it, the noisy
    one.

    Attributes:
        beliefs: One for each of k objectives, all of the same S.
        lower, upper: Corners of the boxes above the front of each fantasy, shape (S, b, k).
    """

    beliefs: Sequence[Fantasised]
    lower: Tensor
    upper: Tensor

    def formula(self, means: Tensor, stds: Tensor) -> Tensor:
        return log_expected_hypervolume_improvement(means, stds, self.lower, self.upper)


def _over_fantasies(
    means: Tensor, stds: Tensor, lower: Tensor, upper: Tensor, *, slopes: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Value (m,), and its derivatives in means (k, S, m) and stds (k, m) if asked for."""
    k, S, m = means.shape
    values = means.new_empty(S, m)
    by_means, by_stds = means.new_zeros(2, k, S, m) if slopes else means.new_empty(2, 0)
    boxes = max(1, lower.shape[1])
    fantasies = max(1, min(S, _CHUNK // boxes))
    candidates = max(1, _CHUNK // (boxes * fantasies))
    for s in range(0, S, fantasies):
        low, high = lower[s : s + fantasies], upper[s : s + fantasies]
        for i in range(0, m, candidates):
            at = (slice(s, s + fantasies), slice(i, i + candidates))
            value, by_mean, by_std = _of_each_fantasy(
                means[:, *at], stds[:, at[1]], low, high, slopes=slopes
            )
            values[at] = value
            if slopes:
                by_means[:, *at], by_stds[:, *at] = by_mean, by_std
    value = values.logsumexp(0)
    if slopes:
        weight = (values - _finite(value)).exp()
        by_means, by_stds = by_means * weight, (by_stds * weight).sum(1)
    return value - math.log(S), by_means, by_stds


def _of_each_fantasy(
    means: Tensor, stds: Tensor, lower: Tensor, upper: Tensor, *, slopes: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log of the sum over boxes for each fantasy, (S, m), and its derivatives, each (k, S, m)."""
    parts = []
    for j, (mean, std) in enumerate(zip(means, stds, strict=True)):
        l, u = lower[..., j], upper[..., j]
        a = (l.unsqueeze(-1) - mean.unsqueeze(1)) / std
        w = (u - l).unsqueeze(-1) / std if may_hold(u < math.inf) else None
        parts.append(_gain(a, w, slopes=slopes))
    scale = reduce(torch.add, [part[0] for part in parts])
    product = reduce(torch.mul, [part[1] for part in parts])
    scale = torch.where(product > 0, scale, -math.inf)  # or an empty box might set the scale
    top = _finite(scale.amax(1)) if scale.shape[1] else torch.zeros_like(means[0])
    weight = (scale - top.unsqueeze(1)).exp_() * product
    total = weight.sum(1)
    value = top + total.log() + stds.log().sum(0)
    if not slopes:
        return value, value, value
    weight /= total.clamp_min(_TINY).unsqueeze(1)
    by_means, by_stds = torch.empty_like(means), torch.empty_like(means)
    for j, (_, gain, by_mean, by_std) in enumerate(parts):
        share = weight / gain.clamp_min(_TINY)
        torch.sum(share * by_mean, 1, out=by_means[j])
        torch.sum(share * by_std, 1, out=by_stds[j])
    return value, by_means / stds.unsqueeze(1), by_stds / stds.unsqueeze(1)


def _finite(x: Tensor) -> Tensor:
    """x, with 0 for -inf."""
    return torch.where(x > -math.inf, x, 0.0)


def _gain(a: Tensor, w: Tensor | None, *, slopes: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For Z ~ N(0, 1) and a box [a, a + w]: log s, ψ/s, P/s and D/s, elementwise, where

        ψ = E[(min(Z, a + w) - a)+],    P = P(a < Z < a + w),    D = φ(a) - φ(a + w)

    and s = φ(a) for a ≥ 0, else 1. Without w the box has no end. P and D only with slopes.

    With R and H of `mills`, t = |a|, c = a + w, g = φ(a)/s and q = φ(c)/s,

        ψ/s = min(w, max(-a, 0)) + g H(t) - q H(|c|)
        P/s = [a < 0] - [c < 0] ± g R(t) ∓ q R(|c|), minus for what is below 0
        D/s = g - q

    Narrow boxes go by the series of ψ in w, of which P is the derivative:

        ψ/s = w Φ(-a)/s - g Σₙ (-1)ⁿ wⁿ⁺² Heₙ(a)/(n + 2)!,    P/s = g Σₙ (-1)ⁿ wⁿ⁺¹ Heₙ(a)/(n + 1)!
    """
    t, negative = a.abs(), a < 0
    log_phi = a.square().mul_(-0.5).sub_(LOG_ROOT_2PI)
    phi = log_phi.exp()
    scale = torch.where(negative, 0.0, log_phi)
    g = torch.where(negative, phi, 1.0)
    R, H = mills(t)
    sign = 1 - 2 * negative.to(a.dtype)
    above = (-a).clamp_min_(0.0)
    if w is None:
        gain = above.addcmul_(g, H)
        return scale, gain, (g * sign).mul_(R).add_(negative) if slopes else gain, g
    c = a + w
    # As the log of φ(c), or of φ(c)/φ(a) where it would cancel.
    log_q = torch.where(negative, c.square().mul_(-0.5).sub_(LOG_ROOT_2PI), (a + c) * (-0.5 * w))
    q = log_q.exp_()
    R_c, H_c = mills(c.abs())
    gain = torch.minimum(w, above).addcmul_(g, H).addcmul_(q, H_c, value=-1)
    by_mean = by_std = gain
    if slopes:
        sign_c = 1 - 2 * (c < 0).to(a.dtype)
        by_mean = (sign_c - sign).mul_(0.5)  # [a < 0] - [c < 0]
        by_mean.addcmul_(g * sign, R).addcmul_(q * sign_c, R_c, value=-1)
        by_std = g - q
    is_narrow = w * (1 + t) < _NARROW
    parts = a, w, R, g, sign, negative
    if a.device.type != "cpu":  # where it takes longer to wait for which these are
        pairs = zip(_narrow_gain(*parts, slopes=slopes), (gain, by_mean, by_std), strict=True)
        gain, by_mean, by_std = (torch.where(is_narrow, new, old) for new, old in pairs)
        return scale, gain, by_mean, by_std
    narrow = is_narrow.flatten().nonzero().squeeze(1)
    if len(narrow):
        of_narrow = _narrow_gain(*(x.flatten()[narrow] for x in parts), slopes=slopes)
        gain.view(-1)[narrow] = of_narrow[0]
        if slopes:
            by_mean.view(-1)[narrow], by_std.view(-1)[narrow] = of_narrow[1:]
    return scale, gain, by_mean, by_std


def _narrow_gain(
    a: Tensor,
    w: Tensor,
    R: Tensor,
    g: Tensor,
    sign: Tensor,
    negative: Tensor,
    *,
    slopes: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """ψ/s, P/s and D/s of `_gain` by their series in w; ψ/s alone without slopes."""
    # Terms (-w)ⁿ Heₙ(a), by the recurrence Heₙ₊₁ = a Heₙ - n Heₙ₋₁.
    term, before = torch.ones_like(a), torch.zeros_like(a)
    first, second = torch.ones_like(a), torch.full_like(a, 0.5)
    step, square = -w * a, w.square()
    for n in range(_TERMS - 1):
        term, before = step * term - n * square * before, term
        first.add_(term, alpha=1 / math.factorial(n + 2))
        second.add_(term, alpha=1 / math.factorial(n + 3))
    gain = w * (g * sign * R + negative) - g * square * second
    if not slopes:
        return gain, gain, gain
    return gain, g * w * first, -g * torch.expm1(w * (-a - 0.5 * w))
