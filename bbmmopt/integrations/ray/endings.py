"""Which trials Ray stopped early."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.air.constants import TRAINING_ITERATION
from ray.tune.result import DONE

from bbmmopt.space.checks import is_integer

_log = logging.getLogger(__name__)


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
        max_t: The training iteration at which a trial has come to its end; None if nobody says.
        stop: The experiment's criteria, {name: limit}: who reaches a limit has come to its end.
        reached: The last training iteration of each trial after which it went on, or was paused.
        last: The last result that was shown of each trial under way, flattened.
        warned: Whether it was said what of paused trials cannot be told.
    """

    max_t: int | None = None
    stop: dict[str, Any] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    last: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    warned: bool = False

    def shown(self, trial_id: str, step: int, result: Mapping[str, Any]) -> None:
        """Take note of a result on the way."""
        self.reached[trial_id] = max(step, self.reached.get(trial_id, step))
        self.last[trial_id] = result

    def ended(self, trial_id: str, result: Mapping[str, Any], error: bool) -> Mapping[str, Any]:
        """The last result of a trial. Of one that ended while it was paused, Ray shows none again.

        Args:
            trial_id: Ray's name of it.
            result: What Ray shows, flattened; may be empty.
            error: Whether it raised an error.
        """
        last = self.last.pop(trial_id, {})
        if result or error or not last:
            return result
        if self.max_t is None and not self.warned:
            self.warned = True
            _log.warning(
                "Ray stopped trial %r while it was paused, as HyperBandScheduler does with its "
                "best ones too: all of them count as stopped early. Give BBMMSearch(max_t=…), that "
                "of the scheduler, and those which came to their end are complete.",
                trial_id,
            )
        return {**last, DONE: False}

    def cut_short(self, trial_id: str, result: Mapping[str, Any]) -> int | None:
        """After how many training iterations a trial was stopped that would have gone on.

        Args:
            trial_id: Ray's name of it.
            result: Its last one, flattened.

        Returns:
            None if it came to its end.
        """
        step = step_of(result)
        if step is None or (self.max_t is not None and step >= self.max_t):
            return None
        if any(name in result and result[name] >= limit for name, limit in self.stop.items()):
            return None
        if result.get(DONE, True) is False:
            return step  # while it was paused, or as the experiment was stopped as a whole
        early = step > self.reached.get(trial_id, -1)
        return step if early and any(step <= other for other in self.reached.values()) else None
