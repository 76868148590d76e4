"""What a stopping rule is, and what all of them make of a learning curve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

# {number of the trial: {step: value}}, the last value of a step.
Curves = Mapping[int, Mapping[int, float]]


class StoppingRule(Protocol):
    """Says whether to stop a trial: a function of what all trials reported, without a memory.

    So it says the same in every process and after every restart. A rule judges a trial by the
    highest step it reported, whatever order the reports came in; a report that is not finite says
    that there is no value there. It may be asked about trials that have ended.
    """

    def stops(self, curves: Curves, number: int, *, seed: int, sign: float = 1.0) -> str | None:
        """Why to stop this trial now, in a sentence with numbers; None to let it go on.

        Args:
            curves: What every trial reported so far, larger being better, those that ended
                included.
            number: The trial that is asked about. It may have reported nothing.
            seed: The study's seed.
            sign: What the values in the sentence are multiplied by: -1 where smaller was better.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """JSON types; `rule_from_json` reads them."""
        ...


def best_to(curve: Mapping[int, float], step: int) -> float:
    """The best value up to a step; -inf where there is none."""
    finite = (v for s, v in curve.items() if s <= step and math.isfinite(v))
    return max(finite, default=-math.inf)


def mean_to(curve: Mapping[int, float], step: int) -> float:
    """The mean of the values up to a step; -inf where there is none."""
    finite = [v for s, v in curve.items() if s <= step and math.isfinite(v)]
    if not finite:
        return -math.inf
    # Divided first: a sum of values around 1e308 would overflow. Rounding must not take the mean of
    # equal values beyond them, or a trial that ties with the others would be stopped.
    mean = math.fsum(v / len(finite) for v in finite)
    return min(max(mean, min(finite)), max(finite))


def checked_count(name: str, count: Any, least: int, meaning: str) -> None:
    """Refuse what is not a number of steps or trials.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is less than `least`.
    """
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be an integer, {meaning}; got {count!r}.")
    if count < least:
        raise ValueError(f"{name} must be at least {least}, {meaning}; got {count}.")
