"""StoredStudy: opening a study, and looking at it.

Imports no torch, so that telling and listing do not wait for it.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from bbmmopt.early_stopping import StoppingRule
from bbmmopt.explain import explain
from bbmmopt.former import Former
from bbmmopt.prior import Prior
from bbmmopt.problem import Constraints, Noise, Problem
from bbmmopt.space import Parameter, Space
from bbmmopt.space.checks import is_integer
from bbmmopt.storage import Event, Storage, StudyRecord, UnknownStudy, open_storage
from bbmmopt.study.extension import check_mode, extend, problem_of
from bbmmopt.study.ledger import Ledger
from bbmmopt.study.reporting import StudyReporter
from bbmmopt.study.settings import (
    FORMERLY,
    VERSION,
    Given,
    check_same,
    checked_seed,
    with_defaults,
)
from bbmmopt.study.stops import Stops
from bbmmopt.study.tally import Tally
from bbmmopt.study.warm_start import WarmStart, take_along
from bbmmopt.trial import Trial, TrialState, UnknownTrial

if TYPE_CHECKING:
    import pandas
    import torch


class NoCompleteTrial(ValueError):
    """Something was asked that needs at least one complete trial."""


class StoredStudy:
    """A study to look at: its problem and settings, its trials, what they reported, the best.

    `Study` adds what changes it; the arguments are the same, and `Optimizer` says what they are.

    Attributes:
        device: Where an `Optimizer` computes. Nothing is computed here.
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
        device: str | torch.device = "cpu",
    ) -> None:
        self.device: Any = self._usable(device)
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
        self._stops = Stops(self.storage, study)
        # Trials are read when somebody looks or asks: to tell one of 100,000 needs none of them.
        self._ledger = Ledger(self.storage, study, self._former, record.generation, self._reporter)
        if warm_start is not None:
            self._take_along(record, warm_start, former)

    @classmethod
    def open(
        cls,
        storage: str | PathLike[str] | Storage,
        study: str = "default",
        *,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Open a stored study by its name alone: the storage knows its space and settings.

        Choices that stand for objects are handed out as their labels: objects are not stored.

        Args:
            storage: As in `Optimizer`, but it must be there already.
            study: Name of the study within the storage.
            device: As in `Optimizer`.

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
        device = cls._usable(device)
        store = open_storage(storage)
        record = store.study(study)
        if record is None:
            known = ", ".join(map(repr, store.studies())) or "none"
            if store is not storage:
                store.close()
            raise UnknownStudy(f"there is no study {study!r} in the storage; there are: {known}.")
        return cls(Problem.from_json(record.problem), storage=store, study=study, device=device)

    def __repr__(self) -> str:
        objectives = ", ".join(f"{o.direction} {o.name}" for o in self.problem.objectives)
        count = len(self.trials)
        return f"{type(self).__name__}({objectives}; {count} trials, study {self.study!r})"

    def _repr_html_(self) -> str:
        from bbmmopt.study.html import study_html

        return study_html(self)

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
        from bbmmopt.study.tables import dataframe

        return dataframe(self.trials, self.problem)

    @property
    def running(self) -> list[Trial]:
        """The trials that are running, by number, those of other processes included."""
        with self._lock:
            self._ledger.sync(revised=True)
            return self._ledger.running()

    @property
    def tally(self) -> Tally:
        """How far the study has come, trials of other processes included, without a list of all."""
        with self._lock:
            self._ledger.sync(revised=True)
            return self._ledger.tally(self.problem)

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

    @property
    def curves(self) -> Mapping[int, Mapping[int, float]]:
        """What trials reported, {trial number: {step: value}}, those of other processes too."""
        return self._reporter.curves()

    @property
    def stop_reason(self) -> str | None:
        """Why to start nothing more: what `stop` was given since this study was opened, here or in
        another process; None while nobody wants it stopped. `minimize` and `run` look by
        themselves, a loop of your own may: `while optimizer.stop_reason is None`."""
        with self._lock:
            return self._stops.reason()

    def events(self, since: int = 0) -> list[Event]:
        """What was written to the study, oldest first: who did what when. Nothing leaves this log.

        Args:
            since: Only what came after this revision.

        Raises:
            TypeError: If it is no integer.
        """
        if not is_integer(since):
            raise TypeError(f"since must be an integer, a revision; got {since!r}.")
        return self.storage.events(self.study, since)

    # ------------------------------------------------------------------------------ inside

    @classmethod
    def _usable(cls, device: str | torch.device) -> str | torch.device:
        """The device that was asked for, if it can be used."""
        return device

    def _take_along(
        self, record: StudyRecord, given: WarmStart, former: Mapping[str, Any] | None
    ) -> None:
        """Add the results of another study; see `Optimizer`."""
        source = (given.storage, given.study) if isinstance(given, StoredStudy) else given
        take_along(self.storage, record, self.problem, self.trials, source, former)

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
