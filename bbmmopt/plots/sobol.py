"""Shares of the variance of functions that their inputs explain: Sobol indices, with errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import sobol_indices

from bbmmopt.search.starts import sobol

# Rows of the unit cube (m, k) to values of s functions there, (s, m).
Functions = Callable[[np.ndarray], np.ndarray]

REPLICATES = 8  # scramblings of the points, the spread of which is the error of the integration
_POINTS = 512  # of each of the two designs of one scrambling
_MOST_ROWS = 2**16  # at which functions are evaluated in all; of many inputs there are fewer points
_LEAST = 64


def pick_freeze(
    functions: Functions, k: int, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """First-order and total indices of functions of k independent inputs, even over [0, 1].

        S_i = Var(E[f | x_i]) / Var f,    T_i = E[Var(f | all but x_i)] / Var f

    By the estimators that `scipy.stats.sobol_indices` takes from Saltelli et al. (2010),
    https://doi.org/10.1016/j.cpc.2009.09.018, table 2 (b) and (f), the second one Jansen's, on
    points of a scrambled Sobol sequence in 2k dimensions. The index of a constant is 0.

    Args:
        functions: Of rows (m, k).
        k: How many inputs.
        generator: Scrambles.

    Returns:
        Both of shape (replicates, s, k): each replicate has another scrambling.
    """
    n = _POINTS
    while n > _LEAST and (k + 2) * n * REPLICATES > _MOST_ROWS:
        n //= 2
    first, total = [], []
    for _ in range(REPLICATES):
        both = sobol(n, 2 * k, generator)
        A, B = both[:, :k], both[:, k:]
        mixed = np.repeat(A[None], k, axis=0)  # (k, n, k): A with column i of B
        mixed[np.arange(k), :, np.arange(k)] = B.T
        values = functions(np.concatenate([A, B, mixed.reshape(k * n, k)]))  # (s, (k + 2) n)
        # One function of one input is what scipy (1.17) stumbles over: the last one goes twice.
        values = np.concatenate([values, values[-1:]])
        s = len(values)
        parts = {"f_A": values[:, :n], "f_B": values[:, n : 2 * n]}
        parts["f_AB"] = np.moveaxis(values[:, 2 * n :].reshape(s, k, n), 1, 0)
        found = sobol_indices(func=parts, n=n)
        first.append(found.first_order.reshape(s, k)[:-1])
        total.append(found.total_order.reshape(s, k)[:-1])
    return np.array(first), np.array(total)


def by_rank(values: np.ndarray, X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """First-order indices of functions whose inputs depend on each other, shape (s, k).

        S_i = (1/(m - 1) Σ_j f(j) f(j + 1) - (mean f)²) / Var f,    points in order of x_i

    Var(E[f | x_i]) / Var f needs pairs of points that share x_i; neighbours nearly do. Points with
    the same x_i come in random order. Source: https://arxiv.org/abs/2306.05842, lag 1.

    Args:
        values: Of each function at the points, shape (s, m).
        X: The points, drawn from whatever law, shape (m, k).
        rng: Settles ties.
    """
    f = values - values.mean(1, keepdims=True)
    variance = f.var(1)
    shares = np.zeros((len(f), X.shape[1]))
    for i, x in enumerate(X.T):
        ordered = f[:, np.lexsort([rng.random(len(x)), x])]
        covariance = (ordered[:, 1:] * ordered[:, :-1]).mean(1)
        np.divide(covariance, variance, out=shares[:, i], where=variance > 0)
    return shares


def with_errors(estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the first function, with the errors that integration and the others show.

    The others are draws of what the first is an estimate of. The error holds both the standard
    error over replicates and the root mean square distance of the others' indices from those of
    the first, as Le Gratiet, Cannamela & Iooss (2014), https://arxiv.org/abs/1307.2223, put both
    together: distance and not spread, for an estimate may be smoother than all draws.

    Args:
        estimates: Shape (replicates, 1 + draws, k).

    Returns:
        Indices and their errors, each of shape (k,).
    """
    replicates = len(estimates)
    means = estimates.mean(0)  # (1 + draws, k)
    integration = estimates[:, 0].var(0, ddof=1) / replicates
    model = ((means[1:] - means[0]) ** 2).mean(0) if len(means) > 1 else 0.0
    return means[0], np.sqrt(integration + model)
