"""Told: what trials say, as arrays that are kept up trial by trial.

Putting them together anew for each suggestion would take a second with 100,000 trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

import numpy as np

from bbmmopt.former import FARTHEST, Former
from bbmmopt.problem import Problem
from bbmmopt.strategies.base import Past
from bbmmopt.trial import Trial, TrialState

_STATES = {state: code for code, state in enumerate(TrialState)}


class Told:
    """The trials of a study that a model can learn from, in arrays. The rows of these are slots.

    A slot is a trial's for good; `of` gives those of a state in order of the trials' numbers.

    Args:
        problem: Says what is told, and turns signs.
        former: Knows which rows may be proposed; None where all may be.

    Attributes:
        numbers: Number of each trial, by slot, shape (N,), as for all of these.
        rows: Of the unit cube, shape (N, d): from far outside they are moved in, or the distances
            to them would have no digits left for those within.
        values: Of the objectives, larger being better, NaN where there is none, shape (N, k).
        errors: Their standard errors, NaN where unknown, shape (N, k).
        margins: Of the constraints, which hold from 0 on, NaN where unknown, shape (N, c).
        seconds: How long each took; 0 where that is not known.
        origins: How each came about.
    """

    def __init__(self, problem: Problem, former: Former | None = None) -> None:
        self._problem, self._former = problem, former
        self._slots: dict[int, int] = {}
        self._order: np.ndarray | None = None
        self._tried: set[bytes] = set()
        self._failed: set[bytes] = set()
        d, k, c = len(problem.space), len(problem.objectives), len(problem.constraints)
        self.numbers = np.empty(0, dtype=np.int64)
        self.rows = np.empty((0, d))
        self.values, self.errors, self.margins = (np.empty((0, m)) for m in (k, k, c))
        self.seconds = np.empty(0)
        self._codes = np.empty(0, dtype=np.int8)
        self.origins: list[Mapping[str, Any]] = []

    def __len__(self) -> int:
        return len(self._slots)

    def learn(self, trial: Trial, row: np.ndarray) -> None:
        """Take in a trial, or what became of it.

        Args:
            trial: As it is now.
            row: Its place in the unit cube, shape (d,); of a trial that is known, as before.
        """
        slot = self._slots.get(trial.number)
        if slot is None:
            slot = self._place(trial, row)
        self._codes[slot] = _STATES[trial.state]
        if trial.state == TrialState.FAILED:
            self._failed.add(row.tobytes())
        self.seconds[slot] = trial.duration or 0.0
        if trial.values is not None:
            errors = [trial.standard_errors.get(name) for name in self._problem.names]
            self.values[slot] = self._problem.to_model(trial.values)
            self.errors[slot] = [np.nan if error is None else error for error in errors]
        for j, constraint in enumerate(self._problem.constraints):
            told = trial.constraints.get(constraint.name)
            self.margins[slot, j] = np.nan if told is None else constraint.margin(told)

    def _place(self, trial: Trial, row: np.ndarray) -> int:
        slot = self._slots[trial.number] = len(self._slots)
        if slot == len(self.rows):
            self._grow()
        self._order = None
        self._tried.add(row.tobytes())
        self.numbers[slot] = trial.number
        self.rows[slot] = row.clip(-FARTHEST, 1 + FARTHEST)
        self.origins.append(trial.origin)
        return slot

    def _grow(self) -> None:
        """Twice the room."""
        more = max(len(self.rows), 16)
        for name in ("numbers", "rows", "values", "errors", "margins", "seconds"):
            array = getattr(self, name)
            nothing = np.nan if array.dtype == float else 0
            room = np.full((more, *array.shape[1:]), nothing, dtype=array.dtype)
            setattr(self, name, np.concatenate([array, room]))
        self._codes = np.concatenate([self._codes, np.zeros(more, dtype=np.int8)])

    def of(self, *states: TrialState) -> np.ndarray:
        """The slots of the trials in one of these states, in order of number."""
        order = self.order
        codes = self._codes[order]
        found = np.zeros(len(order), dtype=bool)
        for state in states:
            found |= codes == _STATES[state]
        return order[found]

    @property
    def order(self) -> np.ndarray:
        """All slots in order of number."""
        if self._order is None:
            self._order = np.argsort(self.numbers[: len(self)], kind="stable")
        return self._order

    def outside(self, slots: np.ndarray) -> np.ndarray | None:
        """Which of these lie where nothing is proposed any more; None where all may be."""
        return None if self._former is None else ~self._former.within(self.rows[slots])

    def seen(self, *, repeats: bool) -> Set[bytes]:
        """The rows, as bytes, of the trials; where they may be repeated, of those that failed.

        Good until the next trial is learnt.
        """
        return self._failed if repeats else self._tried

    def past(self, known: np.ndarray, without: np.ndarray) -> Pasts:
        """How each trial came about, and how it ended.

        Args:
            known: Slots of the trials that have a value.
            without: Slots of those that will never have one.
        """
        outcomes = np.zeros(len(self), dtype=np.int8)
        outcomes[known], outcomes[without] = 1, 2
        return Pasts(outcomes, self.origins, self.order)


class Pasts(Sequence[Past]):
    """`Past` of all trials in order of number, made when it is looked at."""

    _OUTCOMES: tuple[Literal["pending", "complete", "failed"], ...]
    _OUTCOMES = ("pending", "complete", "failed")

    def __init__(
        self, outcomes: np.ndarray, origins: list[Mapping[str, Any]], order: np.ndarray
    ) -> None:
        self._outcomes, self._origins, self._order = outcomes, origins, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        slot = self._order[i]
        return Past(self._OUTCOMES[self._outcomes[slot]], self._origins[slot])
