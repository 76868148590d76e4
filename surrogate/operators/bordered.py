"""A matrix with more rows and columns added, without touching what was there."""

from __future__ import annotations

import torch
from torch import Tensor

from surrogate.operators.base import LinearOperator


class Bordered(LinearOperator):
    """[[A, B], [Bᵀ, C]] for an operator A and a few more rows.

    Bordering what is bordered already gives one wider border, not a chain.

    Args:
        first: A, n₁ rows.
        B: Shape (n₁, m).
        C: Symmetric, shape (m, m).

    Raises:
        ValueError: If shapes do not match.
    """

    def __init__(self, first: LinearOperator, B: Tensor, C: Tensor) -> None:
        n, m = first.n, len(C)
        if B.shape != (n, m) or C.shape != (m, m):
            raise ValueError(
                f"a border of m rows around {n} takes B (n, m) and C (m, m); got "
                f"{tuple(B.shape)} and {tuple(C.shape)}."
            )
        if isinstance(first, Bordered):
            inner = first.first.n
            corner = torch.cat(
                [torch.cat([first.C, B[inner:]], 1), torch.cat([B[inner:].mT, C], 1)]
            )
            first, B, C = first.first, torch.cat([first.B, B[:inner]], 1), corner
        self.first, self.B, self.C, self.n = first, B, C, n + m
        self.roundoff = first.roundoff

    @property
    def device(self) -> torch.device:
        return self.B.device

    def matmul(self, V: Tensor) -> Tensor:
        n = self.first.n
        # Column by column in memory, as solvers keep them.
        above = self.first.matmul(V[:n]) + (V[n:].mT @ self.B.mT).mT
        return torch.cat([above.mT, V[:n].mT @ self.B + V[n:].mT @ self.C], 1).mT

    def diagonal(self) -> Tensor:
        return torch.cat([self.first.diagonal(), self.C.diagonal()])

    def rows(self, index: Tensor) -> Tensor:
        n = self.first.n
        out, old = self.B.new_empty(len(index), self.n), index < n
        out[old] = torch.cat([self.first.rows(index[old]), self.B[index[old]]], 1)
        new = index[~old] - n
        out[~old] = torch.cat([self.B[:, new].mT, self.C[new]], 1)
        return out

    def blocks(self, index: Tensor) -> Tensor:
        n, old = self.first.n, index < self.first.n
        below = torch.where(old, index, 0)
        above = torch.where(old, 0, index - n)
        cross = self.B[below.unsqueeze(-1), above.unsqueeze(-2)]  # (c, b, b)
        corner = self.C[above.unsqueeze(-1), above.unsqueeze(-2)]
        row, column = old.unsqueeze(-1), old.unsqueeze(-2)
        mixed = torch.where(row, cross, cross.mT)
        inside = self.first.blocks(below)
        return torch.where(row & column, inside, torch.where(row | column, mixed, corner))

    @property
    def precise(self) -> LinearOperator:
        first = self.first.precise
        return self if first is self.first else Bordered(first, self.B, self.C)
