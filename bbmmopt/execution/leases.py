"""Leases: signs of life for the trials under way, so that nobody else takes them over."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bbmmopt.trial import Trial

if TYPE_CHECKING:
    # Elsewhere imported where it is used: it needs torch, and worker processes read this file.
    from bbmmopt.optimizer import Optimizer


class Leases:
    """Renews leases when a third of their time is over, from the loop: without a thread.

    Args:
        optimizer: Whose trials have them.
        lease: Seconds; None for no leases.
    """

    def __init__(self, optimizer: Optimizer, lease: float | None) -> None:
        self._optimizer = optimizer
        self.every = math.inf if lease is None else lease / 3
        self._due = time.monotonic() + self.every

    def renew(self, trials: Iterable[Trial]) -> None:
        """Renew the leases of these, if it is time."""
        now = time.monotonic()
        if now < self._due:
            return
        for trial in trials:
            # Somebody may have taken it over: the result counts if it is there first.
            self._optimizer.renew(trial)
        self._due = now + self.every
