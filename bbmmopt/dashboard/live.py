"""Live: a study as the dashboard follows it."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from bbmmopt.dashboard.lanes import Lane, in_thread
from bbmmopt.storage import Storage, StorageError, UnknownStudy
from bbmmopt.study import Study
from bbmmopt.trial import Trial, TrialState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bbmmopt.optimizer import Optimizer

Part = Literal["everything", "trials", "told"]

_MOST = 5000  # events that are gone through one by one
_PAUSE, _LONGEST = 0.4, 5.0  # seconds between looks at the storage
_HEARTBEAT = 15.0

# What a write of each kind changes besides the log.
_TOLD = ("added", "revised", "told")
_TRIALS = (*_TOLD, "asked", "enqueued", "claimed", "reclaimed", "noted")
_BEGUN = ("asked", "claimed", "reclaimed")


@dataclass(frozen=True)
class Stamp:
    """As of which revision of the study its parts are.

    Attributes:
        everything: The revision: it counts every write, reports too.
        trials: When a trial was changed last.
        told: When an outcome was told last: what a model learns from.
    """

    everything: int
    trials: int
    told: int


class Live:
    """A study of the storage: what is new there, and who wants to know.

    Args:
        storage: Where it is.
        name: Its name.

    Attributes:
        study: The study, as it is stored now.
        stamp: As of when `look` saw it.
        stopped: Why it was asked to stop, if nothing was begun since.
        light: Where what needs no model is computed.
        heavy: Where models are.

    Raises:
        UnknownStudy: If there is none of that name.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage, self.name = storage, name
        self.light, self.heavy = Lane(f"dashboard {name!r}"), Lane(f"dashboard models {name!r}")
        self._looking = threading.RLock()
        self._listeners: set[asyncio.Event] = set()
        self._watching: asyncio.Task[None] | None = None
        self._now = asyncio.Event()
        _, revision = storage.stop_asked(name, None)
        self.stopped: str | None = None
        self._look_for_stops(0)
        self.stamp = Stamp(revision, revision, revision)
        self._reported = False
        self._unexpected: set[str] = set()
        self._closed = asyncio.Event()
        self.on_reopen: list[Callable[[], None]] = []
        self._open()

    def _open(self) -> None:
        record = self.storage.study(self.name)
        if record is None:
            raise UnknownStudy(f"there is no study {self.name!r} in the storage any more.")
        self.record = record
        self.study = Study.open(self.storage, self.name)
        self._optimizer: Optimizer | None = None

    @property
    def optimizer(self) -> Optimizer:
        """The study with its model: only for what runs in the heavy lane."""
        from bbmmopt.optimizer import Optimizer  # torch, when a model is needed

        with self._looking:
            if self._optimizer is None:
                self._optimizer = Optimizer.open(self.storage, self.name)
            return self._optimizer

    def look(self) -> Stamp:
        """See what is new in the storage.

        Raises:
            UnknownStudy, StorageError: If it cannot be read.
        """
        with self._looking:
            _, revision = self.storage.stop_asked(self.name, None)
            if revision != self.stamp.everything:
                self._take_in(revision)
            return self.stamp

    def _take_in(self, revision: int) -> None:
        events = self.storage.events(self.name, self.stamp.everything, most=_MOST)
        if len(events) == _MOST:
            trials = told = revision
        else:
            trials = max((e.revision for e in events if e.kind in _TRIALS), default=0)
            told = max((e.revision for e in events if e.kind in _TOLD), default=0)
        self._look_for_stops(self.stamp.everything)
        # The log may be ahead of the revision that was read before it.
        revision = max([revision, *(e.revision for e in events[-1:])])
        if len(events) == _MOST or any(event.kind == "revised" for event in events):
            self.reopen()
        self.stamp = Stamp(revision, max(self.stamp.trials, trials), max(self.stamp.told, told))

    def _look_for_stops(self, since: int) -> None:
        """Take in the last stop after a revision, and what was begun after it."""
        stops = self.storage.events(self.name, since, kinds=("stopped",))
        if stops:
            self.stopped, since = stops[-1].detail["reason"], stops[-1].revision
        if self.storage.events(self.name, since, most=1, kinds=_BEGUN):
            self.stopped = None

    def reopen(self) -> None:
        """Open the study again: its problem or its settings were changed."""
        with self._looking:
            self._open()
            for call in self.on_reopen:
                call()

    # ------------------------------------------------------------------------- telling pages

    def summary(self) -> dict[str, Any]:
        """How the study stands, in a few numbers."""
        stamp = self.look()
        trials = self.study.trials
        counts = Counter(trial.state for trial in trials)
        best = self.study.tally.best  # kept up to date: there may be 100,000 trials
        return {
            "study": self.name,
            "stamp": asdict(stamp),
            "generation": self.record.generation,
            "counts": {str(state): counts[state] for state in TrialState},
            "total": len(trials),
            "best": None if best is None else _brief(best),
            "stopped": self.stopped,
            "reported": self._has_reports(),
            "studies": self.storage.studies(),
            "trouble": None,
        }

    def _has_reports(self) -> bool:
        self._reported = self._reported or bool(self.storage.reports(self.name, most=1)[0])
        return self._reported

    async def notes(self) -> AsyncIterator[dict[str, Any] | None]:
        """How the study stands, now and whenever that has changed; None every now and then."""
        with self._listening() as changed:
            seen, loop = None, asyncio.get_running_loop()
            while not self._closed.is_set():
                changed.clear()
                began = loop.time()
                note = await self._note()
                if note != seen:
                    yield note
                    seen = note
                    await _set_within(self._closed, _rest(loop.time() - began))
                # The storage may be back before anybody else has noticed that it was away.
                patience = _HEARTBEAT if note["trouble"] is None else _PAUSE
                if not await _set_within(changed, patience):
                    yield None

    async def _note(self) -> dict[str, Any]:
        try:
            return await in_thread(self.summary)
        except Exception as error:
            return {"study": self.name, "trouble": self._said(error)}

    @contextmanager
    def _listening(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever something is new, for as long as somebody listens."""
        changed = asyncio.Event()
        self._listeners.add(changed)
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        try:
            yield changed
        finally:
            self._listeners.discard(changed)
            if not self._listeners and self._watching is not None:
                self._watching.cancel()
                self._watching = None

    async def _watch(self) -> None:
        """Look at the storage again and again."""
        loop = asyncio.get_running_loop()
        seen: Any = None
        while True:
            began = loop.time()
            try:
                found: Any = await in_thread(self._glance)
            except Exception as error:
                found = self._said(error)
            if found != seen:
                seen = found
                self.wake()
            pause = max(_PAUSE, _rest(loop.time() - began))
            self._now.clear()
            await _set_within(self._now, pause)

    def _glance(self) -> tuple[Stamp, list[str]]:
        return self.look(), self.storage.studies()

    def _said(self, error: Exception) -> str:
        """What pages are told of an error; the terminal shows where one is that nobody expects."""
        if isinstance(error, StorageError):
            return str(error)
        text = f"unexpected {type(error).__name__}: {error} (the terminal shows where)."
        if text not in self._unexpected:  # the storage is looked at again and again
            self._unexpected.add(text)
            traceback.print_exception(error)
        return text

    def wake(self) -> None:
        """Tell all who listen to look again."""
        for event in self._listeners:
            event.set()

    def hurry(self) -> None:
        """Look at the storage now: something was changed from the page."""
        self._now.set()

    def close(self) -> None:
        """Compute nothing more, and end the notes."""
        self._closed.set()
        self.wake()
        self.light.close()
        self.heavy.close()


def _rest(seconds: float) -> float:
    """How long to rest after so long: what is done over and over takes a tenth of the time."""
    return min(9 * seconds, _LONGEST)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, so long at most; whether it came."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _brief(trial: Trial) -> dict[str, Any]:
    return {"number": trial.number, "values": trial.values, "params": trial.params}
