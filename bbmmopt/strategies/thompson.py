"""Thompson sampling: functions drawn from the posterior, each of which one trial maximises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from bbmmopt.acquisition import Acquisition
from bbmmopt.acquisition.base import single_candidates
from bbmmopt.modelling import Belief
from bbmmopt.strategies.base import generator

_FEATURES = 1024  # random features of the prior's part of a path


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


def draw_paths(belief: Belief, seed: int, block: int, count: int) -> Any:
    """`count` paths (`SamplePaths`) of what is believed after all trials that came to an end.

    The same ones as long as no more is told: the trials that are running say which path is whose.
    """
    told = len(belief.data.y) + len(belief.data.failed)
    draws = generator(seed, told, f"paths {block}")
    return belief.settled.sample_paths(count, draws, features=_FEATURES)


def one_of(paths: Any, i: int) -> PathValue:
    """Path i of some."""
    which = slice(i, i + 1)
    return PathValue(replace(paths, w=paths.w[:, which], v=paths.v[:, which]))


def thompson(belief: Belief, seed: int) -> PathValue:
    """The path of the next trial: each trial that is running has had one of its own."""
    return PathValue(draw_paths(belief, seed, len(belief.data.pending), 1))
