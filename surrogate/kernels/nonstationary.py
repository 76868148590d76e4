"""Kernels of inner products: straight lines and polynomials, about the origin of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from surrogate.kernels.base import (
    Features,
    Kernel,
    Linearised,
    among_all,
    checked_columns,
    detached,
    number_parameter,
    per_input_parameter,
    seen,
)
from surrogate.kernels.devices import Moving
from surrogate.transfers import beside
from surrogate.workspace import Workspace


class Linear(Kernel):
    """Straight lines through the origin, with a slope of variance v in each input.

        k(x, x') = Σ_j v_j x_j x'_j

    The origin is that of X, at a corner of the unit cube, and f is 0 there; the mean of a model is
    the constant to add.

    Source: Rasmussen & Williams (2006), section 4.2.2.

    Args:
        dims: How many inputs the kernel sees.
        variance: v > 0, in the units of y squared per those of x squared: a number, or one per
            input, shape (dims,). Left out, it is 1 until a model moves it to where its priors
            start.
        columns: Which columns of X the kernel looks at; all of them unless given.

    Raises:
        ValueError: If a parameter is not positive or `columns` does not match `dims`.
    """

    roles: ClassVar[dict[str, str]] = {"log_variance": "variance"}

    def __init__(
        self,
        dims: int,
        variance: float | Sequence[float] | Tensor | None = None,
        *,
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.dims, self.columns = dims, checked_columns(dims, columns)
        if variance is None:
            variance, self.unset = 1.0, frozenset({"log_variance"})
        self.log_variance = per_input_parameter("variance", dims, variance)

    @property
    def variance(self) -> Tensor:
        """v, shape (dims,)."""
        return self.log_variance.exp()

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        X1, X2 = seen(X1, X2, self.columns)
        return X1 * beside(self.variance, X1) @ X2.transpose(-1, -2)

    def diagonal(self, X: Tensor) -> Tensor:
        return seen(X, X, self.columns)[0].square() @ beside(self.variance, X)

    def coordinates(self, X: Tensor) -> Tensor:
        """X √v."""
        root = beside(torch.exp(0.5 * self.log_variance.detach()), X)
        return seen(X, X, self.columns)[0] * root

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedLinear(self, *detached(X1, X2), workspace or Workspace(X1.device))

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        X1, X2 = seen(*detached(X1, X2), self.columns)
        K = (workspace or Workspace(X1.device)).buffer("K", *out.shape)
        return out.copy_(torch.mm(X1 * beside(self.variance.detach(), X1), X2.mT, out=K))

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Inputs, scaled and turned at random: k itself, and not only its mean, if F ≥ dims."""
        W = _orthogonal(self.dims, count, generator) / count**0.5
        W = W * torch.exp(0.5 * self.log_variance.detach()).unsqueeze(-1)
        return Moving(lambda X, W: seen(X, X, self.columns)[0] @ W, W)


class _LinearisedLinear(Linearised):
    def __init__(self, kernel: Linear, X1: Tensor, X2: Tensor, workspace: Workspace) -> None:
        self._columns, self._width = kernel.columns, X1.shape[-1]
        self._X1, self._X2 = seen(X1, X2, kernel.columns)
        self._variance = beside(kernel.variance.detach(), X1)
        self.K = workspace.buffer("K", len(X1), len(X2))
        torch.mm(self._X1 * self._variance, self._X2.mT, out=self.K)

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        return ((self._X1.mT @ G).mul_(self._X2.mT).sum(1).mul_(self._variance),)

    def inputs(self, G: Tensor) -> Tensor:
        return among_all((G @ self._X2).mul_(self._variance), self._columns, self._width)


class Polynomial(Kernel):
    """Polynomials of the inputs, of all terms up to a degree.

        k(x, x') = s² (xᵀx' + c)^degree

    Grows without bound away from the origin. A large offset c favours the lower terms.

    Source: Rasmussen & Williams (2006), section 4.2.2.

    Args:
        dims: How many inputs the kernel sees.
        degree: At least 1.
        offset: c > 0, in the units of x squared. Left out, it is 1 until a model moves it to where
            its priors start.
        variance: s² > 0, so that s² c^degree is in the units of y squared. Left out, it is 1, as
            above.
        columns: Which columns of X the kernel looks at; all of them unless given.

    Raises:
        ValueError: If a parameter is not positive, `columns` does not match `dims`, or the degree
            is not a whole number from 1.
    """

    roles: ClassVar[dict[str, str]] = {"log_offset": "offset", "log_variance": "variance"}

    def __init__(
        self,
        dims: int,
        degree: int,
        offset: float | Tensor | None = None,
        variance: float | Tensor | None = None,
        *,
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if degree < 1 or degree != int(degree):
            raise ValueError(f"degree must be a whole number, at least 1; got {degree}.")
        self.dims, self.columns, self.degree = dims, checked_columns(dims, columns), int(degree)
        given = {"log_offset": offset, "log_variance": variance}
        self.unset = frozenset(name for name, value in given.items() if value is None)
        self.log_offset = number_parameter("offset", 1.0 if offset is None else offset)
        self.log_variance = number_parameter("variance", 1.0 if variance is None else variance)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, degree={self.degree}"

    @property
    def offset(self) -> Tensor:
        """c, in the units of x squared, shape ()."""
        return self.log_offset.exp()

    @property
    def variance(self) -> Tensor:
        """s², shape ()."""
        return self.log_variance.exp()

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        X1, X2 = seen(X1, X2, self.columns)
        return self.variance * (X1 @ X2.transpose(-1, -2) + self.offset) ** self.degree

    def diagonal(self, X: Tensor) -> Tensor:
        squares = seen(X, X, self.columns)[0].square().sum(-1)
        return self.variance * (squares + self.offset) ** self.degree

    def coordinates(self, X: Tensor) -> Tensor:
        """The columns of X that it looks at."""
        return seen(X, X, self.columns)[0]

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedPolynomial(self, *detached(X1, X2), workspace or Workspace(X1.device))

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        X1, X2 = seen(*detached(X1, X2), self.columns)
        base = (workspace or Workspace(X1.device)).buffer("base", *out.shape)
        torch.mm(X1, X2.mT, out=base).add_(float(self.offset.detach())).pow_(self.degree)
        return out.copy_(base.mul_(float(self.variance.detach())))

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Products of `degree` random projections of [x, √c]: Kar & Karnick (2012)."""
        turns = [_orthogonal(self.dims + 1, count, generator) for _ in range(self.degree)]
        root = self.offset.detach().sqrt()
        scale = (self.variance.detach() / count).sqrt()

        def products(X: Tensor, *turns: Tensor) -> Tensor:
            X = seen(X, X, self.columns)[0]
            phi = scale
            for W in turns:
                phi = phi * (X @ W[:-1] + root * W[-1])
            return phi

        return Moving(products, *turns)


class _LinearisedPolynomial(Linearised):
    def __init__(self, kernel: Polynomial, X1: Tensor, X2: Tensor, workspace: Workspace) -> None:
        self._columns, self._width = kernel.columns, X1.shape[-1]
        self._X1, self._X2 = seen(X1, X2, kernel.columns)
        self._offset = kernel.offset.detach()
        base, self.K, self._weight = (
            workspace.buffer(name, len(X1), len(X2)) for name in ("base", "K", "weight")
        )
        torch.mm(self._X1, self._X2.mT, out=base).add_(self._offset)
        # Its slope in xᵀx', which lacks one factor of K.
        torch.pow(base, kernel.degree - 1, out=self._weight).mul_(kernel.variance.detach())
        torch.mul(self._weight, base, out=self.K)
        self._weight.mul_(kernel.degree)
        self._scratch = base

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        G = G.reshape(-1)
        by_offset = self._offset * torch.dot(G, self._weight.view(-1))
        return by_offset, torch.dot(G, self.K.view(-1))

    def inputs(self, G: Tensor) -> Tensor:
        gradient = torch.mul(G, self._weight, out=self._scratch) @ self._X2
        return among_all(gradient, self._columns, self._width)


def _orthogonal(dims: int, count: int, generator: torch.Generator) -> Tensor:
    """Random W (dims, count) with E[W Wᵀ / count] = 1; exactly 1 where count ≥ dims."""
    tall = torch.randn(max(dims, count), min(dims, count), generator=generator, dtype=torch.float64)
    Q = torch.linalg.qr(tall).Q * len(tall) ** 0.5
    return Q.T if count >= dims else Q
