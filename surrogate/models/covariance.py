"""K of a model as an operator, kept as accurately as its noise asks for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surrogate.kernels.base import Kernel
from surrogate.operators.kernel import KernelOperator, Storage, fitting_storage
from surrogate.solvers.bbmm import BBMM
from surrogate.workspace import Workspace

# Float32 moves K by E with entries of about 2.5e-8 s², and log p(y) by ½ (n · 2.5e-8 s² / σ²)²:
# below 3e-4 nats per observation as long as σ² exceeds this times s² √n.
_FLOAT32_NOISE = 1e-6


def storage_for(kernel: Kernel, X: Tensor, noise: Tensor, options: BBMM) -> Storage:
    """Where K is kept: in float32 only where the noise hides what that costs.

    Args:
        kernel: k.
        X: Shape (n, d).
        noise: Variances, shape (n,).
        options: Storage and budget.
    """
    if options.storage != "auto" or not len(X):
        return "tiles" if options.storage == "auto" else options.storage
    with torch.no_grad():
        variance = float(kernel.diagonal(X).max())
    hidden = float(noise.min()) >= _FLOAT32_NOISE * variance * math.sqrt(len(X))
    return fitting_storage(len(X), options.budget, float32=hidden)


def kernel_operator(
    kernel: Kernel,
    X: Tensor,
    noise: Tensor,
    options: BBMM,
    workspace: Workspace | None = None,
) -> KernelOperator:
    """K = k(X, X) without noise, stored as suits noise variances (n,) and options."""
    storage = storage_for(kernel, X, noise, options)
    return KernelOperator(kernel, X, storage=storage, workspace=workspace)
