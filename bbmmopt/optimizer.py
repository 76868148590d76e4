"""Optimizer: ask, tell, best, trials. Where all parts meet, and the one mutable class."""

from __future__ import annotations

import secrets
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, overload

import numpy as np

from bbmmopt.explain import explain
from bbmmopt.modelling import Belief, Data
from bbmmopt.problem import Noise, Problem
from bbmmopt.space import Parameter, Space
from bbmmopt.storage import NumberTaken, Storage, StudyRecord, UnknownStudy, open_storage
from bbmmopt.strategies import (
    ACQUISITIONS,
    Acquisition,
    Global,
    Request,
    SpaceExhausted,
    SpaceFilling,
    make_acquisition,
)
from bbmmopt.trial import Trial, TrialState, UnknownTrial

__all__ = [
    "FailedTrialWarning",
    "NoCompleteTrial",
    "Optimizer",
    "Recommendation",
    "SpaceExhausted",
    "StudyDiffers",
]

_VERSION = "1"  # of the way suggestions follow from seed and data; stored with each study


class StudyDiffers(ValueError):
    """The stored study has another problem, seed or setting than the one opened now."""


class NoCompleteTrial(ValueError):
    """Something was asked that needs at least one complete trial."""


class FailedTrialWarning(UserWarning):
    """A told value cannot be used, and the trial was recorded as failed."""


@dataclass(frozen=True)
class Recommendation:
    """The point the model believes to be best, tried or not.

    Attributes:
        params: The point, in user units.
        arguments: The same, labelled choices replaced by their objects.
        mean: Expected value of the objective there, in user units and the user's sign.
        std: Standard deviation of that belief, noise of a measurement not included.
    """

    params: dict[str, Any]
    arguments: dict[str, Any]
    mean: float
    std: float


class Optimizer:
    """Suggests what to try next and learns from what came out.

        optimizer = Optimizer(space, minimize="error", storage="study.db", seed=0)
        trial = optimizer.ask()
        optimizer.tell(trial, error(**trial.params))

    A suggestion is a function of the seed, the trial's number and what has been told: a run that
    was killed and opened again goes on as it would have. (A trial that was under way then stays
    so until it is told, taken over, or its worker asks again under the same name: see `ask`.)
    Safe to use from several threads, and from several processes on one storage.

    Args:
        space: A Space, {name: parameter}, or a whole Problem.
        minimize: Name of the objective that should be small (or names, of several).
        maximize: Name of the objective that should be large.
        noise: "none" for an exact, repeatable objective; "unknown" learns the noise and never
            proposes a point twice; "noisy" learns it and may repeat points.
        constraints: Names of numbers told along that must be at most 0.
        storage: None keeps trials in memory; "study.db" in a file, which is opened again if it is
            there; or a Storage.
        study: Name of the study within the storage.
        seed: Any integer. Left out, a new study draws one and an old one keeps its own.
        n_start: How many trials are spread over the space before the model takes over. Left out,
            twice the number of parameters, at least 5 and at most a fifth of the budget, or 20.
        budget: How many trials are planned, if known.
        acquisition: What the model maximises: "log_ei" (log expected improvement), "log_pi", "ucb"
            or "mean".

    Raises:
        ValueError: If the problem makes no sense.
        StudyDiffers: If the storage holds this study with another problem, seed or setting.
        StorageError: If the storage cannot be opened.
    """

    def __init__(
        self,
        space: Space | Mapping[str, Parameter] | Problem,
        *,
        minimize: str | Sequence[str] | None = None,
        maximize: str | Sequence[str] | None = None,
        noise: Noise | Mapping[str, Noise] = "unknown",
        constraints: str | Sequence[str] = (),
        storage: str | PathLike[str] | Storage | None = None,
        study: str = "default",
        seed: int | None = None,
        n_start: int | None = None,
        budget: int | None = None,
        acquisition: str | None = None,
    ) -> None:
        self.problem = _problem(space, minimize, maximize, noise, constraints)
        self.study = study
        wanted = {"n_start": _checked_start(n_start), "acquisition": _checked_name(acquisition)}
        defaults = {"n_start": _default_start(self.space, budget), "acquisition": "log_ei"}
        seed = _checked_seed(seed)
        self.storage = open_storage(storage)
        record = self.storage.create_study(
            StudyRecord(
                name=study,
                problem=self.problem.to_json(),
                seed=secrets.randbits(48) if seed is None else seed,
                settings={k: defaults[k] if v is None else v for k, v in wanted.items()},
                created=time.time(),
                version=_VERSION,
            )
        )
        try:
            _check_same(record, self.problem, seed, wanted)
        except StudyDiffers:
            if self.storage is not storage:
                self.storage.close()
            raise
        self.seed = record.seed
        self._strategy = Global(
            self.space, record.settings["n_start"], record.settings["acquisition"]
        )
        self._lock = threading.RLock()
        self._trials: dict[int, Trial] = {}
        self._rows: dict[int, np.ndarray] = {}
        self._revision = 0
        self._handed_out: set[int] = set()
        self._sync()

    @classmethod
    def open(cls, storage: str | PathLike[str] | Storage, study: str = "default") -> Optimizer:
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
        if "://" not in path and not Path(path).expanduser().is_file():
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
        return f"Optimizer({objectives}; {len(self._trials)} trials, study {self.study!r})"

    def __enter__(self) -> Optimizer:
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

    # ------------------------------------------------------------------------------ asking

    @overload
    def ask(
        self, n: None = None, *, fixed: Mapping[str, Any] | None = None, worker: str | None = None
    ) -> Trial: ...

    @overload
    def ask(
        self, n: int, *, fixed: Mapping[str, Any] | None = None, worker: str | None = None
    ) -> list[Trial]: ...

    def ask(
        self,
        n: int | None = None,
        *,
        fixed: Mapping[str, Any] | None = None,
        worker: str | None = None,
    ) -> Trial | list[Trial]:
        """Say what to try next. The trial is running from now on, and stored.

        Trials that are running already are taken into account, so that asking again gives another
        point. Enqueued trials come first.

        Args:
            n: How many trials; a list comes back then. Left out, one trial.
            fixed: Values some parameters must have this time, {name: value}: a machine that is
                set up, a batch that shares a temperature. Enqueued trials are left alone then.
            worker: Who will run it. A worker that asks under a name it used in an earlier process
                first gets the trials back that it never told.

        Raises:
            SpaceExhausted: If every point of a finite space was tried.
            ValueError: If `fixed` names unknown parameters or values that are not allowed.
        """
        if n is None:
            return self._ask_one(fixed, worker)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n must be a positive integer, the number of trials; got {n!r}.")
        return [self._ask_one(fixed, worker) for _ in range(n)]

    def _ask_one(self, fixed: Mapping[str, Any] | None, worker: str | None) -> Trial:
        columns = self._columns(fixed, where="ask(fixed=…)")
        with self._lock:
            while True:
                self._sync()
                if not fixed:
                    trial = self._left_behind(worker) or self.storage.claim(
                        self.study, worker=worker, now=time.time()
                    )
                    if trial is not None:
                        return self._hand_out(trial)
                number = max(self._trials, default=-1) + 1
                params, origin = self._suggest(number, columns)
                now = time.time()
                trial = Trial(
                    number,
                    params,
                    TrialState.RUNNING,
                    created=now,
                    started=now,
                    origin=origin,
                    worker=worker,
                )
                try:
                    return self._hand_out(self.storage.add(self.study, trial))
                except NumberTaken:
                    # Another process was first. Its trial is pending now: suggest again with that
                    # known, under the next number.
                    continue

    def preview(
        self, *, fixed: Mapping[str, Any] | None = None, acquisition: str | None = None
    ) -> Trial:
        """The trial that `ask` would suggest now, without making it: nothing is stored.

        Only what `ask` would come up with by itself: enqueued trials, which it hands out first,
        are not looked at.

        Args:
            fixed: As in `ask`.
            acquisition: What the model maximises instead of the study's own acquisition function.

        Raises:
            SpaceExhausted, ValueError: As in `ask`.
        """
        columns = self._columns(fixed, where="preview(fixed=…)")
        name = _checked_name(acquisition)
        with self._lock:
            self._sync()
            number = max(self._trials, default=-1) + 1
            params, origin = self._suggest(number, columns, name)
        return Trial(
            number,
            params,
            TrialState.WAITING,
            origin=origin,
            arguments=self.space.arguments(params),
        )

    def _columns(self, fixed: Mapping[str, Any] | None, *, where: str) -> dict[int, float]:
        """Parameters given by name as columns of the unit cube."""
        checked = self.space.validate_partial(fixed or {}, where=where)
        for name in checked:
            for parent in self.space.parameters[name].when or {}:
                if parent not in checked:
                    raise ValueError(
                        f"{where}: {name!r} is only there for some values of {parent!r}: fix "
                        f"{parent!r} to one of them too."
                    )
        return {
            self.space.names.index(name): self.space.parameters[name].to_unit(value)
            for name, value in checked.items()
        }

    def _suggest(
        self, number: int, fixed: Mapping[int, float], acquisition: str | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A point for the trial of this number, and how it came about."""
        strategy = self._strategy
        if acquisition is not None and acquisition != strategy.acquisition:
            strategy = replace(strategy, acquisition=acquisition)  # with a model of its own
        request = self._request(number, fixed)
        if len(self.problem.objectives) > 1 or self.problem.constraints:
            # Stored, but not modelled yet.
            proposal = SpaceFilling(self.space).propose(request)
            proposal.origin["because"] = "several objectives or constraints are not modelled yet"
        else:
            proposal = strategy.propose(request)
        return self.space.decode(proposal.x), proposal.origin

    def _left_behind(self, worker: str | None) -> Trial | None:
        """A running trial of this worker that another process was given, now its again."""
        if worker is None:
            return None
        for number, trial in sorted(self._trials.items()):
            if (
                trial.state == TrialState.RUNNING
                and trial.worker == worker
                and number not in self._handed_out
            ):
                return trial
        return None

    def _hand_out(self, trial: Trial) -> Trial:
        self._remember(trial)
        self._handed_out.add(trial.number)
        return self._trials[trial.number]

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
            return self._remember(self.storage.add_next(self.study, trial))

    def take_over(self, trial: Trial, *, worker: str | None = None) -> Trial | None:
        """Run a trial again whose worker is known to be gone: it is handed out to you now.

        Args:
            trial: A running trial, as `trials` showed it.
            worker: Who will run it from now on.

        Returns:
            The trial; None if it has ended, or somebody else took it over first.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        with self._lock:
            taken = self.storage.reclaim(
                self.study,
                trial.number,
                worker=worker,
                previous_worker=trial.worker,
                now=time.time(),
            )
            return None if taken is None else self._hand_out(taken)

    # ----------------------------------------------------------------------------- telling

    def tell(
        self,
        trial: Trial | int,
        value: Any = None,
        *,
        failed: str | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> Trial:
        """Record what came out. When this returns, the result is stored.

        Everything is checked before anything changes: after an error the trial is still running
        and can be told again.

        Args:
            trial: The trial, or its number.
            value: A number; (mean, standard error); or {objective: either} when there are several.
                NaN, or an infinity on the bad side, records the trial as failed and warns.
            failed: Why there is no value, instead of one.
            constraints: {constraint: value} if the problem has any and `value` does not say.

        Returns:
            The trial as it is now.

        Raises:
            TypeError: If the value is not a number.
            ValueError: If names are missing or unknown, or an infinity is on the good side.
            UnknownTrial: If there is no such trial.
            TrialAlreadyTold: If it was told before with another outcome.
        """
        number = self._number(trial)
        if failed is not None:
            if value is not None:
                raise ValueError(f"trial {number}: give a value or failed=…, not both.")
            if not isinstance(failed, str) or not failed:
                raise TypeError(
                    f'trial {number}: failed= takes the reason, as in failed="diverged"; '
                    f"got {failed!r}."
                )
            return self._finish(number, TrialState.FAILED, reason=failed)
        outcome = self.problem.check_values(value, trial_number=number, constraints=constraints)
        if outcome.failure is not None:
            warnings.warn(
                f"trial {number}: {outcome.failure}; recorded as failed.",
                FailedTrialWarning,
                stacklevel=2,
            )
            return self._finish(number, TrialState.FAILED, reason=outcome.failure)
        return self._finish(
            number,
            TrialState.COMPLETE,
            values=outcome.values,
            standard_errors=outcome.standard_errors,
            constraints=outcome.constraints,
        )

    def _finish(self, number: int, state: TrialState, **outcome: Any) -> Trial:
        fields = {"values": None, "standard_errors": {}, "constraints": {}, "reason": None}
        with self._lock:
            trial = self.storage.finish(
                self.study, number, state=state, finished=time.time(), **(fields | outcome)
            )
            return self._remember(trial)

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
        outcome = self.problem.check_values(value, constraints=constraints)
        now = time.time()
        trial = Trial(
            0,
            params,
            TrialState.COMPLETE if outcome.failure is None else TrialState.FAILED,
            values=outcome.values or None,
            standard_errors=outcome.standard_errors,
            constraints=outcome.constraints,
            reason=outcome.failure,
            created=now,
            started=now,
            finished=now,
            origin={"phase": "told"},
        )
        if outcome.failure is not None:
            warnings.warn(
                f"add_trial: {outcome.failure}; recorded as failed.",
                FailedTrialWarning,
                stacklevel=2,
            )
        with self._lock:
            return self._remember(self.storage.add_next(self.study, trial))

    # ---------------------------------------------------------------------------- looking

    @property
    def trials(self) -> list[Trial]:
        """Every trial of the study by number, those of other processes included."""
        with self._lock:
            self._sync()
            return [self._trials[number] for number in sorted(self._trials)]

    @property
    def best(self) -> Trial:
        """The complete, feasible trial with the best observed value.

        Under noise that is partly luck; `recommend` is the model's choice.

        Raises:
            NoCompleteTrial: If there is none.
        """
        best = self.problem.best_of(self.trials)
        if best is None:
            raise NoCompleteTrial(
                "there is no complete trial yet, so none is the best: tell a result first."
            )
        return best

    def recommend(self) -> Recommendation:
        """The point where the model expects the best value: what to use in the end.

        The maximum of the posterior mean over the whole space, tried or not.

        Raises:
            NoCompleteTrial: If nothing was told yet.
            ValueError: If there are several objectives or constraints.
        """
        with self._lock:
            belief = self.belief()
            if self.problem.constraints:
                raise ValueError(
                    "constraints are not modelled yet, and the point of best expected value may "
                    "break them; `best` is the best trial that does not."
                )
            if not len(belief.data.y):
                raise NoCompleteTrial(
                    "there is no complete trial yet to base a recommendation on: tell one first."
                )
            request = replace(self._request(len(self._trials), {}), seen=frozenset())
            found = self._strategy.find("mean", belief, request)
            mean, std = belief.predict(found.x[None])
        params = self.space.decode(found.x)
        return Recommendation(
            params,
            self.space.arguments(params),
            self.problem.from_model([float(mean[0])])[self.problem.names[0]],
            float(std[0]),
        )

    def explain(self, trial: Trial | int) -> str:
        """Why this point: which phase, model and acquisition value it came from, in sentences."""
        with self._lock:
            self._sync()
            number = self._number(trial)
            if number not in self._trials:
                raise UnknownTrial(f"there is no trial {number}; there are {len(self._trials)}.")
            return explain(self._trials[number], self.problem)

    def belief(self) -> Belief:
        """The fitted model after all trials so far: what plots and benchmarks look at.

        Raises:
            ValueError: If the problem has several objectives.
        """
        if len(self.problem.objectives) > 1:
            raise ValueError(
                f"several objectives ({', '.join(self.problem.names)}) are not modelled yet."
            )
        with self._lock:
            self._sync()
            return self._strategy.modeller.belief(self._data())

    def acquisition(self, name: str | None = None) -> Acquisition:
        """The acquisition function after all trials so far, over rows of the unit cube.

        Args:
            name: "log_ei", "log_pi", "ucb" or "mean"; the study's own if left out.

        Raises:
            NoCompleteTrial: If nothing was told yet.
        """
        belief = self.belief()
        if not len(belief.data.y):
            raise NoCompleteTrial("there is no complete trial yet to build on: tell one first.")
        return make_acquisition(name or self._strategy.acquisition, belief)

    # ------------------------------------------------------------------------------ inside

    def _number(self, trial: Trial | int) -> int:
        number = trial.number if isinstance(trial, Trial) else trial
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise TypeError(f"expected a Trial or its number; got {trial!r}.")
        return int(number)

    def _sync(self) -> None:
        """Take in what changed in the storage, by this process or another."""
        changed, self._revision = self.storage.changes(self.study, self._revision)
        for trial in changed:
            self._remember(trial)

    def _remember(self, trial: Trial) -> Trial:
        if trial.number not in self._rows:
            self._rows[trial.number] = self.space.encode(trial.params)
        trial = replace(trial, arguments=self.space.arguments(trial.params))
        self._trials[trial.number] = trial
        return trial

    def _request(self, number: int, fixed: Mapping[int, float]) -> Request:
        noisy = any(o.noise == "noisy" for o in self.problem.objectives)
        seen = frozenset(
            self._rows[k].tobytes()
            for k, trial in self._trials.items()
            if not noisy or trial.state == TrialState.FAILED
        )
        return Request(self._data(), number, self.seed, fixed, seen)

    def _data(self) -> Data:
        """What is known of the first objective, in order of trial number; larger is better."""
        name, numbers = self.problem.names[0], sorted(self._trials)
        by_state: dict[TrialState, list[int]] = {state: [] for state in TrialState}
        for k in numbers:
            by_state[self._trials[k].state].append(k)
        complete = [self._trials[k] for k in by_state[TrialState.COMPLETE]]
        errors = [t.standard_errors.get(name) for t in complete]
        return Data(
            X=self._stack(by_state[TrialState.COMPLETE]),
            y=np.array([self.problem.to_model(t.values or {})[0] for t in complete], dtype=float),
            errors=np.array([np.nan if e is None else e for e in errors], dtype=float),
            pending=self._stack(by_state[TrialState.RUNNING] + by_state[TrialState.WAITING]),
            failed=self._stack(by_state[TrialState.FAILED]),
            exact=self.problem.objectives[0].noise == "none",
        )

    def _stack(self, numbers: list[int]) -> np.ndarray:
        if not numbers:
            return np.empty((0, len(self.space)))
        return np.stack([self._rows[k] for k in numbers])


def _problem(
    space: Space | Mapping[str, Parameter] | Problem,
    minimize: str | Sequence[str] | None,
    maximize: str | Sequence[str] | None,
    noise: Noise | Mapping[str, Noise],
    constraints: str | Sequence[str],
) -> Problem:
    if not isinstance(space, Problem):
        return Problem.make(
            space, minimize=minimize, maximize=maximize, noise=noise, constraints=constraints
        )
    if minimize or maximize or constraints or noise != "unknown":
        raise ValueError(
            "a Problem says itself what is minimised, its constraints and its noise; "
            "pass either the Problem alone or a Space with these arguments."
        )
    return space


def _default_start(space: Space, budget: int | None) -> int:
    free = sum(column.kind != "fixed" for column in space.columns)
    return min(max(5, 2 * free), max(5, budget // 5) if budget else 20)


def _checked_start(n_start: int | None) -> int | None:
    if n_start is not None and (isinstance(n_start, bool) or not isinstance(n_start, int)):
        raise TypeError(f"n_start must be an integer; got {n_start!r}.")
    if n_start is not None and n_start < 1:
        raise ValueError(f"n_start must be at least 1: a model needs data; got {n_start}.")
    return n_start


def _checked_seed(seed: int | None) -> int | None:
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer)):
        raise TypeError(f"seed must be an integer or None; got {seed!r}.")
    return None if seed is None else int(seed)


def _checked_name(acquisition: str | None) -> str | None:
    if acquisition is not None and acquisition not in ACQUISITIONS:
        raise ValueError(
            f"acquisition must be one of {', '.join(ACQUISITIONS)}; got {acquisition!r}."
        )
    return acquisition


def _check_same(
    record: StudyRecord, problem: Problem, seed: int | None, wanted: Mapping[str, Any]
) -> None:
    """Refuse to go on with a study that was another one."""
    differences = Problem.from_json(record.problem).difference(problem)
    if seed is not None and seed != record.seed:
        differences.append(f"seed: was {record.seed} and is now {seed}.")
    for name, value in wanted.items():
        if value is not None and value != record.settings[name]:
            differences.append(f"{name}: was {record.settings[name]!r} and is now {value!r}.")
    if differences:
        raise StudyDiffers(
            f"the storage holds study {record.name!r} with another description:\n  "
            + "\n  ".join(differences)
            + "\nOpen it as it was, or give the new one a name of its own with study=…."
        )
