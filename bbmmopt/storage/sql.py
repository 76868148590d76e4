"""SQLStorage: studies in an SQLite file, or on a database server.

What only we read (parameters, values, notes) is JSON in text columns, what SQL looks for has a
column of its own.
"""

import math
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError

from bbmmopt.storage import schema, statements
from bbmmopt.storage.base import Storage
from bbmmopt.storage.checking import damage, disagreements
from bbmmopt.storage.clock import LeaseClock
from bbmmopt.storage.database import Database
from bbmmopt.storage.errors import NumberTaken, StorageError, UnknownStudy
from bbmmopt.storage.records import Event, Report, StudyRecord
from bbmmopt.storage.rows import event_row, read_trials, study_row, trial_row
from bbmmopt.storage.session import Session
from bbmmopt.trial import Trial, TrialState, loads

_studies, _trials = schema.studies, schema.trials
_reports, _events = schema.reports, schema.events


class SQLStorage(Storage):
    """Keeps studies in a database, created with its tables if it is not there.

    Safe to share between threads; in a forked process it opens connections of its own. Tables of
    an older bbmmopt are brought up to date, after a backup was made beside them.

    Args:
        where: Path of an SQLite file, or a database URL.
        busy_timeout: Seconds to wait for another process to finish its transaction.
        read_only: Look, and change nothing: no file, no table is made or brought up to date.

    Raises:
        StorageError: If it cannot be opened, or was written by a newer bbmmopt; with read_only, if
            it holds no tables, or those of an older one.
    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        *,
        busy_timeout: float = 60.0,
        read_only: bool = False,
    ) -> None:
        self._database = Database(where, busy_timeout, read_only=read_only)
        self._read_only = read_only
        self._clock = LeaseClock(self._anchored)
        try:
            self._set_up_tables()
        except BaseException:
            self._database.close()
            raise

    def _set_up_tables(self) -> None:
        with self._database.transaction(write=False) as connection:
            version = schema.version_of(connection)
        if self._read_only and (version is None or version < schema.SCHEMA_VERSION):
            raise self._without_tables(version)
        if version is None:
            with self._database.transaction(write=True) as connection:
                self._database.keep_others_out(connection)
                schema.create(connection)
        elif version < schema.SCHEMA_VERSION:
            self._migrate()
        elif version > schema.SCHEMA_VERSION:
            raise self._newer(version)

    def _newer(self, version: int) -> StorageError:
        return StorageError(
            f"{self._database.name} was written by a newer bbmmopt (schema {version}; this one "
            f"knows {schema.SCHEMA_VERSION}). Upgrade bbmmopt, or use another file."
        )

    def _without_tables(self, version: int | None) -> StorageError:
        if version is None:
            return UnknownStudy(f"{self._database.name} holds no study yet: create one there.")
        return StorageError(
            f"{self._database.name} was written by an older bbmmopt (schema {version}; this one "
            f"has {schema.SCHEMA_VERSION}). Open it for writing once: it is brought up to date "
            f"then, after a backup."
        )

    def _migrate(self) -> None:
        with self._database.transaction(write=True) as connection:
            self._database.keep_others_out(connection)
            version = schema.version_of(connection) or schema.SCHEMA_VERSION
            if version < schema.SCHEMA_VERSION:  # or another process was first
                self._database.back_up(f"before-v{schema.SCHEMA_VERSION}", connection)
                schema.migrate(connection, version)

    @property
    def address(self) -> str:
        return self._database.url.render_as_string(hide_password=False)

    @property
    def busy_timeout(self) -> float:
        return self._database.busy_timeout

    def clock(self) -> float:
        if self._database.is_sqlite:
            return self._clock()
        with self._database.transaction(write=False) as connection:
            now = sa.select(sa.extract("epoch", sa.func.clock_timestamp()))
            return float(connection.execute(now).scalar_one())

    def _anchored(self, boot: str, wanted: float) -> float:
        row = {"boot": boot, "zero": wanted}
        kept = sa.select(schema.clocks.c.zero).where(schema.clocks.c.boot == boot)
        with self._database.transaction(write=False) as connection:
            found = connection.execute(kept).scalar_one_or_none()
        if found is not None or self._read_only:
            return wanted if found is None else found
        with self._database.transaction(write=True) as connection:
            connection.execute(sqlite.insert(schema.clocks).values(row).on_conflict_do_nothing())
            return connection.execute(kept).scalar_one()

    def check(self) -> list[str]:
        with self._database.transaction(write=False) as connection:
            return damage(connection) + disagreements(connection)

    def create_study(self, record: StudyRecord) -> StudyRecord:
        existing = self.study(record.name)
        if existing is not None:
            return existing
        row = study_row(record) | {"revision": 1}
        event = event_row("created", None, {}) | {"revision": 1}
        try:
            with self._database.transaction(write=True) as connection:
                found = connection.execute(_studies.insert().values(row)).inserted_primary_key
                assert found is not None
                connection.execute(_events.insert().values(event | {"study": found[0]}))
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
            generation=row.generation,
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
            # The lock on its row makes the writers of a study wait for each other, so that
            # revisions are seen in their order. SQLite has locked the file already.
            of = statements.LOCK if write else statements.LOOK
            row = connection.execute(of, {"of_study": study}).first()
            if row is None:
                raise UnknownStudy(f"there is no study {study!r} in {self._database.name}.")
            if row.version != schema.SCHEMA_VERSION:
                raise self._newer(row.version)  # brought up to date since this was opened
            yield _SQLSession(connection, row.id, row.revision, row.generation)


def _at_most(query: sa.Select[Any], most: int | None) -> sa.Select[Any]:
    return query if most is None else query.limit(most)


def _event(row: sa.Row[Any]) -> Event:
    return Event(row.revision, row.time, row.kind, row.number, row.worker, loads(row.detail))


class _SQLSession(Session):
    """A transaction on one study."""

    def __init__(
        self, connection: sa.Connection, study: int, revision: int, generation: int
    ) -> None:
        self._connection, self._study, self._revision = connection, study, revision
        self._generation = generation

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def revision(self) -> int:
        return self._revision

    def trial(self, number: int) -> Trial | None:
        if not 0 <= number < 2**63:
            return None  # or the driver would refuse it
        return self._only(statements.TRIAL, of_number=number)

    def first_waiting(self) -> Trial | None:
        return self._only(statements.FIRST_OF_STATE, of_state=str(TrialState.WAITING))

    def first_lease(self) -> Trial | None:
        return self._only(statements.FIRST_LEASE)

    def next_number(self) -> int:
        highest = self._run(statements.HIGHEST).scalar_one()
        return 0 if highest is None else highest + 1

    def insert(self, trial: Trial, kind: str) -> None:
        self.add_event(kind, trial, {})
        row = trial_row(trial) | {"study": self._study, "revision": self._revision}
        try:
            self._connection.execute(statements.ADD_TRIAL, row)
        except IntegrityError:
            raise NumberTaken(f"there is a trial {trial.number} already.") from None

    def update(self, before: Trial, after: Trial, kind: str, detail: Mapping[str, Any]) -> None:
        self.add_event(kind, after, detail)
        row = trial_row(after) | {"revision": self._revision}
        of = {"of_number": before.number, "of_state": str(before.state)}
        if self._run(statements.CHANGE_TRIAL, **of, **row).rowcount != 1:
            raise StorageError(f"trial {before.number} was changed meanwhile. Try again.")

    def renew(self, number: int, lease_until: float) -> None:
        self._run(statements.RENEW, of_number=number, lease_until=lease_until)

    def add_report(self, number: int, step: int, value: float) -> None:
        row = {
            "study": self._study,
            "revision": self._count_up(),
            "number": number,
            "step": step,
            "value": None if math.isnan(value) else value,
            "time": time.time(),
        }
        self._connection.execute(statements.ADD_REPORT, row)

    def add_event(self, kind: str, trial: Trial | None, detail: Mapping[str, Any]) -> None:
        row = event_row(kind, trial, detail)
        row |= {"study": self._study, "revision": self._count_up()}
        self._connection.execute(statements.ADD_EVENT, row)

    def revise(self, record: StudyRecord) -> None:
        self._run(statements.CHANGE_STUDY, **study_row(record))

    def changes(self, since: int) -> tuple[list[Trial], int]:
        if since == self._revision:
            return [], since
        return read_trials(self._run(statements.CHANGES, since=since)), self._revision

    def page(self, start: int, most: int, states: Collection[TrialState]) -> list[Trial]:
        if start >= 2**63:
            return []  # or the driver would refuse it
        wanted = [str(state) for state in states]
        query = statements.PAGE.limit(most)
        return read_trials(self._run(query, of_number=start, of_states=wanted))

    def reports(self, since: int, most: int | None) -> tuple[list[Report], int]:
        if since == self._revision:
            return [], since
        found = [
            Report(
                row.number,
                row.step,
                math.nan if row.value is None else row.value,
                row.time,
                row.revision,
            )
            for row in self._run(_at_most(statements.REPORTS, most), since=since)
        ]
        return found, found[-1].revision if len(found) == most else self._revision

    def events(self, since: int, most: int | None, kinds: Collection[str] | None) -> list[Event]:
        query, values = statements.EVENTS, {}
        if kinds is not None:
            query, values = statements.EVENTS_OF, {"of_kinds": list(kinds)}
        return [_event(row) for row in self._run(_at_most(query, most), since=since, **values)]

    def latest_event(self, kind: str, since: int) -> tuple[Event | None, int]:
        if since == self._revision:
            return None, since
        row = self._run(statements.LATEST_EVENT, since=since, of_kind=kind).first()
        return None if row is None else _event(row), self._revision

    def _run(self, statement: sa.Executable, **values: Any) -> sa.CursorResult[Any]:
        return self._connection.execute(statement, {"of_study": self._study, **values})

    def _only(self, statement: sa.Executable, **values: Any) -> Trial | None:
        found = read_trials(self._run(statement, **values))
        return found[0] if found else None

    def _count_up(self) -> int:
        self._revision += 1
        self._run(statements.CHANGE_STUDY, revision=self._revision)
        return self._revision
