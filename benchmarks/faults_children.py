"""Forked processes for faults.py: they say what they have done through a pipe, and can be killed.

The process that forks has imported the library and opened nothing, so that a child starts within
milliseconds, as clean as a new process.
"""

import json
import os
import random
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

_PATIENCE = 120.0  # seconds within which a child must say something


class Say:
    """A child's way to speak to its parent: what was said is known there whatever comes next."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back

    def __call__(self, *what: Any) -> None:
        os.write(self._to, json.dumps(what).encode() + b"\n")

    def wait(self) -> list[Any]:
        """Wait for the parent's `go`, and return what it says."""
        text = b""
        while not text.endswith(b"\n"):
            more = os.read(self._back, 1)
            if not more:
                os._exit(1)  # the parent has ended
            text += more
        return json.loads(text)


class ChildFailed(RuntimeError):
    """A child raised, or ended in a way that nobody meant it to."""


class Child:
    """A forked process.

    Args:
        work: What it does; it is given `Say`. When it raises, `line` raises ChildFailed.
    """

    def __init__(self, work: Callable[[Say], object]) -> None:
        read, write = os.pipe()
        back, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read)
            os.close(self._go)
            _work(work, write, back)
        os.close(write)
        os.close(back)
        self._pipe, self._rest = read, b""
        self.code: int | None = None

    def line(self, patience: float = _PATIENCE) -> list[Any] | None:
        """What it said next; None when it has ended.

        Raises:
            ChildFailed: If it raised, or says nothing for so long (and is killed).
        """
        give_up = time.monotonic() + patience
        while b"\n" not in self._rest:
            if not select.select([self._pipe], [], [], max(give_up - time.monotonic(), 0))[0]:
                self.end(signal.SIGKILL)
                raise ChildFailed(f"a process said nothing for {patience:g} s")
            more = os.read(self._pipe, 65536)
            if not more:
                os.close(self._pipe)
                return None  # half a line is no acknowledgement
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        said = json.loads(line)
        if isinstance(said, str):
            self.end()
            raise ChildFailed(said)
        return said

    def said(self, patience: float = _PATIENCE) -> Iterator[list[Any]]:
        """All it says until it ends."""
        while (line := self.line(patience)) is not None:
            yield line

    def go(self, *what: Any) -> None:
        """Let it go on from `Say.wait`, which returns this."""
        os.write(self._go, json.dumps(what).encode() + b"\n")

    def send(self, signal_: signal.Signals) -> None:
        """Send it a signal."""
        if self.code is None:
            os.kill(self.pid, signal_)

    def end(self, signal_: signal.Signals | None = None) -> int:
        """Wait until it has ended, after a signal if there is one; its exit code, as -9."""
        if signal_ is not None:
            self.send(signal_)
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._go)
        return self.code


def call(work: Callable[[], Any], patience: float = _PATIENCE) -> Any:
    """What a function returns, run in a forked process."""

    def answer(say: Say) -> None:
        say(work())

    child = Child(answer)
    line = child.line(patience)
    code = child.end()
    if line is None or code:
        raise ChildFailed(f"a process ended with {code} before it answered")
    return line[0]


def killed(
    work: Callable[[Say], object], seed: object, longest: float, *, after_first: bool
) -> list[list[Any]]:
    """What a process said before it was killed.

    Args:
        work: What it does.
        seed: Of the moment.
        longest: Seconds from which the moment is drawn.
        after_first: Whether they count from the first thing it says, or from its start.
    """
    child = Child(work)
    first = [child.line()] if after_first else []
    time.sleep(random.Random(str(seed)).uniform(0, longest))
    child.end(signal.SIGKILL)
    return [line for line in first if line is not None] + list(child.said())


def as_nobody() -> None:
    """Give up the rights of root, for whom no file is read-only."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def open_to_all(folder: Path) -> Path:
    """A folder that `as_nobody` can work in."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    return folder


def _work(work: Callable[[Say], object], to: int, back: int) -> NoReturn:
    """Run in the child, which ends here."""
    code = 1
    try:
        work(Say(to, back))
        code = 0
    except BaseException as error:
        traceback.print_exc()
        os.write(to, json.dumps(f"{type(error).__name__}: {error}").encode() + b"\n")
    finally:
        os._exit(code)
