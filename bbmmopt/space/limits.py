"""The constraints of a whole space, for a dict of values and for whole arrays of rows."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bbmmopt.space.checks import listing, naming
from bbmmopt.space.constraints import InputConstraint, Linear, Nonlinear, Simplex
from bbmmopt.space.parameters import Integer, Parameter, Real

# Part of the widest term by which a sum may miss: entered by hand, and by rounding alone.
_EQUALITY, _INEQUALITY = 1e-6, 1e-9


@dataclass(frozen=True)
class Sum:
    """A linear constraint on the columns of a space: at_least ≤ Σ coefficient · value ≤ at_most.

    Attributes:
        names: The parameters, in the order of the columns.
        columns: Their columns, shape (k,).
        coefficients: Shape (k,).
        at_least, at_most: Limits, perhaps infinite; equal ones make it an equality.
        tolerance: By how much the sum may miss them.
        rounding: By how much it may do so in points that are proposed, not entered.
        curved: Whether a parameter is log-scaled: then the sum is not linear in the unit cube.
    """

    names: tuple[str, ...]
    columns: np.ndarray
    coefficients: np.ndarray
    at_least: float
    at_most: float
    tolerance: float
    rounding: float
    curved: bool

    @property
    def equality(self) -> bool:
        """Whether the sum must have one value."""
        return self.at_least == self.at_most

    def excess(self, params: Mapping[str, Any]) -> float:
        """How far beyond the limits; at most `tolerance` where the constraint is met."""
        return max(self.at_least - self.value(params), self.value(params) - self.at_most)

    def value(self, params: Mapping[str, Any]) -> float:
        """The sum at a point."""
        pairs = zip(self.names, self.coefficients.tolist(), strict=True)
        return math.fsum(c * params[name] for name, c in pairs)

    def __str__(self) -> str:
        parts = []
        for name, c in zip(self.names, self.coefficients.tolist(), strict=True):
            times = name if abs(c) == 1 else f"{abs(c):g} {name}"
            parts.append(f"{'-' if c < 0 else '+'} {times}")
        text = " ".join(parts)
        return text.removeprefix("+ ") if text[0] == "+" else "-" + text.removeprefix("- ")

    def demand(self) -> str:
        """must be between 1 and 2"""
        if self.equality:
            return f"must be {self.at_most:.12g}"
        if math.isinf(self.at_least):
            return f"must be at most {self.at_most:.12g}"
        if math.isinf(self.at_most):
            return f"must be at least {self.at_least:.12g}"
        return f"must be between {self.at_least:.12g} and {self.at_most:.12g}"

    def sentence(self, params: Mapping[str, Any]) -> str:
        """What is wrong with a point that breaks it."""
        values = ", ".join(f"{name} = {params[name]!r}" for name in self.names)
        return f"{self} {self.demand()}; it is {self.value(params):.12g} ({values})."


class Constraints:
    """The constraints of a whole space.

    Attributes:
        given: As the user gave them, checked.
        sums: The linear ones, mixtures included.
        functions: The others.

    Args:
        given: The constraints.
        parameters: All parameters of the space, checked, in the order of the columns.

    Raises:
        ValueError, TypeError: If one makes no sense, or cannot be met within the bounds.
    """

    def __init__(
        self, given: Sequence[InputConstraint], parameters: Mapping[str, Parameter]
    ) -> None:
        if isinstance(given, InputConstraint) or not isinstance(given, Sequence):
            raise TypeError(f"constraints must be a list of constraints; got {given!r}.")
        checked: list[InputConstraint] = []
        sums: list[Sum] = []
        for constraint in given:
            if not isinstance(constraint, InputConstraint):
                raise TypeError(
                    f"constraints must be Linear, Simplex or Nonlinear; got {constraint!r} "
                    f"({type(constraint).__name__})."
                )
            with naming(f"constraint {constraint!r}: "):
                checked.append(constraint.checked(parameters))
                if isinstance(checked[-1], Linear | Simplex):
                    sums.append(_sum(checked[-1], parameters))
        self.given = tuple(checked)
        self.sums = tuple(sums)
        self.functions = tuple(c for c in checked if isinstance(c, Nonlinear))
        self._parameters = tuple(parameters.values())
        names = [c.name for c in self.functions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"constraints need different names; {listing(twice)} came twice.")

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.given)

    def violations(self, params: Mapping[str, Any]) -> list[str]:
        """What a complete point breaks, a sentence each."""
        found = [s.sentence(params) for s in self.sums if not s.excess(params) <= s.tolerance]
        for c in self.functions:
            value = c.value(params)
            if not value >= 0:
                found.append(f"constraint {c.name!r} must be at least 0; it is {value:.12g}.")
        return found

    def satisfied(self, params: Mapping[str, Any], *, exact: bool = False) -> bool:
        """Whether a complete point breaks none; `exact` as in `feasible`."""
        return all(
            s.excess(params) <= (s.rounding if exact else s.tolerance) for s in self.sums
        ) and all(c.value(params) >= 0 for c in self.functions)

    def feasible(
        self,
        X: np.ndarray,
        decode: Callable[[np.ndarray], Mapping[str, Any]],
        *,
        exact: bool = False,
    ) -> np.ndarray:
        """Whether the point at each row of X (m, d) breaks none: bool, shape (m,).

        Sums are computed for all rows at once; rows that their rounding might decide, and those
        that functions have to see, are decoded.

        Args:
            X: Rows.
            decode: Gives the point at a row.
            exact: Equalities must be met but for rounding, as in points that are proposed.
        """
        good = np.ones(len(X), dtype=bool)
        unsure = np.full(len(X), bool(self.functions))
        for s in self.sums:
            total, band = np.zeros(len(X)), 0.0
            for j, c in zip(s.columns.tolist(), s.coefficients.tolist(), strict=True):
                parameter = self._parameters[j]
                total += c * _values(parameter, X[:, j])
                band += abs(c) * (1e-11 * _width(parameter) + 1e-13 * _largest(parameter))
            excess = np.maximum(s.at_least - total, total - s.at_most)
            tolerance = s.rounding if exact else s.tolerance
            good &= excess <= tolerance + band
            unsure |= excess > tolerance - band
        for i in np.flatnonzero(good & unsure):
            good[i] = self.satisfied(decode(X[i]), exact=exact)
        return good

    def rows(self, sums: Sequence[Sum]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums that are not curved as lower ≤ A u ≤ upper in the unit cube.

        An Integer is taken at the middle of its cells, where rows on the lattice have it.

        Returns:
            A (p, d), lower (p,), upper (p,).
        """
        A = np.zeros((len(sums), len(self._parameters)))
        offset = np.zeros(len(sums))
        for i, s in enumerate(sums):
            for j, c in zip(s.columns.tolist(), s.coefficients.tolist(), strict=True):
                start, slope = _line(self._parameters[j])
                A[i, j], offset[i] = c * slope, offset[i] + c * start
        limits = np.array([[s.at_least, s.at_most] for s in sums]).reshape(len(sums), 2)
        return A, limits[:, 0] - offset, limits[:, 1] - offset


def _sum(constraint: Linear | Simplex, parameters: Mapping[str, Parameter]) -> Sum:
    """The constraint on columns; ValueError if no point within the bounds can meet it."""
    if isinstance(constraint, Simplex):
        coefficients: Mapping[str, float] = dict.fromkeys(constraint.names, 1.0)
        low = high = constraint.total
    else:
        coefficients = constraint.coefficients
        low, high = constraint.at_least, constraint.at_most
        if constraint.equals is not None:
            low = high = constraint.equals
    low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
    names = tuple(name for name in parameters if name in coefficients)
    used = [parameters[name] for name in names]
    c = [coefficients[name] for name in names]
    columns = np.array([list(parameters).index(name) for name in names], dtype=np.intp)
    size = sum(abs(k) * _largest(p) for k, p in zip(c, used, strict=True))
    if math.isinf(size):
        raise ValueError("its terms must not overflow. Use smaller coefficients, or bounds.")
    size = 8 * sys.float_info.epsilon * (size + abs(low if math.isfinite(low) else high))
    width = max(abs(k) * _width(p) for k, p in zip(c, used, strict=True))
    result = Sum(
        names,
        columns,
        np.array(c),
        low,
        high,
        (_EQUALITY if low == high else _INEQUALITY) * width + size,
        _INEQUALITY * width + size,
        any(p.kind != "fixed" and getattr(p, "log", False) for p in used),
    )
    ends = [sorted((k * _low(p), k * _high(p))) for k, p in zip(c, used, strict=True)]
    least, most = math.fsum(e[0] for e in ends), math.fsum(e[1] for e in ends)
    if least > high + result.tolerance or most < low - result.tolerance:
        raise ValueError(
            f"no point meets it: {result} {result.demand()}, and lies between {least:.12g} and "
            f"{most:.12g} within the bounds of its parameters. Change the bounds or the limit."
        )
    if low == high and all(isinstance(p, Integer) for p in used):
        _check_divisible(result, low, [p for p in used if isinstance(p, Integer)])
    return result


def _check_divisible(result: Sum, total: float, used: Sequence[Integer]) -> None:
    """Refuse a sum of integers that can never be the total, whatever their bounds."""
    c = result.coefficients.tolist()
    rest = total - math.fsum(k * p.low for k, p in zip(c, used, strict=True))
    steps = [k * p.step for k, p in zip(c, used, strict=True) if p.kind != "fixed"]
    if not all(float(x).is_integer() for x in (rest, *steps)):
        return
    divisor = math.gcd(*(int(x) for x in steps))
    if int(rest) % divisor if divisor else rest:
        raise ValueError(
            f"no integers meet it: {result} {result.demand()}, and moves in steps of {divisor}, "
            f"past that. Change the total, a step or a coefficient."
        )


def _low(parameter: Parameter) -> float:
    assert isinstance(parameter, Real | Integer)
    return float(parameter.low)


def _high(parameter: Parameter) -> float:
    assert isinstance(parameter, Real | Integer)
    return float(parameter.high)


def _width(parameter: Parameter) -> float:
    return _high(parameter) - _low(parameter)


def _largest(parameter: Parameter) -> float:
    return max(abs(_low(parameter)), abs(_high(parameter)))


def _line(parameter: Parameter) -> tuple[float, float]:
    """Offset and slope of the value as a function of the position."""
    if parameter.kind == "fixed":
        return _low(parameter), 0.0
    if isinstance(parameter, Integer):
        return parameter.low - 0.5 * parameter.step, float(parameter.step * parameter.lattice.size)
    return _low(parameter), _width(parameter)


def _values(parameter: Parameter, U: np.ndarray) -> np.ndarray:
    """Values at positions U, but for the rounding of reals to decimals."""
    if parameter.kind == "fixed":
        return np.full(U.shape, _low(parameter))
    U = U.clip(0.0, 1.0)
    if isinstance(parameter, Integer):
        return _low(parameter) + float(parameter.step) * parameter.lattice.levels(U)
    if isinstance(parameter, Real) and parameter.log:
        low, high = math.log(parameter.low), math.log(parameter.high)
        return np.exp(low + U * (high - low))
    return _low(parameter) + U * _width(parameter)
