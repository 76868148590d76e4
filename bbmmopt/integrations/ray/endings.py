"""Which trials Ray stopped early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.air.constants import TRAINING_ITERATION
from ray.tune.result import DONE

from bbmmopt.space.checks import is_integer


def step_of(result: Mapping[str, Any]) -> int | None:
    """How many training iterations a trial had made at a result; None if it does not say."""
    step: Any = result.get(TRAINING_ITERATION)
    return int(step) if is_integer(step) and step >= 0 else None


@dataclass
class Progress:
    """How far Ray let each trial go on. By that is told which it stopped early.

    Ray says the same of all trials that ended: done. But it asks its scheduler before it shows a
    result to the search. So a last result that was never shown is one at which the trial was
    stopped; and if another trial was let go on from there, that was early.

    Attributes:
        stop: The experiment's criteria, {name: limit}: who reaches a limit has come to its end.
        reached: The last training iteration of each trial after which it went on.
    """

    stop: dict[str, Any] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)

    def shown(self, trial_id: str, step: int) -> None:
        """Take note of a result on the way."""
        self.reached[trial_id] = max(step, self.reached.get(trial_id, step))

    def cut_short(self, trial_id: str, result: Mapping[str, Any]) -> int | None:
        """After how many training iterations a trial was stopped that would have gone on.

        Args:
            trial_id: Ray's name of it.
            result: Its last one, flattened; empty if there is none, as of a paused trial.

        Returns:
            None if it came to its end.
        """
        step, reached = step_of(result), self.reached.get(trial_id, -1)
        if not result:
            return None if reached < 0 else reached
        if step is None:
            return None
        if result.get(DONE, True) is False:
            return step  # the experiment was stopped as a whole
        if any(name in result and result[name] >= limit for name, limit in self.stop.items()):
            return None
        early = step > reached and any(step <= other for other in self.reached.values())
        return step if early else None
