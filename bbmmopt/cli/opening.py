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

from bbmmopt.cli.errors import BAD_INPUT, NO_STUDY, Failure, bad_input
from bbmmopt.problem import Problem
from bbmmopt.storage import Storage, StudyRecord, open_storage
from bbmmopt.storage.places import file_of
from bbmmopt.trial import Trial

if TYPE_CHECKING:
    from bbmmopt.optimizer import Optimizer
    from bbmmopt.study import Study


# Stands for STORAGE where that is left out.
VARIABLE = "BBMMOPT_STORAGE"

_NO_PATH = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[^/\\=]+=.*", re.DOTALL)


def is_no_path(text: str) -> bool:
    """Whether a text is a number or NAME=VALUE, which in the place of STORAGE means the next one.

    A file of such a name is still to be had, as ./3.
    """
    return _NO_PATH.fullmatch(text) is not None


def storage_at(where: str) -> Storage:
    """A storage, made if it is not there."""
    with bad_input():
        return open_storage(where)


@contextmanager
def existing_storage(where: str) -> Iterator[Storage]:
    """A storage that is there."""
    file = file_of(where)
    if file is not None and not os.path.exists(file):
        raise Failure(
            f"there is no file {where}. Give the path of a study, or start one with "
            f"'bbmmopt create {where} …'.",
            NO_STUDY,
        )
    with storage_at(where) as storage:
        yield storage


@contextmanager
def existing_study(where: str, study: str | None) -> Iterator[tuple[Storage, StudyRecord]]:
    """A storage that is there, and the record of the study that is meant."""
    with existing_storage(where) as storage:
        names = storage.studies()
        if study is None and len(names) > 1:
            listed = ", ".join(names)
            raise Failure(
                f"{named(where)} holds several studies, choose by --study: {listed}.", BAD_INPUT
            )
        found = storage.study(names[0] if study is None else study) if names else None
        if found is None:
            there = f"it holds: {', '.join(names)}" if names else "it holds none yet"
            which = "" if study is None else f" {study!r}"
            raise Failure(f"there is no study{which} in {named(where)}; {there}.", NO_STUDY)
        yield storage, found


@contextmanager
def stored(where: str, study: str | None) -> Iterator[tuple[Storage, str, Problem]]:
    """What is needed to read: without torch."""
    with existing_study(where, study) as (storage, found):
        yield storage, found.name, Problem.from_json(found.problem)


@contextmanager
def study_of(where: str, study: str | None) -> Iterator[Study]:
    """What is needed to tell: without torch, too."""
    with existing_study(where, study) as (storage, found):
        from bbmmopt.study import FailedTrialWarning, Study

        warnings.simplefilter("always", FailedTrialWarning)  # until the command ends
        yield Study.open(storage, found.name)


@contextmanager
def optimizer_of(where: str, study: str | None, device: str = "cpu") -> Iterator[Optimizer]:
    """What is needed to ask."""
    with existing_study(where, study) as (storage, found):
        from bbmmopt.devices import usable
        from bbmmopt.optimizer import Optimizer

        with bad_input():
            there = usable(device)
        yield Optimizer.open(storage, found.name, device=there)


def trials_of(storage: Storage, study: str) -> list[Trial]:
    """All trials of a study, by number."""
    return sorted(storage.changes(study)[0], key=lambda trial: trial.number)


def named(where: str) -> str:
    """A path or URL for a message: without the password, which may be in its query too."""
    if "://" not in where:
        return where
    return re.sub(r"(//[^:/@]*:).*@", r"\1***@", where.partition("?")[0])


def text_of(given: str) -> str:
    """JSON as it was given, or what the file of that name or stdin holds."""
    if given.lstrip().startswith("{"):
        return given
    try:
        return sys.stdin.read() if given == "-" else Path(given).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{given} cannot be read: {error.strerror}.") from None
