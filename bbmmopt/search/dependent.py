"""Columns that follow from others by an equality over log-scaled parameters."""

from __future__ import annotations

import numpy as np

from bbmmopt.space import Real, Space


class Dependent:
    """The columns that are solved for: such an equality is no plane in the unit cube.

    Each is solved for a Real that is in no other equality, best one that is not log-scaled: the
    others then keep their even spread.

    Attributes:
        sums: {column: index of the sum it is solved from}.

    Args:
        space: The space.
        held: Columns that cannot change, shape (d,).
    """

    def __init__(self, space: Space, held: np.ndarray) -> None:
        self._space = space
        sums, parameters = space.limits.sums, list(space.parameters.values())
        equalities = [i for i, s in enumerate(sums) if s.equality]
        self.sums: dict[int, int] = {}
        for i in (i for i in equalities if sums[i].curved):
            others = {j for k in equalities if k != i for j in sums[k].columns.tolist()}
            free = [
                j
                for j in sums[i].columns.tolist()
                if isinstance(parameters[j], Real) and not held[j] and j not in others
            ]
            if free:
                j = min(free, key=lambda j: getattr(parameters[j], "log", False))
                self.sums[j] = i

    def solve(self, X: np.ndarray) -> np.ndarray:
        """The rows of X with the dependent columns as the others ask, or at the nearest bound.

        In place.
        """
        for j, i in self.sums.items():
            total, name = self._space.limits.sums[i], self._space.names[j]
            c = float(total.coefficients[total.columns.tolist().index(j)])
            parameter = self._space.parameters[name]
            assert isinstance(parameter, Real)
            for row in X:
                rest = total.value(self._space.decode(row) | {name: 0.0})
                value = min(max((total.at_most - rest) / c, parameter.low), parameter.high)
                row[j] = parameter.to_unit(value)
        return X
