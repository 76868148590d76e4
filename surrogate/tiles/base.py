"""What multiplies with k(X, X) tile by tile, storing none of it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Tiles(ABC):
    """Products with k(X, ·) for one X and one set of parameters, made anew at each call.

    Attributes:
        name: Which implementation, and in what arithmetic.
        roundoff: By how much a product is off, relative to |K| |v|.
    """

    name: str
    roundoff: float

    @abstractmethod
    def product(self, V: Tensor, rows: slice | None = None) -> Tensor:
        """Rows of k(X, X) @ V, all of them unless told which.

        Args:
            V: Shape (n, t).
            rows: Which h rows, one after another.

        Returns:
            Shape (h, t), column-major, float64.
        """

    @abstractmethod
    def cross(self, X1: Tensor, V: Tensor) -> Tensor:
        """k(X1, X) @ V for points X1 (m, d) and V (n, t): shape (m, t), float64."""

    @abstractmethod
    def pullback(self, A: Tensor, B: Tensor, rows: slice | None = None) -> tuple[Tensor, ...]:
        """Gradients of Σ_k a_kᵀ k(X, X) b_k in the parameters of the kernel.

        Args:
            A, B: Shape (n, k).
            rows: What these rows have of it, and the columns opposite to them: summed over all rows
                it is the whole.

        Returns:
            One tensor per entry of `kernel.parameters()`, in that order, where X is.
        """
