"""Kernels are computed where the inputs are, from parameters on the CPU and columns that it names.

What torch copies to a device by itself, as in `X[..., (0, 2)]`, makes the host wait.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from surrogate.transfers import beside


def chosen(X: Tensor, columns: tuple[int, ...]) -> Tensor:
    """X[..., columns].

    Raises:
        ValueError: If X has no such column.
    """
    return X.index_select(-1, column_index(X, columns))


def column_index(X: Tensor, columns: tuple[int, ...]) -> Tensor:
    """Which columns of X these are, counted from the first, as an index where X is.

    Raises:
        ValueError: If X has no such column.
    """
    width = X.shape[-1]
    index = [column + width if column < 0 else column for column in columns]
    if index and not (min(index) >= 0 and max(index) < width):
        raise ValueError(
            f"the kernel looks at columns {columns}, but X has {width} column(s); "
            f"got shape {tuple(X.shape)}."
        )
    return beside(torch.tensor(index, dtype=torch.long), X)


class Moving:
    """A function of X and of tensors of its own, which follow X: one copy on each device.

    Args:
        function: Takes X, then its own tensors.
        own: These.
    """

    def __init__(self, function: Callable[..., Tensor], *own: Tensor) -> None:
        self._function, self._own = function, own
        self._copies: dict[torch.device, tuple[Tensor, ...]] = {}

    def __call__(self, X: Tensor) -> Tensor:
        own = self._copies.get(X.device)
        if own is None:
            own = self._copies[X.device] = tuple(beside(tensor, X) for tensor in self._own)
        return self._function(X, *own)
