"""What storing costs: milliseconds per trial, and a study of 100,000 trials.

    python benchmarks/storage.py --peer PATH [--blocks 20] [--trials 100000]

Ten parameters, SQLite, every library at its defaults, all files in one folder, turn by turn: a
block of trials of each, again and again, so that what else the machine does falls on all of them.

- *storage*: ours alone, `add` and `finish` of a record;
- *loop*: ours as it is used, `Optimizer.ask` with points of the start, and `tell`;
- *optuna*: `study.ask` with its RandomSampler, ten `suggest_float`, `study.tell`;
- *disk*: two commits of the same bytes by sqlite3 itself, WAL and full sync: what no library can
  go below.

Results: one line per part in results/storage.jsonl.
"""

import argparse
import contextlib
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processes import RESULTS, Process, machine, revision, today

_WORKER = "storage_worker.py"


class Disk:
    """Two commits per trial, by nothing but sqlite3."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("CREATE TABLE trials (number INTEGER PRIMARY KEY, a TEXT, b TEXT)")
        self._number = 0

    def turns(self, n: int) -> float:
        text = "x" * 300
        began = time.perf_counter()
        for _ in range(n):
            self._number += 1
            self._connection.execute("INSERT INTO trials VALUES (?, ?, '')", (self._number, text))
            self._connection.execute("UPDATE trials SET b = 'y' WHERE number = ?", (self._number,))
        return time.perf_counter() - began


def speed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Milliseconds per trial of each, block by block, in turns."""
    names = ["storage", "loop", *(["optuna"] if options.peer else [])]
    milliseconds: dict[str, list[float]] = {name: [] for name in ["disk", *names]}
    disk = Disk(str(folder / "disk.db"))
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(_started(name, options)) for name in names}
        for name, process in running.items():
            process.ask("open", path=str(folder / f"{name}.db"))
            process.ask("turns", n=options.size)
        for _ in range(options.blocks):
            milliseconds["disk"].append(disk.turns(options.size) / options.size * 1e3)
            for name, process in running.items():
                seconds = process.ask("turns", n=options.size)["seconds"]
                milliseconds[name].append(seconds / options.size * 1e3)
    medians = {name: statistics.median(times) for name, times in milliseconds.items()}
    print(f"milliseconds per trial, {options.blocks} blocks of {options.size} trials")
    for name, times in milliseconds.items():
        ratio = f"{medians['optuna'] / medians[name]:8.1f} x" if "optuna" in medians else ""
        low, high = min(times), max(times)
        print(f"  {name:8} {medians[name]:8.3f}  ({low:.3f} to {high:.3f}) {ratio}", flush=True)
    return {"part": "speed", "size": options.size, "milliseconds": milliseconds}


def large(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A stored study of many trials: seconds to open, milliseconds of an ask, memory."""
    path = str(folder / "large.db")
    with _started("loop", options) as process:
        process.ask("fill", path=path, n=options.trials)
    with _started("loop", options) as process:
        opened = process.ask("open", path=path)
        asks = process.ask("asks", n=50)
        requests = process.ask("requests", n=5)["seconds"]
    ask, request = statistics.median(asks["seconds"]), statistics.median(requests)
    size = Path(path).stat().st_size / 2**20
    print(f"{options.trials} trials, {size:.0f} MB on the disk")
    print(f"  open {opened['seconds']:.2f} s, memory {opened['megabytes']:.0f} MB more")
    print(f"  ask without a model {ask * 1e3:.2f} ms (most {max(asks['seconds']) * 1e3:.1f})")
    print(f"  arrays for a model {request * 1e3:.2f} ms")
    print(f"  {'where the time of an ask goes':52} {'ms within':>10} {'ms in all':>10}")
    for name, own, total in asks["where"][:25]:
        print(f"  {name:52} {own:10.3f} {total:10.3f}")
    return {
        "part": "large",
        "trials": options.trials,
        "file_megabytes": round(size, 1),
        "open_seconds": opened["seconds"],
        "megabytes": opened["megabytes"],
        "ask_seconds": asks["seconds"],
        "request_seconds": requests,
    }


@contextlib.contextmanager
def _started(name: str, options: argparse.Namespace) -> Iterator[Process]:
    python = options.peer if name == "optuna" else sys.executable
    with Process(name, python, options.log, script=_WORKER) as process:
        yield process


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--peer",
        default=os.environ.get("PEER_PYTHON"),
        help="interpreter that has optuna (default: $PEER_PYTHON, else ours alone)",
    )
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--size", type=int, default=20, help="trials in a block")
    parser.add_argument("--trials", type=int, default=100_000, help="of the large study; 0: none")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: temporary)")
    parser.add_argument("--log", type=Path, help="append what the libraries print to this file")
    parser.add_argument("--out", type=Path, default=RESULTS / "storage.jsonl")
    options = parser.parse_args()
    about = {"date": today(), "machine": machine(), "revision": revision()}
    parts = [*([speed] if options.blocks else []), *([large] if options.trials else [])]
    with tempfile.TemporaryDirectory(prefix="storage-", dir=options.folder) as folder:
        for part in parts:
            record = part(options, Path(folder))
            with options.out.open("a") as file:
                file.write(json.dumps(record | about) + "\n")


if __name__ == "__main__":
    main()
