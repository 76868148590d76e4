"""The models and data that test_posterior.py and test_posterior_limits.py condition."""

import pytest
import torch
from oracles import normal
from torch import Tensor

from surrogate import RBF, ExactGP, Hamming, Kernel, Matern12, Matern32, Matern52
from tests.surrogate.helpers import Polynomial, rows

KERNELS = {
    "rbf": RBF(3, [0.3, 1.0, 2.0], 1.7),
    "matern12": Matern12(3, 0.8),
    "matern32": Matern32(3, 0.8),
    "matern52": Matern52(3, 0.8),
    "mixed": Matern52(2, 0.5, columns=[0, 1]) * (1.3 * Hamming(1, 0.7, columns=[2])),
    "sum": RBF(3, 0.5, 0.4) + Matern32(1, 0.2, columns=[0]),
    "a user's own": Polynomial(0.5),
    "a user's own, combined": 0.3 * Polynomial(0.5) + Matern52(3, 0.8, 1.0),
}
EVERY_KERNEL = pytest.mark.parametrize("name", KERNELS)
MEAN, NOISE = 0.7, 0.05


def data(rng: torch.Generator, n: int = 9) -> tuple[Tensor, Tensor]:
    return rows(rng, n), normal(rng, n) + MEAN


def model_of(kernel: Kernel, noise: float = NOISE) -> ExactGP:
    return ExactGP(kernel, mean=MEAN, noise=noise)
