"""For the test files of `bbmmopt.storage`: a record, what several do at once, processes."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bbmmopt.storage import Storage, StudyRecord, open_storage
from bbmmopt.trial import Trial, TrialState

ROOT = Path(__file__).resolve().parents[2]
RECORD = StudyRecord("svm", {"space": {"parameters": []}}, seed=2**70, created=1.5, version="0.1")
WAITING, RUNNING = TrialState.WAITING, TrialState.RUNNING


def with_a_study(where: str | Path) -> str | Path:
    """Where there is an empty study now."""
    with open_storage(where) as storage:
        storage.create_study(RECORD)
    return where


def everything(storage: Storage) -> list[Trial]:
    return sorted(storage.changes("svm")[0], key=lambda trial: trial.number)


def enqueue(storage: Storage, count: int) -> None:
    for i in range(count):
        storage.add_next("svm", Trial(0, {"i": i}, WAITING))


def together(count: int, action: Callable[[int], object]) -> list:
    """What `action(0)`, …, `action(count - 1)` return or raise, started at the same moment."""
    barrier = threading.Barrier(count)

    def run(i: int) -> object:
        barrier.wait()
        try:
            return action(i)
        except Exception as error:
            return error

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # or a thread would often be done before the next one starts
    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))
    finally:
        sys.setswitchinterval(interval)


_HEADER = """
import os, sys
from bbmmopt.storage import *
from bbmmopt.storage.sql import SQLStorage
from bbmmopt.trial import *
where = sys.argv[1]
"""


def start(code: str, where: str | Path) -> subprocess.Popen[str]:
    """Run code in a process of its own, warnings being errors there too."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _HEADER + textwrap.dedent(code), str(where)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(process: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
