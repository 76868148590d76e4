"""Kernels that see a map of the inputs instead of the inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from surrogate.kernels.base import Features, Kernel, Linearised, backward, detached
from surrogate.kernels.devices import Moving
from surrogate.tiles.formula import Formula, Gradients, View
from surrogate.transfers import beside
from surrogate.workspace import Workspace

_INNER = "kernel."  # what the names of the inner kernel's parameters begin with


class Embedding(Protocol):
    """φ of some rows, and how gradients in it become gradients in what it came from.

    Attributes:
        U: φ, shape (n, c), without history.
    """

    U: Tensor

    def inputs(self, by_U: Tensor, /) -> Tensor:
        """Gradient in the rows, shape (n, d), of a loss whose gradient in U is given."""
        ...

    def parameters(self, by_U: Tensor, /) -> Mapping[str, Tensor]:
        """Gradients in the parameters of φ, by name."""
        ...


class Mapped(Kernel):
    """k(x, x') = k₀(φ(x), φ(x')): positive definite whatever φ is.

    Gradients take the closed form of k₀ for the n × m numbers of K, and for the n × c of φ that of
    `embedding`, or automatic differentiation. Parameters that are not those of k₀ are taken for
    those of φ.

    Attributes:
        kernel: k₀.
    """

    kernel: Kernel

    @abstractmethod
    def embed(self, X: Tensor) -> Tensor:
        """φ of each row of X (..., n, d): shape (..., n, c)."""

    def embedding(self, X: Tensor) -> Embedding:
        """φ of the rows X (n, d), and its slopes; by automatic differentiation unless overridden.

        What it needs of the parameters is kept: they may change before slopes are asked for.
        """
        return _ByAutograd(self, X)

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self.kernel(*self._embedded(X1, X2))

    def diagonal(self, X: Tensor) -> Tensor:
        return self.kernel.diagonal(self.embed(X))

    @torch.no_grad()
    def coordinates(self, X: Tensor) -> Tensor:
        """Those of φ(x) for k₀."""
        return self.kernel.coordinates(self.embed(X))

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedMapped(self, *detached(X1, X2), workspace or Workspace(X1.device))

    @torch.no_grad()
    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        return self.kernel.evaluate(*self._embedded(X1, X2), out, workspace)

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Those of k₀ at φ(x)."""
        f, leaves = self.kernel.features(count, generator), self._leaves()
        embed = _Embed(self)

        def embedded(X: Tensor, *values: Tensor) -> Tensor:
            return f(embed.at(dict(zip(leaves, values, strict=True)), X))

        return Moving(embedded, *leaves.values())

    def formula(self) -> Formula | None:
        inner = self.kernel.formula()
        if inner is None:
            return None
        places = {name: i for i, (name, _) in enumerate(self.named_parameters())}
        own = {name: i for name, i in places.items() if not name.startswith(_INNER)}

        def pullback(X: Tensor, G: Tensor) -> Gradients:
            found = self.embedding(X).parameters(G) if own else {}
            return {own[name]: gradient for name, gradient in found.items()}

        view = View(
            points=lambda X: self.embed(X).detach(),
            pullback=pullback,
            inputs=lambda X, G: self.embedding(X).inputs(G),
        )
        inner = inner.placed([i for name, i in places.items() if name.startswith(_INNER)])
        return inner.seeing(view)

    def _embedded(self, X1: Tensor, X2: Tensor) -> tuple[Tensor, Tensor]:
        """φ of both; one tensor given twice stays one."""
        U1 = self.embed(X1)
        return U1, U1 if X2 is X1 else self.embed(X2)

    def _leaves(self) -> dict[str, Tensor]:
        """The parameters of φ by name: their values, without their history."""
        parameters = self.named_parameters()
        return {name: p.detach().clone() for name, p in parameters if not name.startswith(_INNER)}


class _Embed(nn.Module):
    """φ as a function of its parameters too."""

    def __init__(self, mapped: Mapped) -> None:
        super().__init__()
        self.mapped = mapped

    def forward(self, X: Tensor) -> Tensor:
        return self.mapped.embed(X)

    def at(self, leaves: Mapping[str, Tensor], X: Tensor) -> Tensor:
        """φ(X) with these values of its parameters."""
        return functional_call(self, {f"mapped.{name}": p for name, p in leaves.items()}, (X,))


class _ByAutograd:
    """An `Embedding` of any φ."""

    def __init__(self, mapped: Mapped, X: Tensor) -> None:
        leaves = mapped._leaves().items()
        self._leaves = {name: beside(p, X).requires_grad_() for name, p in leaves}
        self._X = X.detach().requires_grad_()
        with torch.enable_grad():
            self._graph = _Embed(mapped).at(self._leaves, self._X)
        self.U = self._graph.detach()

    def inputs(self, by_U: Tensor) -> Tensor:
        return backward(self._graph, [self._X], by_U)[0]

    def parameters(self, by_U: Tensor) -> Mapping[str, Tensor]:
        found = backward(self._graph, list(self._leaves.values()), by_U) if self._leaves else ()
        return dict(zip(self._leaves, found, strict=True))


class _LinearisedMapped(Linearised):
    def __init__(self, mapped: Mapped, X1: Tensor, X2: Tensor, workspace: Workspace) -> None:
        self._mapped, self._workspace = mapped, workspace
        self._first = mapped.embedding(X1)
        self._second = self._first if X2 is X1 else mapped.embedding(X2)
        self._inner = mapped.kernel.linearise(
            self._first.U, self._second.U, workspace.child("inner")
        )
        self.K = self._inner.K

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        inner = self._mapped.kernel.named_parameters()
        found = {
            _INNER + name: gradient
            for (name, _), gradient in zip(inner, self._inner.parameters(G), strict=True)
        }
        if len(found) < sum(1 for _ in self._mapped.parameters()):
            found |= self._by_map(G)
        return tuple(found[name] for name, _ in self._mapped.named_parameters())

    def _by_map(self, G: Tensor) -> Mapping[str, Tensor]:
        """Gradients in the parameters of φ, which moves both arguments of k₀."""
        if self._second is self._first:
            # Each as the first argument: k₀ is symmetric, so K is, and for the second one it is Gᵀ.
            return self._first.parameters(self._inner.inputs(G + G.mT))
        swapped = self._mapped.kernel.linearise(
            self._second.U, self._first.U, self._workspace.child("swapped")
        )
        first = self._first.parameters(self._inner.inputs(G))
        second = self._second.parameters(swapped.inputs(G.mT.contiguous()))
        return {name: first[name] + second[name] for name in first}

    def inputs(self, G: Tensor) -> Tensor:
        return self._first.inputs(self._inner.inputs(G))
