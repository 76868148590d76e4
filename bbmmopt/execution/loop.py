"""The loop: ask, evaluate, tell, until there is a reason to stop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bbmmopt.execution.checks import Plan
from bbmmopt.execution.interrupts import Interrupts
from bbmmopt.execution.leases import Leases
from bbmmopt.execution.outages import Outages
from bbmmopt.execution.owners import own_name
from bbmmopt.execution.progress import Silent, Status, make_display
from bbmmopt.execution.recording import Attempts, Outcome, outcome_of, tell
from bbmmopt.execution.results import RunResult, StopRun, Usage, how_to_resume, why_ended
from bbmmopt.execution.supply import Supply
from bbmmopt.execution.workers import Evaluation, ExecutorBroken, Running, WorkerDied, describe
from bbmmopt.study.stops import Stops
from bbmmopt.trial import Trial, TrialState

if TYPE_CHECKING:
    # Elsewhere imported where it is used: it needs torch, and worker processes read this file.
    from bbmmopt.optimizer import Optimizer


def execute(optimizer: Optimizer, plan: Plan) -> RunResult:
    """Run a plan to its end. What can happen is told in `run`."""
    with own_name() as worker, make_display(plan.progress, plan.n_trials) as display:
        return _Run(optimizer, plan, display, worker).finish()


@dataclass(frozen=True)
class _Flight:
    """A trial under way."""

    trial: Trial
    running: Running
    began: float


class _Run:
    """The loop, and what it keeps in mind. Nobody but its thread touches the optimizer."""

    def __init__(self, optimizer: Optimizer, plan: Plan, display: Silent, worker: str) -> None:
        self.optimizer, self.plan, self.display = optimizer, plan, display
        self.trials: list[Trial] = []
        self.ends: Counter[TrialState] = Counter()  # of these
        self.flying: dict[int, _Flight] = {}
        self.again: list[tuple[Trial, Evaluation]] = []  # to be tried again, and why
        self.supply = Supply(optimizer, plan, worker)
        self.attempts = Attempts(optimizer, plan.retries)
        self.leases = Leases(optimizer, plan.lease)
        self.outages = Outages(optimizer.storage.busy_timeout, self._rest, display.say)
        self.stops = Stops(optimizer.storage, optimizer.study)
        self.stopped: tuple[str, str] | None = None
        self.error: BaseException | None = None
        self.interrupts = Interrupts(self._interrupted)
        self.began = self.latest = time.monotonic()
        self.usage = Usage(plan.workers)

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
            in_memory = self.optimizer.storage.address is None
            self.display.say(how_to_resume(len(self.trials), self.plan.n_trials, in_memory))
        return RunResult(
            self.optimizer,
            tuple(sorted(self.trials, key=lambda trial: trial.number)),
            time.monotonic() - self.began,
            why_ended(self.trials, self.plan.n_trials, self.stopped),
            idle=self.usage.idle,
        )

    def _loop(self) -> None:
        pause = _Pause(self.leases.every / 2, self.plan.runner.wait)
        while True:
            if self._collect():
                pause.reset()
            self._renew()
            # Between two trials asked for, look again: another result may have come.
            if self._may_start() and self._start_one():
                continue
            if not self._goes_on():
                return
            if not self._prepare():
                with self.interrupts.interruptible():
                    pause.wait()

    def _goes_on(self) -> bool:
        """Whether there is something to wait for."""
        if self.flying:
            return True
        if self.error or self.stopped is not None:
            self._give_up_retries()
            return False
        if not self._wants_more():
            return False
        if not self.outages.insist(self.supply.comes_later):
            elsewhere = len(self.optimizer.running)
            self._stop("", f"all trials of the study are begun, {elsewhere} by others")
        return self.stopped is None

    # ------------------------------------------------------------------------- starting

    def _may_start(self) -> bool:
        """Whether a trial may be started now; takes note of reasons to stop."""
        if self.interrupts.by is not None:
            self._stop(f"interrupted by {self.interrupts.by}")
        if self.error or self.stopped is not None or len(self.flying) >= self.plan.workers:
            return False
        if self._wants_more() and time.monotonic() - self.began >= self.plan.timeout:
            self._stop(f"timeout of {self.plan.timeout:g} s reached")
        self._look_for_stops()
        self._look_at_rules()
        return self.error is None and self.stopped is None and self._wants_more()

    def _wants_more(self) -> bool:
        """Whether trials are left to be run, those that are to be tried again included."""
        return bool(self.again) or len(self.trials) + len(self.flying) < self.plan.n_trials

    def _look_for_stops(self) -> None:
        try:
            reason = self.outages.insist(self.stops.reason)
        except Exception as error:
            self._fail(error)
            return
        if reason is not None:
            self._stop("stopped by request", reason)

    def _look_at_rules(self) -> None:
        for rule in self.plan.rules:
            try:
                reason = self.outages.insist(
                    lambda rule=rule: rule.reason(self.optimizer, self.optimizer.tally)
                )
            except Exception as error:
                self._fail(error)
                return
            if reason is not None:
                self._stop("", reason)

    def _start_one(self) -> bool:
        """Start a trial; whether the loop should look again at once."""
        try:
            trial = self._next()
            if trial is None or self.interrupts.by is not None:
                # If it was asked for, it stays running: the next run begins with it.
                return self.interrupts.by is not None or self.stopped is not None
            self.outages.written = True
            self._show(starting=1)
            arguments = dict(trial.arguments)
            if self.plan.passes_trial:
                arguments["trial"] = trial
            with self.interrupts.interruptible():
                began = self.usage.starts()
                running = self.plan.runner.submit(arguments)
                self.flying[trial.number] = _Flight(trial, running, began)
        except Exception as error:
            self._fail(error)
        return True

    def _next(self) -> Trial | None:
        from bbmmopt.optimizer import SpaceExhausted

        if self.again:
            return self.again.pop(0)[0]
        try:
            return self.outages.insist(self.supply.next)
        except SpaceExhausted as error:
            if not self.optimizer.tally.total:
                raise
            self._stop("space exhausted", str(error))
            return None

    def _prepare(self) -> bool:
        """Look for a suggestion while all workers are busy; whether that took some time."""
        left = self.plan.n_trials - len(self.trials) - len(self.flying) - len(self.again)
        full = len(self.flying) == self.plan.workers
        if self.error or self.stopped is not None or self.interrupts.by or not full or left < 1:
            return False
        try:
            return self.outages.insist(self.supply.prepare)
        except Exception as error:
            self._fail(error)
            return False

    def _renew(self) -> None:
        try:
            trials = [flight.trial for flight in self.flying.values()]
            self.outages.insist(lambda: self.leases.renew(trials))
        except Exception as error:
            self._fail(error)

    # ------------------------------------------------------------------------ recording

    def _collect(self) -> bool:
        """Record all that are done, in order of number; whether there were any."""
        done = [flight for flight in self.flying.values() if _is_over(flight.running)]
        for flight in sorted(done, key=lambda flight: flight.trial.number):
            del self.flying[flight.trial.number]
            self._land(flight)
        return bool(done)

    def _land(self, flight: _Flight) -> None:
        """Record what came out of an attempt, or see to another one."""
        trial = flight.trial
        try:
            evaluation = flight.running.result()
        except ExecutorBroken as error:
            self._fail(error)
            return  # it stays running, for the next run
        except Exception as error:  # not the objective's: `evaluate` hands those over
            if self.interrupts.by is not None:
                return  # whoever ends us ended the worker too; it is run again by the next run
            text = str(error) if isinstance(error, WorkerDied) else describe(error)
            evaluation = Evaluation(failure=text, seconds=time.monotonic() - flight.began)
        self.usage.ended(evaluation.seconds)
        self.supply.took(evaluation.seconds)
        try:
            if self.outages.insist(lambda: self.attempts.another(trial, evaluation)):
                self.again.append((trial, evaluation))
                return
        except Exception as error:
            self._fail(error)
        self._record(trial, evaluation)

    def _give_up_retries(self) -> None:
        """What should be tried again is not, now that the run ends: it failed.

        Where the run was interrupted, or lost its workers, it stays running instead: the next run
        begins with it.
        """
        waiting, self.again = self.again, []
        if self.interrupts.by is None and not isinstance(self.error, ExecutorBroken):
            for trial, evaluation in waiting:
                self._record(trial, evaluation)

    def _record(self, trial: Trial, evaluation: Evaluation) -> None:
        outcome = outcome_of(self.optimizer, trial, evaluation, self.attempts, self._nonsense)
        told = self._tell(trial, outcome)
        if told is None:
            return
        self.trials.append(told)
        self.ends[told.state] += 1
        self.latest = time.monotonic()
        if evaluation.error is not None:
            remote = evaluation.error.__traceback__ is None  # lost on the way from a process
            self._fail(evaluation.error, evaluation.failure if remote else None)
        self._call_back(told)
        self._show()

    def _tell(self, trial: Trial, outcome: Outcome) -> Trial | None:
        """Record an outcome; None if that cannot be: what the run raises then names it."""
        try:
            return self.outages.insist(partial(tell, self.optimizer, trial, outcome))
        except Exception as error:
            self._fail(error)
            (self.error or error).add_note(outcome.unrecorded(trial.number))
            return None
        except KeyboardInterrupt as error:
            error.add_note(outcome.unrecorded(trial.number))
            raise

    def _rest(self, seconds: float) -> None:
        with self.interrupts.interruptible():
            time.sleep(seconds)

    def _nonsense(self, error: Exception) -> None:
        """The objective returned no result at all: a mistake, if there was no good one before."""
        if not self.ends[TrialState.COMPLETE]:
            self._fail(error, "The trial is recorded as failed.")

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

    def _interrupted(self) -> None:
        """In a signal handler."""
        self.display.note("finishing trials under way; Ctrl-C again abandons")

    def _show(self, starting: int = 0) -> None:
        if not self.display.active:
            return
        try:
            best = self._best()
        except Exception as error:
            self._fail(error)
            return
        self.display.show(
            Status(
                done=len(self.trials),
                total=self.plan.n_trials,
                failed=self.ends[TrialState.FAILED],
                pruned=self.ends[TrialState.PRUNED],
                running=len(self.flying) + starting,
                best=best,
                began=self.began,
                latest=self.latest,
                until=self.began + self.plan.timeout,
            )
        )

    def _best(self) -> str:
        problem = self.optimizer.problem
        if len(problem.objectives) > 1:
            return ""
        best = self.outages.insist(lambda: self.optimizer.tally.best)
        if best is None:
            return ""
        return f"{problem.names[0]} {best.value:.6g} (trial {best.number})"


def _is_over(running: Running) -> bool:
    """Whether an attempt has ended; so has one whose executor cannot say: `result` tells why."""
    try:
        return running.done()
    except Exception:
        return True


class _Pause:
    """Waits between two looks: briefly for what is over soon, longer for what takes hours.

    A fiftieth of the time since the last result, so that a worker idles at most 2 % of it.

    Args:
        most: Seconds that it never takes longer than.
        wait: What waits.
    """

    def __init__(self, most: float, wait: Callable[[float], None]) -> None:
        self._most, self._wait = min(most, 0.25), wait
        self.reset()

    def reset(self) -> None:
        """Something has happened."""
        self._since = time.monotonic()

    def wait(self) -> None:
        """Wait a little."""
        self._wait(min(max(0.0005, 0.02 * (time.monotonic() - self._since)), self._most))
