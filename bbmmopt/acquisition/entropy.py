"""Acquisition functions that ask what an observation would say about the maximum of f.

f* = max f and x* = argmax f are uncertain; samples of them come from sampled functions, see
`sample_maxima`. Given f* = m, f(x) is taken to be its normal belief cut off above m, with
u = (m - μ) / σ: that no other f(x') exceeds m either, and that one equals it, is left out. What is
called a bound below bounds the information under this approximation; the information itself may be
less. (For two points and `joint_information` the approximation is exact.) Information is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bbmmopt.acquisition.active import CovarianceAcquisition
from bbmmopt.acquisition.base import (
    Acquisition,
    JointPosterior,
    MarginalAcquisition,
    NoiseVariance,
    Posterior,
    elementwise,
    noise_at,
)
from bbmmopt.acquisition.normal import LOG_ROOT_2PI, log_cdf, may_hold

_ROOT_HALF_PI = math.sqrt(math.pi / 2)
_TINY = 1e-300
_TAIL = -4.0  # below, quantities of the cut normal are small differences of large ones
_TERMS = 32  # of the continued fraction: exact to rounding from u = -4 down
_RELATIVE_FLOOR = 1e-12  # of a variance: what conditioning leaves below this is rounding
_FAR = 1e60  # u further out than this is taken to be here: its powers must exist
_JITTER = 1e-10  # on the correlations of a batch
_REACH = 0.05  # longest first step of a maximum, in any coordinate


# --------------------------------------------------------------------------------------
# A standard normal cut off above u
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """z ~ N(0, 1) given z ≤ u, for each u; eleven digits are kept from u = -1e8 up.

    Attributes:
        u: Where it is cut.
        log_mass: log Φ(u).
        hazard: r = φ(u) / Φ(u), minus the mean of z.
        short: u + r, how far the mean lies below u.
        bend: 1 + u (u + r).
        variance: V = 1 - r (u + r).
        slope: dV/du ≥ 0.
    """

    u: Tensor
    log_mass: Tensor
    hazard: Tensor
    short: Tensor
    bend: Tensor
    variance: Tensor
    slope: Tensor

    @staticmethod
    def at(u: Tensor) -> Cut:
        """The cut normal for each u.

        Above -4 as defined. Below, by Laplace's continued fraction for the Mills ratio: with
        t = -u and C_k = k / (t + C_{k+1}),

            u + r = C_1,    1 + u (u + r) = C_1 C_2,    V = C_1 (C_2 - C_1),
            dV/du = r C_1² C_2 (C_3 - C_2)

        where nothing cancels: C_k tends to k / t. (r = t + C_1, see Abramowitz & Stegun 26.2.14;
        the others follow by r' = -r (u + r).)
        """
        near = u.clamp_min(_TAIL)
        log_mass, hazard = log_cdf(u)
        short = near + hazard
        variance = 1 - hazard * short
        slope = hazard * (short.square() - variance)
        bend = 1 + near * short
        tail = u < _TAIL
        if may_hold(tail):
            t = (-u).clamp_min(-_TAIL)
            C = 0.5 * ((t.square() + 4 * _TERMS).sqrt() - t)
            C3 = C2 = C1 = C
            for k in range(_TERMS - 1, 0, -1):
                C1, C2, C3 = k / (t + C1), C1, C2
            far = t + C1
            hazard = torch.where(tail, far, hazard)
            short = torch.where(tail, C1, short)
            bend = torch.where(tail, C1 * C2, bend)
            variance = torch.where(tail, C1 * (C2 - C1), variance)
            slope = torch.where(tail, far * C1.square() * C2 * (C3 - C2), slope)
        return Cut(u, log_mass, hazard, short, bend, variance, slope)

    @property
    def lost(self) -> Tensor:
        """1 - V = r (u + r), with its digits where V is near 1."""
        return self.hazard * self.short


class _Variance(torch.autograd.Function):
    """V and 1 - V of the cut normal, for autograd."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        cut = Cut.at(u)
        ctx.save_for_backward(cut.slope)
        return cut.variance, cut.lost

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, by_variance: Tensor, by_lost: Tensor
    ) -> Tensor:
        (slope,) = ctx.saved_tensors
        return (by_variance - by_lost) * slope


# --------------------------------------------------------------------------------------
# Formulas
# --------------------------------------------------------------------------------------


def log_cut_information(u: Tensor) -> tuple[Tensor, Tensor]:
    """log of the entropy that N(0, 1) loses by being cut off above u, and its derivative in u.

        log(u φ(u) / (2 Φ(u)) - log Φ(u))

    In logs: beyond u = 38 the information, about φ(u) (u/2 + 1/u), is below the smallest double.
    Above 0, φ is taken out, with Q = Φ(-u) and the Mills ratio R = Q / φ:

        log φ + log(u / (2 Φ) - R log(1 - Q) / Q)

    Source: Wang & Jegelka (2017), https://arxiv.org/abs/1703.01968.
    """
    cut = Cut.at(u)
    # Below 0; in the tail log Φ = log φ - log r takes its square term with it.
    low = torch.where(
        u < _TAIL,
        LOG_ROOT_2PI + cut.hazard.clamp_min(0.5).log() - 0.5 * (1 - cut.bend),
        0.5 * u * cut.hazard - cut.log_mass,
    ).clamp_min(0.5)
    high = u.clamp_min(0.0)
    R = _ROOT_HALF_PI * torch.special.erfcx(high * math.sqrt(0.5))
    log_phi = -0.5 * high.square() - LOG_ROOT_2PI
    Q, mass = R * log_phi.exp(), torch.special.ndtr(high)
    ratio = torch.where(Q > 1e-9, -torch.log1p(-Q) / Q.clamp_min(1e-9), 1 + 0.5 * Q)
    rest = 0.5 * high / mass + R * ratio
    above = u > 0
    value = torch.where(above, log_phi + rest.log(), low.log())
    # d/du = -r/2 (1 + u (u + r)), and r / φ = 1 / Φ.
    slope = -0.5 * cut.bend * torch.where(above, 1 / (mass * rest), cut.hazard / low)
    return value, slope


def log_max_value_information(
    mean: Tensor, std: Tensor, maxima: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """log of what f ~ N(mean, std²) itself would say about f*, and its derivatives in mean and std.

        log 1/S Σ_s (u_s φ(u_s) / (2 Φ(u_s)) - log Φ(u_s)),    u_s = (f*_s - μ) / σ

    Source: Wang & Jegelka (2017), https://arxiv.org/abs/1703.01968.

    Args:
        mean: μ, shape (...).
        std: σ, shape (...).
        maxima: Samples of f*, shape (S,).
    """
    u = _standardised(maxima, mean, std)
    parts, slopes = log_cut_information(u)
    value = parts.logsumexp(0)
    by_u = (parts - value).exp() * slopes
    return value - math.log(len(maxima)), -by_u.sum(0) / std, -(by_u * u).sum(0) / std


def lower_bound_information(
    mean: Tensor, std: Tensor, maxima: Tensor, noise: float | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A lower bound of what y = f + e, e ~ N(0, noise), says about f*.

    And its derivatives in mean, std and noise.

        -1/(2S) Σ_s log(1 - ρ² r_s (u_s + r_s)),    ρ² = σ² / (σ² + noise),    r = φ(u) / Φ(u)

    The bracket is the share of the variance of y that is left given f*; of all distributions of
    that variance the normal one has the largest entropy.

    Source: Moss et al. (2021), https://arxiv.org/abs/2102.03324.

    Args:
        mean: μ, shape (...).
        std: σ, shape (...).
        maxima: Samples of f*, shape (S,).
        noise: Variance of an observation's noise, ≥ 0: a number, or one for each, shape (...).
    """
    u = _standardised(maxima, mean, std)
    cut, variance = Cut.at(u), std.square()
    total, left = variance + noise, variance * cut.variance + noise
    value = _half_log_ratio(variance * cut.lost / total, left / total).mean(0)
    by_u = -0.5 * variance * cut.slope / left
    by_std = std * noise * cut.lost / (total * left) - by_u * u / std
    by_noise = -0.5 * variance * cut.lost / (total * left)
    return value, -by_u.mean(0) / std, by_std.mean(0), by_noise.mean(0)


def joint_information(
    mean: Tensor,
    std: Tensor,
    cross: Tensor,
    maxima: Tensor,
    optima_mean: Tensor,
    optima_std: Tensor,
    noise: float | Tensor,
) -> Tensor:
    """A lower bound of what y = f + e, e ~ N(0, noise), says about x* and f* together.

        1/(2S) Σ_s log((σ² + noise) / (v_s V(u_s) + noise))
        v_s = σ² - c_s² / σ*_s²,    u_s = (f*_s - μ - c_s (f*_s - μ*_s) / σ*_s²) / √v_s

    Given f(x*) = f*, f(x) has variance v; cut off above f*, it has V times that.

    Source: Tu et al. (2022), https://arxiv.org/abs/2210.02905, lower bound for one objective;
    Hvarfner et al. (2022), https://arxiv.org/abs/2206.04771, with the same two conditions.

    Args:
        mean: μ, shape (...).
        std: σ, shape (...).
        cross: c, covariances of f(x) with f(x*), shape (..., S).
        maxima: Samples of f*, shape (S,) or (..., S).
        optima_mean: μ*, means of f at the samples of x*, shape (S,) or (..., S).
        optima_std: σ*, standard deviations there, shape (S,) or (..., S).
        noise: Variance of an observation's noise, ≥ 0: a number, or one for each, shape (...).

    Returns:
        Shape (...); differentiable.
    """
    variance = std.square().unsqueeze(-1)
    noise = noise.unsqueeze(-1) if isinstance(noise, Tensor) else noise
    weight = cross / optima_std.square()
    floor = _RELATIVE_FLOOR * variance
    explained = torch.minimum(weight * cross, variance - floor)
    v = variance - explained
    u = (maxima - mean.unsqueeze(-1) - weight * (maxima - optima_mean)) / v.sqrt()
    V, lost = _Variance.apply(u.clamp(-_FAR, _FAR))
    total = variance + noise
    return _half_log_ratio((explained + v * lost) / total, (v * V + noise) / total).mean(-1)


def _standardised(maxima: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """u_s = (f*_s - μ) / σ, shape (S, ...)."""
    return ((maxima.reshape(-1, *(1,) * mean.ndim) - mean) / std).clamp(-_FAR, _FAR)


def _half_log_ratio(lost: Tensor, left: Tensor) -> Tensor:
    """-½ log(left) = -½ log(1 - lost), by whichever of the two is the smaller."""
    some = torch.log1p(-lost.clamp_max(0.5))
    return -0.5 * torch.where(lost < 0.5, some, left.clamp_min(_TINY).log())


# --------------------------------------------------------------------------------------
# Acquisition functions
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaxValueEntropySearch(MarginalAcquisition):
    """Information about f* from f(x) without noise, in logs: see `log_max_value_information`.

    Attributes:
        posterior: Belief about f after the trials so far.
        maxima: Samples of f*, shape (S,).
    """

    posterior: Posterior
    maxima: Tensor

    def formula(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return log_max_value_information(mean, std, self.maxima)


@dataclass(frozen=True)
class LowerBoundMaxValueEntropySearch(Acquisition):
    """GIBBON: a lower bound of the information about f* from q noisy observations together.

        Σ_i I_i + ½ log |R|

    with I_i of each observation alone, `lower_bound_information`, and R the correlations of all of
    them: what they say twice counts once. In nats, not in logs: with R it may be negative. Pending
    points are joined to each group.

    Source: Moss et al. (2021), https://arxiv.org/abs/2102.03324.

    Attributes:
        posterior: Belief about f after the trials so far.
        maxima: Samples of f*, shape (S,).
        noise: Variance of an observation's noise, ≥ 0; where it is a function, at each point.
        pending: Points whose observations are still to come, shape (p, d).
    """

    posterior: JointPosterior
    maxima: Tensor
    noise: NoiseVariance
    pending: Tensor | None = None

    def formula(self, mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """The value for one observation alone and its derivatives, elementwise."""
        return lower_bound_information(mean, std, self.maxima, noise)

    def __call__(self, X: Tensor) -> Tensor:
        """Score each group: X of shape (..., q, d) gives values of shape (...)."""
        if X.ndim < 2:
            raise ValueError(
                f"X must have shape (..., q, d), groups of q points; got {tuple(X.shape)}. "
                f"For a single point, pass X.unsqueeze(0)."
            )
        mean, std = self.posterior.marginals(X)  # (..., q)
        noise = noise_at(self.noise, X).expand_as(std)
        value = elementwise(self.formula, mean, std, noise).sum(-1)
        if self.pending is None and X.shape[-2] == 1:
            return value
        covariance = self._shared(X) if X.shape[-2] > 1 else std.new_zeros(1, 1)
        return value + self._repulsion(X, std, noise, covariance)

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        mean, std, pullback = self.posterior.linearise(X)
        if self.pending is None and not callable(self.noise):
            value, by_mean, by_std, _ = self.formula(mean, std, noise_at(self.noise, X))
            return value, pullback(by_mean, by_std)
        leaves = X, mean, std = [part.detach().requires_grad_(True) for part in (X, mean, std)]
        with torch.enable_grad():
            noise = noise_at(self.noise, X).expand_as(std)
            value = elementwise(self.formula, mean, std, noise)
            if self.pending is not None:
                groups = X.unsqueeze(-2), std.unsqueeze(-1), noise.unsqueeze(-1)
                value = value + self._repulsion(*groups, std.new_zeros(1, 1))
            by_X, by_mean, by_std = torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
        return value.detach(), pullback(by_mean, by_std) + by_X

    def _shared(self, X: Tensor) -> Tensor:
        """Covariances of f between different points of each group, 0 on the diagonal."""
        _, covariance = self.posterior.joint(X)
        return covariance * (1 - torch.eye(X.shape[-2], dtype=X.dtype, device=X.device))

    def _repulsion(self, X: Tensor, std: Tensor, noise: Tensor, covariance: Tensor) -> Tensor:
        """½ log |R| of groups X and the pending points, and what the pending say alone.

        |R| = |R_pp| |R_xx - R_xp R_pp⁻¹ R_px|.
        """
        scale = (std.square() + noise).sqrt()  # (..., q)
        R = (covariance / (scale.unsqueeze(-1) * scale.unsqueeze(-2))).clamp(-1.0, 1.0)
        R = R + torch.eye(X.shape[-2], dtype=std.dtype, device=std.device)
        if self.pending is None:
            return _half_log_determinant(R)
        L, of_pending, alone = self._pending
        cross = self.posterior.covariance(X.reshape(-1, X.shape[-1]), self.pending)
        cross = cross.reshape(*X.shape[:-1], -1) / scale.unsqueeze(-1) / of_pending  # (..., q, p)
        B = torch.linalg.solve_triangular(L.mT, cross, upper=True, left=False)
        return alone + _half_log_determinant(R - B @ B.mT)

    @cached_property
    def _pending(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the pending points: factor of R_pp (p, p), std of observations (p,), their value."""
        assert self.pending is not None
        with torch.no_grad():
            mean, std = self.posterior.marginals(self.pending)
            noise = noise_at(self.noise, self.pending)
            scale = (std.square() + noise).sqrt()
            R = (self._shared(self.pending) / (scale.unsqueeze(-1) * scale)).clamp(-1.0, 1.0)
            L = _factor(R + torch.eye(len(R), dtype=R.dtype, device=R.device))
            alone = self.formula(mean, std, noise)[0].sum() + L.diagonal().log().sum()
        return L, scale, alone


@dataclass(frozen=True)
class JointEntropySearch(CovarianceAcquisition):
    """Information about where the maximum is and how high, from a noisy observation, in logs.

    The log of `joint_information`. Where the noise is 0, x = x* says everything, and the value
    there is only as large as rounding allows.

    Attributes:
        posterior: Belief about f after the trials so far.
        optima: Samples of x*, shape (S, d).
        maxima: f* at each, of the same sampled functions, shape (S,).
        noise: Variance of an observation's noise, ≥ 0; where it is a function, at the candidate.
    """

    posterior: JointPosterior
    optima: Tensor
    maxima: Tensor
    noise: NoiseVariance

    @cached_property
    def _marginals(self) -> tuple[Tensor, Tensor]:
        """Of f at the samples of x*, each of shape (S,)."""
        with torch.no_grad():
            return self.posterior.marginals(self.optima)

    def anchors(self) -> Tensor:
        return self.optima

    def formula(self, mean: Tensor, std: Tensor, cross: Tensor, noise: Tensor) -> Tensor:
        information = joint_information(mean, std, cross, self.maxima, *self._marginals, noise)
        return information.clamp_min(_TINY).log()


def _half_log_determinant(R: Tensor) -> Tensor:
    """½ log |R| of correlations, or what is left of them given others, (..., q, q)."""
    if R.shape[-1] == 1:
        return 0.5 * R[..., 0, 0].clamp_min(_JITTER).log()
    return _factor(R).diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _factor(R: Tensor) -> Tensor:
    """A Cholesky factor of R (..., q, q), whose entries are at most 1, with as little jitter as do.

    Only groups of nearly the same points, observed almost without noise, need more than the least.
    """
    identity = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    with torch.no_grad():
        jitter = torch.full(R.shape[:-2], _JITTER, dtype=R.dtype, device=R.device)
        for more in (1e-6, float(R.shape[-1])):
            failed = torch.linalg.cholesky_ex(R + jitter[..., None, None] * identity).info > 0
            if not bool(failed.any()):
                break
            jitter = torch.where(failed, more, jitter)
    return torch.linalg.cholesky(R + jitter[..., None, None] * identity)


# --------------------------------------------------------------------------------------
# Samples of the maximum
# --------------------------------------------------------------------------------------


def sample_maxima(
    paths: Callable[[Tensor], Tensor],
    candidates: Tensor,
    *,
    free: Tensor | None = None,
    starts: int = 4,
    steps: int = 20,
) -> tuple[Tensor, Tensor]:
    """Where S sampled functions are largest, and how large.

    From the best few candidates of each function uphill: gradient steps, projected onto the unit
    cube, each twice as long as the last one after a gain and a quarter of it after none. So no
    maximum is lower than at the candidates, but it need not be the highest: more candidates and
    more starts find better ones. Include the trials so far, near which the functions are known.

    Args:
        paths: S functions: X (m, d), or (S, m, d) with points for each, to values (S, m);
            differentiable in X.
        candidates: Points of the unit cube, shape (m, d).
        free: Which columns may leave their candidates' values, shape (d,); False where these are
            levels of a discrete parameter. All by default.
        starts: How many candidates of each function to go uphill from.
        steps: How many steps uphill; 0 for the candidates themselves.

    Returns:
        x* of shape (S, d) and f* of shape (S,).
    """
    with torch.no_grad():
        f, best = paths(candidates).topk(min(starts, len(candidates)), -1)  # (S, k)
    X = candidates.detach()[best]  # (S, k, d)
    if steps > 0 and (free is None or bool(free.any())):
        mask = torch.ones_like(X[0, 0]) if free is None else free.to(X)
        X, f = _uphill(paths, X, f, mask, steps)
    f, which = f.max(-1)
    return X[torch.arange(len(X), device=X.device), which], f


def _uphill(
    paths: Callable[[Tensor], Tensor], X: Tensor, f: Tensor, mask: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Points X (S, k, d) and values (S, k), after so many steps in the columns of the mask."""

    def valued(X: Tensor) -> tuple[Tensor, Tensor]:
        X = X.detach().requires_grad_(True)
        with torch.enable_grad():
            value = paths(X)
            (gradient,) = torch.autograd.grad(value.sum(), X)
        return value.detach(), gradient * mask

    reach = torch.full_like(f, _REACH).unsqueeze(-1)
    gradient = valued(X)[1]
    for _ in range(steps):
        # Only what the walls let through sets the length of a step.
        held = ((X <= 0) & (gradient < 0)) | ((X >= 1) & (gradient > 0))
        way = gradient.masked_fill(held, 0.0)
        longest = way.abs().amax(-1, keepdim=True).clamp_min(_TINY)
        ahead = (X + reach * (way / longest)).clamp(0.0, 1.0)
        value, slope = valued(ahead)
        better = (value > f).unsqueeze(-1)
        X, gradient = torch.where(better, ahead, X), torch.where(better, slope, gradient)
        f = torch.maximum(f, value)
        reach = reach * torch.where(better, 2.0, 0.25)
    return X, f
