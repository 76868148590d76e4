"""Beliefs about all outputs of a problem: objectives, constraints, and whether trials succeed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bbmmopt.modelling.belief import Belief
from bbmmopt.modelling.data import Data
from bbmmopt.modelling.modeller import Modeller
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


class Modellers:
    """A `Modeller` for each output.

    Args:
        space: The space.
        make: What makes one.
    """

    def __init__(self, space: Space, make: Callable[[Space], Modeller] = Modeller) -> None:
        self._space, self._make = space, make
        self._modellers: dict[str, Modeller] = {}

    def beliefs(self, known: Known) -> Beliefs:
        """The beliefs after these data; the same objects when asked again about the same data."""
        return Beliefs(
            tuple(self._of(f"objective {i}", data) for i, data in enumerate(known.objectives)),
            tuple(self._of(f"constraint {i}", data) for i, data in enumerate(known.constraints)),
            None if known.success is None else self._of("success", known.success),
            None if known.cost is None else self._of("cost", known.cost),
        )

    def _of(self, output: str, data: Data) -> Belief:
        modeller = self._modellers.get(output)
        if modeller is None:
            modeller = self._modellers[output] = self._make(self._space)
        return modeller.belief(data)
