"""Between the device of the data and the CPU, where parameters are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_CPU = torch.device("cpu")


def to_the_cpu(gradients: Sequence[Tensor]) -> list[Tensor]:
    """The same gradients on the CPU; those from a device in one transfer for all of them."""
    found = list(gradients)
    away = [i for i, g in enumerate(found) if g.device != _CPU]
    if away:
        moved = torch.cat([found[i].reshape(-1) for i in away]).to(_CPU)
        for i, part in zip(away, moved.split([found[i].numel() for i in away]), strict=True):
            found[i] = part.view(found[i].shape)
    return found


def check_parameters(model: nn.Module) -> None:
    """Raise ValueError unless all that a model learns or keeps is on the CPU."""
    for name, kept in [*model.named_parameters(), *model.named_buffers()]:
        if kept.device != _CPU:
            raise ValueError(
                f"the parameters of a model stay on the CPU, wherever the data are; {name} is on "
                f"{kept.device}. Pass the model.to('cpu'): it computes where X is."
            )
