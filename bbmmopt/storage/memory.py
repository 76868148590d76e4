"""MemoryStorage: studies that end with the process."""

import threading
import time
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from bbmmopt.storage.base import Storage
from bbmmopt.storage.clock import LeaseClock
from bbmmopt.storage.errors import NumberTaken, UnknownStudy
from bbmmopt.storage.records import Event, Report, StudyRecord
from bbmmopt.storage.session import Session
from bbmmopt.trial import Trial, TrialState, from_json, to_json


class MemoryStorage(Storage):
    """Keeps studies in this process. One lock makes each method a transaction."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._studies: dict[str, _Study] = {}
        self._clock = LeaseClock(lambda boot, wanted: wanted)

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

    @property
    def address(self) -> None:
        return None

    def clock(self) -> float:
        return self._clock()

    def check(self) -> list[str]:
        return []

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
        self._leases: dict[int, float] = {}
        # (revision, trial) by number, in the order of the last change.
        self._trials: dict[int, tuple[int, dict[str, Any]]] = {}
        self._reports: list[Report] = []
        self._events: list[tuple[Event, dict[str, Any]]] = []
        self.add_event("created", None, {})

    @property
    def generation(self) -> int:
        return self.record.generation

    @property
    def revision(self) -> int:
        return self._revision

    def trial(self, number: int) -> Trial | None:
        return Trial.from_json(self._trials[number][1]) if number in self._trials else None

    def first_waiting(self) -> Trial | None:
        return self.trial(min(self._waiting)) if self._waiting else None

    def first_lease(self) -> Trial | None:
        if not self._leases:
            return None
        return self.trial(min(self._leases, key=lambda k: (self._leases[k], k)))

    def next_number(self) -> int:
        return self._next_number

    def insert(self, trial: Trial, kind: str) -> None:
        if trial.number in self._trials:
            raise NumberTaken(f"there is a trial {trial.number} already.")
        self._write(trial, kind, {})

    def update(self, before: Trial, after: Trial, kind: str, detail: Mapping[str, Any]) -> None:
        self._write(after, kind, detail)

    def renew(self, number: int, lease_until: float) -> None:
        self._trials[number][1]["lease_until"] = self._leases[number] = lease_until

    def add_report(self, number: int, step: int, value: float) -> None:
        self._revision += 1
        self._reports.append(Report(number, step, value, time.time(), self._revision))

    def add_event(self, kind: str, trial: Trial | None, detail: Mapping[str, Any]) -> None:
        data = to_json(detail, "detail")
        self._revision += 1
        number, worker = (None, None) if trial is None else (trial.number, trial.worker)
        event = Event(self._revision, time.time(), kind, number, worker, {})
        self._events.append((event, data))

    def revise(self, record: StudyRecord) -> None:
        self.record = _copied(record)

    def changes(self, since: int) -> tuple[list[Trial], int]:
        found = []
        for revision, data in reversed(self._trials.values()):
            if revision <= since:
                break
            found.append(Trial.from_json(data))
        return found[::-1], self._revision

    def page(self, start: int, most: int, states: Collection[TrialState]) -> list[Trial]:
        found = sorted(
            number
            for number, (_, data) in self._trials.items()
            if number >= start and data["state"] in states
        )
        return [Trial.from_json(self._trials[number][1]) for number in found[:most]]

    def reports(self, since: int, most: int | None) -> tuple[list[Report], int]:
        first = bisect_right(self._reports, since, key=lambda report: report.revision)
        later = self._reports[first:]
        found = later[:most]
        return found, found[-1].revision if len(found) < len(later) else self._revision

    def events(self, since: int, most: int | None, kinds: Collection[str] | None) -> list[Event]:
        later = [
            (event, data)
            for event, data in self._events
            if event.revision > since and (kinds is None or event.kind in kinds)
        ]
        return [replace(event, detail=from_json(data)) for event, data in later[:most]]

    def latest_event(self, kind: str, since: int) -> tuple[Event | None, int]:
        for event, data in reversed(self._events):
            if event.revision <= since:
                break
            if event.kind == kind:
                return replace(event, detail=from_json(data)), self._revision
        return None, self._revision

    def _write(self, trial: Trial, kind: str, detail: Mapping[str, Any]) -> None:
        data = trial.to_json()
        self.add_event(kind, trial, detail)
        self._trials.pop(trial.number, None)  # or it would keep its old place in the order
        self._trials[trial.number] = (self._revision, data)
        self._next_number = max(self._next_number, trial.number + 1)
        self._waiting.discard(trial.number)
        self._leases.pop(trial.number, None)
        if trial.state == TrialState.WAITING:
            self._waiting.add(trial.number)
        if trial.lease_until is not None:
            self._leases[trial.number] = trial.lease_until


def _copied(record: StudyRecord) -> StudyRecord:
    return replace(
        record,
        problem=from_json(to_json(record.problem, "problem")),
        settings=from_json(to_json(record.settings, "settings")),
    )
