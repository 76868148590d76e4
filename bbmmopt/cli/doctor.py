"""`bbmmopt doctor`: what is wrong with a storage, and what to do. Changes nothing."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

import bbmmopt
from bbmmopt.cli.arguments import StudyCommand, on_storage
from bbmmopt.cli.errors import UNWELL, Failure
from bbmmopt.cli.output import print_findings, print_json
from bbmmopt.storage import Storage, StorageError, StudyRecord
from bbmmopt.storage.finding import Finding
from bbmmopt.storage.places import file_of
from bbmmopt.study.settings import VERSION
from bbmmopt.study.tables import each_event, each_trial
from bbmmopt.trial import Trial, TrialState

# Packages that something needs, and what for.
_NEEDED = ("torch", "numpy", "scipy", "SQLAlchemy", "click", "rich", "matplotlib")
_EXTRAS = {
    "psycopg": "PostgreSQL",
    "distributed": "Dask",
    "loky": "processes",
    "submitit": "Slurm",
    "pandas": "data frames",
}
_JUMP = 1.0  # seconds by which the clocks of machines may well differ
_SHOWN = 5  # trials named in one line


@click.command(cls=StudyCommand)
@on_storage
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each thing looked at.")
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    default=24.0,
    show_default=True,
    help="After which a running trial without a sign of life is suspicious.",
)
def doctor(where: str, as_json: bool, hours: float) -> None:
    """Look for what is wrong with a storage, and say what to do.

    Whether it opens, can be read and written, and is not damaged; its disk, journal and size;
    trials that nobody runs any more; clocks that jumped; versions. Works on any file, and changes
    nothing: a storage of an older bbmmopt stays one.

    Each line is ok, a warning (somebody should know), or a problem: then the exit code is 7.
    """
    from bbmmopt.storage.health import examine

    found = examine(where, file_of(where))
    if all(finding.state != "problem" for finding in found) and any(
        (finding.about, finding.state) == ("schema", "ok") for finding in found
    ):
        from bbmmopt.storage.sql import SQLStorage

        with SQLStorage(where, busy_timeout=5.0, read_only=True) as storage:
            for name in storage.studies():
                record = storage.study(name)
                if record is None:
                    continue
                try:
                    found += _of_study(storage, record, hours)
                except (StorageError, ValueError) as error:
                    advice = "Its rows were changed by another program: go back to a copy."
                    found.append(Finding(f"study {name}", "problem", str(error), advice))
    found += _of_versions()
    if as_json:
        for finding in found:
            print_json(vars(finding))
    else:
        print_findings(found)
    wrong = sum(finding.state == "problem" for finding in found)
    if wrong:
        raise Failure(f"{wrong} {'problems were' if wrong > 1 else 'problem was'} found.", UNWELL)


def _of_study(storage: Storage, record: StudyRecord, hours: float) -> Iterator[Finding]:
    about = f"study {record.name}"
    counts = Counter(str(trial.state) for trial in each_trial(storage, record.name))
    told = [f"{counts[state]} {state}" for state in map(str, TrialState) if counts[state]]
    yield Finding(about, "ok", f"{', '.join(told) or 'no'} trials")
    if record.version != VERSION:
        says = f"begun by version {record.version} of the way suggestions are made; now {VERSION}"
        advice = "It goes on, but not with the very points that it would have had."
        yield Finding(about, "warning", says, advice)
    yield from _of_running(storage, record.name, about, hours)
    yield from _of_clocks(storage, record.name, about)


def _of_running(storage: Storage, study: str, about: str, hours: float) -> Iterator[Finding]:
    from bbmmopt.execution.owners import is_gone, is_here

    now, long_ago = storage.clock(), time.time() - 3600 * hours
    gone: list[Trial] = []
    expired: list[Trial] = []
    old: list[Trial] = []
    for trial in each_trial(storage, study, [TrialState.RUNNING]):
        if trial.lease_until is not None:
            if trial.lease_until < now:
                expired.append(trial)
        elif is_gone(trial.worker):
            gone.append(trial)
        elif (trial.started or 0.0) < long_ago and not is_here(trial.worker):
            old.append(trial)
    if gone:
        says = f"{_numbers(gone)}: running, but the process that ran them has ended"
        advice = "The next minimize or maximize takes them over; or tell them, or tell --failed."
        yield Finding(about, "warning", says, advice)
    if expired:
        says = f"{_numbers(expired)}: their leases have run out"
        yield Finding(
            about, "warning", says, "Whoever asks next is given them; late results still count."
        )
    if old:
        says = f"{_numbers(old)}: running for more than {hours:g} h"
        advice = "If nobody runs them: tell --failed, or ask as the same --worker to go on."
        yield Finding(about, "warning", says, advice)


def _of_clocks(storage: Storage, study: str, about: str) -> Iterator[Finding]:
    latest, jumps, largest, where = 0.0, 0, 0.0, 0
    for event in each_event(storage, study):
        back = latest - event.time
        if back > _JUMP:
            jumps += 1
            if back > largest:
                largest, where = back, event.revision
            latest = event.time  # count it once
        else:
            latest = max(latest, event.time)
    advice = "Times and durations of trials are off; order and leases do not go by this clock."
    if jumps:
        says = f"a clock went back {jumps} times, by {largest:.0f} s at most (revision {where})"
        yield Finding(about, "warning", says, advice)
    ahead = latest - time.time()
    if ahead > 60:
        says = f"the last event is {ahead:.0f} s in the future of this machine's clock"
        yield Finding(about, "warning", says, advice)


def _numbers(trials: list[Trial]) -> str:
    """trials 3, 5, 8 and 2 more"""
    named = ", ".join(str(trial.number) for trial in trials[:_SHOWN])
    more = len(trials) - _SHOWN
    return f"trial{'s' if len(trials) > 1 else ''} {named}" + (
        f" and {more} more" if more > 0 else ""
    )


def _of_versions() -> Iterator[Finding]:
    yield Finding("bbmmopt", "ok", f"{bbmmopt.__version__} at {Path(bbmmopt.__file__).parent}")
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")
    missing = [name for name in _NEEDED if _version(name) is None]
    there = [f"{name} {_version(name)}" for name in _NEEDED if name not in missing]
    yield Finding("packages", "ok", ", ".join(there))
    if missing:
        yield Finding(
            "packages", "problem", f"missing: {', '.join(missing)}", "Install bbmmopt again."
        )
    extras = [
        f"{name} {_version(name) or 'not installed'} ({purpose})"
        for name, purpose in _EXTRAS.items()
    ]
    yield Finding("extras", "ok", ", ".join(extras))


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
