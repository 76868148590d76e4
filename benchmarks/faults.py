"""What is lost when things break: `bbmmopt`, and beside it Optuna's RDB storage.

    python benchmarks/faults.py [--quick] [--storage sqlite,postgres] [--peer PATH]

Processes are killed, stopped, and made to exit at each SQL statement; disks are full, clocks jump,
files are spoiled. Everything is counted: results that were acknowledged (`tell` had returned),
those of them that are lost, trials that ran twice, trials that are stuck (a worker of the same
name, started again, does not get them back), and the seconds to the next start.

Results: one line per case, storage and library in results/faults.jsonl.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.processes import RESULTS, Process, WorkerFailed, machine, revision, today

BOTH, SQLITE = ("sqlite", "postgres"), ("sqlite",)


@dataclass(frozen=True)
class Case:
    """One way to break things.

    Attributes:
        title: What is done.
        full: How much of it.
        quick: How much of it with --quick.
        storages: Where it makes sense.
        peer: How much of it the peer is given; None where it has nothing to compare.
        root: Whether it needs the rights of root, to mount a disk.
    """

    title: str
    full: dict[str, Any]
    quick: dict[str, Any]
    storages: tuple[str, ...] = BOTH
    peer: dict[str, Any] | None = None
    root: bool = False


CASES = {
    "kills": Case(
        "kill -9 at random moments",
        {"kills": 200},
        {"kills": 12},
        peer={"kills": 200, "longest": 1.0},  # or it would hardly come to tell
    ),
    "early kills": Case(
        "kill -9 while the database is created", {"kills": 100}, {"kills": 10}, peer={"kills": 100}
    ),
    # The peer passes some 700 points at a second each: some of them, evenly spread.
    "exits": Case("exit before and after each SQL statement", {}, {"most": 30}, peer={"most": 120}),
    "size limit": Case("the file may not grow, then may", {}, {}, SQLITE, peer={}),
    "small disk": Case("the disk is full, then is not", {}, {}, peer={}, root=True),
    "writers": Case(
        "writers that claim what waits in line",
        {"writers": 8, "claims": 200, "waiting": 400},
        {"writers": 4, "claims": 20, "waiting": 40},
        peer={"writers": 8, "claims": 200, "waiting": 400},
    ),
    "held locks": Case(
        "killed while holding the write lock", {"rounds": 20}, {"rounds": 3}, peer={"rounds": 20}
    ),
    "stopped worker": Case(
        "stopped beyond its lease, then continued", {"rounds": 10}, {"rounds": 2}
    ),
    "clock jumps": Case("a clock jumps a day", {"rounds": 3}, {"rounds": 1}),
    "Dask worker": Case(
        "killed workers of Dask", {"trials": 60, "kills": 4}, {"trials": 12, "kills": 1}
    ),
    "bad files": Case("files that cannot be used", {}, {}, SQLITE),
    "newer schema": Case("a database of a newer version", {}, {}, ("postgres",)),
}


class Library:
    """One library in a process of its own, which breaks things as asked.

    Args:
        name: "ours" or "optuna".
        python: The interpreter that has it.
        log: What its processes print goes there.
    """

    def __init__(self, name: str, python: str = sys.executable, log: Path | None = None) -> None:
        self.name = name
        self._process = Process(name, python, log, script="faults_worker.py")

    def run(self, case: str, place: str, **options: Any) -> dict[str, Any]:
        """Run a case and return what was counted.

        Args:
            case: One of CASES.
            place: An empty folder, or the URL of a server's database.
            options: Of the case.

        Raises:
            WorkerFailed: If the case itself failed, which no fault should make it.
        """
        return self._process.ask(case, place=place, **options)

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()


@contextlib.contextmanager
def places(storage: str) -> Iterator[str]:
    """Where the studies of one storage are kept: a temporary folder, or a database on loopback."""
    if storage == "postgres":
        from benchmarks.postgres import PostgresServer

        with PostgresServer() as server:
            yield server.url("campaign")
    else:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            os.chmod(folder, 0o755)
            yield folder


def campaign(options: argparse.Namespace) -> None:
    """Run the cases; print and write what was counted."""
    about = {"date": today(), "machine": machine(), "revision": revision(), "quick": options.quick}
    libraries = {"ours": sys.executable}
    if options.peer:
        libraries["optuna"] = options.peer
    for storage in options.storage.split(","):
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(places(storage))
            running = {
                name: stack.enter_context(Library(name, python, options.log))
                for name, python in libraries.items()
            }
            for name, case in CASES.items():
                if name not in options.cases or storage not in case.storages:
                    continue
                records = {
                    library: _record(process, name, case, place, options.quick)
                    for library, process in running.items()
                    if library == "ours" or case.peer is not None
                }
                _print(name, case, storage, records)
                with options.out.open("a") as file:
                    for library, record in records.items():
                        line = {"case": name, "storage": storage, "library": library} | record
                        file.write(_without(place, json.dumps(line | about)) + "\n")


def _record(library: Library, name: str, case: Case, place: str, quick: bool) -> dict[str, Any]:
    """What was counted, or why nothing was."""
    if case.root and os.geteuid() != 0:
        return {"not_run": "needs root, to mount a disk"}
    amount = case.quick if quick else case.full
    if library.name != "ours" and not quick:
        amount = case.peer or {}
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        os.chmod(folder, 0o755)
        if name in ("small disk", "Dask worker"):
            amount = amount | {"folder": f"{folder}/{library.name}"}
        sub = place
        if "://" not in place:
            sub = f"{place}/{library.name} {name}".replace(" ", "_")
            Path(sub).mkdir()
        try:
            return library.run(name, sub, **amount)
        except WorkerFailed as error:
            return {"failed": str(error)}


def _without(place: str, text: str) -> str:
    """A line without the names of temporary folders."""
    words = text.replace(place, "…").split(tempfile.gettempdir() + "/faults-")
    return words[0] + "".join("…/" + word.partition("/")[2] for word in words[1:])


def _print(name: str, case: Case, storage: str, records: dict[str, dict[str, Any]]) -> None:
    """The libraries side by side."""
    print(f"\n{case.title} ({name}), {storage}")
    keys = [key for record in records.values() for key in record if key not in _UNSEEN]
    print(f"  {'':24}" + "".join(f"{library:>22}" for library in records))
    for key in dict.fromkeys(keys):
        cells = [_cell(record.get(key, "-")) for record in records.values()]
        print(f"  {key.replace('_', ' '):24}" + "".join(f"{cell:>22}" for cell in cells))
    for library, record in records.items():
        for text in record.get("because", []):
            print(_without("/nowhere", f"  {library}: {text}"))
    sys.stdout.flush()


_UNSEEN = ("because", "versions", "steps")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {number:.3g}" for key, number in value.items()) or "-"
    if isinstance(value, list):
        return str(len(value)) if value else "none"
    return str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--storage", default="sqlite,postgres")
    parser.add_argument(
        "--peer",
        default=os.environ.get("PEER_PYTHON"),
        help="interpreter that has optuna and psycopg (default: $PEER_PYTHON, else ours alone)",
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--log", type=Path, help="append what the processes print to this file")
    parser.add_argument("--out", type=Path, default=RESULTS / "faults.jsonl")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped
    campaign(options)


if __name__ == "__main__":
    main()
