"""gᵀ log(A) g from the Lanczos coefficients of A, from above and from below."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surrogate.solvers.lanczos import BlockLanczos

# Ritz values and the bound under them agree to rounding when the bound is sharp.
_APART = 1e-10


def log_quadratic_forms(lanczos: BlockLanczos, floor: float) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of gᵀ log(A) g for each g = P^(-1/2) b, A = P^(-1/2) K P^(-1/2).

    Gauss quadrature, gᵀVlog(T)Vᵀg, is never too small, since the even derivatives of the logarithm
    are negative; Gauss-Radau with a node at or below the smallest eigenvalue of A is never too
    large, since the odd ones are positive. The same holds with blocks: both bound the resolvents
    of which the logarithm is an integral.

    Source: Golub & Meurant (2010), Matrices, Moments and Quadrature with Applications; for
    blocks Zimmerling, Druskin & Simoncini (2024), https://arxiv.org/abs/2407.21505.

    Args:
        lanczos: From `mbcg`; t columns.
        floor: No eigenvalue of A is below it; 0 if that is all that is known.

    Returns:
        Two tensors of shape (t,).
    """
    start = lanczos.start
    if not lanczos.diagonal:  # not a single step: nothing is known but the floor
        least = math.log(floor) if floor > 0 else -math.inf
        size = start.square().sum(0)
        return (
            torch.where(size > 0, least * size, 0.0),
            torch.where(size > 0, math.inf, 0.0),
        )
    T, below = _assemble(lanczos), lanczos.below[-1]
    values, vectors = torch.linalg.eigh(T)
    upper = _form(values, vectors, start)
    if not len(below):  # the space holds all that K makes of B
        return upper, upper
    if not floor > 0:
        return torch.full_like(upper, -math.inf), upper
    node = min(floor, float(values[0]) * (1 - _APART))
    last = vectors[-below.shape[1] :]
    corner = below @ (last / (values - node)) @ last.mT @ below.mT
    corner.diagonal().add_(node)
    values, vectors = torch.linalg.eigh(_bordered(T, below, corner))
    lower = _form(values, vectors, start)
    return torch.minimum(lower, upper), upper


def _assemble(lanczos: BlockLanczos) -> Tensor:
    """T as one matrix, without the block that leads out of it."""
    T = lanczos.diagonal[0]
    for below, block in zip(lanczos.below, lanczos.diagonal[1:], strict=False):
        T = _bordered(T, below, block)
    return T


def _bordered(T: Tensor, below: Tensor, corner: Tensor) -> Tensor:
    """T with one more block on its diagonal, and `below` to its left and above it."""
    m, (q, p) = len(T), below.shape
    out = T.new_zeros(m + q, m + q)
    out[:m, :m], out[m:, m - p : m], out[m - p : m, m:] = T, below, below.mT
    out[m:, m:] = 0.5 * (corner + corner.mT)
    return out


def _form(values: Tensor, vectors: Tensor, start: Tensor) -> Tensor:
    """startᵀ [log T]₀₀ start, its diagonal, from the eigenvectors of T: shape (t,)."""
    weights = (vectors[: len(start)].mT @ start).square()  # (m, t)
    return values.clamp_min(1e-300).log() @ weights
