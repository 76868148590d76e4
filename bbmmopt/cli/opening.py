"""Opening what a command works on: nothing here makes a file."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bbmmopt.cli.errors import BAD_INPUT, NO_STUDY, Failure
from bbmmopt.problem import Problem
from bbmmopt.storage import Storage, StudyRecord, open_storage
from bbmmopt.trial import Trial

if TYPE_CHECKING:
    from bbmmopt.optimizer import Optimizer
    from bbmmopt.study import Study


@contextmanager
def _existing(where: str, study: str | None) -> Iterator[tuple[Storage, StudyRecord]]:
    """A storage that is there, and the record of the study that is meant."""
    file = _file_of(where)
    if file is not None and not os.path.exists(file):
        raise Failure(
            f"there is no file {where}. Give the path of a study, or start one with "
            f"'bbmmopt create {where} …'.",
            NO_STUDY,
        )
    with open_storage(where) as storage:
        names = storage.studies()
        if study is None and len(names) > 1:
            listed = ", ".join(names)
            raise Failure(f"{where} holds several studies, choose by --study: {listed}.", BAD_INPUT)
        found = storage.study(names[0] if study is None else study) if names else None
        if found is None:
            there = f"it holds: {', '.join(names)}" if names else "it holds none yet"
            which = "" if study is None else f" {study!r}"
            raise Failure(f"there is no study{which} in {where}; {there}.", NO_STUDY)
        yield storage, found


@contextmanager
def stored(where: str, study: str | None) -> Iterator[tuple[Storage, str, Problem]]:
    """What is needed to read: without torch."""
    with _existing(where, study) as (storage, found):
        yield storage, found.name, Problem.from_json(found.problem)


@contextmanager
def study_of(where: str, study: str | None) -> Iterator[Study]:
    """What is needed to tell: without torch, too."""
    with _existing(where, study) as (storage, found):
        from bbmmopt.study import FailedTrialWarning, Study

        warnings.simplefilter("always", FailedTrialWarning)  # until the command ends
        yield Study.open(storage, found.name)


@contextmanager
def optimizer_of(where: str, study: str | None) -> Iterator[Optimizer]:
    """What is needed to ask."""
    with _existing(where, study) as (storage, found):
        from bbmmopt.optimizer import Optimizer

        yield Optimizer.open(storage, found.name)


def trials_of(storage: Storage, study: str) -> list[Trial]:
    """All trials of a study, by number."""
    return sorted(storage.changes(study)[0], key=lambda trial: trial.number)


def _file_of(where: str) -> Path | None:
    """The file that a path or an SQLite URL means; None for a database server."""
    if "://" not in where:
        return Path(where).expanduser()
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(\?.*)?", where)
    if match is None or "uri=" in (match[2] or ""):
        return None
    return Path(match[1]).expanduser()


def text_of(given: str) -> str:
    """JSON as it was given, or what the file of that name or stdin holds."""
    if given.lstrip().startswith("{"):
        return given
    try:
        return sys.stdin.read() if given == "-" else Path(given).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{given} cannot be read: {error.strerror}.") from None
