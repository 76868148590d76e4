"""Recording: from what came out of an attempt at a trial to its outcome in the study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bbmmopt.execution.workers import Evaluation, describe
from bbmmopt.trial import Trial, TrialAlreadyTold

if TYPE_CHECKING:
    # Elsewhere imported where it is used: it needs torch, and worker processes read this file.
    from bbmmopt.optimizer import Optimizer


class Attempts:
    """How often each trial was tried, and what went wrong.

    Args:
        optimizer: Whose trials.
        retries: How many more attempts a trial has after the first.
    """

    def __init__(self, optimizer: Optimizer, retries: int) -> None:
        self._optimizer, self._retries = optimizer, retries
        self._failures: dict[int, list[str]] = {}

    def another(self, trial: Trial, evaluation: Evaluation) -> bool:
        """Whether the trial is to be run again; then the failure is in the study's log."""
        if evaluation.failure is None or evaluation.error is not None:
            return False
        failures = self._failures.setdefault(trial.number, [])
        if len(failures) >= self._retries:
            return False
        self._optimizer.log_retry(trial, evaluation.failure)
        failures.append(evaluation.failure.partition("\n")[0])
        return True

    def reason(self, trial: Trial, failure: str) -> str:
        """Why the trial failed in the end: the last attempt's failure, and the earlier ones."""
        earlier = self._failures.pop(trial.number, [])
        if not earlier:
            return failure
        first, newline, rest = failure.partition("\n")
        tried = [f"attempt {k}: {line}" for k, line in enumerate(earlier, 1)]
        lines = [first, f"This was attempt {len(earlier) + 1}; before it:", *tried]
        return "\n".join(lines) + newline + rest


@dataclass(frozen=True)
class Outcome:
    """What is told of a trial: it failed, it was given up, or it has a value.

    Attributes:
        value: What the objective returned.
        failed: Why it failed.
        pruned: Why it was given up.
    """

    value: Any = None
    failed: str | None = None
    pruned: str | None = None

    def unrecorded(self, number: int) -> str:
        """What to do about a trial of this outcome that could not be recorded."""
        told = repr(self.value)
        if self.failed is not None:
            told = f"failed={self.failed!r}"
        elif self.pruned is not None:
            told = f"pruned={self.pruned!r}"
        return (
            f"trial {number} is not recorded, and still running. Record it: tell({number}, {told})"
        )


def outcome_of(
    optimizer: Optimizer,
    trial: Trial,
    evaluation: Evaluation,
    attempts: Attempts,
    on_nonsense: Callable[[Exception], None],
) -> Outcome:
    """What an evaluation says of its trial. Asks no storage.

    Args:
        optimizer: Whose trial.
        trial: The trial.
        evaluation: What came out.
        attempts: What came out of earlier attempts.
        on_nonsense: Called with the reason if the objective returned what is no result at all; the
            trial has failed then.
    """
    failure, value = evaluation.failure, evaluation.value
    if failure is not None:
        failure = attempts.reason(trial, failure)
    elif evaluation.pruned is None:
        try:
            # Not left to `tell`, which would keep the trial running for a second try, or warn.
            told = optimizer.problem.check_values(value, trial_number=trial.number)
            failure = told.failure
        except Exception as error:
            failure = f"the objective returned {value!r:.1000}: {describe(error)}"
            on_nonsense(error)
    return Outcome(None if failure else value, failure, evaluation.pruned)


def tell(optimizer: Optimizer, trial: Trial, outcome: Outcome) -> Trial:
    """Record an outcome and return the trial as it is then. May be done twice."""
    try:
        return optimizer.tell(trial, outcome.value, failed=outcome.failed, pruned=outcome.pruned)
    except TrialAlreadyTold:
        # By somebody else meanwhile, and the first outcome counts.
        return optimizer.storage.trial(optimizer.study, trial.number)
