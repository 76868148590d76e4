"""Trials, learning curves and events as plain rows: for files, data frames, other programs.

Imports no torch. Everything is read in pages, so that a study may be larger than the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from bbmmopt.problem import Problem
from bbmmopt.storage import Event, Storage
from bbmmopt.trial import Trial, TrialState

if TYPE_CHECKING:
    import pandas

_PAGE = 1000
_TIMES = ("created", "started", "finished", "lease_until")
_PARTS = ("params", "values", "standard_errors", "constraints")
_OTHERS = (
    *("reason", "phase", "worker", "created", "started", "finished", "seconds"),
    *("lease", "lease_until", "attrs", "origin"),
)

CURVE_COLUMNS = ["trial", "step", "value"]
EVENT_COLUMNS = [field.name for field in fields(Event)]


def each_trial(
    storage: Storage, study: str, states: Sequence[TrialState] = tuple(TrialState)
) -> Iterator[Trial]:
    """The trials of a study by number, each as it is stored when its page is read.

    Args:
        storage: Where they are.
        study: Name of the study.
        states: Only trials in one of these.
    """
    start = 0
    while found := storage.page(study, start, _PAGE, states):
        yield from found
        start = found[-1].number + 1


def each_event(storage: Storage, study: str, since: int = 0) -> Iterator[Event]:
    """The events of a study after a revision, oldest first."""
    while found := storage.events(study, since, most=_PAGE):
        yield from found
        since = found[-1].revision


def trial_columns(problem: Problem, trials: Iterable[Trial] = ()) -> list[str]:
    """The names of all columns, in an order that depends on the problem alone.

    Args:
        problem: Names parameters, objectives and constraints.
        trials: Those that may have parameters which the space has no more; these come after the
            others.
    """
    names = list(problem.space.names)
    names += dict.fromkeys(name for trial in trials for name in trial.params if name not in names)
    constraints = [constraint.name for constraint in problem.constraints]
    parts = zip(_PARTS, (names, problem.names, problem.names, constraints), strict=True)
    return [
        *("number", "state"),
        *(f"{part}.{name}" for part, named in parts for name in named),
        *_OTHERS,
    ]


def trial_row(trial: Trial) -> dict[str, Any]:
    """{column: value} of what there is: numbers, texts, datetimes, and dicts for attrs, origin."""
    row: dict[str, Any] = {"number": trial.number, "state": str(trial.state)}
    for part in _PARTS:
        for name, value in (getattr(trial, part) or {}).items():
            row[f"{part}.{name}"] = value
    row |= {name: getattr(trial, name) for name in _OTHERS if name not in ("phase", "seconds")}
    row |= {name: moment(row[name]) for name in _TIMES}
    return row | {"phase": trial.origin.get("phase"), "seconds": trial.duration}


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def each_curve_point(storage: Storage, study: str) -> Iterator[tuple[int, int, float]]:
    """What trials reported, as (trial, step, value): the last value of each step, in order.

    All of them are held in memory, 24 bytes each.
    """
    pages, since = [], 0
    while True:
        reports, since = storage.reports(study, since, most=_PAGE)
        if not reports:
            break
        numbers = np.array([(r.number, r.step) for r in reports], dtype=np.int64)  # (n, 2)
        pages.append((numbers, np.array([r.value for r in reports])))
    if not pages:
        return
    numbers = np.concatenate([page[0] for page in pages])
    values = np.concatenate([page[1] for page in pages])
    order = np.lexsort((numbers[:, 1], numbers[:, 0]))  # stable: the last one stays last
    for k, index in enumerate(order):
        if k + 1 == len(order) or (numbers[index] != numbers[order[k + 1]]).any():
            yield int(numbers[index, 0]), int(numbers[index, 1]), float(values[index])


def dataframe(trials: Sequence[Trial], problem: Problem) -> pandas.DataFrame:
    """The trials as a pandas DataFrame, a row each; see `Study.trials_dataframe`.

    Raises:
        ImportError: If pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            f"a data frame needs pandas, which is not there ({error}): pip install pandas. "
            f"`trials` has the same as plain records."
        ) from error
    rows = [trial_row(trial) for trial in trials]
    columns = trial_columns(problem, trials)
    return pandas.DataFrame({name: [row.get(name) for row in rows] for name in columns})
