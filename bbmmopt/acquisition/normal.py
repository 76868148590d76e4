"""Functions of the normal distribution that keep their digits far out in the tails.

With t = |u|, all of them are made of φ(u) and of

    R(t) = Φ(-t)/φ(t), the Mills ratio,    H(t) = h(-t)/φ(t) = 1 - t R(t),    h(u) = φ(u) + u Φ(u)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
_ROOT_HALF, _ROOT_HALF_PI = math.sqrt(0.5), math.sqrt(math.pi / 2)

# Beyond t = 25 the series in 1/t² below is exact to 1e-16 with nine terms, while 1 - tR, which
# tends to 1/t², has lost three digits.
_FAR = 25.0
_SERIES_H = [(-1) ** k * math.prod(range(1, 2 * k + 2, 2)) for k in range(9)]  # (-1)^k (2k+1)!!
_SERIES_CDF = [(-1) ** k * math.prod(range(1, 2 * k, 2)) for k in range(9)]  # (-1)^k (2k-1)!!


def log_h(u: Tensor) -> tuple[Tensor, Tensor]:
    """log h(u) and its derivative Φ(u)/h(u), for h(u) = φ(u) + u Φ(u), elementwise.

    h is the expected improvement of N(u, 1) over 0. It falls like φ(u)/u², so its log is taken
    without ever forming it:

        u ≥ 0          log(u + φ (1 - tR)), derivative (1 - φR) / h
        -25 ≤ u < 0    log φ + log(1 - tR), derivative R / (1 - tR)
        u < -25        log φ - 2 log t + log S, derivative t Q/S, with
                       S = Σ (-1)^k (2k+1)!! / t^2k and Q = Σ (-1)^k (2k-1)!! / t^2k

    Source: Ament et al. (2023), https://arxiv.org/abs/2310.20708, eq. 9, with the asymptotic series
    of the Mills ratio (Abramowitz & Stegun 26.2.12) in place of their last branch.
    """
    t = u.abs().clamp_max_(_FAR)
    R = torch.special.erfcx(t * _ROOT_HALF).mul_(_ROOT_HALF_PI)
    rest = torch.addcmul(torch.ones_like(t), t, R, value=-1)
    log_phi = u.square().mul_(-0.5).sub_(LOG_ROOT_2PI)
    phi, negative = log_phi.exp(), u < 0
    # Either as a multiple of φ, where that falls, or as it is.
    h = torch.where(negative, rest, torch.addcmul(u, phi, rest))
    value = h.log().add_(log_phi.masked_fill(~negative, 0.0))
    slope = torch.where(negative, R, 1 - phi.mul_(R)).div_(h)
    far = u < -_FAR
    if may_hold(far):
        t = (-u).clamp_min(_FAR)
        x = t.reciprocal().square()
        S, Q = _polynomial(_SERIES_H, x), _polynomial(_SERIES_CDF, x)
        value = torch.where(far, log_phi - 2 * t.log() + S.log(), value)
        slope = torch.where(far, t * Q / S, slope)
    return value, slope


def may_hold(which: Tensor) -> bool:
    """Whether something is to be done about some elements, which might be none.

    On the CPU, whether there are any. Elsewhere always: to ask is to wait for the answer, which
    takes longer than doing it in vain.
    """
    return which.device.type != "cpu" or bool(which.any())


def log_cdf(u: Tensor) -> tuple[Tensor, Tensor]:
    """log Φ(u) and its derivative φ(u)/Φ(u), elementwise."""
    R = torch.special.erfcx(u.abs().mul_(_ROOT_HALF)).mul_(_ROOT_HALF_PI)
    log_phi = u.square().mul_(-0.5).sub_(LOG_ROOT_2PI)
    phi, negative = log_phi.exp(), u < 0
    beyond = phi * R  # Φ(-|u|)
    value = torch.where(negative, log_phi + R.log(), torch.log1p(-beyond))
    return value, torch.where(negative, R.reciprocal_(), phi.div_(1 - beyond))


def _polynomial(coefficients: list[int], x: Tensor) -> Tensor:
    """Σ c_k x^k by Horner's rule."""
    total = torch.full_like(x, float(coefficients[-1]))
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def mills(t: Tensor, fraction: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
    """R(t) = Φ(-t)/φ(t) and H(t) = h(-t)/φ(t) = 1 - t R(t), elementwise, for 0 ≤ t ≤ ∞.

    From K = 1/R - t by R = 1/(t + K) and H = K R, neither of which cancels. (1 + t) K is smooth in
    y = (t - 3)/(t + 3) from -1 to 1 and there is a polynomial; erfcx costs more than twice as much.

    Args:
        t: Any shape.
        fraction: The coefficients of that polynomial; QUICK for 2e-10 instead of 1e-14.
    """
    fraction = FULL if fraction is None else fraction
    y = (t + 3).reciprocal_().mul_(-6).add_(1)
    K = torch.full_like(t, fraction[-1])
    for coefficient in fraction[-2::-1]:
        K.mul_(y).add_(coefficient)
    K /= t + 1
    R = (t + K).reciprocal_()
    return R, K.mul_(R)


def _fraction(y: float) -> float:
    """(1 + t) K(t) of `mills` at t = 3 (1 + y)/(1 - y), slowly.

    For larger t by K = 1/(t + 2/(t + 3/(t + ...))): Abramowitz & Stegun 26.2.14.
    """
    t = 3 * (1 + y) / (1 - y)
    if t < 1.5:
        K = math.sqrt(2 / math.pi) * math.exp(-0.5 * t * t) / math.erfc(t * math.sqrt(0.5)) - t
    else:
        K = 0.0
        for n in range(400, 0, -1):
            K = n / (t + K)
    return (1 + t) * K


def _interpolation(degree: int) -> list[float]:
    """Of `_fraction` at Chebyshev's points; in powers of y the coefficients stay of order 1."""
    interpolated = chebyshev.chebinterpolate(np.vectorize(_fraction), degree)
    return chebyshev.cheb2poly(interpolated).tolist()


FULL = _interpolation(25)  # to 1e-14
QUICK = _interpolation(16)  # to 2e-10
