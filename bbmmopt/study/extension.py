"""Extension: a stored study goes on with another problem or other settings.

Trials stay as they were told. What they teach the model of the problem as it is now, `former.py`
says. Imports no torch.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bbmmopt.former import Former, range_with
from bbmmopt.problem import Problem
from bbmmopt.space import Parameter, Space
from bbmmopt.space.checks import Value, did_you_mean, listing, naming, native, shown
from bbmmopt.storage import Storage, StudyRecord, StudyRevised
from bbmmopt.study.settings import FORMERLY, StudyDiffers, check_settings, not_extendable
from bbmmopt.trial import Trial, TrialState


class OldTrialsWarning(UserWarning):
    """Trials from before, or from another study, do not all fit the problem as it is now."""


@dataclass(frozen=True)
class Extension:
    """What becomes of a study.

    Attributes:
        record: Its record, with the problem and the settings that it will have.
        differences: What changes, a sentence each; none where nothing does.
        trials: How many trials there are that do not wait.
        left_out: Why trials will not train the model, and how many of them for each reason.
        partly: Constraints on outcomes that trials were never told a value of, and how many: they
            train the model of the objectives, not that of the constraint.
        strangers: Numbers of waiting trials that are not in the space any more.
    """

    record: StudyRecord
    differences: list[str]
    trials: int
    left_out: dict[str, int]
    partly: dict[str, int]
    strangers: list[int]

    @property
    def training(self) -> int:
        """How many trials will train the model, or are under way and may."""
        return self.trials - sum(self.left_out.values())

    @property
    def concerns(self) -> list[str]:
        """What the user should know of the trials that are there, a sentence each."""
        found = []
        if self.left_out:
            found.append(
                f"{sum(self.left_out.values())} of {self.trials} trials stay listed but do not "
                f"train the model: {in_words(self.left_out)}"
            )
        for name, count in self.partly.items():
            found.append(
                f"{count} trials have no value of constraint {name!r}: they train the model of "
                f"the objective alone, and are not feasible."
            )
        if self.strangers:
            found.append(
                f"waiting trials that are not in the space any more are handed out all the same: "
                f'{listing(self.strangers)}. End them with tell(number, pruned="why") if they '
                f"should not be."
            )
        return found


def extend(
    storage: Storage,
    record: StudyRecord,
    problem: Problem,
    *,
    seed: int | None,
    settings: Mapping[str, Any],
    former: Mapping[str, Any] | None,
) -> StudyRecord:
    """Have a stored study go on with this problem and these settings; its record then.

    Nothing is written where nothing changes. If another process extends it at the same time, one
    comes after the other.

    Args:
        storage: Where it is stored.
        record: Its record.
        problem: What it is about from now on.
        seed: None, or the one it has.
        settings: Those to change, in JSON types; None for those to leave.
        former: {parameter: value}: what parameters were in trials that have none, and at which
            value those that are gone count.

    Raises:
        StudyDiffers: If its trials would be about another function.
        ValueError, TypeError: If former values make no sense, or stored settings do not suit the
            problem.
    """
    while True:
        trials = storage.changes(record.name)[0]
        planned = plan(record, trials, problem, seed=seed, settings=settings, former=former)
        if not planned.differences:
            return record
        before = {"problem": record.problem, "settings": record.settings}
        try:
            revised = storage.revise(
                planned.record, detail={"differences": planned.differences} | before
            )
        except StudyRevised:
            record = storage.study(record.name) or record
            continue
        if planned.concerns:
            message = f"study {record.name!r} was extended: {' Also, '.join(planned.concerns)}"
            warnings.warn(message, OldTrialsWarning, stacklevel=3)
        return revised


def plan(
    record: StudyRecord,
    trials: Iterable[Trial],
    problem: Problem,
    *,
    seed: int | None,
    settings: Mapping[str, Any],
    former: Mapping[str, Any] | None,
) -> Extension:
    """What `extend` would change, and what becomes of the trials; nothing is written.

    Args:
        record: As for `extend`, as are those below.
        trials: All trials of the study.
        problem, seed, settings, former: See `extend`.

    Raises:
        StudyDiffers, ValueError, TypeError: As `extend`.
    """
    never = not_extendable(record, problem, seed)
    if never:
        raise StudyDiffers(
            f"study {record.name!r} cannot be extended so:\n  "
            + "\n  ".join(never)
            + "\nGive the new one a name of its own with study=…, and the data of this one with "
            "warm_start=…."
        )
    stored = Problem.from_json(record.problem)
    before = Former.of(record.settings, stored.space)
    trials = sorted(trials, key=lambda trial: trial.number)
    given = checked_former(former, problem.space, stored.space, trials)
    given = _needed(given, problem.space, trials)
    after = Former(
        problem.space, True, {**before.values, **given}, _ranges(before.space, problem.space)
    )
    differences = stored.difference(problem)
    changed: dict[str, Any] = {}
    for name, value in settings.items():
        was = (FORMERLY | record.settings).get(name)
        if value is not None and value != was:
            changed[name] = value
            differences.append(f"{name}: was {was!r} and is now {value!r}.")
    for name, value in after.values.items():
        if name not in before.values:
            differences.append(f"{name!r} was {value!r} in trials that do not say.")
        elif before.values[name] != value:
            differences.append(
                f"{name!r} in trials that do not say: was {before.values[name]!r} and is now "
                f"{value!r}."
            )
    if differences:
        changed["extended"] = after.to_json()
    new = replace(record, problem=problem.to_json(), settings={**record.settings, **changed})
    _check_suited(new, problem)
    return _effects(new, differences, after, problem, trials)


def _effects(
    record: StudyRecord,
    differences: list[str],
    former: Former,
    problem: Problem,
    trials: Sequence[Trial],
) -> Extension:
    """What becomes of the trials."""
    left_out: Counter[str] = Counter()
    partly: Counter[str] = Counter()
    strangers, count = [], 0
    for trial in trials:
        if trial.state == TrialState.WAITING:
            try:
                problem.space.validate(trial.params)
            except (ValueError, TypeError):
                strangers.append(trial.number)
            continue
        count += 1
        reason = former.reason(trial.params)
        if reason is not None:
            left_out[reason] += 1
        elif trial.state == TrialState.COMPLETE:
            partly.update(c.name for c in problem.constraints if c.name not in trial.constraints)
    return Extension(record, differences, count, dict(left_out), dict(partly), strangers)


def _ranges(before: Space, now: Space) -> dict[str, Parameter]:
    """What the model goes on with of the ranges of parameters that are fixed now."""
    found = {}
    for name, parameter in now.parameters.items():
        if parameter.kind == "fixed" and name in before.parameters:
            wider = range_with(before.parameters[name], parameter)
            if wider is not None:
                found[name] = wider
    return found


def in_words(left_out: Mapping[str, int]) -> str:
    """Why trials are left out, {reason: how many}, and what may be done about it."""
    reasons = "; ".join(f"{count} as {why}" for why, count in left_out.items())
    if "former" not in reasons:
        return f"{reasons}."
    return (
        f"{reasons}. Where the value was the same in all of them, say so: former={{name: value}}."
    )


def checked_former(
    former: Mapping[str, Any] | None, now: Space, before: Space, trials: Iterable[Trial]
) -> dict[str, Value]:
    """Former values in native types.

    Args:
        former: {parameter: value}, or None.
        now: The space as it is now.
        before: As it was when the trials were run.
        trials: The trials.

    Raises:
        ValueError, TypeError: If a parameter is unknown, or a value not one it can have had.
    """
    if former is None:
        return {}
    if not isinstance(former, Mapping):
        raise TypeError(f"former takes {{parameter: value}}; got {shown(former)}.")
    known = dict.fromkeys([*now.names, *before.names, *(n for t in trials for n in t.params)])
    found: dict[str, Value] = {}
    for name, value in former.items():
        if name not in known:
            hint = did_you_mean(name, list(known)) or f" There are {listing(known)}."
            raise ValueError(f"former: unknown parameter {shown(name)}.{hint}")
        parameter = now.parameters.get(name) or before.parameters.get(name)
        plain = native(value)
        if not isinstance(plain, Value):
            raise TypeError(
                f"former: parameter {name!r}: expected a value that it had; got {shown(value)} "
                f"({type(value).__name__})."
            )
        with naming(f"former: parameter {name!r}: "):
            fixed = parameter is None or parameter.kind == "fixed"
            found[name] = (
                plain if fixed or parameter is None else parameter.check(plain, outside=True)
            )
    return found


def _needed(former: dict[str, Value], space: Space, trials: Sequence[Trial]) -> dict[str, Value]:
    """Of former values, those that say something about a trial: so that a program that gives them
    each time it is run extends the study once.
    """
    given = Former(space, True, former)
    return {
        name: value
        for name, value in former.items()
        if any(given.asks_for(name, trial.params) for trial in trials)
    }


def _check_suited(record: StudyRecord, problem: Problem) -> None:
    """Refuse settings that were fine before and do not suit the problem as it is now."""
    try:
        check_settings(record.settings, problem)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"a setting of study {record.name!r} does not go with what it is to be now: {error} "
            f"Give that setting anew too, as an argument of its name; or start a study of another "
            f"name, with warm_start=…."
        ) from None


def check_mode(mode: str, former: Any, warm_start: Any) -> None:
    """Refuse a mode that is none, and former values that nothing would use.

    Raises:
        ValueError: If so.
    """
    if mode not in ("resume", "extend"):
        raise ValueError(f'mode must be "resume" or "extend"; got {shown(mode)}.')
    if former is not None and mode != "extend" and warm_start is None:
        raise ValueError(
            'former says what parameters were in earlier trials: it goes with mode="extend" or '
            "warm_start=…."
        )


def problem_of(storage: Storage, study: str, number: int, problem: Problem) -> Problem:
    """The problem as it was when a trial was made.

    Args:
        storage: Where the study is.
        study: Its name.
        number: The trial.
        problem: As it is now.
    """
    record = storage.study(study)
    if record is None or not record.generation:
        return problem
    born = False
    for event in storage.events(study):
        born = born or event.number == number
        if born and event.kind == "revised":
            return Problem.from_json(event.detail["problem"])
    return problem
