"""From the trials of a study to what a strategy is asked: rows, values, and signs turned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bbmmopt.early_stopping import Curves, Forecast, forecast
from bbmmopt.modelling import LABEL_ERROR, Data
from bbmmopt.problem import Problem
from bbmmopt.search import Budget
from bbmmopt.strategies.base import Request
from bbmmopt.strategies.guide import Guide
from bbmmopt.strategies.told import Told
from bbmmopt.trial import TrialState

# Interquartile ranges below the lower quartile, beyond which a value is an outlier: Tukey's fence;
# and, of an objective among several, where trade-offs reach far, what is out of all proportion.
_FENCE, _FAR_OUT = 1.5, 10.0


@dataclass(frozen=True)
class Asking:
    """What is the same for every question about a study.

    Attributes:
        problem: The problem.
        seed: The study's seed.
        guide: What else the user knows or wants.
        timed: Whether the time that trials take counts.
        device: Where models are fitted and asked.
    """

    problem: Problem
    seed: int
    guide: Guide
    timed: bool
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def request(
        self,
        told: Told,
        number: int,
        fixed: Mapping[int, float],
        budget: Budget | None = None,
        curves: Curves | None = None,
    ) -> Request:
        """The question which point to try next.

        Args:
            told: All trials so far that the model can learn from.
            number: Of the trial to be proposed.
            fixed: As in `Request`.
            budget: How much may be done for the answer; no limit if left out.
            curves: What trials reported on their way, in the user's sign.
        """
        repeats = any(o.noise == "noisy" for o in self.problem.objectives)
        now = _Now(self, told, curves or {})
        objectives = [now.objective(i) for i in range(len(self.problem.objectives))]
        return Request(
            objectives[0],
            number,
            self.seed,
            fixed,
            told.seen(repeats=repeats),
            tuple(objectives[1:]),
            tuple(now.constraint(j) for j in range(len(self.problem.constraints))),
            now.success(),
            self.problem.reference,
            past=told.past(now.known, now.without),
            cost=now.seconds() if self.timed else None,
            guide=self.guide,
            repeats=repeats,
            budget=budget or Budget(),
        )


class _Now:
    """What the trials of a study say of each output at a moment, in order of number.

    Attributes:
        known: Slots of the trials that have a value, a forecast one included.
        without: Slots of those that will never have one.
    """

    def __init__(self, asking: Asking, told: Told, curves: Curves) -> None:
        self._asking, self._problem, self._told = asking, asking.problem, told
        self._complete = told.of(TrialState.COMPLETE)
        self._failed = told.of(TrialState.FAILED)
        running, waiting = told.of(TrialState.RUNNING), told.of(TrialState.WAITING)
        self._pending = self._rows(np.concatenate([running, waiting]))
        pruned = told.of(TrialState.PRUNED)
        self._forecasts = self._forecast(pruned, curves)
        self.known, self.without = self._complete, self._failed
        if len(pruned):
            foretold = np.isin(pruned, list(self._forecasts))
            self.known = self._ordered(self._complete, pruned[foretold])
            self.without = self._ordered(self._failed, pruned[~foretold])

    def _forecast(self, pruned: np.ndarray, curves: Curves) -> dict[int, Forecast]:
        """What the stopped trials would have ended with, by slot, in the user's sign.

        Of one objective and no constraints, or their other outcomes would be missing.
        """
        told, sign = self._told, self._problem.objectives[0].sign
        if not len(pruned) or len(self._problem.objectives) > 1 or self._problem.constraints:
            return {}
        numbers = told.numbers[self._complete].tolist()
        values = (sign * told.values[self._complete, 0]).tolist()
        finals = {k: value for k, value in zip(numbers, values, strict=True) if k in curves}
        stopped = dict(zip(told.numbers[pruned].tolist(), pruned.tolist(), strict=True))
        return {stopped[k]: found for k, found in forecast(curves, finals, stopped).items()}

    def objective(self, i: int) -> Data:
        """What is known of an objective; larger is better."""
        alone, reference = len(self._problem.objectives) == 1, self._problem.reference
        y, errors = self._told.values[self.known, i], self._told.errors[self.known, i]
        if self._forecasts:
            sign = self._problem.objectives[0].sign
            for j in np.flatnonzero(np.isin(self.known, list(self._forecasts))):
                expected = self._forecasts[int(self.known[j])]
                y[j] = sign * expected.value
                errors[j] = np.nan if expected.error is None else expected.error
        return self._data(
            y,
            errors,
            exact=self._problem.objectives[i].noise == "none",
            # Volumes in warped units would prefer another part of the front.
            # Nor are means of warped values those of the values.
            warp=alone and self._asking.guide.perturbation is None,
            worthless=None if alone or reference is None else float(reference[i]),
            fence=_FENCE if alone else _FAR_OUT,
            stopped=len(self._forecasts),
            outside=self._told.outside(self.known),
        )

    def constraint(self, j: int) -> Data:
        """What is known of a constraint, turned so that it holds from 0 on.

        Trials from before there was such a constraint have no value of it.
        """
        y = self._told.margins[self.known, j]
        missing = np.isnan(y)
        exact = all(o.noise == "none" for o in self._problem.objectives)
        return self._data(
            np.where(missing, 0.0, y),
            np.where(missing, np.inf, np.nan),
            exact=bool(exact and not missing.any()),
            bound=0.0,
            warp=not missing.any(),
        )

    def success(self) -> Data | None:
        """Which trials came to an end, 1 for these and -1 for those that failed."""
        if not len(self._failed):
            return None
        ended = self._ordered(self._complete, self._failed)
        return Data(
            self._rows(ended),
            np.where(np.isin(ended, self._failed), -1.0, 1.0),
            np.full(len(ended), LABEL_ERROR),
            self._pending,
            self._rows(ended[:0]),
            exact=False,
            bound=0.0,
            warp=False,
            device=self._asking.device,
        )

    def seconds(self) -> Data:
        """Log of the seconds that trials took.

        Of complete ones: what fails early would make the parts where trials fail look cheap. Those
        that were told from elsewhere took none.
        """
        timed = self._complete[self._told.seconds[self._complete] > 0]
        y, nothing = np.log(self._told.seconds[timed]), self._rows(timed[:0])
        errors = np.full(len(y), np.nan)
        options = {"exact": False, "warp": False, "device": self._asking.device}
        return Data(self._rows(timed), y, errors, nothing, nothing, **options)

    def _data(self, y: np.ndarray, errors: np.ndarray, **options: Any) -> Data:
        X, failed = self._rows(self.known), self._rows(self.without)
        device = self._asking.device
        return Data(X, y, errors, self._pending, failed, device=device, **options)

    def _rows(self, slots: np.ndarray) -> np.ndarray:
        return self._told.rows[slots]

    def _ordered(self, *slots: np.ndarray) -> np.ndarray:
        """Slots of several kinds in order of number."""
        together = np.concatenate(slots)
        return together[np.argsort(self._told.numbers[together], kind="stable")]
