"""What a posterior keeps of its training data: α and a root of K̂⁻¹, extended by rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from surrogate.solvers.cholesky import CholeskyFactor


@dataclass(frozen=True)
class PredictiveCache:
    """Built once for a posterior, unchanged by use.

    Attributes:
        factor: L with K̂ = L Lᵀ.
        residual: y - m, shape (n,).
    """

    factor: CholeskyFactor
    residual: Tensor

    @cached_property
    def alpha(self) -> Tensor:
        """α = K̂⁻¹(y - m), shape (n,)."""
        # Kept for callers that may want gradients, though this one may be in inference mode.
        with torch.inference_mode(False):
            return self.factor.solve(self.residual.unsqueeze(-1)).squeeze(-1)

    @cached_property
    def inverse_root(self) -> Tensor:
        """L⁻¹, shape (n, n): variances are k(x, x) - ‖L⁻¹ k(X, x)‖², one matrix product.

        L⁻¹ and not K̂⁻¹: in kᵀK̂⁻¹k the condition number of K̂ multiplies rounding, here only its
        square root does, and at noise 1e-8 that is the difference between a variance and noise.
        """
        with torch.inference_mode(False):
            identity = torch.eye(len(self.residual), dtype=self.residual.dtype)
            return torch.linalg.solve_triangular(self.factor.L, identity, upper=False)

    def append(self, K12: Tensor, K22: Tensor, residual: Tensor) -> PredictiveCache:
        """The cache with m more rows, in O(n² m); L⁻¹ is extended too once it exists.

        Args:
            K12: Covariance of old and new rows, shape (n, m).
            K22: Covariance of the new rows with their noise, shape (m, m).
            residual: y - m of the new rows, shape (m,).
        """
        factor = self.factor.append(K12, K22)
        extended = PredictiveCache(factor, torch.cat([self.residual, residual]))
        if "inverse_root" in self.__dict__:
            n, m = K12.shape
            corner = torch.linalg.solve_triangular(
                factor.L[n:, n:], torch.eye(m, dtype=K12.dtype), upper=False
            )
            # [[L, 0], [B, C]]⁻¹ = [[L⁻¹, 0], [-C⁻¹ B L⁻¹, C⁻¹]]
            root = K12.new_zeros(n + m, n + m)
            root[:n, :n] = self.inverse_root
            root[n:, :n] = -corner @ (factor.L[n:, :n] @ self.inverse_root)
            root[n:, n:] = corner
            # `cached_property` looks here first; the field itself is never set twice.
            extended.__dict__["inverse_root"] = root
        return extended
