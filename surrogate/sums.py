"""Sums over groups of numbers, the same at each call on every device."""

from __future__ import annotations

import torch
from torch import Tensor

_CPU = torch.device("cpu")


def sums_by_group(values: Tensor, group: Tensor, count: int, dim: int = 0) -> Tensor:
    """Sums of the rows of `values` (n, ...) that have one number in `group` (n,): (count, ...).

    Args:
        dim: The axis of n, and then of `count`, where it is another than the first.
    """
    shape = list(values.shape)
    shape[dim] = count
    out = values.new_zeros(shape)
    if values.device == _CPU:
        return out.index_add_(dim, group, values)
    # On CUDA `index_add_` adds in the order in which threads happen to come; this one sorts.
    out.movedim(dim, 0).index_put_((group,), values.movedim(dim, 0), accumulate=True)
    return out
