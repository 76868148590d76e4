"""The loop: ask, evaluate, tell, until there is a reason to stop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bbmmopt.execution.checks import Plan
from bbmmopt.execution.interrupts import Interrupts
from bbmmopt.execution.owners import is_gone, own_name
from bbmmopt.execution.progress import Silent, Status, make_display
from bbmmopt.execution.workers import Evaluation, Running, WorkerDied, describe
from bbmmopt.storage import MemoryStorage
from bbmmopt.trial import Trial, TrialAlreadyTold, TrialState

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
    """

    optimizer: Optimizer
    trials: tuple[Trial, ...]
    seconds: float
    stopped: str

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
        return sum(trial.state == TrialState.COMPLETE for trial in self.trials)

    @property
    def n_failed(self) -> int:
        """How many trials of this run failed."""
        return sum(trial.state == TrialState.FAILED for trial in self.trials)


def execute(optimizer: Optimizer, plan: Plan) -> RunResult:
    """Run a plan to its end. What can happen is told in `run`."""
    with own_name() as worker, make_display(plan.progress, plan.n_trials) as display:
        return _Run(optimizer, plan, display, worker).finish()


class _Run:
    """The loop, and what it keeps in mind. Nobody but its thread touches the optimizer."""

    def __init__(self, optimizer: Optimizer, plan: Plan, display: Silent, worker: str) -> None:
        self.optimizer, self.plan, self.display, self.worker = optimizer, plan, display, worker
        self.trials: list[Trial] = []
        self.flying: dict[int, tuple[Trial, Running]] = {}
        self.left_behind = [
            trial
            for trial in optimizer.trials
            if trial.state == TrialState.RUNNING and is_gone(trial.worker)
        ]
        self.stopped: tuple[str, str] | None = None
        self.error: BaseException | None = None
        self.interrupts = Interrupts(self._interrupted)
        self.began = self.latest = time.monotonic()

    def finish(self) -> RunResult:
        """Run to the end."""
        self._show()
        with self.interrupts:
            orderly = False
            try:
                with self.interrupts.interruptible():
                    self.plan.runner.start(lambda: self.interrupts.by is not None)
                self._loop()
                orderly = True
            finally:
                self.plan.runner.close(abandon=not orderly)
        if self.error is not None:
            raise self.error
        if self.interrupts.by is not None:
            self.display.say(self._how_to_resume())
        return RunResult(
            self.optimizer,
            tuple(sorted(self.trials, key=lambda trial: trial.number)),
            time.monotonic() - self.began,
            self._why(),
        )

    def _loop(self) -> None:
        pause = _Pause()
        while True:
            if self._collect():
                pause.reset()
            # Between two trials asked for, look again: another result may have come.
            if self._may_start():
                self._start_one()
            elif not self.flying:
                return
            else:
                with self.interrupts.interruptible():
                    pause.wait()

    # ------------------------------------------------------------------------- starting

    def _may_start(self) -> bool:
        if self.interrupts.by is not None:
            self._stop(f"interrupted by {self.interrupts.by}")
        started = len(self.trials) + len(self.flying)
        if self.error or self.stopped is not None or started >= self.plan.n_trials:
            return False
        if time.monotonic() - self.began >= self.plan.timeout:
            self._stop(f"timeout of {self.plan.timeout:g} s reached")
            return False
        return len(self.flying) < self.plan.workers

    def _start_one(self) -> None:
        try:
            trial = self._next()
            if trial is None or self.interrupts.by is not None:
                return  # if it was asked for, it stays running: the next run begins with it
            self._show(starting=1)
            with self.interrupts.interruptible():
                self.flying[trial.number] = trial, self.plan.runner.submit(trial.arguments)
        except Exception as error:
            self._fail(error)

    def _next(self) -> Trial | None:
        from bbmmopt.optimizer import SpaceExhausted

        while self.left_behind:
            trial = self.optimizer.take_over(self.left_behind.pop(0), worker=self.worker)
            if trial is not None:
                return trial
        try:
            return self.optimizer.ask(worker=self.worker)
        except SpaceExhausted as error:
            if not self.optimizer.trials:
                raise
            self._stop("space exhausted", str(error))
            return None

    # ------------------------------------------------------------------------ recording

    def _collect(self) -> bool:
        """Record all that are done, in order of number; whether there were any."""
        done = [(trial, running) for trial, running in self.flying.values() if running.done()]
        for trial, running in sorted(done, key=lambda pair: pair[0].number):
            del self.flying[trial.number]
            self._record(trial, running)
        return bool(done)

    def _record(self, trial: Trial, running: Running) -> None:
        try:
            evaluation = running.result()
        except Exception as error:  # not the objective's: `evaluate` hands those over
            if self.interrupts.by is not None:
                return  # whoever ends us ended the worker too; it is run again by the next run
            text = str(error) if isinstance(error, WorkerDied) else describe(error)
            evaluation = Evaluation(failure=text)
        try:
            told = self._tell(trial, evaluation)
        except Exception as error:
            error.add_note(f"trial {trial.number} is not recorded; its outcome: {evaluation}")
            self._fail(error)
            return
        self.trials.append(told)
        self.latest = time.monotonic()
        if evaluation.error is not None:
            remote = evaluation.error.__traceback__ is None  # lost on the way from a process
            self._fail(evaluation.error, evaluation.failure if remote else None)
        self._call_back(told)
        self._show()

    def _tell(self, trial: Trial, evaluation: Evaluation) -> Trial:
        """Record an outcome, whatever it is, and return the trial as it is then."""
        number, failure, value = trial.number, evaluation.failure, evaluation.value
        if failure is None:
            try:
                # Not left to `tell`, which would keep the trial running for a second try, or warn.
                failure = self.optimizer.problem.check_values(value, trial_number=number).failure
            except Exception as error:
                failure = f"the objective returned {value!r:.1000}: {describe(error)}"
                if not any(t.state == TrialState.COMPLETE for t in self.trials):
                    self._fail(error, "The trial is recorded as failed.")
        try:
            if failure is not None:
                return self.optimizer.tell(trial, failed=failure)
            return self.optimizer.tell(trial, value)
        except TrialAlreadyTold:
            # By somebody else meanwhile, and the first outcome counts.
            return next(t for t in self.optimizer.trials if t.number == number)

    def _call_back(self, trial: Trial) -> None:
        for callback in self.plan.callbacks:
            try:
                with self.interrupts.interruptible():
                    callback(self.optimizer, trial)
            except StopRun as stop:
                self._stop("stopped by a callback", str(stop))
            except Exception as error:
                self._fail(error)

    # ------------------------------------------------------------------------- stopping

    def _stop(self, why: str, detail: str = "") -> None:
        """Start no more trials. The first reason counts."""
        self.stopped = self.stopped or (why, detail)

    def _fail(self, error: BaseException, note: str | None = None) -> None:
        """Start no more trials, and raise this in the end. The first error counts."""
        if self.error is None:
            self.error = error
            if note is not None:
                error.add_note(note)

    def _why(self) -> str:
        if self.stopped is None:
            failed = sum(trial.state == TrialState.FAILED for trial in self.trials)
            text = f"all {self.plan.n_trials} trials done"
            return f"{text}, {failed} of them failed" if failed else text
        why, detail = self.stopped
        after = f"{why} after {len(self.trials)} of {self.plan.n_trials} trials"
        return f"{after}: {detail}" if detail else after

    def _interrupted(self) -> None:
        """In a signal handler."""
        self.display.note("finishing trials under way; Ctrl-C again abandons")

    def _how_to_resume(self) -> str:
        done, total = len(self.trials), self.plan.n_trials
        text = f"interrupted: {done} of {total} trials are recorded."
        if isinstance(self.optimizer.storage, MemoryStorage):
            return f'{text} They are in memory only; with storage="study.db" a run can be resumed.'
        text += " Run the same again to resume"
        return (
            f"{text}; n_trials={total - done} completes this run." if done < total else f"{text}."
        )

    def _show(self, starting: int = 0) -> None:
        if not self.display.active:
            return
        timeout = self.plan.timeout
        self.display.show(
            Status(
                done=len(self.trials),
                total=self.plan.n_trials,
                failed=sum(trial.state == TrialState.FAILED for trial in self.trials),
                running=len(self.flying) + starting,
                best=self._best(),
                began=self.began,
                latest=self.latest,
                until=self.began + timeout if math.isfinite(timeout) else math.inf,
            )
        )

    def _best(self) -> str:
        problem = self.optimizer.problem
        if len(problem.objectives) > 1:
            return ""
        best = problem.best_of(self.optimizer.trials)
        if best is None:
            return ""
        return f"{problem.names[0]} {best.value:.6g} (trial {best.number})"


class _Pause:
    """Waits between two looks: briefly for what is over soon, longer for what takes hours.

    A fiftieth of the time since the last result, so that a worker idles at most 2 % of it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Something has happened."""
        self._since = time.monotonic()

    def wait(self) -> None:
        """Wait a little."""
        time.sleep(min(max(0.0005, 0.02 * (time.monotonic() - self._since)), 0.25))
