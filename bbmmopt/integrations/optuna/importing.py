"""from_optuna: a study of Optuna as one of ours."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from os import PathLike
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as Theirs

from bbmmopt.former import Former
from bbmmopt.integrations.choices import choices_of, label_in, label_of
from bbmmopt.integrations.optuna.conditions import find_conditions
from bbmmopt.integrations.optuna.distributions import parameter_of
from bbmmopt.integrations.optuna.group import FIXED, KEY, STATES, constraints_of
from bbmmopt.integrations.optuna.layout import Layout, decisive, parents_of
from bbmmopt.optimizer import Optimizer
from bbmmopt.problem import Constraint, Noise, Objective, Problem
from bbmmopt.space import Categorical, Ordinal, Parameter, Real, Space
from bbmmopt.space.checks import Value, listing
from bbmmopt.storage import Storage, UnknownStudy, open_storage
from bbmmopt.study import OldTrialsWarning
from bbmmopt.trial import Trial, TrialState, from_json

_MOST_STEPS = 1000  # of a float, beyond which it is taken as continuous


def from_optuna(
    study: Study,
    *,
    storage: str | PathLike[str] | Storage | None = None,
    name: str | None = None,
    space: Space | None = None,
    noise: Noise = "unknown",
    seed: int | None = None,
) -> Optimizer:
    """A study of Optuna as one of ours, to plot, to explain, or to go on with.

    The trials keep their numbers, states, values, constraints, intermediate values, times and user
    attributes. What Optuna does not know of a space is found in the trials: a parameter's range is
    the widest that was asked for; it depends on choices or integers as the complete trials show. A
    float with a step is an `Ordinal` of up to 1000 values, beyond that a `Real`; choices that are
    None or equal others are labelled. A study that came from `to_optuna` has the space it had.

    Not to be had: what only the code of the objective says, such as conditions on real numbers;
    user attributes of the study; other system attributes; the state of a sampler or pruner. A trial
    with an infinite value counts as failed, and one that was enqueued with some of its values as
    pruned.

    Args:
        study: Of Optuna.
        storage: Where ours is kept; see `Optimizer`.
        name: Its name there; that of the Optuna study if left out.
        space: The space, where the trials do not show it.
        noise: See `Optimizer`.
        seed: See `Optimizer`.

    Raises:
        ValueError: If the space cannot be told from the trials, naming the parameters; or if the
            storage holds a study of that name.
        TypeError: If there are user attributes that are not JSON.
    """
    if not isinstance(study, Study):
        raise TypeError(f"from_optuna takes an optuna.Study; got {study!r}.")
    frozen = study.get_trials(deepcopy=False)
    problem = _problem(study, frozen, space, noise)
    trials = [_trial(trial, problem) for trial in frozen]
    for trial in trials:
        trial.to_json()  # refuses notes that cannot be stored, before anything is
    store = open_storage(storage)
    try:
        return _written(store, name or study.study_name, problem, trials, frozen, seed)
    except BaseException:
        if store is not storage:
            store.close()
        raise


def _written(
    store: Storage,
    name: str,
    problem: Problem,
    trials: Sequence[Trial],
    frozen: Sequence[FrozenTrial],
    seed: int | None,
) -> Optimizer:
    """The study, stored."""
    if name in store.studies():
        raise ValueError(
            f"the storage has a study {name!r} already: take another name=, or open it with "
            f"Optimizer.open."
        )
    optimizer = Optimizer(problem, storage=store, study=name, seed=seed)
    former = Former(problem.space, True)
    reasons = Counter(
        reason
        for trial in trials
        if trial.state == TrialState.COMPLETE and (reason := former.reason(trial.params))
    )
    if any(not _fits(problem.space, trial) for trial in trials):
        # As in a study that was extended, trials may then lie outside or have no place.
        record = store.study(name)
        if record is None:
            raise UnknownStudy(f"study {name!r} was removed meanwhile.")
        before = {"problem": record.problem, "settings": record.settings}
        settings = {**record.settings, "extended": former.to_json()}
        differences = ["its trials come from Optuna, and not all of them are in the space."]
        store.revise(
            replace(record, settings=settings), detail={"differences": differences} | before
        )
        optimizer = Optimizer(problem, storage=store, study=name)
    store.add_all(name, trials, unless=lambda trial: False)
    for trial in frozen:
        for step, value in trial.intermediate_values.items():
            store.report(name, trial.number, step, value)
    if reasons:
        why = "; ".join(f"{count} as {reason}" for reason, count in reasons.items())
        warnings.warn(
            f"{sum(reasons.values())} of {len(trials)} trials, though complete, stay listed but do "
            f"not train the model: {why}.",
            OldTrialsWarning,
            stacklevel=4,
        )
    return optimizer


def _fits(space: Space, trial: Trial) -> bool:
    try:
        space.validate(trial.params)
    except (ValueError, TypeError):
        return False
    return True


def _trial(frozen: FrozenTrial, problem: Problem) -> Trial:
    """A trial in our words."""
    state = STATES[frozen.state]
    enqueued = state == TrialState.WAITING
    given = frozen.system_attrs.get(FIXED, {}) if enqueued else frozen.params
    noted = from_json(frozen.system_attrs.get(KEY, {}))
    ours = noted.get("trial", {})
    phase = "enqueued" if enqueued else "told"
    trial = Trial(
        frozen.number,
        {
            name: _value(problem.space.parameters.get(name), given[name])
            for name in [*(n for n in problem.space.names if n in given), *given]
        },
        state,
        constraints=ours.get("constraints") or _constraints(frozen, problem),
        standard_errors=ours.get("standard_errors", {}),
        reason=ours.get("reason"),
        created=ours.get("created") or _seconds(frozen.datetime_start),
        started=ours.get("started") or _seconds(frozen.datetime_start),
        finished=ours.get("finished") or _seconds(frozen.datetime_complete),
        attrs=dict(frozen.user_attrs),
        origin=ours.get("origin") or noted.get("origin") or {"phase": phase},
        worker=ours.get("worker"),
    )
    if enqueued and not _fits(problem.space, trial):
        reason = "enqueued in Optuna with other parameters than the space has"
        return replace(trial, state=TrialState.PRUNED, reason=reason)
    if state == TrialState.COMPLETE:
        values = dict(zip(problem.names, map(float, frozen.values), strict=True))
        if not all(map(math.isfinite, values.values())):
            return replace(trial, state=TrialState.FAILED, reason=f"Optuna was told {values}")
        return replace(trial, values=values)
    if state in (TrialState.FAILED, TrialState.PRUNED) and trial.reason is None:
        return replace(trial, reason=f"{state} in Optuna")
    return trial


def _constraints(frozen: FrozenTrial, problem: Problem) -> dict[str, float]:
    """Constraints of Optuna, which hold up to 0, as the problem has them."""
    told, found = constraints_of(frozen), {}
    for c in problem.constraints:
        if c.name in told:
            found[c.name] = c.bound + told[c.name] * (1 if c.sense == "<=" else -1)
    return found


def _seconds(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def _value(parameter: Parameter | None, value: Any) -> Any:
    """A value of Optuna as the study stores it: the label of a choice, the decimal of a step."""
    if isinstance(parameter, Categorical):
        value = label_in(parameter, value)
    if isinstance(parameter, Ordinal) and isinstance(value, float):
        numbers = [label for label in parameter.labels if isinstance(label, float)]
        nearest = min(numbers, key=lambda label: abs(label - value), default=value)
        return nearest if math.isclose(nearest, value, rel_tol=1e-9, abs_tol=1e-12) else value
    return value if isinstance(value, Value) else label_of(value)


# --------------------------------------------------------------------------------------
# The problem
# --------------------------------------------------------------------------------------


def _problem(
    study: Study, trials: Sequence[FrozenTrial], space: Space | None, noise: Noise
) -> Problem:
    """What the study is about: as `to_optuna` wrote it down, or as the trials show."""
    stored = study._storage.get_study_system_attrs(study._study_id).get(KEY)
    if stored is not None and space is None:
        return Problem.from_json(from_json(stored["problem"]), from_json(stored["objects"]))
    count = len(study.directions)
    names = study.metric_names or (
        ["value"] if count == 1 else [f"value_{i}" for i in range(count)]
    )
    objectives = tuple(
        Objective(name, "maximize" if way == StudyDirection.MAXIMIZE else "minimize", noise)
        for name, way in zip(names, study.directions, strict=True)
    )
    constraints = dict.fromkeys(name for trial in trials for name in constraints_of(trial))
    return Problem(space or space_of(trials), objectives, tuple(map(Constraint, constraints)))


def space_of(trials: Sequence[FrozenTrial]) -> Space:
    """The space that trials show.

    Raises:
        ValueError: If they do not, naming the parameters at fault.
    """
    found: dict[str, BaseDistribution] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            known = found.get(name, distribution)
            found[name] = distribution if known == distribution else _wider(known, distribution)
    complete = [trial for trial in trials if trial.state == Theirs.COMPLETE]
    if not complete:
        raise ValueError(
            "no trial of the study is complete, so its space is not known: give it as space=…."
        )
    layout = Layout(found)
    parents = parents_of(layout)
    conditions = find_conditions([decisive(layout, parents, t) for t in complete], parents)
    unknown = sorted(found.keys() - conditions.when.keys())
    if unknown:
        raise ValueError(
            f"the trials do not show when there is a parameter {listing(unknown)}: not in all of "
            f"the complete ones, and no choice or integer of the others decides it. Give the "
            f"space as space=Space({{…}}), with when={{parent: values}} if that can be said."
        )
    parameters = {name: _parameter(distribution) for name, distribution in found.items()}
    for name, needs in conditions.when.items():
        when = {parent: _values(parameters[parent], levels) for parent, levels in needs.items()}
        if when:
            parameters[name] = _parameter(found[name], when)
    return Space(parameters)


def _wider(a: BaseDistribution, b: BaseDistribution) -> BaseDistribution:
    """The range that holds two; Optuna has seen to it that they are of one kind."""
    if isinstance(a, FloatDistribution) and isinstance(b, FloatDistribution):
        low, high = min(a.low, b.low), max(a.high, b.high)
        step = a.step if a.step == b.step and _aligned(a.low, b.low, a.step) else None
        return FloatDistribution(low, high, log=a.log, step=step)
    if isinstance(a, IntDistribution) and isinstance(b, IntDistribution):
        low, high = min(a.low, b.low), max(a.high, b.high)
        step = a.step if a.step == b.step and (a.low - b.low) % a.step == 0 else 1
        return IntDistribution(low, high, log=a.log, step=step)
    return b


def _aligned(a: float, b: float, step: float | None) -> bool:
    return step is not None and not (Decimal(str(a)) - Decimal(str(b))) % Decimal(str(step))


def _parameter(
    distribution: BaseDistribution, when: Mapping[str, Sequence[Value]] | None = None
) -> Parameter:
    """The parameter that a user would have written."""
    if isinstance(distribution, FloatDistribution):
        if distribution.step is None or distribution.single():
            return Real(distribution.low, distribution.high, log=distribution.log, when=when)
        low, step = Decimal(str(distribution.low)), Decimal(str(distribution.step))
        count = int((Decimal(str(distribution.high)) - low) // step) + 1
        if count > _MOST_STEPS:
            return Real(distribution.low, distribution.high, when=when)
        return Ordinal([float(low + i * step) for i in range(count)], when=when)
    if isinstance(distribution, CategoricalDistribution):
        return Categorical(choices_of(distribution.choices), when=when)
    return parameter_of(distribution, when)


def _values(parent: Parameter, levels: Iterable[int]) -> list[Value]:
    """Levels of a parent, as its values."""
    if isinstance(parent, Categorical):
        return [parent.checked().labels[level] for level in levels]
    return list(levels)
