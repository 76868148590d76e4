"""MemoryStorage: studies that end with the process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from bbmmopt.storage.base import NumberTaken, Session, Storage, StudyRecord, UnknownStudy
from bbmmopt.trial import Trial, TrialState, from_json, to_json


class MemoryStorage(Storage):
    """Keeps studies in this process. One lock makes each method a transaction."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._studies: dict[str, _Study] = {}

    def create_study(self, record: StudyRecord) -> StudyRecord:
        with self._lock:
            if record.name not in self._studies:
                self._studies[record.name] = _Study(_copied(record))
            return _copied(self._studies[record.name].record)

    def study(self, name: str) -> StudyRecord | None:
        with self._lock:
            return _copied(self._studies[name].record) if name in self._studies else None

    def studies(self) -> list[str]:
        with self._lock:
            return list(self._studies)

    def close(self) -> None:
        """Nothing to let go of: the studies stay until the storage is forgotten."""

    @contextmanager
    def _session(self, study: str, *, write: bool) -> Iterator["_Study"]:
        # Nothing to undo: each method of Storage checks first, and its one write comes last.
        with self._lock:
            if study not in self._studies:
                raise UnknownStudy(f"there is no study {study!r} in memory.")
            yield self._studies[study]


class _Study(Session):
    """One study. Trials are kept as JSON, as a database would: so what a caller does to the dicts
    of a trial changes nothing here, and what could not be stored is refused here too."""

    def __init__(self, record: StudyRecord) -> None:
        self.record = record
        self._revision = 0
        self._next_number = 0
        self._waiting: set[int] = set()
        # (revision, trial) by number, in the order of the last change.
        self._trials: dict[int, tuple[int, dict[str, Any]]] = {}

    def trial(self, number: int) -> Trial | None:
        return Trial.from_json(self._trials[number][1]) if number in self._trials else None

    def first_waiting(self) -> Trial | None:
        return self.trial(min(self._waiting)) if self._waiting else None

    def next_number(self) -> int:
        return self._next_number

    def insert(self, trial: Trial) -> None:
        if trial.number in self._trials:
            raise NumberTaken(f"there is a trial {trial.number} already.")
        self._write(trial)

    def update(self, before: Trial, after: Trial) -> None:
        self._write(after)

    def changes(self, since: int) -> tuple[list[Trial], int]:
        found = []
        for revision, data in reversed(self._trials.values()):
            if revision <= since:
                break
            found.append(Trial.from_json(data))
        return found[::-1], self._revision

    def _write(self, trial: Trial) -> None:
        data = trial.to_json()
        self._revision += 1
        self._trials.pop(trial.number, None)  # or it would keep its old place in the order
        self._trials[trial.number] = (self._revision, data)
        self._next_number = max(self._next_number, trial.number + 1)
        self._waiting.discard(trial.number)
        if trial.state == TrialState.WAITING:
            self._waiting.add(trial.number)


def _copied(record: StudyRecord) -> StudyRecord:
    return replace(
        record,
        problem=from_json(to_json(record.problem, "problem")),
        settings=from_json(to_json(record.settings, "settings")),
    )
