"""Lanes: work that takes long, beside the event loop, in threads that no one waits for at the end.

Those of a pool are waited for when Python ends, however long a model takes: these are not.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class Superseded(Exception):
    """Whoever asked has asked for something else since."""


class Closed(Exception):
    """The dashboard is ending."""


@dataclass(frozen=True, eq=False)
class _Job:
    """Something to compute.

    Attributes:
        slot: A later job of the same slot takes its place; None for none.
        function: What to call.
        loop, future: Who waits for it.
    """

    slot: str | None
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def run(self) -> None:
        """Call it, and hand over what came of it."""
        try:
            result = self.function()
        except BaseException as error:  # a thread has nobody else to tell
            self.fail(error)
        else:
            self._hand_over(self.future.set_result, result)

    def fail(self, error: BaseException) -> None:
        """Hand over an error."""
        self._hand_over(self.future.set_exception, error)

    def _hand_over(self, how: Callable[[Any], None], what: Any) -> None:
        def now() -> None:
            if not self.future.done():  # or nobody waits for it any more
                how(what)

        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(now)


class Lane:
    """One thread that does one job after the other; it starts with the first.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._running: _Job | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a job is being done."""
        return self._running is not None

    async def run(self, function: Callable[[], T], slot: str | None = None) -> T:
        """What the function returns, when its turn has come.

        Args:
            function: What to call in the thread.
            slot: Jobs of the same slot that have not begun are dropped.

        Raises:
            Superseded: If it was dropped for a later one.
            Closed: If the lane was closed.
        """
        loop = asyncio.get_running_loop()
        job = _Job(slot, function, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise Closed
            for other in [other for other in self._jobs if slot is not None and other.slot == slot]:
                self._jobs.remove(other)
                other.fail(Superseded())
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()
        return await job.future

    def close(self) -> None:
        """Do nothing more; whoever waits is told so. A job that was begun ends unheard."""
        with self._changed:
            self._closed = True
            for job in [*self._jobs, *([self._running] if self._running else [])]:
                job.fail(Closed())
            self._jobs.clear()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._running = self._jobs.popleft()
            if not job.future.cancelled():
                job.run()


async def in_thread(function: Callable[[], T]) -> T:
    """What a function returns that may wait for the storage, called in a thread of its own."""
    loop = asyncio.get_running_loop()
    job = _Job(None, function, loop, loop.create_future())
    threading.Thread(target=job.run, name="dashboard storage", daemon=True).start()
    return await job.future
