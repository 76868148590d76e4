"""Stop a trial whose best is worse than most others were on average: the median stopping rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bbmmopt.early_stopping.base import Curves, best_to, checked_count, mean_to


@dataclass(frozen=True)
class PercentileStop:
    """Stop a trial whose best value so far is below a percentile of the others' running averages.

    At its latest step s a trial is stopped if

        max_{i ≤ s} o_i  <  the (1 - percentile / 100) quantile of  mean_{i ≤ s} o'_i

    over all other trials that have reached step s: larger o is better. With `percentile` 50 that
    is the median stopping rule of Golovin, Solnik, Moitra, Kochanski, Karro and Sculley, *Google
    Vizier: A Service for Black-Box Optimization*, KDD 2017, section on automated stopping, but
    for the others: they count completed trials, we all that came as far as s, whether they
    completed, were stopped later or are still running. So many workers that start together learn
    from each other at once.

    The average of the others includes their beginnings, which are worse than what they are at s:
    the rule is lenient, and a curve that still rises is seldom stopped for being late. Optuna's
    `MedianPruner` compares with the values of completed trials at the step s itself. Comparing with
    the best of the others up to s stopped 67 % of the trials where curves cross, for a final
    regret of 0.032; this rule stops 13 %, for 0.006; without any it was 0.011 (`branin3` of
    benchmarks/early_stopping.py, medians of five seeds). `SuccessiveHalving` is for those who
    want more trials stopped, and know that early values tell.

    Args:
        percentile: In percent, which best part of the trials may go on: 25 stops more than 50.
        start_trials: As long as fewer others have reached the step, no trial is stopped there.
        warmup_steps: No trial is stopped at a step below this.
        interval: A trial is judged at its first report in each `interval` steps from
            `warmup_steps` on, and let pass at the others. A trial that asks at only some of its
            reports should have asked at those.

    Raises:
        TypeError, ValueError: If one of them is no such number.
    """

    percentile: float = 50.0
    start_trials: int = 5
    warmup_steps: int = 0
    interval: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.percentile, bool) or not isinstance(self.percentile, int | float):
            raise TypeError(f"percentile must be a number, in percent; got {self.percentile!r}.")
        if not 0 < self.percentile < 100:
            raise ValueError(
                f"percentile must be between 0 and 100, the part of the trials that may go on; "
                f"got {self.percentile}."
            )
        object.__setattr__(self, "percentile", float(self.percentile))
        checked_count("start_trials", self.start_trials, 1, "how many trials come first")
        checked_count("warmup_steps", self.warmup_steps, 0, "the first step to stop at")
        checked_count("interval", self.interval, 1, "how many steps lie between decisions")

    def stops(self, curves: Curves, number: int, *, seed: int, sign: float = 1.0) -> str | None:
        """As in `StoppingRule`."""
        curve = curves.get(number)
        if not curve or not self._judges(curve):
            return None
        step = max(curve)
        averages = [
            mean_to(other, step)
            for k, other in curves.items()
            if k != number and other and max(other) >= step
        ]
        if len(averages) < self.start_trials:
            return None
        bar, best = _quantile(averages, 1 - self.percentile / 100), best_to(curve, step)
        if best >= bar:
            return None
        bar_is = "median" if self.percentile == 50 else f"best {self.percentile:g} % from"
        reached = f"its best is {sign * best:.6g}" if math.isfinite(best) else "it has no value yet"
        return (
            f"at step {step} {reached}, worse than {sign * bar:.6g}, the {bar_is} of the running "
            f"averages of {len(averages)} other trials"
        )

    def to_json(self) -> dict[str, Any]:
        """As in `StoppingRule`."""
        return {"rule": "percentile", **asdict(self)}

    def _judges(self, curve: Mapping[int, float]) -> bool:
        """Whether the latest report is one to decide at."""
        step = max(curve)
        if step < self.warmup_steps:
            return False
        start = step - (step - self.warmup_steps) % self.interval
        return not any(start <= s < step for s in curve)


@dataclass(frozen=True)
class MedianStop:
    """Stop a trial whose best value so far is below the median of the others' running averages.

    `PercentileStop` at 50 percent, which says more.

    Args:
        start_trials, warmup_steps, interval: As in `PercentileStop`.

    Raises:
        TypeError, ValueError: If one of them is no such number.
    """

    start_trials: int = 5
    warmup_steps: int = 0
    interval: int = 1

    def __post_init__(self) -> None:
        self._rule()

    def stops(self, curves: Curves, number: int, *, seed: int, sign: float = 1.0) -> str | None:
        """As in `StoppingRule`."""
        return self._rule().stops(curves, number, seed=seed, sign=sign)

    def to_json(self) -> dict[str, Any]:
        """As in `StoppingRule`."""
        return {"rule": "median", **asdict(self)}

    def _rule(self) -> PercentileStop:
        return PercentileStop(50.0, self.start_trials, self.warmup_steps, self.interval)


def _quantile(values: list[float], q: float) -> float:
    """The q quantile, between neighbours by straight lines; values may be -inf."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    lower, upper = ordered[low], ordered[math.ceil(place)]
    # Equal neighbours, perhaps both -inf, leave nothing to interpolate; beside -inf is -inf.
    if lower == upper or place == low or lower == -math.inf:
        return lower
    t = place - low
    return min((1 - t) * lower + t * upper, upper)
