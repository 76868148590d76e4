"""Tally: how far a study has come, told without going through all of its trials."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from bbmmopt.problem import Problem
from bbmmopt.trial import Trial, TrialState


class Tally:
    """Counts of a study's trials, and those that were the best when their turn came.

    Each change of a trial is taken in once, so that looking costs next to nothing, however many
    trials there are. Not a copy: it goes on counting.

    Args:
        problem: What makes a trial better than another.

    Attributes:
        total: How many trials there are.
        complete: How many of them are complete.
        records: The complete, feasible trials that are better than all such of lower numbers, by
            number; none where there are several objectives.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._ended: list[int] = []  # numbers, in order
        self._scores: list[float] = []  # of the records, larger being better
        self.total = self.complete = 0
        self.records: list[Trial] = []

    @property
    def ended(self) -> int:
        """How many trials are complete, failed or pruned."""
        return len(self._ended)

    @property
    def best(self) -> Trial | None:
        """The best complete, feasible trial, as `Problem.best_of`; None if there is none."""
        return self.records[-1] if self.records else None

    def ended_after(self, number: int) -> int:
        """How many trials of higher numbers have ended."""
        return len(self._ended) - bisect_right(self._ended, number)

    def take(self, before: Trial | None, trial: Trial) -> None:
        """Take in a trial.

        Args:
            before: As it was when it was taken in last; None if it never was.
            trial: As it is now.
        """
        self.total += before is None
        if not trial.state.finished or (before is not None and before.state.finished):
            return  # what has ended stays as it is, but for notes
        insort(self._ended, trial.number)
        self.complete += trial.state == TrialState.COMPLETE
        if len(self._problem.objectives) == 1 and self._problem.best_of([trial]) is not None:
            self._compare(trial, self._problem.to_model(trial.values or {})[0])

    def _compare(self, trial: Trial, score: float) -> None:
        """Put a trial among the records if it is one, in place of those that no longer are."""
        at = bisect_left(self.records, trial.number, key=lambda record: record.number)
        if at and self._scores[at - 1] >= score:
            return
        end = bisect_right(self._scores, score, lo=at)  # scores rise from record to record
        self.records[at:end], self._scores[at:end] = [trial], [score]
