"""Kernels of warped and of learnt features of the inputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from surrogate.kernels.base import Kernel, checked_columns, per_input_parameter
from surrogate.kernels.devices import chosen, column_index
from surrogate.kernels.mapped import Embedding, Mapped
from surrogate.transfers import beside

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
        x = X if self.columns is None else chosen(X, self.columns)
        a, b = beside(self.a, X), beside(self.b, X)
        x = _INSIDE + (1 - 2 * _INSIDE) * x.clamp(0.0, 1.0)  # (..., n, dims)
        log_rest = torch.log(-torch.expm1(a * x.log()))  # log(1 - x^a), no digits lost near 1
        warped = -torch.expm1(b * log_rest)
        if self.columns is None:
            return warped
        whole = X.clone()
        whole[..., column_index(X, self.columns)] = warped
        return whole

    def embedding(self, X: Tensor) -> Embedding:
        return _WarpedRows(self, X)


class _WarpedRows:
    """w of some rows, with its slopes in closed form."""

    @torch.no_grad()
    def __init__(self, warped: Warped, X: Tensor) -> None:
        columns = None if warped.columns is None else column_index(X, warped.columns)
        x = X if columns is None else X.index_select(1, columns)
        self._is_inside = (x >= 0) & (x <= 1)
        a, b = beside(warped.a, X), beside(warped.b, X)
        log_x = (_INSIDE + (1 - 2 * _INSIDE) * x.clamp(0.0, 1.0)).log()
        log_rest = torch.log(-torch.expm1(a * log_x))
        self._a, self._b, self._columns = a, b, columns
        self._log_x, self._log_rest = log_x, log_rest
        w = -torch.expm1(b * log_rest)
        self._rest = 1 - w  # (1 - x^a)^b
        self.U = w if columns is None else X.clone()
        if columns is not None:
            self.U[:, columns] = w

    def inputs(self, by_U: Tensor) -> Tensor:
        # dw/dx = a b (1 - x^a)^(b-1) x^(a-1)
        slope = torch.exp((self._b - 1) * self._log_rest + (self._a - 1) * self._log_x)
        slope *= (1 - 2 * _INSIDE) * self._a * self._b * self._is_inside
        if self._columns is None:
            return by_U * slope
        found = by_U.clone()
        found[:, self._columns] *= slope
        return found

    def parameters(self, by_U: Tensor) -> Mapping[str, Tensor]:
        by_w = by_U if self._columns is None else by_U.index_select(1, self._columns)
        # dw/da = b (1 - x^a)^(b-1) x^a log x;  dw/db = -(1 - x^a)^b log(1 - x^a)
        by_a = torch.exp((self._b - 1) * self._log_rest + self._a * self._log_x) * self._log_x
        by_b = self._rest * self._log_rest
        return {
            "log_a": self._a * self._b * (by_w * by_a).sum(0),
            "log_b": -self._b * (by_w * by_b).sum(0),
        }


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
        if X.device.type == "cpu":
            U = self.module(X)
        else:
            kinds = self.module.named_parameters(), self.module.named_buffers()
            own = {name: beside(values, X) for kind in kinds for name, values in kind}
            U = functional_call(self.module, own, (X,))
        if U.shape[:-1] != X.shape[:-1]:
            raise ValueError(
                f"the module must map {tuple(X.shape)} to {(*X.shape[:-1], 'c')}, one row of "
                f"features for each row of X; got {tuple(U.shape)}."
            )
        return U
