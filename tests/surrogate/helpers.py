"""Data, answers and checks that several test files of `surrogate` share."""

import torch
from oracles import uniform
from torch import Tensor

from surrogate import Kernel

# --------------------------------------------------------------------------------------
# Data and parts to test with.
# --------------------------------------------------------------------------------------


def rows(rng: torch.Generator, *shape: int, d: int = 3) -> Tensor:
    """Real columns, and a last one that takes the values 0, ½ and 1: (*shape, d)."""
    X = uniform(rng, *shape, d)
    X[..., -1] = (X[..., -1] * 3).floor() / 2
    return X


def noises(n: int, rng: torch.Generator, least: float = 1e-3, most: float = 1e-1) -> Tensor:
    """Another variance for each observation."""
    return least * (most / least) ** uniform(rng, n)


def observations(
    rng: torch.Generator, n: int = 40, d: int = 2, least: float = 1e-3, most: float = 1e-1
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets, and another noise variance for each observation."""
    X = uniform(rng, n, d)
    return X, torch.sin(5 * X.sum(1)), noises(n, rng, least, most)


class Polynomial(Kernel):
    """What a user writes: no parameter, not stationary, so k(x, x) has a gradient too."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return (self.offset + X1 @ X2.transpose(-1, -2)) ** 2


class Inverse:
    """P⁻¹ of a stored P."""

    def __init__(self, P: Tensor) -> None:
        self.inverse = torch.linalg.inv(P)

    def solve(self, R: Tensor) -> Tensor:
        return self.inverse @ R


# --------------------------------------------------------------------------------------
# The same by dense algebra.
# --------------------------------------------------------------------------------------


def log_density(K_hat: Tensor, y: Tensor) -> Tensor:
    """log N(y; 0, K̂) by a Cholesky factor."""
    zero = torch.zeros(len(y), dtype=torch.float64)
    return torch.distributions.MultivariateNormal(zero, K_hat, validate_args=False).log_prob(y)


def prediction_by_cholesky(
    model, X: Tensor, y: Tensor, X_new: Tensor, mean: float
) -> tuple[Tensor, Tensor]:
    """Mean (m,) and covariance (m, m) of f at X_new, by a triangular solve.

    `oracles.gp_prediction` inverts K̂, which costs twice the digits: too many at small noise.
    """
    with torch.no_grad():
        L = torch.linalg.cholesky(model.covariance(X))
        V = torch.linalg.solve_triangular(L, model.kernel(X, X_new), upper=False)
        by_y = torch.linalg.solve_triangular(L, (y - mean).unsqueeze(1), upper=False)
        return mean + V.T @ by_y[:, 0], model.kernel(X_new, X_new) - V.T @ V


def assert_is_product(received: Tensor, A: Tensor, V: Tensor, tolerance: float) -> None:
    """received = A V, but for `tolerance` relative to what a sum of absolute values would be."""
    assert received.shape == V.shape and received.dtype == torch.float64
    assert ((received - A @ V).abs() <= tolerance * (A.abs() @ V.abs())).all()
