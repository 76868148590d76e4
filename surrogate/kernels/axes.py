"""Even steps along an input, and cubic interpolation between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_PADDING = 3  # nodes beyond each end: cubic interpolation asks for one, two leave room to predict
_WITHIN = 1e-9  # grid steps: a point that rounding put beyond the last one


@dataclass(frozen=True)
class Axis:
    """Nodes at even steps along one input.

    Attributes:
        low: The first node.
        step: Distance of two.
        count: How many.
    """

    low: float
    step: float
    count: int

    @staticmethod
    def over(low: float, high: float, points: int) -> Axis:
        """`points` nodes from `low` to `high`, and a few beyond each end."""
        step = (high - low) / (points - 1)
        return Axis(low - _PADDING * step, step, points + 2 * _PADDING)

    @property
    def nodes(self) -> Tensor:
        """Where they are, shape (count,)."""
        return self.low + self.step * torch.arange(self.count, dtype=torch.float64)

    @property
    def span(self) -> tuple[float, float]:
        """Between what points may be interpolated: the second node and the last but one."""
        return self.low + self.step, self.low + (self.count - 2) * self.step

    def holds(self, x: Tensor) -> Tensor:
        """Whether all of x (...) can be interpolated, shape ()."""
        t = (x - self.low) / self.step
        return ((t >= 1 - _WITHIN) & (t <= self.count - 2 + _WITHIN)).all()

    def locate(self, x: Tensor) -> Place:
        """The four nodes around each x (...) of this axis, two at either side."""
        t = (x - self.low) / self.step
        first = t.detach().floor().long().clamp(1, self.count - 3)
        return Place(first - 1, t - first, self.step)


@dataclass(frozen=True)
class Place:
    """Where points are between the nodes of an axis.

    Attributes:
        first: The first of four nodes, shape (...).
        t: Way from the second to the third, in [0, 1], shape (...).
        step: Distance of two nodes.
    """

    first: Tensor
    t: Tensor
    step: float

    @property
    def weights(self) -> Tensor:
        """Cubic convolution, shape (..., 4): exact for parabolas, with continuous slopes.

        Source: Keys (1981), Cubic convolution interpolation for digital image processing, with
        a = -1/2.
        """
        t = self.t
        return torch.stack(
            [
                ((1 - 0.5 * t) * t - 0.5) * t,
                (1.5 * t - 2.5) * t * t + 1,
                ((2 - 1.5 * t) * t + 0.5) * t,
                (0.5 * t - 0.5) * t * t,
            ],
            -1,
        )

    @property
    def slopes(self) -> Tensor:
        """d weights / dx, shape (..., 4)."""
        t = self.t
        slopes = [
            (2 - 1.5 * t) * t - 0.5,
            (4.5 * t - 5) * t,
            (4 - 4.5 * t) * t + 0.5,
            (1.5 * t - 1) * t,
        ]
        return torch.stack(slopes, -1) / self.step
