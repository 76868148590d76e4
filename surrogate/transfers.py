"""Between the device of the data and the CPU, where parameters and decisions are.

A copy to the CPU makes the host wait until the device has done all it was given; so does one from
it, unless it is told not to: what comes from ordinary memory is put aside before the call returns.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_host(*tensors: Tensor) -> list[Tensor]:
    """The same numbers on the CPU: those of a device in float64, and copied together.

    Args:
        tensors: Each on the CPU, or on the one device that the others are on.
    """
    found = list(tensors)
    away = [i for i, tensor in enumerate(found) if tensor.device.type != "cpu"]
    if away:
        parts = [found[i].detach().reshape(-1).to(torch.float64) for i in away]
        packed = torch.cat(parts).cpu()
        for i, part in zip(away, packed.split([len(p) for p in parts]), strict=True):
            found[i] = part.view(found[i].shape)
    return found


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Values on `device`, differentiable; those of the CPU without waiting for what goes on there.

    They may be changed right after.
    """
    if values.device == device:
        return values
    return values.to(device, non_blocking=values.device.type == "cpu")


def beside(values: Tensor, X: Tensor) -> Tensor:
    """Values where X is, as `to_device`."""
    return to_device(values, X.device)
