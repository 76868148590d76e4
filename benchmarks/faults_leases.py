"""Workers that stop, and clocks that jump, for faults.py: what leases are for. Ours only."""

import signal
import time
from functools import partial
from typing import Any

from benchmarks.faults_cases import Stores, seen, spread
from benchmarks.faults_children import Child, Say, call
from benchmarks.faults_places import Place
from benchmarks.faults_stores import Ours

_DAY = 86_400.0
_HERS, _HIS = 1.0, 2.0  # what the two workers of a trial measured


class Worker:
    """A process with a study open, which does as it is told.

    Args:
        url: Of the database.
        name: Under which it asks.
        lease: Seconds.
        jump: By how much its clock on the wall is wrong from the beginning, in seconds.
    """

    def __init__(self, url: str, name: str, lease: float, jump: float = 0.0) -> None:
        self.child = Child(partial(_serve, url, name, lease, jump))
        self.answer()

    def ask(self) -> tuple[int, float, float]:
        """Number of the trial it was given, and the moments before and after."""
        number, before, after = self.do("ask")
        return number, before, after

    def tell(self, number: int, value: float) -> tuple[str, str]:
        """("told", value), or name and text of the error."""
        what, text = self.do("tell", number, value)
        return what, text

    def do(self, *what: Any) -> list[Any]:
        """Let it do something and say what came of it."""
        self.child.go(*what)
        return self.answer()

    def answer(self) -> list[Any]:
        """What it says next."""
        line = self.child.line()
        assert line is not None
        return line

    def end(self) -> None:
        """Kill it, which it should survive."""
        self.child.end(signal.SIGKILL)


def _serve(url: str, name: str, lease: float, jump: float, say: Say) -> None:
    """What a Worker's process does."""
    real = time.time
    time.time = lambda: real() + jump
    store = Ours(url, worker=name, lease=lease)
    say("ready")
    while True:
        what, *rest = say.wait()
        if what == "ask":
            began = time.monotonic()
            say(store.ask(), began, time.monotonic())
        elif what == "jump":
            jump = rest[0]
            say("jumped")
        else:
            number, value = rest
            try:
                store.optimizer.tell(number, value)
                say("told", value)
            except Exception as error:
                say(type(error).__name__, str(error))


def stopped_worker(stores: Stores, place: Place, rounds: int, lease: float = 0.5) -> dict[str, Any]:
    """A worker is stopped beyond its lease, its trial taken over, then the worker continued.

    In every other round the late one tells before the other, else after it. `after_lease` are the
    seconds beyond the lease until the trial went to the other, who asks all the time.
    """
    url = place.fresh()
    counts: dict[str, int] = dict.fromkeys(_STOPPED, 0)
    after, wrong = [], []
    for round_ in range(rounds):
        late = Worker(url, "late", lease)
        rival = Worker(url, "rival", 60.0)
        number, began, _ = late.ask()
        late.child.send(signal.SIGSTOP)
        while (given := rival.ask())[0] != number:
            rival.tell(given[0], _HIS)
        counts["taken_over_early"] += given[2] - began < lease
        after.append(given[2] - began - lease)
        late.child.send(signal.SIGCONT)
        tellers = [(late, _HERS), (rival, _HIS)]
        (one, first), (two, second) = tellers if round_ % 2 else tellers[::-1]
        accepted = one.tell(number, first)[0] == "told"
        error, text = two.tell(number, second)
        counts["first_result_kept"] += accepted and _value(stores, url, number) == first
        counts["second_told_clearly"] += error == "TrialAlreadyTold" and all(
            word in text for word in (str(first), str(second), "kept")
        )
        if error != "TrialAlreadyTold":
            wrong.append(f"{error}: {text}")
        counts["second_in_the_log"] += call(partial(_refused, url, number))
        counts["same_again_accepted"] += two.tell(number, first)[0] == "told"
        late.end()
        rival.end()
    trials = seen(stores, url)
    damage = place.damage(url) + call(lambda: Ours(url).check())
    place.drop(url)
    return {
        "rounds": rounds,
        **counts,
        "stuck": sum(trial.state == "running" for trial in trials.values()),
        "because": sorted(set(wrong))[:3],
        "damage": damage,
        "after_lease": spread(after),
    }


_STOPPED = (
    "taken_over_early",
    "first_result_kept",
    "second_told_clearly",
    "second_in_the_log",
    "same_again_accepted",
)


def _value(stores: Stores, url: str, number: int) -> float | None:
    """The value of a trial as a new process reads it."""
    return seen(stores, url)[number].value


def _refused(url: str, number: int) -> int:
    """How many results of a trial are in the log as refused."""
    events = Ours(url).optimizer.events()
    return sum(event.number == number and event.kind == "refused" for event in events)


def clock_jumps(stores: Stores, place: Place, rounds: int, lease: float = 0.5) -> dict[str, Any]:
    """The clock on the wall of one worker is a day ahead or behind, or jumps while it works.

    Each of the two workers is given a trial in turn, and the other asks before and after its lease
    has run out. No lease may end early or never, whosever clock is wrong.
    """
    counts = {"jumps": 0, "taken_over_early": 0, "never_taken_over": 0}
    damage, stuck = [], 0
    for _ in range(rounds):
        for jump in (_DAY, -_DAY):
            for opens_first in (True, False):
                for at_once in (True, False):
                    url = place.fresh()
                    counts["jumps"] += 1
                    early, never = _jump(url, jump, opens_first, at_once, lease)
                    counts["taken_over_early"] += early
                    counts["never_taken_over"] += never
                    trials = seen(stores, url)
                    stuck += sum(trial.state == "running" for trial in trials.values())
                    damage += place.damage(url) + call(lambda url=url: Ours(url).check())
                    place.drop(url)
    return {**counts, "stuck": stuck, "damage": damage}


def _jump(url: str, jump: float, opens_first: bool, at_once: bool, lease: float) -> tuple[int, int]:
    """How many leases ended early and how many never.

    Args:
        url: Of the database.
        jump: Seconds by which the one clock is wrong.
        opens_first: Whether this worker is the first to open the storage.
        at_once: Whether it is wrong from the beginning, or from after the first ask.
        lease: Seconds.
    """

    def wrong() -> Worker:
        return Worker(url, "wrong", lease, jump if at_once else 0.0)

    if opens_first:
        one, two = wrong(), Worker(url, "right", lease)
        hasty = one
    else:
        one, two = Worker(url, "right", lease), wrong()
        hasty = two
    early = never = 0
    for mine, yours in ((one, two), (two, one)):
        number, began, given = mine.ask()
        hasty.do("jump", jump)
        other, _, moment = yours.ask()
        early += other == number and moment - began < lease
        yours.tell(other, 1.0)
        time.sleep(max(given + lease * 1.1 - time.monotonic(), 0))
        later, *_ = yours.ask()
        # Where all is slow, its time may have been up at the first ask already.
        never += number not in (other, later)
        for told in {number, later}:
            yours.tell(told, 1.0)
    one.end()
    two.end()
    return early, never
