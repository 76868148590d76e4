"""Reports of running trials, and whether a trial should go on: from whichever process it runs in.

Imports no torch: worker processes use it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from bbmmopt.early_stopping import rule_from_json
from bbmmopt.problem import Problem, to_number
from bbmmopt.space.checks import is_integer, shown
from bbmmopt.storage import Storage, StudyRecord, open_storage

_MOST = 2**63  # what a database holds


class StudyReporter:
    """Where the reports of one study go, and the learning curves they are.

    Picklable: in another process it opens the storage there. Safe to use from several threads.

    Args:
        storage: Where they are kept.
        record: The study.
    """

    def __init__(self, storage: Storage, record: StudyRecord) -> None:
        self._storage, self._study, self._seed = storage, record.name, record.seed
        problem = Problem.from_json(record.problem)
        self._sign = 1.0 if problem.objectives[0].direction == "maximize" else -1.0
        rule = record.settings.get("early_stopping")
        self._rule = None if rule is None else rule_from_json(rule)
        self._lock = threading.RLock()
        self._curves: dict[int, dict[int, float]] = {}
        self._turned: dict[int, dict[int, float]] = {}  # larger is better
        self._ended: dict[int, str] = {}
        self._revision = 0

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        address = self._storage.address
        return (_unreachable, ()) if address is None else (_reporter_at, (address, self._study))

    def report(self, number: int, step: int, value: float) -> None:
        """Keep a report; see `Trial.report`.

        Raises:
            TypeError, ValueError: If step or value is not one, saying what came.
            UnknownTrial: If there is no such trial.
        """
        if not is_integer(step):
            raise TypeError(f"trial {number}: a step is an integer, 0, 1, 2 …; got {shown(step)}.")
        if not 0 <= step < _MOST:
            raise ValueError(f"trial {number}: a step is an integer from 0 on; got {shown(step)}.")
        plain = to_number(f"trial {number}: the value at step {step}", value)
        trial = self._storage.report(self._study, number, int(step), plain)
        if trial.state.finished:
            with self._lock:
                self._ended[number] = f"trial {number} has ended already: it is {trial.state}."

    def curves(self) -> Mapping[int, Mapping[int, float]]:
        """{trial: {step: value}}, the last value of each step, as of now, in the user's sign."""
        with self._lock:
            self._sync()
            return {number: dict(curve) for number, curve in self._curves.items()}

    def should_stop(self, number: int) -> str | None:
        """Why the trial should not go on, in a sentence; None if it should."""
        with self._lock:
            if number in self._ended or self._rule is None:
                return self._ended.get(number)
            self._sync()
            return self._rule.stops(self._turned, number, seed=self._seed, sign=self._sign)

    def _sync(self) -> None:
        reports, self._revision = self._storage.reports(self._study, self._revision)
        for report in reports:
            self._curves.setdefault(report.number, {})[report.step] = report.value
            self._turned.setdefault(report.number, {})[report.step] = self._sign * report.value


class _Unreachable:
    """Stands for a study in the memory of another process."""

    def report(self, number: int, step: int, value: float) -> None:
        raise RuntimeError(
            f"trial {number} cannot report from here: its study is in the memory of another "
            f'process. Give the study a storage that both can reach: storage="study.db".'
        )

    def should_stop(self, number: int) -> str | None:
        self.report(number, 0, 0.0)


_HERE: dict[tuple[str, str], StudyReporter] = {}  # one a study and process
_LOCK = threading.Lock()


def _reporter_at(address: str, study: str) -> StudyReporter:
    """The reporter of a study in this process."""
    with _LOCK:
        if (address, study) not in _HERE:
            storage = open_storage(address)
            record = storage.study(study)
            if record is None:
                raise RuntimeError(f"there is no study {study!r} in the storage any more.")
            _HERE[address, study] = StudyReporter(storage, record)
        return _HERE[address, study]


def _unreachable() -> _Unreachable:
    return _Unreachable()
