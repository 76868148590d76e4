"""The libraries where batches of points of the unit cube are asked for; all of them minimise.

Each is imported only in its own process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from libraries import BoTorch, Library, OptunaGP
from libraries import Ours as OneByOne
from problems import box, vector

STRATEGIES = ("global", "trust_region", "sparse", "auto")


class Batches(ABC):
    """One run of one library.

    Args:
        d: How many parameters.
        batch: How many points at once.
        budget: How many evaluations in all.
        seed: Of this run.
    """

    wrapped: type[Library]

    def __init__(self, d: int, batch: int, budget: int, seed: int) -> None:
        self.d, self.batch, self.budget, self.seed = d, batch, budget, seed
        self.begin()

    def versions(self) -> dict[str, str]:
        """Of the packages that it is made of."""
        return self.wrapped.versions()

    @abstractmethod
    def begin(self) -> None:
        """Make an optimiser without data."""

    @abstractmethod
    def ask(self) -> np.ndarray:
        """Points to try next, (batch, d)."""

    @abstractmethod
    def tell(self, values: np.ndarray) -> None:
        """Take the values (batch,) of the points asked for last."""


class Ours(Batches):
    """`bbmmopt` by one of its strategies, told that there is no noise and how much is planned."""

    wrapped = OneByOne

    def __init__(self, d: int, batch: int, budget: int, seed: int, strategy: str) -> None:
        self.strategy = strategy
        super().__init__(d, batch, budget, seed)

    def begin(self) -> None:
        from bbmmopt import Optimizer, Real, Space

        self.optimizer = Optimizer(
            Space({f"x{i}": Real(0, 1) for i in range(self.d)}),
            minimize="f",
            noise="none",
            seed=self.seed,
            budget=self.budget,
            strategy=self.strategy,
        )

    def ask(self) -> np.ndarray:
        self.trials = self.optimizer.ask(self.batch)
        return np.array([vector(trial.params) for trial in self.trials])

    def tell(self, values: np.ndarray) -> None:
        for trial, value in zip(self.trials, values, strict=True):
            self.optimizer.tell(trial, float(value))


class Optuna(Batches):
    """GPSampler at its defaults, told that there is no noise; a batch is asked for one by one."""

    wrapped = OptunaGP

    def begin(self) -> None:
        self.library = OptunaGP(box(0.0, 1.0, self.d), self.seed, exact=True)

    def ask(self) -> np.ndarray:
        points, self.trials = [], []
        for _ in range(self.batch):
            points.append(vector(self.library.ask()))
            self.trials.append(self.library.trial)
        return np.array(points)

    def tell(self, values: np.ndarray) -> None:
        for trial, value in zip(self.trials, values, strict=True):
            self.library.study.tell(trial, float(value))


class BoTorchGlobal(Batches):
    """The documented loop of libraries.py, started with no more than a fifth of the budget.

    Batches are maximisers of draws from the posterior among candidates of the whole cube, as many
    and of the kind that turbo.py has.
    """

    wrapped = BoTorch

    def begin(self) -> None:
        self.library = BoTorch(box(0.0, 1.0, self.d), self.seed, exact=True)
        self.library.n_start = min(self.library.n_start, self.budget // 5)
        self.generator = torch.Generator().manual_seed(self.seed)

    def ask(self) -> np.ndarray:
        self.points = self._points()
        return self.points

    def _points(self) -> np.ndarray:
        from turbo import candidates, thompson

        library = self.library
        if self.batch == 1:
            return vector(library.ask())[None]
        if len(library.y) < library.n_start:
            return library.sobol.draw(self.batch, dtype=torch.float64).numpy()
        model = library.fit()
        centre = torch.tensor(library.X[int(np.argmin(library.y))], dtype=torch.float64)
        low, high = torch.zeros_like(centre), torch.ones_like(centre)
        return thompson(model, candidates(centre, low, high, self.generator), self.batch).numpy()

    def tell(self, values: np.ndarray) -> None:
        for point, value in zip(self.points, values, strict=True):
            self.library.add({f"x{i}": float(x) for i, x in enumerate(point)}, float(value))


class BoTorchTurbo(Batches):
    """The trust region of turbo.py, started with no more than a fifth of the budget."""

    wrapped = BoTorch

    def begin(self) -> None:
        from turbo import Turbo

        torch.manual_seed(self.seed)
        start = min(2 * self.d, self.budget // 5)
        self.turbo = Turbo(self.d, self.batch, start, self.seed)

    def ask(self) -> np.ndarray:
        self.points = self.turbo.ask()
        return self.points.numpy()

    def tell(self, values: np.ndarray) -> None:
        self.turbo.tell(self.points, -torch.tensor(values, dtype=torch.float64))


# Of ours every strategy counts as a library.
LIBRARIES: dict[str, Callable[[int, int, int, int], Batches]] = {
    **{name: partial(Ours, strategy=name) for name in STRATEGIES},
    "botorch": BoTorchGlobal,
    "botorch-turbo": BoTorchTurbo,
    "optuna": Optuna,
}
