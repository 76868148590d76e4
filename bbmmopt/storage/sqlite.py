"""SQLite: a file with a write-ahead log, every commit on the disk, and never the wrong file."""

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import URL, Connection, Engine, create_engine, event

from bbmmopt.storage.dialect import Dialect
from bbmmopt.storage.errors import StorageError
from bbmmopt.storage.mounts import network_file_system

_JOURNALS = ("wal", "delete")


class SQLiteFile(Dialect):
    """One SQLite file.

    Args:
        url: A sqlite:/// URL with an absolute path; "?journal=delete" in it asks for a rollback
            journal, "?journal=wal" for a write-ahead log. Without, a file stays as it is, and a
            new one gets a write-ahead log.
        busy_timeout: Seconds to wait for another process to finish its transaction.
        read_only: Make no file, and change none.

    Raises:
        StorageError: If there can be no such file, or it would be on a network file system, which
            who only reads may see for himself.
    """

    def __init__(self, url: URL, busy_timeout: float, read_only: bool) -> None:
        self.url = url
        self.name = url.database or ""
        self._busy_timeout = busy_timeout
        self._journal = _journal(url)
        self._synchronous = "FULL"
        self._path = _path(url)
        self._read_only = read_only
        if self._path is not None:
            _check_directory(self._path, "delete" if read_only else self._journal)
        # What the system says of the file, and of its write-ahead log and the log's index.
        self._files: dict[Path, os.stat_result] = {}

    def engine(self) -> Engine:
        self.forget()
        engine = create_engine(
            self._unchanging()
            if self._read_only
            else self.url.difference_update_query(["journal"]),
            connect_args={"timeout": self._busy_timeout},
            max_overflow=-1,  # no upper limit: connections are held for one transaction only
        )
        event.listen(engine, "connect", self._set_up)
        event.listen(engine, "begin", _begin)
        return engine

    def _unchanging(self) -> URL:
        """A URL by which SQLite only reads. (https://sqlite.org/wal.html, section 5)

        To read a file with a write-ahead log, SQLite makes the log and its index beside it if they
        are not there; then nobody has it open, and it can be read as if it never changed.
        """
        query = {"mode": "ro", "uri": "true"}
        if "uri" in self.url.query or self._path is None:
            return self.url.update_query_dict(query)
        # In this order: while this process has the file open there is a log, and to open and close
        # the file beside SQLite would give up SQLite's locks.
        if not Path(f"{self._path}-wal").exists() and has_log(self._path):
            query["immutable"] = "1"
        return URL.create("sqlite", database=f"file:{quote(str(self._path))}", query=query)

    def options(self, *, write: bool) -> dict[str, Any]:
        # Reading takes no lock; writing takes it at once, and not half-way, when another writer
        # may have changed what was read.
        return {"bbmmopt_begin": "BEGIN IMMEDIATE" if write else "BEGIN"}

    def forget(self) -> None:
        # Who closes a file last removes its log.
        self._files = {path: found for path, found in self._files.items() if path == self._path}

    def _set_up(self, connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: `_begin` does
        # A commit is on the disk when it returns; on macOS that takes another system call.
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA fullfsync=ON")
        connection.execute("PRAGMA foreign_keys=ON")

    def prepare(self, engine: Engine) -> None:
        """Set up the journal, which is kept in the file. A write-ahead log, unless asked otherwise:
        with it, readers and a writer do not wait for each other."""
        give_up = time.monotonic() + self._busy_timeout
        while True:
            connection = engine.raw_connection()
            try:
                self._set_journal(connection.cursor())
                break
            except sqlite3.OperationalError as error:
                if "readonly" in str(error):
                    break  # reading works without
                # Of several processes that open a new file, SQLite lets only one change the mode,
                # and tells the others at once, whatever the timeout.
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            finally:
                connection.close()
        if self._path is not None:
            self._files = _found([self._path])

    def _set_journal(self, cursor: Any) -> None:
        tables = self._tables(cursor)
        if self._read_only:
            return
        (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
        wanted = self._journal or (mode if tables else "wal")
        if mode != wanted:
            (mode,) = cursor.execute(f"PRAGMA journal_mode={wanted}").fetchone()
        if mode != wanted:
            raise StorageError(
                f"{self.name} cannot have a write-ahead log there: the file system has no shared "
                f"memory. Use another directory, or sqlite:///{self.name}?journal=delete."
            )
        if mode != "wal":
            # Or the removal of the journal, which is the commit, might come after a power cut.
            self._synchronous = "EXTRA"
            cursor.execute("PRAGMA synchronous=EXTRA")

    def _tables(self, cursor: Any) -> list[str]:
        tables = [name for (name,) in cursor.execute("SELECT name FROM sqlite_master")]
        if tables and not any(name.startswith("bbmmopt_") for name in tables):
            # Left alone: a path is soon mistyped.
            raise StorageError(
                f"{self.name} belongs to another program: it is an SQLite file with the tables "
                f"{', '.join(sorted(tables)[:5])}. Give the path of a study, or of a new file."
            )
        return tables

    def check_in_place(self, *, after_commit: bool = False) -> None:
        """SQLite goes on writing to a file that was deleted, where nobody will find it."""
        for path, before in self._files.items():
            wrong = _difference(path, before)
            if wrong:
                written = "what was just written is lost" if after_commit else "nothing was written"
                raise StorageError(
                    f"{path} {wrong} while it was open, so {written}. Put the study's files back "
                    f"together, or open the storage again to begin with what is there now."
                )
        if after_commit and self._path is not None and len(self._files) < 3:
            # A new dict: another thread may be going through this one.
            now = _found([self._path, Path(f"{self._path}-wal"), Path(f"{self._path}-shm")])
            self._files = now | {path: s for path, s in self._files.items() if s.st_size}

    def back_up(self, suffix: str, connection: Connection) -> str:
        if self._path is None:
            raise StorageError(f"{self.name} cannot be backed up: give it as a path.")
        unfinished = Path(f"{self._path}.{suffix}.partial")
        unfinished.unlink(missing_ok=True)  # of a process that was killed in the middle
        try:
            # A connection of its own: that of the transaction is busy. It sees what was there
            # before the transaction, and nobody else can have written since.
            source = sqlite3.connect(self._path, timeout=self._busy_timeout)
            target = sqlite3.connect(unfinished)
            try:
                source.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")  # one file, to be copied about
            finally:
                target.close()
                source.close()
            _sync(unfinished)
            kept = _free_name(f"{self._path}.{suffix}")
            unfinished.rename(kept)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync(kept.parent)
        return str(kept)

    def advice(self, cause: str, state: str | None, *, lost: bool, committing: bool) -> str:
        for text, advice in _ADVICE.items():
            if text in cause:
                return advice.format(seconds=self._busy_timeout)
        return "Nothing was written."


_ADVICE = {
    "locked": "Another process has been writing for over {seconds:g} s: wait for it, or end it, "
    "and try again; nothing was written.",
    "not a database": "Give the path of a study, or of a file that does not exist yet. If it was "
    "a study, its beginning is damaged: go back to a copy.",
    "readonly": "Make the file and its directory writable, or work on a copy.",
    "unable to open": "Check that you may read and write the file and its directory: SQLite puts "
    "-wal and -shm files next to it.",
    "full": "Free some space and try again; nothing was written.",
    "disk I/O": "Check that the disk is there and not full, and try again; nothing was written.",
    "malformed": "The file is damaged: go back to a copy, or save what can be read with "
    "`sqlite3 FILE .recover`.",
}


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("bbmmopt_begin", "BEGIN"))


def has_log(path: Path) -> bool:
    """Whether an SQLite file is of those with a write-ahead log, by its header."""
    try:
        with path.open("rb") as file:
            return file.read(20)[18:] == b"\2\2"  # https://sqlite.org/fileformat.html, 1.3.3
    except OSError:
        return False


def _journal(url: URL) -> str | None:
    given = url.query.get("journal")
    if given is not None and given not in _JOURNALS:
        raise StorageError(f"journal is {' or '.join(_JOURNALS)}; got {given!r}.")
    unknown = set(url.query) - {"journal"}
    if unknown and "uri" not in url.query:
        names = ", ".join(sorted(unknown))
        raise StorageError(f"an SQLite URL takes ?journal=wal or ?journal=delete; got {names}.")
    return given


def _path(url: URL) -> Path | None:
    """The file itself, behind links; None if only SQLite knows."""
    database = url.database or ""
    if not database or database.endswith(":memory:") or url.query.get("mode") == "memory":
        raise StorageError("an SQLite database in memory would not be shared; use storage=None.")
    if "uri" in url.query:
        database = unquote(urlsplit(database).path)
    return Path(os.path.realpath(database)) if database.startswith("/") or os.name == "nt" else None


def _check_directory(path: Path, journal: str | None) -> None:
    try:
        path.parent.stat()
        if path.is_dir():
            raise StorageError(f"{path} is a directory. Give the path of a file, such as study.db.")
    except FileNotFoundError:
        raise StorageError(
            f"the directory {path.parent} does not exist. Create it first."
        ) from None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be reached: {error.strerror}. Check that {path.parent} is a directory "
            f"that you may enter."
        ) from error
    if _size(Path(f"{path}-wal")) and not _size(path):
        # SQLite would begin a new file and throw the log away.
        raise StorageError(
            f"{path} is empty or gone, but {path}-wal beside it holds results. Go back to a copy "
            f"of both, or remove both to begin anew."
        )
    kind = network_file_system(path.parent)
    if kind is not None and journal != "delete":
        raise StorageError(
            f"{path} is on a network file system ({kind}): a write-ahead log needs memory that "
            f"processes share, which those of two machines do not. Use a local path, or "
            f"PostgreSQL; or, slower and only as safe as the locks of {kind}, "
            f"sqlite:///{path}?journal=delete."
        )


def _found(paths: list[Path]) -> dict[Path, os.stat_result]:
    """What the system says of those that are there."""
    found = {}
    for path in paths:
        with suppress(OSError):
            found[path] = path.stat()
    return found


def _difference(path: Path, before: os.stat_result) -> str:
    """What became of a file, in words; empty if it is the same."""
    try:
        now = path.stat()
    except OSError:
        return "was deleted or moved"
    if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
        return "was replaced by another file"
    # The log may be emptied when all of it is in the file.
    emptied = before.st_size > 0 and now.st_size == 0 and not path.name.endswith("-wal")
    return "was emptied" if emptied else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _free_name(wanted: str) -> Path:
    path, count = Path(wanted), 1
    while path.exists():
        count += 1
        path = Path(f"{wanted}.{count}")
    return path


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # done by the system there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
