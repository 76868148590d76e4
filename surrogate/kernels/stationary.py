"""Kernels of the scaled distance r = ‖(x - x') / ℓ‖, with one lengthscale ℓ per input (ARD).

Each is a correlation ρ as a function of u² = c r², c a constant that makes its formula short, and
its slope in u²; everything else is shared.
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
    among_all,
    centre,
    checked_columns,
    detached,
    fourier_features,
    no_features,
    number_parameter,
    per_input_parameter,
    seen,
)
from surrogate.kernels.distances import (
    centred,
    squared_distances,
    squared_distances_into,
    weighted_differences,
    weighted_squares,
)
from surrogate.tiles.formula import Formula, Radial
from surrogate.transfers import beside
from surrogate.workspace import Workspace

# Below this u², points count as coincident: √u² has no gradient at 0, and autograd would give nan.
COINCIDENT = 1e-30
# Above this u², correlations are 0. What float32 cannot hold must not come to inf · 0.
_FAR = 1e30


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
    sharpness: ClassVar[float] = 1.0
    """c: ρ is a function of u² = c r²."""
    spread: ClassVar[float] = 5.0
    """√dims / ℓ where no lengthscale is given."""
    profile: ClassVar[str | None] = None
    """ρ by the name that fused kernels know it by; it is not inherited, for ρ may be another."""

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
        self.dims, self.columns = dims, checked_columns(dims, columns)
        if lengthscale is None:
            lengthscale = math.sqrt(dims) / self.spread
        self.log_lengthscale = per_input_parameter("lengthscale", dims, lengthscale)
        self.log_variance = number_parameter("variance", 1.0 if variance is None else variance)

    @abstractmethod
    def correlation(self, u2: Tensor) -> Tensor:
        """ρ as a function of u², elementwise; differentiable, also at u² = 0."""

    @abstractmethod
    def covariance(self, u2: Tensor, log_variance: float, out: Tensor, spare: Tensor) -> None:
        """Write s²ρ into `out`; what is left in u² and `spare` is for `weight`.

        Each pass over the entries costs a seventh of an exp: s² comes as its logarithm, to be added
        where the exponent is negated anyway.
        """

    @abstractmethod
    def weight(self, u2: Tensor, out: Tensor, spare: Tensor) -> Tensor:
        """Return -2 s² dρ/d(u²) in the memory of `out` or `spare`, as `covariance` left them."""

    def slopes(
        self, u2: Tensor, K: Tensor, weight: Tensor, workspace: Workspace
    ) -> tuple[Tensor, ...]:
        """∂k/∂log θ, shape (n, m), for each parameter θ after ℓ and s²; u² as `weight` left it."""
        return ()

    def frequencies(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw from the spectral density of ρ at ℓ = 1: shape (dims, count).

        Raises:
            TypeError: If there is no simple way to.
        """
        raise no_features(self)

    @property
    def lengthscale(self) -> Tensor:
        """ℓ, in the units of x, shape (dims,)."""
        return self.log_lengthscale.exp()

    @property
    def variance(self) -> Tensor:
        """s², in the units of y squared, shape ()."""
        return self.log_variance.exp()

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        u2 = squared_distances(*self._scaled(X1, X2, self._inverse(self.log_lengthscale)))
        return self.variance * self.correlation(u2)

    def diagonal(self, X: Tensor) -> Tensor:
        return beside(self.variance, X).expand(X.shape[:-1])

    def coordinates(self, X: Tensor) -> Tensor:
        """X / ℓ."""
        inverse = beside(torch.exp(-self.log_lengthscale.detach()), X)
        return seen(X, X, self.columns)[0] * inverse

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedStationary(self, *detached(X1, X2), workspace or Workspace(X1.device))

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        workspace, shape = workspace or Workspace(X1.device), (len(X1), len(X2))
        inverse = self._inverse(self.log_lengthscale.detach())
        U1, U2 = self._scaled(*detached(X1, X2), inverse)
        u2 = workspace.buffer("u2", *shape)
        squared_distances_into(U1, U2, U1.square(), U2.square(), u2)
        spare = workspace.buffer("spare", *shape, dtype=out.dtype)
        log_variance = self.log_variance.detach()
        if out.dtype == u2.dtype:
            self.covariance(u2.clamp_min_(0.0), float(log_variance), out, spare)
            return out
        # What cancels has done so, the rest may be rounded: each entry to about 3e-8 s². Not with
        # log s² in the exponent, where its rounding would be the same in all of them.
        narrow = workspace.buffer("narrow", *shape, dtype=out.dtype).copy_(u2)
        self.covariance(narrow.clamp_(0.0, _FAR), 0.0, out, spare)
        return out.mul_(float(log_variance.exp()))

    def features(self, count: int, generator: torch.Generator) -> Features:
        """√(2 s² / F) cos(ωᵀx + b): Rahimi & Recht (2007), with ω from the spectral density."""
        omega = self.frequencies(count, generator)
        omega = omega / self.lengthscale.detach().unsqueeze(-1)  # (dims, F)
        return fourier_features(omega, self.variance.detach(), self.columns, generator)

    def formula(self) -> Formula | None:
        profile = vars(type(self)).get("profile")
        if profile is None:
            return None
        inverse, columns = self._inverse(self.log_lengthscale.detach()), self.columns
        radial = Radial(
            profile,
            points=lambda X: seen(X, X, columns)[0] * beside(inverse, X),
            # du_k/d log ℓ_k is -u_k.
            pullback=lambda X, U, G: {0: -(U * G).sum(0)},
            inputs=lambda X, G: among_all(G * beside(inverse, G), columns, X.shape[1]),
            width=self.dims,
            shape=self._shape(),
            by_shape=2 if profile == "rational_quadratic" else None,
            origin=lambda X: centre(X, columns),
        )
        return Formula.of(radial, scale=float(self.variance.detach()), scales=(1,))

    def _shape(self) -> tuple[float, ...]:
        """What ρ depends on besides u², as numbers."""
        return ()

    def _inverse(self, log_lengthscale: Tensor) -> Tensor:
        """√c / ℓ, shape (dims,)."""
        return torch.exp(0.5 * math.log(self.sharpness) - log_lengthscale)

    def _scaled(self, X1: Tensor, X2: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """Both inputs centred and times `inverse`: u = √c z."""
        return centred(*seen(X1, X2, self.columns), beside(inverse, X2))


class _LinearisedStationary(Linearised):
    """K, and sums of squared differences weighted by H = -2 ∂loss/∂(u²), by matrix products."""

    def __init__(self, kernel: Stationary, X1: Tensor, X2: Tensor, workspace: Workspace) -> None:
        self._kernel, self._width = kernel, X1.shape[-1]
        self._inverse = beside(kernel._inverse(kernel.log_lengthscale.detach()), X1)
        self._U1, self._U2 = kernel._scaled(X1, X2, self._inverse)
        self._S1 = self._U1.square()
        self._S2 = self._S1 if X1 is X2 else self._U2.square()
        shape = len(X1), len(X2)
        u2, spare = workspace.buffer("u2", *shape), workspace.buffer("spare", *shape)
        self.K = workspace.buffer("K", *shape)
        squared_distances_into(self._U1, self._U2, self._S1, self._S2, u2)
        u2.clamp_min_(0.0)
        kernel.covariance(u2, float(kernel.log_variance.detach()), self.K, spare)
        self._weight = kernel.weight(u2, self.K, spare)
        self._slopes = kernel.slopes(u2, self.K, self._weight, workspace)
        self._scratch = u2

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        H = torch.mul(G, self._weight, out=self._scratch)
        # du_k²/d log ℓ_k is -2 u_k².
        by_lengthscale = weighted_squares(H, self._U1, self._U2, self._S1, self._S2)
        G = G.reshape(-1)
        others = [torch.dot(G, slope.view(-1)) for slope in (self.K, *self._slopes)]
        return by_lengthscale, *others

    def inputs(self, G: Tensor) -> Tensor:
        H = torch.mul(G, self._weight, out=self._scratch)
        gradient = weighted_differences(H, self._U1, self._U2).mul_(self._inverse)
        return among_all(gradient, self._kernel.columns, self._width)


class RBF(Stationary):
    """Squared exponential kernel, for functions that are smooth without end.

        k(x, x') = s² exp(-r²/2)

    Source: Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, eq. 4.9.
    """

    profile = "rbf"

    def correlation(self, u2: Tensor) -> Tensor:
        return torch.exp(-u2 / 2)

    def covariance(self, u2: Tensor, log_variance: float, out: Tensor, spare: Tensor) -> None:
        torch.sub(log_variance, u2, alpha=0.5, out=out).exp_()

    def weight(self, u2: Tensor, out: Tensor, spare: Tensor) -> Tensor:
        return out

    def frequencies(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(self.dims, count, generator=generator, dtype=torch.float64)


class Matern12(Stationary):
    """Matérn-1/2 (exponential) kernel, for functions that are continuous but rough.

        k(x, x') = s² exp(-r)

    Source: Rasmussen & Williams (2006), eq. 4.18 with γ = 1.
    """

    profile = "matern12"

    def correlation(self, u2: Tensor) -> Tensor:
        return torch.exp(-u2.clamp_min(COINCIDENT).sqrt())

    def covariance(self, u2: Tensor, log_variance: float, out: Tensor, spare: Tensor) -> None:
        torch.sub(log_variance, u2.sqrt_(), out=out).exp_()

    def weight(self, u2: Tensor, out: Tensor, spare: Tensor) -> Tensor:
        u = u2
        # The kernel has a cusp where points coincide: the slope taken there is 0, as in autograd.
        return torch.div(out, u, out=spare).masked_fill_(u < math.sqrt(COINCIDENT), 0.0)

    def frequencies(self, count: int, generator: torch.Generator) -> Tensor:
        return _student_t(1.0, count, self.dims, generator)


class Matern32(Stationary):
    """Matérn-3/2 kernel, for functions that are once differentiable.

        k(x, x') = s² (1 + √3 r) exp(-√3 r)

    Source: Rasmussen & Williams (2006), eq. 4.17.
    """

    profile = "matern32"
    sharpness = 3.0

    def correlation(self, u2: Tensor) -> Tensor:
        u = u2.clamp_min(COINCIDENT).sqrt()
        return (1 + u) * torch.exp(-u)

    def covariance(self, u2: Tensor, log_variance: float, out: Tensor, spare: Tensor) -> None:
        u = u2.sqrt_()
        torch.sub(log_variance, u, out=spare).exp_()
        torch.addcmul(spare, u, spare, out=out)  # (1 + u) e^-u

    def weight(self, u2: Tensor, out: Tensor, spare: Tensor) -> Tensor:
        return spare  # e^-u

    def frequencies(self, count: int, generator: torch.Generator) -> Tensor:
        return _student_t(3.0, count, self.dims, generator)


class Matern52(Stationary):
    """Matérn-5/2 kernel, for functions that are twice differentiable.

        k(x, x') = s² (1 + √5 r + 5 r²/3) exp(-√5 r)

    Source: Rasmussen & Williams (2006), eq. 4.17.
    """

    profile = "matern52"
    sharpness = 5.0

    def correlation(self, u2: Tensor) -> Tensor:
        u = u2.clamp_min(COINCIDENT).sqrt()
        return (1 + u + u.square() / 3) * torch.exp(-u)

    def covariance(self, u2: Tensor, log_variance: float, out: Tensor, spare: Tensor) -> None:
        u = torch.sqrt(u2, out=spare)
        torch.sub(log_variance, u, out=out).exp_()
        torch.addcmul(out, u, out, out=spare)  # (1 + u) e^-u
        torch.addcmul(spare, u2, out, value=1 / 3, out=out)

    def weight(self, u2: Tensor, out: Tensor, spare: Tensor) -> Tensor:
        return spare.mul_(1 / 3)  # (1 + u) e^-u / 3

    def frequencies(self, count: int, generator: torch.Generator) -> Tensor:
        return _student_t(5.0, count, self.dims, generator)


def _student_t(df: float, count: int, dims: int, generator: torch.Generator) -> Tensor:
    """Draw ω ~ multivariate t with `df` = 2ν degrees of freedom, the spectrum of a Matérn-ν kernel.

    Source: Rasmussen & Williams (2006), eq. 4.15.
    """
    normal = torch.randn(dims, count, generator=generator, dtype=torch.float64)
    # χ² of an odd number of degrees of freedom as a sum of squares: torch's gamma draws take no
    # generator.
    squares = torch.randn(int(df), count, generator=generator, dtype=torch.float64).square()
    return normal * (df / squares.sum(0)).sqrt()
