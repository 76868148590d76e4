"""Warm start: the results of another study, told to this one.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeAlias

from bbmmopt.former import Former, LeftOut
from bbmmopt.problem import Problem
from bbmmopt.space.checks import shown
from bbmmopt.storage import Storage, StudyRecord, UnknownStudy
from bbmmopt.storage.places import existing_study, split_place
from bbmmopt.study.extension import OldTrialsWarning, checked_former, in_words
from bbmmopt.trial import Trial, TrialState

if TYPE_CHECKING:
    from bbmmopt.study import Study

_Place = str | PathLike[str] | Storage

WarmStart: TypeAlias = (
    "_Place | tuple[_Place, str] | Study | Iterable[tuple[Mapping[str, Any], Any]]"
)
"""What `warm_start=` takes: "old.db", "old.db#study", (storage, study), a Study, or results."""

PHASE = "warm start"
_GIVEN = "given"  # the key of results that came as a list


@dataclass(frozen=True)
class _Source:
    """Where results come from.

    Attributes:
        label: What it is called.
        key: Tells it from all others.
        problem: Its problem; None of a list.
        trials: All of them.
    """

    label: str
    key: str
    problem: Problem | None
    trials: list[Trial]


def take_along(
    storage: Storage,
    record: StudyRecord,
    problem: Problem,
    trials: Iterable[Trial],
    given: Any,
    former: Mapping[str, Any] | None,
) -> None:
    """Add the results of another study to this one, all at once, unless that was done before.

    Args:
        storage: Where this study is.
        record: Its record.
        problem: Its problem.
        trials: The trials that it has.
        given: See `WarmStart`.
        former: {parameter: value} of parameters that are only here, or only there.

    Raises:
        ValueError, TypeError: If there is no such thing, or it is about something else.
        UnknownStudy, StorageError: If the other study is not there or cannot be opened.
    """
    there = [trial.origin for trial in trials if trial.origin.get("phase") == PHASE]
    keys = {origin.get("source") for origin in there}
    if _is_gone(given) and any(_is_from(origin.get("from"), given) for origin in there):
        return  # it served its purpose
    source = _source(given, problem, keys)
    if source.key in keys:
        return
    if source.key == _key(record):
        raise ValueError(f"warm_start: study {record.name!r} cannot start from itself.")
    if source.problem is not None:
        _check_objectives(source.problem, problem, source.label)
    added, left_out = _translated(source, problem, former)
    storage.add_all(
        record.name, added, unless=lambda trial: trial.origin.get("source") == source.key
    )
    if left_out:
        count = sum(left_out.values())
        warnings.warn(
            f"warm_start: {count} of {count + len(added)} results of {source.label} are left out: "
            f"{in_words(left_out)}",
            OldTrialsWarning,
            stacklevel=4,
        )


def _translated(
    source: _Source, problem: Problem, former: Mapping[str, Any] | None
) -> tuple[list[Trial], Counter[str]]:
    """The trials as this study will have them, and why others are left out."""
    space = problem.space
    theirs = space if source.problem is None else source.problem.space
    ended = [t for t in source.trials if t.state in (TrialState.COMPLETE, TrialState.FAILED)]
    points = Former(space, True, checked_former(former, space, theirs, ended))
    added: list[Trial] = []
    left_out: Counter[str] = Counter()
    for trial in ended:
        try:
            params = space.validate(points.point(trial.params), outside=True)
        except LeftOut as reason:
            left_out[str(reason)] += 1
            continue
        except (ValueError, TypeError) as error:
            left_out[str(error).rstrip(".")] += 1
            continue
        told = {**trial.constraints, **(trial.values or {})}
        complete = trial.state == TrialState.COMPLETE
        added.append(
            Trial(
                0,
                params,
                trial.state,
                values={name: told[name] for name in problem.names} if complete else None,
                standard_errors={
                    name: trial.standard_errors.get(name) for name in problem.names if complete
                },
                constraints={c.name: told[c.name] for c in problem.constraints if c.name in told},
                reason=trial.reason,
                created=trial.created,
                started=trial.started,
                finished=trial.finished,
                attrs=trial.attrs,
                origin={
                    "phase": PHASE,
                    "from": source.label,
                    "number": trial.number,
                    "source": source.key,
                },
            )
        )
    return added, left_out


def _check_objectives(theirs: Problem, ours: Problem, label: str) -> None:
    """Refuse results of other objectives."""
    there = {o.name: o.direction for o in theirs.objectives}
    for objective in ours.objectives:
        if there.get(objective.name) == objective.direction:
            continue
        listed = ", ".join(f"{direction} {name!r}" for name, direction in there.items())
        raise ValueError(
            f"warm_start: this study is to {objective.direction} {objective.name!r}, and "
            f"{label} was to {listed}. Give [(params, value), …] if its values are of use."
        )


# --------------------------------------------------------------------------------------
# Where results come from
# --------------------------------------------------------------------------------------


def _source(given: Any, problem: Problem, known: set[Any]) -> _Source:
    if isinstance(given, str | PathLike | Storage):
        where, study = (given, None) if isinstance(given, Storage) else split_place(fspath(given))
        return _stored(where, study, known)
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], str):
        if not isinstance(given[0], str | PathLike | Storage):
            raise TypeError(f"warm_start takes (storage, study name); got {shown(given)}.")
        where = given[0] if isinstance(given[0], Storage) else fspath(given[0])
        return _stored(where, given[1], known)
    return _listed(given, problem)


def _stored(where: str | Storage, study: str | None, known: set[Any]) -> _Source:
    """A study in a storage that is there."""
    try:
        with existing_study(where, study) as (storage, record):
            key = _key(record)
            # What was taken along before need not be read again.
            trials = [] if key in known else storage.changes(record.name)[0]
    except UnknownStudy as error:
        raise UnknownStudy(f"warm_start: {error}") from None
    name = record.name
    label = f"study {name!r}" if isinstance(where, Storage) else _label((where, name))
    in_order = sorted(trials, key=lambda trial: trial.number)
    return _Source(label, key, Problem.from_json(record.problem), in_order)


def _listed(given: Any, problem: Problem) -> _Source:
    """Results as a list of (params, value)."""
    advice = 'warm_start takes "old.db", "old.db#study", a Study, or [(params, value), …]'
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"{advice}; got {shown(given)} ({type(given).__name__}).")
    trials = []
    for k, pair in enumerate(given):
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], Mapping):
            raise TypeError(f"{advice}; result {k} is {shown(pair)}.")
        told = problem.check_values(pair[1], trial_number=k)
        state = TrialState.COMPLETE if told.failure is None else TrialState.FAILED
        trial = Trial(
            k,
            dict(pair[0]),
            state,
            values=told.values if told.failure is None else None,
            standard_errors=told.standard_errors,
            constraints=told.constraints,
            reason=told.failure,
        )
        trials.append(trial)
    return _Source("the results given", _GIVEN, None, trials)


def _is_gone(given: Any) -> bool:
    """Whether it is a file, and not there."""
    if isinstance(given, tuple) and given and isinstance(given[0], str | PathLike):
        given = given[0]
    elif isinstance(given, str | PathLike):
        given = split_place(fspath(given))[0]
    else:
        return False
    return "://" not in fspath(given) and not os.path.exists(os.path.expanduser(given))


def _is_from(label: Any, given: Any) -> bool:
    """Whether a label is that of a file, or of the only study in it."""
    wanted = _label(given)
    return label == wanted or str(label).rpartition("#")[0] == wanted


def _label(given: Any) -> str:
    """What a stored study is called: never a password."""
    parts = given if isinstance(given, tuple) else split_place(fspath(given))
    where = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", fspath(parts[0]))
    return where if parts[1] is None else f"{where}#{parts[1]}"


def _key(record: StudyRecord) -> str:
    """Tells a study from all others, wherever its file was moved to."""
    text = f"{record.name}/{record.seed}/{record.created!r}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
