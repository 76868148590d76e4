"""Scratch memory that is allocated once and used again.

A fit evaluates the same n × n temporaries some twenty times. Fresh ones cost page faults, which
at n ≥ 300 take about as long as the arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Workspace:
    """Named buffers of one shape each. What a call returns is valid until its name is asked again.

    A workspace belongs to one computation in one thread; never keep a buffer beyond it.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._children: dict[str, Workspace] = {}

    def buffer(self, name: str, *shape: int) -> Tensor:
        """Return an uninitialised float64 tensor of this shape, the same one at each call."""
        found = self._buffers.get(name)
        if found is None or found.shape != shape:
            found = torch.empty(shape, dtype=torch.float64)
            self._buffers[name] = found
        return found

    def child(self, name: str) -> Workspace:
        """Return the workspace of a part, so that two parts of a sum do not share buffers."""
        return self._children.setdefault(name, Workspace())
