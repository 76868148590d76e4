"""What a strategy is: from what is known to the next point, by counted randomness."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch

from bbmmopt.modelling import Data, Known
from bbmmopt.search import Budget
from bbmmopt.strategies.guide import Guide


def generator(seed: int, number: int, purpose: str) -> torch.Generator:
    """The randomness of one purpose of one trial, independent of every other's.

    Counted, not streamed: what trial 17 draws does not depend on whether trial 16 was drawn in this
    process, in another one, or before a crash. No generator state needs storing.
    """
    digest = hashlib.blake2b(f"{seed}/{number}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) % 2**63)


@dataclass(frozen=True)
class Past:
    """One earlier trial.

    Attributes:
        outcome: "complete", "failed" or, while there is none, "pending": the k-th of each is row k
            of that kind in `Data`.
        origin: That of its `Proposal`, or who else it is from.
    """

    outcome: Literal["complete", "failed", "pending"]
    origin: Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """One question to a strategy.

    Attributes:
        data: What is known of the first objective.
        number: Number of the trial to be proposed.
        seed: The study's seed.
        fixed: Columns that must have a given value in [0, 1].
        seen: Rows, as bytes, that must not be proposed.
        others: What is known of the other objectives.
        constraints: What is known of the constraints, which hold from y = 0 on.
        success: Which trials came to an end; None where all did. See `Known`.
        reference: What counts as worthless in each of several objectives, larger being better;
            None where it is to be found.
        cost: What is known of the log of the seconds that trials take; None where they do not
            matter.
        guide: What else the user knows or wants.
        past: How each trial so far came about, in order of number; told by the user where left out.
        repeats: Whether points that are running or complete may be proposed again.
        budget: How much may be done for the answer, and for others.
        trials: How many trials the budget is for, this one first.
    """

    data: Data
    number: int
    seed: int
    fixed: Mapping[int, float] = field(default_factory=dict)
    seen: Set[bytes] = frozenset()
    others: tuple[Data, ...] = ()
    constraints: tuple[Data, ...] = ()
    success: Data | None = None
    reference: np.ndarray | None = None
    past: Sequence[Past] = ()
    cost: Data | None = None
    guide: Guide = field(default_factory=Guide)
    repeats: bool = False
    budget: Budget = field(default_factory=Budget)
    trials: int = 1

    @property
    def known(self) -> Known:
        """What is known of every output."""
        return Known((self.data, *self.others), self.constraints, self.success, self.cost)

    def alone(self) -> Request:
        """The same with its own part of the budget, now that what serves all trials is done."""
        return replace(self, budget=self.budget.part(self.trials, least=1), trials=1)

    def after(self, proposal: Proposal, key: bytes) -> Request:
        """The request for the next trial, this proposal running.

        Args:
            proposal: An answer to this request.
            key: What `seen` would hold of it.
        """

        def running(data: Data) -> Data:
            return replace(data, pending=np.concatenate([data.pending, proposal.x[None]]))

        return replace(
            self,
            data=running(self.data),
            number=self.number + 1,
            seen=self.seen if self.repeats else self.seen | {key},
            others=tuple(map(running, self.others)),
            constraints=tuple(map(running, self.constraints)),
            success=None if self.success is None else running(self.success),
            past=(*self.past, Past("pending", proposal.origin)),
        )


@dataclass(frozen=True)
class Proposal:
    """An answer.

    Attributes:
        x: A row on the lattice of the space, shape (d,).
        origin: How it came about, in JSON types: "phase", and what the phase has to tell.
    """

    x: np.ndarray
    origin: dict[str, Any]


class Strategy(Protocol):
    """Decides what to try next. A function of the request: it may cache, but not remember."""

    def propose(self, request: Request) -> Proposal:
        """The next point."""
        ...
