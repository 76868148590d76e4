"""Database: transactions that end in time, and that say what to do when they fail."""

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.pool import QueuePool

from bbmmopt.storage.dialect import Dialect
from bbmmopt.storage.errors import StorageError
from bbmmopt.storage.postgres import PostgreSQL
from bbmmopt.storage.sqlite import SQLiteFile

# Engines of a parent process. They must not even be closed here: SQLite's locks belong to a
# process, and closing a file gives up its locks. (https://sqlite.org/howtocorrupt.html, 2.6)
# And what is said on a server's connection, the parent has to say.
_INHERITED: list[Engine] = []


class Database:
    """Connections to one database.

    Attributes:
        url: Opens the same database again, in another process too. May hold a password.
        name: For messages; never with a password.

    Args:
        where: Path of an SQLite file, or a URL: sqlite:/// or postgresql+psycopg://.
        busy_timeout: Seconds to wait for another process to finish its transaction, and for a
            server that was there before to come back.
        read_only: Make no file, and change none: transactions that write will fail.

    Raises:
        StorageError: If it cannot be opened.
    """

    def __init__(
        self, where: str | os.PathLike[str], busy_timeout: float, *, read_only: bool = False
    ) -> None:
        self._dialect = _dialect(where, busy_timeout, read_only)
        self.is_sqlite = isinstance(self._dialect, SQLiteFile)
        self.busy_timeout = busy_timeout
        self.url = self._dialect.url
        self.name = self._dialect.name
        self._connect()
        try:
            self._dialect.prepare(self._engine)
        except (DBAPIError, sqlite3.Error) as error:
            self._engine.dispose()
            raise self._explained(error, committing=False) from error

    def _connect(self) -> None:
        self._engine = self._dialect.engine()
        self._process = os.getpid()

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """A connection in a transaction; committed at the end of the block, or rolled back.

        What is read in it is from one moment. Transactions that write and begin with the same
        row, read FOR UPDATE, come one after the other.

        Raises:
            StorageError: If the database does not play along.
            IntegrityError: If a row was there already.
        """
        if os.getpid() != self._process:
            _INHERITED.append(self._engine)
            self._connect()
        pool = self._engine.pool
        if isinstance(pool, QueuePool) and not pool.checkedin():
            self._dialect.forget()  # closed meanwhile, perhaps by another thread
        self._dialect.check_in_place()
        committing = False
        try:
            with self._connection(write) as connection, connection.begin():
                yield connection
                committing = True
        except IntegrityError:
            raise  # the caller knows what it means
        except (DBAPIError, sqlite3.Error) as error:
            # What was read was read, even if a server lost patience while it was looked through.
            if write or not committing:
                raise self._explained(error, committing) from error
        if write:
            self._dialect.check_in_place(after_commit=True)

    def keep_others_out(self, connection: Connection) -> None:
        """Wait for others who create or migrate tables, and make them wait for this transaction.

        In SQLite, any transaction that writes does so.
        """
        self._dialect.keep_others_out(connection)

    def back_up(self, suffix: str, connection: Connection) -> str:
        """Copy everything as it was before a transaction.

        Call it first in a transaction that writes, and that keeps others out. SQLite: copied to
        study.db.SUFFIX, a file of its own, which is on the disk when this returns. PostgreSQL: to
        tables bbmmopt_…_SUFFIX, within the transaction. Nothing is ever overwritten: the second
        of a name gets a number.

        Args:
            suffix: Such as "before-v2".
            connection: That of the transaction.

        Returns:
            What the copy is called, for a message.

        Raises:
            StorageError: If it could not be made.
        """
        try:
            return self._dialect.back_up(suffix, connection)
        except OSError as error:
            raise StorageError(
                f"no backup could be made beside {self.name}: {error}. Make its directory "
                f"writable; nothing was changed."
            ) from error
        except (DBAPIError, sqlite3.Error) as error:
            raise self._explained(error, committing=False) from error

    def close(self) -> None:
        """Close all connections. A later transaction would open new ones."""
        if os.getpid() == self._process:
            self._engine.dispose()
            self._dialect.forget()

    def _connection(self, write: bool) -> Connection:
        """A connection, waiting for a server that is being restarted."""
        give_up = time.monotonic() + self.busy_timeout
        while True:
            try:
                connection = self._engine.connect()
                break
            except DBAPIError as error:
                if not self._dialect.comes_back(str(error.orig)) or time.monotonic() > give_up:
                    raise
                time.sleep(0.1)
        return connection.execution_options(**self._dialect.options(write=write))

    def _explained(self, error: DBAPIError | sqlite3.Error, committing: bool) -> StorageError:
        original = getattr(error, "orig", None) or error
        # The rest is about our own statements, or guesses.
        cause = str(original).strip().split("\n")[0].rstrip(".")
        advice = self._dialect.advice(
            str(original),
            getattr(original, "sqlstate", None),
            lost=getattr(error, "connection_invalidated", False),
            committing=committing,
        )
        return StorageError(f"{self.name}: {cause}. {advice}")


def _dialect(where: str | os.PathLike[str], busy_timeout: float, read_only: bool) -> Dialect:
    text = os.fspath(where)
    if "://" not in text:
        # Absolute, so that a later change of directory does not lead to another file.
        url = URL.create("sqlite", database=str(Path(os.path.expanduser(text)).absolute()))
        return SQLiteFile(url, busy_timeout, read_only)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise StorageError(
            f"{_without_password(text)!r} is not a database URL. Write "
            f"postgresql+psycopg://user@host/name, or a path."
        ) from None
    if url.get_backend_name() in ("postgres", "postgresql"):
        return PostgreSQL(url, busy_timeout)
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StorageError(
            f"{url.drivername} is not supported: studies are kept in SQLite files (study.db) and "
            f"in PostgreSQL (postgresql+psycopg://user@host/name)."
        )
    if url.database and not url.database.startswith(":") and "uri" not in url.query:
        url = url.set(database=str(Path(os.path.expanduser(url.database)).absolute()))
    return SQLiteFile(url, busy_timeout, read_only)


def _without_password(text: str) -> str:
    return re.sub(r"(//[^:/@]*:).*@", r"\1***@", text)
