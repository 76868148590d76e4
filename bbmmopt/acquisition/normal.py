"""Functions of the normal distribution that keep their digits far out in the tails."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ROOT_HALF_PI = math.sqrt(math.pi / 2)
LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)

# Beyond t = 25 the series in 1/t² below is exact to 1e-16 with nine terms, while 1 - tR, which
# tends to 1/t², has lost three digits.
_FAR = 25.0
_SERIES_H = [(-1) ** k * math.prod(range(1, 2 * k + 2, 2)) for k in range(9)]  # (-1)^k (2k+1)!!
_SERIES_CDF = [(-1) ** k * math.prod(range(1, 2 * k, 2)) for k in range(9)]  # (-1)^k (2k-1)!!


def log_h(u: Tensor) -> tuple[Tensor, Tensor]:
    """log h(u) and its derivative Φ(u)/h(u), for h(u) = φ(u) + u Φ(u), elementwise.

    h is the expected improvement of N(u, 1) over 0. It falls like φ(u)/u², so its log is taken
    without ever forming it. With t = -u and the Mills ratio R = Φ(-t)/φ(t):

        u > -1         log h directly
        -25 ≤ u ≤ -1   log φ + log(1 - tR), derivative R / (1 - tR)
        u < -25        log φ - 2 log t + log S, derivative t Q/S, with
                       S = Σ (-1)^k (2k+1)!! / t^2k and Q = Σ (-1)^k (2k-1)!! / t^2k

    Source: Ament et al. (2023), https://arxiv.org/abs/2310.20708, eq. 9, with the asymptotic series
    of the Mills ratio (Abramowitz & Stegun 26.2.12) in place of their last branch.
    """
    # Each branch sees only inputs it can handle.
    near = u.clamp_min(-1.0)
    cdf = torch.special.ndtr(near)
    h = torch.exp(-0.5 * near.square() - LOG_ROOT_2PI) + near * cdf
    value, slope = h.log(), cdf / h
    if bool((u < -1.0).any()):
        t = (-u).clamp(1.0, _FAR)
        R = _ROOT_HALF_PI * torch.special.erfcx(t * math.sqrt(0.5))
        rest = 1 - t * R
        log_phi = -0.5 * u.square() - LOG_ROOT_2PI
        tail = u < -1.0
        value = torch.where(tail, log_phi + rest.log(), value)
        slope = torch.where(tail, R / rest, slope)
        far = u < -_FAR
        if bool(far.any()):
            t = (-u).clamp_min(_FAR)
            x = t.reciprocal().square()
            S, Q = _polynomial(_SERIES_H, x), _polynomial(_SERIES_CDF, x)
            value = torch.where(far, log_phi - 2 * t.log() + S.log(), value)
            slope = torch.where(far, t * Q / S, slope)
    return value, slope


def log_cdf(u: Tensor) -> tuple[Tensor, Tensor]:
    """log Φ(u) and its derivative φ(u)/Φ(u), elementwise."""
    value = torch.special.log_ndtr(u)
    # φ/Φ: by the scaled erfc below 0, where both underflow; directly above.
    below = 1 / (_ROOT_HALF_PI * torch.special.erfcx(-u.clamp_max(0.0) * math.sqrt(0.5)))
    above = torch.exp(-0.5 * u.square() - LOG_ROOT_2PI) / torch.special.ndtr(u.clamp_min(0.0))
    return value, torch.where(u < 0, below, above)


def _polynomial(coefficients: list[int], x: Tensor) -> Tensor:
    """Σ c_k x^k by Horner's rule."""
    total = torch.full_like(x, float(coefficients[-1]))
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total
