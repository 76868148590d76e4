"""K̂⁻¹ within a subspace: one low-rank root for all points, and a small factor for each cluster."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.operators.base import LinearOperator
from surrogate.solvers.cholesky import Cholesky

_JITTER = 1e-10  # relative, of the Gram matrix of the subspace


@dataclass(frozen=True)
class Projection:
    """What a subspace tells of k = k(X, x*) for m test points.

    Attributes:
        explained: kᵀK̂⁻¹k within the subspace, never more than the whole, shape (m,).
        inside: Coefficients of the low-rank part, shape (m, r).
        owner: Cluster of each point, shape (m,); -1 for none.
        local: Coefficients on the cluster's points, shape (m, b).
    """

    explained: Tensor
    inside: Tensor
    owner: Tensor
    local: Tensor


@dataclass(frozen=True)
class InverseRoot:
    """Galerkin solutions x of K̂x = k in a subspace, and the variances that follow.

    The subspace is that of a low-rank root R with RᵀK̂R = I, the same for all test points, and the
    unit vectors of the one cluster of observations that a test point is nearest to. With such an
    x, kᵀx ≤ kᵀK̂⁻¹k: so k(x*, x*) - kᵀx is never below the variance.

    R alone is the cached root of Pleiss et al. (2018), https://arxiv.org/abs/1803.06058 (LOVE), in
    the space of P⁻¹K[:, S] for the pivots S of the preconditioner instead of a Krylov space: all
    of it is found by one product with K. What noise is small enough to leave to the nearest
    neighbours alone, no root of low rank can hold; the clusters can.

    Attributes:
        R: Shape (n', r), n' ≤ n; zero in the rows appended since.
        KR: K̂R, shape (n, r).
        index: Observations of each cluster, padded with n, shape (c, b).
        owner: Cluster of each observation, shape (n,).
        corners: Inverse Cholesky factors of what R leaves of K̂ on each cluster, (c, b, b).
    """

    R: Tensor
    KR: Tensor
    index: Tensor
    owner: Tensor
    corners: Tensor

    @staticmethod
    def of(
        operator: LinearOperator, basis: Tensor, clusters: Tensor, *, product: Tensor | None = None
    ) -> InverseRoot:
        """Orthonormalise a basis (n, r) in K̂, and factor what is left on clusters (c, b).

        Costs one product of K̂ with r columns, unless that is given.
        """
        KB = operator.matmul(basis) if product is None else product
        M = basis.mT @ KB
        M = 0.5 * (M + M.mT)
        M.diagonal().mul_(1 + _JITTER)
        L = Cholesky().factor(M).L
        R = torch.linalg.solve_triangular(L, basis.mT, upper=False).mT
        KR = torch.linalg.solve_triangular(L, KB.mT, upper=False).mT
        return InverseRoot._with_clusters(operator, R.contiguous(), KR.contiguous(), clusters)

    @staticmethod
    def _with_clusters(
        operator: LinearOperator, R: Tensor, KR: Tensor, clusters: Tensor
    ) -> InverseRoot:
        n, (c, b) = len(R), clusters.shape
        owner = torch.full((n + 1,), -1)
        corners = R.new_empty(c, b, b)
        for i, some in enumerate(clusters):
            owner[some] = i
            inside = some < n
            some = some.where(inside, torch.zeros_like(some))
            rows = KR[some]
            A = operator.blocks(some.unsqueeze(0))[0] - rows @ rows.mT
            A = A * inside.unsqueeze(1) * inside
            A.diagonal()[~inside] = 1.0
            scale = float(operator.diagonal()[some].mean())
            factor = Cholesky().factor(0.5 * (A + A.mT), scale=scale)
            identity = torch.eye(b, dtype=A.dtype)
            corners[i] = torch.linalg.solve_triangular(factor.L, identity, upper=False)
        return InverseRoot(R, KR, clusters, owner[:n], corners)

    @property
    def rank(self) -> int:
        """r."""
        return self.R.shape[1]

    def project(self, k: Tensor) -> Projection:
        """Solve for each row of k (m, n) within the subspace."""
        inside = k[:, : len(self.R)] @ self.R  # (m, r)
        explained = inside.square().sum(1)
        m, b = len(k), self.index.shape[1] if len(self.index) else 0
        local, owner = k.new_zeros(m, b), torch.full((m,), -1)
        if len(self.index) and m:
            owner = self.owner[k.abs().argmax(1)]
            inside = inside.clone()
            for i, points, some in self.groups(owner):
                left = k[points][:, some] - inside[points] @ self.KR[some].mT
                corner = self.corners[i][: len(some), : len(some)]
                w = left @ corner.mT
                explained[points] += w.square().sum(1)
                x = w @ corner  # (p, b)
                local[points, : len(some)] = x
                inside[points] -= x @ self.KR[some]
        return Projection(explained, inside, owner, local)

    def weights(self, projection: Projection) -> Tensor:
        """x for each test point, shape (m, n)."""
        x = self.R.new_zeros(len(projection.inside), len(self.KR))
        torch.mm(projection.inside, self.R.mT, out=x[:, : len(self.R)])
        for _, points, some in self.groups(projection.owner):
            x[points.unsqueeze(1), some] += projection.local[points, : len(some)]
        return x

    def append(self, K12: Tensor, K22: Tensor, clusters: Tensor) -> InverseRoot:
        """The root with m more rows, which come in clusters of their own.

        Args:
            K12: Covariance of old and new rows, shape (n, m).
            K22: Covariance of the new rows with their noise, shape (m, m).
            clusters: Of the new rows, counted from 0, padded with m, shape (c, b).
        """
        n, m = K12.shape
        rows = K12[: len(self.R)].mT @ self.R  # K̂R there, (m, r)
        owner = torch.full((m + 1,), -1)
        width = max(self.index.shape[1], clusters.shape[1])
        index = torch.full((len(self.index) + len(clusters), width), n + m)
        index[: len(self.index), : self.index.shape[1]] = self.index.where(self.index < n, n + m)
        corners = self.corners.new_zeros(len(index), width, width)
        corners.diagonal(dim1=1, dim2=2).fill_(1.0)
        old = self.corners.shape[1]
        corners[: len(self.index), :old, :old] = self.corners
        for i, padded in enumerate(clusters, len(self.index)):
            some = padded[padded < m]
            b = len(some)
            owner[some] = i
            index[i, :b] = some + n
            A = K22[some][:, some] - rows[some] @ rows[some].mT
            scale = float(K22.diagonal()[some].mean())
            factor = Cholesky().factor(0.5 * (A + A.mT), scale=scale)
            identity = torch.eye(b, dtype=A.dtype)
            corners[i, :b, :b] = torch.linalg.solve_triangular(factor.L, identity, upper=False)
        KR = torch.cat([self.KR, rows])
        return InverseRoot(self.R, KR, index, torch.cat([self.owner, owner[:m]]), corners)

    def groups(self, owner: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """For each cluster that owns test points: its number, those points, its observations."""
        groups = []
        for i in owner.unique().tolist():
            if i >= 0:
                some = self.index[i]
                groups.append((i, (owner == i).nonzero().squeeze(1), some[some < len(self.KR)]))
        return groups
