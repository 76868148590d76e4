"""K of a model as an operator, kept as accurately as its noise asks for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surrogate.kernels.base import Kernel
from surrogate.operators.base import CovarianceOperator
from surrogate.operators.distributed import DistributedKernelOperator
from surrogate.operators.kernel import KernelOperator, Storage, fitting_storage
from surrogate.solvers.bbmm import BBMM
from surrogate.workspace import Workspace

_AT_ONCE, _ROWS = 1000, 64

# Least noise, relative to the mean of k(x, x): with less, points that coincide make a K̂ that
# rounding cannot tell from a singular one. What jitter is to a Cholesky factor.
_LEAST_NOISE = 1e-10


def helped(noise: Tensor, diagonal: Tensor) -> Tensor:
    """Noise variances (n,) large enough for products, given k(x, x) of each point, shape (n,)."""
    return noise.clamp_min(_LEAST_NOISE * diagonal.mean()) if len(noise) else noise


def storage_for(kernel: Kernel, X: Tensor, noise: Tensor, options: BBMM) -> Storage:
    """Where K is kept: in float32, or in tiles of it, only where noise hides what that costs.

    Args:
        kernel: k.
        X: Shape (n, d).
        noise: Variances, shape (n,).
        options: Storage and budget.
    """
    if options.distributed or options.storage != "auto" or not len(X):
        return "tiles" if options.storage == "auto" else options.storage
    return _fitting(kernel, X, options, hides_float32(kernel, X, noise, options))


@torch.no_grad()
def hides_float32(kernel: Kernel, X: Tensor, noise: Tensor, options: BBMM) -> bool:
    """Whether noise variances (n,) are so large that K in float32 is as good as in float64."""
    if not len(X):
        return False
    least, variance = torch.stack([noise.min(), kernel.diagonal(X).max()]).tolist()
    return least >= options.rounding * variance * math.sqrt(len(X))


def kernel_operator(
    kernel: Kernel,
    X: Tensor,
    noise: Tensor,
    options: BBMM,
    workspace: Workspace | None = None,
) -> CovarianceOperator:
    """K = k(X, X) without noise: the kernel's own operator, if it has one for these inputs.

    Else its entries, stored as suits noise variances (n,) and options; or shared out among ranks.

    Raises:
        ValueError: If it is to be shared out, and there are no ranks.
        RanksDisagree: If these have different data.
    """
    with torch.no_grad():
        own = kernel.operator(X, workspace)
    if own is not None:
        return own
    hidden = hides_float32(kernel, X, noise, options)
    storage = options.storage
    if options.distributed:
        storage = "tiles"
    elif storage == "auto":
        storage = _fitting(kernel, X, options, hidden) if len(X) else "tiles"
    K = KernelOperator(
        kernel, X, storage=storage, float32=hidden, tiles=options.tiles, workspace=workspace
    )
    return DistributedKernelOperator(K, noise) if options.distributed else K


def _fitting(kernel: Kernel, X: Tensor, options: BBMM, hidden: bool) -> Storage:
    return fitting_storage(kernel, X, options.budget, float32=hidden, tiles=options.tiles)


def dense_covariance(kernel: Kernel, X: Tensor, noise: Tensor) -> Tensor:
    """K̂ = k(X, X) + diag(noise) in fresh memory, shape (n, n), made a few rows at a time.

    At n = 10⁴ the temporaries of doing it at once would take three times the memory of K̂.
    """
    n = len(X)
    K, workspace = X.new_empty(n, n), Workspace(X.device)
    if n <= _AT_ONCE:
        kernel.evaluate(X, X, K, workspace)
    else:
        for i in range(0, n, _ROWS):
            kernel.evaluate(X[i : i + _ROWS], X, K[i : i + _ROWS], workspace)
        K.diagonal().copy_(kernel.diagonal(X))
    K.diagonal().add_(noise)
    return K
