"""What a kernel is: a formula, its pullbacks, and how kernels combine.

A kernel of one's own needs `forward` only; the rest follows by automatic differentiation. The
kernels shipped here add `linearise` in closed form, which a fit calls some twenty times.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from surrogate.kernels.devices import Moving, chosen, column_index
from surrogate.operators.base import CovarianceOperator
from surrogate.sums import sums_by_group
from surrogate.tiles.formula import Formula
from surrogate.transfers import beside
from surrogate.workspace import Workspace

Features = Callable[[Tensor], Tensor]
"""Maps X (..., n, d) to random features (..., n, F) with E[φ(x)ᵀφ(x')] = k(x, x')."""


def positive_parameter(name: str, value: float | Tensor) -> nn.Parameter:
    """Store a positive value by its logarithm, so that any optimiser step keeps it positive.

    Raises:
        ValueError: If a value is not positive and finite.
    """
    value = torch.as_tensor(value, dtype=torch.float64)
    if not bool(((value > 0) & value.isfinite()).all()):
        raise ValueError(f"{name} must be positive and finite; got {value.tolist()}.")
    return nn.Parameter(value.log())


def number_parameter(name: str, value: float | Tensor) -> nn.Parameter:
    """Store one positive number, shape ().

    Raises:
        ValueError: If it is not one number, or not positive and finite.
    """
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.ndim:
        raise ValueError(f"{name} must be one number; got shape {tuple(value.shape)}.")
    return positive_parameter(name, value)


def per_input_parameter(
    name: str, dims: int, value: float | Sequence[float] | Tensor
) -> nn.Parameter:
    """Store a positive number for each input, shape (dims,).

    Raises:
        ValueError: If there is neither one number nor one per input, or they are not positive.
    """
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.ndim and value.shape != (dims,):
        raise ValueError(
            f"{name} must be one number or {dims} of them, as dims says; "
            f"got shape {tuple(value.shape)}."
        )
    return positive_parameter(name, value.expand(dims).contiguous())


def checked_columns(dims: int, columns: Sequence[int] | None) -> tuple[int, ...] | None:
    """Columns of X for a kernel of `dims` inputs, None for all of them.

    Raises:
        ValueError: If `dims` is below 1, or `columns` is not as long as it says.
    """
    if dims < 1:
        raise ValueError(f"dims must be at least 1; got {dims}.")
    if columns is not None and len(columns) != dims:
        raise ValueError(f"columns must name {dims} column(s), as dims says; got {columns}.")
    return None if columns is None else tuple(columns)


def lengthscale_parameter(
    dims: int, lengthscale: float | Sequence[float] | Tensor, columns: Sequence[int] | None
) -> nn.Parameter:
    """Store ℓ, one per input, shape (dims,), once the arguments of a kernel fit together.

    Raises:
        ValueError: If `dims` is below 1, or `columns` or `lengthscale` is not as long as it says.
    """
    checked_columns(dims, columns)
    return per_input_parameter("lengthscale", dims, lengthscale)


def seen(X1: Tensor, X2: Tensor, columns: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
    """The columns that a kernel looks at, of both; one tensor given twice stays one."""
    if columns is None:
        return X1, X2
    first = chosen(X1, columns)
    return first, first if X2 is X1 else chosen(X2, columns)


def among_all(gradient: Tensor, columns: tuple[int, ...] | None, width: int) -> Tensor:
    """A gradient in the columns that a kernel looks at, (n, dims), as one in X: (n, width).

    A column that it looks at twice has both.
    """
    if columns is None:
        return gradient
    group = column_index(gradient.new_empty(0, width), columns)
    return sums_by_group(gradient, group, width, dim=1)


def centre(X: Tensor, columns: tuple[int, ...] | None) -> Tensor:
    """The mean of the columns that a kernel looks at, 0 in the others: (d,)."""
    mean = seen(X, X, columns)[0].mean(0)
    if columns is None:
        return mean
    full = X.new_zeros(X.shape[1])
    full[column_index(X, columns)] = mean
    return full


def fourier_features(
    omega: Tensor, variance: Tensor, columns: tuple[int, ...] | None, generator: torch.Generator
) -> Features:
    """√(2 s² / F) cos(ωᵀx + b), given frequencies omega (dims, F) and s² of shape ().

    Source: Rahimi & Recht (2007).
    """
    count = omega.shape[-1]
    phase = 2 * math.pi * torch.rand(count, generator=generator, dtype=omega.dtype)
    scale = (2 * variance / count).sqrt()

    def waves(X: Tensor, omega: Tensor, phase: Tensor) -> Tensor:
        return scale * torch.cos(seen(X, X, columns)[0] @ omega + phase)

    return Moving(waves, omega, phase)


class Linearised(ABC):
    """A kernel matrix K = k(X1, X2) that can map ∂loss/∂K back to what K was made from.

    Attributes:
        K: The kernel matrix, shape (n, m).
    """

    K: Tensor

    @abstractmethod
    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the loss in `kernel.parameters()`, in that order; G = ∂loss/∂K (n, m).

        They are where G is, whatever device the parameters are on.
        """

    @abstractmethod
    def inputs(self, G: Tensor) -> Tensor:
        """Gradient of the loss in X1, shape (n, d), with X2 held fixed; G = ∂loss/∂K (n, m)."""


class Kernel(nn.Module, ABC):
    """A positive definite function k(x, x') with positive parameters stored by their logarithm.

    `k1 + k2`, `k1 * k2` and `3.0 * k` are kernels too.

    Parameters are few, and stay on the CPU; what is computed of inputs is computed where these are.

    Attributes:
        roles: What each own parameter means to a set of priors, by its attribute name.
        unset: Own parameters that were given no value; a model moves them to where its priors
            start.
    """

    roles: ClassVar[dict[str, str]] = {}
    unset: frozenset[str] = frozenset()

    def extra_repr(self) -> str:
        """What `repr` tells of the kernel itself: how many inputs, and which."""
        dims, columns = getattr(self, "dims", None), getattr(self, "columns", None)
        told = [f"dims={dims}"] if dims else []
        return ", ".join(told + ([f"columns={columns}"] if columns else []))

    @abstractmethod
    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        """Return k(x, x') for each row x of X1 (..., n, d) and x' of X2 (..., m, d): (..., n, m).

        Differentiable by autograd in the inputs and in the parameters. On the device of the inputs:
        what is made of parameters, and is no single number, goes there by `.to(X1.device)`.
        """

    def diagonal(self, X: Tensor) -> Tensor:
        """Return k(x, x) for each row of X (..., n, d): shape (..., n)."""
        points = X.unsqueeze(-2)  # (..., n, 1, d): n batches of one point
        return self(points, points)[..., 0, 0]

    def coordinates(self, X: Tensor) -> Tensor:
        """Where to find the rows of X (..., n, d), the closer the more correlated: (..., n, c).

        Only for telling which rows belong together; X itself unless a kernel knows better.
        """
        return X

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        """Return K = k(X1, X2) together with its pullbacks, sharing the work between them.

        Args:
            X1: Shape (n, d).
            X2: Shape (m, d); pass the same tensor twice for k(X, X), whose diagonal is then exact.
            workspace: Scratch memory. The result is then valid until its next use.
        """
        return _AutogradLinearised(self, X1, X2)

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        """Write k(X1, X2) into `out`, without a graph, and return it.

        Args:
            X1: Shape (n, d), float64.
            X2: Shape (m, d); pass the same tensor twice for k(X, X), whose diagonal is then exact.
            out: Shape (n, m), float64 or float32.
            workspace: Scratch memory.
        """
        with torch.no_grad():
            return out.copy_(_checked_place(self, self(X1, X2), X1))

    def operator(self, X: Tensor, workspace: Workspace | None = None) -> CovarianceOperator | None:
        """Products with k(X, X) that take less than its entries; None where there are none.

        What makes a new model of a new kernel: fits and posteriors by products then use them.

        Args:
            X: Shape (n, d).
            workspace: Scratch memory. The result is then valid until its next use.
        """
        return None

    def formula(self) -> Formula | None:
        """What fused kernels of a GPU compute for it; None where they cannot.

        With parameters as they stand: valid until they move.
        """
        return None

    def pullback(self, X1: Tensor, X2: Tensor, G: Tensor) -> tuple[Tensor, ...]:
        """Gradients in `self.parameters()` of a loss with ∂loss/∂k(X1, X2) = G, shape (n, m).

        They are where G is, whatever device the parameters are on.
        """
        return self.linearise(X1, X2).parameters(G)

    def pullback_inputs(self, X1: Tensor, X2: Tensor, G: Tensor) -> Tensor:
        """Gradient in X1, shape (n, d), of a loss with ∂loss/∂k(X1, X2) = G, X2 held fixed."""
        return self.linearise(X1, X2).inputs(G)

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Draw `count` random features of the kernel, for samples of functions.

        Drawn on the CPU, so that they are the same on every device; then they follow X.

        Raises:
            TypeError: If this kernel has none.
        """
        raise no_features(self)

    def roles_of_parameters(self) -> list[tuple[str, int]]:
        """For each of `self.parameters()`: its role and the number of inputs its kernel sees.

        Parameters of modules that are no kernels have the role "weight".
        """
        found: list[tuple[str, int]] = []
        known: set[int] = set()
        for module in self.modules():  # in the order in which `parameters` goes through them
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) in known:
                    continue
                known.add(id(parameter))
                if isinstance(module, Kernel):
                    dims = int(getattr(module, "dims", None) or 1)
                    found.append((module.roles.get(name, name), dims))
                else:
                    found.append(("weight", 1))
        return found

    def __add__(self, other: Kernel) -> Kernel:
        if not isinstance(other, Kernel):
            return NotImplemented
        from surrogate.kernels.combine import Sum

        return Sum(self, other)

    def __mul__(self, other: Kernel) -> Kernel:
        from surrogate.kernels.combine import Product

        return Product(self, other) if isinstance(other, Kernel) else other * self

    def __rmul__(self, scale: float) -> Kernel:
        from surrogate.kernels.combine import Scaled

        return Scaled(self, scale)


def no_features(kernel: Kernel) -> TypeError:
    """The error that a kernel without random features raises."""
    return TypeError(
        f"{type(kernel).__name__} has no random features, so no sample paths; define "
        f"`features(count, generator)` on it, or use Posterior.sample at chosen points."
    )


def _checked_place(kernel: Kernel, K: Tensor, X: Tensor) -> Tensor:
    """K = k(X, ·), or raise ValueError unless it is where X is."""
    if K.device != X.device:
        raise ValueError(
            f"{type(kernel).__name__} returned a matrix on {K.device} for inputs on {X.device}; in "
            f"`forward`, move what is made of parameters there, by `.to(X1.device)`."
        )
    return K


class _AutogradLinearised(Linearised):
    """The default: keep the graph of `forward` and run it backwards."""

    def __init__(self, kernel: Kernel, X1: Tensor, X2: Tensor) -> None:
        self._kernel = kernel
        self._X1, self._X2 = detached(X1, X2)
        # Fresh leaves: the kernel's own parameters are neither touched nor asked for gradients.
        self._leaves = {
            name: beside(p.detach().clone(), X1).requires_grad_(True)
            for name, p in kernel.named_parameters()
        }
        with torch.enable_grad():
            K = functional_call(kernel, self._leaves, (self._X1, self._X2))
        self._graph = _checked_place(kernel, K, X1)
        self.K = self._graph.detach()

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        return backward(self._graph, list(self._leaves.values()), G)

    def inputs(self, G: Tensor) -> Tensor:
        X1 = self._X1.clone().requires_grad_(True)
        with torch.enable_grad():
            K = self._kernel(X1, self._X2)
        return backward(K, [X1], G)[0]


def detached(X1: Tensor, X2: Tensor) -> tuple[Tensor, Tensor]:
    """Both without their history. One tensor given twice stays one: so k(X, X) is told apart."""
    first = X1.detach()
    return first, first if X2 is X1 else X2.detach()


def backward(K: Tensor, wanted: list[Tensor], G: Tensor) -> tuple[Tensor, ...]:
    """Gradients of ⟨G, K⟩, zero where K does not depend on what is wanted."""
    if not wanted or not K.requires_grad:
        return tuple(torch.zeros_like(w) for w in wanted)
    grads = torch.autograd.grad(K, wanted, G, retain_graph=True, allow_unused=True)
    return tuple(
        torch.zeros_like(w) if g is None else g for w, g in zip(wanted, grads, strict=True)
    )
