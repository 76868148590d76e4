"""Group: the trials of an Optuna study that one model learns from, kept in step with the study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as Theirs

from bbmmopt.integrations.optuna.distributions import Number
from bbmmopt.integrations.optuna.layout import Layout
from bbmmopt.optimizer import Optimizer
from bbmmopt.problem import Constraint, Noise, Objective, Problem
from bbmmopt.trial import Trial, TrialState, from_json

KEY = "bbmmopt"  # of the system attribute in which a trial keeps what Optuna has no place for
FIXED = "fixed_params"  # of that in which Optuna keeps what was enqueued
STATES = {
    Theirs.WAITING: TrialState.WAITING,
    Theirs.RUNNING: TrialState.RUNNING,
    Theirs.COMPLETE: TrialState.COMPLETE,
    Theirs.FAIL: TrialState.FAILED,
    Theirs.PRUNED: TrialState.PRUNED,
}

_CONSTRAINTS = "constraints"  # of the system attributes in which Optuna keeps them


def constraints_of(trial: FrozenTrial) -> dict[str, float]:
    """{name: value} of a trial's constraints, which hold up to 0.

    As `set_constraint` writes them; and, numbered, as the samplers' `constraints_func` has them.
    """
    several = trial.system_attrs.get(_CONSTRAINTS) or ()
    found = {str(i): float(value) for i, value in enumerate(several)}
    for key, value in trial.system_attrs.items():
        kind, colon, name = key.partition(":")
        if kind == _CONSTRAINTS and colon:
            found[name] = float(value)
    return found


def planned(trial: FrozenTrial, layout: Layout) -> dict[str, Any]:
    """What is known of the point of a trial: of one under way, what it was or will be given."""
    if trial.state.is_finished():
        return trial.params
    plan = trial.system_attrs.get(KEY, {}).get("params", {})
    return {**layout.external(plan), **trial.params, **trial.system_attrs.get(FIXED, {})}


@dataclass(frozen=True)
class Task:
    """What a model is asked about.

    Attributes:
        layout: The parameters.
        directions: Of the objectives.
        constraints: Names of what must be at most 0.
        noise: As in `Optimizer`.
    """

    layout: Layout
    directions: tuple[StudyDirection, ...]
    constraints: tuple[str, ...]
    noise: Noise

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal tasks."""
        return self.layout.key, self.directions, self.constraints, self.noise

    @property
    def problem(self) -> Problem:
        """The same in our words."""
        objectives = tuple(
            Objective(
                self._objective(i),
                "maximize" if direction == StudyDirection.MAXIMIZE else "minimize",
                self.noise,
            )
            for i, direction in enumerate(self.directions)
        )
        constraints = tuple(Constraint(self._constraint(name)) for name in self.constraints)
        return Problem(self.layout.space, objectives, constraints)

    def trial(self, frozen: FrozenTrial) -> Trial | None:
        """A trial as the model learns from it; None if it has nothing to say.

        That is one without a value for a parameter that matters, or with an infinite value that
        is better than any: what is worse than any is a failure.
        """
        params = self.layout.point(planned(frozen, self.layout))
        if params is None:
            return None
        state = STATES[frozen.state]
        if state == TrialState.WAITING:
            state = TrialState.RUNNING  # it will be
        origin = from_json(frozen.system_attrs.get(KEY, {}).get("origin", {"phase": "told"}))
        trial = Trial(frozen.number, dict(params), state, origin=origin)
        if state != TrialState.COMPLETE:
            return trial
        values = list(frozen.values)
        if any(map(math.isinf, values)):
            bad = any(
                value == (-math.inf if direction == StudyDirection.MAXIMIZE else math.inf)
                for value, direction in zip(values, self.directions, strict=True)
            )
            return replace(trial, state=TrialState.FAILED) if bad else None
        constraints = constraints_of(frozen)
        return replace(
            trial,
            values={self._objective(i): value for i, value in enumerate(values)},
            constraints={
                self._constraint(name): constraints[name]
                for name in self.constraints
                if math.isfinite(constraints.get(name, math.nan))
            },
        )

    def _objective(self, i: int) -> str:
        return f"value {i}"

    def _constraint(self, name: str) -> str:
        return f"constraint {name}"


class Group:
    """An optimizer in memory that knows the trials of a study.

    Finished trials stay as they are, so only new ones are taken in. Not safe to share between
    threads.

    Args:
        task: What it is asked about.
        settings: Of the optimizer.
    """

    def __init__(self, task: Task, settings: Mapping[str, Any]) -> None:
        self.task = task
        self.optimizer = Optimizer(task.problem, **settings)
        self._ended: set[int] = set()
        self._pending: dict[int, dict[str, Number]] = {}

    def take(self, trials: Sequence[FrozenTrial], number: int) -> bool:
        """Take in what became of the trials since the last call.

        Args:
            trials: All of them.
            number: Of the trial to be suggested, which is left aside.

        Returns:
            False if that cannot be done, as trials were taken back or changed their point: a new
            group is needed then.
        """
        by_number = {trial.number: trial for trial in trials}
        if not self._ended <= by_number.keys() or number in self._pending:
            return False
        later = {k: self.task.trial(by_number[k]) for k in self._pending if k in by_number}
        for k, params in self._pending.items():
            trial = later.get(k)
            if trial is None or trial.params != params:
                return False
        for k, frozen in by_number.items():
            if k != number and k not in self._ended:
                self._learn(frozen, self.task.trial(frozen))
        return True

    def _learn(self, frozen: FrozenTrial, trial: Trial | None) -> None:
        if frozen.state.is_finished():
            self._ended.add(frozen.number)
        if trial is None:
            return
        storage, study = self.optimizer.storage, self.optimizer.study
        if trial.number not in self._pending:
            storage.add(study, trial)
        elif trial.state.finished:
            del self._pending[trial.number]
            storage.finish(
                study,
                trial.number,
                state=trial.state,
                values=trial.values,
                constraints=trial.constraints,
                finished=0.0,
            )
        if not trial.state.finished:
            self._pending[trial.number] = trial.params
        elif len(self.task.directions) == 1:
            for step, value in frozen.intermediate_values.items():
                storage.report(study, trial.number, step, value)

    def suggest(self, number: int, fixed: Mapping[str, Number]) -> Trial:
        """The next point, with some values given.

        Raises:
            SpaceExhausted: If every allowed point was tried.
        """
        return self.optimizer.preview(number=number, fixed=self._allowed(fixed))

    def _allowed(self, fixed: Mapping[str, Number]) -> dict[str, Number]:
        """Of the values given, those that the space has, under conditions that are given too."""
        space, found = self.optimizer.space, {}
        for name in space.names:
            needs = space.parameters[name].when or {}
            if name not in fixed or any(
                fixed.get(parent) not in values for parent, values in needs.items()
            ):
                continue
            try:
                found[name] = space.parameters[name].check(fixed[name])
            except (ValueError, TypeError):
                continue
        return found
