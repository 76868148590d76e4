"""Kernels that see a map of the inputs instead of the inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from surrogate.kernels.base import Features, Kernel, Linearised, backward, detached
from surrogate.workspace import Workspace

_INNER = "kernel."  # what the names of the inner kernel's parameters begin with


class Mapped(Kernel):
    """k(x, x') = k₀(φ(x), φ(x')): positive definite whatever φ is.

    Gradients take the closed form of k₀ for the n × m numbers of K, and automatic differentiation
    for the n × c of φ. Parameters that are not those of k₀ are taken for those of φ.

    Attributes:
        kernel: k₀.
    """

    kernel: Kernel

    @abstractmethod
    def embed(self, X: Tensor) -> Tensor:
        """φ of each row of X (..., n, d): shape (..., n, c)."""

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self.kernel(*self._embedded(X1, X2))

    def diagonal(self, X: Tensor) -> Tensor:
        return self.kernel.diagonal(self.embed(X))

    @torch.no_grad()
    def coordinates(self, X: Tensor) -> Tensor:
        """Those of φ(x) for k₀."""
        return self.kernel.coordinates(self.embed(X))

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedMapped(self, *detached(X1, X2), workspace or Workspace())

    @torch.no_grad()
    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        return self.kernel.evaluate(*self._embedded(X1, X2), out, workspace)

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Those of k₀ at φ(x)."""
        f, leaves = self.kernel.features(count, generator), self._leaves()
        embedding = _Embedding(self)
        return lambda X: f(embedding.at(leaves, X))

    def _embedded(self, X1: Tensor, X2: Tensor) -> tuple[Tensor, Tensor]:
        """φ of both; one tensor given twice stays one."""
        U1 = self.embed(X1)
        return U1, U1 if X2 is X1 else self.embed(X2)

    def _leaves(self) -> dict[str, Tensor]:
        """The parameters of φ by name: their values, without their history."""
        parameters = self.named_parameters()
        return {name: p.detach().clone() for name, p in parameters if not name.startswith(_INNER)}


class _Embedding(nn.Module):
    """φ as a function of its parameters too."""

    def __init__(self, mapped: Mapped) -> None:
        super().__init__()
        self.mapped = mapped

    def forward(self, X: Tensor) -> Tensor:
        return self.mapped.embed(X)

    def at(self, leaves: Mapping[str, Tensor], X: Tensor) -> Tensor:
        """φ(X) with these values of its parameters."""
        return functional_call(self, {f"mapped.{name}": p for name, p in leaves.items()}, (X,))


class _LinearisedMapped(Linearised):
    def __init__(self, mapped: Mapped, X1: Tensor, X2: Tensor, workspace: Workspace) -> None:
        self._mapped, self._workspace = mapped, workspace
        self._leaves = {name: p.requires_grad_() for name, p in mapped._leaves().items()}
        embedding, same = _Embedding(mapped), X2 is X1
        self._X1 = X1.detach().requires_grad_()
        with torch.enable_grad():
            self._U1 = embedding.at(self._leaves, self._X1)
            self._U2 = self._U1 if same else embedding.at(self._leaves, X2)
        inner = mapped.kernel
        self._inner = inner.linearise(*detached(self._U1, self._U2), workspace.child("inner"))
        self.K = self._inner.K

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        inner = self._mapped.kernel.named_parameters()
        found = {
            _INNER + name: gradient
            for (name, _), gradient in zip(inner, self._inner.parameters(G), strict=True)
        }
        if self._leaves:
            found |= zip(self._leaves, self._by_map(G), strict=True)
        return tuple(found[name] for name, _ in self._mapped.named_parameters())

    def _by_map(self, G: Tensor) -> tuple[Tensor, ...]:
        """Gradients in the parameters of φ, which moves both arguments of k₀."""
        wanted = list(self._leaves.values())
        if self._U2 is self._U1:
            # Each as the first argument: k₀ is symmetric, so K is, and for the second one it is Gᵀ.
            return backward(self._U1, wanted, self._inner.inputs(G + G.mT))
        first = backward(self._U1, wanted, self._inner.inputs(G))
        U1, U2 = detached(self._U1, self._U2)
        swapped = self._mapped.kernel.linearise(U2, U1, self._workspace.child("swapped"))
        second = backward(self._U2, wanted, swapped.inputs(G.mT.contiguous()))
        return tuple(a + b for a, b in zip(first, second, strict=True))

    def inputs(self, G: Tensor) -> Tensor:
        return backward(self._U1, [self._X1], self._inner.inputs(G))[0]
