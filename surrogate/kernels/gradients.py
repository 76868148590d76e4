"""Covariance of a function and of its gradient, so that both can be observed."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from surrogate.kernels.base import Features, Kernel, number_parameter
from surrogate.kernels.devices import Moving
from surrogate.kernels.distances import squared_distances
from surrogate.kernels.stationary import RBF, Matern52
from surrogate.operators.gradients import GradientOperator
from surrogate.transfers import beside
from surrogate.workspace import Workspace

_COINCIDENT = 1e-30  # see `stationary`

# With n points and N numbers, a product by `GradientOperator` takes as long as one with
# (12 + 3 d) n² stored entries, and may take this much longer than one with the N² of K: these are
# made, and differentiated, in the time of some 75 products with 16 columns.
_PAYS = 4.0


class WithGradients(Kernel):
    """k of rows [x, i]: f(x) for i = 0, ∂f/∂x_i for i = 1 … d.

    With g the correlation as a function of r², and δ = (x - x') / ℓ:

        Cov(f, f')       = s² g + c²
        Cov(∂_i f, f')   = 2 s² g' δ_i / ℓ_i
        Cov(∂_i f, ∂_j f') = -s² (4 g'' δ_i δ_j / (ℓ_i ℓ_j) + 2 g' [i = j] / ℓ_i²)

    The constant c² is the variance of a mean of f, whose gradient is 0 as that of any constant.
    Where many numbers belong to one x, products with K are made by `GradientOperator`.

    Source: Rasmussen & Williams (2006), section 9.4; Solak et al. (2003), Derivative observations
    in Gaussian process models of dynamic systems.

    Args:
        kernel: An `RBF` or `Matern52` over all d columns of x: rougher functions have no gradient
            that a Gaussian process could be fitted to.
        offset: c², in the units of y squared; learnt. Left out, it is 1 until a model moves it.

    Raises:
        TypeError: If it is another kernel.
        ValueError: If it looks at some columns alone; when called, if an i is not one of 0 … d.
    """

    roles: ClassVar[dict[str, str]] = {"log_offset": "offset"}
    columns = None  # it looks at all there are

    def __init__(self, kernel: RBF | Matern52, offset: float | None = None) -> None:
        super().__init__()
        if type(kernel) not in (RBF, Matern52):
            raise TypeError(
                f"gradients take an RBF or a Matern52, whose second derivatives are known; "
                f"got {type(kernel).__name__}."
            )
        if kernel.columns is not None:
            raise ValueError("the kernel must look at all columns of x; leave out columns.")
        if offset is None:
            self.unset = frozenset({"log_offset"})
        self.log_offset = number_parameter("offset", 1.0 if offset is None else offset)
        self.kernel = kernel

    @property
    def dims(self) -> int:
        """d + 1: the columns of x, and that of i."""
        return self.kernel.dims + 1

    @property
    def offset(self) -> Tensor:
        """c², shape ()."""
        return self.log_offset.exp()

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        i, j = self._indices(X1, X2)
        inverse = beside(torch.exp(-self.kernel.log_lengthscale), X1)
        U1 = X1[..., :-1] * inverse
        U2 = U1 if X1 is X2 else X2[..., :-1] * inverse
        if U2.shape[-2]:
            centre = U2.detach().mean(-2, keepdim=True)
            U2 = U2 - centre
            U1 = U2 if X1 is X2 else U1 - centre
        g, g1, g2 = self.derivatives(squared_distances(U1, U2), 2)
        s2 = self.kernel.variance
        # δ along the direction of the row, and of the column, over ℓ; 0 for a value.
        by_row, by_column = self._direction(i, inverse), self._direction(j, inverse)
        along_row = (U1 * by_row).sum(-1).unsqueeze(-1) - by_row @ U2.transpose(-1, -2)
        along_column = U1 @ by_column.transpose(-1, -2) - (U2 * by_column).sum(-1).unsqueeze(-2)
        of_row, of_column = (i > 0).unsqueeze(-1), (j > 0).unsqueeze(-2)
        both = -4 * g2 * along_row * along_column
        both = both - 2 * g1 * (by_row @ by_column.transpose(-1, -2))
        one = 2 * g1 * torch.where(of_row, along_row, -along_column)
        value = s2 * torch.where(of_row & of_column, both, torch.where(of_row | of_column, one, g))
        offset = beside(self.offset, X1)
        return value + torch.where(of_row | of_column, torch.zeros_like(offset), offset)

    def diagonal(self, X: Tensor) -> Tensor:
        _, slope = self.derivatives(X.new_zeros(()), 1)
        inverse = beside(torch.exp(-self.kernel.log_lengthscale), X)
        direction = self._direction(self._index(X), inverse)
        of_gradient = -2 * slope * self.kernel.variance * direction.square().sum(-1)
        of_value = beside(self.kernel.variance + self.offset, X)
        return torch.where(X[..., -1] > 0, of_gradient, of_value)

    def coordinates(self, X: Tensor) -> Tensor:
        """x / ℓ: a value and its gradient belong together."""
        return self.kernel.coordinates(X[..., :-1])

    def features(self, count: int, generator: torch.Generator) -> Features:
        """The Fourier features of k and their gradients, and one constant."""
        with torch.no_grad():
            omega = self.kernel.frequencies(count - 1, generator)
            omega = omega / self.kernel.lengthscale.unsqueeze(-1)  # (d, F - 1)
            phase = 2 * math.pi * torch.rand(count - 1, generator=generator, dtype=omega.dtype)
            scale = (2 * self.kernel.variance / max(count - 1, 1)).sqrt()
            constant = self.offset.sqrt()

        def phi(X: Tensor, omega: Tensor, phase: Tensor) -> Tensor:
            i = self._index(X)
            angle = X[..., :-1] @ omega + phase
            direction = self._direction(i, torch.ones_like(omega[:, 0]))
            value = (i == 0).unsqueeze(-1)
            waves = torch.where(value, angle.cos(), -angle.sin() * (direction @ omega))
            return torch.cat([scale * waves, constant * value.to(X.dtype)], -1)

        return Moving(phi, omega, phase)

    def derivatives(self, r2: Tensor, order: int) -> tuple[Tensor, ...]:
        """g and its first `order` derivatives in r², elementwise; up to three."""
        if isinstance(self.kernel, RBF):
            g = torch.exp(-r2 / 2)
            return tuple(g * (-0.5) ** k if k else g for k in range(order + 1))
        u = (5 * r2).clamp_min(_COINCIDENT).sqrt()
        decay = torch.exp(-u)
        formulas = (
            lambda: (1 + u + u.square() / 3) * decay,
            lambda: -5 / 6 * (1 + u) * decay,
            lambda: 25 / 12 * decay,
            lambda: -125 / 24 * decay / u,  # where points coincide, factors of 0 stand by it
        )
        return tuple(formula() for formula in formulas[: order + 1])

    @property
    def is_gaussian(self) -> bool:
        """Whether g = exp(-r²/2)."""
        return isinstance(self.kernel, RBF)

    def scales(self) -> tuple[Tensor, Tensor, Tensor]:
        """c² (), ℓ (d,) and s² (), in the order of their parameters."""
        return self.offset, self.kernel.lengthscale, self.kernel.variance

    def operator(self, X: Tensor, workspace: Workspace | None = None) -> GradientOperator | None:
        column = self._index(X)
        if not bool((column > 0).any()):
            return None
        points, row = X[:, :-1].detach().unique(dim=0, return_inverse=True)
        (n, d), N = points.shape, len(X)
        if (12 + 3 * d) * n * n > _PAYS * N * N:
            return None
        return GradientOperator(self, points, row, column, workspace=workspace)

    def _direction(self, i: Tensor, scale: Tensor) -> Tensor:
        """Rows of diag(scale), the i-th for i > 0, 0 for a value: shape (..., n, d)."""
        table = torch.cat([torch.zeros_like(scale).unsqueeze(0), scale.diag()])
        return table[i]

    def _index(self, X: Tensor) -> Tensor:
        return self._indices(X, X)[0]

    def _indices(self, X1: Tensor, X2: Tensor) -> tuple[Tensor, Tensor]:
        """What each row of both observes; the host waits once, to see that it is one of 0 … d."""
        i, is_wrong = self._column(X1)
        j, also = (i, is_wrong) if X2 is X1 else self._column(X2)
        if bool(is_wrong.any() if also is is_wrong else is_wrong.any() | also.any()):
            wrong = torch.cat([X1.detach()[..., -1][is_wrong], X2.detach()[..., -1][also]])
            raise ValueError(
                f"the last column must say what is observed, 0 for a value and 1 … "
                f"{self.kernel.dims} for a derivative; got {wrong.unique().tolist()[:5]}."
            )
        return i, j

    def _column(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """The last column as whole numbers, and where it holds others, both (..., n)."""
        given, d = X.detach()[..., -1], self.kernel.dims
        if X.shape[-1] != d + 1:
            raise ValueError(f"rows must be [x, i], {d + 1} columns; got {X.shape[-1]}.")
        index = given.long()
        return index, (index != given) | (index < 0) | (index > d)
