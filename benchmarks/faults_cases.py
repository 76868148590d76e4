"""The cases of faults.py that every library runs: kills, writers at once, held locks.

Each takes a class of stores, a place to keep them, and counts; each returns what was counted.
"""

import signal
import statistics
import time
from collections import Counter
from functools import partial
from typing import Any

from benchmarks.faults_children import Child, ChildFailed, Say, call, killed
from benchmarks.faults_places import Place
from benchmarks.faults_points import Points
from benchmarks.faults_stores import Seen, Store, value_of

Stores = type[Store]


def kills(stores: Stores, place: Place, kills: int, longest: float = 0.3) -> dict[str, Any]:
    """A process that asks and tells is killed at random moments, again and again.

    It says that a result is recorded once `tell` has returned. `next_start` are the seconds that
    a new process takes to open the study and ask.
    """
    url = place.fresh()
    told: Counter[int] = Counter()
    asked_after, damage, starts = 0, [], []
    call(lambda: stores(url).close())
    for kill in range(kills):
        work = partial(_ask_and_tell, stores, url)
        for what, number in killed(work, kill, longest, after_first=True):
            asked_after += what == "asked" and number in told
            told[number] += what == "told"
        damage += place.damage(url)
        seconds, number = call(partial(_restart, stores, url))
        starts.append(seconds)
        told[number] += 1
    damage += call(lambda: stores(url).check())
    trials = seen(stores, url)
    place.drop(url)
    return {
        "kills": kills,
        "acknowledged": len(+told),
        "lost": sum(not kept(trials.get(number)) for number in +told),
        "run_twice": asked_after + sum(count > 1 for count in told.values()),
        "stuck": sum(trial.state == "running" for trial in trials.values()),
        "damage": sorted(set(damage)),
        "next_start": spread(starts),
        "trials": len(trials),
    }


def early_kills(stores: Stores, place: Place, kills: int, longest: float = 0.15) -> dict[str, Any]:
    """As `kills`, but each time of a process that creates a new database."""
    counts = dict.fromkeys(("acknowledged", "lost", "run_twice", "stuck"), 0)
    broken, damage, starts = [], [], []
    for kill in range(kills):
        url = place.fresh()
        said = killed(partial(_ask_and_tell, stores, url), kill, longest, after_first=False)
        told = [number for what, number in said if what == "told"]
        try:
            seconds, number = call(partial(_restart, stores, url))
            starts.append(seconds)
            counts["run_twice"] += number in told
            trials = seen(stores, url)
            told.append(number)
            counts["acknowledged"] += len(told)
            counts["lost"] += sum(not kept(trials.get(number)) for number in told)
            counts["stuck"] += sum(trial.state == "running" for trial in trials.values())
            damage += place.damage(url) + call(lambda url=url: stores(url).check())
        except ChildFailed as error:
            broken.append(in_short(error))
        place.drop(url)
    return {
        "kills": kills,
        **counts,
        "cannot_go_on": len(broken),
        "because": sorted(set(broken))[:3],
        "damage": sorted(set(damage)),
        "next_start": spread(starts),
    }


def _ask_and_tell(stores: Stores, url: str, say: Say) -> None:
    """Until it is killed."""
    store = stores(url)
    say("open", -1)
    while True:
        number = store.ask()
        say("asked", number)
        store.tell(number)
        say("told", number)


def _restart(stores: Stores, url: str) -> tuple[float, int]:
    """Seconds to open and ask; the number asked for, which is then told."""
    began = time.perf_counter()
    store = stores(url)
    number = store.ask()
    seconds = time.perf_counter() - began
    store.tell(number)
    return seconds, number


def writers(
    stores: Stores, place: Place, writers: int, claims: int, waiting: int
) -> dict[str, Any]:
    """Processes that start at once claim, each so many times, trials that wait in line."""
    url = place.fresh()

    def fill() -> None:
        store = stores(url)
        for _ in range(waiting):
            store.enqueue()

    def work(name: str, say: Say) -> None:
        store = stores(url, worker=name)
        say("ready", None)
        say.wait()
        for _ in range(claims):
            try:
                number = store.claim()
                say("claimed", number)
                if number is not None:
                    store.tell(number)
                    say("told", number)
            except Exception as error:  # whatever a library raises, its users go on
                say("error", in_short(error))
        say("done", time.perf_counter())

    call(fill, 600)
    children = [Child(partial(work, f"w{i}")) for i in range(writers)]
    for child in children:
        child.line()
    start = time.perf_counter()
    for child in children:
        child.go()
    said = [(what, number) for child in children for what, number in child.said(600)]
    for child in children:
        child.end()
    errors = [text for what, text in said if what == "error"]
    ends = [moment for what, moment in said if what == "done"]
    claimed = Counter(n for what, n in said if what == "claimed" and n is not None)
    told = {n for what, n in said if what == "told"}
    trials = seen(stores, url)
    in_line = range(waiting)
    damage = place.damage(url) + call(lambda: stores(url).check())
    place.drop(url)
    return {
        "writers": writers,
        "claims": writers * claims,
        "waiting": waiting,
        "claimed_once": sum(claimed[n] == 1 for n in in_line),
        "run_twice": sum(claimed[n] > 1 for n in in_line),
        "told_that_none_waits": sum(what == "claimed" and n is None for what, n in said),
        "acknowledged": len(told),
        "lost": sum(not kept(trials.get(number)) for number in told),
        "stuck": sum(trials[n].state != "complete" for n in in_line if n in trials),
        "failed": len(errors),
        "because": sorted(set(errors))[:3],
        "damage": damage,
        "seconds": round(max(ends) - start, 2),
    }


def held_locks(
    stores: Stores, place: Place, rounds: int, busy_timeout: float = 5.0
) -> dict[str, Any]:
    """A process is killed just before the commit of a tell; another waits to tell its own trial.

    `blocked` are the seconds from the kill until the other's tell returns.
    """
    url = place.fresh()
    blocked, errors, lost, half_done, damage = [], [], 0, 0, []

    def hold(say: Say) -> None:
        store = stores(url, worker="holder", busy_timeout=busy_timeout)
        number = store.ask()
        say("asked", number)

        def wait() -> None:
            say("holding")
            time.sleep(600)

        with Points(1, "before write", wait).armed():
            store.tell(number)

    def other(say: Say) -> None:
        store = stores(url, worker="other", busy_timeout=busy_timeout)
        number = store.ask()
        say("asked", number)
        say.wait()
        say("telling", number)
        store.tell(number)
        say("told", time.perf_counter())

    call(lambda: stores(url).seen())
    for _ in range(rounds):
        waiter, holder = Child(other), None
        try:
            _, number = waiter.line() or (None, -1)
            holder = Child(hold)
            _, held = holder.line() or (None, -1)
            assert holder.line() == ["holding"]
            waiter.go()
            waiter.line()
            time.sleep(0.1)  # so that it waits in the database
            holder.end(signal.SIGKILL)
            freed = time.perf_counter()
            told = waiter.line()
            assert told is not None
            blocked.append(max(told[1] - freed, 0.0))
            trials = seen(stores, url)
            lost += not kept(trials.get(number))
            half_done += trials[held].state != "running" or trials[held].value is not None
        except ChildFailed as error:
            errors.append(in_short(error))
        finally:
            waiter.end(signal.SIGKILL)
            if holder is not None:
                holder.end(signal.SIGKILL)
        damage += place.damage(url)
    place.drop(url)
    return {
        "kills": rounds,
        "acknowledged": len(blocked),
        "lost": lost,
        "half_done": half_done,
        "failed": len(errors),
        "because": sorted(set(errors))[:3],
        "damage": sorted(set(damage)),
        "busy_timeout": busy_timeout,
        "blocked": spread(blocked),
    }


def in_short(error: Exception) -> str:
    """An error in a line."""
    text = str(error) if isinstance(error, ChildFailed) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:200]


def seen(stores: Stores, url: str) -> dict[int, Seen]:
    """All trials as a new process reads them."""
    return {trial["number"]: Seen(**trial) for trial in call(lambda: stores(url).seen())}


def kept(trial: Seen | None) -> bool:
    """Whether the value that was told of a trial is there."""
    return trial is not None and trial.value == value_of(trial.number)


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and most."""
    if not seconds:
        return {}
    return {"median": round(statistics.median(seconds), 4), "most": round(max(seconds), 4)}
