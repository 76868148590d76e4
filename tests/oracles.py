"""Small, slow, independent answers that tests compare against, and draws to feed them.

Nothing here uses the packages under test: dense algebra, loops and differences only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import special
from torch import Tensor

# --------------------------------------------------------------------------------------
# Draws. float64 is spelled out, so that the packages run under torch's own default dtype.
# --------------------------------------------------------------------------------------


def uniform(rng: torch.Generator, *shape: int) -> Tensor:
    """Uniform on [0, 1)."""
    return torch.rand(*shape, generator=rng, dtype=torch.float64)


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    """Standard normal."""
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def spd_matrix(eigenvalues: Tensor, rng: torch.Generator) -> Tensor:
    """A random symmetric matrix with these eigenvalues, so the right answer is known."""
    Q, _ = torch.linalg.qr(normal(rng, len(eigenvalues), len(eigenvalues)))
    return (Q * eigenvalues) @ Q.T


# --------------------------------------------------------------------------------------
# Kernels, one pair of points at a time.
# --------------------------------------------------------------------------------------


def matern(nu: float, r: float) -> float:
    """Matérn correlation for any ν, by a Bessel function: Rasmussen & Williams (2006), eq. 4.14."""
    if r == 0:
        return 1.0
    z = math.sqrt(2 * nu) * r
    return 2 ** (1 - nu) / special.gamma(nu) * z**nu * special.kv(nu, z)


def kernel_matrix(formula: Callable[[Tensor, Tensor], float], X1: Tensor, X2: Tensor) -> Tensor:
    """formula(x, x') for each row x of X1 (n, d) and x' of X2 (m, d): shape (n, m)."""
    return torch.tensor([[formula(a, b) for b in X2] for a in X1], dtype=torch.float64)


# --------------------------------------------------------------------------------------
# Gaussian processes from the textbook.
# --------------------------------------------------------------------------------------


def gp_prediction(
    k: Callable[[Tensor, Tensor], Tensor],
    X: Tensor,
    y: Tensor,
    noise: Tensor,
    X_new: Tensor,
    mean: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Mean (m,) and covariance (m, m) of f at X_new: Rasmussen & Williams (2006), eq. 2.25-2.26."""
    inverse = torch.linalg.inv(k(X, X) + noise.diag())
    K_new = k(X_new, X)
    return (
        mean + K_new @ inverse @ (y - mean),
        k(X_new, X_new) - K_new @ inverse @ K_new.T,
    )


# --------------------------------------------------------------------------------------
# Differences, boxes, Monte Carlo.
# --------------------------------------------------------------------------------------


def central_difference(
    function: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-5
) -> np.ndarray:
    """Gradient of a function at x (p,), shape (p,), to about step² relative."""
    gradient = np.zeros(len(x))
    for i in range(len(x)):
        e = np.zeros(len(x))
        e[i] = step
        gradient[i] = (function(x + e) - function(x - e)) / (2 * step)
    return gradient


def quadratic_minimum_in_box(
    A: np.ndarray, c: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """argmin of ½ (x - c)ᵀ A (x - c) in a box, by trying every set of active bounds."""
    best, best_value = None, math.inf
    for pattern in itertools.product((-1, 0, 1), repeat=len(c)):
        side = np.array(pattern)
        x = np.where(side < 0, low, high)
        free = side == 0
        if free.any():
            pull = A[np.ix_(free, ~free)] @ (x - c)[~free]
            x[free] = c[free] - np.linalg.solve(A[np.ix_(free, free)], pull)
        inside = (x >= low - 1e-12).all() and (x <= high + 1e-12).all()
        value = 0.5 * (x - c) @ A @ (x - c)
        if inside and value < best_value:
            best, best_value = x, value
    assert best is not None
    return best


def assert_mean_within(samples: Tensor, expected: Tensor | float, errors: float = 4.0) -> None:
    """The mean of independent samples (s, ...) is within so many standard errors of `expected`."""
    error = samples.std(0) / len(samples) ** 0.5
    # The floor lets what does not vary at all be equal up to rounding.
    off = (samples.mean(0) - expected).abs() / (error + 1e-12)
    assert off.max() <= errors, f"{off.max():.1f} standard errors off"
