"""to_optuna: one of our studies as a study of Optuna."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from os import PathLike, fspath
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from bbmmopt.integrations.optuna.group import FIXED, KEY, STATES
from bbmmopt.problem import Problem
from bbmmopt.space import Categorical, Integer, Ordinal, Parameter, Real
from bbmmopt.space.checks import shown
from bbmmopt.storage.places import existing_study, split_place
from bbmmopt.study import StoredStudy, Study
from bbmmopt.trial import Trial, TrialState, to_json

# Times too, as Optuna rounds them to microseconds.
_KEPT = (
    "standard_errors",
    "constraints",
    "reason",
    "created",
    "started",
    "finished",
    "origin",
    "worker",
)
_THEIRS = {ours: theirs for theirs, ours in STATES.items()}


def to_optuna(
    study: StoredStudy | str | PathLike[str],
    *,
    storage: str | BaseStorage | None = None,
    study_name: str | None = None,
) -> optuna.Study:
    """One of our studies as a study of Optuna: for its dashboard, its plots, its samplers.

    The trials keep their numbers, states, values, intermediate values, times and notes, which are
    user attributes there. Constraints become what must be at most 0. An `Ordinal` of numbers at
    even distances is a float with a step, any other a categorical without order. What Optuna has
    no place for (conditions, constraints on parameters, standard errors, why a trial failed, how it
    came about) is kept in system attributes, from which `from_optuna` takes it back.

    Args:
        study: An Optimizer, a Study, "study.db" or "study.db#name".
        storage: As in `optuna.create_study`.
        study_name: Likewise; the study's own if left out.

    Returns:
        The study, without a sampler of ours: set `study.sampler = BBMMSampler()` to go on.

    Raises:
        TypeError: If it is no study.
        UnknownStudy: If there is no such file or study.
        optuna.exceptions.DuplicatedStudyError: If the storage has a study of that name.
    """
    with _opened(study) as source:
        problem, trials, curves = source.problem, source.trials, source.curves
        name = source.study if study_name is None else study_name
    seen: dict[str, list[Any]] = {}
    for trial in trials:
        for key, value in trial.params.items():
            seen.setdefault(key, []).append(value)
    known = problem.space.parameters
    ranges = {
        key: _range_of(seen.get(key, ()), known.get(key)) for key in dict.fromkeys([*known, *seen])
    }
    frozen = [_frozen(t, problem, ranges, curves.get(t.number, {})) for t in trials]
    made = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[objective.direction for objective in problem.objectives],
    )
    try:
        objects = {
            name: dict(parameter.objects or {})
            for name, parameter in known.items()
            if isinstance(parameter, Categorical) and _keepable(parameter)
        }
        kept = {"problem": to_json(problem.to_json(), "problem"), "objects": to_json(objects)}
        made._storage.set_study_system_attr(made._study_id, KEY, kept)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            made.set_metric_names(list(problem.names))
        made.add_trials(frozen)
    except BaseException:
        optuna.delete_study(study_name=made.study_name, storage=made._storage)
        raise
    return made


@contextmanager
def _opened(study: StoredStudy | str | PathLike[str]) -> Iterator[StoredStudy]:
    """The study; closed again if it was opened here."""
    if isinstance(study, StoredStudy):
        yield study
        return
    if not isinstance(study, str | PathLike):
        raise TypeError(
            f"to_optuna takes an Optimizer, a Study, or where one is stored such as 'study.db'; "
            f"got {shown(study)} ({type(study).__name__})."
        )
    with existing_study(*split_place(fspath(study))) as (storage, record):
        yield Study.open(storage, record.name)


def _frozen(
    trial: Trial,
    problem: Problem,
    ranges: Mapping[str, BaseDistribution],
    curve: Mapping[int, float],
) -> FrozenTrial:
    """A trial in Optuna's words."""
    params = {
        name: _theirs(problem.space.parameters.get(name), v) for name, v in trial.params.items()
    }
    waiting = trial.state == TrialState.WAITING
    ended = trial.state.finished
    started = trial.started or trial.created or trial.finished or 0.0
    attrs: dict[str, Any] = {
        f"constraints:{c.name}": -c.margin(trial.constraints[c.name])
        for c in problem.constraints
        if c.name in trial.constraints
    }
    if waiting:
        attrs[FIXED] = params
    kept = trial.to_json()
    values = None if trial.values is None else [trial.values[name] for name in problem.names]
    if trial.state == TrialState.PRUNED and curve and len(problem.names) == 1:
        last = curve[max(curve)]  # which Optuna takes for the value
        values = None if math.isnan(last) else [last]
    return FrozenTrial(
        number=trial.number,
        trial_id=-1,
        state=_THEIRS[trial.state],
        value=None,
        values=values,
        datetime_start=None if waiting else datetime.fromtimestamp(started),
        datetime_complete=datetime.fromtimestamp(trial.finished or started) if ended else None,
        params={} if waiting else params,
        distributions={} if waiting else {name: ranges[name] for name in params},
        user_attrs=dict(trial.attrs),
        system_attrs=attrs | {KEY: {"trial": {name: kept[name] for name in _KEPT}}},
        intermediate_values={int(step): value for step, value in curve.items()},
    )


def _theirs(parameter: Parameter | None, value: Any) -> Any:
    """A value as the trials of Optuna have it: the object of a choice, if it can keep that."""
    if isinstance(parameter, Categorical) and _keepable(parameter) and value in parameter.labels:
        return (parameter.objects or {})[value]
    return value


def _keepable(parameter: Categorical) -> bool:
    """Whether the choices stand for objects that Optuna can keep."""
    objects = parameter.objects
    return objects is not None and all(
        item is None or isinstance(item, bool | int | float | str) for item in objects.values()
    )


def _range_of(seen: Sequence[Any], parameter: Parameter | None) -> BaseDistribution:
    """What values of a parameter are drawn from, those that trials have from elsewhere included.

    Args:
        seen: The values of trials.
        parameter: None of one that is no parameter any more.
    """
    if isinstance(parameter, Real):
        low, high = min((parameter.low, *seen)), max((parameter.high, *seen))
        return FloatDistribution(low, high, log=parameter.log)
    if isinstance(parameter, Integer):
        low, high = min((parameter.low, *seen)), max((parameter.high, *seen))
        off = any((value - parameter.low) % parameter.step for value in seen)
        step = 1 if off else parameter.step
        return IntDistribution(low, high, log=parameter.log, step=step)
    if isinstance(parameter, Ordinal):
        stepped = _stepped(parameter.labels)
        if stepped is not None and all(value in parameter.labels for value in seen):
            return stepped
    choices = list(parameter.labels) if isinstance(parameter, Categorical | Ordinal) else []
    if parameter is None and all(type(value) is int for value in seen):
        return IntDistribution(min(seen), max(seen))
    if parameter is None and all(type(value) in (int, float) for value in seen):
        return FloatDistribution(min(seen), max(seen))
    return CategoricalDistribution(
        [_theirs(parameter, value) for value in dict.fromkeys([*choices, *seen])]
    )


def _stepped(labels: Sequence[Any]) -> FloatDistribution | None:
    """The floats that are evenly spaced; None if they are not, or no floats."""
    if len(labels) < 2 or not all(isinstance(label, float) for label in labels):
        return None
    places = [Decimal(str(label)) for label in labels]
    step = places[1] - places[0]
    if step <= 0 or any(b - a != step for a, b in pairwise(places)):
        return None
    return FloatDistribution(labels[0], labels[-1], step=float(step))
