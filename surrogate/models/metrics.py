"""How good predictions are."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rmse(mean: Tensor, y: Tensor) -> float:
    """Root mean squared error, in the units of y."""
    return (mean - y).square().mean().sqrt().item()


def nlpd(mean: Tensor, std: Tensor, y: Tensor) -> float:
    """Mean negative log density of y under N(mean, std²), in nats; lower is better.

    `std` must include the noise of the observations.
    """
    z = (y - mean) / std
    return (0.5 * z.square() + std.log() + 0.5 * math.log(2 * math.pi)).mean().item()


def coverage(mean: Tensor, std: Tensor, y: Tensor, level: float = 0.9) -> float:
    """Fraction of y inside the central interval of this probability; `level` if calibrated."""
    width = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64))
    return ((y - mean).abs() <= width * std).double().mean().item()
