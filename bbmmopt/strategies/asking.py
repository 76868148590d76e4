"""From the trials of a study to what a strategy is asked: rows, values, and signs turned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bbmmopt.modelling import LABEL_ERROR, Data
from bbmmopt.problem import Constraint, Problem
from bbmmopt.search import Budget
from bbmmopt.strategies.base import Past, Request
from bbmmopt.strategies.guide import Guide
from bbmmopt.trial import Trial, TrialState

# Interquartile ranges below the lower quartile, beyond which a value is an outlier: Tukey's fence;
# and, of an objective among several, where trade-offs reach far, what is out of all proportion.
_FENCE, _FAR_OUT = 1.5, 10.0

_OUTCOMES: dict[TrialState, Literal["complete", "failed", "pending"]] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAILED: "failed",
    TrialState.RUNNING: "pending",
    TrialState.WAITING: "pending",
}


@dataclass(frozen=True)
class Asking:
    """What is the same for every question about a study.

    Attributes:
        problem: The problem.
        seed: The study's seed.
        guide: What else the user knows or wants.
        timed: Whether the time that trials take counts.
    """

    problem: Problem
    seed: int
    guide: Guide
    timed: bool

    def request(
        self,
        trials: Mapping[int, Trial],
        rows: Mapping[int, np.ndarray],
        number: int,
        fixed: Mapping[int, float],
        budget: Budget | None = None,
    ) -> Request:
        """The question which point to try next.

        Args:
            trials: All trials so far, by number.
            rows: The row of each in the unit cube, shape (d,).
            number: Of the trial to be proposed.
            fixed: As in `Request`.
            budget: How much may be done for the answer; no limit if left out.
        """
        repeats = any(o.noise == "noisy" for o in self.problem.objectives)
        seen = frozenset(
            rows[k].tobytes()
            for k, trial in trials.items()
            if not repeats or trial.state == TrialState.FAILED
        )
        told = _Told(self, trials, rows)
        objectives = [told.objective(i) for i in range(len(self.problem.objectives))]
        return Request(
            objectives[0],
            number,
            self.seed,
            fixed,
            seen,
            tuple(objectives[1:]),
            tuple(told.constraint(c) for c in self.problem.constraints),
            told.success(),
            self.problem.reference,
            past=tuple(
                Past(_OUTCOMES[trial.state], trial.origin)
                for _, trial in sorted(trials.items())
                if trial.state in _OUTCOMES
            ),
            cost=told.seconds() if self.timed else None,
            guide=self.guide,
            repeats=repeats,
            budget=budget or Budget(),
        )


class _Told:
    """What the trials of a study say of each output, in order of number."""

    def __init__(
        self, asking: Asking, trials: Mapping[int, Trial], rows: Mapping[int, np.ndarray]
    ) -> None:
        self._asking, self._problem = asking, asking.problem
        self._trials, self._rows = trials, rows
        self._by_state: dict[TrialState, list[int]] = {state: [] for state in TrialState}
        for k in sorted(trials):
            self._by_state[trials[k].state].append(k)

    def objective(self, i: int) -> Data:
        """What is known of an objective; larger is better."""
        name, trials = self._problem.names[i], self._complete
        alone, reference = len(self._problem.objectives) == 1, self._problem.reference
        errors = [t.standard_errors.get(name) for t in trials]
        return self._data(
            np.array([self._problem.to_model(t.values or {})[i] for t in trials], dtype=float),
            np.array([np.nan if e is None else e for e in errors], dtype=float),
            exact=self._problem.objectives[i].noise == "none",
            # Volumes in warped units would prefer another part of the front.
            # Nor are means of warped values those of the values.
            warp=alone and self._asking.guide.perturbation is None,
            worthless=None if alone or reference is None else float(reference[i]),
            fence=_FENCE if alone else _FAR_OUT,
        )

    def constraint(self, constraint: Constraint) -> Data:
        """What is known of a constraint, turned so that it holds from 0 on."""
        told = [t.constraints[constraint.name] for t in self._complete]
        y = np.array([constraint.margin(value) for value in told], dtype=float)
        exact = all(o.noise == "none" for o in self._problem.objectives)
        return self._data(y, np.full(len(y), np.nan), exact=exact, bound=0.0)

    def success(self) -> Data | None:
        """Which trials came to an end, 1 for these and -1 for those that failed."""
        failed = self._by_state[TrialState.FAILED]
        if not failed:
            return None
        ended = sorted(self._by_state[TrialState.COMPLETE] + failed)
        y = np.array([-1.0 if self._trials[k].state == TrialState.FAILED else 1.0 for k in ended])
        return Data(
            self._stack(ended),
            y,
            np.full(len(y), LABEL_ERROR),
            self._pending,
            self._stack([]),
            exact=False,
            bound=0.0,
            warp=False,
        )

    def seconds(self) -> Data:
        """Log of the seconds that trials took.

        Of complete ones: what fails early would make the parts where trials fail look cheap. Those
        that were told from elsewhere took none.
        """
        complete = self._by_state[TrialState.COMPLETE]
        timed = [k for k in complete if (self._trials[k].duration or 0) > 0]
        y = np.log([self._trials[k].duration or 1.0 for k in timed])
        nothing = self._stack([])
        errors = np.full(len(y), np.nan)
        return Data(self._stack(timed), y, errors, nothing, nothing, exact=False, warp=False)

    @property
    def _complete(self) -> list[Trial]:
        return [self._trials[k] for k in self._by_state[TrialState.COMPLETE]]

    @property
    def _pending(self) -> np.ndarray:
        running, waiting = self._by_state[TrialState.RUNNING], self._by_state[TrialState.WAITING]
        return self._stack(running + waiting)

    def _data(self, y: np.ndarray, errors: np.ndarray, **options: Any) -> Data:
        return Data(
            self._stack(self._by_state[TrialState.COMPLETE]),
            y,
            errors,
            self._pending,
            self._stack(self._by_state[TrialState.FAILED]),
            **options,
        )

    def _stack(self, numbers: list[int]) -> np.ndarray:
        if not numbers:
            return np.empty((0, len(self._problem.space)))
        return np.stack([self._rows[k] for k in numbers])
