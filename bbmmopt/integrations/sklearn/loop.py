"""The loop of a search: ask for candidates, have them cross-validated, tell their mean scores."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bbmmopt.execution.owners import is_gone
from bbmmopt.execution.stopping import StopRule
from bbmmopt.integrations.sklearn.distributions import Candidates
from bbmmopt.integrations.sklearn.folds import Fold, Folds, Splits
from bbmmopt.integrations.sklearn.progress import Progress
from bbmmopt.optimizer import Optimizer, SpaceExhausted
from bbmmopt.trial import Trial


@dataclass
class Loop:
    """One search, on a study that may hold a part of it.

    Attributes:
        optimizer: The study. Candidates are its trials.
        candidates: What they mean to the estimator.
        folds: Where their scores are kept.
        evaluate: Cross-validates a list of candidates, and returns {"folds": of all candidates
            that this was called with}.
        progress: Whom to tell of it.
        splits: What candidates are evaluated on.
        n_iter: Candidates in all, those of runs before included.
        n_points: Candidates that are asked for, and evaluated, at a time.
        metrics: The scores that are to be large.
        error_score: The score of folds that could not be fitted, or "raise".
        rules: When to stop before `n_iter`.
        worker: Name of this run.
        results: What `evaluate` returned last; None if it never did.
        failure: Why no fold of a batch could be fitted, the last time that was so.
    """

    optimizer: Optimizer
    candidates: Candidates
    folds: Folds
    evaluate: Callable[..., dict[str, Any]]
    progress: Progress
    splits: Splits
    n_iter: int
    n_points: int
    metrics: Sequence[str]
    error_score: Any
    rules: Sequence[StopRule]
    worker: str
    results: dict[str, Any] | None = field(default=None, init=False)
    failure: ValueError | None = field(default=None, init=False)

    def run(self) -> str | None:
        """Search. Why it ended before `n_iter`; None if it did not."""
        while (done := len(self.folds.trials())) < self.n_iter:
            reason = next(self._reasons(), None)
            if reason is not None:
                return reason
            # Who was killed within a batch left the rest of it to us: batches stay as they were.
            batch = self._batch(min(self.n_points - done % self.n_points, self.n_iter - done))
            if not batch:
                reason = f"all {done} points of the space were tried"
                warnings.warn(f"{reason}; n_iter is {self.n_iter}.", UserWarning, stacklevel=2)
                return reason
            self._evaluate(batch)
        return None

    def _reasons(self) -> Iterator[str]:
        """Why to start nothing more, if there is a reason."""
        for reason in (self.optimizer.stop_reason, self.progress.stop_reason):
            if reason is not None:
                yield reason
        for rule in self.rules:
            reason = rule.reason(self.optimizer, self.optimizer.tally)
            if reason is not None:
                yield reason

    def _batch(self, most: int) -> list[Trial]:
        """Candidates to evaluate: of a run that is gone, and new ones; none if all were tried."""
        for trial in self.optimizer.running:
            if is_gone(trial.worker):
                self.optimizer.take_over(trial, worker=self.worker)
        missing = most - len(self._own())
        if missing > 0:
            with suppress(SpaceExhausted):  # when there are less, those are found all the same
                self.optimizer.ask(missing, worker=self.worker)
        return self._own()

    def _own(self) -> list[Trial]:
        return [trial for trial in self.optimizer.running if trial.worker == self.worker]

    def _evaluate(self, batch: list[Trial]) -> None:
        try:
            settings = [self.candidates.settings(trial) for trial in batch]
            with self.progress.batch(len(batch)) as options:
                self.results = self.evaluate(settings, **options)
        except ValueError as error:
            # What scikit-learn raises where not one fold of a batch could be fitted. For it that is
            # all of a search; for us it may be a single candidate. It has no class of its own: in
            # other words than these, it would end the search.
            fits = len(batch) * self.splits.count
            if self.error_score == "raise" or f"All the {fits} fits failed." not in str(error):
                raise
            self.failure = error
            for trial in batch:
                self.folds.keep(trial, None)
                self._tell(trial, dict.fromkeys(self.metrics, self.error_score), str(error))
            return
        count = self.splits.count
        new = self.results["folds"][-len(batch) * count :]
        for k, trial in enumerate(batch):
            folds = new[k * count : (k + 1) * count]
            scores = {name: mean_of(folds, name) for name in self.metrics}
            errors = [fold["fit_error"] for fold in folds if fold.get("fit_error")]
            # First the folds: of a trial that was told they must be there.
            self.folds.keep(trial, folds)
            self._tell(trial, scores, errors[-1] if errors else "")

    def _tell(self, trial: Trial, scores: Mapping[str, Any], error: str) -> None:
        lost = [name for name, score in scores.items() if not math.isfinite(score)]
        if lost:
            reason = f"{lost[0]} is {scores[lost[0]]}"
            self.optimizer.tell(trial, failed=error.strip() or reason)
        else:
            self.optimizer.tell(trial, scores)


def mean_of(folds: Sequence[Fold], name: str) -> float:
    """The mean of a score over the folds of a candidate.

    Raises:
        ValueError: If there are several scores, and none of this name.
    """
    scores = [fold["test_scores"] for fold in folds]
    if isinstance(scores[0], dict):
        if name not in scores[0]:
            raise ValueError(
                f"scoring returns several scores, {', '.join(map(repr, scores[0]))}: say by "
                f"refit='…' which of them is to be large."
            )
        scores = [score[name] for score in scores]
    return float(np.mean(scores))
