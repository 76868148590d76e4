"""Kernels of compact support: exactly 0 for points that are far apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from surrogate.kernels.stationary import COINCIDENT, Stationary


class PiecewisePolynomial(Stationary):
    """Wendland kernel: a polynomial of r for r < 1, exactly 0 beyond.

        k(x, x') = s² max(1 - r, 0)^(j + q) p_q(r),   j = ⌊dims / 2⌋ + q + 1
        p₀ = 1,   p₁ = 1 + (j + 1) r,   p₂ = 1 + (j + 2) r + (j² + 4j + 3)/3 r²,
        p₃ = 1 + (j + 3) r + (6j² + 36j + 45)/15 r² + (j³ + 9j² + 23j + 15)/15 r³

    Functions are q times differentiable. Positive definite for up to `dims` inputs, which is why
    the polynomial depends on them. Its ℓ is the whole reach of the kernel: some five times what is
    the lengthscale of another. It has no random features: no simple way to draw from its spectrum.

    Source: Rasmussen & Williams (2006), eq. 4.21.

    Args:
        dims: How many inputs the kernel sees, each with a lengthscale of its own.
        smoothness: q, 0 to 3.
        lengthscale: ℓ > 0, in the units of x: a number, or one per input, shape (dims,). Left out,
            it is √dims until a model moves it to where its priors start.
        variance: s² > 0, in the units of y squared. Left out, it is 1, as above.
        columns: Which columns of X the kernel looks at; all of them unless given.

    Raises:
        ValueError: If a parameter is not positive, `columns` does not match `dims`, or there is no
            such smoothness.
    """

    roles: ClassVar[dict[str, str]] = {"log_lengthscale": "support", "log_variance": "variance"}
    spread = 1.0
    profile = "piecewise"

    def __init__(
        self,
        dims: int,
        smoothness: int = 2,
        lengthscale: float | Sequence[float] | Tensor | None = None,
        variance: float | Tensor | None = None,
        *,
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__(dims, lengthscale, variance, columns=columns)
        if smoothness not in (0, 1, 2, 3):
            raise ValueError(f"smoothness must be 0, 1, 2 or 3; got {smoothness}.")
        self.smoothness = int(smoothness)
        self._j = dims // 2 + self.smoothness + 1

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, smoothness={self.smoothness}"

    def correlation(self, u2: Tensor) -> Tensor:
        # Capped, not 1 - r: far away, 0 times a polynomial that float32 cannot hold would be nan.
        r = u2.clamp_min(COINCIDENT).sqrt().clamp_max(1.0)
        polynomial = torch.ones_like(r)
        power = r
        for coefficient in self._coefficients(self.smoothness)[1:]:
            polynomial = polynomial + coefficient * power
            power = power * r
        return (1 - r).pow(self._j + self.smoothness) * polynomial

    def covariance(self, u2: Tensor, log_variance: float, out: Tensor, spare: Tensor) -> None:
        r = u2.sqrt_().clamp_max_(1.0)
        _horner(self._coefficients(self.smoothness), r, out)
        torch.sub(1.0, r, out=spare)
        out.mul_(spare)
        # One power less, for the slope.
        spare.pow_(self._j + self.smoothness - 1).mul_(math.exp(log_variance))
        out.mul_(spare)

    def weight(self, u2: Tensor, out: Tensor, spare: Tensor) -> Tensor:
        r, j, q = u2, self._j, self.smoothness
        if q == 0:
            # A cusp where points coincide, and for one input a corner at r = 1: slope 0 there.
            outside = (r < math.sqrt(COINCIDENT)) | (r >= 1.0)
            return spare.mul_(j).div_(r).masked_fill_(outside, 0.0)
        # -p_q'(r) (1 - r) + (j + q) p_q(r) = r p_{q-1}(r) (j + 2q - 1)(j + 2q) / (2q - 1)
        slope = (j + 2 * q - 1) * (j + 2 * q) / (2 * q - 1)
        _quadratic([slope * c for c in self._coefficients(q - 1)], r)
        return spare.mul_(r)

    def _shape(self) -> tuple[float, ...]:
        return self.smoothness, self._j

    def _coefficients(self, q: int) -> list[float]:
        """Of p_q, ascending, with j that of the kernel."""
        j = self._j
        return [
            [1.0],
            [1.0, j + 1.0],
            [1.0, j + 2.0, (j**2 + 4 * j + 3) / 3],
            [1.0, j + 3.0, (6 * j**2 + 36 * j + 45) / 15, (j**3 + 9 * j**2 + 23 * j + 15) / 15],
        ][q]


def _horner(coefficients: list[float], r: Tensor, out: Tensor) -> None:
    """Write the polynomial of r into `out`."""
    out.fill_(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        out.mul_(r).add_(coefficient)


def _quadratic(coefficients: list[float], r: Tensor) -> None:
    """Write c₀ + c₁ r + c₂ r² over r itself, where there is no memory left to write to."""
    constant, linear, square = [*coefficients, 0.0, 0.0][:3]
    if square:
        half = linear / (2 * square)
        r.add_(half).square_().mul_(square).add_(constant - square * half**2)
    else:
        r.mul_(linear).add_(constant)
