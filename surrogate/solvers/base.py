"""What every iterative solve tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class NotConverged(UserWarning):
    """An iterative solve stopped before it was as accurate as it was asked to be."""


@dataclass(frozen=True)
class SolveInfo:
    """How a solve of K U = B went, column by column: a mean would hide the one that failed.

    Attributes:
        residual: ‖b - K u‖ / ‖b‖ of each column, from a product with the u returned, shape (t,).
        steps: Iterations after which each column was done, shape (t,).
        products: Products of K with a block that were made.
        tolerance: The relative residual asked for.
    """

    residual: Tensor
    steps: Tensor
    products: int
    tolerance: float

    @property
    def converged(self) -> Tensor:
        """Whether each column is as accurate as it was asked to be, shape (t,)."""
        return self.residual <= self.tolerance

    def __str__(self) -> str:
        if not len(self.residual):
            return "nothing to solve"
        failed = int((~self.converged).sum())
        return (
            f"{len(self.residual) - failed} of {len(self.residual)} columns reached a relative "
            f"residual of {self.tolerance:.1g} (largest {float(self.residual.max()):.2g}) in "
            f"{self.products} products"
        )


def exact_info(columns: int) -> SolveInfo:
    """What a direct solve tells."""
    zero = torch.zeros(columns, dtype=torch.float64)
    return SolveInfo(zero, torch.zeros(columns, dtype=torch.long), 0, 0.0)
