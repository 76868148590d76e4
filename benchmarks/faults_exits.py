"""Exits at every SQL statement, for faults.py: a step is done wholly or not at all."""

import time
from typing import Any

from benchmarks.faults_cases import Stores, in_short, kept, spread
from benchmarks.faults_children import Child, ChildFailed, Say, call
from benchmarks.faults_places import Place
from benchmarks.faults_points import EXITED, Points
from benchmarks.faults_stores import Seen

STEPS = ("open", "ask", "report", "tell", "enqueue", "claim")


def exits(
    stores: Stores, place: Place, steps: tuple[str, ...] = STEPS, most: int | None = None
) -> dict[str, Any]:
    """A process ends at the first point of these steps, another at the second, and so on.

    Args:
        stores: The library's.
        place: Where to put them, each in a database of its own.
        steps: During which of STEPS.
        most: Of more points than this, only so many, evenly spread.
    """
    base = None
    if "open" not in steps:
        base = place.fresh()
        call(lambda: stores(base).close())
    _, points = _exit_at(stores, place, base, steps, 0, {})
    counts: dict[str, Any] = dict.fromkeys(("acknowledged", "lost", "half_done", "stuck"), 0)
    broken, damage, starts = [], [], []
    stride = 1 if most is None else -(-points // most)
    exits = 0
    for k in range(1, points + 1, stride):
        found: dict[str, Any] = {}
        code, _ = _exit_at(stores, place, base, steps, k, found)
        exits += code == EXITED
        for name in counts:
            counts[name] += found.get(name, 0)
        damage += found["damage"]
        broken += found.get("broken", [])
        starts += found.get("start", [])
    if base is not None:
        place.drop(base)
    return {
        "steps": list(steps),
        "points": points,
        "exits": exits,
        **counts,
        "cannot_go_on": len(broken),
        "because": sorted(set(broken))[:3],
        "damage": sorted(set(damage)),
        "next_start": spread(starts),
    }


def _exit_at(
    stores: Stores,
    place: Place,
    base: str | None,
    steps: tuple[str, ...],
    k: int,
    found: dict[str, Any],
) -> tuple[int, int]:
    """Run all steps, ending at the k-th point; exit code and points passed; fill in `found`."""
    url = place.fresh() if base is None else place.copy(base)

    def work(say: Say) -> None:
        points = Points(k)
        with points.armed("open" in steps):
            store = stores(url)
        say("open")
        with points.armed("ask" in steps):
            number = store.ask()
        say("ask")
        for step in ("report", "tell"):
            with points.armed(step in steps):
                getattr(store, step)(number)
            say(step)
        for step in ("enqueue", "claim"):
            with points.armed(step in steps):
                getattr(store, step)()
            say(step)
        say(points.passed)

    child = Child(work)
    said = [line[0] for line in child.said()]
    code = child.end()
    done = [what for what in said if isinstance(what, str)]
    damage = place.damage(url)
    try:
        found |= _after_exit(stores, url, done, damage)
    except ChildFailed as error:
        found |= {"broken": [in_short(error)], "damage": damage}
    place.drop(url)
    return code, said[-1] if said and code == 0 else 0


def _after_exit(stores: Stores, url: str, done: list[str], damage: list[str]) -> dict[str, Any]:
    """What a new process finds and can do after the process had done these steps."""

    def look() -> tuple[float, list[dict[str, Any]], int, list[str]]:
        began = time.perf_counter()
        store = stores(url)
        before = store.seen()
        number = store.ask()
        seconds = time.perf_counter() - began
        store.tell(number)
        for _ in range(2):
            store.tell(store.ask())
        stuck = sum(trial.state in ("running", "waiting") for trial in store.trials())
        return seconds, before, stuck, store.check()

    seconds, before, stuck, disagreements = call(look)
    trials = {trial["number"]: Seen(**trial) for trial in before}
    world = _world(trials)
    lost = any(part not in world for part in _PROMISED[len(done)])
    whole = world in (_PROMISED[len(done)], _PROMISED[min(len(done) + 1, len(STEPS))])
    return {
        "acknowledged": sum(step in done for step in STEPS[1:]),
        "lost": int(lost),
        "half_done": int(not lost and not whole),
        "stuck": stuck,
        "start": [seconds],
        "damage": damage + disagreements,
    }


# What must be there after so many of STEPS.
_ASKED, _REPORTED, _TOLD = ("0 is there",), ("0 is there", "report"), ("report", "0 is told")
_PROMISED: list[set[str]] = [
    set(),
    set(),
    {*_ASKED},
    {*_REPORTED},
    {*_REPORTED, *_TOLD},
    {*_REPORTED, *_TOLD, "1 is there"},
    {*_REPORTED, *_TOLD, "1 is there", "1 is claimed"},
]


def _world(trials: dict[int, Seen]) -> set[str]:
    """What is there, in the words of _PROMISED, and what should never be."""
    world = set()
    for trial in trials.values():
        world.add(f"{trial.number} is there")
        if trial.params != 10:
            world.add("parameters are missing")
        if trial.reports == {"3": 0.5}:
            world.add("report")
        elif trial.reports:
            world.add("another report")
        if trial.value is not None or trial.state == "complete":
            world.add(f"{trial.number} is told" if kept(trial) else "another value")
        if trial.number == 1 and trial.state == "running":
            world.add("1 is claimed")
    return world
