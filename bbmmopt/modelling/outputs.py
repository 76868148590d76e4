"""Beliefs about all outputs of a problem: objectives, constraints, and whether trials succeed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bbmmopt.modelling.belief import Belief
from bbmmopt.modelling.data import Data
from bbmmopt.modelling.modeller import Modeller, Stop
from bbmmopt.space import Space

# Of a label of 1 or -1: so that a single failure is a warning, not a wall, and where many trials
# agree success is as good as certain, Φ(1 / 0.5) = 0.98.
LABEL_ERROR = 0.5


@dataclass(frozen=True)
class Known:
    """What is known of every output.

    Attributes:
        objectives: At least one; larger y is better.
        constraints: They hold from y = 0 on.
        success: y = 1 of trials that were completed and -1 of those that failed, with a standard
            error of `LABEL_ERROR`; None where none has. A trial is believed to succeed where its
            label, error included, is at least 0.
        cost: Log of the seconds that trials took; None where that does not matter.
    """

    objectives: tuple[Data, ...]
    constraints: tuple[Data, ...] = ()
    success: Data | None = None
    cost: Data | None = None


@dataclass(frozen=True)
class Beliefs:
    """What is believed of every output, each by itself.

    Attributes:
        objectives, constraints: As in `Known`.
        success, cost: As in `Known`.
    """

    objectives: tuple[Belief, ...]
    constraints: tuple[Belief, ...] = ()
    success: Belief | None = None
    cost: Belief | None = None

    @property
    def first(self) -> Belief:
        """Of the first objective."""
        return self.objectives[0]

    def keep_constraints(self) -> np.ndarray:
        """Which complete trials keep all constraints, as observed, shape (n,)."""
        kept = np.ones(len(self.first.data.y), dtype=bool)
        for belief in self.constraints:
            assert belief.data.bound is not None
            kept &= (belief.data.y >= belief.data.bound) & belief.data.told
        return kept

    @property
    def members(self) -> tuple[Beliefs, ...]:
        """What may be believed of all outputs together, equally likely; empty where it is this."""
        outputs = (*self.objectives, *self.constraints)
        count = max(len(belief.members) for belief in outputs)
        rows = zip(*(belief.members or (belief,) * count for belief in outputs), strict=True)
        k = len(self.objectives)
        return tuple(replace(self, objectives=row[:k], constraints=row[k:]) for row in rows)

    @property
    def cut_short(self) -> bool:
        """Whether the fit of any was ended early."""
        others = [belief for belief in (self.success, self.cost) if belief is not None]
        return any(belief.cut_short for belief in (*self.objectives, *self.constraints, *others))


class Modellers:
    """A `Modeller` for each output.

    Args:
        space: The space.
        make: What makes one.
    """

    def __init__(self, space: Space, make: Callable[[Space], Modeller] = Modeller) -> None:
        self._space, self._make = space, make
        self._modellers: dict[str, Modeller] = {}

    def beliefs(self, known: Known, stop: Stop | None = None) -> Beliefs:
        """The beliefs after these data; the same objects when asked again about the same data.

        Args:
            known: The data.
            stop: Whether to end fits: see `Modeller.belief`.
        """
        objectives, constraints = enumerate(known.objectives), enumerate(known.constraints)
        return Beliefs(
            tuple(self._of(f"objective {i}", data, stop) for i, data in objectives),
            tuple(self._of(f"constraint {i}", data, stop) for i, data in constraints),
            None if known.success is None else self._of("success", known.success, stop),
            None if known.cost is None else self._of("cost", known.cost, stop),
        )

    def _of(self, output: str, data: Data, stop: Stop | None) -> Belief:
        modeller = self._modellers.get(output)
        if modeller is None:
            modeller = self._modellers[output] = self._make(self._space)
        return modeller.belief(data, stop)
