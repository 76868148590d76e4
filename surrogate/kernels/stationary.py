"""Kernels of the scaled distance r = ‖(x - x') / ℓ‖, with one lengthscale ℓ per input (ARD).

Each is a correlation ρ(r²) and its slope dρ/d(r²); everything else is shared.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from surrogate.kernels.base import (
    Features,
    Kernel,
    Linearised,
    detached,
    lengthscale_parameter,
    positive_parameter,
)
from surrogate.workspace import Workspace

# Below this r², points count as coincident: √r² has no gradient at 0, and autograd would give nan.
_COINCIDENT = 1e-30


class Stationary(Kernel):
    """k(x, x') = s² ρ(‖(x - x') / ℓ‖²).

    Args:
        dims: How many inputs the kernel sees, each with a lengthscale of its own.
        lengthscale: ℓ > 0, in the units of x: a number, or one per input, shape (dims,). Left out,
            it is √dims / 5, which keeps typical correlations alike as inputs are added, until a
            model moves it to where its priors start.
        variance: s² > 0, in the units of y squared. Left out, it is 1, as above.
        columns: Which columns of X the kernel looks at; all of them unless given.

    Raises:
        ValueError: If a parameter is not positive or `columns` does not match `dims`.
    """

    roles: ClassVar[dict[str, str]] = {
        "log_lengthscale": "lengthscale",
        "log_variance": "variance",
    }

    def __init__(
        self,
        dims: int,
        lengthscale: float | Sequence[float] | Tensor | None = None,
        variance: float | Tensor | None = None,
        *,
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        given = {"log_lengthscale": lengthscale, "log_variance": variance}
        self.unset = frozenset(name for name, value in given.items() if value is None)
        if lengthscale is None:
            lengthscale = math.sqrt(max(dims, 1)) / 5
        self.log_lengthscale = lengthscale_parameter(dims, lengthscale, columns)
        self.dims = dims
        self.columns = None if columns is None else tuple(columns)
        self.log_variance = positive_parameter("variance", 1.0 if variance is None else variance)

    def extra_repr(self) -> str:
        return f"dims={self.dims}" + (f", columns={self.columns}" if self.columns else "")

    @staticmethod
    @abstractmethod
    def correlation(r2: Tensor) -> Tensor:
        """ρ as a function of r², elementwise; differentiable, also at r² = 0."""

    @staticmethod
    @abstractmethod
    def correlation_and_slope(r2: Tensor, rho: Tensor, slope: Tensor) -> None:
        """Write ρ and dρ/d(r²) into two tensors of the shape of r²; r² may be overwritten."""

    @staticmethod
    @abstractmethod
    def frequencies(count: int, dims: int, generator: torch.Generator) -> Tensor:
        """Draw from the spectral density of ρ at ℓ = 1: shape (dims, count)."""

    @property
    def lengthscale(self) -> Tensor:
        """ℓ, in the units of x, shape (dims,)."""
        return self.log_lengthscale.exp()

    @property
    def variance(self) -> Tensor:
        """s², in the units of y squared, shape ()."""
        return self.log_variance.exp()

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        same = X1 is X2
        Z1, Z2 = self._scaled(X1, X2, self.log_lengthscale)
        r2 = (
            Z1.square().sum(-1, keepdim=True)
            + Z2.square().sum(-1).unsqueeze(-2)
            - 2 * Z1 @ Z2.transpose(-1, -2)
        )  # (..., n, m)
        r2 = r2.clamp_min(0.0)
        if same:
            # Rounding leaves about 1e-16 here, which a Matérn-1/2 would turn into 1e-8.
            r2 = r2 * (1 - torch.eye(r2.shape[-1], dtype=r2.dtype, device=r2.device))
        return self.variance * self.correlation(r2)

    def diagonal(self, X: Tensor) -> Tensor:
        return self.variance.expand(X.shape[:-1])

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedStationary(self, *detached(X1, X2), workspace or Workspace())

    def features(self, count: int, generator: torch.Generator) -> Features:
        """√(2 s² / F) cos(ωᵀx + b): Rahimi & Recht (2007), with ω from the spectral density."""
        omega = self.frequencies(count, self.dims, generator)
        omega = omega / self.lengthscale.detach().unsqueeze(-1)  # (dims, F)
        phase = 2 * math.pi * torch.rand(count, generator=generator, dtype=omega.dtype)
        scale = (2 * self.variance.detach() / count).sqrt()
        return lambda X: scale * torch.cos(self._seen(X) @ omega + phase)

    def _seen(self, X: Tensor) -> Tensor:
        return X if self.columns is None else X[..., self.columns]

    def _scaled(self, X1: Tensor, X2: Tensor, log_lengthscale: Tensor) -> tuple[Tensor, Tensor]:
        """Both inputs centred and divided by ℓ.

        Centred, because ‖z‖² + ‖z'‖² - 2 zᵀz' cancels badly far from the origin.
        """
        Z1, Z2 = self._seen(X1), self._seen(X2)
        if Z2.shape[-2]:
            centre = Z2.detach().mean(-2, keepdim=True)
            inverse = torch.exp(-log_lengthscale)
            Z2 = (Z2 - centre) * inverse
            Z1 = Z2 if X1 is X2 else (Z1 - centre) * inverse
        return Z1, Z2


class _LinearisedStationary(Linearised):
    """K and H-weighted sums of squared differences, each by two matrix products."""

    def __init__(self, kernel: Stationary, X1: Tensor, X2: Tensor, workspace: Workspace) -> None:
        self._kernel, self._width = kernel, X1.shape[-1]
        log_lengthscale = kernel.log_lengthscale.detach()
        self._Z1, self._Z2 = kernel._scaled(X1, X2, log_lengthscale)
        n, m = len(X1), len(X2)
        r2 = workspace.buffer("r2", n, m)
        self.K = workspace.buffer("K", n, m)
        self._slope = workspace.buffer("slope", n, m)
        q1 = self._Z1.square().sum(-1)  # (n,)
        q2 = q1 if X1 is X2 else self._Z2.square().sum(-1)
        torch.add(q1.unsqueeze(-1), q2, out=r2)
        r2.addmm_(self._Z1, self._Z2.T, alpha=-2.0).clamp_min_(0.0)
        if X1 is X2:
            r2.fill_diagonal_(0.0)
        kernel.correlation_and_slope(r2, self.K, self._slope)
        variance = float(kernel.log_variance.detach().exp())
        if variance != 1.0:
            self.K.mul_(variance)
            self._slope.mul_(variance)

    def parameters(self, G: Tensor) -> tuple[Tensor, Tensor]:
        Z1, Z2 = self._Z1, self._Z2
        H = G * self._slope  # ∂loss/∂(r²), (n, m)
        # Σ_ij H_ij (z_ik - z'_jk)², whose factor -2 comes from dr²/d log ℓ.
        moments = H.sum(1) @ Z1.square() + H.sum(0) @ Z2.square()
        moments = moments - 2 * (Z1 * (H @ Z2)).sum(0)  # (dims,)
        return -2 * moments, torch.dot(G.reshape(-1), self.K.reshape(-1))

    def inputs(self, G: Tensor) -> Tensor:
        H = G * self._slope
        gradient = H.sum(1, keepdim=True) * self._Z1 - H @ self._Z2
        gradient = gradient * (2 * torch.exp(-self._kernel.log_lengthscale.detach()))
        if self._kernel.columns is None:
            return gradient
        full = gradient.new_zeros(len(gradient), self._width)
        full[:, self._kernel.columns] = gradient
        return full


class RBF(Stationary):
    """Squared exponential kernel, for functions that are smooth without end.

        k(x, x') = s² exp(-r²/2)

    Source: Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, eq. 4.9.
    """

    @staticmethod
    def correlation(r2: Tensor) -> Tensor:
        return torch.exp(-r2 / 2)

    @staticmethod
    def correlation_and_slope(r2: Tensor, rho: Tensor, slope: Tensor) -> None:
        torch.exp(r2.mul_(-0.5), out=rho)
        torch.mul(rho, -0.5, out=slope)

    @staticmethod
    def frequencies(count: int, dims: int, generator: torch.Generator) -> Tensor:
        return torch.randn(dims, count, generator=generator, dtype=torch.float64)


class Matern12(Stationary):
    """Matérn-1/2 (exponential) kernel, for functions that are continuous but rough.

        k(x, x') = s² exp(-r)

    Source: Rasmussen & Williams (2006), eq. 4.18 with γ = 1.
    """

    @staticmethod
    def correlation(r2: Tensor) -> Tensor:
        return torch.exp(-r2.clamp_min(_COINCIDENT).sqrt())

    @staticmethod
    def correlation_and_slope(r2: Tensor, rho: Tensor, slope: Tensor) -> None:
        r = r2.sqrt_()
        torch.exp(-r, out=rho)
        torch.div(rho, r, out=slope).mul_(-0.5)
        # The kernel has a cusp where points coincide: the slope taken there is 0, as in autograd.
        slope.masked_fill_(r < math.sqrt(_COINCIDENT), 0.0)

    @staticmethod
    def frequencies(count: int, dims: int, generator: torch.Generator) -> Tensor:
        return _student_t(1.0, count, dims, generator)


class Matern32(Stationary):
    """Matérn-3/2 kernel, for functions that are once differentiable.

        k(x, x') = s² (1 + √3 r) exp(-√3 r)

    Source: Rasmussen & Williams (2006), eq. 4.17.
    """

    @staticmethod
    def correlation(r2: Tensor) -> Tensor:
        z = (3 * r2).clamp_min(_COINCIDENT).sqrt()
        return (1 + z) * torch.exp(-z)

    @staticmethod
    def correlation_and_slope(r2: Tensor, rho: Tensor, slope: Tensor) -> None:
        z = r2.mul_(3.0).sqrt_()
        torch.exp(-z, out=slope)
        torch.addcmul(slope, z, slope, out=rho)
        slope.mul_(-1.5)

    @staticmethod
    def frequencies(count: int, dims: int, generator: torch.Generator) -> Tensor:
        return _student_t(3.0, count, dims, generator)


class Matern52(Stationary):
    """Matérn-5/2 kernel, for functions that are twice differentiable.

        k(x, x') = s² (1 + √5 r + 5 r²/3) exp(-√5 r)

    Source: Rasmussen & Williams (2006), eq. 4.17.
    """

    @staticmethod
    def correlation(r2: Tensor) -> Tensor:
        z = (5 * r2).clamp_min(_COINCIDENT).sqrt()
        return (1 + z + z.square() / 3) * torch.exp(-z)

    @staticmethod
    def correlation_and_slope(r2: Tensor, rho: Tensor, slope: Tensor) -> None:
        z = r2.mul_(5.0).sqrt_()
        e = torch.exp(-z)
        torch.addcmul(e, z, e, out=slope)  # (1 + z) e^-z
        # ρ = (1 + z) e^-z + z² e^-z / 3
        torch.addcmul(slope, z.mul_(z), e, value=1 / 3, out=rho)
        slope.mul_(-5 / 6)

    @staticmethod
    def frequencies(count: int, dims: int, generator: torch.Generator) -> Tensor:
        return _student_t(5.0, count, dims, generator)


def _student_t(df: float, count: int, dims: int, generator: torch.Generator) -> Tensor:
    """Draw ω ~ multivariate t with `df` = 2ν degrees of freedom, the spectrum of a Matérn-ν kernel.

    Source: Rasmussen & Williams (2006), eq. 4.15.
    """
    normal = torch.randn(dims, count, generator=generator, dtype=torch.float64)
    # χ² of an odd number of degrees of freedom as a sum of squares: torch's gamma draws take no
    # generator.
    squares = torch.randn(int(df), count, generator=generator, dtype=torch.float64).square()
    return normal * (df / squares.sum(0)).sqrt()
