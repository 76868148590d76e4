"""By how much parameters will vary in use. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bbmmopt.problem import Problem
from bbmmopt.space import Real, Space
from bbmmopt.space.checks import did_you_mean, listing, naming, shown, to_float


def checked_perturbation(perturbation: Mapping[str, float], problem: Problem) -> dict[str, float]:
    """{parameter: standard deviation}, in the user's units.

    Raises:
        TypeError, ValueError: If it is no such thing, or the problem is not one of a single
            objective without constraints on its outcomes.
    """
    if len(problem.objectives) > 1 or problem.constraints:
        raise ValueError(
            "perturbation goes with one objective and no constraints on outcomes; this problem "
            f"has objectives {listing(problem.names)} and constraints "
            f"{listing([c.name for c in problem.constraints]) or 'none'}."
        )
    if not isinstance(perturbation, Mapping) or not perturbation:
        raise TypeError(
            f"perturbation must be {{parameter: standard deviation}}; got {perturbation!r}."
        )
    found = {}
    for name, std in perturbation.items():
        parameter = problem.space.parameters.get(name)
        if parameter is None:
            names = problem.space.names
            hint = did_you_mean(name, names) or f" The space has {listing(names)}."
            raise ValueError(f"perturbation: unknown parameter {name!r}.{hint}")
        with naming(f"perturbation: parameter {name!r}: "):
            if not isinstance(parameter, Real) or parameter.log or parameter.when:
                raise ValueError(
                    "only a Real can vary that is always active and not log; leave this one out, "
                    f"or declare it so; got {parameter!r}."
                )
            if isinstance(std, bool) or not isinstance(std, int | float):
                raise TypeError(f"the standard deviation must be a number; got {std!r}.")
            if not 0 < to_float(std) < math.inf:
                raise ValueError(
                    f"the standard deviation must be positive and finite; got {shown(std)}."
                )
        found[name] = float(std)
    return {name: found[name] for name in problem.space.names if name in found}


def checked_risk(risk: Any) -> str | float:
    """ "mean", or a number in (0, 1).

    Raises:
        ValueError: If it is neither.
    """
    is_number = isinstance(risk, int | float) and not isinstance(risk, bool)
    if risk != "mean" and not (is_number and 0 < risk < 1):
        raise ValueError(
            f'risk must be "mean", or a number between 0 and 1, as 0.9 for the mean over the worst '
            f"tenth; got {risk!r}."
        )
    return risk if risk == "mean" else float(risk)


def stds_of(perturbation: Mapping[str, float], space: Space) -> list[float]:
    """The standard deviation in each column of [0, 1]; 0 where nothing varies."""
    stds = [0.0] * len(space)
    for name, std in perturbation.items():
        parameter: Any = space.parameters[name]
        if parameter.kind != "fixed":
            stds[space.names.index(name)] = std / (parameter.high - parameter.low)
    return stds
