"""Study: a problem, its trials and what was told of them; everything but suggesting.

Imports no torch, so that telling and listing do not wait for it.
"""

from __future__ import annotations

import secrets
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from bbmmopt.explain import ACQUISITIONS, STRATEGIES, explain
from bbmmopt.perturbation import checked_perturbation, checked_risk
from bbmmopt.prior import Prior, prior_to_json
from bbmmopt.problem import Constraints, Noise, Problem
from bbmmopt.space import Parameter, Space
from bbmmopt.storage import Storage, StudyRecord, UnknownStudy, open_storage
from bbmmopt.trial import Trial, TrialState, UnknownTrial

# What studies stored before a setting was there were run with.
_FORMERLY: dict[str, Any] = {"strategy": "global", "budget": None, "batches": "greedy"}

# Settings that are stored only where they were given.
_GUIDES = ("prior", "cost", "perturbation", "risk")
# What nothing can be multiplied to: neither a prior nor what a trial costs.
_NOT_IN_LOGS = ("ucb", "mean", "thompson")
# What each strategy for one objective cannot take into account besides.
_UNGUIDED = {"trust_region": ("perturbation", "risk"), "portfolio": _GUIDES}
# What a batch can be scored by as a whole.
_TOGETHER = ("auto", "log_ei", "noisy_log_ei")

_VERSION = "2"  # of the way suggestions follow from seed and data; stored with each study


class StudyDiffers(ValueError):
    """The stored study has another problem, seed or setting than the one opened now."""


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
    ) -> None:
        self.problem = _problem(space, minimize, maximize, noise, constraints, reference_point)
        self.study = study
        wanted = {
            "n_start": _checked_count("n_start", n_start, "how many trials to spread"),
            "acquisition": checked_name(acquisition),
            "strategy": _checked_strategy(strategy, self.problem),
            "batches": _checked_batches(batches, self.problem),
            **_checked_guides(self.problem, prior, cost, perturbation, risk),
        }
        budget = _checked_count("budget", budget, "how many trials are planned")
        defaults = {
            "n_start": _default_start(self.space, budget),
            "acquisition": "auto",
            "strategy": "auto",
            "batches": "greedy",
        }
        settings = {k: defaults.get(k) if v is None else v for k, v in wanted.items()}
        settings = {k: v for k, v in settings.items() if k not in _GUIDES or v is not None}
        _check_together(settings)
        seed = _checked_seed(seed)
        self.storage = open_storage(storage)
        record = self.storage.create_study(
            StudyRecord(
                name=study,
                problem=self.problem.to_json(),
                seed=secrets.randbits(48) if seed is None else seed,
                settings=settings | {"budget": budget},  # of its first run; later ones may go on
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
        self.settings = _FORMERLY | record.settings
        self._lock = threading.RLock()
        self._trials: dict[int, Trial] = {}
        self._rows: dict[int, np.ndarray] = {}
        self._revision = 0
        self._handed_out: set[int] = set()
        self._sync()

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
        return (
            f"{type(self).__name__}({objectives}; {len(self._trials)} trials, study {self.study!r})"
        )

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
        if not isinstance(trial, Trial):
            raise TypeError(f"take_over needs a Trial, as optimizer.trials shows; got {trial!r}.")
        with self._lock:
            taken = self.storage.reclaim(
                self.study,
                trial.number,
                worker=worker,
                previous_worker=trial.worker,
                now=time.time(),
            )
            return None if taken is None else self._hand_out(taken)

    def _hand_out(self, trial: Trial) -> Trial:
        """Remember that this process runs the trial; a copy, whose dicts its user may change."""
        trial = self._remember(trial)
        self._handed_out.add(trial.number)
        return replace(trial, params=dict(trial.params), arguments=dict(trial.arguments))

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
            failed: Why there is no value, instead of one (nor constraints).
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
        if failed is not None:
            if value is not None or constraints is not None:
                raise ValueError(
                    f"trial {number}: give a value (and constraints) or failed=…, not both."
                )
            if not isinstance(failed, str) or not failed:
                raise TypeError(
                    f'trial {number}: failed= takes the reason, as in failed="diverged"; '
                    f"got {failed!r}."
                )
            return self._finish(number, TrialState.FAILED, {"reason": failed})
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
            if trial.number not in self._trials:
                self._sync()
            stored = self._trials.get(trial.number)
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
            self._sync()
            number = self._number(trial)
            if number not in self._trials:
                raise UnknownTrial(f"there is no trial {number}; there are {len(self._trials)}.")
            return explain(self._trials[number], self.problem)

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


def _default_start(space: Space, budget: int | None) -> int:
    free = sum(column.kind != "fixed" for column in space.columns)
    return min(max(5, 2 * free), max(5, budget // 5) if budget else 20)


def _checked_count(name: str, count: int | None, meaning: str) -> int | None:
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise TypeError(f"{name} must be an integer, {meaning}; got {count!r}.")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, {meaning}; got {count}.")
    return int(count)


def _checked_seed(seed: int | None) -> int | None:
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer)):
        raise TypeError(f"seed must be an integer or None; got {seed!r}.")
    return None if seed is None else int(seed)


def checked_name(acquisition: str | None) -> str | None:
    """The name of an acquisition function, or None; ValueError if there is none of that name."""
    if acquisition is not None and acquisition not in list(ACQUISITIONS):
        raise ValueError(
            f"acquisition must be one of {', '.join(ACQUISITIONS)}; got {acquisition!r}."
        )
    return acquisition


def _checked_strategy(strategy: str | None, problem: Problem) -> str | None:
    if strategy is not None and strategy not in list(STRATEGIES):
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}; got {strategy!r}.")
    if strategy in _UNGUIDED and len(problem.objectives) > 1:
        raise ValueError(
            f'strategy "{strategy}" is for one objective, and there are '
            f'{len(problem.objectives)}; take "global", or "auto".'
        )
    if strategy == "portfolio" and problem.constraints:
        raise ValueError(
            'strategy "portfolio" is for one objective and no constraints on outcomes; take '
            '"global", or "auto".'
        )
    return strategy


def _checked_batches(batches: str | None, problem: Problem) -> str | None:
    if batches not in (None, "greedy", "joint"):
        raise ValueError(f'batches must be "greedy" or "joint"; got {batches!r}.')
    if batches == "joint" and (len(problem.objectives) > 1 or problem.constraints):
        raise ValueError(
            'batches "joint" are for one objective and no constraints on outcomes; take "greedy".'
        )
    return batches


def _checked_guides(
    problem: Problem, prior: Any, cost: Any, perturbation: Any, risk: Any
) -> dict[str, Any]:
    """What guides the search, in JSON types; None for what was not given."""
    if cost is not None and cost != "seconds":
        raise ValueError(
            f'cost must be "seconds", the time that trials take, or None; got {cost!r}.'
        )
    return {
        "prior": None if prior is None else prior_to_json(prior, problem.space),
        "cost": cost,
        "perturbation": (
            None if perturbation is None else checked_perturbation(perturbation, problem)
        ),
        "risk": None if risk is None else checked_risk(risk),
    }


def _check_together(settings: Mapping[str, Any]) -> None:
    """Refuse settings of a study that do not go together."""
    given = [name for name in _GUIDES if settings.get(name) is not None]
    acquisition, strategy = settings["acquisition"], settings["strategy"]
    if settings["batches"] == "joint":
        if acquisition not in _TOGETHER or settings.get("perturbation"):
            raise ValueError(
                f'batches "joint" are for expected improvement: acquisition "log_ei", '
                f'"noisy_log_ei" or "auto", without perturbation; got {acquisition!r}'
                f'{" and a perturbation" if settings.get("perturbation") else ""}. Take "greedy".'
            )
        if strategy in ("trust_region", "portfolio"):
            raise ValueError(
                f'batches "joint" are looked for in the whole space: strategy "{strategy}" is not '
                f'made for them; take "global", or "auto".'
            )
    if strategy == "portfolio" and acquisition != "auto":
        raise ValueError(
            f'strategy "portfolio" has acquisition functions of its own, and acquisition '
            f'{acquisition!r} is maximised alone: take strategy "global" for it, or leave it out.'
        )
    if not given:
        return
    if settings.get("risk") is not None and settings.get("perturbation") is None:
        raise ValueError("risk says how perturbations count: give perturbation={name: std} too.")
    if settings.get("perturbation") and acquisition not in ("auto", "robust"):
        raise ValueError(
            f'perturbation goes with acquisition "robust", which "auto" is then; '
            f"got {acquisition!r}."
        )
    if acquisition in _NOT_IN_LOGS:
        raise ValueError(
            f"acquisition {acquisition!r} cannot take {' and '.join(given)} into account; take "
            f'"log_ei", or "auto".'
        )
    unknown = [name for name in given if name in _UNGUIDED.get(strategy, ())]
    if unknown:
        raise ValueError(
            f'strategy "{strategy}" cannot take {" and ".join(unknown)} into account; take '
            f'"global", or "auto".'
        )


def _check_same(
    record: StudyRecord, problem: Problem, seed: int | None, wanted: Mapping[str, Any]
) -> None:
    """Refuse to go on with a study that was another one."""
    differences = Problem.from_json(record.problem).difference(problem)
    if seed is not None and seed != record.seed:
        differences.append(f"seed: was {record.seed} and is now {seed}.")
    for name, value in wanted.items():
        before = (_FORMERLY | record.settings).get(name)
        if value is not None and value != before:
            differences.append(f"{name}: was {before!r} and is now {value!r}.")
    if differences:
        raise StudyDiffers(
            f"the storage holds study {record.name!r} with another description:\n  "
            + "\n  ".join(differences)
            + "\nOpen it as it was, or give the new one a name of its own with study=…."
        )
