"""K̂⁻¹ within a subspace: one low-rank root for all points, and a small factor for each cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from surrogate.operators.base import LinearOperator
from surrogate.solvers.cholesky import Cholesky, attempted
from surrogate.solvers.pivots import clusters

_JITTER = 1e-10  # relative, of the Gram matrix of the subspace
_AROUND = 4000  # rows around those appended that are taken into account, at most
_AT_ONCE = 2**26  # numbers of clusters that are factored together on a GPU: 512 MiB


@dataclass(frozen=True)
class Projection:
    """What a subspace tells of k = k(X, x*) for m test points.

    Attributes:
        explained: kᵀK̂⁻¹k within the subspace, never more than the whole, shape (m,).
        inside: Coefficients of the low-rank part, shape (m, r).
        owner: Cluster of each point, shape (m,); -1 for none.
        groups: For each cluster that owns test points: its number, those points, its observations.
        local: Coefficients on the cluster's points, shape (m, b).
    """

    explained: Tensor
    inside: Tensor
    owner: Tensor
    groups: list[tuple[int, Tensor, Tensor]]
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
        KR: K̂R, the first n' rows of it.
        beyond: K̂R, the rows appended since, shape (n - n', r).
        members: Observations of each cluster, tensors of shape (b,).
        owner: Cluster of each observation, shape (n,); -1 for none.
        corners: Inverse Cholesky factors of what R leaves of K̂ on each cluster, shapes (b, b).
        newest: Clusters that hold rows of the last `append`.
    """

    R: Tensor
    KR: Tensor
    beyond: Tensor
    members: tuple[Tensor, ...]
    owner: Tensor
    corners: tuple[Tensor, ...]
    newest: tuple[int, ...] = ()

    @staticmethod
    def of(
        operator: LinearOperator, basis: Tensor, index: Tensor, *, product: Tensor | None = None
    ) -> InverseRoot:
        """Orthonormalise a basis (n, r) in K̂, and factor what is left on clusters: `index` (c, b),
        padded with n.

        Costs one product of K̂ with r columns, unless that is given.
        """
        n = len(basis)
        KB = operator.matmul(basis) if product is None else product
        M = basis.mT @ KB
        M = 0.5 * (M + M.mT)
        M.diagonal().mul_(1 + _JITTER)
        L = Cholesky().factor(M).L
        R = torch.linalg.solve_triangular(L, basis.mT, upper=False).mT.contiguous()
        KR = torch.linalg.solve_triangular(L, KB.mT, upper=False).mT.contiguous()
        sizes = (index < n).sum(1).tolist()
        members = tuple(some[:size] for some, size in zip(index, sizes, strict=True))
        corners = _corners(operator, lambda some: KR[some], members)
        return InverseRoot(R, KR, KR[:0], members, _owners(members, n, R.device), corners)

    @property
    def rank(self) -> int:
        """r."""
        return self.R.shape[1]

    def project(self, k: Tensor) -> Projection:
        """Solve for each row of k (m, n) within the subspace."""
        inside = k[:, : len(self.R)] @ self.R  # (m, r)
        explained = inside.square().sum(1)
        m, b = len(k), max((len(some) for some in self.members), default=0)
        local, owner, groups = k.new_zeros(m, b), self.owner.new_full((m,), -1), []
        if self.members and m:
            owner = self.owner[k.abs().argmax(1)]
            groups = self.groups(owner)
            inside = inside.clone()
            for i, points, some in groups:
                rows = self.rows(some)
                left = k[points][:, some] - inside[points] @ rows.mT
                corner = self.corners[i]
                w = left @ corner.mT
                explained[points] += w.square().sum(1)
                x = w @ corner  # (p, b)
                local[points, : len(some)] = x
                inside[points] -= x @ rows
        return Projection(explained, inside, owner, groups, local)

    def weights(self, projection: Projection) -> Tensor:
        """x for each test point, shape (m, n)."""
        x = self.R.new_zeros(len(projection.inside), len(self.owner))
        torch.mm(projection.inside, self.R.mT, out=x[:, : len(self.R)])
        for _, points, some in projection.groups:
            x[points.unsqueeze(1), some] += projection.local[points, : len(some)]
        return x

    def append(self, operator: LinearOperator, K12: Tensor, X: Tensor, block: int) -> InverseRoot:
        """The root with m more rows, each of which joins the cluster it is nearest to.

        A cluster that grows beyond twice the size asked for is split.

        Args:
            operator: K̂ of all rows; asked for its blocks and its diagonal.
            K12: Covariance of old and new rows, shape (n, m).
            X: Coordinates of all rows, shape (n + m, d).
            block: Points in a cluster.
        """
        n, m = K12.shape
        beyond = torch.cat([self.beyond, K12[: len(self.R)].mT @ self.R])
        root = replace(self, beyond=beyond)
        new = torch.arange(n, n + m)
        nearest = torch.full((m,), -1)
        if n and m:
            nearest = self.owner[K12.abs().argmax(0)].cpu()
        members, corners = list(self.members), list(self.corners)
        newest: list[int] = []
        for i in nearest.unique().tolist():
            joining = new[nearest == i].to(K12.device)
            some = torch.cat([members[i], joining]) if i >= 0 else joining
            parts = [some]
            if i < 0 or len(some) > 2 * block:
                parts = [some[part[part < len(some)]] for part in clusters(X[some], block)]
            for part in parts:
                if i < 0:
                    i = len(members)
                if i == len(members):
                    members.append(part)
                    corners.append(part)
                members[i] = part
                (corners[i],) = _corners(operator, root.rows, [part])
                if len(parts) == 1 or bool((part >= n).any()):
                    newest.append(i)
                i = len(members)
        return replace(
            root,
            members=tuple(members),
            owner=_owners(members, n + m, K12.device),
            corners=tuple(corners),
            newest=tuple(newest),
        )

    def appended(self, operator: LinearOperator, surprise: Tensor) -> Tensor:
        """x ≈ K̂⁻¹[0; s] in the span of R and of the clusters with rows of the last `append`.

        Of clusters beyond a few thousand rows only the new rows, those with fewest of them first.
        What the weights of these rows' targets change by, if s is what the targets are beyond what
        was expected of them. The error is the smallest in the energy of K̂ that the span allows.

        Args:
            operator: K̂ of all rows; asked for a block.
            surprise: s, shape (m,).

        Returns:
            Shape (n,).
        """
        n, m = len(self.owner), len(surprise)
        x = surprise.new_zeros(n)
        if not m:
            return x
        some = self._around(n - m)
        rows = self.rows(some)
        target = torch.where(some >= n - m, surprise[(some - (n - m)).clamp_min(0)], 0.0)
        A = _left(operator, rows, some)
        scale = float(operator.diagonal()[some].mean())
        local = Cholesky().factor(A, scale=scale).solve(target.unsqueeze(1)).squeeze(1)
        x[: len(self.R)] = self.R @ -(local @ rows)
        x[some] += local
        return x

    def rows(self, some: Tensor) -> Tensor:
        """Rows of K̂R, shape (len(some), r)."""
        n = len(self.KR)
        if not len(self.beyond):
            return self.KR[some]
        if not n:
            return self.beyond[some]
        # Not by truth values, of which the host would have to know how many there are.
        old, new = self.KR[some.clamp_max(n - 1)], self.beyond[(some - n).clamp_min(0)]
        return torch.where((some < n).unsqueeze(1), old, new)

    def _around(self, first: int) -> Tensor:
        """Rows from `first` on, and what else is in their clusters, as long as it is not much."""
        clusters = [self.members[i] for i in self.newest]
        counts = torch.stack([(some >= first).sum() for some in clusters]).tolist()
        parts, size = [], 0
        for i in sorted(range(len(clusters)), key=lambda i: counts[i], reverse=True):
            some = clusters[i]
            part = some if size + len(some) <= _AROUND else some[some >= first]
            parts.append(part)
            size += len(part)
        return torch.cat(parts)

    def groups(self, owner: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """For each cluster that owns test points: its number, those points, its observations.

        Args:
            owner: Cluster of each point, shape (m,); -1 for none.
        """
        owner, order = owner.sort(stable=True)
        numbers, sizes = owner.cpu().unique_consecutive(return_counts=True)
        points = order.split(sizes.tolist())
        return [
            (i, part, self.members[i])
            for i, part in zip(numbers.tolist(), points, strict=True)
            if i >= 0
        ]


def _owners(members: Sequence[Tensor], n: int, device: torch.device) -> Tensor:
    owner = torch.full((n,), -1, device=device)
    for i, some in enumerate(members):
        owner[some] = i
    return owner


def _left(operator: LinearOperator, rows: Tensor, some: Tensor) -> Tensor:
    """What R leaves of K̂ at `some`, the rows of K̂R there given."""
    return operator.blocks(some.unsqueeze(0))[0].addmm_(rows, rows.mT, alpha=-1.0)


def _corners(
    operator: LinearOperator, rows: Callable[[Tensor], Tensor], members: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Inverse Cholesky factors of what R leaves of K̂ on clusters; `rows` gives those of K̂R.

    Asked for a few clusters at a time: those of all are as large as K̂R.
    """
    if not members:
        return ()
    found: list[Tensor | None] = [None] * len(members)
    if operator.device.type != "cpu":  # there a launch takes longer than a small matrix
        found = _corners_together(operator, rows, members)
    missing = [i for i, corner in enumerate(found) if corner is None]
    if not missing:
        return tuple(corner for corner in found if corner is not None)
    diagonal = operator.diagonal()
    scales = torch.stack([diagonal[members[i]].mean() for i in missing]).tolist()
    for i, scale in zip(missing, scales, strict=True):
        left = _left(operator, rows(members[i]), members[i])
        factor = Cholesky().factor(left, scale=scale)
        identity = torch.eye(len(left), dtype=left.dtype, device=left.device)
        found[i] = factor.whiten(identity)
    return tuple(corner for corner in found if corner is not None)


def _corners_together(
    operator: LinearOperator, rows: Callable[[Tensor], Tensor], members: Sequence[Tensor]
) -> list[Tensor | None]:
    """`_corners`, many clusters of one size at a time; None where it takes jitter."""
    found: list[Tensor | None] = [None] * len(members)
    for b in {len(some) for some in members}:
        alike = [i for i, some in enumerate(members) if len(some) == b]
        count = max(1, _AT_ONCE // max(b * max(b, rows(members[0][:0]).shape[1]), 1))
        for some in (alike[j : j + count] for j in range(0, len(alike), count)):
            index = torch.stack([members[i] for i in some])
            part = rows(index.flatten()).unflatten(0, index.shape)
            A = operator.blocks(index) - part @ part.mT
            factor, info = attempted(A)
            identity = torch.eye(b, dtype=A.dtype, device=A.device).expand_as(A)
            roots = torch.linalg.solve_triangular(factor, identity, upper=False)
            for i, root, failed in zip(some, roots, info.tolist(), strict=True):
                found[i] = None if failed else root
    return found
