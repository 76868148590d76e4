"""The coefficients of block Lanczos, which block conjugate gradients pass by."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

# Most rows of T, whose eigenvectors are computed: 1500 take half a second on one core.
_ROWS = 1500


@dataclass
class BlockLanczos:
    """T = Vᵀ P^(-1/2) K P^(-1/2) V, block tridiagonal, V orthonormal with n columns or fewer.

    P^(-1/2) B lies in the span of the first block of V, so that bᵀ P^(-1/2) f(·) P^(-1/2) b is
    found from f(T): see `surrogate.solvers.quadrature`.

    Attributes:
        start: P^(-1/2) B in the first block of the basis, shape (p, t).
        diagonal: Blocks of T on the diagonal.
        below: The blocks under them; as many, so the last one leads out of T.
    """

    start: Tensor
    diagonal: list[Tensor] = field(default_factory=list)
    below: list[Tensor] = field(default_factory=list)


class Recorder:
    """Collects coefficients of block Lanczos from those of block conjugate gradients.

    With QᵀP⁻¹Q = C Cᵀ the basis is V = P^(-1/2) Q C⁻ᵀ. By the recursions of the solver, and with
    D = CᵀρC₋⁻ᵀ, where ₋ is of the step before and Q₋ became Q ρ, T is a block LDLᵀ product:

        diagonal block G + D G₋ Dᵀ,    block below the one before it -D G₋
    """

    def __init__(self, phi: Tensor) -> None:
        self.closed = False
        self.lanczos = BlockLanczos(phi)
        self._last: tuple[Tensor, Tensor] | None = None  # C and G of the step before

    def add(self, C: Tensor, G: Tensor, rho: Tensor) -> None:
        """Another step with energies G; its residual block is ρ in terms of the last one."""
        if self.closed:
            return
        carried = self._link(C, rho)
        rows = sum(len(block) for block in self.lanczos.diagonal)
        if rows and rows + len(C) > _ROWS:
            self.closed = True
            return
        self.lanczos.diagonal.append(G if carried is None else G + carried)
        self._last = C, G

    def close(self, C: Tensor, rho: Tensor) -> None:
        """No more steps; what is left leads out of the space."""
        self._link(C, rho)
        self.closed = True

    def _link(self, C: Tensor, rho: Tensor) -> Tensor | None:
        """Add the block below the last step; return its part of the diagonal block beside it."""
        if self._last is None:
            self.lanczos.start = C.mT @ self.lanczos.start
            return None
        C_last, G_last = self._last
        D = torch.linalg.solve_triangular(C_last, (C.mT @ rho).mT, upper=False).mT
        self.lanczos.below.append(-D @ G_last)
        return D @ G_last @ D.mT
