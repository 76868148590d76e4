"""Where the cases of faults.py keep their studies, and what a fresh look finds wrong there."""

import contextlib
import itertools
import shutil
import sqlite3
from pathlib import Path


class Files:
    """SQLite files in a folder.

    Args:
        folder: Where to put them.
    """

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def fresh(self) -> str:
        """The URL of a database that is not there yet."""
        return f"sqlite:///{self.folder / f'{next(self._numbers)}.db'}"

    def copy(self, url: str) -> str:
        """The URL of a copy of a database that nobody has open."""
        copy = self.fresh()
        shutil.copyfile(self.path(url), self.path(copy))
        return copy

    def drop(self, url: str) -> None:
        """Remove a database."""
        for path in self.folder.glob(self.path(url).name + "*"):
            path.unlink()

    @staticmethod
    def path(url: str) -> Path:
        """The file of a database."""
        return Path(url.removeprefix("sqlite:///"))

    def damage(self, url: str) -> list[str]:
        """What SQLite finds wrong with a database."""
        with contextlib.closing(sqlite3.connect(self.path(url), timeout=60)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            found += [
                f"a row of {table} refers to nothing"
                for table, *_ in connection.execute("PRAGMA foreign_key_check")
            ]
        return [line for line in found if line != "ok"]


class Server:
    """Databases of a PostgreSQL server.

    Args:
        url: Of a database there, whose user may create others.
    """

    kind = "postgres"

    def __init__(self, url: str) -> None:
        self._base = url
        self._numbers = itertools.count()

    def fresh(self, tables: Path | None = None) -> str:
        """The URL of a new, empty database.

        Args:
            tables: Folder for its tables, if not where the server has the others.
        """
        if tables is None:
            return self._create("")
        tables.mkdir(mode=0o700)
        shutil.chown(tables, "postgres", "postgres")
        self.execute(f"CREATE TABLESPACE faults LOCATION '{tables}'")
        return self._create("TABLESPACE faults")

    def copy(self, url: str) -> str:
        """The URL of a copy of a database that nobody has open."""
        return self._create(f"TEMPLATE {url.rsplit('/', 1)[1]}")

    def _create(self, options: str) -> str:
        name = f"faults_{next(self._numbers)}"
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.execute(f"CREATE DATABASE {name} {options}")
        return self._base.rsplit("/", 1)[0] + f"/{name}"

    def drop(self, url: str) -> None:
        """Remove a database."""
        self.execute(f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")

    def drop_tables_space(self) -> None:
        """Forget the folder for tables, when no database is there any more."""
        self.execute("DROP TABLESPACE faults")

    def damage(self, url: str) -> list[str]:
        """What the server finds wrong with the indexes of a database and their rows."""
        check = (
            "SELECT relname, bt_index_check(pg_index.indexrelid, true) FROM pg_index "
            "JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam "
            "WHERE amname = 'btree' AND relpersistence = 'p' AND indisvalid"
        )
        try:
            self.execute("CREATE EXTENSION IF NOT EXISTS amcheck", url)
            self.execute(check, url)
        except Exception as error:
            return [str(error)]
        return []

    def execute(self, statement: str, url: str | None = None) -> None:
        """Run a statement on a database; on that of the place if none is given."""
        import psycopg

        where = (url or self._base).replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(statement.encode())


Place = Files | Server


def place(where: str) -> Place:
    """A folder, or the URL of a server's database."""
    return Server(where) if "://" in where else Files(Path(where))
