"""Mixtures of squared exponential kernels: over lengthscales, and over frequencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from scipy import special
from torch import Tensor, nn

from surrogate.kernels.base import (
    Features,
    Kernel,
    checked_columns,
    fourier_features,
    number_parameter,
    positive_parameter,
    seen,
)
from surrogate.kernels.distances import centred, squared_distances
from surrogate.kernels.stationary import Stationary
from surrogate.transfers import beside
from surrogate.workspace import Workspace


class RationalQuadratic(Stationary):
    """Squared exponential kernels of many lengthscales at once: for functions that vary at each.

        k(x, x') = s² (1 + r²/(2α))^(-α)

    A small α mixes very different lengthscales; α → ∞ is `RBF`.

    Source: Rasmussen & Williams (2006), eq. 4.19.

    Args:
        dims: How many inputs the kernel sees, each with a lengthscale of its own.
        lengthscale: ℓ > 0, in the units of x: a number, or one per input, shape (dims,). Left out,
            it is √dims / 5 until a model moves it to where its priors start.
        variance: s² > 0, in the units of y squared. Left out, it is 1, as above.
        alpha: α > 0, without unit. Left out, it is 1, as above.
        columns: Which columns of X the kernel looks at; all of them unless given.

    Raises:
        ValueError: If a parameter is not positive or `columns` does not match `dims`.
    """

    roles: ClassVar[dict[str, str]] = {**Stationary.roles, "log_alpha": "shape"}
    profile = "rational_quadratic"

    def __init__(
        self,
        dims: int,
        lengthscale: float | Sequence[float] | Tensor | None = None,
        variance: float | Tensor | None = None,
        alpha: float | Tensor | None = None,
        *,
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__(dims, lengthscale, variance, columns=columns)
        if alpha is None:
            alpha, self.unset = 1.0, self.unset | {"log_alpha"}
        self.log_alpha = number_parameter("alpha", alpha)

    @property
    def alpha(self) -> Tensor:
        """α, without unit, shape ()."""
        return self.log_alpha.exp()

    def correlation(self, u2: Tensor) -> Tensor:
        return torch.exp(-self.alpha * torch.log1p(u2 / (2 * self.alpha)))

    def covariance(self, u2: Tensor, log_variance: float, out: Tensor, spare: Tensor) -> None:
        alpha = self._alpha()
        t = u2.mul_(0.5 / alpha)
        torch.log1p(t, out=out)
        torch.sub(log_variance, out, alpha=alpha, out=out).exp_()

    def weight(self, u2: Tensor, out: Tensor, spare: Tensor) -> Tensor:
        return torch.div(out, torch.add(u2, 1.0, out=spare), out=spare)  # k / (1 + t)

    def slopes(
        self, u2: Tensor, K: Tensor, weight: Tensor, workspace: Workspace
    ) -> tuple[Tensor, ...]:
        # ∂k/∂log α = α (t k / (1 + t) - k log(1 + t)). Both are near t k for a large α: rounding is
        # relative to t there, so that α times it is still small.
        by_alpha = torch.log1p(u2, out=workspace.buffer("slope", *u2.shape))
        by_alpha.mul_(K).neg_().addcmul_(u2, weight).mul_(self._alpha())
        return (by_alpha,)

    def frequencies(self, count: int, generator: torch.Generator) -> Tensor:
        """Those of an RBF whose 1/ℓ² is Gamma(α) with mean 1: Rasmussen & Williams, eq. 4.20."""
        alpha = self._alpha()
        normal = torch.randn(self.dims, count, generator=generator, dtype=torch.float64)
        # By the quantile function: torch's gamma draws take no generator.
        level = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
        precision = torch.from_numpy(special.gammaincinv(alpha, level)) / alpha
        return normal * precision.sqrt()

    def _shape(self) -> tuple[float, ...]:
        return (self._alpha(),)

    def _alpha(self) -> float:
        return float(self.log_alpha.detach().exp())


class SpectralMixture(Kernel):
    """Sum of waves of chosen frequencies, for patterns that repeat and are to be continued.

        k(x, x') = Σ_q w_q Π_j exp(-2π² τ_j² v_qj) cos(2π τ_j μ_qj),   τ = x - x',   v = bandwidth²

    Its spectral density is a mixture of Gaussians at μ_q and at its mirror images, input by input,
    with standard deviations of a bandwidth: so it approaches any stationary kernel that is even in
    each input.

    Left out, parameters stand where the components differ, for a fit never parts components that
    started alike: weights 1/components; bandwidths 1/(π √dims), which is a lengthscale of √dims/2;
    frequencies 2/√dims times the half-normal quantiles of the points of a Sobol sequence, or of
    random ones where a generator is given. For inputs that are not in the unit cube, give them.

    Source: Wilson & Adams (2013), https://arxiv.org/abs/1302.4245.

    Args:
        dims: How many inputs the kernel sees.
        components: Q, how many waves.
        columns: Which columns of X the kernel looks at; all of them unless given.
        weights: w > 0, in the units of y squared: a number, or one per component, shape (Q,).
        frequencies: μ > 0, in periods per unit of x: a number, one per component, shape (Q,), or
            one per component and input, shape (Q, dims).
        bandwidths: √v > 0, in the units and shapes of the frequencies.
        generator: Draws frequencies that are not given: another start of a fit.

    Raises:
        ValueError: If a parameter is not positive or of another shape, `columns` does not match
            `dims`, or there is no component.
    """

    roles: ClassVar[dict[str, str]] = {
        "log_weights": "component_weight",
        "log_frequencies": "frequency",
        "log_bandwidths": "bandwidth",
    }

    def __init__(
        self,
        dims: int,
        components: int,
        *,
        columns: Sequence[int] | None = None,
        weights: float | Sequence[float] | Tensor | None = None,
        frequencies: float | Sequence[float] | Sequence[Sequence[float]] | Tensor | None = None,
        bandwidths: float | Sequence[float] | Sequence[Sequence[float]] | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"components must be at least 1; got {components}.")
        self.dims, self.columns = dims, checked_columns(dims, columns)
        self.components = components
        given = {
            "log_weights": weights,
            "log_frequencies": frequencies,
            "log_bandwidths": bandwidths,
        }
        self.unset = frozenset(name for name, value in given.items() if value is None)
        if weights is None:
            weights = 1 / components
        if frequencies is None:
            frequencies = 2 / math.sqrt(dims) * _half_normal(components, dims, generator)
        if bandwidths is None:
            bandwidths = 1 / (math.pi * math.sqrt(dims))
        self.log_weights = _stored("weights", weights, components)
        self.log_frequencies = _stored("frequencies", frequencies, components, dims)
        self.log_bandwidths = _stored("bandwidths", bandwidths, components, dims)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.components}"

    @property
    def weights(self) -> Tensor:
        """w, in the units of y squared, shape (components,)."""
        return self.log_weights.exp()

    @property
    def frequencies(self) -> Tensor:
        """μ, in periods per unit of x, shape (components, dims)."""
        return self.log_frequencies.exp()

    @property
    def bandwidths(self) -> Tensor:
        """√v, in periods per unit of x, shape (components, dims)."""
        return self.log_bandwidths.exp()

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        turn = X2.new_full((self.dims,), 2 * math.pi)
        A1, A2 = centred(*seen(X1, X2, self.columns), turn)
        each = (self.weights, self.frequencies, self.bandwidths)
        parts = zip(*(beside(values, X2) for values in each), strict=True)
        waves = [w * _wave(A1, A2, mu, bandwidth) for w, mu, bandwidth in parts]
        K = waves[0]
        for wave in waves[1:]:
            K = K + wave
        return K

    def diagonal(self, X: Tensor) -> Tensor:
        return beside(self.weights.sum(), X).expand(X.shape[:-1])

    def coordinates(self, X: Tensor) -> Tensor:
        """X times the root mean square of its angular frequencies: what tells near points apart."""
        weights = self.weights.detach()
        squares = self.frequencies.detach().square() + self.bandwidths.detach().square()
        mean = (weights / weights.sum()) @ squares  # (dims,)
        return seen(X, X, self.columns)[0] * beside(2 * math.pi * mean.sqrt(), X)

    def features(self, count: int, generator: torch.Generator) -> Features:
        """√(2 Σw / F) cos(ωᵀx + b), ω from the spectral density: Rahimi & Recht (2007)."""
        levels = self.weights.detach().cumsum(0)
        level = torch.rand(count, generator=generator, dtype=torch.float64) * levels[-1]
        which = torch.searchsorted(levels, level).clamp_max(self.components - 1)
        normal = torch.randn(count, self.dims, generator=generator, dtype=torch.float64)
        mirrored = torch.rand(count, self.dims, generator=generator, dtype=torch.float64) < 0.5
        mu, bandwidth = self.frequencies.detach()[which], self.bandwidths.detach()[which]
        omega = 2 * math.pi * (torch.where(mirrored, -mu, mu) + bandwidth * normal)
        return fourier_features(omega.T, levels[-1], self.columns, generator)


def _wave(A1: Tensor, A2: Tensor, mu: Tensor, bandwidth: Tensor) -> Tensor:
    """Π_j exp(-(a_j b_j)²/2) cos(a_j μ_j), a = 2π (x - x') from rows of A1 and A2: (..., n, m)."""
    same = A1 is A2
    U2, W2 = A2 * bandwidth, A2 * mu
    U1, W1 = (U2, W2) if same else (A1 * bandwidth, A1 * mu)
    wave = torch.exp(-squared_distances(U1, U2) / 2)
    # cos(a - a') = cos a cos a' + sin a sin a': trigonometry for each row, and not for each entry.
    # (..., n, 1) and (..., 1, m), for each input
    for a1, a2 in zip(W1.unsqueeze(-2).unbind(-1), W2.unsqueeze(-3).unbind(-1), strict=True):
        wave = wave * (a1.cos() * a2.cos() + a1.sin() * a2.sin())
    return wave


def _stored(name: str, value: object, components: int, dims: int | None = None) -> nn.Parameter:
    """The logarithm of a value for each component, shape (Q,), or for each input too, (Q, dims)."""
    value = torch.as_tensor(value, dtype=torch.float64)
    shape = (components,) if dims is None else (components, dims)
    if value.shape not in ((), (components,), shape):
        raise ValueError(
            f"{name} must be one number, or of shape "
            f"{' or '.join(map(str, dict.fromkeys([(components,), shape])))}; "
            f"got shape {tuple(value.shape)}."
        )
    if dims is not None and value.ndim == 1:
        value = value.unsqueeze(-1)
    return positive_parameter(name, value.expand(shape).contiguous())


def _half_normal(components: int, dims: int, generator: torch.Generator | None) -> Tensor:
    """Quantiles of |N(0, 1)| at points spread over the unit cube, shape (components, dims)."""
    if generator is None:
        # Without the first point, which is the origin.
        sobol = torch.quasirandom.SobolEngine(dims)
        levels = sobol.draw(components + 1, dtype=torch.float64)[1:]
    else:
        levels = torch.rand(components, dims, generator=generator, dtype=torch.float64)
    return math.sqrt(2) * torch.erfinv(levels.clamp(1e-6, 1 - 1e-6))
