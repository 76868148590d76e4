"""Exact solves by a Cholesky factor, which says how much it had to help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class NotPositiveDefinite(ValueError):
    """A matrix had no Cholesky factor even with the largest jitter allowed."""


@dataclass(frozen=True)
class CholeskyFactor:
    """K + jitter·I = L Lᵀ.

    Attributes:
        L: Lower triangular, shape (n, n).
        jitter: What was added to the diagonal, in the units of K; 0 when nothing was needed. After
            `append`, the most that any entry got.
    """

    L: Tensor
    jitter: float = 0.0

    def solve(self, B: Tensor) -> Tensor:
        """Return K⁻¹B for B (n, t)."""
        return torch.cholesky_solve(B, self.L)

    def whiten(self, B: Tensor) -> Tensor:
        """Return L⁻¹B for B (n, t): BᵀK⁻¹B is its square, rounded to no negative number."""
        return torch.linalg.solve_triangular(self.L, B, upper=False)

    def unwhiten(self, B: Tensor) -> Tensor:
        """Return L⁻ᵀB for B (n, t)."""
        return torch.linalg.solve_triangular(self.L.mT, B, upper=True)

    def logdet(self) -> Tensor:
        """Return log|K|, shape ()."""
        return 2 * self.L.diagonal().log().sum()

    def append(self, K12: Tensor, K22: Tensor) -> CholeskyFactor:
        """Factor of [[K, K12], [K12ᵀ, K22]] in O(n² m), without refactoring K.

        Args:
            K12: Covariance of the old rows with the new ones, shape (n, m).
            K22: Covariance of the new rows, shape (m, m).
        """
        n, m = K12.shape
        row = self.whiten(K12)  # (n, m)
        # Where new rows repeat old ones, what is left is rounding: its own size says nothing.
        scale = float(K22.diagonal().mean())
        K22 = K22 + self.jitter * torch.eye(m, dtype=K22.dtype, device=K22.device)
        corner = Cholesky().factor(K22 - row.T @ row, scale=scale)
        L = self.L.new_zeros(n + m, n + m)
        L[:n, :n] = self.L
        L[n:, :n] = row.T
        L[n:, n:] = corner.L
        return CholeskyFactor(L, self.jitter + corner.jitter)


class Factor(Protocol):
    """K = L Lᵀ, L known by what its inverse makes of vectors."""

    @property
    def jitter(self) -> float:
        """The most that was added to the diagonal of K."""
        ...

    def solve(self, B: Tensor, /) -> Tensor:
        """Return K⁻¹B for B (n, t)."""
        ...

    def whiten(self, B: Tensor, /) -> Tensor:
        """Return L⁻¹B for B (n, t)."""
        ...

    def unwhiten(self, B: Tensor, /) -> Tensor:
        """Return L⁻ᵀB for B (n, t)."""
        ...


@dataclass(frozen=True)
class BorderedFactor:
    """Factor of [[K, K12], [K12ᵀ, K22]] that leaves the factor of K where it is.

    For a large K with few rows added: `CholeskyFactor.append` copies all of it.

    Attributes:
        first: Of K (n, n), K = L Lᵀ for an L that need not be triangular.
        row: L⁻¹K12, shape (n, m).
        corner: Of K22 - K12ᵀK⁻¹K12.
    """

    first: Factor
    row: Tensor
    corner: CholeskyFactor

    @staticmethod
    def of(first: Factor, K12: Tensor, K22: Tensor) -> BorderedFactor:
        """Add the first rows."""
        row = first.whiten(K12)
        scale = float(K22.diagonal().mean()) if len(K22) else None
        return BorderedFactor(first, row, Cholesky().factor(K22 - row.mT @ row, scale=scale))

    @property
    def jitter(self) -> float:
        """The most that any diagonal entry got."""
        return self.first.jitter + self.corner.jitter

    def solve(self, B: Tensor) -> Tensor:
        """Return the inverse times B (n + m, t)."""
        n = len(self.row)
        above = self.first.whiten(B[:n])
        below = self.corner.solve(B[n:] - self.row.mT @ above)
        return torch.cat([self.first.unwhiten(above - self.row @ below), below])

    def whiten(self, B: Tensor) -> Tensor:
        """Return L⁻¹B for B (n + m, t), L the lower triangular factor of all of it."""
        n = len(self.row)
        above = self.first.whiten(B[:n])
        return torch.cat([above, self.corner.whiten(B[n:] - self.row.mT @ above)])

    def unwhiten(self, B: Tensor) -> Tensor:
        """Return L⁻ᵀB for B (n + m, t)."""
        n = len(self.row)
        below = self.corner.unwhiten(B[n:])
        return torch.cat([self.first.unwhiten(B[:n] - self.row @ below), below])

    def append(self, K12: Tensor, K22: Tensor) -> BorderedFactor:
        """Factor with more rows still."""
        n = len(self.row)
        row = self.first.whiten(K12[:n])
        corner = self.corner.append(K12[n:] - self.row.mT @ row, K22 - row.mT @ row)
        return BorderedFactor(self.first, torch.cat([self.row, row], 1), corner)


@dataclass(frozen=True)
class Cholesky:
    """Factor K in float64; where rounding made it indefinite, add the smallest jitter that helps.

    Jitter is relative to the mean of the diagonal, unless another scale is given: 0 first, then
    1e-12, ten times more each time.

    Attributes:
        max_jitter: The largest relative jitter to try.
        root_from: Observations from which variances come from a cached root of low rank with
            clusters, a little too large, instead of from L: they then cost n·r instead of n² each.
            None for never.
    """

    max_jitter: float = 1e-3
    root_from: int | None = None

    def factor(
        self, K: Tensor, out: Tensor | None = None, *, scale: float | None = None
    ) -> CholeskyFactor:
        """Return the factor of K (n, n); K itself is left alone.

        Args:
            K: Symmetric; the lower triangle is read.
            out: Where to put L, instead of in fresh memory; not in that of K.
            scale: What jitter is relative to, in the units of K. For a K that is a difference of
                larger matrices: their size, which is what rounding is relative to.

        Raises:
            NotPositiveDefinite: With the numbers, if the largest jitter does not help.
            ValueError: If `out` is K: a second attempt would factor what is left of the first.
        """
        if out is not None and len(K) and out.data_ptr() == K.data_ptr():
            raise ValueError("out must not be the memory of K, which a second attempt reads again.")
        L, info = self._try(K, out)
        if not int(info):
            return CholeskyFactor(L)
        scale = float(K.diagonal().mean()) if scale is None else scale
        relative = 1e-12
        while relative <= self.max_jitter * 1.0001 and scale > 0:
            # A copy: the caller's K must not carry our jitter.
            shifted = K.clone()
            shifted.diagonal().add_(relative * scale)
            L, info = self._try(shifted, out)
            if not int(info):
                return CholeskyFactor(L, relative * scale)
            relative *= 10
        raise NotPositiveDefinite(
            f"a {tuple(K.shape)} covariance matrix of scale {scale:.3g} is not positive definite, "
            f"not even with {self.max_jitter:g} of that added to its diagonal. "
            f"Is the kernel positive definite, and is all of the input finite?"
        )

    @staticmethod
    def _try(K: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        if out is None:
            return attempted(K)
        info = torch.empty((), dtype=torch.int32, device=K.device)
        torch.linalg.cholesky_ex(K, out=(out, info))
        return out, _honest(out, info)


def attempted(K: Tensor) -> tuple[Tensor, Tensor]:
    """L with K = L Lᵀ for K (..., n, n), and a number (...) that is 0 where there is one."""
    L, info = torch.linalg.cholesky_ex(K)
    return L, _honest(L, info)


def _honest(L: Tensor, info: Tensor) -> Tensor:
    """`info`, but not 0 where a factor is not finite: CUDA takes what is nan for success."""
    if L.device.type == "cpu":
        return info
    # What is not finite in a row makes the entry on the diagonal nan.
    failed = ~L.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)
    return torch.maximum(info, failed.to(info.dtype))
