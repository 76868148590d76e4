"""bᵀ P^(-1/2) log(P^(-1/2) K P^(-1/2)) P^(-1/2) b from Lanczos coefficients, from above and below."""

from __future__ import annotations

import torch
from torch import Tensor

from surrogate.solvers.mbcg import BlockLanczos

# Ritz values and the bound under them agree to rounding when the bound is sharp.
_APART = 1e-10


def log_quadratic_forms(lanczos: BlockLanczos, floor: float) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of gᵀ log(A) g for each g = P^(-1/2) b, A = P^(-1/2) K P^(-1/2).

    Gauss quadrature, gᵀVlog(T)Vᵀg, is never too small, since the even derivatives of the logarithm
    are negative; Gauss-Radau with a node at or below the smallest eigenvalue of A is never too
    large, since the odd ones are positive. The same holds with blocks: both bound the resolvents
    of which the logarithm is an integral.

    Source: Golub & Meurant (2010), Matrices, Moments and Quadrature with Applications, chapter 6;
    for blocks Zimmerling, Druskin & Simoncini (2024), https://arxiv.org/abs/2407.21505.

    Args:
        lanczos: From `mbcg`; t columns.
        floor: A positive number that no eigenvalue of A is below.

    Returns:
        Two tensors of shape (t,).
    """
    start = lanczos.start
    if not lanczos.diagonal:
        zero = start.new_zeros(start.shape[1])
        return zero, zero
    T = _assemble(lanczos)
    upper = _form(T, start)
    lower = _form(_with_node(T, lanczos, floor), start)
    return torch.minimum(lower, upper), upper


def _assemble(lanczos: BlockLanczos) -> Tensor:
    """T as one matrix, without the block that leads out of it."""
    sizes = [len(block) for block in lanczos.diagonal]
    T = lanczos.start.new_zeros(sum(sizes), sum(sizes))
    i = 0
    for k, block in enumerate(lanczos.diagonal):
        p = sizes[k]
        T[i : i + p, i : i + p] = block
        if k + 1 < len(sizes):
            below = lanczos.below[k]
            T[i + p : i + p + len(below), i : i + p] = below
            T[i : i + p, i + p : i + p + len(below)] = below.mT
        i += p
    return T


def _with_node(T: Tensor, lanczos: BlockLanczos, node: float) -> Tensor:
    """T with one more block step, made such that `node` is an eigenvalue as often as it is wide."""
    below = lanczos.below[-1] if len(lanczos.below) == len(lanczos.diagonal) else None
    if below is None or not len(below):
        return T
    m, p = len(T), below.shape[1]
    least = float(torch.linalg.eigvalsh(T)[0])
    node = min(node, least * (1 - _APART))
    shifted = T - node * torch.eye(m, dtype=T.dtype)
    last = torch.zeros(m, p, dtype=T.dtype)
    last[m - p :] = torch.eye(p, dtype=T.dtype)
    corner = torch.linalg.solve(shifted, last)[m - p :]  # (p, p)
    q = len(below)
    extended = T.new_zeros(m + q, m + q)
    extended[:m, :m] = T
    extended[m:, m - p : m] = below
    extended[m - p : m, m:] = below.mT
    extended[m:, m:] = node * torch.eye(q, dtype=T.dtype) + below @ corner @ below.mT
    return extended


def _form(T: Tensor, start: Tensor) -> Tensor:
    """startᵀ [log T]₀₀ start, its diagonal: shape (t,)."""
    values, vectors = torch.linalg.eigh(0.5 * (T + T.mT))
    weights = (vectors[: len(start)].mT @ start).square()  # (m, t)
    return values.clamp_min(1e-300).log() @ weights
