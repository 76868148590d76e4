"""Studies, trials and events as rows of the tables, and back."""

import gc
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import sqlalchemy as sa

from bbmmopt.storage import schema
from bbmmopt.storage.errors import StorageError
from bbmmopt.storage.outcomes import OUTCOME
from bbmmopt.storage.records import StudyRecord
from bbmmopt.trial import Trial, TrialState, dumps, loads

_PLAIN = ("number", "worker", "lease", "lease_until", "created", "started", "finished")
_JSON = ("params", "attrs", "origin")
_AT_ONCE = 1000

# What `read_trials` needs of a trial.
COLUMNS = [schema.trials.c[name] for name in (*_JSON, "outcome", "state", *_PLAIN)]


def study_row(record: StudyRecord) -> dict[str, Any]:
    """The columns of a study."""
    return {
        "name": record.name,
        "problem": dumps(record.problem, "problem"),
        "seed": str(record.seed),
        "settings": dumps(record.settings, "settings"),
        "created": record.created,
        "version": record.version,
        "generation": record.generation,
    }


def event_row(kind: str, trial: Trial | None, detail: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an event, but for its study and revision."""
    return {
        "time": time.time(),
        "kind": kind,
        "number": None if trial is None else trial.number,
        "worker": None if trial is None else trial.worker,
        "detail": dumps(detail, "detail"),
    }


def trial_row(trial: Trial) -> dict[str, Any]:
    """The columns of a trial."""
    row: dict[str, Any] = {name: getattr(trial, name) for name in _PLAIN}
    row |= {name: dumps(getattr(trial, name), name) for name in _JSON}
    outcome = {name: getattr(trial, name) for name in OUTCOME}
    return row | {"state": str(trial.state), "outcome": dumps(outcome, "outcome")}


def read_trials(rows: Iterable[sa.Row[Any]]) -> list[Trial]:
    """Undo `trial_row`, of rows of `COLUMNS`.

    A thousand of them are one JSON text: so 100,000 are read in a second or two, and share the
    names of their parameters.
    """
    with _no_collection():
        return _read(iter(rows))


def _read(rows: Iterator[Any]) -> list[Trial]:
    found = []
    while some := list(islice(rows, _AT_ONCE)):
        try:
            found += _together(some)
        except (ValueError, TypeError, LookupError, AttributeError):
            found += [_alone(row) for row in some]
    return found


def _together(rows: list[Any]) -> list[Trial]:
    texts = loads("[[" + "],[".join(",".join(row[:4]) for row in rows) + "]]")
    found = []
    for (params, attrs, origin, told), row in zip(texts, rows, strict=True):
        number, worker, lease, until, created, started, finished = row[5:]
        found.append(
            Trial(
                number,
                params,
                TrialState(row[4]),
                told["values"],
                told["standard_errors"],
                told["constraints"],
                told["reason"],
                created,
                started,
                finished,
                attrs,
                origin,
                worker,
                lease,
                until,
            )
        )
    return found


def _alone(row: Any) -> Trial:
    """One trial, or an error that names it."""
    try:
        return _together([row])[0]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise StorageError(
            f"what is stored of trial {row[5]} is damaged and cannot be read ({error}). Go back "
            f"to a copy of the storage, or delete the row {row[5]} of bbmmopt_trials."
        ) from error


@contextmanager
def _no_collection() -> Iterator[None]:
    """No search for garbage in cycles, of which reading makes none: it would take as long again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
