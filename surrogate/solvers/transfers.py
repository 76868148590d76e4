"""Small tensors between the device of the data and the host, with as few waits as can be."""

from __future__ import annotations

import torch
from torch import Tensor


def to_host(*tensors: Tensor) -> list[Tensor]:
    """The same numbers on the CPU: in float64 and copied together, unless they are there already.

    Args:
        tensors: All on one device.
    """
    if tensors[0].device.type == "cpu":
        return list(tensors)
    packed = torch.cat([tensor.detach().reshape(-1).to(torch.float64) for tensor in tensors]).cpu()
    parts = packed.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the CPU on `device`, without waiting for what is under way there.

    CUDA puts what comes from ordinary memory aside before it returns, so the tensor may be changed
    right after; a blocking copy would wait for all work that was asked for before it.
    """
    return tensor.to(device, non_blocking=True)
