"""Sums that must have one value, as of a mixture, while some of their terms move.

Where three parts sum to 1 and one of them runs along an axis, the two others cannot be held.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from bbmmopt.space import Integer, Real, Space
from bbmmopt.space.limits import Sum
from bbmmopt.space.parameters import Parameter


@dataclass(frozen=True)
class Share:
    """Parameters that make up the rest of a sum.

    Each term moves by the same share of the room that it has: all of them reach their bounds at
    once, and the rest is made up wherever it can be. Integers are rounded then; what that leaves is
    shared out among the real ones, or made up by a few steps more.

    Attributes:
        sum: What must have one value.
        names: The parameters that move, at least one.
    """

    sum: Sum
    names: tuple[str, ...]

    def __str__(self) -> str:
        verb = "make" if len(self.names) > 1 else "makes"
        return f"{', '.join(self.names)} {verb} {self.sum} = {self.sum.at_most:.4g}"

    def fill(self, space: Space, X: np.ndarray) -> np.ndarray:
        """Rows X (m, d) with the columns that move where they have to be: a new array."""
        X = X.copy()
        columns, c = self.sum.columns.tolist(), self.sum.coefficients.tolist()
        terms = [
            _Term(space.parameters[name], k, name in self.names, X[:, j])
            for name, k, j in zip(self.sum.names, c, columns, strict=True)
        ]
        whole = [term for term in terms if term.moves and isinstance(term.parameter, Integer)]
        real = [term for term in terms if term.moves and term not in whole]

        def missing() -> np.ndarray:
            return self.sum.at_most - np.sum([term.values for term in terms], axis=0)

        _share_out([*whole, *real], missing())
        for term in whole:
            term.round()
        _share_out(real, missing())
        for term in whole:  # one that goes too far leaves it to the real ones to come back
            term.step(missing(), self.sum.rounding)
            _share_out(real, missing())
        for term, j in zip(terms, columns, strict=True):
            if term.moves:
                X[:, j] = term.units()
        return X


def shares_of(space: Space, drawn: Collection[str], fixed: Collection[str]) -> tuple[Share, ...]:
    """What moves along where some parameters are drawn and others were given values.

    Of sums that share parameters the first one has them.
    """
    found: list[Share] = []
    taken = {*drawn, *fixed}
    for total in _equalities(space):
        names = _free(space, total, taken)
        if names and taken.intersection(total.names):
            found.append(Share(total, names))
            taken.update(names)
    return tuple(found)


def decided(space: Space, drawn: Collection[str], fixed: Collection[str]) -> Sum | None:
    """A sum by which a parameter that is drawn would follow from the others, if there is one."""
    for total in _equalities(space):
        if set(drawn).intersection(total.names) and not _free(space, total, {*drawn, *fixed}):
            return total
    return None


def _equalities(space: Space) -> list[Sum]:
    return [total for total in space.limits.sums if total.equality]


def _free(space: Space, total: Sum, taken: Collection[str]) -> tuple[str, ...]:
    """Its parameters that are neither drawn nor given, and have more than one value."""
    return tuple(
        name for name in total.names if name not in taken and space.parameters[name].kind != "fixed"
    )


class _Term:
    """A term of a sum at m points: coefficient · value.

    Args:
        parameter: Whose value it is.
        coefficient: Not 0.
        moves: Whether it may be changed.
        units: Where the parameter is, in [0, 1], shape (m,).

    Attributes:
        values: The term, shape (m,).
        low, high: Its ends.
    """

    def __init__(
        self, parameter: Parameter, coefficient: float, moves: bool, units: np.ndarray
    ) -> None:
        assert isinstance(parameter, Real | Integer)
        self.parameter, self.moves, self._coefficient = parameter, moves, coefficient
        different, where = np.unique(units, return_inverse=True)
        at = np.array([float(parameter.from_unit(u)) for u in different])[where]
        self.values = coefficient * at
        self.low, self.high = sorted((coefficient * parameter.low, coefficient * parameter.high))

    @property
    def _unit(self) -> float:
        """Of an Integer: by how much a step changes the term."""
        assert isinstance(self.parameter, Integer)
        return abs(self._coefficient) * self.parameter.step

    def round(self) -> None:
        """Put an Integer on its steps."""
        steps = np.rint((self.values - self.low) / self._unit)
        self.values = (self.low + self._unit * steps).clip(self.low, self.high)

    def step(self, missing: np.ndarray, tolerance: float) -> None:
        """Move an Integer by as many steps as reach what is missing (m,), or go beyond it."""
        steps = np.ceil((np.abs(missing) - tolerance) / self._unit).clip(min=0.0)
        moved = self.values + np.sign(missing) * self._unit * steps
        self.values = moved.clip(self.low, self.high)

    def units(self) -> list[float]:
        """Where the parameter is now."""
        values = (self.values / self._coefficient).tolist()
        parameter = self.parameter
        if isinstance(parameter, Integer):
            return [parameter.to_unit(round(value)) for value in values]
        return [
            min(max(parameter.to_unit(max(value, parameter.low)), 0.0), 1.0) for value in values
        ]


def _share_out(terms: Sequence[_Term], missing: np.ndarray) -> None:
    """Move terms towards what is missing (m,), each by the same share of the room it has."""
    if not terms:
        return
    up = missing > 0
    room = [np.where(up, term.high - term.values, term.values - term.low) for term in terms]
    whole = np.sum(room, axis=0)
    share = np.divide(missing, whole, out=np.zeros_like(missing), where=whole > 0).clip(-1.0, 1.0)
    for term, along in zip(terms, room, strict=True):
        term.values = (term.values + share * along).clip(term.low, term.high)
