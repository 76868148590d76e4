"""The clock that leases go by on one machine: nobody sets it.

A wall clock that jumps an hour ahead would end every lease at once, and trials would run twice.
The monotonic clock of a machine is the same for all its processes, but begins anew with each boot.
So each boot is given an anchor, the wall time at which its monotonic clock showed 0, and whoever
comes first in a boot writes it where the others find it.
"""

import time
from collections.abc import Callable
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """A name for the time since this machine was started; empty where it has none."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


class LeaseClock:
    """Seconds since 1970 by an anchored monotonic clock; by the wall clock where there is no boot.

    Args:
        anchor: Called once, as anchor(boot, wanted): keeps `wanted` for the boot unless there is
            an anchor already, and returns the one that is kept.
    """

    def __init__(self, anchor: Callable[[str, float], float]) -> None:
        self._anchor = anchor
        self._zero: float | None = None

    def __call__(self) -> float:
        name = boot()
        if not name:
            return time.time()
        if self._zero is None:
            self._zero = self._anchor(name, time.time() - time.monotonic())
        return self._zero + time.monotonic()
