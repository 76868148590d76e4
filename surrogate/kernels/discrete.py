"""Kernels of inputs that take a few values, unordered or ordered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from surrogate.kernels.base import (
    Features,
    Kernel,
    Linearised,
    checked_columns,
    lengthscale_parameter,
    positive_parameter,
)
from surrogate.kernels.devices import Moving, chosen
from surrogate.kernels.mapped import Mapped
from surrogate.kernels.stationary import Matern52
from surrogate.tiles.formula import Categories, Formula
from surrogate.transfers import beside
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
        weight = beside(torch.exp(-self.log_lengthscale), X1)  # 1/ℓ
        return torch.exp(-torch.tensordot(weight, differs, dims=1))

    def diagonal(self, X: Tensor) -> Tensor:
        return X.new_ones(X.shape[:-1])

    def coordinates(self, X: Tensor) -> Tensor:
        """X / √ℓ: which of two categories is the nearer means nothing, but equal ones coincide."""
        return self._seen(X) * beside(torch.exp(-0.5 * self.log_lengthscale.detach()), X)

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        workspace = workspace or Workspace(X1.device)
        return _LinearisedHamming(self, X1.detach(), X2.detach(), workspace)

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        workspace = workspace or Workspace(X1.device)
        differs = workspace.buffer("differs", *out.shape, dtype=out.dtype)
        weight = torch.exp(-self.log_lengthscale.detach()).tolist()  # 1/ℓ
        pairs = zip(self._seen(X1).unbind(-1), self._seen(X2).unbind(-1), weight, strict=True)
        out.zero_()
        for x1, x2, w in pairs:
            out.sub_(torch.ne(x1.unsqueeze(1), x2, out=differs), alpha=w)
        return out.exp_()

    def formula(self) -> Formula:
        return Formula.of(Categories(self._seen, torch.exp(-self.log_lengthscale.detach()), 0))

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Random ±1 labels: with probability ρ_j one label for all categories, else one for each.

        E[h(c) h(c')] is then 1 for c = c' and ρ_j otherwise. Labels come from hashing the category
        with a random salt, so that no list of categories is needed.
        """
        rho = torch.exp(-1 / self.lengthscale.detach()).unsqueeze(-1)  # (dims, 1)
        shared = torch.rand(self.dims, count, generator=generator, dtype=rho.dtype) < rho
        salt = torch.rand(self.dims, count, generator=generator, dtype=rho.dtype) * 900 + 100
        phase = torch.rand(self.dims, count, generator=generator, dtype=rho.dtype) * 100

        def labels(X: Tensor, shared: Tensor, salt: Tensor, phase: Tensor) -> Tensor:
            seen = self._seen(X).detach().unsqueeze(-1)  # (..., dims, 1)
            # The fractional part of a large multiple of a sine is as good as random here.
            hashed = torch.frac(torch.sin(seen * salt + phase).abs() * 1e4)
            sign = torch.where(hashed < 0.5, -1.0, 1.0).to(X.dtype)
            return torch.where(shared, torch.ones_like(sign), sign).prod(-2) / count**0.5

        return Moving(labels, shared, salt, phase)

    def _seen(self, X: Tensor) -> Tensor:
        return X if self.columns is None else chosen(X, self.columns)


class _LinearisedHamming(Linearised):
    def __init__(self, kernel: Hamming, X1: Tensor, X2: Tensor, workspace: Workspace) -> None:
        shape = len(X1), len(X2)
        self._weight = beside(torch.exp(-kernel.log_lengthscale.detach()), X1)  # 1/ℓ, (dims,)
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


class Ordinal(Mapped):
    """Categories in an order, with distances between neighbours that are learnt.

        k(x, x') = ρ(‖(z(x) - z(x')) / ℓ‖),   z_j(level i) = Σ_{h < i} step_jh / Σ_h step_jh

    The first level of an input stands at 0, the last at 1, and ρ is the Matérn-5/2 correlation;
    positive definite, as ρ is at any places. The value is 1 where all inputs agree: multiply by
    another kernel, or write `2.0 * Ordinal(…)`.

    Level i of L is given as x = (i + ½) / L: the middle of one of L equal cells of [0, 1], which
    is how a `bbmmopt.Space` encodes ordered choices. In between, z is linear, so that a search may
    follow its slope; before the first and beyond the last level it is constant.

    Args:
        dims: How many inputs.
        levels: L ≥ 2: a number, or one per input.
        lengthscale: ℓ > 0, where the whole range of levels is 1: a number, or one per input, shape
            (dims,). Left out, it is √dims / 5 until a model moves it to where its priors start.
        columns: Which columns of X hold them; all unless given.
        steps: From each level to the next, > 0, up to a factor: a number, or all those of the first
            input, then of the second, …, shape (Σ (L_j - 1),). Left out, they are 1, as above.

    Raises:
        ValueError: If a parameter is not positive, or arguments do not match `dims` or `levels`.
    """

    roles: ClassVar[dict[str, str]] = {"log_steps": "ordinal_step"}

    def __init__(
        self,
        dims: int,
        levels: int | Sequence[int],
        lengthscale: float | Sequence[float] | Tensor | None = None,
        *,
        columns: Sequence[int] | None = None,
        steps: float | Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.columns = checked_columns(dims, columns)
        self.dims = dims
        self.levels = (levels,) * dims if isinstance(levels, int) else tuple(map(int, levels))
        if len(self.levels) != dims or min(self.levels) < 2:
            raise ValueError(
                f"levels must be one number or {dims} of them, as dims says, of at least 2; "
                f"got {levels}."
            )
        if steps is None:
            steps, self.unset = 1.0, frozenset({"log_steps"})
        steps = torch.as_tensor(steps, dtype=torch.float64)
        count = sum(self.levels) - dims
        if steps.ndim and steps.shape != (count,):
            raise ValueError(
                f"steps must be one number or {count} of them, one less than there are levels for "
                f"each input; got shape {tuple(steps.shape)}."
            )
        self.log_steps = positive_parameter("steps", steps.expand(count).contiguous())
        # Its columns are named, for they are not those of X.
        self.kernel = Matern52(dims, lengthscale, 1.0, columns=range(dims))
        self.kernel.log_variance.requires_grad_(False)

    def extra_repr(self) -> str:
        levels = f"levels={self.levels}"
        return f"dims={self.dims}, {levels}" + (f", columns={self.columns}" if self.columns else "")

    @property
    def lengthscale(self) -> Tensor:
        """ℓ, shape (dims,)."""
        return self.kernel.get_parameter("log_lengthscale").exp()

    @property
    def positions(self) -> tuple[Tensor, ...]:
        """z of every level, from 0 to 1, shape (L_j,) for each input."""
        each = self.log_steps.split([k - 1 for k in self.levels])
        # Shares of the whole: a softmax of the logarithms.
        return tuple(torch.cat([s.new_zeros(1), torch.softmax(s, 0).cumsum(0)]) for s in each)

    def embed(self, X: Tensor) -> Tensor:
        x = X if self.columns is None else chosen(X, self.columns)
        positions = (beside(z, X) for z in self.positions)
        found = []
        for x_j, k, z in zip(x.unbind(-1), self.levels, positions, strict=True):
            level = (x_j * k - 0.5).clamp(0, k - 1)  # (..., n)
            below = level.detach().floor().clamp_max(k - 2).long()
            found.append(torch.lerp(z[below], z[below + 1], level - below))
        return torch.stack(found, dim=-1)
