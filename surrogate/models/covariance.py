"""K of a model as an operator, kept as accurately as its noise asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Kept:
    """How K is kept.

    Attributes:
        storage: Where.
        float32: Whether noise hides what float32 costs, so that tiles may be computed in it.
    """

    storage: Storage
    float32: bool


@torch.no_grad()
def kept_as(kernel: Kernel, X: Tensor, noise: Tensor, options: BBMM) -> Kept:
    """How K is kept: in float32, or in tiles of it, only where noise hides what that costs.

    Args:
        kernel: k.
        X: Shape (n, d).
        noise: Variances, shape (n,).
        options: Storage and budget.
    """
    if not len(X):
        return Kept("tiles" if options.storage == "auto" else options.storage, False)
    least, variance = torch.stack([noise.min(), kernel.diagonal(X).max()]).tolist()
    hidden = least >= options.rounding * variance * math.sqrt(len(X))
    if options.storage != "auto":
        return Kept(options.storage, hidden)
    if options.distributed:
        return Kept("tiles", hidden)
    storage = fitting_storage(kernel, X, options.budget, float32=hidden, tiles=options.tiles)
    return Kept(storage, hidden)


def kernel_operator(
    kernel: Kernel,
    X: Tensor,
    noise: Tensor,
    options: BBMM,
    workspace: Workspace | None = None,
    kept: Kept | None = None,
) -> CovarianceOperator:
    """K = k(X, X) without noise: the kernel's own operator, if it has one for these inputs.

    Else its entries, stored as suits noise variances (n,) and options; or shared out among ranks.

    Args:
        kernel: k.
        X: Shape (n, d).
        noise: Variances, shape (n,).
        options: Storage and budget.
        workspace: Scratch memory. The result is then valid until its next use.
        kept: What `kept_as` said of them, if it was asked.

    Raises:
        ValueError: If it is to be shared out, and there are no ranks.
        RanksDisagree: If these have different data.
    """
    with torch.no_grad():
        own = kernel.operator(X, workspace)
    if own is not None:
        return own
    kept = kept or kept_as(kernel, X, noise, options)
    K = KernelOperator(
        kernel,
        X,
        storage=kept.storage,
        float32=kept.float32,
        tiles=options.tiles,
        workspace=workspace,
    )
    return DistributedKernelOperator(K, noise) if options.distributed else K


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
