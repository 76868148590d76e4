"""Models of every kind, and data for them, that are put on a device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracles import normal, uniform
from torch import Tensor

from surrogate import (
    BBMM,
    RBF,
    Cholesky,
    ExactGP,
    GradientGP,
    GridGP,
    Hamming,
    Heteroskedastic,
    InducingGP,
    Kernel,
    Matern52,
    MultiOutputGP,
)

PRODUCTS = {"rank": 8, "block": 6, "tolerance": 1e-4}
SOLVERS = {
    "cholesky": Cholesky(),
    "stored": BBMM(storage="float64", variance_tolerance=0.3, **PRODUCTS),
    "tiles": BBMM(storage="tiles", variance_tolerance=0.3, **PRODUCTS),
    "factor and root": Cholesky(root_from=10),
    "root alone": BBMM(variance_tolerance=math.inf, append_tolerance=math.inf, **PRODUCTS),
}


@dataclass(frozen=True)
class Case:
    """A model to make, data for it, and three more rows of them.

    `make` takes the solver and the inputs, where they are.
    """

    make: Callable[[Any, Tensor], ExactGP]
    data: tuple[Tensor, ...]
    more: tuple[Tensor, ...]
    has_solver: bool = True


def values(n: int, seed: int, d: int = 2) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    X = uniform(rng, n, d)
    return X, torch.sin(5 * X.sum(1)) + 0.1 * normal(rng, n)


def table(n: int, seed: int, *, gaps: bool = False) -> tuple[Tensor, Tensor]:
    X, y = values(n, seed)
    Y = torch.stack([y, y.square() - 0.5, X[:, 0] - y], 1)
    if gaps:
        Y[::3, 1] = torch.nan
    return X, Y


def known_noise(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    X, y = values(n, seed)
    noise = torch.full_like(y, torch.nan)
    noise[::2] = 0.02
    return X, y, noise


def slopes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    X, y = values(n, seed)
    slope = 5 * torch.cos(5 * X.sum(1))
    return X, torch.stack([y, slope, torch.where(X[:, 0] > 0.3, slope, torch.nan)], 1)


def categories(n: int, seed: int) -> tuple[Tensor, Tensor]:
    X, y = values(n, seed)
    return torch.cat([X[:, :1], (3 * X[:, 1:]).floor()], 1), y


def case(
    make: Callable[[Any, Tensor], ExactGP], data: Any, n: int, has_solver: bool = True
) -> Case:
    return Case(make, data(n, 0), data(3, 1), has_solver)


def mixed() -> Kernel:
    return Matern52(1, columns=[0]) * Hamming(1, columns=[1]) + 0.3 * RBF(1, columns=[0])


CASES = {
    "exact": case(lambda s, X: ExactGP(Matern52(2), solver=s), values, 20),
    "categories": case(lambda s, X: ExactGP(mixed(), solver=s), categories, 20),
    "known noise": case(lambda s, X: ExactGP(RBF(2), solver=s), known_noise, 20),
    "heteroskedastic": case(
        lambda s, X: ExactGP(Matern52(2), noise=Heteroskedastic(X, points=4), solver=s), values, 20
    ),
    "table": case(lambda s, X: MultiOutputGP(Matern52(2), 3), table, 12, False),
    "table with gaps": case(
        lambda s, X: MultiOutputGP(Matern52(2), 3, solver=s),
        lambda n, seed: table(n, seed, gaps=True),
        12,
    ),
    "places": case(
        lambda s, X: MultiOutputGP(
            Matern52(2), torch.tensor([0.0, 0.4, 1.0]), output_kernel=RBF(1), solver=s
        ),
        table,
        12,
    ),
    "grid": case(lambda s, X: GridGP(Matern52, 12, dims=2, bounds=(0, 1), solver=s), values, 24),
    "inducing": case(lambda s, X: InducingGP(Matern52(2), 6), values, 24, False),
    "inducing, given": case(lambda s, X: InducingGP(Matern52(2), X[:6]), values, 24, False),
    "fitc": case(
        lambda s, X: InducingGP(RBF(2), 6, learn_inducing=False, fitc=True), values, 24, False
    ),
    "gradients": case(lambda s, X: GradientGP(RBF(2), solver=s), slopes, 10),
}
EVERY_CASE = pytest.mark.parametrize("name", CASES)


def pairs(solvers: list[str]) -> list[Any]:
    """Every solver with one model, every model with two: each operation there takes its time."""
    return [
        pytest.param(name, solver, id=f"{name}, {solver}")
        for i, (name, some) in enumerate(CASES.items())
        for j, solver in enumerate(solvers)
        if not j or (some.has_solver and (not i or j == 1 + i % (len(solvers) - 1)))
    ]


FITS, POSTERIORS = pairs(["cholesky", "stored", "tiles"]), pairs(list(SOLVERS))
