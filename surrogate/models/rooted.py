"""The cache of a posterior with exact weights and quick variances, a little too large."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.kernels.base import Kernel
from surrogate.models.cache import Explained, FactorCache
from surrogate.models.covariance import dense_covariance
from surrogate.models.root import InverseRoot
from surrogate.operators.basic import Diagonal
from surrogate.operators.kernel import KernelOperator
from surrogate.solvers.bbmm import BBMM
from surrogate.solvers.cholesky import BorderedFactor, Cholesky, CholeskyFactor
from surrogate.solvers.preconditioners import Preconditioner


@dataclass(frozen=True)
class RootedCache(FactorCache[CholeskyFactor | BorderedFactor]):
    """α by a Cholesky factor of K̂, variances by `InverseRoot`.

    Attributes:
        root: Subspace that variances are found in.
        kernel: k, frozen.
        block: Most rows of a cluster.
    """

    root: InverseRoot
    kernel: Kernel
    block: int

    @staticmethod
    def of(
        kernel: Kernel, X: Tensor, noise: Tensor, residual: Tensor, solver: Cholesky, options: BBMM
    ) -> RootedCache:
        """Factor k(X, X) + noise, and find the root by one product with it."""
        K = KernelOperator(kernel, X, storage="tiles")  # a few rows and blocks of it
        structure = options.structure(K, noise)
        P = Preconditioner(K, noise, structure)
        basis = P.solve(P.L.mT)
        Khat = dense_covariance(kernel, X, noise)
        product = (basis.mT @ Khat).mT
        root = InverseRoot.of(K + Diagonal(noise), basis, structure.clusters, product=product)
        return RootedCache(solver.factor(Khat), residual, root, kernel, options.block)

    def explain(self, k: Tensor, prior: Tensor) -> Explained:
        projection = self.root.project(k)
        short = (prior - projection.explained).clamp_min(0.0)
        return Explained(projection.explained, short, lambda: self.root.weights(projection))

    def append(
        self, K12: Tensor, K22: Tensor, residual: Tensor, X: Tensor, noise: Tensor
    ) -> RootedCache:
        factor, both = self.bordered(K12, K22), torch.cat([self.residual, residual])
        K = KernelOperator(self.kernel, X, storage="tiles") + Diagonal(noise)
        points = self.kernel.coordinates(X)
        root = self.root.append(K, K12, points, self.block or max(len(X), 1))
        return RootedCache(factor, both, root, self.kernel, self.block)
