"""Full disks, for faults.py: what happens when nothing more can be written, and after that."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults_cases import Stores, in_short, kept, seen
from benchmarks.faults_children import Child, Say, call
from benchmarks.faults_places import Files, Place, Server

_MOST = 20_000  # trials that are told at most before the disk must be full


def size_limit(stores: Stores, place: Place) -> dict[str, Any]:
    """The file may not grow any more: RLIMIT_FSIZE of the process that writes. SQLite only."""
    assert isinstance(place, Files)
    url = place.fresh()

    def fill() -> None:
        sizes = [path.stat().st_size for path in place.folder.iterdir()]
        _limit_files(max(sizes) + 65_536)

    found = _full(stores, url, fill, lambda: _limit_files(resource.RLIM_INFINITY))
    found["damage"] += place.damage(url)
    place.drop(url)
    return found


def small_disk(stores: Stores, place: Place, folder: str) -> dict[str, Any]:
    """A file system of 32 megabytes is full. Needs the right to mount one.

    Args:
        stores: The library's.
        place: Where the database would be; SQLite puts its files, PostgreSQL its tables there.
        folder: Where to mount it.
    """
    with _small_disk(Path(folder)) as disk:
        filler = disk / "filler"
        if isinstance(place, Server):
            where: Place = place
            url = place.fresh(disk / "tables")
        else:
            where = Files(disk)
            url = where.fresh()
        found = _full(stores, url, lambda: _fill(filler), filler.unlink)
        found["damage"] += where.damage(url)
        where.drop(url)
        if isinstance(where, Server):
            where.drop_tables_space()
    return found


def _full(
    stores: Stores, url: str, fill: Callable[[], object], free: Callable[[], object]
) -> dict[str, Any]:
    """Tell until the disk is full, and go on when it is not any more.

    `because` is the error; `retries_refused` counts three more tells while it is full;
    `goes_on` and `starts_again` the tells, of five, that the same process and a new one did then.
    """

    def work(say: Say) -> None:
        store = stores(url)
        for _ in range(5):
            number = store.ask()
            store.tell(number)
            say("told", number)
        fill()
        try:
            for _ in range(_MOST):
                number = store.ask()
                store.tell(number)
                say("told", number)
        except Exception as error:
            say("full", in_short(error))
        for _ in range(3):
            try:
                number = store.ask()
                store.tell(number)
                say("told", number)
            except Exception as error:
                say("refused", in_short(error))
        free()
        for _ in range(5):
            try:
                number = store.ask()
                store.tell(number)
                say("told", number)
                say("goes on", number)
            except Exception as error:
                say("does not go on", in_short(error))

    def again() -> list[int]:
        store = stores(url)
        numbers = []
        for _ in range(5):
            numbers.append(store.ask())
            store.tell(numbers[-1])
        return numbers

    child = Child(work)
    said = list(child.said())
    child.end()
    told = [number for what, number in said if what == "told"]
    try:
        numbers, broken = call(again), []
    except Exception as error:
        numbers, broken = [], [in_short(error)]
    trials = seen(stores, url)
    because = [text for what, text in said if what == "full"]
    return {
        "acknowledged": len({*told, *numbers}),
        "lost": sum(not kept(trials.get(number)) for number in {*told, *numbers}),
        "run_twice": len(told) - len(set(told)),
        "names_the_cause": any("full" in text.lower() or "space" in text for text in because),
        "retries_refused": sum(what == "refused" for what, _ in said),
        "goes_on": sum(what == "goes on" for what, _ in said),
        "starts_again": len(numbers),
        "stuck": sum(trial.state == "running" for trial in trials.values()),
        "because": because + [text for what, text in said if what == "does not go on"] + broken,
        "damage": call(lambda: stores(url).check()),
    }


def _limit_files(size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def _fill(path: Path) -> None:
    """Write a file until nothing more fits on its disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(folder)], check=True)
    try:
        os.chmod(folder, 0o755)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
