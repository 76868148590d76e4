"""Study: a problem, its trials and what was told of them; everything but suggesting.

Imports no torch, so that telling and listing do not wait for it.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from bbmmopt.early_stopping import StoppingRule
from bbmmopt.explain import explain
from bbmmopt.extension import check_mode, extend, problem_of
from bbmmopt.former import Former
from bbmmopt.ledger import Ledger, checked_worker
from bbmmopt.prior import Prior
from bbmmopt.problem import Constraints, Noise, Problem
from bbmmopt.reporting import StudyReporter
from bbmmopt.settings import (
    FORMERLY,
    VERSION,
    Given,
    check_same,
    checked_seed,
    with_defaults,
)
from bbmmopt.space import Parameter, Space
from bbmmopt.space.checks import is_integer
from bbmmopt.storage import Event, NumberTaken, Storage, StudyRecord, UnknownStudy, open_storage
from bbmmopt.trial import Trial, TrialState, UnknownTrial
from bbmmopt.warm_start import WarmStart, take_along

if TYPE_CHECKING:
    import pandas


class NoCompleteTrial(ValueError):
    """Something was asked that needs at least one complete trial."""


class FailedTrialWarning(UserWarning):
    """A told value cannot be used, and the trial was recorded as failed."""


class Study:
    """Everything about a run but its suggestions: the trials, telling, enqueueing, the best.

    `Optimizer` adds `ask`, and says what the arguments are: they are the same. By itself a study is
    what to open in order to look, or to tell a result from a process that need not load a model.
    """

    def __init__(
        self,
        space: Space | Mapping[str, Parameter] | Problem,
        *,
        minimize: str | Sequence[str] | None = None,
        maximize: str | Sequence[str] | None = None,
        noise: Noise | Mapping[str, Noise] = "unknown",
        constraints: Constraints = (),
        reference_point: Mapping[str, float] | None = None,
        storage: str | PathLike[str] | Storage | None = None,
        study: str = "default",
        seed: int | None = None,
        n_start: int | None = None,
        budget: int | None = None,
        acquisition: str | None = None,
        strategy: str | None = None,
        batches: Literal["greedy", "joint"] | None = None,
        prior: Prior | None = None,
        cost: Literal["seconds"] | None = None,
        perturbation: Mapping[str, float] | None = None,
        risk: float | Literal["mean"] | None = None,
        early_stopping: StoppingRule | str | Mapping[str, Any] | None = None,
        mode: Literal["resume", "extend"] = "resume",
        former: Mapping[str, Any] | None = None,
        warm_start: WarmStart | None = None,
    ) -> None:
        check_mode(mode, former, warm_start)
        self.problem = _problem(space, minimize, maximize, noise, constraints, reference_point)
        self.study = study
        given = Given(
            n_start,
            budget,
            acquisition,
            strategy,
            batches,
            prior,
            cost,
            perturbation,
            risk,
            early_stopping,
        )
        wanted = given.checked(self.problem)
        settings = with_defaults(wanted, self.space, given.budget)
        seed = checked_seed(seed)
        self.storage = open_storage(storage)
        record = self.storage.create_study(
            StudyRecord(
                name=study,
                problem=self.problem.to_json(),
                seed=secrets.randbits(48) if seed is None else seed,
                settings=settings,
                created=time.time(),
                version=VERSION,
            )
        )
        try:
            if mode == "extend":
                changes = wanted | {"budget": settings["budget"]}
                record = extend(
                    self.storage, record, self.problem, seed=seed, settings=changes, former=former
                )
            check_same(record, self.problem, seed, wanted)
            self._former = Former.of(record.settings, self.space)
        except ValueError:
            if self.storage is not storage:
                self.storage.close()
            raise
        self.seed = record.seed
        self.settings = FORMERLY | record.settings
        self._generation = record.generation
        self._lock = threading.RLock()
        self._reporter = StudyReporter(self.storage, record)
        self._ledger = Ledger(self.storage, study, self._former, record.generation, self._reporter)
        self._ledger.sync()
        if warm_start is not None:
            self._take_along(record, warm_start, former)

    @classmethod
    def open(cls, storage: str | PathLike[str] | Storage, study: str = "default") -> Self:
        """Open a stored study by its name alone: the storage knows its space and settings.

        Choices that stand for objects are handed out as their labels: objects are not stored.

        Args:
            storage: As in `Optimizer`, but it must be there already.
            study: Name of the study within the storage.

        Raises:
            UnknownStudy: If there is no such file or study, naming the studies there are.
            StorageError: If the storage cannot be opened.
        """
        path = "://" if isinstance(storage, Storage) else fspath(storage)
        if "://" not in path and not Path(os.path.expanduser(path)).is_file():
            raise UnknownStudy(
                f"there is no file {path!r}. Give the path of a stored study, or start a new one "
                f"with Optimizer(space, …, storage={path!r})."
            )
        store = open_storage(storage)
        record = store.study(study)
        if record is None:
            known = ", ".join(map(repr, store.studies())) or "none"
            if store is not storage:
                store.close()
            raise UnknownStudy(f"there is no study {study!r} in the storage; there are: {known}.")
        return cls(Problem.from_json(record.problem), storage=store, study=study)

    def __repr__(self) -> str:
        objectives = ", ".join(f"{o.direction} {o.name}" for o in self.problem.objectives)
        count = len(self._ledger.trials)
        return f"{type(self).__name__}({objectives}; {count} trials, study {self.study!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the storage. Everything told is in it already."""
        self.storage.close()

    @property
    def space(self) -> Space:
        """The space of the problem."""
        return self.problem.space

    @property
    def former(self) -> Former:
        """How trials lie in the space of the model: not as in `space` if the study was extended."""
        return self._former

    # ----------------------------------------------------------------------- what to run

    def enqueue(self, params: Mapping[str, Any]) -> Trial:
        """Put a point in line: the next `ask` hands it out before anything of its own.

        Args:
            params: A value for every active parameter.

        Raises:
            ValueError: If the point is not in the space, naming parameter, value and range.
        """
        params = self.space.validate(params, where="enqueue")
        trial = Trial(
            0, params, TrialState.WAITING, created=time.time(), origin={"phase": "enqueued"}
        )
        with self._lock:
            return self._ledger.remember(self.storage.add_next(self.study, trial))

    def claim(self, *, worker: str | None = None, lease: float | None = None) -> Trial | None:
        """Take a trial that is there and that nobody runs: its lease ran out, or it is in line.

        `ask` does so before it suggests a new one.

        Args:
            worker: Who will run it.
            lease: As in `ask`.

        Returns:
            The trial, running; None if there is none.
        """
        worker, lease = checked_worker(worker, lease)
        with self._lock:
            self._ledger.sync()
            trial = self.storage.claim(self.study, worker=worker, lease=lease)
            return None if trial is None else self._ledger.hand_out(trial)

    def begin(
        self, suggested: Trial, *, worker: str | None = None, lease: float | None = None
    ) -> Trial | None:
        """Make a trial of what `preview` suggested.

        Args:
            suggested: As `preview` returned it.
            worker: Who will run it.
            lease: As in `ask`.

        Returns:
            The trial, running; None if another one has its number by now.

        Raises:
            TypeError, ValueError: If it is not what `preview` returned; nothing is stored then.
        """
        worker, lease = checked_worker(worker, lease)
        if not isinstance(suggested, Trial) or suggested.state != TrialState.WAITING:
            raise TypeError(f"begin needs a Trial that preview returned; got {suggested!r}.")
        self.space.validate(suggested.params, where="begin")
        now = time.time()
        trial = replace(
            suggested,
            state=TrialState.RUNNING,
            created=now,
            started=now,
            worker=worker,
            lease=lease,
        )
        with self._lock:
            self._ledger.sync()
            if trial.number > self._ledger.next_number:
                raise ValueError(
                    f"trial {trial.number} was suggested for another study: the next trial of "
                    f"study {self.study!r} is {self._ledger.next_number}."
                )
            try:
                stored = self.storage.add(self.study, trial, generation=self._generation)
            except NumberTaken:
                return None
            return self._ledger.hand_out(stored)

    def take_over(
        self, trial: Trial, *, worker: str | None = None, lease: float | None = None
    ) -> Trial | None:
        """Run a trial again whose worker is known to be gone: it is handed out to you now.

        Args:
            trial: A running trial, as `trials` showed it.
            worker: Who will run it from now on.
            lease: As in `ask`.

        Returns:
            The trial; None if it has ended, or somebody else took it over first.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        if not isinstance(trial, Trial):
            raise TypeError(f"take_over needs a Trial, as optimizer.trials shows; got {trial!r}.")
        worker, lease = checked_worker(worker, lease)
        with self._lock:
            taken = self.storage.reclaim(
                self.study,
                trial.number,
                worker=worker,
                previous_worker=trial.worker,
                lease=lease,
            )
            return None if taken is None else self._ledger.hand_out(taken)

    # ----------------------------------------------------------------------------- telling

    def tell(
        self,
        trial: Trial | int,
        value: Any = None,
        *,
        failed: str | None = None,
        pruned: str | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> Trial:
        """Record what came out. When this returns, the result is stored.

        Everything is checked before anything changes: after an error the trial is still running
        and can be told again.

        Args:
            trial: The trial, or its number.
            value: A number; (mean, standard error); or {objective: either} when there are several.
                NaN, or an infinity on the bad side, records the trial as failed and warns.
            failed: Why there is no value, instead of one (nor constraints).
            pruned: Why the trial was given up on its way, instead of a value: what it reported
                until then stays.
            constraints: {constraint: value} if the problem has any and `value` does not say.

        Returns:
            The trial as it is now.

        Raises:
            TypeError: If the value is not a number.
            ValueError: If names are missing or unknown, an infinity is on the good side, or the
                trial is not one of this study.
            UnknownTrial: If there is no such trial.
            TrialAlreadyTold: If it was told before with another outcome.
        """
        number = self._number(trial)
        if isinstance(trial, Trial):
            self._check_own(trial)
        reasons = {TrialState.FAILED: failed, TrialState.PRUNED: pruned}
        for state, reason in reasons.items():
            if reason is None:
                continue
            other = failed is not None and pruned is not None
            if value is not None or constraints is not None or other:
                raise ValueError(
                    f"trial {number}: give a value (and constraints), failed=… or pruned=…, "
                    f"not two of them."
                )
            if not isinstance(reason, str) or not reason:
                raise TypeError(
                    f'trial {number}: {state}= takes the reason, as in {state}="diverged"; '
                    f"got {reason!r}."
                )
            return self._finish(number, state, {"reason": reason})
        return self._finish(number, *self._outcome(value, constraints, number))

    def _outcome(
        self, value: Any, constraints: Mapping[str, float] | None, number: int | None
    ) -> tuple[TrialState, dict[str, Any]]:
        """End state and outcome of a told value, checked; warns of one that counts as failed."""
        told = self.problem.check_values(value, trial_number=number, constraints=constraints)
        if told.failure is not None:
            where = "add_trial" if number is None else f"trial {number}"
            message = f"{where}: {told.failure}; recorded as failed."
            warnings.warn(message, FailedTrialWarning, stacklevel=3)
            return TrialState.FAILED, {"reason": told.failure}
        return TrialState.COMPLETE, {
            "values": told.values,
            "standard_errors": told.standard_errors,
            "constraints": told.constraints,
        }

    def _check_own(self, trial: Trial) -> None:
        """Refuse a trial of another study, or one whose params were changed since."""
        with self._lock:
            if trial.number not in self._ledger.trials:
                self._ledger.sync(revised=True)
            stored = self._ledger.trials.get(trial.number)
        if stored is not None and stored.params != trial.params:
            raise ValueError(
                f"this trial has {trial.params}, but trial {trial.number} of study {self.study!r} "
                f"has {stored.params}: it belongs to another study, or its params were changed. "
                f"Tell by number, tell({trial.number}, …), if that is the one that was run."
            )

    def _finish(self, number: int, state: TrialState, outcome: dict[str, Any]) -> Trial:
        fields = {"values": None, "standard_errors": {}, "constraints": {}, "reason": None}
        with self._lock:
            trial = self.storage.finish(
                self.study, number, state=state, finished=time.time(), **(fields | outcome)
            )
            return self._ledger.remember(trial)

    def add_trial(
        self,
        params: Mapping[str, Any],
        value: Any,
        *,
        constraints: Mapping[str, float] | None = None,
        outside: bool = False,
    ) -> Trial:
        """Record a result that was not asked for: from the literature, a log, an earlier study.

        Args:
            params: A value for every active parameter.
            value: As in `tell`.
            constraints: As in `tell`.
            outside: Accept numbers beyond the bounds of the space: they teach the model, and are
                never proposed.

        Raises:
            TypeError, ValueError: As in `tell` and `enqueue`; nothing is recorded then.
        """
        params = self.space.validate(params, where="add_trial", outside=outside)
        state, outcome = self._outcome(value, constraints, None)
        now = time.time()
        trial = Trial(
            0,
            params,
            state,
            created=now,
            started=now,
            finished=now,
            origin={"phase": "told"},
            **outcome,
        )
        with self._lock:
            return self._ledger.remember(self.storage.add_next(self.study, trial))

    # -------------------------------------------------------------------------- on the way

    def report(self, trial: Trial | int, step: int, value: float) -> None:
        """Say how far a running trial has come; see `Trial.report`."""
        self._reporter.report(self._number(trial), step, value)

    def should_stop(self, trial: Trial | int) -> str | None:
        """Why a running trial should not go on, after the study's `early_stopping`; else None."""
        return self._reporter.should_stop(self._number(trial))

    @property
    def curves(self) -> Mapping[int, Mapping[int, float]]:
        """What trials reported, {trial number: {step: value}}, those of other processes too."""
        return self._reporter.curves()

    def renew(self, trial: Trial) -> bool:
        """Let the lease of a running trial begin anew.

        Returns:
            Whether the trial is still this worker's: False if it has ended, or somebody took it
            over. A result may be told all the same, and counts if it is the first.
        """
        return self.storage.renew(self.study, trial.number, worker=trial.worker)

    def log_retry(self, trial: Trial | int, reason: str) -> None:
        """Write into the log of events that an attempt went wrong and another follows."""
        self.storage.log_retry(self.study, self._number(trial), reason)

    def set_attrs(self, trial: Trial | int, attrs: Mapping[str, Any]) -> Trial:
        """Add notes to a trial, in whichever state; those of the same name are replaced.

        Args:
            trial: The trial, or its number.
            attrs: {name: anything that JSON can hold}.

        Raises:
            TypeError: If they are not JSON.
            UnknownTrial: If there is no such trial.
        """
        if not isinstance(attrs, Mapping):
            raise TypeError(f"set_attrs takes {{name: note}}; got {attrs!r}.")
        with self._lock:
            return self._ledger.remember(
                self.storage.set_attrs(self.study, self._number(trial), attrs)
            )

    def events(self, since: int = 0) -> list[Event]:
        """What was written to the study, oldest first: who did what when. Nothing leaves this log.

        Args:
            since: Only what came after this revision.
        """
        return self.storage.events(self.study, since)

    # ---------------------------------------------------------------------------- looking

    @property
    def trials(self) -> list[Trial]:
        """Every trial of the study by number, those of other processes included."""
        with self._lock:
            self._ledger.sync(revised=True)
            return self._ledger.in_order()

    def trials_dataframe(self) -> pandas.DataFrame:
        """The trials as a pandas DataFrame, a row each, by number; pandas must be installed.

        The columns are those of `bbmmopt export`: number, state, "params.NAME", "values.NAME",
        "standard_errors.NAME", "constraints.NAME", reason, phase, worker, times in UTC, seconds,
        attrs and more. What a trial does not have is missing.

        Raises:
            ImportError: If pandas is not installed.
        """
        from bbmmopt.tables import dataframe

        return dataframe(self.trials, self.problem)

    @property
    def running(self) -> list[Trial]:
        """The trials that are running, by number, those of other processes included."""
        with self._lock:
            self._ledger.sync(revised=True)
            return self._ledger.running()

    @property
    def best(self) -> Trial:
        """The complete, feasible trial with the best observed value.

        Under noise that is partly luck; `recommend` is the model's choice.

        Raises:
            NoCompleteTrial: If there is none.
        """
        trials = self.trials
        best = self.problem.best_of(trials)
        if best is None:
            raise NoCompleteTrial(_none_complete(trials))
        return best

    @property
    def pareto_front(self) -> list[Trial]:
        """The complete, feasible trials of which none is beaten in every objective.

        As observed, in order of the first objective, best first. With one objective it is the best
        trial, and those with the same value.
        """
        return self.problem.pareto_front_of(self.trials)

    def explain(self, trial: Trial | int) -> str:
        """Why this point: which phase, model and acquisition value it came from, in sentences."""
        with self._lock:
            self._ledger.sync(revised=True)
            number = self._number(trial)
            trials = self._ledger.trials
            if number not in trials:
                raise UnknownTrial(f"there is no trial {number}; there are {len(trials)}.")
            problem = problem_of(self.storage, self.study, number, self.problem)
            return explain(trials[number], problem)

    # ------------------------------------------------------------------------------ inside

    def _take_along(
        self, record: StudyRecord, given: WarmStart, former: Mapping[str, Any] | None
    ) -> None:
        """Add the results of another study; see `Optimizer`."""
        source = (given.storage, given.study) if isinstance(given, Study) else given
        trials = self._ledger.in_order()
        take_along(self.storage, record, self.problem, trials, source, former)
        self._ledger.sync()

    def _number(self, trial: Trial | int) -> int:
        number = trial.number if isinstance(trial, Trial) else trial
        if not is_integer(number):
            raise TypeError(f"expected a Trial or its number; got {trial!r}.")
        return int(number)


def _problem(
    space: Space | Mapping[str, Parameter] | Problem,
    minimize: str | Sequence[str] | None,
    maximize: str | Sequence[str] | None,
    noise: Noise | Mapping[str, Noise],
    constraints: Constraints,
    reference_point: Mapping[str, float] | None,
) -> Problem:
    if not isinstance(space, Problem):
        return Problem.make(
            space,
            minimize=minimize,
            maximize=maximize,
            noise=noise,
            constraints=constraints,
            reference_point=reference_point,
        )
    if minimize or maximize or constraints or noise != "unknown" or reference_point:
        raise ValueError(
            "a Problem says itself what is minimised, its constraints, noise and reference point; "
            "pass either the Problem alone or a Space with these arguments."
        )
    return space


def _none_complete(trials: Sequence[Trial]) -> str:
    """Why no trial is the best."""
    reasons = [t.reason for t in trials if t.state == TrialState.FAILED and t.reason]
    if reasons:
        last = reasons[-1].strip().splitlines()[-1]
        return (
            f"no trial is complete and feasible: {len(reasons)} of {len(trials)} failed, the last "
            f"with: {last}"
        )
    return "there is no complete and feasible trial yet, so none is the best: tell a result first."
