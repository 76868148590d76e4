"""Squared distances between rows, and their gradients: what several kernels share."""

from __future__ import annotations

import torch
from torch import Tensor


def centred(X1: Tensor, X2: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Both minus the mean row of X2, times `factor` (d,); one tensor given twice stays one.

    Centred, because ‖u‖² + ‖u'‖² - 2 uᵀu' cancels badly far from the origin.
    """
    if not X2.shape[-2]:
        return X1, X2
    centre = X2.detach().mean(-2, keepdim=True)
    U2 = (X2 - centre) * factor
    return U2 if X1 is X2 else (X1 - centre) * factor, U2


def squared_distances(U1: Tensor, U2: Tensor) -> Tensor:
    """‖u - u'‖² ≥ 0 for rows of U1 (..., n, d) and U2 (..., m, d), for autograd: (..., n, m)."""
    u2 = (
        U1.square().sum(-1, keepdim=True)
        + U2.square().sum(-1).unsqueeze(-2)
        - 2 * U1 @ U2.transpose(-1, -2)
    )
    u2 = u2.clamp_min(0.0)
    if U1 is U2:
        # Rounding leaves about 1e-16 here, which a Matérn-1/2 would turn into 1e-8.
        u2 = u2 * (1 - torch.eye(u2.shape[-1], dtype=u2.dtype, device=u2.device))
    return u2


def squared_distances_into(U1: Tensor, U2: Tensor, S1: Tensor, S2: Tensor, out: Tensor) -> None:
    """Write ‖u - u'‖² into `out` (n, m), S being U²: ≥ 0 but for rounding, 0 from u to itself."""
    same = U1 is U2
    q1 = S1.sum(1)  # (n,)
    q2 = q1 if same else S2.sum(1)
    # One product of [u, ‖u‖², 1] and [-2u', 1, ‖u'‖²] takes as long, and k(X, X) would not be
    # symmetric to the last bit.
    torch.add(q1.unsqueeze(1), q2, out=out).addmm_(U1, U2.mT, alpha=-2.0)
    if same:
        out.fill_diagonal_(0.0)


def weighted_squares(H: Tensor, U1: Tensor, U2: Tensor, S1: Tensor, S2: Tensor) -> Tensor:
    """Σ_ij H_ij (u_ik - u'_jk)² for each column k, S being U²: shape (d,)."""
    # With the few columns from the left, the product is twice as fast as H @ U2.
    crossed = (U1.mT @ H).mul_(U2.mT).sum(1)
    return (H.sum(1) @ S1 + H.sum(0) @ S2).sub_(crossed, alpha=2)


def weighted_differences(H: Tensor, U1: Tensor, U2: Tensor) -> Tensor:
    """Σ_j H_ij (u'_j - u_i) for each row i, shape (n, d)."""
    return (H @ U2).addcmul_(H.sum(1, keepdim=True), U1, value=-1)
