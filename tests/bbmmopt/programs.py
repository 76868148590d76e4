"""Programs in processes of their own, for tests of what happens to them."""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

# Has imported torch once, for all programs that are forked from it.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["bbmmopt.optimizer"])


@contextmanager
def started(*command: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python process in a group of its own, as a terminal would start it; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Forked:
    """A script in a process that need not import torch: a second less each.

    For scripts that end by themselves or by a signal that nobody can handle. How Python ends, it
    does not do quite as a program does: see `started` for that.

    Attributes:
        returncode: As that of a Popen.
    """

    def __init__(self, *command: object, cwd: Path | None = None, **variables: str) -> None:
        self.returncode: int | None = None
        self.out, out = _FORKS.Pipe(duplex=False)
        self.err, err = _FORKS.Pipe(duplex=False)
        there = str(cwd or Path.cwd()), variables
        arguments = [*map(str, command)]
        self.process = _FORKS.Process(target=_program, args=(arguments, there, out, err))
        self.process.start()
        out.close()
        err.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process.pid is not None
        return self.process.pid

    def communicate(self, timeout: float) -> tuple[str, str]:
        """As of a Popen. What the script writes must fit in a pipe."""
        self.process.join(timeout)
        self.returncode = self.process.exitcode
        assert self.returncode is not None, "it does not end"
        return _rest(self.out), _rest(self.err)

    def end(self) -> None:
        """Kill it, if it is still there, and let go of it."""
        self.process.kill()
        self.process.join()
        for pipe in (self.out, self.err):
            pipe.close()
        self.process.close()


@contextmanager
def forked(*command: object, cwd: Path | None = None, **variables: str) -> Iterator[Forked]:
    """A script, forked; killed at the end.

    Args:
        command: The script and its arguments.
        cwd: Where it runs; None for here.
        variables: Of its environment, beside those of the first one that was forked.
    """
    process = Forked(*command, cwd=cwd, **variables)
    try:
        yield process
    finally:
        process.end()


def run(*arguments: str, cwd: Path) -> str:
    """Run Python in a fresh process; return what it printed, or fail with what it said."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


def run_forked(*command: object, cwd: Path) -> None:
    """Run a script in a process that has imported torch already: for most that is the time."""
    with forked(*command, cwd=cwd, MPLBACKEND="Agg") as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, f"{command} ended with {process.returncode}:\n{errors}"


def _rest(pipe: Connection) -> str:
    with os.fdopen(os.dup(pipe.fileno()), closefd=True) as file:
        return file.read()


def _program(
    command: list[str], there: tuple[str, dict[str, str]], out: Connection, err: Connection
) -> None:
    os.setsid()
    os.chdir(there[0])
    os.environ.update(there[1])
    streams: list[IO[str]] = []
    for number, pipe in ((1, out), (2, err)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
        streams.append(os.fdopen(number, "w", buffering=1, closefd=False))
    sys.stdout, sys.stderr = streams
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
