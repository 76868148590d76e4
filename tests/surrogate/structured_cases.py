"""Kernels with a structure, and what each should be for one pair of points, for the law suite.

They see rows of five columns: three of real numbers, two of the categories 0, ½ and 1.
"""

import itertools
import math

import numpy as np
import torch
from oracles import matern
from torch import Tensor, nn

from surrogate import (
    RBF,
    Additive,
    Conditional,
    Coregionalization,
    FeatureMap,
    Hamming,
    Matern12,
    Matern32,
    Matern52,
    Ordinal,
    Warped,
)


class Waves(nn.Module):
    """Features sin(Wᵀx + 0.3), shape (..., n, 2); its weights are made in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1.5, 1.5, 10).view(5, 2))
        self.offset = nn.Parameter(torch.tensor(0.3))

    def forward(self, X: Tensor) -> Tensor:
        return torch.sin(X @ self.weight + self.offset)


class Tasks(nn.Module):
    """The category in the fourth column as a task number 0, 1 or 2, whatever multiple of 3 off."""

    def forward(self, X: Tensor) -> Tensor:
        return torch.remainder((2 * X[..., 3:4]).floor(), 3)


def active(X: Tensor) -> Tensor:
    """Which of two inputs the categories make active: none, one or both, shape (..., n, 2)."""
    return torch.stack([X[..., 3] != X[..., 4], X[..., 3] <= X[..., 4]], dim=-1)


STEPS = [[0.2, 1.0], [2.0, 0.5, 1.0]]
FACTOR = [[0.5, -1.0], [1.5, 0.2], [-0.7, 0.1]]
OWN = [0.2, 0.4, 1.3]


def position(x: float, steps: list[float]) -> float:
    """Of a level (i + ½) / L, its place in the learnt order, linear in between."""
    levels = len(steps) + 1
    z = [sum(steps[:i]) / sum(steps) for i in range(levels)]
    return float(np.interp(x, [(i + 0.5) / levels for i in range(levels)], z))


def ordinal(a: Tensor, b: Tensor) -> float:
    r2 = 0.0
    for column, steps, ell in zip([0, 2], STEPS, [0.6, 1.1], strict=True):
        r2 += ((position(float(a[column]), steps) - position(float(b[column]), steps)) / ell) ** 2
    return 2 * matern(2.5, math.sqrt(r2))


def tasks(a: Tensor, b: Tensor) -> float:
    t, s = int(2 * a[3]), int(2 * b[3])
    return sum(p * q for p, q in zip(FACTOR[t], FACTOR[s], strict=True)) + OWN[t] * (t == s)


def additive(a: Tensor, b: Tensor) -> float:
    z = [
        1.3 * matern(0.5, abs(float(a[0] - b[0])) / 0.5),
        matern(1.5, abs(float(a[1] - b[1])) / 0.9),
        math.exp(-(int(a[3] != b[3]) + int(a[4] != b[4])) / 0.7),
        matern(2.5, abs(float(a[2] - b[2])) / 0.4),
    ]
    total = 0.0
    for order, variance in ((1, 0.5), (2, 1.5), (3, 0.8)):
        products = [math.prod(some) for some in itertools.combinations(z, order)]
        total += variance * sum(products) / len(products)
    return total


def warp(x: Tensor, a: float, b: float) -> float:
    return 1 - (1 - (1e-6 + (1 - 2e-6) * float(x)) ** a) ** b


def warped(u: Tensor, v: Tensor) -> float:
    u, v = u.clone(), v.clone()
    for column, a, b in ((2, 0.7, 1.5), (0, 2.0, 0.6)):
        u[column], v[column] = warp(u[column], a, b), warp(v[column], a, b)
    return 1.7 * matern(2.5, float((u - v).norm()) / 0.8)


def waves(a: Tensor, b: Tensor) -> float:
    weight = torch.linspace(-1.5, 1.5, 10).view(5, 2).double()
    offset = float(torch.tensor(0.3))
    phi, psi = (
        [math.sin(sum(float(x[i] * weight[i, j]) for i in range(5)) + offset) for j in range(2)]
        for x in (a, b)
    )
    r2 = ((phi[0] - psi[0]) / 0.5) ** 2 + ((phi[1] - psi[1]) / 0.8) ** 2
    return 1.2 * math.exp(-r2 / 2)


def conditional(a: Tensor, b: Tensor) -> float:
    r2 = 0.0
    pairs = zip([2, 0], active(a), active(b), [0.5, 0.9], [0.4, 2.0], strict=True)
    for column, on, also, ell, gap in pairs:
        angle = math.pi / (1 + gap)
        radius = 1 / (angle * ell)
        if on and also:
            r2 += (2 * radius * math.sin(angle * float(a[column] - b[column]) / 2)) ** 2
        elif on or also:
            r2 += radius**2
    return 0.9 * matern(2.5, math.sqrt(r2)) * math.exp(-abs(float(a[1] - b[1])) / 0.6)


STRUCTURED = {
    "ordinal": (
        2.0 * Ordinal(2, [3, 4], [0.6, 1.1], columns=[0, 2], steps=[*STEPS[0], *STEPS[1]]),
        ordinal,
    ),
    "tasks": (
        FeatureMap(Coregionalization(3, 2, factor=FACTOR, diagonal=OWN), Tasks()),
        tasks,
    ),
    "additive": (
        Additive(
            [
                Matern12(1, 0.5, 1.3, columns=[0]),
                Matern32(1, 0.9, columns=[1]),
                Hamming(2, 0.7, columns=[3, 4]),
                Matern52(1, 0.4, columns=[2]),
            ],
            3,
            [0.5, 1.5, 0.8],
        ),
        additive,
    ),
    "additive, all orders": (
        Additive([Matern52(1, 0.4, columns=[j]) for j in range(2)], 2),
        lambda a, b: (
            sum(z := [matern(2.5, abs(float(a[j] - b[j])) / 0.4) for j in range(2)]) / 4
            + math.prod(z) / 2
        ),
    ),
    "warped": (
        Warped(Matern52(5, 0.8, 1.7), 2, columns=[2, 0], a=[0.7, 2.0], b=[1.5, 0.6]),
        warped,
    ),
    "feature map": (FeatureMap(RBF(2, [0.5, 0.8], 1.2), Waves()), waves),
    "conditional": (
        Conditional(2, active, [0.5, 0.9], 0.9, gap=[0.4, 2.0], columns=[2, 0])
        * Matern12(1, 0.6, columns=[1]),
        conditional,
    ),
}
