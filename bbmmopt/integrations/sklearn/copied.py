"""A study as a value that can be pickled: it is opened again in memory, elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bbmmopt.problem import Problem
from bbmmopt.storage import MemoryStorage, StudyRecord
from bbmmopt.trial import Trial

if TYPE_CHECKING:
    # Elsewhere imported where it is used: it needs torch, and who predicts needs none.
    from bbmmopt.optimizer import Optimizer


@dataclass(frozen=True)
class StudyCopy:
    """What a study is, and its trials.

    Attributes:
        record: As it is stored.
        problem: With the objects that choices stand for, which are not stored.
        trials: As JSON.
        device: Where its optimizer computes.
    """

    record: StudyRecord
    problem: Problem
    trials: tuple[dict[str, Any], ...]
    device: str

    @classmethod
    def of(cls, optimizer: Optimizer) -> StudyCopy:
        """A copy of a study as it is now."""
        record = optimizer.storage.study(optimizer.study)
        assert record is not None
        trials = tuple(trial.to_json() for trial in optimizer.trials)
        return cls(record, optimizer.problem, trials, str(optimizer.device))

    def open(self) -> Optimizer:
        """The study in the memory of this process."""
        from bbmmopt.optimizer import Optimizer

        storage = MemoryStorage()
        storage.create_study(self.record)
        for trial in self.trials:
            storage.add(self.record.name, Trial.from_json(trial))
        return Optimizer(self.problem, storage=storage, study=self.record.name, device=self.device)
