"""What the shell offers on TAB: from files alone, at once, and without a word when it cannot."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import click
from click.shell_completion import CompletionItem

from bbmmopt.cli.opening import VARIABLE, is_no_path
from bbmmopt.problem import Problem
from bbmmopt.space import Categorical, Ordinal
from bbmmopt.storage import Storage, StorageError, StudyRecord
from bbmmopt.storage.places import file_of
from bbmmopt.trial import TrialState

_MOST = 100  # more than anybody looks through


def storages(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files; but where STORAGE may be left out, what comes after it."""
    found = []
    if os.environ.get(VARIABLE):
        params = context.command.params
        arguments = [p for p in params[params.index(parameter) :] if isinstance(p, click.Argument)]
        for following in arguments[1:2]:
            found = following.shell_complete(context, incomplete)
    return found or [CompletionItem(incomplete, type="file")]


def study_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The studies of the storage."""
    with _storage_of(context) as storage:
        names = storage.studies() if storage else []
    return [name for name in names if name.startswith(incomplete)]


def trial_numbers(
    states: tuple[TrialState, ...],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Offers the numbers of trials in these states, saying which state."""

    def offered(
        context: click.Context, _: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from bbmmopt.study.tables import each_trial

        with _storage_of(context) as storage:
            record = _record(context, storage)
            if storage is None or record is None:
                return []
            found = (
                CompletionItem(str(trial.number), help=str(trial.state))
                for trial in each_trial(storage, record.name, states)
                if str(trial.number).startswith(incomplete)
            )
            return list(islice(found, _MOST))

    return offered


def assignments(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The names of parameters, NAME=; after that, their choices."""
    with _storage_of(context) as storage:
        record = _record(context, storage)
    if record is None:
        return []
    offered = []
    for name, parameter in Problem.from_json(record.problem).space.parameters.items():
        offered.append(f"{name}=")
        if incomplete.startswith(f"{name}=") and isinstance(parameter, Categorical | Ordinal):
            offered.remove(f"{name}=")
            for label in parameter.labels:
                text = label if isinstance(label, str) else json.dumps(label)
                offered.append(f"{name}={text}")
    return [text for text in offered if text.startswith(incomplete)]


@contextmanager
def _storage_of(context: click.Context) -> Iterator[Storage | None]:
    """The storage that was typed, if it is a file that can be read."""
    where = _where(context)
    file = file_of(where) if isinstance(where, str) and where else None
    if not isinstance(where, str) or file is None or not os.path.exists(file):
        yield None
        return
    from bbmmopt.storage.sql import SQLStorage

    try:
        storage = SQLStorage(where, busy_timeout=1.0, read_only=True)
    except StorageError:
        yield None
        return
    with storage:
        yield storage


def _where(context: click.Context) -> str | None:
    """STORAGE, as far as it was typed; else what stands for it."""
    where = context.params.get("where")
    names = [p.name for p in context.command.params if isinstance(p, click.Argument)]
    if where is None and len(context.args) > names.index("where"):
        # Before the value of an option is complete, click has not told arguments apart.
        where = context.args[names.index("where")]
    default = os.environ.get(VARIABLE)
    if where is None or (default and len(names) > 1 and is_no_path(where)):
        return default
    return where


def _record(context: click.Context, storage: Storage | None) -> StudyRecord | None:
    """The study that was typed, or the only one."""
    if storage is None:
        return None
    names, wanted = storage.studies(), context.params.get("study")
    if wanted is None and len(names) == 1:
        wanted = names[0]
    return storage.study(wanted) if wanted in names else None
