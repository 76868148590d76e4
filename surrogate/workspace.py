"""Scratch memory that is allocated once and used again.

A fit evaluates the same n × n temporaries some twenty times. Fresh ones cost page faults, which
at n ≥ 300 take about as long as the arithmetic.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Workspace:
    """Named buffers. What a call returns is valid until its name is asked again.

    A workspace belongs to one computation in one thread; never keep a buffer beyond it.

    Args:
        device: Where the memory is; the CPU unless given.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = torch.device("cpu") if device is None else device
        self._memory: dict[str, Tensor] = {}
        self._buffers: dict[str, Tensor] = {}
        self._children: dict[str, Workspace] = {}

    def buffer(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return an uninitialised tensor of this shape, in the same memory at each call.

        A smaller shape than last time uses the front of that memory: tiles shrink along a triangle.
        """
        found = self._buffers.get(name)
        if found is not None and found.shape == shape and found.dtype == dtype:
            return found
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.dtype != dtype or len(memory) < size:
            memory = self._memory[name] = torch.empty(size, dtype=dtype, device=self.device)
        self._buffers[name] = memory[:size].view(shape)
        return self._buffers[name]

    def forget(self) -> None:
        """Give all memory back; what was returned before is then no longer shared."""
        self._memory.clear()
        self._buffers.clear()
        for child in self._children.values():
            child.forget()

    def child(self, name: str) -> Workspace:
        """Return the workspace of a part, so that two parts of a sum do not share buffers."""
        return self._children.setdefault(name, Workspace(self.device))
