"""Outages: a storage that goes away for a while in the middle of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from bbmmopt.storage import NumberTaken, StorageError, StudyRevised, UnknownStudy

_AGAIN = 0.25  # seconds between two attempts

Result = TypeVar("Result")


class Outages:
    """Does again what a storage could not do, until it can or patience is over.

    A server is restarted, a disk is full and then freed: neither the run nor what was paid for
    should be lost. Nothing is tried again before the storage has once been written to: a file that
    may only be read stays so.

    Args:
        patience: Seconds that one thing is tried for. Where that was in vain, each is tried once
            from then on: the run is about to end.
        wait: What waits so many seconds.
        say: Called with a sentence when an outage begins.

    Attributes:
        written: Whether this run has written to the storage.
    """

    def __init__(
        self, patience: float, wait: Callable[[float], None], say: Callable[[str], None]
    ) -> None:
        self._patience, self._wait, self._say = patience, wait, say
        self.written = False

    def insist(self, act: Callable[[], Result]) -> Result:
        """What `act` returns. It must be something that may be done twice.

        Raises:
            StorageError: As it does, if that lasts.
        """
        until: float | None = None
        while True:
            try:
                return act()
            except (NumberTaken, StudyRevised, UnknownStudy):
                raise  # the storage is there
            except StorageError as error:
                if not self.written or self._patience <= 0:
                    raise
                if until is None:
                    until = time.monotonic() + self._patience
                    self._say(f"{error} Trying again for {self._patience:g} s.")
                if time.monotonic() >= until:
                    self._patience = 0.0
                    raise
                self._wait(_AGAIN)
