"""Algebra of blocks of vectors, kept as rows: what is small and decides is done on the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.solvers.cholesky import Cholesky, NotPositiveDefinite
from surrogate.transfers import to_device, to_host

# Directions of the residual block below this share of it are rounding, and leave the block.
_DEPENDENT = 1e-12


@dataclass(frozen=True)
class Product:
    """K times the rows of S (p, n).

    Attributes:
        S, KS: Shape (p, n).
        told: What the host is to know: energies G = S K Sᵀ, norms of the rows of S and of KS.
        roundoff: Of the product.
    """

    S: Tensor
    KS: Tensor
    told: tuple[Tensor, Tensor, Tensor]
    roundoff: float


@dataclass(frozen=True)
class Directions:
    """What was searched along.

    Attributes:
        S, KS: Rows and their products, shape (p, n).
        G: Their energies S K Sᵀ, on the host.
        inverse: G⁻¹ without what is rounding in G, beside S.
        is_rounding: Whether all of G is.
    """

    S: Tensor
    KS: Tensor
    G: Tensor
    inverse: Tensor
    is_rounding: bool

    def conjugate(self, S: Tensor) -> Tensor:
        """S (q, n) without what these directions have of it in the inner product of K."""
        return torch.addmm(S, (self.inverse @ (self.KS @ S.mT)).mT, self.S, alpha=-1.0)


def norms_of(B: Tensor) -> Tensor:
    """Norms of rows (t, n), shape (t, 1), of which the squares may be beyond float64."""
    if not B.shape[1]:
        return B.new_zeros(len(B), 1)
    largest = B.abs().amax(dim=1, keepdim=True)
    return (B / torch.where(largest > 0, largest, 1.0)).norm(dim=1, keepdim=True) * largest


def orthonormal(R: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """R (t, n) = φᵀQ with orthonormal Q (p, n), p ≤ t, and φ (p, t), which is on the host.

    Directions that are negligible beside the largest, and beside `scale`, are left out.
    """
    Q, r = torch.linalg.qr(R.mT)  # (n, p), (p, t)
    (r,) = to_host(r)
    check_products(r, "a product with K")  # finite only if all of R is
    left, s, right = torch.linalg.svd(r, full_matrices=False)
    kept = s > _DEPENDENT * max(scale, float(s.max()) if len(s) else 0.0)
    turned = Q @ to_device(left[:, kept], Q.device)
    return turned.mT.contiguous(), s[kept].unsqueeze(1) * right[kept]


def factor_of(N: Tensor) -> Tensor:
    """Lower triangular C with N = C Cᵀ, or raise unless there is one."""
    check_products(N, "the preconditioner's solve")
    try:
        return Cholesky().factor(N).L
    except NotPositiveDefinite as error:
        raise NotPositiveDefinite("the preconditioner is not positive definite.") from error


def check_products(values: Tensor, name: str) -> None:
    """Raise ValueError if anything is not finite."""
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"{name} is not finite; are all parameters and inputs, and the noise, finite?"
        )


def symmetric(G: Tensor) -> Tensor:
    """½ (G + Gᵀ)."""
    return 0.5 * (G + G.mT)
