"""Ways to teach the model of trials that were stopped, for early_stopping.py to compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from bbmmopt.early_stopping import Curves, Forecast, forecast, percentile
from bbmmopt.early_stopping.base import best_to
from bbmmopt.strategies import asking
from bbmmopt.trial import TrialState

Forecasts = dict[int, Forecast]


def teach(lesson: str) -> None:
    """Have this process use one of early_stopping.LESSONS from now on."""
    ways = {"kept away from": _nothing, "last report": _last, "forecast": _without_error}
    if lesson == "ignored":
        _ignore()
    elif lesson in ways:
        asking.forecast = ways[lesson]


def compare_with_bests() -> None:
    """Have the median rule of this process compare with the best of the others up to a step."""
    percentile.mean_to = best_to


def _ignore() -> None:
    ask = asking.Asking.request

    def request(self, trials, rows, *arguments):
        ended = {k: t for k, t in trials.items() if t.state != TrialState.PRUNED}
        found = ask(self, ended, rows, *arguments)
        return replace(found, seen=found.seen | {rows[k].tobytes() for k in trials})

    asking.Asking.request = request


def _nothing(curves: Curves, finals: Mapping[int, float], stopped: Iterable[int]) -> Forecasts:
    return {}


def _last(curves: Curves, finals: Mapping[int, float], stopped: Iterable[int]) -> Forecasts:
    return {k: Forecast(curves[k][max(curves[k])], None) for k in stopped}


def _without_error(
    curves: Curves, finals: Mapping[int, float], stopped: Iterable[int]
) -> Forecasts:
    found = forecast(curves, finals, stopped)
    return {k: replace(expected, error=None) for k, expected in found.items()}
