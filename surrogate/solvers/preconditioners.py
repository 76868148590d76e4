"""P ≈ K̂ that is quick to invert: a low-rank part, and what it leaves out on clusters of points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from surrogate.checks import check_finite
from surrogate.operators.base import LinearOperator
from surrogate.operators.basic import Dense
from surrogate.solvers.cholesky import Cholesky, NotPositiveDefinite

# Added to the core matrix K_SS, relative to its diagonal: P then stays below K̂.
_JITTER = 1e-9
_LEAST = 1e-12  # smallest noise variance that P works with, relative to the mean diagonal of K
_PROPOSALS = 64  # pivots proposed at once; each is then accepted with the right probability
_ROUNDING = 1e-12  # of an entry of the diagonal, below which what is left of it says nothing
_LOST = 0.1  # of the noise, below which what is left of K is lost in it


@dataclass(frozen=True)
class Structure:
    """What a preconditioner is made of, apart from numbers: kept while parameters change little.

    Attributes:
        pivots: Rows that span the low-rank part, shape (r,).
        clusters: Rows whose covariance is kept as it is, shape (c, b), padded with n; c may be 0.
    """

    pivots: Tensor
    clusters: Tensor

    @staticmethod
    def of(
        operator: LinearOperator,
        noise: Tensor,
        *,
        rank: int,
        block: int,
        generator: torch.Generator,
    ) -> Structure:
        """Choose pivots by randomly pivoted Cholesky and clusters by their coordinates.

        Args:
            operator: K without noise.
            noise: Noise variances, shape (n,): pivots stop paying once all that is left of K is
                below a tenth of them.
            rank: Most pivots; 0 for none.
            block: Points in a cluster, at most; 0 for none, and none for an operator without
                coordinates.
            generator: Randomness of the pivots.
        """
        pivots = torch.empty(0, dtype=torch.long)
        if rank and operator.n:
            pivots = random_pivots(operator, noise, min(rank, operator.n), generator)
        coordinates = operator.coordinates if block else None
        if coordinates is None:
            return Structure(pivots, torch.empty(0, 0, dtype=torch.long))
        return Structure(pivots, clusters(coordinates, block))


def random_pivots(
    operator: LinearOperator, noise: Tensor, rank: int, generator: torch.Generator
) -> Tensor:
    """Up to `rank` rows of K, each drawn with probability in proportion to what is left of K there.

    Proposals are drawn and their rows computed many at a time, then accepted one by one with the
    probability that makes the result that of drawing one at a time.

    Source: Chen, Epperly, Tropp & Webber (2023), Randomly pivoted Cholesky,
    https://arxiv.org/abs/2207.06503; rejection after Epperly, Tropp & Webber (2024),
    https://arxiv.org/abs/2410.03969.
    """
    n = operator.n
    left = _diagonal_of(operator).clone()  # (n,), the diagonal of K - LᵀL
    rounding = _ROUNDING * left
    enough = torch.maximum(_LOST * noise, rounding)
    L = torch.empty(rank, n, dtype=left.dtype)
    pivots: list[int] = []
    while len(pivots) < rank and bool((left > enough).any()):
        count = min(_PROPOSALS, n)
        proposed = torch.multinomial(left, count, replacement=True, generator=generator)
        uniform = torch.rand(count, generator=generator, dtype=left.dtype)
        before = len(pivots)
        rows = _rows_of(operator, proposed) - L[:before, proposed].mT @ L[:before]  # (count, n)
        hurdle = (uniform * left[proposed]).tolist()
        for j, i in enumerate(proposed.tolist()):
            now = float(rows[j, i])
            if now <= float(rounding[i]):  # a row that was taken, or one like it
                left[i] = 0.0
            elif now >= hurdle[j]:
                k = len(pivots)
                L[k] = rows[j] / now**0.5
                rows[j + 1 :].addr_(L[k, proposed[j + 1 :]], L[k], alpha=-1.0)
                pivots.append(i)
                if k + 1 == rank:
                    break
        left -= L[before : len(pivots)].square().sum(0)
        left = torch.where(left > rounding, left, 0.0)
        left[pivots] = 0.0
    return torch.tensor(pivots, dtype=torch.long)


def clusters(X: Tensor, size: int) -> Tensor:
    """Split points into clusters of at most `size`, halving along the widest direction.

    Args:
        X: Shape (n, d).
        size: At least 1.

    Returns:
        Indices, shape (c, b), b ≤ size; short clusters are padded with n.
    """
    n = len(X)
    parts = _split(X, torch.arange(n), -(-n // size)) if n else []
    width = max((len(part) for part in parts), default=0)
    out = torch.full((len(parts), width), n)
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out


def _split(X: Tensor, index: Tensor, count: int) -> list[Tensor]:
    """`count` parts whose sizes differ by at most one, of points close to each other."""
    if count == 1:
        return [index]
    points, first = X[index], count // 2
    at = len(index) * first // count
    if X.shape[1]:
        axis = int((points.amax(0) - points.amin(0)).argmax())
        index = index[points[:, axis].argsort(stable=True)]
    return _split(X, index[:at], first) + _split(X, index[at:], count - first)


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
            self._diagonal = _diagonal_of(operator)
        # Only P is helped where noise is all but zero; K itself is not touched.
        helped = noise.clamp_min(_least(noise, self._diagonal))
        self._pivots = structure.pivots
        self._core, self.L = _low_rank(operator, structure.pivots)  # (r, r), (r, n)
        self.rank = len(self.L)
        if len(structure.clusters):
            self._D = _Blocks.of(operator, self.L, helped, structure.clusters)
        else:
            self._D = _Diagonal(helped)
        self._DL = self._D.solve(self.L.mT).mT.contiguous()  # L D⁻¹, (r, n)
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
        M = _cholesky_of_identity_plus((self.L / noise) @ self.L.mT)
        low = float(noise.log().sum() + 2 * M.diagonal().log().sum())
        if self._diagonal is None:
            return low, math.inf if self.n else low
        left = (self._diagonal - self.L.square().sum(0)).clamp_min(0.0)
        return low, low + self.n * math.log1p(float((left / noise).mean()))

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
        rows = _padded(L.mT, index, 0.0)  # (c, b, r)
        B = operator.blocks(index.where(inside, 0)).detach().to(torch.float64) - rows @ rows.mT
        B *= inside.unsqueeze(-1) * inside.unsqueeze(-2)
        B.diagonal(dim1=1, dim2=2).add_(_padded(noise, index, 1.0))
        scale, jitter = B.diagonal(dim1=1, dim2=2).amax(1), 1e-12  # (c,)
        factor, info = torch.linalg.cholesky_ex(B)
        while bool(info.any()):
            if jitter > 1e-3:
                raise NotPositiveDefinite(
                    "the covariance of a cluster of points is not positive definite, not even with "
                    "0.1 % of its diagonal added; is the kernel positive definite?"
                )
            B.diagonal(dim1=1, dim2=2).add_((jitter * scale * (info > 0)).unsqueeze(1))
            factor, info = torch.linalg.cholesky_ex(B)
            jitter *= 10
        return _Blocks(index, factor, torch.cholesky_inverse(factor))

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
        return float(torch.linalg.eigvalsh(scaled @ scaled.mT)[:, -1].max())

    def _multiply(self, blocks: Tensor, R: Tensor) -> Tensor:
        out = R.new_empty(len(R) + 1, R.shape[1])  # padding goes to the last row
        out[self.index] = blocks @ _padded(R, self.index, 0.0)
        return out[:-1]


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
    out = torch.eye(width, dtype=blocks.dtype).repeat(len(blocks), 1, 1)
    out[:, : blocks.shape[1], : blocks.shape[2]] = blocks
    return out


def _diagonal_of(operator: LinearOperator) -> Tensor:
    """The diagonal of K in float64, shape (n,), or raise unless it is finite."""
    diagonal = operator.diagonal().detach().to(torch.float64)
    check_finite("the diagonal of K", diagonal)
    return diagonal


def _rows_of(operator: LinearOperator, index: Tensor) -> Tensor:
    """Rows of K in float64, shape (k, n)."""
    return operator.rows(index).detach().to(torch.float64)


def _low_rank(operator: LinearOperator, pivots: Tensor) -> tuple[Tensor, Tensor]:
    """Factor F of K_SS + jitter and L = F⁻¹K[S, :] (r, n): so LᵀL ⪯ K."""
    if not len(pivots):
        none = torch.empty(0, operator.n, dtype=torch.float64)
        return none[:, :0], none
    rows = _rows_of(operator, pivots)
    core = rows[:, pivots]
    core = 0.5 * (core + core.mT)
    core.diagonal().mul_(1 + _JITTER)
    factor = Cholesky().factor(core).L
    return factor, torch.linalg.solve_triangular(factor, rows, upper=False)


def _cholesky_of_identity_plus(A: Tensor) -> Tensor:
    """The factor of I + A, which is positive definite for a positive semi-definite A (r, r)."""
    A.diagonal().add_(1.0)
    return Cholesky().factor(A).L
