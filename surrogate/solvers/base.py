"""What every iterative solve tells about itself."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from torch import Tensor


class NotConverged(UserWarning):
    """An iterative solve stopped before it was as accurate as it was asked to be."""


@dataclass(frozen=True)
class SolveInfo:
    """How a solve of K U = B went, column by column: a mean would hide the one that failed.

    Its tensors are on the CPU, wherever K is.

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


def levels_to_the_caller() -> int:
    """Of a warning: frames up to the first that is neither of this library nor of torch."""
    frame, levels = inspect.currentframe(), 0
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ("surrogate", "torch"):
            break
        frame, levels = frame.f_back, levels + 1
    return levels
