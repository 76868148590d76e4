"""The points at which faults.py breaks a program: before and after each SQL statement."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXITED = 77  # exit code of a process that ended at a point


class Points:
    """Counts the points that a process passes, and does something at one of them.

    Points are: before and after each statement, commit and rollback that goes through SQLAlchemy;
    before each statement of an SQLite connection, those of the driver included. "before write" is
    one more, before a commit that writes.

    Args:
        at: Number of the point, from 1; 0 only counts.
        kind: Count only points of this kind: "before commit", "after statement" and so on.
        act: What to do there. By default the process ends at once, as if it were killed.
    """

    def __init__(
        self, at: int, kind: str | None = None, act: Callable[[], object] | None = None
    ) -> None:
        self.passed, self._on, self._wrote, self._known = 0, False, False, False
        self._at, self._kind, self._act = at, kind, act or (lambda: os._exit(EXITED))
        self._listen()

    @contextmanager
    def armed(self, on: bool = True) -> Iterator[None]:
        """Count in this block only."""
        self._on = on
        try:
            yield
        finally:
            self._on = False

    def _pass(self, kind: str) -> None:
        if self._on and self._kind in (None, kind):
            self.passed += 1
            if self.passed == self._at:
                self._act()

    def _listen(self) -> None:
        from sqlalchemy import Engine, event

        event.listen(Engine, "before_cursor_execute", self._statement)
        event.listen(Engine, "after_cursor_execute", lambda *_: self._pass("after statement"))
        event.listen(Engine, "connect", self._trace)
        event.listen(Engine, "engine_connect", self._wrap)

    def _statement(self, connection: Any, cursor: Any, statement: str, *_: object) -> None:
        self._wrote |= statement.split(None, 1)[0].upper() in ("INSERT", "UPDATE", "DELETE")
        self._pass("before statement")
        self._known = True

    def _trace(self, connection: Any, _: object) -> None:
        if hasattr(connection, "set_trace_callback"):
            connection.set_trace_callback(self._in_the_driver)

    def _in_the_driver(self, _: str) -> None:
        if not self._known:  # else it is the statement that has just been counted
            self._pass("in the driver")
        self._known = False

    def _wrap(self, connection: Any) -> None:
        """Commits and rollbacks: SQLAlchemy's own events only come before them."""
        dialect = connection.dialect
        if hasattr(dialect, "bbmmopt_points"):
            return
        dialect.bbmmopt_points = True
        for name in ("commit", "rollback"):
            setattr(dialect, f"do_{name}", self._around(name, getattr(dialect, f"do_{name}")))

    def _around(self, name: str, do: Callable[..., object]) -> Callable[..., None]:
        def done(*arguments: Any) -> None:
            if name == "commit" and self._wrote:
                self._pass("before write")
            self._wrote = False
            self._pass(f"before {name}")
            do(*arguments)
            self._pass(f"after {name}")

        return done
