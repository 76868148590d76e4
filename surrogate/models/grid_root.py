"""Variances by a root that is kept on the nodes of a grid, with bounds from both sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from surrogate.kernels.grid import GridKernelOperator
from surrogate.solvers.cholesky import Cholesky

_RANK, _ENTRIES = 1000, 2**25  # most eigenvectors, and most entries of a table of them: 256 MiB
_EIGEN_TO = 3000  # most nodes along an axis whose eigenvectors are looked for
_NOTHING = 1e-13  # of the largest eigenvalue: rounding
_JITTER = 1e-10  # relative, of the Gram matrix of the subspace
_COLUMNS = 64  # interpolated to all data at once


@dataclass(frozen=True)
class NodeRoot:
    """Bounds of the variance at x: k(x, x) - ‖most ᵀw(x)‖² from above, ‖leastᵀw(x)‖² from below.

    With F Fᵀ the leading eigenvectors of K_grid, N the noise and S = WᵀN⁻¹W F: the upper bound is
    the error of the best predictor in the space of N⁻¹W F, whatever F leaves out; the lower one is
    the variance if that part of f were known, φᵀ(I + FᵀS)⁻¹φ with φ = Fᵀw(x).

    Attributes:
        most, least: Shape (nodes, r).
    """

    most: Tensor
    least: Tensor

    @staticmethod
    @torch.no_grad()
    def of(K: GridKernelOperator, noise: Tensor) -> NodeRoot | None:
        """O(n 4^d r + G r²) for n observations with noise variances (n,) and G nodes.

        None without observations, or where an axis is too long for eigenvectors.
        """
        if not K.n or max(K.grid.shape) > _EIGEN_TO:
            return None
        F = _leading(K)  # (G, r)
        scaled = noise.reciprocal().unsqueeze(1)
        parts = [K.project(scaled * K.interpolate(some)) for some in F.split(_COLUMNS, 1)]
        S = torch.cat(parts, 1)
        KS = K.inner.matmul(S)
        inside = _symmetric(F.mT @ S)
        gram = inside + _symmetric(S.mT @ KS)
        gram.diagonal().mul_(1 + _JITTER)
        inside.diagonal().add_(1.0)
        return NodeRoot(_whitened(KS, gram), _whitened(F, inside))

    def explained(self, index: Tensor, weights: Tensor) -> Tensor:
        """What is to be taken from k(x, x), given w(x): shape (m,); differentiable in weights."""
        return _squares(self.most, index, weights)

    def least_variance(self, index: Tensor, weights: Tensor) -> Tensor:
        """The lower bound, shape (m,)."""
        return _squares(self.least, index, weights)


def _leading(K: GridKernelOperator) -> Tensor:
    """Eigenvectors of K_grid times the roots of their eigenvalues, largest first, (nodes, r).

    Chosen on the CPU: eigenvalues of a grid that is alike along two axes are equal in pairs, and
    which of a pair comes first must not depend on how a device sorts.
    """
    values, vectors = [], []
    for factor, count in zip(K.grid.factors, K.grid.shape, strict=True):
        spectrum = torch.linalg.eigh(factor.rows(torch.arange(count, device=K.X.device)))
        values.append(spectrum.eigenvalues.clamp_min(0.0).cpu())
        vectors.append(spectrum.eigenvectors)
    whole = values[0]
    for more in values[1:]:
        whole = torch.kron(whole, more)
    top = whole.topk(min(_RANK, max(1, _ENTRIES // K.grid.n), K.grid.n))
    kept = top.indices[top.values > _NOTHING * top.values[0]]
    F = vectors[0].new_ones(1, len(kept))
    for Q, place in zip(vectors, torch.unravel_index(kept, K.grid.shape), strict=True):
        F = (F.unsqueeze(1) * Q[:, place.to(F.device)]).flatten(0, 1)
    return F * (K.kernel.variance.detach() * whole[kept]).sqrt().to(F.device)


def _symmetric(A: Tensor) -> Tensor:
    return 0.5 * (A + A.mT)


def _whitened(table: Tensor, gram: Tensor) -> Tensor:
    """table L⁻ᵀ for the factor L of gram."""
    L = Cholesky().factor(gram).L
    return torch.linalg.solve_triangular(L, table.mT, upper=False).mT.contiguous()


def _squares(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    if not len(index):
        return weights.sum(1)
    return embedding_bag(index, table, mode="sum", per_sample_weights=weights).square().sum(1)
