"""Kernels of unordered inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from surrogate.kernels.base import Features, Kernel, Linearised, lengthscale_parameter
from surrogate.workspace import Workspace


class Hamming(Kernel):
    """Categories are either the same or not, in each input by itself.

        k(x, x') = exp(-Σ_j [x_j ≠ x'_j] / ℓ_j)

    A large ℓ_j lets categories share what they know; a small one keeps them apart. A product of
    the two-valued kernels ρ_j + (1 - ρ_j) [x_j = x'_j], ρ_j = exp(-1/ℓ_j), so positive definite.
    The value is 1 where all inputs agree: multiply by another kernel, or write `2.0 * Hamming(…)`.

    Args:
        dims: How many categorical inputs.
        lengthscale: ℓ > 0, without unit: a number, or one per input, shape (dims,). Left out, it
            is 1 until a model moves it to where its priors start.
        columns: Which columns of X hold them; all unless given.
    """

    roles: ClassVar[dict[str, str]] = {"log_lengthscale": "category_lengthscale"}

    def __init__(
        self,
        dims: int,
        lengthscale: float | Sequence[float] | Tensor | None = None,
        *,
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if lengthscale is None:
            lengthscale, self.unset = 1.0, frozenset({"log_lengthscale"})
        self.log_lengthscale = lengthscale_parameter(dims, lengthscale, columns)
        self.dims = dims
        self.columns = None if columns is None else tuple(columns)

    def extra_repr(self) -> str:
        return f"dims={self.dims}" + (f", columns={self.columns}" if self.columns else "")

    @property
    def lengthscale(self) -> Tensor:
        """ℓ, shape (dims,)."""
        return self.log_lengthscale.exp()

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        differs = _differs(self._seen(X1), self._seen(X2))  # (dims, ..., n, m)
        return torch.exp(-torch.tensordot(torch.exp(-self.log_lengthscale), differs, dims=1))

    def diagonal(self, X: Tensor) -> Tensor:
        return X.new_ones(X.shape[:-1])

    def coordinates(self, X: Tensor) -> Tensor:
        """X / √ℓ: which of two categories is the nearer means nothing, but equal ones coincide."""
        return self._seen(X) * torch.exp(-0.5 * self.log_lengthscale.detach())

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedHamming(self, X1.detach(), X2.detach(), workspace or Workspace())

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        differs = (workspace or Workspace()).buffer("differs", *out.shape, dtype=out.dtype)
        weight = torch.exp(-self.log_lengthscale.detach()).tolist()  # 1/ℓ
        pairs = zip(self._seen(X1).unbind(-1), self._seen(X2).unbind(-1), weight, strict=True)
        out.zero_()
        for x1, x2, w in pairs:
            out.sub_(torch.ne(x1.unsqueeze(1), x2, out=differs), alpha=w)
        return out.exp_()

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Random ±1 labels: with probability ρ_j one label for all categories, else one for each.

        E[h(c) h(c')] is then 1 for c = c' and ρ_j otherwise. Labels come from hashing the category
        with a random salt, so that no list of categories is needed.
        """
        rho = torch.exp(-1 / self.lengthscale.detach()).unsqueeze(-1)  # (dims, 1)
        shared = torch.rand(self.dims, count, generator=generator, dtype=rho.dtype) < rho
        salt = torch.rand(self.dims, count, generator=generator, dtype=rho.dtype) * 900 + 100
        phase = torch.rand(self.dims, count, generator=generator, dtype=rho.dtype) * 100

        def labels(X: Tensor) -> Tensor:
            seen = self._seen(X).detach().unsqueeze(-1)  # (..., dims, 1)
            # The fractional part of a large multiple of a sine is as good as random here.
            hashed = torch.frac(torch.sin(seen * salt + phase).abs() * 1e4)
            sign = torch.where(hashed < 0.5, -1.0, 1.0).to(X.dtype)
            return torch.where(shared, torch.ones_like(sign), sign).prod(-2) / count**0.5

        return labels

    def _seen(self, X: Tensor) -> Tensor:
        return X if self.columns is None else X[..., self.columns]


class _LinearisedHamming(Linearised):
    def __init__(self, kernel: Hamming, X1: Tensor, X2: Tensor, workspace: Workspace) -> None:
        shape = len(X1), len(X2)
        self._weight = torch.exp(-kernel.log_lengthscale.detach())  # 1/ℓ, (dims,)
        self._differs = workspace.buffer("differs", kernel.dims, shape[0] * shape[1])
        self._scratch, self._shape = workspace.buffer("GK", *shape), X1.shape
        self.K = workspace.buffer("K", *shape)
        each = zip(
            kernel._seen(X1).unbind(-1), kernel._seen(X2).unbind(-1), self._differs, strict=True
        )
        for x1, x2, differs in each:
            torch.ne(x1.unsqueeze(1), x2, out=differs.view(shape))
        torch.mm(-self._weight.unsqueeze(0), self._differs, out=self.K.view(1, -1)).exp_()

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        # d/d log ℓ_j of exp(-Σ differs_j / ℓ_j) is k differs_j / ℓ_j.
        return (self._weight * (self._differs @ torch.mul(G, self.K, out=self._scratch).view(-1)),)

    def inputs(self, G: Tensor) -> Tensor:
        return G.new_zeros(self._shape)  # categories cannot be moved a little


def _differs(X1: Tensor, X2: Tensor) -> Tensor:
    """1.0 where x_j ≠ x'_j, for X1 (..., n, dims), X2 (..., m, dims): shape (dims, ..., n, m)."""
    pairs = zip(X1.unbind(-1), X2.unbind(-1), strict=True)  # (..., n) and (..., m), per input
    parts = [x1.unsqueeze(-1) != x2.unsqueeze(-2) for x1, x2 in pairs]
    return torch.stack(parts).to(torch.float64)
