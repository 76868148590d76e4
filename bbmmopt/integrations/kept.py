"""Kept: a study in memory, as a value that can be pickled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bbmmopt.storage import MemoryStorage, StudyRecord
from bbmmopt.study import Study
from bbmmopt.trial import Trial


@dataclass(frozen=True)
class Kept:
    """A study that lives in memory, as it was at a moment.

    Attributes:
        record: Its problem, seed and settings.
        trials: As JSON types, by number.
        reports: (trial, step, value), the last of each step.
    """

    record: StudyRecord
    trials: list[dict[str, Any]]
    reports: list[tuple[int, int, float]]

    @classmethod
    def of(cls, study: Study) -> Kept:
        """A study as it is now."""
        record = study.storage.study(study.study)
        assert record is not None
        return cls(
            record,
            [trial.to_json() for trial in study.trials],
            [
                (number, step, value)
                for number, curve in study.curves.items()
                for step, value in curve.items()
            ],
        )

    def storage(self) -> MemoryStorage:
        """A storage that has the study as it was then."""
        storage = MemoryStorage()
        storage.create_study(self.record)
        for trial in map(Trial.from_json, self.trials):
            storage.add(self.record.name, trial)
        for number, step, value in self.reports:
            storage.report(self.record.name, number, step, value)
        return storage
