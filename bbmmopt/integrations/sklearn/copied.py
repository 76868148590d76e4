"""A study as a value that can be pickled: it is opened again in memory, elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bbmmopt.integrations.kept import Kept
from bbmmopt.problem import Problem

if TYPE_CHECKING:
    # Elsewhere imported where it is used: it needs torch, and who predicts needs none.
    from bbmmopt.optimizer import Optimizer


@dataclass(frozen=True)
class StudyCopy:
    """What a search leaves of its optimizer when it is pickled.

    Attributes:
        kept: The study.
        problem: With the objects that choices stand for, which are not stored.
        device: Where its optimizer computes.
    """

    kept: Kept
    problem: Problem
    device: str

    @classmethod
    def of(cls, optimizer: Optimizer) -> StudyCopy:
        """A copy of a study as it is now."""
        return cls(Kept.of(optimizer), optimizer.problem, str(optimizer.device))

    def open(self) -> Optimizer:
        """The study in the memory of this process."""
        from bbmmopt.optimizer import Optimizer

        name, storage = self.kept.record.name, self.kept.storage()
        return Optimizer(self.problem, storage=storage, study=name, device=self.device)
