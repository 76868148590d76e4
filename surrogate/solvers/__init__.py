"""Solvers: K⁻¹b and log|K| for a covariance matrix K."""

from surrogate.solvers.cholesky import Cholesky, CholeskyFactor, NotPositiveDefinite

__all__ = ["Cholesky", "CholeskyFactor", "NotPositiveDefinite"]
