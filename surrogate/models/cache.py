"""What a posterior keeps of its training data: α, and what variances are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import torch
from torch import Tensor

from surrogate.solvers.cholesky import BorderedFactor, CholeskyFactor, Factor

# Up to here L⁻¹ is kept, for a product with it is quicker than a triangular solve; above it is
# not (n = 6000: 44 ms against 49 for 20 points), and took 3.7 s to make.
_INVERSE_TO = 1500
_COLUMNS = 256  # of the identity, solved for at once


@dataclass(frozen=True)
class Explained:
    """What the data say about the variance at m test points, k their covariances with the data.

    Attributes:
        amount: kᵀK̂⁻¹k, or as much of it as is certain, shape (m,).
        short: How much more it may be, shape (m,); 0 where it was found exactly.
        weights: Gives x ≈ K̂⁻¹k, shape (m, n), with kᵀx = `amount`.
    """

    amount: Tensor
    short: Tensor
    weights: Callable[[], Tensor]


class Cache(ABC):
    """Built once for a posterior, unchanged by use.

    Attributes:
        residual: y - m, shape (n,).
    """

    residual: Tensor

    @cached_property
    @abstractmethod
    def alpha(self) -> Tensor:
        """α = K̂⁻¹(y - m), shape (n,)."""

    @property
    @abstractmethod
    def jitter(self) -> float:
        """The most that was added to the diagonal of K̂ as given, in units of y squared."""

    @abstractmethod
    def solve(self, B: Tensor) -> Tensor:
        """K̂⁻¹B for B (n, t)."""

    @abstractmethod
    def explain(self, k: Tensor, prior: Tensor) -> Explained:
        """What the data say about test points with covariances k (m, n), prior variances (m,)."""

    @abstractmethod
    def quadratic(self, k: Tensor) -> Tensor:
        """k K̂⁻¹ kᵀ, shape (..., q, q), for k (..., q, n); differentiable in k."""

    @abstractmethod
    def precisions(self) -> Tensor:
        """Diagonal of K̂⁻¹, shape (n,)."""

    @abstractmethod
    def append(self, K12: Tensor, K22: Tensor, residual: Tensor, X: Tensor, noise: Tensor) -> Cache:
        """The cache with m more rows.

        Args:
            K12: Covariance of old and new rows, shape (n, m).
            K22: Covariance of the new rows with their noise, shape (m, m).
            residual: y - m of the new rows, shape (m,).
            X: All inputs, shape (n + m, d).
            noise: All noise variances, shape (n + m,).
        """


AFactor = TypeVar("AFactor", bound=Factor)


@dataclass(frozen=True)
class FactorCache(Cache, Generic[AFactor]):
    """What a factor of K̂ gives: all of it exact but for rounding.

    Attributes:
        factor: Of K̂.
        residual: y - m, shape (n,).
    """

    factor: AFactor
    residual: Tensor

    @cached_property
    def alpha(self) -> Tensor:
        # Kept for callers that may want gradients, though this one may be in inference mode.
        with torch.inference_mode(False):
            return self.factor.solve(self.residual.unsqueeze(-1)).squeeze(-1)

    @property
    def jitter(self) -> float:
        return self.factor.jitter

    def solve(self, B: Tensor) -> Tensor:
        return self.factor.solve(B)

    def explain(self, k: Tensor, prior: Tensor) -> Explained:
        v = self.factor.whiten(k.mT)  # (n, m)
        return Explained(_squares(v.mT), k.new_zeros(len(k)), lambda: self.factor.unwhiten(v).mT)

    def quadratic(self, k: Tensor) -> Tensor:
        v = self.factor.whiten(k.reshape(-1, k.shape[-1]).mT).mT.reshape(k.shape)
        return v @ v.transpose(-1, -2)

    def precisions(self) -> Tensor:
        n = len(self.residual)
        out = self.residual.new_empty(n)
        for some in torch.arange(n, device=out.device).split(_COLUMNS):
            unit = out.new_zeros(n, len(some))
            unit[some, some - some[0]] = 1.0
            out[some] = self.factor.whiten(unit).square().sum(0)
        return out

    def bordered(self, K12: Tensor, K22: Tensor) -> BorderedFactor:
        """The factor with m more rows in O(n² m); what there was is not copied."""
        factor: Factor = self.factor
        if isinstance(factor, BorderedFactor):
            return factor.append(K12, K22)
        return BorderedFactor.of(factor, K12, K22)

    def append(self, K12: Tensor, K22: Tensor, residual: Tensor, X: Tensor, noise: Tensor) -> Cache:
        return FactorCache(self.bordered(K12, K22), torch.cat([self.residual, residual]))


@dataclass(frozen=True)
class CholeskyCache(FactorCache[CholeskyFactor]):
    """By the Cholesky factor of K̂, which keeps its inverse too while that is small."""

    @cached_property
    def inverse_root(self) -> Tensor:
        """L⁻¹, shape (n, n): variances are k(x, x) - ‖L⁻¹ k(X, x)‖², one matrix product.

        L⁻¹ and not K̂⁻¹: in kᵀK̂⁻¹k the condition number of K̂ multiplies rounding, here only its
        square root does, and at noise 1e-8 that is the difference between a variance and noise.
        """
        with torch.inference_mode(False):
            residual = self.residual
            eye = torch.eye(len(residual), dtype=residual.dtype, device=residual.device)
            return self.factor.whiten(eye)

    def explain(self, k: Tensor, prior: Tensor) -> Explained:
        if len(self.residual) <= _INVERSE_TO:
            v = k @ self.inverse_root.T  # (m, n)
            return Explained(_squares(v), k.new_zeros(len(k)), lambda: v @ self.inverse_root)
        return super().explain(k, prior)

    def quadratic(self, k: Tensor) -> Tensor:
        if len(self.residual) <= _INVERSE_TO:
            v = k @ self.inverse_root.T
            return v @ v.transpose(-1, -2)
        return super().quadratic(k)

    def precisions(self) -> Tensor:
        small = len(self.residual) <= _INVERSE_TO
        return self.inverse_root.square().sum(0) if small else super().precisions()

    def append(
        self, K12: Tensor, K22: Tensor, residual: Tensor, X: Tensor, noise: Tensor
    ) -> CholeskyCache:
        """In O(n² m); L⁻¹ is extended too once it exists."""
        factor = self.factor.append(K12, K22)
        extended = CholeskyCache(factor, torch.cat([self.residual, residual]))
        if "inverse_root" in self.__dict__:
            n, m = K12.shape
            eye = torch.eye(m, dtype=K12.dtype, device=K12.device)
            corner = torch.linalg.solve_triangular(factor.L[n:, n:], eye, upper=False)
            # [[L, 0], [B, C]]⁻¹ = [[L⁻¹, 0], [-C⁻¹ B L⁻¹, C⁻¹]]
            root = K12.new_zeros(n + m, n + m)
            root[:n, :n] = self.inverse_root
            root[n:, :n] = -corner @ (factor.L[n:, :n] @ self.inverse_root)
            root[n:, n:] = corner
            # `cached_property` looks here first; the field itself is never set twice.
            vars(extended)["inverse_root"] = root
        return extended


def _squares(v: Tensor) -> Tensor:
    return v.square().sum(-1)
