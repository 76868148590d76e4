"""One output of a model, and the way from its units to the user's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from bbmmopt.modelling import Belief, threads_for
from bbmmopt.optimizer import Optimizer
from bbmmopt.problem import Constraint
from bbmmopt.space import Space
from bbmmopt.trial import Trial

_AT_ONCE = 2**21  # covariances with the data that are held at once


@dataclass(frozen=True)
class Output:
    """An objective or a constraint, and what the model believes of it.

    Attributes:
        name: What the user calls it.
        belief: In model units, where larger is better.
        sign: -1 where small values are good.
        offset: Of a constraint its bound, as the model knows only how far that is kept.
        is_constraint: Whether it is one.
    """

    name: str
    belief: Belief
    sign: int
    offset: float = 0.0
    is_constraint: bool = False

    @property
    def good_is_low(self) -> bool:
        """Whether small values are good."""
        return self.sign < 0

    @property
    def warped(self) -> bool:
        """Whether a difference in model units means more at one value than at another."""
        slopes = self.belief.transform.log_slope(self.belief.data.y)
        return bool((slopes != slopes[:1]).any())

    def in_user_units(self, z: np.ndarray) -> np.ndarray:
        """Model units, of any shape, in the user's units and sign."""
        return self.offset + self.sign * self.belief.transform.inverse(z)

    def ends(self, mean: np.ndarray, std: np.ndarray, k: float) -> tuple[np.ndarray, np.ndarray]:
        """mean - k std and mean + k std of model units in the user's, the lower one first."""
        low, high = self.in_user_units(mean - k * std), self.in_user_units(mean + k * std)
        return np.minimum(low, high), np.maximum(low, high)

    def observed(self, trial: Trial) -> float | None:
        """What was told of it; None if nothing was."""
        told = trial.constraints if self.is_constraint else (trial.values or {})
        return told.get(self.name)

    @cached_property
    def _weights(self) -> torch.Tensor:
        """α = K̂⁻¹(y - m), shape (n, 1)."""
        posterior = self.belief.posterior
        return posterior.solve((posterior.y - posterior.model.constant).unsqueeze(-1))

    def mean(self, X: np.ndarray) -> np.ndarray:
        """The posterior mean alone at rows X (m, d), in model units, shape (m,).

        m + k(x, X) α: variances cost n times as much, and averages of many points need none.
        """
        posterior, data = self.belief.posterior, self.belief.data
        n = len(posterior.y)
        mean = np.full(len(X), float(posterior.model.constant))
        if not n or not len(X):
            return mean
        with torch.no_grad(), threads_for(n):
            for rows in np.array_split(np.arange(len(X)), max(1, len(X) * n // _AT_ONCE)):
                some = data.place(np.ascontiguousarray(X[rows]))
                k = posterior.model.kernel.evaluate(some, posterior.X, some.new_empty(len(some), n))
                mean[rows] += (k @ self._weights).squeeze(-1).cpu().numpy()
        return mean


def output_of(optimizer: Optimizer, name: str | None) -> Output:
    """The output of a name, with its model.

    Args:
        optimizer: The run.
        name: An objective or a constraint; may be left out where there is one objective.

    Raises:
        ValueError: If there is none of that name, or it is not clear which is meant.
    """
    belief = optimizer.belief(name)
    name = optimizer.problem.names[0] if name is None else name
    for part in (*optimizer.problem.objectives, *optimizer.problem.constraints):
        if part.name == name:
            break
    else:
        raise AssertionError(name)
    is_constraint = isinstance(part, Constraint)
    return Output(name, belief, part.sign, part.bound if is_constraint else 0.0, is_constraint)


def known_space(space: Space) -> tuple[Space, list[str]]:
    """The space with the constraints that can be looked at, and the names of the others.

    Those are functions, of which a storage holds nothing but names.
    """
    unknown = [c.name for c in space.limits.functions if not c.is_known]
    if not unknown:
        return space, []
    kept = [c for c in space.constraints if getattr(c, "is_known", True)]
    return Space(space.parameters, kept), unknown
