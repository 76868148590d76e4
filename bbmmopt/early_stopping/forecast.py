"""What trials that were stopped would have ended with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from bbmmopt.early_stopping.base import Curves

_FROM = 3  # trials from which their spread is told


@dataclass(frozen=True)
class Forecast:
    """What a trial would have ended with.

    Attributes:
        value: The forecast, in the units of the reports.
        error: Its standard error; None where too few trials tell it.
    """

    value: float
    error: float | None


def forecast(
    curves: Curves, finals: Mapping[int, float], stopped: Iterable[int]
) -> dict[int, Forecast]:
    """What stopped trials would have ended with, by what others gained from that step on.

        last report + median over complete trials of (final value - value at that step)

    and as standard error the spread of these differences: 1.4826 times the median of their
    distances from the median, which is the standard deviation where they are Gaussian. The value
    of another trial at a step is that of its last report up to there. Where no complete trial has
    one, the last report stands alone. Reports that are not finite are not there.

    The error keeps the model from taking a guess for a measurement. With the last report alone,
    everything that learns slowly looks bad; of five ways to learn from stopped trials, measured by
    benchmarks/early_stopping.py, this one did well with every rule and problem.

    Args:
        curves: What every trial reported.
        finals: The value each complete trial ended with.
        stopped: Numbers of the stopped ones.

    Returns:
        A forecast for each of them that reported a finite value.
    """
    gains: dict[int, list[float]] = {}
    found = {}
    for number in stopped:
        last = _last_to(curves.get(number, {}), math.inf)
        if last is None:
            continue
        step, value = last
        if step not in gains:
            gains[step] = _gains(curves, finals, step)
        found[number] = _shifted(value, gains[step])
    return found


def _gains(curves: Curves, finals: Mapping[int, float], step: int) -> list[float]:
    """What complete trials gained from a step to their end."""
    found = []
    for number, final in finals.items():
        last = _last_to(curves.get(number, {}), step)
        if last is not None and math.isfinite(final - last[1]):
            found.append(final - last[1])
    return found


def _last_to(curve: Mapping[int, float], step: float) -> tuple[int, float] | None:
    """The last finite report up to a step."""
    return max(((s, v) for s, v in curve.items() if s <= step and math.isfinite(v)), default=None)


def _shifted(value: float, gains: list[float]) -> Forecast:
    middle = median(gains) if gains else 0.0
    if not math.isfinite(value + middle):  # beyond the largest float
        return Forecast(value, None)
    spread = 1.4826 * median(abs(gain - middle) for gain in gains) if gains else 0.0
    known = len(gains) >= _FROM and 0 < spread < math.inf
    return Forecast(value + middle, spread if known else None)
