"""A kernel of functions that repeat."""

from __future__ import annotations

import math
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
    number_parameter,
    per_input_parameter,
    seen,
)
from surrogate.kernels.devices import Moving
from surrogate.kernels.distances import (
    centred,
    squared_distances,
    squared_distances_into,
    weighted_differences,
    weighted_squares,
)
from surrogate.tiles.formula import Formula, Gradients, Radial
from surrogate.transfers import beside
from surrogate.workspace import Workspace


class Periodic(Kernel):
    """Functions that repeat themselves exactly, in each input with a period of its own.

        k(x, x') = s² exp(-2 Σ_j sin²(π (x_j - x'_j) / p_j) / ℓ_j²)

    This is `RBF` of the points on circles (cos 2πx/p, sin 2πx/p), and computed as such. For what
    repeats with slow changes, multiply by another kernel.

    Source: Rasmussen & Williams (2006), eq. 4.31.

    Args:
        dims: How many inputs the kernel sees.
        period: p > 0, in the units of x: a number, or one per input, shape (dims,). Left out, it
            is 1 until a model moves it to where its priors start. A fit finds a period only from
            somewhere near it, so give it where it is known.
        lengthscale: ℓ > 0, on circles of radius 1, so without unit: a number, or one per input.
            Points much nearer than a period are as correlated as those of an `RBF` with ℓ p / 2π.
            Left out, ℓ is 2π √dims / 5, as above.
        variance: s² > 0, in the units of y squared. Left out, it is 1, as above.
        columns: Which columns of X the kernel looks at; all of them unless given.

    Raises:
        ValueError: If a parameter is not positive or `columns` does not match `dims`.
    """

    roles: ClassVar[dict[str, str]] = {
        "log_period": "period",
        "log_lengthscale": "periodic_lengthscale",
        "log_variance": "variance",
    }

    def __init__(
        self,
        dims: int,
        period: float | Sequence[float] | Tensor | None = None,
        lengthscale: float | Sequence[float] | Tensor | None = None,
        variance: float | Tensor | None = None,
        *,
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.dims, self.columns = dims, checked_columns(dims, columns)
        given = {"log_period": period, "log_lengthscale": lengthscale, "log_variance": variance}
        self.unset = frozenset(name for name, value in given.items() if value is None)
        if lengthscale is None:
            lengthscale = 2 * math.pi * math.sqrt(dims) / 5
        self.log_period = per_input_parameter("period", dims, 1.0 if period is None else period)
        self.log_lengthscale = per_input_parameter("lengthscale", dims, lengthscale)
        self.log_variance = number_parameter("variance", 1.0 if variance is None else variance)

    @property
    def period(self) -> Tensor:
        """p, in the units of x, shape (dims,)."""
        return self.log_period.exp()

    @property
    def lengthscale(self) -> Tensor:
        """ℓ, on circles of radius 1, shape (dims,)."""
        return self.log_lengthscale.exp()

    @property
    def variance(self) -> Tensor:
        """s², in the units of y squared, shape ()."""
        return self.log_variance.exp()

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        A1, A2 = self._angles(X1, X2)
        U1, U2 = self._on_circles(A1, A2)
        return self.variance * torch.exp(-squared_distances(U1, U2) / 2)

    def diagonal(self, X: Tensor) -> Tensor:
        return beside(self.variance, X).expand(X.shape[:-1])

    def coordinates(self, X: Tensor) -> Tensor:
        """Where X stands on circles of radius 1/ℓ: shape (..., n, 2 dims)."""
        turn, radius = beside(self._turn(), X), beside(self._radius(), X)
        return _points(seen(X, X, self.columns)[0] * turn) * radius

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedPeriodic(self, *detached(X1, X2), workspace or Workspace(X1.device))

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        with torch.no_grad():
            U1, U2 = self._on_circles(*self._angles(X1, X2))
        u2 = (workspace or Workspace(X1.device)).buffer("u2", len(X1), len(X2))
        squared_distances_into(U1, U2, U1.square(), U2.square(), u2)
        out.copy_(u2.clamp_min_(0.0)).mul_(-0.5).exp_()
        return out.mul_(float(self.variance.detach()))

    def features(self, count: int, generator: torch.Generator) -> Features:
        """√(2 s² / F) cos(ωᵀu + b) of the points u on the circles: Rahimi & Recht (2007)."""
        omega = torch.randn(2 * self.dims, count, generator=generator, dtype=torch.float64)
        on_circles = fourier_features(omega, self.variance.detach(), None, generator)

        def waves(X: Tensor, turn: Tensor, radius: Tensor) -> Tensor:
            return on_circles(_points(seen(X, X, self.columns)[0] * turn) * radius)

        return Moving(waves, self._turn(), self._radius())

    def formula(self) -> Formula:
        turn, radius, columns = self._turn(), self._radius(), self.columns

        def angles(X: Tensor) -> Tensor:
            return seen(X, X, columns)[0] * beside(turn, X)

        def by_angle(X: Tensor, G: Tensor) -> Tensor:
            A, (by_sine, by_cosine) = angles(X), (G * beside(radius, G)).chunk(2, dim=1)
            return by_sine * A.cos() - by_cosine * A.sin()

        def pullback(X: Tensor, U: Tensor, G: Tensor) -> Gradients:
            by_period = -(angles(X) * by_angle(X, G)).sum(0)
            return {0: by_period, 1: -(U * G).sum(0).view(2, -1).sum(0)}

        radial = Radial(
            "rbf",
            points=lambda X: _points(angles(X)) * beside(radius, X),
            pullback=pullback,
            inputs=lambda X, G: among_all(by_angle(X, G) * beside(turn, X), columns, X.shape[1]),
            width=2 * self.dims,
            origin=lambda X: centre(X, columns),
        )
        return Formula.of(radial, scale=float(self.variance.detach()), scales=(2,))

    def _turn(self) -> Tensor:
        """2π / p, shape (dims,)."""
        return 2 * math.pi * torch.exp(-self.log_period.detach())

    def _radius(self) -> Tensor:
        """1 / ℓ for sines, then for cosines, shape (2 dims,)."""
        return torch.exp(-self.log_lengthscale.detach()).repeat(2)

    def _angles(self, X1: Tensor, X2: Tensor) -> tuple[Tensor, Tensor]:
        """2π x / p of both, centred: of large angles, sines are not exact."""
        turn = 2 * math.pi * torch.exp(-self.log_period)
        return centred(*seen(X1, X2, self.columns), beside(turn, X2))

    def _on_circles(self, A1: Tensor, A2: Tensor) -> tuple[Tensor, Tensor]:
        """Points on circles of radius 1/ℓ, one set of angles given twice staying one."""
        radius = beside(torch.exp(-self.log_lengthscale).repeat(2), A2)
        U2 = _points(A2) * radius
        return U2 if A1 is A2 else _points(A1) * radius, U2


def _points(A: Tensor) -> Tensor:
    """(sin a, cos a - 1), shape (..., n, 2 dims): near 0 where a is, so that little cancels."""
    return torch.cat([A.sin(), -2 * (A / 2).sin().square()], dim=-1)


class _LinearisedPeriodic(Linearised):
    """K as that of an `RBF` on circles; the way from the circles to x and p by the chain rule."""

    def __init__(self, kernel: Periodic, X1: Tensor, X2: Tensor, workspace: Workspace) -> None:
        self._kernel, self._width = kernel, X1.shape[-1]
        self._turn, self._radius = beside(kernel._turn(), X1), beside(kernel._radius(), X1)
        with torch.no_grad():
            self._A1, self._A2 = kernel._angles(X1, X2)
            self._U1, self._U2 = kernel._on_circles(self._A1, self._A2)
        self._S1 = self._U1.square()
        self._S2 = self._S1 if X1 is X2 else self._U2.square()
        u2 = workspace.buffer("u2", len(X1), len(X2))
        self.K = workspace.buffer("K", len(X1), len(X2))
        squared_distances_into(self._U1, self._U2, self._S1, self._S2, u2)
        log_variance = float(kernel.log_variance.detach())
        torch.sub(log_variance, u2.clamp_min_(0.0), alpha=0.5, out=self.K).exp_()
        self._scratch = u2

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        H = torch.mul(G, self.K, out=self._scratch)
        # k depends on x / p alone, and on x' / p: -a is da/d log p.
        by_period = -(self._A1 * self._by_angle(H, self._U1, self._U2)).sum(0)
        by_period -= (self._A2 * self._by_angle(H.mT, self._U2, self._U1)).sum(0)
        by_column = weighted_squares(H, self._U1, self._U2, self._S1, self._S2)  # (2 dims,)
        return by_period, by_column.view(2, -1).sum(0), H.sum()

    def inputs(self, G: Tensor) -> Tensor:
        H = torch.mul(G, self.K, out=self._scratch)
        gradient = self._by_angle(H, self._U1, self._U2).mul_(self._turn)
        return among_all(gradient, self._kernel.columns, self._width)

    def _by_angle(self, H: Tensor, U1: Tensor, U2: Tensor) -> Tensor:
        """Gradient in the angles of the rows of U1, shape (n, dims)."""
        by_sine, by_cosine = weighted_differences(H, U1, U2).chunk(2, dim=1)
        sine, cosine = U1.chunk(2, dim=1)
        cosine = cosine + self._radius[: self._kernel.dims]
        return by_sine * cosine - by_cosine * sine
