"""Interrupts: Ctrl-C and SIGTERM ask a run to end; a second one ends it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """While it is entered, the first SIGINT or SIGTERM is only noted; the second raises.

    It raises KeyboardInterrupt in an `interruptible` block, or at the beginning of the next one:
    not halfway through a transaction. A third one raises wherever it comes.

    Handlers can be set in the main thread only: elsewhere this does nothing. A signal that the
    process ignores (nohup) stays ignored. The caller's handlers are back afterwards.

    Args:
        note: Called when the first signal comes, from within a signal handler.

    Attributes:
        by: What came, "Ctrl-C" or "SIGTERM"; None so far.
    """

    def __init__(self, note: Callable[[], None]) -> None:
        self.by: str | None = None
        self._note = note
        self._raises = self._waits = False
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # None: set from C, and could not be put back.
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that a second signal may break off."""
        self._raises = True
        try:
            if self._waits:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A child that the objective forked has inherited this. It must end when it is told
            # to, or multiprocessing.Pool.terminate() would wait for it for ever.
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)
            return
        if self.by is None:
            self.by = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
            self._note()
        elif self._raises or self._waits:
            raise KeyboardInterrupt
        else:
            self._waits = True
