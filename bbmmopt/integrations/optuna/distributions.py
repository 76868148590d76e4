"""Optuna's distributions as parameters, and their values as ours.

In between stands what Optuna calls the internal representation of a value: a float, the index of
a choice. Within a sampler choices are their indices and multiples of a step are counted, because
choices may be any objects and a `Real` has no step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from bbmmopt.space import Categorical, Integer, Parameter, Real
from bbmmopt.space.checks import Value

Number = int | float

_MOST_LEVELS = 64  # of an integer that decides which other parameters there are


def parameter_of(
    distribution: BaseDistribution, when: Mapping[str, Sequence[Value]] | None = None
) -> Parameter:
    """The parameter that a sampler tunes.

    Args:
        distribution: What the objective asks for.
        when: As in `Real`.

    Raises:
        TypeError: If it is none of the three kinds that Optuna has.
    """
    if isinstance(distribution, FloatDistribution):
        if distribution.step is None:
            return Real(distribution.low, distribution.high, log=distribution.log, when=when)
        return Integer(0, _steps(distribution, distribution.high), when=when)
    if isinstance(distribution, IntDistribution):
        return Integer(
            distribution.low,
            distribution.high,
            log=distribution.log,
            step=distribution.step,
            when=when,
        )
    if isinstance(distribution, CategoricalDistribution):
        return Categorical(range(len(distribution.choices)), when=when)
    raise TypeError(
        f"expected a float, int or categorical distribution; got {distribution!r} "
        f"({type(distribution).__name__})."
    )


def to_ours(distribution: BaseDistribution, internal: float) -> Number:
    """The value of `parameter_of(distribution)` that an internal one of Optuna is."""
    if isinstance(distribution, FloatDistribution):
        return internal if distribution.step is None else _steps(distribution, internal)
    return int(internal)


def to_internal(distribution: BaseDistribution, ours: Any) -> float:
    """Undo `to_ours`, within the bounds."""
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        # 0.3, where three times 0.1 is 0.30000000000000004.
        return float(Decimal(str(distribution.low)) + ours * Decimal(str(distribution.step)))
    internal = float(ours)
    if isinstance(distribution, IntDistribution):
        # Optuna keeps integers as doubles, of which those beyond 2**53 are few.
        if internal > distribution.high:
            return math.nextafter(internal, -math.inf)
        if internal < distribution.low:
            return math.nextafter(internal, math.inf)
    return internal


def levels_of(distribution: BaseDistribution) -> list[int] | None:
    """What a parameter that may decide over others can be, as `to_ours` gives it; else None."""
    if isinstance(distribution, CategoricalDistribution):
        return list(range(len(distribution.choices)))
    if isinstance(distribution, IntDistribution):
        found = range(distribution.low, distribution.high + 1, distribution.step)
        return list(found) if len(found) <= _MOST_LEVELS else None
    return None


def is_ordered(distribution: BaseDistribution) -> bool:
    """Whether values next to each other are alike."""
    return not isinstance(distribution, CategoricalDistribution)


def _steps(distribution: FloatDistribution, value: float) -> int:
    return round((value - distribution.low) / (distribution.step or 1.0))
