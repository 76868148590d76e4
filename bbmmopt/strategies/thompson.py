"""Thompson sampling: functions drawn from the posterior, each of which one trial maximises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bbmmopt.acquisition import Acquisition
from bbmmopt.acquisition.base import single_candidates
from bbmmopt.modelling import Belief
from bbmmopt.strategies.base import generator

_FEATURES = 1024  # random features of the prior's part of a path
FAR_BELOW = 1e6  # any value of a path, in model units
_PENALTY = 30.0  # for each standard deviation by which a drawn constraint is missed


class PathValue(Acquisition):
    """The value of a function drawn from the posterior, in model units.

    Source: Thompson (1933), Biometrika 25; as drawn here, Wilson et al. (2020),
    https://arxiv.org/abs/2002.09309.

    Args:
        path: Maps X (m, d) to values (1, m).
    """

    def __init__(self, path: Callable[[Tensor], Tensor]) -> None:
        self._path = path

    def __call__(self, X: Tensor) -> Tensor:
        """Value at each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        X = single_candidates(self, X)
        return self._path(X.reshape(-1, X.shape[-1]))[0].reshape(X.shape[:-1])


class PathWithin(Acquisition):
    """The value of a drawn function where functions drawn of the constraints hold.

        f(x)                  where v(x) = Σ_j max(bound_j - c_j(x), 0) is 0
        -FAR_BELOW - v(x)     elsewhere

    So any point that holds is better than all others, and of these the one that misses by least.

    Source: Eriksson & Poloczek (2021), https://arxiv.org/abs/2002.08526, of how a draw chooses.

    Args:
        objective: f.
        constraints: Each c_j.
        bounds: What each of them must reach.
    """

    def __init__(
        self, objective: PathValue, constraints: Sequence[PathValue], bounds: Sequence[float]
    ) -> None:
        self._objective, self._constraints = objective, tuple(constraints)
        self._bounds = tuple(bounds)

    def __call__(self, X: Tensor) -> Tensor:
        """Value at each candidate: X of shape (..., 1, d) gives values of shape (...).

        Raises:
            ValueError: If X holds groups of more than one candidate.
        """
        return within(*self.parts(X))

    def parts(self, X: Tensor, room: float = 0.0) -> tuple[Tensor, Tensor]:
        """f and v at each candidate, with as much room to be left to each bound."""
        pairs = zip(self._constraints, self._bounds, strict=True)
        missed = [(bound + room - path(X)).clamp_min(0.0) for path, bound in pairs]
        return self._objective(X), torch.stack(missed).sum(0)

    def slope(self, room: float) -> Acquisition:
        """What can be climbed in its place: f(x) - 30 v(x), with some room left to the bounds."""
        return _Slope(self, room)


class _Slope(Acquisition):
    def __init__(self, path: PathWithin, room: float) -> None:
        self._path, self._room = path, room

    def __call__(self, X: Tensor) -> Tensor:
        value, violation = self._path.parts(X, self._room)
        return value - _PENALTY * violation


def within(f: Tensor, violation: Tensor) -> Tensor:
    """Values by which points compare: f where nothing is missed, else far below."""
    return torch.where(violation > 0, -FAR_BELOW - violation, f)


def draw_paths(belief: Belief, seed: int, block: int, count: int, output: str = "") -> Any:
    """`count` paths (`SamplePaths`) of what is believed after all trials that came to an end.

    The same ones as long as no more is told: the trials that are running say which path is whose.

    Args:
        belief: About one output.
        seed: The study's seed.
        block: Number of the set of paths.
        count: How many.
        output: Name of an output other than the first objective: each is drawn by itself.
    """
    told = len(belief.data.y) + len(belief.data.failed)
    draws = generator(seed, told, f"paths {block}{output}")
    return belief.settled.sample_paths(count, draws, features=_FEATURES)


def one_of(paths: Any, i: int) -> PathValue:
    """Path i of some."""
    which = slice(i, i + 1)
    return PathValue(replace(paths, w=paths.w[:, which], v=paths.v[:, which]))


def thompson(belief: Belief, seed: int) -> PathValue:
    """The path of the next trial: each trial that is running has had one of its own."""
    return PathValue(draw_paths(belief, seed, len(belief.data.pending), 1))
