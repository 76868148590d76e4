"""Who worked on which trial when, as the log of a study tells it; and in which row that goes."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bbmmopt.storage import Event
from bbmmopt.study import StoredStudy
from bbmmopt.study.warm_start import PHASE
from bbmmopt.trial import Trial

_ENDED_BY = {"reclaimed": "taken over", "retried": "retried"}  # events that end a go
_OWNER_FIELDS = 7  # of the names that runs give themselves: host:pid:…:run


@dataclass(frozen=True)
class Attempt:
    """One go at a trial.

    Attributes:
        trial: Its number.
        number: Which go it was: 1, 2 …
        worker: Who did it; None if that is not known.
        started: Seconds since 1970.
        finished: The same; None if it is still going on.
        state: How the trial ended, or "running"; of goes before the last one "retried" (it went
            wrong, and was begun again) or "taken over" (by another worker, or by the same one
            after a restart: nobody knows when the first one was lost).
    """

    trial: int
    number: int
    worker: str | None
    started: float
    finished: float | None
    state: str


def attempts_of(study: StoredStudy) -> list[Attempt]:
    """Every go at every trial that was run here, by trial.

    Not there are trials that nobody ran: those that wait, were added, or came from another study.
    """
    turns: defaultdict[int, list[Event]] = defaultdict(list)
    for event in study.storage.events(study.study, kinds=tuple(_ENDED_BY)):
        if event.number is not None:
            turns[event.number].append(event)
    return [
        attempt
        for trial in study.trials
        if trial.started is not None and trial.origin.get("phase") not in ("told", PHASE)
        for attempt in _attempts(trial, trial.started, turns.get(trial.number, ()))
    ]


def _attempts(trial: Trial, started: float, turns: Sequence[Event]) -> Iterable[Attempt]:
    """The goes at one trial, each but the last ended by one of these events."""
    taken = (event for event in turns if event.kind == "reclaimed")
    worker = next((event.detail["from"] for event in taken), trial.worker)  # the first one's
    for number, event in enumerate(turns, 1):
        end = max(event.time, started)
        yield Attempt(trial.number, number, worker, started, end, _ENDED_BY[event.kind])
        worker, started = event.worker, end
    finished = None if trial.finished is None else max(trial.finished, started)
    last = len(turns) + 1
    yield Attempt(trial.number, last, worker, started, finished, str(trial.state))


def rows_of(attempts: Sequence[Attempt]) -> tuple[list[int], dict[str | None, int]]:
    """The row in which each attempt is drawn, and how many rows each worker has.

    The workers stand in the order in which they began. A worker that did several trials at once
    has as many rows as it takes, and each attempt goes to the first of them that is free.
    """
    inside = [0] * len(attempts)
    free: dict[str | None, list[int]] = {}
    busy: dict[str | None, list[tuple[float, int]]] = {}
    count: dict[str | None, int] = {}
    for i in sorted(range(len(attempts)), key=lambda i: (attempts[i].started, i)):
        attempt = attempts[i]
        worker = attempt.worker
        idle, working = free.setdefault(worker, []), busy.setdefault(worker, [])
        while working and working[0][0] <= attempt.started:
            heapq.heappush(idle, heapq.heappop(working)[1])
        if idle:
            inside[i] = heapq.heappop(idle)
        else:
            inside[i] = count.get(worker, 0)
            count[worker] = inside[i] + 1
        end = float("inf") if attempt.finished is None else attempt.finished
        heapq.heappush(working, (end, inside[i]))
    first, above = {}, 0
    for worker, rows in count.items():
        first[worker] = above
        above += rows
    return [
        first[attempt.worker] + row for attempt, row in zip(attempts, inside, strict=True)
    ], count


def short_workers(workers: Iterable[str | None]) -> dict[str | None, str]:
    """What each worker is called: a run's own name by its host and process, if that is enough."""
    names: dict[str | None, str] = {}
    for worker in workers:
        fields = (worker or "").split(":")
        if worker is not None and len(fields) == _OWNER_FIELDS and fields[1].isdigit():
            names[worker] = f"{fields[0]} {fields[1]}"
        else:
            names[worker] = "no name" if worker is None else worker
    called = list(names.values())
    return {
        worker: f"{name}, run {worker.split(':')[-1]}"
        if worker is not None and called.count(name) > 1 and name != worker
        else name
        for worker, name in names.items()
    }
