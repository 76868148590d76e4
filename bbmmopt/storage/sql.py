"""SQLStorage: studies in an SQLite file, or on a database server.

Two tables hold everything: one row per study, one per trial. What only we read (parameters,
values, notes) is JSON in text columns, what SQL looks for has a column of its own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from bbmmopt.storage.base import (
    NumberTaken,
    Session,
    Storage,
    StorageError,
    StudyRecord,
    UnknownStudy,
)
from bbmmopt.storage.database import Database
from bbmmopt.trial import Trial, TrialState, dumps, loads

# Counts the layouts of the tables. A new one needs a migration from each before it.
SCHEMA_VERSION = 1

_metadata = sa.MetaData()

_schema = sa.Table("bbmmopt_schema", _metadata, sa.Column("version", sa.Integer, primary_key=True))

_studies = sa.Table(
    "bbmmopt_studies",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("seed", sa.Text, nullable=False),  # text: a seed may have more than 64 bits
    sa.Column("settings", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),  # counts the writes to its trials
)

_trials = sa.Table(
    "bbmmopt_trials",
    _metadata,
    sa.Column("study", sa.ForeignKey("bbmmopt_studies.id"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),  # that of the study at the last change
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("lease_until", sa.Double),
    sa.Column("created", sa.Double),
    sa.Column("started", sa.Double),
    sa.Column("finished", sa.Double),
    sa.Column("params", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("attrs", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Index("bbmmopt_trials_by_revision", "study", "revision"),
    sa.Index("bbmmopt_trials_by_state", "study", "state", "number"),
)

_PLAIN = ("number", "worker", "lease_until", "created", "started", "finished")
_JSON = ("params", "attrs", "origin")
_OUTCOME = ("values", "standard_errors", "constraints", "reason")


class SQLStorage(Storage):
    """Keeps studies in a database, created with its tables if it is not there.

    Safe to share between threads; in a forked process it opens connections of its own.

    Args:
        where: Path of an SQLite file, or a database URL.
        busy_timeout: Seconds to wait for another process to finish its transaction. SQLite only.

    Raises:
        StorageError: If it cannot be opened, or was written by a newer bbmmopt.
    """

    def __init__(self, where: str | os.PathLike[str], *, busy_timeout: float = 60.0) -> None:
        self._database = Database(where, busy_timeout)
        with self._database.transaction(write=False) as connection:
            found = sa.inspect(connection).has_table(_schema.name)
        if not found:
            self._create_tables()
        with self._database.transaction(write=False) as connection:
            version = connection.execute(sa.select(sa.func.max(_schema.c.version))).scalar_one()
        if version > SCHEMA_VERSION:
            raise StorageError(
                f"{self._database.name} was written by a newer bbmmopt (schema {version}; this "
                f"one knows {SCHEMA_VERSION}). Upgrade bbmmopt, or use another file."
            )

    def _create_tables(self) -> None:
        with self._database.transaction(write=True) as connection:
            # Looks again which tables there are: another process may have been first.
            _metadata.create_all(connection)
            if connection.execute(sa.select(_schema.c.version)).first() is None:
                connection.execute(_schema.insert().values(version=SCHEMA_VERSION))

    def create_study(self, record: StudyRecord) -> StudyRecord:
        row = {
            "name": record.name,
            "problem": dumps(record.problem, "problem"),
            "seed": str(record.seed),
            "settings": dumps(record.settings, "settings"),
            "created": record.created,
            "version": record.version,
            "revision": 0,
        }
        existing = self.study(record.name)
        if existing is not None:
            return existing
        try:
            with self._database.transaction(write=True) as connection:
                connection.execute(_studies.insert().values(row))
        except IntegrityError:
            pass  # another process was first: its record counts
        return self.study(record.name) or record

    def study(self, name: str) -> StudyRecord | None:
        with self._database.transaction(write=False) as connection:
            row = connection.execute(sa.select(_studies).where(_studies.c.name == name)).first()
        if row is None:
            return None
        return StudyRecord(
            name=row.name,
            problem=loads(row.problem),
            seed=int(row.seed),
            settings=loads(row.settings),
            created=row.created,
            version=row.version,
        )

    def studies(self) -> list[str]:
        with self._database.transaction(write=False) as connection:
            return list(
                connection.execute(sa.select(_studies.c.name).order_by(_studies.c.id)).scalars()
            )

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _session(self, study: str, *, write: bool) -> Iterator["_SQLSession"]:
        with self._database.transaction(write=write) as connection:
            query = sa.select(_studies.c.id, _studies.c.revision).where(_studies.c.name == study)
            # The lock on its row makes the writers of a study wait for each other, so that
            # revisions are seen in their order. SQLite has locked the file already.
            row = connection.execute(query.with_for_update() if write else query).first()
            if row is None:
                raise UnknownStudy(f"there is no study {study!r} in {self._database.name}.")
            yield _SQLSession(connection, row.id, row.revision)


class _SQLSession(Session):
    """A transaction on one study."""

    def __init__(self, connection: sa.Connection, study: int, revision: int) -> None:
        self._connection, self._study, self._revision = connection, study, revision

    def trial(self, number: int) -> Trial | None:
        if not 0 <= number < 2**63:
            return None  # or the driver would refuse it
        return self._first(_trials.c.number == number)

    def first_waiting(self) -> Trial | None:
        return self._first(_trials.c.state == str(TrialState.WAITING))

    def _first(self, condition: sa.ColumnElement[bool]) -> Trial | None:
        query = sa.select(_trials).where(_trials.c.study == self._study, condition)
        row = self._connection.execute(query.order_by(_trials.c.number).limit(1)).first()
        return None if row is None else _trial(row)

    def next_number(self) -> int:
        query = sa.select(sa.func.max(_trials.c.number)).where(_trials.c.study == self._study)
        highest = self._connection.execute(query).scalar_one()
        return 0 if highest is None else highest + 1

    def insert(self, trial: Trial) -> None:
        row = _row(trial) | {"study": self._study, "revision": self._count_up()}
        try:
            self._connection.execute(_trials.insert().values(row))
        except IntegrityError:
            raise NumberTaken(f"there is a trial {trial.number} already.") from None

    def update(self, before: Trial, after: Trial) -> None:
        # With the state that was read: should two ever come here at once, one finds nothing.
        statement = _trials.update().where(
            _trials.c.study == self._study,
            _trials.c.number == before.number,
            _trials.c.state == str(before.state),
        )
        row = _row(after) | {"revision": self._count_up()}
        written = self._connection.execute(statement.values(row)).rowcount
        if written != 1:
            raise StorageError(f"trial {before.number} was changed meanwhile. Try again.")

    def changes(self, since: int) -> tuple[list[Trial], int]:
        if since == self._revision:
            return [], since
        query = sa.select(_trials).where(_trials.c.study == self._study, _trials.c.revision > since)
        rows = self._connection.execute(query.order_by(_trials.c.revision))
        return [_trial(row) for row in rows], self._revision

    def _count_up(self) -> int:
        self._revision += 1
        self._connection.execute(
            _studies.update().where(_studies.c.id == self._study).values(revision=self._revision)
        )
        return self._revision


def _row(trial: Trial) -> dict[str, Any]:
    """The columns of a trial."""
    row: dict[str, Any] = {name: getattr(trial, name) for name in _PLAIN}
    row |= {name: dumps(getattr(trial, name), name) for name in _JSON}
    outcome = {name: getattr(trial, name) for name in _OUTCOME}
    return row | {"state": str(trial.state), "outcome": dumps(outcome, "outcome")}


def _trial(row: sa.Row[Any]) -> Trial:
    """Undo `_row`."""
    fields = {name: getattr(row, name) for name in _PLAIN}
    fields |= {name: loads(getattr(row, name)) for name in _JSON}
    return Trial(state=TrialState(row.state), **fields, **loads(row.outcome))
