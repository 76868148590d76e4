"""The mean of an acquisition function over several models of the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbmmopt.acquisition.base import Acquisition


@dataclass(frozen=True)
class LogMean(Acquisition):
    """The log of the mean of several acquisition functions that are given in logs.

        log 1/K Σ_k exp(a_k(x))

    With a_k the log expected improvement under the k-th draw of a model's parameters, the log of
    what is expected with the parameters unknown: the integrated acquisition function of Snoek,
    Larochelle & Adams (2012), https://arxiv.org/abs/1206.2944.

    Attributes:
        parts: a_1 … a_K; one that stands there twice counts twice, and is computed once.
    """

    parts: Sequence[Acquisition]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("LogMean needs at least one acquisition function.")

    def __call__(self, X: Tensor) -> Tensor:
        """Score groups: X of shape (..., q, d) gives values of shape (...)."""
        distinct, log_weights = self._distinct()
        values = torch.stack([part(X) for part in distinct], dim=-1)
        return (values + log_weights).logsumexp(-1)

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        distinct, log_weights = self._distinct()
        found = [part.value_and_gradient(X) for part in distinct]
        values = torch.stack([value for value, _ in found], dim=-1) + log_weights  # (m, K)
        gradients = torch.stack([gradient for _, gradient in found], dim=-1)  # (m, d, K)
        # -inf throughout has no slope to share.
        share = values.softmax(-1).nan_to_num(0.0)
        return values.logsumexp(-1), (gradients * share.unsqueeze(-2)).sum(-1)

    def _distinct(self) -> tuple[list[Acquisition], Tensor]:
        """Each part once, and the log of its share, shape (K,)."""
        counts: dict[int, int] = {}
        by_id = {}
        for part in self.parts:
            counts[id(part)] = counts.get(id(part), 0) + 1
            by_id[id(part)] = part
        shares = torch.tensor(list(counts.values()), dtype=torch.float64) / len(self.parts)
        return list(by_id.values()), shares.log()
