"""What a run returns, and how one of its callbacks ends it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bbmmopt.notebook import facts, heading, joined
from bbmmopt.study.html import study_html
from bbmmopt.trial import Trial, TrialState

if TYPE_CHECKING:
    # Elsewhere imported where it is used: it needs torch, and worker processes read this file.
    from bbmmopt.optimizer import Optimizer


class StopRun(Exception):
    """Raised by a callback to end the run: no new trials, those under way are waited for."""


@dataclass(frozen=True)
class RunResult:
    """What a run did.

    Attributes:
        optimizer: With all trials of the study: go on from here, plot, ask.
        trials: The trials of this run that have an outcome, by number.
        seconds: How long it took.
        stopped: Why it ended, as a sentence: "all 40 trials done", "interrupted by Ctrl-C …".
        idle: Share of the workers' time that was not spent in the objective, between 0 and 1: they
            waited for a suggestion, or for the last trials of others. From the first start of a
            trial to the last end: starting and ending processes is not in it.
    """

    optimizer: Optimizer
    trials: tuple[Trial, ...]
    seconds: float
    stopped: str
    idle: float = 0.0

    def _repr_html_(self) -> str:
        ended = [
            f"{number} {state}" for state in TrialState if (number := count(self.trials, state))
        ]
        return joined(
            heading("Run", self.stopped),
            facts(
                {
                    "trials of this run": ", ".join(ended) or "none",
                    "seconds": f"{self.seconds:.4g}",
                    "workers idle": f"{self.idle:.0%}",
                }
            ),
            study_html(self.optimizer),
        )

    @property
    def best(self) -> Trial:
        """The best trial of the study, earlier runs included.

        Raises:
            NoCompleteTrial: If no trial is complete.
            ValueError: If there are several objectives.
        """
        return self.optimizer.best

    @property
    def n_complete(self) -> int:
        """How many trials of this run gave a value."""
        return count(self.trials, TrialState.COMPLETE)

    @property
    def n_failed(self) -> int:
        """How many trials of this run failed."""
        return count(self.trials, TrialState.FAILED)

    @property
    def n_pruned(self) -> int:
        """How many trials of this run the objective gave up on: see `TrialPruned`."""
        return count(self.trials, TrialState.PRUNED)


class Usage:
    """How much of the workers' time the objective had.

    Args:
        workers: How many there are.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._first: float | None = None
        self._busy = self._latest = 0.0

    def starts(self) -> float:
        """An attempt at a trial starts now; the time."""
        now = time.monotonic()
        self._first = now if self._first is None else self._first
        return now

    def ended(self, seconds: float) -> None:
        """An attempt has ended that took the objective so long."""
        self._busy += seconds
        self._latest = time.monotonic()

    @property
    def idle(self) -> float:
        """The share that it did not have."""
        if self._first is None or self._latest <= self._first:
            return 0.0
        return max(0.0, 1 - self._busy / (self._workers * (self._latest - self._first)))


def count(trials: Sequence[Trial], state: TrialState) -> int:
    """How many of the trials are in this state."""
    return sum(trial.state == state for trial in trials)


def why_ended(trials: Sequence[Trial], planned: float, stopped: tuple[str, str] | None) -> str:
    """Why a run ended, as a sentence.

    Args:
        trials: Those that it ran.
        planned: How many there might have been; infinity for any number.
        stopped: What came before they were done, and details of it. Details alone are the words of
            a stop rule.
    """
    if stopped is None:
        ends = (("failed", TrialState.FAILED), ("pruned", TrialState.PRUNED))
        counts = [(word, count(trials, state)) for word, state in ends]
        parts = [f"{number} of them {word}" for word, number in counts if number]
        return ", ".join([f"all {planned} trials done", *parts])
    why, detail = stopped
    of = f" of {planned}" if planned < math.inf else ""
    after = f"after {len(trials)}{of} trials"
    if not why:
        return f"{detail}, {after}"
    return f"{why} {after}: {detail}" if detail else f"{why} {after}"


def how_to_resume(done: int, planned: float, in_memory: bool) -> str:
    """What to do after an interrupt.

    Args:
        done: How many trials have an outcome.
        planned: As in `why_ended`.
        in_memory: Whether the study ends with the process.
    """
    known = planned < math.inf
    text = f"interrupted: {done}{f' of {planned}' if known else ''} trials are recorded."
    if in_memory:
        return f'{text} They are in memory only; with storage="study.db" a run can be resumed.'
    text += " Run the same again to resume"
    if known and done < planned:
        return f"{text}; n_trials={planned - done} completes this run."
    return f"{text}."
