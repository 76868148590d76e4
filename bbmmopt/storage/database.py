"""Database: an engine with the transactions we need. Here SQLite and PostgreSQL differ."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from bbmmopt.storage.base import StorageError

# Engines of a parent process. They must not even be closed here: SQLite's locks belong to a
# process, and closing a file gives up its locks. (https://sqlite.org/howtocorrupt.html, 2.6)
_INHERITED: list[Engine] = []


class Database:
    """Connections to one database; transactions that fail say what to do about it.

    Args:
        where: Path of an SQLite file, or a database URL.
        busy_timeout: Seconds to wait for another process to finish its transaction. SQLite only.
    """

    def __init__(self, where: str | os.PathLike[str], busy_timeout: float) -> None:
        self.url = _url(where)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.busy_timeout = busy_timeout
        self.name = (self.url.database or "") if self.is_sqlite else self.url.render_as_string()
        if self.is_sqlite:
            _check_path(self.url)
        self._connect()
        if self.is_sqlite:
            with self._advice():
                self._use_wal()

    def _connect(self) -> None:
        arguments = {"timeout": self.busy_timeout} if self.is_sqlite else {}
        try:
            # No upper limit: connections are held for one transaction only.
            self._engine = create_engine(self.url, connect_args=arguments, max_overflow=-1)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise StorageError(
                f"no driver for {self.name}: {error}. Give the path of an SQLite file, study.db."
            ) from error
        # For SQLite, reading takes no lock; writing takes it at once, and not half-way, when
        # another writer may have changed what was read. Elsewhere rows are locked by FOR UPDATE.
        self._writing = self._engine.execution_options(bbmmopt_begin="BEGIN IMMEDIATE")
        if self.is_sqlite:
            event.listen(self._engine, "connect", _set_up)
            event.listen(self._engine, "begin", _begin)
        self._process = os.getpid()

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """A connection in a transaction; committed at the end of the block, or rolled back.

        Raises:
            StorageError: If the database does not play along.
            IntegrityError: If a row was there already.
        """
        if os.getpid() != self._process:
            _INHERITED.append(self._engine)
            self._connect()
        engine = self._writing if write else self._engine
        with self._advice(), engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections. A later transaction would open new ones."""
        if os.getpid() == self._process:
            self._engine.dispose()

    def _use_wal(self) -> None:
        """Write-ahead log: readers and a writer do not wait for each other. Kept in the file."""
        give_up = time.monotonic() + self.busy_timeout
        while True:
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                self._refuse_foreign(cursor)
                (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
                if mode.lower() != "wal":
                    cursor.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "readonly" in str(error):
                    return  # reading works without
                # Of several processes that open a new file, SQLite lets only one change the mode,
                # and tells the others at once, whatever the timeout.
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            finally:
                connection.close()

    def _refuse_foreign(self, cursor: Any) -> None:
        """Leave alone what another program keeps in SQLite; a path is soon mistyped."""
        tables = [name for (name,) in cursor.execute("SELECT name FROM sqlite_master")]
        if tables and not any(name.startswith("bbmmopt_") for name in tables):
            raise StorageError(
                f"{self.name} belongs to another program: it is an SQLite file with the tables "
                f"{', '.join(sorted(tables)[:5])}. Give the path of a study, or of a new file."
            )

    @contextmanager
    def _advice(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # the caller knows what it means
        except (DBAPIError, sqlite3.Error) as error:
            cause = str(getattr(error, "orig", None) or error)
            raise StorageError(f"{self.name}: {cause}. {self._what_to_do(cause)}") from error

    def _what_to_do(self, cause: str) -> str:
        for text, advice in _ADVICE.items():
            if text in cause:
                return advice.format(seconds=self.busy_timeout)
        return "Nothing was written."


_ADVICE = {
    "locked": "Another process has been writing for over {seconds:g} s: wait for it, or end it, "
    "and try again; nothing was written.",
    "not a database": "Give the path of a study, or of a file that does not exist yet.",
    "readonly": "Make the file and its directory writable, or work on a copy.",
    "unable to open": "Check that you may read and write the file and its directory: SQLite puts "
    "-wal and -shm files next to it.",
    "full": "Free some space and try again; nothing was written.",
    "disk I/O": "Check that the disk is there and not full, and try again; nothing was written.",
    "malformed": "The file is damaged: go back to a copy, or save what can be read with "
    "`sqlite3 FILE .recover`.",
}


def _url(where: str | os.PathLike[str]) -> URL:
    text = os.fspath(where)
    if "://" not in text:
        # Absolute, so that a later change of directory does not lead to another file.
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        url = make_url(text)
    except ArgumentError:
        raise StorageError(
            f"{text!r} is not a database URL. Write dialect+driver://user@host/name, or a path."
        ) from None
    if url.get_backend_name() == "sqlite" and url.database and "uri" not in url.query:
        url = url.set(database=str(Path(url.database).expanduser().absolute()))
    return url


def _check_path(url: URL) -> None:
    if not url.database or url.database.endswith(":memory:"):
        raise StorageError("an SQLite database in memory would not be shared; use storage=None.")
    if "uri" in url.query:
        return
    path = Path(url.database)
    if path.is_dir():
        raise StorageError(f"{path} is a directory. Give the path of a file, such as study.db.")
    if not path.parent.is_dir():
        raise StorageError(f"the directory {path.parent} does not exist. Create it first.")


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_begin` does
    connection.execute("PRAGMA synchronous=FULL")  # a commit is on the disk when it returns
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("bbmmopt_begin", "BEGIN"))
