"""How much a search may still do: candidates, and time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


def now() -> float:
    """Seconds on a clock that never goes back."""
    return time.monotonic()


class Budget:
    """What is left of the candidates, and of the time, that an `ask` may take.

    A search asks before each batch whether it may be scored, and ends with the best it has where it
    may not: nothing is interrupted, so time is overrun by what one batch takes. A part of a budget
    spends from the whole.

    Args:
        seconds: Time from now on; no limit if left out.
        evaluations: Candidates that may be scored; no limit if left out.

    Attributes:
        left: How many candidates may still be scored; math.inf without a limit.
        deadline: Until when, by `now`; math.inf without a limit.
        ended: What has ended a search early, or made it smaller: "time", "evaluations".
    """

    def __init__(self, seconds: float | None = None, evaluations: int | None = None) -> None:
        began = 0.0 if seconds is None else now()
        self.left: float = math.inf if evaluations is None else evaluations
        self.deadline = math.inf if seconds is None else began + seconds
        self.ended: set[str] = set()
        self._fits_until = math.inf if seconds is None else began + 0.5 * seconds
        self._whole: Budget | None = None
        self._each = 1
        self._own = False  # whether the limit on evaluations is none of the whole's

    def __repr__(self) -> str:
        return f"Budget(left={self.left:g}, deadline={self.deadline:g})"

    # Time

    @property
    def is_late(self) -> bool:
        """Whether the time is over."""
        return self.deadline < math.inf and now() >= self.deadline

    @property
    def ends_fits(self) -> Callable[[], bool] | None:
        """What says whether fits should end, which is after half the time; None without a limit.

        Of all parts of one budget it is the same, of two budgets never.
        """
        whole = self
        while whole._whole is not None:
            whole = whole._whole
        return None if whole.deadline == math.inf else whole._no_more_fits

    def _no_more_fits(self) -> bool:
        return now() >= self._fits_until

    def seconds_of(self, parts: int) -> float | None:
        """One of so many equal parts of the seconds left, hardly any if late; None if no limit."""
        if self.deadline == math.inf:
            return None
        return max(self.deadline - now(), 1e-9) / parts

    # Candidates

    def allows(self, count: int) -> bool:
        """Whether so many candidates may be scored now; if not, `ended` tells why."""
        if self.left < count:
            self.end("evaluations")
        elif self.is_late:
            self.end("time")
        else:
            return True
        return False

    def most(self, count: int, late: int = 0) -> int:
        """How many of `count` candidates may be scored, when that is the last that is done.

        Args:
            count: How many there are.
            late: How many may be when the time is over.
        """
        allowed = count
        if self.is_late and late < count:
            allowed = late
            self.end("time")
        if self.left < allowed:
            allowed = max(int(self.left), 0)
            self.end("evaluations")
        return allowed

    def spend(self, count: int) -> None:
        """Count candidates that are being scored."""
        self.left -= count
        if self._whole is not None:
            self._whole.spend(count * self._each)

    def end(self, why: str) -> None:
        """Note what a search is ended by, "time" or "evaluations"."""
        self.ended.add(why)
        if self._whole is not None and not (self._own and why == "evaluations"):
            self._whole.end(why)

    # Parts

    def part(self, of: int, least: int = 0) -> Budget:
        """One of so many equal parts of what is left, of at least so many candidates."""
        part = self._like(self.left if self.left == math.inf else max(self.left // of, least))
        if self.deadline < math.inf:
            began = now()
            part.deadline = began + max(self.deadline - began, 0.0) / of
        return part

    def keeping(self, count: int) -> Budget:
        """What is left but for so many candidates."""
        return self._like(self.left - count)

    def capped(self, count: int) -> Budget:
        """What is left, up to so many candidates; the whole does not note that it ends there."""
        part = self._like(min(self.left, count))
        part._own = count < self.left
        return part

    def groups(self, size: int) -> Budget:
        """The same, counted in groups of so many candidates."""
        part = self._like(self.left if self.left == math.inf else self.left // size)
        part._each = size
        return part

    def _like(self, left: float) -> Budget:
        part = Budget()
        part.left, part.deadline, part._whole = left, self.deadline, self
        return part
