"""Ledger: the trials of a study as this process knows them, in step with the storage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bbmmopt.former import Former
from bbmmopt.problem import Problem
from bbmmopt.storage import Storage
from bbmmopt.study.reporting import StudyReporter
from bbmmopt.study.tally import Tally
from bbmmopt.trial import Trial, TrialState


def checked_worker(worker: str | None, lease: float | None) -> tuple[str | None, float | None]:
    """The name of who will run a trial, and for how long without a sign of life, checked.

    Raises:
        TypeError, ValueError: If one of them is not allowed.
    """
    if worker is not None and (not isinstance(worker, str) or not worker):
        raise TypeError(f"worker must be a non-empty name; got {worker!r}.")
    if lease is None:
        return worker, None
    if isinstance(lease, bool) or not isinstance(lease, int | float | np.number):
        raise TypeError(f"lease must be a number of seconds or None; got {lease!r}.")
    if not 0 < lease < float("inf"):
        raise ValueError(f"lease must be a positive number of seconds; got {lease!r}.")
    return worker, float(lease)


class Ledger:
    """All trials of a study, and their rows in the unit cube.

    Not safe to share between threads: a Study holds its lock around it.

    Args:
        storage: Where the trials are kept.
        study: Name of the study.
        former: Where they lie in the space of the model.
        generation: Of the study that this belongs to; see `StudyRecord`.
        reporter: Where trials that are handed out report.

    Attributes:
        trials: By number.
        next_number: One more than the highest number.
        pruned: How many trials were stopped early.
    """

    def __init__(
        self,
        storage: Storage,
        study: str,
        former: Former,
        generation: int,
        reporter: StudyReporter,
    ) -> None:
        self._storage, self._study, self._former = storage, study, former
        self._generation, self._reporter = generation, reporter
        self._revision = 0
        self._running: set[int] = set()
        self._handed_out: set[int] = set()
        self.trials: dict[int, Trial] = {}
        self._news: set[int] = set()
        self._tally: Tally | None = None
        self.next_number = 0
        self.pruned = 0

    def news(self) -> list[tuple[Trial, np.ndarray]]:
        """What was taken in since the last call: trials, and their rows of the unit cube (d,).

        Trials of a study that was extended may have no row, and are not among them.
        """
        found = []
        for number in sorted(self._news):
            trial = self.trials[number]
            row = self._former.row(trial.params)
            if row is not None:
                found.append((trial, row))
        self._news.clear()
        return found

    def sync(self, *, revised: bool = False) -> None:
        """Take in what changed in the storage, by this process or another.

        Args:
            revised: Whether to go on where problem or settings of the study were changed, as who
                only looks may.

        Raises:
            StudyRevised: If they were, and revised is False.
        """
        generation = None if revised else self._generation
        changed, self._revision = self._storage.changes(
            self._study, self._revision, generation=generation
        )
        for trial in changed:
            self.remember(trial)

    def remember(self, trial: Trial) -> Trial:
        """Take in a trial as it is stored now, and give it back with its arguments."""
        number = trial.number
        arguments = self._former.own.arguments(trial.params)
        if arguments != trial.params:
            trial = replace(trial, arguments=arguments)
        before = self.trials.get(number)
        self.pruned += trial.state == TrialState.PRUNED
        self.pruned -= before is not None and before.state == TrialState.PRUNED
        self.trials[number] = trial
        if self._tally is not None:
            self._tally.take(before, trial)
        self._news.add(number)
        self.next_number = max(self.next_number, number + 1)
        if trial.state == TrialState.RUNNING:
            self._running.add(number)
        else:
            self._running.discard(number)
        return trial

    def hand_out(self, trial: Trial) -> Trial:
        """Remember that this process runs the trial; a copy, whose dicts its user may change."""
        trial = self.remember(trial)
        self._handed_out.add(trial.number)
        return replace(
            trial,
            params=dict(trial.params),
            arguments=dict(trial.arguments),
            reporter=self._reporter,
        )

    def left_behind(self, worker: str | None) -> Trial | None:
        """A running trial of this worker that another process was given, now its again."""
        if worker is None:
            return None
        for number in sorted(self._running - self._handed_out):
            if self.trials[number].worker == worker:
                return self.trials[number]
        return None

    def running(self) -> list[Trial]:
        """The running trials by number."""
        return [self.trials[number] for number in sorted(self._running)]

    def tally(self, problem: Problem) -> Tally:
        """How far the study has come, by this problem; from now on in step with the trials."""
        if self._tally is None:
            self._tally = Tally(problem)
            for trial in self.in_order():
                self._tally.take(None, trial)
        return self._tally

    def in_order(self) -> list[Trial]:
        """All trials by number."""
        return [self.trials[number] for number in sorted(self.trials)]
