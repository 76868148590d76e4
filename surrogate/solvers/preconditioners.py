"""P ≈ K̂ that is quick to invert: a low-rank part, and what it leaves out on clusters of points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from surrogate.operators.base import LinearOperator
from surrogate.operators.basic import Dense
from surrogate.solvers.cholesky import Cholesky, NotPositiveDefinite, attempted
from surrogate.solvers.pivots import Structure, diagonal_of, rows_of

# Added to the core matrix K_SS, relative to its diagonal: P then stays below K̂.
_JITTER = 1e-9
_SQUARINGS, _SLACK = 5, 1e-9  # of matrices whose largest eigenvalue is bounded; its rounding
_LEAST = 1e-12  # smallest noise variance that P works with, relative to the mean diagonal of K
# Entries of low-rank factors worked on at once, 1 GiB: at n = 10⁶ they are ten times as many, and
# temporary copies of them would not fit beside them.
_AT_ONCE = 2**27


class Preconditioner:
    """P = LᵀL + D, D = blockdiag(K - LᵀL) + noise: the low-rank part of K, all of it on clusters.

    Built from a few rows and blocks of K. Without clusters P = LᵀL + noise ⪯ K̂. Without rank and
    clusters nothing is asked of K but its size.

    Args:
        operator: K without noise.
        noise: Noise variances, shape (n,), at least 0.
        structure: Pivots and clusters.

    Attributes:
        n: Rows of P.
        L: Shape (r, n).
        rank: r.
    """

    def __init__(self, operator: LinearOperator, noise: Tensor, structure: Structure) -> None:
        self.n, self._noise = operator.n, noise
        self._diagonal = None
        if len(structure.pivots) or len(structure.clusters):
            self._diagonal = diagonal_of(operator)
        # Only P is helped where noise is all but zero; K itself is not touched.
        helped = noise.clamp_min(_least(noise, self._diagonal))
        self._pivots = structure.pivots
        self._core, self.L = _low_rank(operator, structure.pivots)  # (r, r), (r, n)
        self.rank = len(self.L)
        if len(structure.clusters):
            self._D = _Blocks.of(operator, self.L, helped, structure.clusters)
        else:
            self._D = _Diagonal(helped)
        self._DL = _divided(self.L, self._D)  # L D⁻¹, (r, n)
        self._M = _cholesky_of_identity_plus(self.L @ self._DL.mT)

    def append(
        self, K12: Tensor, K22: Tensor, noise: Tensor, index: Tensor | None = None
    ) -> Preconditioner:
        """P with m more rows in O(r² m + r³), the same pivots, and clusters of their own.

        Args:
            K12: Covariance of old and new rows, shape (n, m).
            K22: Covariance of the new rows without noise, shape (m, m).
            noise: Noise variances of the new rows, shape (m,).
            index: Clusters of the new rows, counted from 0, padded with m, shape (c, b); needed
                where there are clusters already.
        """
        twin = object.__new__(Preconditioner)
        twin.n, twin.rank = self.n + len(K22), self.rank
        twin._pivots, twin._core = self._pivots, self._core
        twin._noise = torch.cat([self._noise, noise])
        known = self._diagonal
        twin._diagonal = None if known is None else torch.cat([known, K22.diagonal()])
        helped = noise.clamp_min(_least(twin._noise, twin._diagonal))
        L = torch.linalg.solve_triangular(self._core, K12[self._pivots], upper=False)  # (r, m)
        if isinstance(self._D, _Blocks):
            assert index is not None
            added = _Blocks.of(Dense(K22), L, helped, index)
            twin._D = self._D.beside(added, self.n, len(K22))
        else:
            added = _Diagonal(helped)
            twin._D = _Diagonal(torch.cat([self._D.values, helped]))
        DL = added.solve(L.mT).mT
        if "floor" in vars(self):  # the clusters there were need no second look
            twin.floor = min(self.floor, _floor(added, noise))
        twin.L, twin._DL = torch.cat([self.L, L], 1), torch.cat([self._DL, DL], 1)
        twin._M = Cholesky().factor(self._M @ self._M.mT + L @ DL.mT).L
        return twin

    def solve(self, R: Tensor) -> Tensor:
        """Return P⁻¹R for R (n, t), by Woodbury's identity: shape (n, t), column-major."""
        inner = torch.cholesky_solve(self._DL @ R, self._M)  # (r, t)
        return torch.addmm(self._D.solve(R).mT, inner.mT, self._DL, alpha=-1.0).mT

    def logdet(self) -> Tensor:
        """Return log|P|, shape ()."""
        return self._D.logdet() + 2 * self._M.diagonal().log().sum()

    def sample(self, e1: Tensor, e2: Tensor) -> Tensor:
        """Draw z ~ N(0, P) from standard normal numbers: Lᵀe₁ + D^(1/2) e₂.

        Args:
            e1: Shape (r', s), r' ≥ r; the first r rows are used.
            e2: Shape (n, s).

        Returns:
            Shape (n, s), column-major.
        """
        return torch.addmm(self._D.root(e2).mT, e1[: self.rank].mT, self.L).mT

    @cached_property
    def logdet_bounds(self) -> tuple[float, float]:
        """Two numbers that log|K̂| is certainly between, however far apart they may be.

            log|LᵀL + N| ≤ log|K̂| ≤ log|LᵀL + N| + n log(1 + tr(N⁻¹(K - LᵀL)) / n)

        where N is the noise. Source: Artemev, Burt & van der Wilk (2021),
        https://arxiv.org/abs/2102.08314.
        """
        noise = self._noise
        if not bool((noise > 0).all()):
            return -math.inf, math.inf
        A = self.L.new_empty(self.rank, self.rank)
        for some in _slices(self.L):
            A[some] = (self.L[some] / noise) @ self.L.mT
        M = _cholesky_of_identity_plus(A)
        bound = noise.log().sum() + 2 * M.diagonal().log().sum()
        if self._diagonal is None:
            low = float(bound)
            return low, math.inf if self.n else low
        left = self._diagonal
        for some in _slices(self.L):
            left = left - self.L[some].square().sum(0)
        left = left.clamp_min(0.0)
        low, more = torch.stack([bound, (left / noise).mean()]).tolist()
        return low, low + self.n * math.log1p(more)

    @cached_property
    def floor(self) -> float:
        """No eigenvalue of P⁻¹K̂ is below this; 1 without clusters, for P ⪯ K̂ then.

        K̂ ⪰ LᵀL + N ⪰ (LᵀL + D) / λ, where N is the noise and λ ≥ 1 at least as large as all
        eigenvalues of N⁻¹D.
        """
        return _floor(self._D, self._noise)

    def energy_bound(self, R: Tensor) -> Tensor:
        """Upper bound of rᵀK̂⁻¹r for each column of R (n, t), shape (t,): the lesser of two.

        K̂ ⪰ N, the noise, and K̂ ⪰ λP, λ the floor.
        """
        squares = R.square().mT  # (t, n)
        plain = torch.where(squares > 0, squares / self._noise, 0.0).sum(1)
        by_P = (R * self.solve(R)).sum(0)
        return torch.minimum(plain, by_P / self.floor) if self.floor > 0 else plain


def _floor(D: _Diagonal | _Blocks, noise: Tensor) -> float:
    return 1.0 / max(1.0, D.largest_over(noise)) if len(noise) else 1.0


def _least(noise: Tensor, diagonal: Tensor | None) -> float:
    """The smallest noise variance that P works with."""
    scale = float(diagonal.mean()) if diagonal is not None else 0.0
    if scale > 0:
        return _LEAST * scale
    some = noise[noise > 0]
    return float(some.min()) if len(some) else 1.0


@dataclass(frozen=True)
class _Diagonal:
    """D = diag(values)."""

    values: Tensor

    def solve(self, R: Tensor) -> Tensor:
        return (R.mT / self.values).mT

    def root(self, E: Tensor) -> Tensor:
        return (E.mT * self.values.sqrt()).mT

    def logdet(self) -> Tensor:
        return self.values.log().sum()

    def largest_over(self, noise: Tensor) -> float:
        return float((self.values / noise).max())


@dataclass(frozen=True)
class _Blocks:
    """D, block-diagonal: B = RRᵀ on each cluster.

    Attributes:
        index: The clusters, shape (c, b), padded with n.
        factor: R, shape (c, b, b).
        inverse: B⁻¹, shape (c, b, b).
    """

    index: Tensor
    factor: Tensor
    inverse: Tensor

    @staticmethod
    def of(operator: LinearOperator, L: Tensor, noise: Tensor, index: Tensor) -> _Blocks:
        """K - LᵀL + noise on each cluster, and 1 on the diagonal where it is padded."""
        inside = index < operator.n
        known = index.where(inside, 0)
        B = operator.blocks(known).detach().to(torch.float64)
        if len(L):
            each = max(1, _AT_ONCE // (len(L) * max(index.shape[1], 1)))  # clusters
            low = (L.mT[some] for some in known.split(each))  # (c, b, r)
            B = B - torch.cat([rows @ rows.mT for rows in low])
        B = B * (inside.unsqueeze(-1) * inside.unsqueeze(-2))
        B.diagonal(dim1=1, dim2=2).add_(_padded(noise, index, 1.0))
        scale, jitter = B.diagonal(dim1=1, dim2=2).amax(1), 1e-12  # (c,)
        factor, info = attempted(B)
        while bool(info.any()):
            if jitter > 1e-3:
                raise NotPositiveDefinite(
                    "the covariance of a cluster of points is not positive definite, not even with "
                    "0.1 % of its diagonal added; is the kernel positive definite?"
                )
            B.diagonal(dim1=1, dim2=2).add_((jitter * scale * (info > 0)).unsqueeze(1))
            factor, info = attempted(B)
            jitter *= 10
        return _Blocks(index, factor, _inverses(factor))

    def solve(self, R: Tensor) -> Tensor:
        return self._multiply(self.inverse, R)

    def root(self, E: Tensor) -> Tensor:
        return self._multiply(self.factor, E)

    def logdet(self) -> Tensor:
        return 2 * self.factor.diagonal(dim1=1, dim2=2).log().sum()  # padding adds log 1

    def beside(self, other: _Blocks, n: int, m: int) -> _Blocks:
        """D of n rows and that of m rows after them, in one."""
        width = max(self.index.shape[1], other.index.shape[1])
        old = self.index.where(self.index < n, n + m)
        new = (other.index + n).where(other.index < m, n + m)
        index = torch.cat([_widened(old, width, n + m), _widened(new, width, n + m)])
        factor = torch.cat([_bordered(self.factor, width), _bordered(other.factor, width)])
        inverse = torch.cat([_bordered(self.inverse, width), _bordered(other.inverse, width)])
        return _Blocks(index, factor, inverse)

    def largest_over(self, noise: Tensor) -> float:
        scaled = self.factor / _padded(noise, self.index, 1.0).sqrt().unsqueeze(-1)
        if not bool(scaled.isfinite().all()):
            return math.inf
        return _largest_eigenvalue(scaled @ scaled.mT)

    def _multiply(self, blocks: Tensor, R: Tensor) -> Tensor:
        out = R.new_empty(len(R) + 1, R.shape[1])  # padding goes to the last row
        step = max(1, _AT_ONCE // max(len(R), 1))
        for i in range(0, R.shape[1], step):
            some = slice(i, i + step)
            out[self.index, some] = blocks @ _padded(R[:, some], self.index, 0.0)
        return out[:-1]


def _inverses(factor: Tensor) -> Tensor:
    """(RRᵀ)⁻¹ of Cholesky factors R (c, b, b)."""
    if factor.device.type == "cpu":
        return torch.cholesky_inverse(factor)
    # CUDA inverts many small factors one after another, and solves with all of them at once.
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    root = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return root.mT @ root


def _largest_eigenvalue(A: Tensor) -> float:
    """At least the largest eigenvalue of any of A (c, b, b), which are positive semi-definite.

    Exactly on the CPU. CUDA finds eigenvalues of many matrices one after another; there it is
    ‖A^32‖^(1/32) in the norm of Frobenius, more than the truth by b^(1/64), 8 % for b = 160.
    """
    if A.device.type == "cpu" or not A.numel():
        return float(torch.linalg.eigvalsh(A)[:, -1].max()) if A.numel() else 0.0
    size = A.flatten(1).norm(dim=1)  # (c,), at least the eigenvalue
    size = torch.where(size > 0, size, 1.0)
    powers = A / size.view(-1, 1, 1)
    for _ in range(_SQUARINGS):
        powers = powers @ powers
    root = powers.flatten(1).norm(dim=1).pow(0.5**_SQUARINGS)
    return (1 + _SLACK) * float((size * root).max())


def _padded(values: Tensor, index: Tensor, fill: float) -> Tensor:
    """Rows of `values` (n, …) cluster by cluster, `fill` where there are none: (c, b, …)."""
    end = values.new_full((1, *values.shape[1:]), fill)
    return torch.cat([values, end])[index]


def _widened(index: Tensor, width: int, fill: int) -> Tensor:
    """Clusters (c, b) padded to (c, width)."""
    out = index.new_full((len(index), width), fill)
    out[:, : index.shape[1]] = index
    return out


def _bordered(blocks: Tensor, width: int) -> Tensor:
    """Blocks (c, b, b) with 1 on the diagonal up to (c, width, width)."""
    out = torch.eye(width, dtype=blocks.dtype, device=blocks.device).repeat(len(blocks), 1, 1)
    out[:, : blocks.shape[1], : blocks.shape[2]] = blocks
    return out


def _low_rank(operator: LinearOperator, pivots: Tensor) -> tuple[Tensor, Tensor]:
    """Factor F of K_SS + jitter and L = F⁻¹K[S, :] (r, n): so LᵀL ⪯ K."""
    if not len(pivots):
        none = torch.empty(0, operator.n, dtype=torch.float64, device=operator.device)
        return none[:, :0], none
    rows = rows_of(operator, pivots)
    core = rows[:, pivots]
    core = 0.5 * (core + core.mT)
    core.diagonal().mul_(1 + _JITTER)
    factor = Cholesky().factor(core).L
    return factor, torch.linalg.solve_triangular(factor, rows, upper=False)


def _slices(L: Tensor) -> Iterator[slice]:
    """Rows of L (r, n) to work on at once."""
    step = max(1, _AT_ONCE // max(L.shape[1], 1))
    return (slice(i, i + step) for i in range(0, len(L), step))


def _divided(L: Tensor, D: _Diagonal | _Blocks) -> Tensor:
    """L D⁻¹, (r, n)."""
    out = L.new_empty(L.shape)
    for some in _slices(L):
        out[some] = D.solve(L[some].mT).mT
    return out


def _cholesky_of_identity_plus(A: Tensor) -> Tensor:
    """The factor of I + A, which is positive definite for a positive semi-definite A (r, r)."""
    A.diagonal().add_(1.0)
    return Cholesky().factor(A).L
