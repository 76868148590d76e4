"""Several studies in one picture: what each is called, and whether they can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from bbmmopt.plots.source import Source, stored
from bbmmopt.problem import Objective, Problem
from bbmmopt.space.checks import did_you_mean, listing, shown
from bbmmopt.storage.places import split_place
from bbmmopt.study import StoredStudy
from bbmmopt.trial import Trial

Several = Source | Sequence[Source] | Mapping[str, Source | Sequence[Source]]


@dataclass(frozen=True)
class Seen:
    """What a study held when it was looked at.

    Attributes:
        label: What the picture calls it. Studies of one label are repeats of one another.
        repeat: Which of these it is: 0, 1, 2 …
        study: Its name in its storage.
        problem: What is optimised.
        objective: Which of its objectives is drawn.
        trials: By number.
    """

    label: str
    repeat: int
    study: str
    problem: Problem
    objective: Objective
    trials: list[Trial]


def is_one(given: Several) -> TypeGuard[Source]:
    """Whether a single study was given, and no list or mapping of studies."""
    return isinstance(given, StoredStudy | str | PathLike)


def look_at(given: Several, name: str | None) -> list[Seen]:
    """Read the trials of each study.

    Args:
        given: A study; a list of studies; or {label: study or list of studies}, where those of one
            label are repeats.
        name: Which objective, if there are several.

    Raises:
        TypeError, ValueError: If it is none of these, or empty; if `name` is not an objective; if
            the studies have different objectives or directions.
    """
    seen: list[Seen] = []
    for label, repeat, source in _labelled(given):
        with stored(source) as study:
            objective = objective_of(study.problem, name)
            seen.append(
                Seen(
                    study.study if is_one(given) else label,
                    repeat,
                    study.study,
                    study.problem,
                    objective,
                    study.trials,
                )
            )
    for one in seen:
        _check_comparable(seen[0], one)
    return seen


def objective_of(problem: Problem, name: str | None) -> Objective:
    """The objective of this name, or the only one.

    Raises:
        ValueError: If there is none of that name, or there are several and none was named.
    """
    if name is None and len(problem.objectives) > 1:
        raise ValueError(
            f"there are several objectives: pass name=, one of {listing(problem.names)}."
        )
    for objective in problem.objectives:
        if name in (None, objective.name):
            return objective
    hint = did_you_mean(name, problem.names)
    raise ValueError(f"there is no objective {name!r}; there is {listing(problem.names)}.{hint}")


def _check_comparable(first: Seen, other: Seen) -> None:
    ours, theirs = first.objective, other.objective
    if (ours.name, ours.direction) != (theirs.name, theirs.direction):
        raise ValueError(
            f"studies in one picture need the same objective: {first.label!r} is to "
            f"{ours.direction} {ours.name!r}, {other.label!r} to {theirs.direction} "
            f"{theirs.name!r}. Draw a picture of each."
        )


def _labelled(given: Several) -> Iterator[tuple[str, int, Source]]:
    """Label, repeat and study of each."""
    if is_one(given):
        yield "", 0, given
        return
    if isinstance(given, Mapping):
        if not given:
            raise ValueError("there is no study in {}; give {label: study} of at least one.")
        for label, part in given.items():
            for repeat, source in enumerate(_listed(part, f"of {label!r}")):
                yield str(label), repeat, source
        return
    sources = _listed(given, "given")
    for label, source in zip(_labels(sources), sources, strict=True):
        yield label, 0, source


def _listed(given: Any, which: str) -> list[Source]:
    if is_one(given):
        return [given]
    if not isinstance(given, Sequence):
        raise TypeError(
            f"the studies {which} must be an Optimizer, a Study, where one is stored such as "
            f"'study.db', or a list of these; got {shown(given)}."
        )
    if not given:
        raise ValueError(f"the list of studies {which} is empty; give at least one.")
    return list(given)


def _labels(sources: Sequence[Source]) -> list[str]:
    """A short name for each, all different."""
    for names in ([_short(s) for s in sources], [_long(s) for s in sources]):
        if len(set(names)) == len(names):
            return names
    names = [_long(source) for source in sources]
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def _short(source: Source) -> str:
    """The name of the file or of the study."""
    where, study = _place(source)
    return study or Path(where).stem


def _long(source: Source) -> str:
    where, study = _place(source)
    return f"{where}#{study}" if where and study else where or study


def _place(source: Any) -> tuple[str, str]:
    """Where a study is stored and its name, either of which may be ""; no user, no password."""
    if isinstance(source, StoredStudy):
        return "", source.study
    if not isinstance(source, str | PathLike):
        return shown(source), ""  # will be refused
    where, study = split_place(fspath(source))
    if "://" in where:
        parts = urlsplit(where)
        where = f"{parts.hostname or ''}{parts.path}"
    return where, study or ""
