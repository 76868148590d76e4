"""Supply: where a run's next trial comes from, and whether to look for it ahead of time."""

from __future__ import annotations

import math
import time
from collections import deque
from statistics import median
from typing import TYPE_CHECKING

from bbmmopt.execution.checks import Plan
from bbmmopt.execution.owners import is_gone, is_here
from bbmmopt.trial import Trial

if TYPE_CHECKING:
    # Elsewhere imported where it is used: it needs torch, and worker processes read this file.
    from bbmmopt.optimizer import Optimizer

_LOOK_EVERY = 1.0  # seconds between two looks for trials of runs that have died meanwhile
# Share of a trial that its suggestion may take before it is looked for ahead of time: at least this
# share of the workers' time is gained. What is lost, with four workers and 60 trials, is 2 to 4 of
# them on Hartmann-6 (30 seeds), and nothing to be seen on Branin and Hartmann-3 (12 seeds).
_QUICK = 0.1


class Supply:
    """Hands out the trials of a run.

    First what runs that died left behind; then what waits in line, or whose lease ran out; then
    new ones.

    A suggestion may be looked for while all workers are busy, so that the next one that is free
    need not wait for it. It knows one result less than it could, and so this is done only where
    suggestions would take more than a tenth of the workers' time, and never with one worker.
    Nobody has it until a worker takes it: it is no trial yet, and forgotten when the run ends.

    Args:
        optimizer: Whose trials.
        plan: Of the run.
        worker: Name of the run.
    """

    def __init__(self, optimizer: Optimizer, plan: Plan, worker: str) -> None:
        self._optimizer, self._plan, self._worker = optimizer, plan, worker
        self._handed: set[int] = set()
        self._left_behind = self._orphans()
        self._looked = time.monotonic()
        self._ahead: Trial | None = None
        self._prepared = False
        self._asks: deque[float] = deque(maxlen=5)
        self._trials: deque[float] = deque(maxlen=max(5, 2 * plan.workers))

    def next(self) -> Trial | None:
        """The next trial, running; None where there can be none, or none yet: see `comes_later`.

        Raises:
            SpaceExhausted: If every point of a finite space was tried.
        """
        self._prepared = False
        trial = self._find()
        if trial is not None:
            self._handed.add(trial.number)
        return trial

    def _find(self) -> Trial | None:
        while trial := self._next_orphan():
            taken = self._optimizer.take_over(trial, worker=self._worker, lease=self._plan.lease)
            if taken is not None:
                return taken
        found = self._optimizer.claim(worker=self._worker, lease=self._plan.lease)
        while found is None:
            if self._all_made():
                return None
            suggested, self._ahead = self._ahead or self._suggest(), None
            if suggested.number >= self._plan.total:
                return None  # somebody else has made the last one meanwhile
            # Somebody else may have been first to make a trial of that number.
            found = self._optimizer.begin(suggested, worker=self._worker, lease=self._plan.lease)
        return found

    def prepare(self) -> bool:
        """Look for a suggestion now that all workers are busy, if that pays; whether it was."""
        if self._prepared or self._plan.workers == 1 or not self._pays():
            return False
        from bbmmopt.optimizer import SpaceExhausted

        try:
            if self._ahead is None and not self._all_made():
                self._ahead = self._suggest()
        except SpaceExhausted:
            pass  # as it may not be any more when the next trial is due
        self._prepared = True
        return self._ahead is not None

    def _all_made(self) -> bool:
        """Whether the study has all the trials that it may have."""
        return self._plan.total < math.inf and self._optimizer.tally.total >= self._plan.total

    def took(self, seconds: float) -> None:
        """Take note of how long a trial took."""
        self._trials.append(seconds)

    def comes_later(self) -> bool:
        """Whether a trial of another run may still come to this one: should that run die.

        So too where none is running any more: the last one has just ended.
        """
        running = self._optimizer.running
        return not running or any(
            trial.lease_until is not None or is_here(trial.worker) for trial in running
        )

    def _suggest(self) -> Trial:
        began = time.perf_counter()
        suggested = self._optimizer.preview()
        self._asks.append(time.perf_counter() - began)
        return suggested

    def _pays(self) -> bool:
        if not self._asks or not self._trials:
            return False
        return median(self._asks) > _QUICK * median(self._trials)

    def _next_orphan(self) -> Trial | None:
        if not self._left_behind and time.monotonic() - self._looked > _LOOK_EVERY:
            self._left_behind = self._orphans()
            self._looked = time.monotonic()
        return self._left_behind.pop(0) if self._left_behind else None

    def _orphans(self) -> list[Trial]:
        """The running trials of runs on this machine that have ended.

        And of this run, if a server wrote them and could not say so any more.
        """
        return [
            trial
            for trial in self._optimizer.running
            if is_gone(trial.worker)
            or (trial.worker == self._worker and trial.number not in self._handed)
        ]
