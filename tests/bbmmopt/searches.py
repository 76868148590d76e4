"""Functions to climb, and limits to keep, for the test files of the search under constraints."""

from dataclasses import dataclass

import numpy as np
import torch

from bbmmopt.search import Search, maximise
from bbmmopt.space import Nonlinear

QUICK = Search(raw=64, starts=4, climb_rounds=40)


@dataclass(frozen=True)
class Peak:
    """-Σ w (x - top)² + slope · x over rows of the unit cube."""

    top: np.ndarray
    weight: float = 1.0
    slope: np.ndarray | float = 0.0

    def __call__(self, X):
        return self.value_and_gradient(X.squeeze(-2))[0]

    def value_and_gradient(self, X):
        slope = torch.as_tensor(np.broadcast_to(self.slope, np.shape(self.top)).copy())
        away = X - torch.as_tensor(self.top)
        value = -self.weight * away.square().sum(-1) + (X * slope).sum(-1)
        return value, -2 * self.weight * away + slope


def seeded(seed: int = 0) -> torch.Generator:
    """Randomness of torch that repeats."""
    return torch.Generator().manual_seed(seed)


def search_for(acquisition, domain, *, seed=0, search=None, centres=None, scale=1.0):
    """What `maximise` finds."""
    d = len(domain.space)
    return maximise(
        acquisition,
        domain,
        generator=seeded(seed),
        scale=torch.full((d,), scale, dtype=torch.float64),
        centres=np.empty((0, d)) if centres is None else centres,
        search=search,
    )


def random_limits(rng, d, *, equalities=0):
    """Rows (A, lower, upper) that a point well inside the cube meets."""
    inside = rng.uniform(0.25, 0.75, d)
    p = int(rng.integers(1, 6))
    G, E = rng.standard_normal((p, d)), rng.standard_normal((equalities, d))
    upper = np.concatenate([G @ inside + rng.uniform(0.01, 0.3, p), E @ inside])
    lower = np.concatenate([np.full(p, -np.inf), E @ inside])
    return np.vstack([G, E]), lower, upper


def disc(radius=0.5, x=0.5, y=0.5):
    """The points of a disc."""
    return Nonlinear("disc", lambda p: radius**2 - (p["x"] - x) ** 2 - (p["y"] - y) ** 2)


def rng(seed=0) -> np.random.Generator:
    """Randomness of numpy that repeats."""
    return np.random.default_rng(seed)
