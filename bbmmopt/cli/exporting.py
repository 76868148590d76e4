"""`bbmmopt export`: everything in a study, as a file that other programs read."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import click

from bbmmopt.cli.arguments import StudyCommand, on_study
from bbmmopt.cli.errors import BAD_INPUT, Failure
from bbmmopt.cli.opening import stored
from bbmmopt.cli.output import json_text, record
from bbmmopt.problem import Problem
from bbmmopt.storage import Storage
from bbmmopt.study.tables import (
    CURVE_COLUMNS,
    EVENT_COLUMNS,
    each_curve_point,
    each_event,
    each_trial,
    moment,
    trial_columns,
    trial_row,
)
from bbmmopt.trial import Trial

_FORMATS = ("csv", "json", "jsonl")
_TIMES = ("created", "started", "finished", "lease_until")


@click.command(cls=StudyCommand)
@on_study
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    help="Default: by the ending of FILE, else csv. jsonl is a line for each, json a list.",
)
@click.option(
    "-o",
    "--output",
    default="-",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Where to; replaced as a whole when all is written. Default: stdout.",
)
@click.option("--curves", is_flag=True, help="What trials reported, instead: trial, step, value.")
@click.option("--events", is_flag=True, help="The log of the study, instead.")
def export(
    where: str, study: str | None, form: str | None, output: str, curves: bool, events: bool
) -> None:
    """Write every trial with all that is known of it, as CSV, JSON or JSON lines.

    Columns of the CSV, always in this order: number, state, params.NAME, values.NAME,
    standard_errors.NAME and constraints.NAME for each, reason, phase, worker, created, started,
    finished, seconds, lease, lease_until, attrs, origin. Times are ISO 8601 in UTC, attrs and
    origin JSON; what a trial does not have is empty. Numbers are written so that they come back as
    they were; in JSON "nan", "inf" and "-inf" are texts. UTF-8.

    \b
      bbmmopt export study.db -o trials.csv
      bbmmopt export study.db --curves -o curves.csv
    """
    if curves and events:
        raise click.UsageError("--curves and --events are two exports.")
    form = form or _form_of(output)
    with stored(where, study) as (storage, name, problem), target(output) as file:
        if curves:
            points = each_curve_point(storage, name)
            rows = (dict(zip(CURVE_COLUMNS, point, strict=True)) for point in points)
            write_rows(file, form, CURVE_COLUMNS, rows)
        elif events:
            rows = (
                vars(event) | {"time": moment(event.time)} for event in each_event(storage, name)
            )
            write_rows(file, form, EVENT_COLUMNS, rows)
        elif form == "csv":
            write_rows(file, form, _columns(storage, name, problem), _rows(storage, name))
        else:
            write_rows(file, form, (), map(_full, each_trial(storage, name)))


def _form_of(output: str) -> str:
    ending = Path(output).suffix.lower().removeprefix(".")
    return ending if ending in _FORMATS else "csv"


def _columns(storage: Storage, study: str, problem: Problem) -> list[str]:
    """All columns, those of parameters that the space has no more included."""
    return trial_columns(problem, each_trial(storage, study))


def _rows(storage: Storage, study: str) -> Iterator[dict[str, Any]]:
    return map(trial_row, each_trial(storage, study))


def _full(trial: Trial) -> dict[str, Any]:
    found = record(trial)
    found |= {name: moment(found[name]) for name in _TIMES}
    return found | {"phase": trial.origin.get("phase"), "seconds": trial.duration}


@contextmanager
def target(output: str) -> Iterator[IO[str]]:
    """A stream to write to; a file takes its name only when all was written."""
    if output != "-" and _is_storage(output):
        raise Failure(f"{output} is a storage, which would be lost: give another FILE.", BAD_INPUT)
    path = Path(os.path.realpath(output))
    # Not so for a pipe or a device, which must stay what it is.
    takes_its_place = output != "-" and (path.is_file() or not path.exists())
    unfinished = Path(f"{path}.partial")
    target = str(unfinished) if takes_its_place else output
    try:
        # A lone surrogate is no reason to lose all the rest.
        with click.open_file(target, "w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
            file.flush()
        if takes_its_place:
            unfinished.replace(path)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise Failure(f"{output} cannot be written: {error.strerror}.", BAD_INPUT) from error
    finally:
        if takes_its_place:
            unfinished.unlink(missing_ok=True)


def _is_storage(output: str) -> bool:
    if not os.path.isfile(output):
        return False
    with open(output, "rb") as file:
        return file.read(15) == b"SQLite format 3"


def write_rows(
    file: IO[str], form: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write rows into a file, what a row does not have left empty or out.

    Args:
        file: Where to.
        form: "csv", "json" (one array) or "jsonl" (an object a line).
        columns: Of a CSV file, in their order.
        rows: {column: value} each.
    """
    if form == "csv":
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
        return
    before = "[\n" if form == "json" else ""
    for row in rows:
        file.write(before + json_text({key: _dated(value) for key, value in row.items()}))
        before = ",\n" if form == "json" else "\n"
    empty = before == "[\n"
    file.write({"json": "[]\n" if empty else "\n]\n", "jsonl": before}[form])


def _dated(value: Any) -> Any:
    """Times as text, to the microsecond: 2026-01-31T12:00:00.000000Z."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value


def _cell(value: Any) -> str:
    """Nothing for None; text as it is; numbers with all their digits; else JSON."""
    if value is None:
        return ""
    value = _dated(value)
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, float) else json_text(value)
