"""Random numbers that are the same on every device: drawn where the generator is, then moved."""

from __future__ import annotations

import torch
from torch import Tensor


def normal(*shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal numbers in float64 on `device`."""
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return drawn.to(device)


def uniform(*shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Numbers from [0, 1) in float64 on `device`."""
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return drawn.to(device)
