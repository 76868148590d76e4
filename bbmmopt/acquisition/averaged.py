"""The mean of an acquisition function over several models of the same data."""

from __future__ import annotations

import math
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
        parts: a_1 … a_K.
    """

    parts: Sequence[Acquisition]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("LogMean needs at least one acquisition function.")

    def __call__(self, X: Tensor) -> Tensor:
        """Score groups: X of shape (..., q, d) gives values of shape (...)."""
        values = torch.stack([part(X) for part in self.parts], dim=-1)
        return values.logsumexp(-1) - math.log(len(self.parts))

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        found = [part.value_and_gradient(X) for part in self.parts]
        values = torch.stack([value for value, _ in found], dim=-1)  # (m, K)
        gradients = torch.stack([gradient for _, gradient in found], dim=-1)  # (m, d, K)
        # -inf throughout has no slope to share.
        share = values.softmax(-1).nan_to_num(0.0)
        mean = values.logsumexp(-1) - math.log(len(self.parts))
        return mean, (gradients * share.unsqueeze(-2)).sum(-1)
