"""Raw candidates, and the choice of those worth climbing from."""

from __future__ import annotations

import numpy as np
import torch

from bbmmopt.space import Space


def sobol(count: int, dims: int, generator: torch.Generator) -> np.ndarray:
    """`count` points of a scrambled Sobol sequence in [0, 1)^dims, shape (count, dims)."""
    seed = int(torch.randint(2**62, (), generator=generator))
    engine = torch.quasirandom.SobolEngine(dims, scramble=True, seed=seed)
    return engine.draw(count, dtype=torch.float64).numpy()


def around(centres: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    """`count` points near the rows of `centres` (k, d): shape (count, d).

    Steps are normal with a standard deviation from 0.001 to 0.2, log-uniform; in many dimensions
    each point changes about twenty of them only, for a step in all of them at once is a long one.
    """
    k, d = centres.shape
    pick = torch.randint(k, (count,), generator=generator).numpy()
    width = torch.rand(count, 1, generator=generator, dtype=torch.float64).numpy()
    width = 10 ** (-3 + width * (np.log10(0.2) + 3))
    step = torch.randn(count, d, generator=generator, dtype=torch.float64).numpy() * width
    if d > 20:
        keep = torch.rand(count, d, generator=generator, dtype=torch.float64).numpy() < 20 / d
        step *= keep
    return np.clip(centres[pick] + step, 0.0, 1.0)


def change_discrete(space: Space, X: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Rows of X with some discrete columns drawn anew, each with probability ½."""
    columns = [j for j, c in enumerate(space.columns) if c.kind in ("ordered", "categorical")]
    if not columns:
        return X
    X = X.copy()
    shape = (2, len(X), len(columns))
    coin, fresh = torch.rand(shape, generator=generator, dtype=torch.float64).numpy()
    X[:, columns] = np.where(coin < 0.5, X[:, columns], fresh)
    return X


def boltzmann(values: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Indices of `count` values: the largest, and others with probability ∝ exp(z-score).

    Log acquisition values span hundreds of nats, of which only the order and the spread of the
    upper part matter: z-scores are taken over the better half.
    """
    best = int(values.argmax())
    if len(values) <= count:
        return torch.arange(len(values))
    upper = values.clamp_min(values.median())
    z = (upper - upper.mean()) / upper.std().clamp_min(1e-12)
    # Gumbel's trick: the largest of log-weight + Gumbel noise is a draw without replacement.
    uniform = torch.rand(len(values), generator=generator, dtype=torch.float64)
    keys = 2.0 * z - torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
    keys[best] = torch.inf
    return keys.topk(count).indices
