"""Sums over subsets of the inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from surrogate.kernels.base import Features, Kernel, Linearised, positive_parameter
from surrogate.kernels.combine import check_distinct
from surrogate.kernels.devices import Moving
from surrogate.transfers import beside
from surrogate.workspace import Workspace


class Additive(Kernel):
    """Functions that are sums of functions of few inputs: of one, of two, … up to `order`.

        k(x, x') = Σ_q s_q² e_q(z_1, …, z_D) / C(D, q),   z_j = k_j(x, x'),   q = 1 … order

    e_q is the sum over all subsets of q parts of the product of their kernels (the elementary
    symmetric polynomial), C(D, q) the number of its terms: where the parts have variance 1, s_q² is
    the variance of all interactions of order q together. Variances of the parts, where they have
    any, weigh the inputs against each other.

    Source: Duvenaud, Nickisch & Rasmussen (2011), https://arxiv.org/abs/1112.4394, where s_q² is
    not divided by C(D, q), and e_q comes from the Newton-Girard formulae. These subtract; here
    e_q ← e_q + z_j e_{q-1}, part by part, adds positive numbers only.

    K takes D · order products of n × m matrices, and so do its gradients, in closed form; these
    keep as many matrices.

    Args:
        parts: k_1 … k_D, each of an input or a group of inputs of its own:
            `[RBF(1, columns=[j]) for j in range(d)]`.
        order: Inputs that may interact, at most D.
        variance: s_q² > 0, in the units of y squared: a number, or one per order, shape (order,).
            Left out, they are 1 / order each until a model moves them to where its priors start.

    Raises:
        ValueError: If `order` is not 1 … D, a variance is not positive, or parts share parameters.
    """

    roles: ClassVar[dict[str, str]] = {"log_variance": "variance"}
    _terms: Tensor  # C(D, q), shape (order,)

    def __init__(
        self,
        parts: Sequence[Kernel],
        order: int,
        variance: float | Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= order <= len(parts):
            raise ValueError(
                f"order must be 1 … the number of parts; "
                f"got order {order} and {len(parts)} part(s)."
            )
        check_distinct(*parts)
        if variance is None:
            variance, self.unset = 1 / order, frozenset({"log_variance"})
        variance = torch.as_tensor(variance, dtype=torch.float64)
        if variance.ndim and variance.shape != (order,):
            raise ValueError(
                f"variance must be one number or {order} of them, one per order; "
                f"got shape {tuple(variance.shape)}."
            )
        self.log_variance = positive_parameter("variance", variance.expand(order).contiguous())
        self.parts = nn.ModuleList(parts)
        self.order = order
        terms = torch.tensor([float(math.comb(len(parts), q + 1)) for q in range(order)])
        self.register_buffer("_terms", terms.to(torch.float64), persistent=False)

    @property
    def variance(self) -> Tensor:
        """s_q², in the units of y squared, shape (order,)."""
        return self.log_variance.exp()

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self._summed([part(X1, X2) for part in self._kernels])

    def diagonal(self, X: Tensor) -> Tensor:
        return self._summed([part.diagonal(X) for part in self._kernels])

    def coordinates(self, X: Tensor) -> Tensor:
        return torch.cat([part.coordinates(X) for part in self._kernels], dim=-1)

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        workspace = workspace or Workspace(X1.device)
        parts = [
            part.linearise(X1, X2, workspace.child(f"part {j}"))
            for j, part in enumerate(self._kernels)
        ]
        return _LinearisedAdditive(parts, self._weights().tolist(), workspace)

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        workspace = workspace or Workspace(X1.device)
        z, *e = (
            workspace.buffer(f"e {q}", *out.shape, dtype=out.dtype) for q in range(self.order + 1)
        )
        for e_q in e:
            e_q.zero_()
        for part in self._kernels:
            part.evaluate(X1, X2, z, workspace.child("part"))
            for q in range(self.order - 1, 0, -1):  # from the top: e_{q-1} is still without z
                e[q].addcmul_(z, e[q - 1])
            e[0].add_(z)
        out.zero_()
        for e_q, weight in zip(e, self._weights().tolist(), strict=True):
            out.add_(e_q, alpha=weight)
        return out

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Each the product of features of a random subset of the parts.

        Orders are drawn in proportion to s_q², subsets of an order all alike: the mean over them
        is e_q / C(D, q).
        """
        # In random order: not each feature of a part has its kernel as mean, only all together.
        maps: list[Features] = []
        orders: list[Tensor] = []
        for part in self._kernels:
            maps.append(part.features(count, generator))
            orders.append(torch.randperm(count, generator=generator))
        variance = self.variance.detach()
        order = torch.multinomial(variance, count, replacement=True, generator=generator) + 1
        uniform = torch.rand(len(maps), count, generator=generator, dtype=torch.float64)
        used = uniform.argsort(0).argsort(0) < order  # (D, F): the ranks below the order
        scale = (variance.sum() / count).sqrt()

        def products(X: Tensor, scale: Tensor, used: Tensor, *orders: Tensor) -> Tensor:
            phi = scale.expand(*X.shape[:-1], count)
            for f, shuffled, mine in zip(maps, orders, used, strict=True):
                phi = phi * torch.where(mine, count**0.5 * f(X)[..., shuffled], 1.0)
            return phi

        return Moving(products, scale, used, *orders)

    @property
    def _kernels(self) -> list[Kernel]:
        return [part for part in self.parts if isinstance(part, Kernel)]

    def _weights(self) -> Tensor:
        """s_q² / C(D, q), shape (order,)."""
        return self.variance.detach() / self._terms

    def _summed(self, z: list[Tensor]) -> Tensor:
        """Σ_q s_q² e_q / C(D, q) of tensors that are all of one shape, differentiable."""
        e: list[Tensor] = []  # e_1 … of the parts so far
        for z_j in z:
            raised = [z_j, *(z_j * e_q for e_q in e[: self.order - 1])]
            e = [*(a + b for a, b in zip(e, raised, strict=False)), *raised[len(e) :]]
        weights = beside(self.variance, z[0]) / beside(self._terms, z[0])
        return sum((w * e_q for w, e_q in zip(weights, e, strict=True)), torch.zeros_like(z[0]))


class _LinearisedAdditive(Linearised):
    """Every e_q after every part is kept, for the recursion run backwards."""

    def __init__(self, parts: list[Linearised], weights: list[float], workspace: Workspace) -> None:
        self._parts, self._weights, self._workspace = parts, weights, workspace
        self._shape = parts[0].K.shape
        self._after: list[list[Tensor]] = [[]]  # before the first part there is no e_q
        for j, part in enumerate(parts):
            z, before, after = part.K, self._after[-1], []
            for q in range(min(j + 1, len(weights))):  # e[q] is e_{q+1}
                e_q = workspace.buffer(f"e {q} after {j}", *self._shape)
                if q == 0:
                    e_q.copy_(z) if not before else torch.add(before[0], z, out=e_q)
                elif q < len(before):
                    torch.addcmul(before[q], z, before[q - 1], out=e_q)
                else:
                    torch.mul(z, before[q - 1], out=e_q)
                after.append(e_q)
            self._after.append(after)
        self.K = workspace.buffer("K", *self._shape).zero_()
        for e_q, weight in zip(self._after[-1], weights, strict=True):
            self.K.add_(e_q, alpha=weight)

    def parameters(self, G: Tensor) -> tuple[Tensor, ...]:
        scratch = self._workspace.buffer("scratch", *self._shape)
        by_order = [
            weight * torch.mul(G, e_q, out=scratch).sum()
            for e_q, weight in zip(self._after[-1], self._weights, strict=True)
        ]
        by_part = [part.parameters(by_z) for part, by_z in self._backwards(G)]
        return torch.stack(by_order), *(g for gradients in by_part[::-1] for g in gradients)

    def inputs(self, G: Tensor) -> Tensor:
        first, *others = (part.inputs(by_z) for part, by_z in self._backwards(G))
        return sum(others, first)

    def _backwards(self, G: Tensor) -> Iterator[tuple[Linearised, Tensor]]:
        """Each part, the last one first, with ∂loss/∂z_j, valid until the next is asked for."""
        by_e = [  # ∂loss/∂e_q after part j
            torch.mul(G, weight, out=self._workspace.buffer(f"by e {q}", *self._shape))
            for q, weight in enumerate(self._weights)
        ]
        by_z = self._workspace.buffer("scratch", *self._shape)
        for part, before, after in zip(
            self._parts[::-1], self._after[-2::-1], self._after[:0:-1], strict=True
        ):
            by_z.copy_(by_e[0])
            for q in range(1, len(after)):
                by_z.addcmul_(by_e[q], before[q - 1])
            yield part, by_z
            for q in range(1, len(after)):  # upwards: by_e[q] is still that after the part
                by_e[q - 1].addcmul_(part.K, by_e[q])
