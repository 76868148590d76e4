"""Kernels of warped and of learnt features of the inputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from surrogate.kernels.base import Kernel, checked_columns, per_input_parameter
from surrogate.kernels.mapped import Mapped

# How far inside [0, 1] its ends are warped: there x^a has an infinite slope for a < 1, and so has
# (1 - x^a)^b for b < 1. With a = 0.1 this leaves a slope of 25,000.
_INSIDE = 1e-6


class Warped(Mapped):
    """k(x, x') = k₀(w(x), w(x')), each input warped by itself.

    For functions that vary faster near one end of a range, or in the middle of it.

        w(x) = 1 - (1 - x^a)^b

    The distribution function of Kumaraswamy, which has the shapes of the Beta distribution that
    Snoek, Swersky, Zemel & Adams (2014), https://arxiv.org/abs/1402.0929, warp with, and slopes
    that are easy to compute. The identity at a = b = 1. Inputs lie in [0, 1]: beyond it they count
    as its ends, and these are warped 1e-6 inside, so that every slope is finite.

    Args:
        kernel: k₀; it sees all columns of X, those named here warped.
        dims: How many inputs to warp.
        columns: Which columns they are; all unless given.
        a: a > 0, below 1 where the function varies fastest near 0: a number, or one per input,
            shape (dims,). Left out, it is 1 until a model moves it to where its priors start.
        b: b > 0, below 1 where it does so near 1; as `a`.

    Raises:
        ValueError: If `a` or `b` is not positive, or does not match `dims`, or `columns` does not.
    """

    roles: ClassVar[dict[str, str]] = {"log_a": "warp", "log_b": "warp"}

    def __init__(
        self,
        kernel: Kernel,
        dims: int,
        *,
        columns: Sequence[int] | None = None,
        a: float | Sequence[float] | Tensor | None = None,
        b: float | Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        given = {"log_a": a, "log_b": b}
        self.unset = frozenset(name for name, value in given.items() if value is None)
        self.columns = checked_columns(dims, columns)
        self.log_a = per_input_parameter("a", dims, 1.0 if a is None else a)
        self.log_b = per_input_parameter("b", dims, 1.0 if b is None else b)
        self.dims, self.kernel = dims, kernel

    @property
    def a(self) -> Tensor:
        """Exponent of x, shape (dims,)."""
        return self.log_a.exp()

    @property
    def b(self) -> Tensor:
        """Exponent of 1 - x^a, shape (dims,)."""
        return self.log_b.exp()

    def embed(self, X: Tensor) -> Tensor:
        x = X if self.columns is None else X[..., self.columns]
        x = _INSIDE + (1 - 2 * _INSIDE) * x.clamp(0.0, 1.0)  # (..., n, dims)
        log_rest = torch.log(-torch.expm1(self.a * x.log()))  # log(1 - x^a), no digits lost near 1
        warped = -torch.expm1(self.b * log_rest)
        if self.columns is None:
            return warped
        whole = X.clone()
        whole[..., self.columns] = warped
        return whole


class FeatureMap(Mapped):
    """k(x, x') = k₀(φ(x), φ(x')) with φ any module, learnt with the kernel: deep kernel learning.

    Wilson, Hu, Salakhutdinov & Xing (2016), https://arxiv.org/abs/1511.02222. A few dozen
    observations seldom determine a network: the weights have a weak prior only.

    Args:
        kernel: k₀, a kernel of c inputs.
        module: φ, maps (..., n, d) to (..., n, c), each row by itself. The kernel keeps a copy in
            float64 and in evaluation mode: without dropout, so that k is one function.

    Raises:
        ValueError: When called, if φ returns another number of rows.
    """

    # Of X, all columns, however many: not those of k₀.
    dims: int | None = None
    columns: tuple[int, ...] | None = None

    def __init__(self, kernel: Kernel, module: nn.Module) -> None:
        super().__init__()
        self.kernel = kernel
        self.module = copy.deepcopy(module).to(torch.float64).eval()

    def embed(self, X: Tensor) -> Tensor:
        U = self.module(X)
        if U.shape[:-1] != X.shape[:-1]:
            raise ValueError(
                f"the module must map {tuple(X.shape)} to {(*X.shape[:-1], 'c')}, one row of "
                f"features for each row of X; got {tuple(U.shape)}."
            )
        return U
