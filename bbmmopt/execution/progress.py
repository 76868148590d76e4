"""What a run shows while it goes on: a live bar, lines for a log, or nothing.

On stderr; in a notebook, as an output of the cell.
"""

import math
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any

_EVERY = 0.25  # seconds between two looks of a notebook's output


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    Attributes:
        done: Trials with an outcome.
        total: Trials planned; infinity if their number is open.
        failed: How many of those done failed.
        running: Trials under way.
        best: The best value so far, in words; empty if there is none.
        began: When the run began, on the monotonic clock, as are the next two.
        latest: When the latest trial was recorded.
        until: When no new trial will be started; infinity without a timeout.
        pruned: How many of those done were given up by the objective.
    """

    done: int
    total: float
    failed: int
    running: int
    best: str
    began: float
    latest: float
    until: float = math.inf
    pruned: int = 0

    def left(self, now: float) -> float | None:
        """Seconds to go at the pace so far; None before there is a pace, or if it is open."""
        if not self.done or math.isinf(self.total):
            return None if math.isinf(self.until) else max(0.0, self.until - now)
        pace = (self.latest - self.began) / self.done
        expected = self.latest + pace * (self.total - self.done)
        return max(0.0, min(expected, self.until) - now)

    def words(self, now: float) -> str:
        """best error 0.012 (trial 7) · 1 failed · 2 running · 1:23 left"""
        left = self.left(now) if self.done < self.total else None
        parts = [
            self.best and f"best {self.best}",
            f"{self.failed} failed" if self.failed else "",
            f"{self.pruned} pruned" if self.pruned else "",
            f"{self.running} running" if self.running else "",
            "" if left is None else f"{_clock(left)} left",
        ]
        return " · ".join(part for part in parts if part)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Silent:
    """Shows nothing at all. The others are this and more."""

    active = False  # whether it is worth working out a status

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, status: Status) -> None:
        """Show where the run stands."""

    def note(self, text: str) -> None:
        """Show a remark. Called by signal handlers: must not touch a buffered stream."""

    def say(self, text: str) -> None:
        """Print something that stays."""


class Quiet(Silent):
    """Shows no progress, but says what must not be missed."""

    def note(self, text: str) -> None:
        with suppress(OSError):
            os.write(2, f"\n{text}\n".encode())

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Lines(Quiet):
    """A line at each tenth of the way, or every ten trials where that is open: for logs."""

    active = True

    def __init__(self) -> None:
        self._tenth = 0

    def show(self, status: Status) -> None:
        known = status.total < math.inf
        tenth = int(10 * status.done // status.total) if known else status.done // 10
        if tenth > self._tenth:
            self._tenth = tenth
            done = f"{status.done}/{status.total}" if known else str(status.done)
            self.say(f"{done}  {status.words(time.monotonic())}")


class Live(Silent):
    """A bar that moves.

    Args:
        total: Trials planned; infinity if their number is open.
        console: A rich Console, if not one on stderr.
    """

    active = True

    def __init__(self, total: float, console: object = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        assert console is None or isinstance(console, Console)
        self._words = _Words()
        self._bar = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            # Formatted anew at each refresh, so that the clock runs.
            TextColumn("{task.fields[words]}", markup=False),
            console=console or Console(stderr=True),
            # What the objective prints appears above the bar; but not if it goes to a file.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        known = total if total < math.inf else None
        self._task = self._bar.add_task("", total=known, words=self._words)

    def __enter__(self) -> "Live":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, status: Status) -> None:
        self._words.status = status
        self._bar.update(self._task, completed=status.done)

    def note(self, text: str) -> None:
        self._words.note = text  # the bar's own thread will show it

    def say(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


class InNotebook(Quiet):
    """One output under the cell, replaced in place; no widgets needed.

    Args:
        show: What displays an object under an identity, and replaces it: IPython's `display`.
    """

    active = True

    def __init__(self, show: Callable[..., Any]) -> None:
        self._display, self._identity = show, f"bbmmopt-{secrets.token_hex(8)}"
        self._words, self._shown = _Words(), ""
        self._turn, self._ended = threading.Lock(), threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "InNotebook":
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._clock.join()
        self._words.note = ""
        self._draw()

    def show(self, status: Status) -> None:
        self._words.status = status
        if not self._shown:
            self._draw()

    def note(self, text: str) -> None:
        self._words.note = text  # the clock will show it

    def _tick(self) -> None:
        """Replace the output a few times a second, however fast the trials are."""
        while not self._ended.wait(_EVERY):
            self._draw()

    def _draw(self) -> None:
        with self._turn:
            content = _Bar(self._words.status, str(self._words))
            if content.text != self._shown:
                update = bool(self._shown)
                self._shown = content.text
                self._display(content, display_id=self._identity, update=update)


class _Bar:
    """How far a run has come, for those who show HTML and for those who do not."""

    def __init__(self, status: Status | None, words: str) -> None:
        self.text = words
        self._bar = ""
        if status is not None:
            known = status.total < math.inf
            of = f"{status.done}/{status.total}" if known else str(status.done)
            self.text = f"{of}  {words}"
            self._bar = f'<progress value="{status.done}" max="{status.total}"></progress> ' * known

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<div>{self._bar}{escape(self.text)}</div>"


class _Words:
    """The words after the bar, as of the moment they are formatted."""

    def __init__(self) -> None:
        self.status: Status | None = None
        self.note = ""

    def __str__(self) -> str:
        # A remark stands alone: beside the other words a narrow terminal would cut it off.
        if self.note or self.status is None:
            return self.note
        return self.status.words(time.monotonic())

    def __format__(self, spec: str) -> str:
        return str(self)


def notebook_display() -> Callable[..., Any] | None:
    """What displays an object in a notebook; None elsewhere, in IPython on a terminal too."""
    if "IPython" not in sys.modules:  # nor is there a notebook
        return None
    from IPython import get_ipython
    from IPython.display import display

    return None if getattr(get_ipython(), "kernel", None) is None else display


def make_display(progress: bool | None, total: float) -> Silent:
    """What `progress=` asks for."""
    if progress is False:
        return Silent()
    if (show := notebook_display()) is not None:
        return InNotebook(show)
    if sys.stderr is not None and sys.stderr.isatty():
        return Live(total)
    return Lines() if progress else Quiet()
