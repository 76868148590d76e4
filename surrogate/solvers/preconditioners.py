"""P ≈ K̂ that is quick to invert: a low-rank part, and what it leaves out on clusters of points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from surrogate.operators.base import LinearOperator
from surrogate.solvers.cholesky import Cholesky, NotPositiveDefinite

# Added to the core matrix K_SS, relative to its diagonal: P then stays below K̂.
_JITTER = 1e-9
_LEAST = 1e-12  # smallest noise variance that P works with, relative to the mean diagonal of K
_PROPOSALS = 64  # pivots proposed at once; each is then accepted with the right probability


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
            block: Points in a cluster, at most; 0 for none. An operator without coordinates has none.
            generator: Randomness of the pivots.
        """
        n, coordinates = operator.n, operator.coordinates
        pivots = random_pivots(operator, noise, min(rank, n), generator) if rank else torch.empty(0, dtype=torch.long)
        none = torch.empty(0, 0, dtype=torch.long)
        return Structure(pivots, clusters(coordinates, block) if block and coordinates is not None else none)


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
    left = operator.diagonal().clone().clamp_min(0.0)  # (n,)
    L = torch.empty(rank, n, dtype=left.dtype)
    pivots: list[int] = []
    enough = 0.1 * noise  # what is left then is lost in the noise
    while len(pivots) < rank and bool((left > enough).any()):
        proposed = torch.multinomial(left, min(_PROPOSALS, n), replacement=True, generator=generator)
        rows = operator.rows(proposed)
        k = len(pivots)
        rows = rows - L[:k, proposed].mT @ L[:k]  # the residual's rows, (p, n)
        uniform = torch.rand(len(proposed), generator=generator, dtype=left.dtype)
        before, accepted = left[proposed], []
        for j, i in enumerate(proposed.tolist()):
            now = float(rows[j, i])
            # What rounding leaves of a row that was taken is no row.
            if now < float(uniform[j] * before[j]) or now <= 1e-12 * float(before[j]):
                continue
            L[k] = rows[j] / now**0.5
            rows[j + 1 :].addr_(L[k, proposed[j + 1 :]], L[k], alpha=-1.0)
            accepted.append(i)
            k += 1
            if k == rank:
                break
        left = (left - L[len(pivots) : k].square().sum(0)).clamp_min(0.0)
        pivots += accepted
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
    count = max(1, -(-n // size))
    parts = _split(X, torch.arange(n), count)
    width = max((len(part) for part in parts), default=0)
    out = torch.full((len(parts), width), n)
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out


def _split(X: Tensor, index: Tensor, count: int) -> list[Tensor]:
    if count == 1 or len(index) < 2:
        return [index]
    points = X[index]
    axis = int((points.amax(0) - points.amin(0)).argmax())
    order = index[points[:, axis].argsort(stable=True)]
    first = count // 2
    at = round(len(index) * first / count)
    return _split(X, order[:at], first) + _split(X, order[at:], count - first)


class Preconditioner:
    """P = L Lᵀ + blockdiag(K - L Lᵀ) + noise: the low-rank part of K, all of it on clusters.

    Built from a few rows and blocks of K. Without clusters P = L Lᵀ + noise ⪯ K̂.

    Args:
        operator: K without noise.
        noise: Noise variances, shape (n,), positive.
        structure: Pivots and clusters.

    Attributes:
        L: Shape (r, n); its rows are the columns of the formula.
        rank: r.
    """

    def __init__(self, operator: LinearOperator, noise: Tensor, structure: Structure) -> None:
        self.n, self._index = operator.n, structure.clusters
        # Only P is helped where noise is all but zero; K itself is not touched.
        self._diagonal = operator.diagonal()
        self._noise = noise.clamp_min(_LEAST * float(self._diagonal.mean()))
        self.L = _low_rank(operator, structure.pivots)  # (r, n)
        self.rank = len(self.L)
        self._left = self._residual(operator) if len(self._index) else None  # (c, b, b)
        self._root, self._inverse = self._factor()
        self._DL = self._by_diagonal(self.L.mT).mT.contiguous()  # D⁻¹L, (r, n)
        M = self.L @ self._DL.mT
        M.diagonal().add_(1.0)
        self._M = Cholesky().factor(M).L

    def solve(self, R: Tensor) -> Tensor:
        """Return P⁻¹R for R (n, t), by Woodbury's identity."""
        inner = torch.cholesky_solve(self._DL @ R, self._M)  # (r, t)
        return torch.addmm(self._by_diagonal(R).mT, inner.mT, self._DL, alpha=-1.0).mT

    def logdet(self) -> Tensor:
        """Return log|P|, shape ()."""
        if self._root is None:
            blocks = self._noise.log().sum()
        else:
            blocks = 2 * self._root.diagonal(dim1=1, dim2=2).log().sum()  # padding adds log 1
        return blocks + 2 * self._M.diagonal().log().sum()

    def sample(self, e1: Tensor, e2: Tensor) -> Tensor:
        """Draw z ~ N(0, P) from standard normal numbers: Lᵀe₁ + D^(1/2) e₂.

        Args:
            e1: Shape (r', s), r' ≥ r; the first r rows are used.
            e2: Shape (n, s).

        Returns:
            Shape (n, s), column-major.
        """
        low = e1[: self.rank].mT @ self.L  # (s, n)
        if self._root is None:
            return (low + e2.mT * self._noise.sqrt()).mT
        return (low + self._by_blocks(self._root, e2).mT).mT

    @cached_property
    def logdet_bounds(self) -> tuple[float, float]:
        """Two numbers that log|K̂| is certainly between, however far apart they may be.

            log|LLᵀ + N| ≤ log|K̂| ≤ log|LLᵀ + N| + n log(1 + tr(N⁻¹(K - LLᵀ)) / n)

        Source: Artemev, Burt & van der Wilk (2021), https://arxiv.org/abs/2102.08314.
        """
        noise = self._noise
        M = (self.L / noise) @ self.L.mT
        M.diagonal().add_(1.0)
        low = float(noise.log().sum() + Cholesky().factor(M).logdet())
        trace = float(((self._diagonal - self.L.square().sum(0)).clamp_min(0.0) / noise).sum())
        return low, low + self.n * math.log1p(trace / self.n) if self.n else low

    @cached_property
    def floor(self) -> float:
        """No eigenvalue of P⁻¹K̂ is below this; 1 without clusters, for P ⪯ K̂ then.

        With E = K - LLᵀ ⪰ 0 and noise N: K̂ ⪰ LLᵀ + N ⪰ (LLᵀ + blockdiag(E) + N) / (1 + λ), where
        λ is the largest eigenvalue of N^(-1/2) blockdiag(E) N^(-1/2).
        """
        if self._left is None:
            return 1.0
        scale = self._padded(self._noise, 1.0).rsqrt()  # (c, b)
        scaled = scale.unsqueeze(-1) * self._left * scale.unsqueeze(-2)
        return 1.0 / (1.0 + max(float(torch.linalg.eigvalsh(scaled)[:, -1].max()), 0.0))

    def _residual(self, operator: LinearOperator) -> Tensor:
        """K - LLᵀ on each cluster, zero where padded: shape (c, b, b)."""
        inside = self._index < self.n
        index = self._index.where(inside, torch.zeros_like(self._index))
        L = self._padded(self.L.mT, 0.0)  # (c, b, r)
        E = operator.blocks(index) - L @ L.mT
        return E * inside.unsqueeze(-1) * inside.unsqueeze(-2)

    def _factor(self) -> tuple[Tensor | None, Tensor | None]:
        """Cholesky factors and inverses of the blocks of D, each (c, b, b)."""
        if self._left is None:
            return None, None
        D = self._left + self._padded(self._noise, 1.0).diag_embed()
        scale = D.diagonal(dim1=1, dim2=2).amax(1)  # (c,)
        jitter = 1e-12
        root, info = torch.linalg.cholesky_ex(D)
        while bool(info.any()) and jitter < 1e-2:
            D.diagonal(dim1=1, dim2=2).add_((jitter * scale * (info > 0)).unsqueeze(1))
            root, info = torch.linalg.cholesky_ex(D)
            jitter *= 10
        if bool(info.any()):
            raise NotPositiveDefinite(
                "the covariance of a cluster of points is not positive definite, not even with 1 % "
                "of its diagonal added; is the kernel positive definite?"
            )
        return root, torch.cholesky_inverse(root)

    def _by_diagonal(self, R: Tensor) -> Tensor:
        """D⁻¹R for R (n, t), D the block-diagonal part of P."""
        if self._inverse is None:
            return (R.mT / self._noise).mT
        return self._by_blocks(self._inverse, R)

    def _by_blocks(self, blocks: Tensor, R: Tensor) -> Tensor:
        out = R.new_empty(self.n + 1, R.shape[1])
        out[self._index] = blocks @ self._padded(R, 0.0)
        return out[: self.n]

    def _padded(self, values: Tensor, fill: float) -> Tensor:
        """Rows of `values` (n, …) cluster by cluster: shape (c, b, …)."""
        end = values.new_full((1, *values.shape[1:]), fill)
        return torch.cat([values, end])[self._index]


def _low_rank(operator: LinearOperator, pivots: Tensor) -> Tensor:
    """L (r, n) with LᵀL = K[:, S] (K_SS + jitter)⁻¹ K[S, :] ⪯ K."""
    rows = operator.rows(pivots) if len(pivots) else operator.diagonal().new_empty(0, operator.n)
    core = rows[:, pivots]
    core = 0.5 * (core + core.mT)
    core.diagonal().mul_(1 + _JITTER)
    return torch.linalg.solve_triangular(Cholesky().factor(core).L, rows, upper=False)
