"""PostgreSQL: how connections are set up so that no client can hold up the others for long.

Writers of a study wait for each other at the lock on its row, which each takes first; so there
are no deadlocks. They read committed data: who has waited for the lock then sees what the one
before it wrote, where a snapshot from before the wait would only fail to be serialisable. Readers
take no locks. They work on a snapshot (repeatable read), so that a revision and the trials up to it
are from the same moment; being read-only, they never fail either.
"""

import math
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine, create_engine, event

from bbmmopt.storage.dialect import Dialect
from bbmmopt.storage.errors import StorageError

# "bbmmopt" as a number: the lock that whoever creates or migrates tables takes.
_LOCK = int.from_bytes(b"bbmmopt", "big")

# A client that hangs within a transaction is cut off after this share of the time that others
# wait for its lock: so they get it, even if the next in line hangs as well. But a second at least,
# as a machine with much to do makes anybody wait.
_IDLE = 0.25
_IDLE_LEAST = 1.0


class PostgreSQL(Dialect):
    """A database of a PostgreSQL server, through psycopg.

    Args:
        url: A postgresql:// URL, of whichever driver or none.
        busy_timeout: Seconds to wait for a lock.

    Raises:
        StorageError: If the URL names another driver.
    """

    def __init__(self, url: URL, busy_timeout: float) -> None:
        if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
            raise StorageError(
                f"PostgreSQL is reached through psycopg, not {url.get_driver_name()}: "
                f"write postgresql+psycopg://user@host/name."
            )
        self.url = url.set(drivername="postgresql+psycopg")
        # Without the query: passwords may stand there too.
        self.name = self.url.set(query={}).render_as_string()
        self._busy_timeout = busy_timeout

    def engine(self) -> Engine:
        # A machine that vanished is noticed within a minute, on either side.
        arguments: dict[str, object] = {
            "connect_timeout": max(2, min(10, math.ceil(self._busy_timeout))),
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": _milliseconds(self._busy_timeout),
            "fallback_application_name": "bbmmopt",
        }
        arguments = {key: v for key, v in arguments.items() if key not in self.url.query}
        try:
            # No upper limit: connections are held for one transaction only. Asked whether they
            # are alive before they are used again, as the server may have been restarted.
            engine = create_engine(
                self.url, connect_args=arguments, max_overflow=-1, pool_pre_ping=True
            )
        except ImportError as error:
            raise StorageError(
                f"{self.name} needs the driver psycopg: {error}. "
                f"Install it: pip install 'bbmmopt[postgres]'."
            ) from error
        event.listen(engine, "connect", self._set_up)
        return engine

    def _set_up(self, connection: Any, _: object) -> None:
        timeout = self._busy_timeout
        settings = {
            "lock_timeout": _milliseconds(timeout),
            "idle_in_transaction_session_timeout": _milliseconds(max(_IDLE_LEAST, _IDLE * timeout)),
            "tcp_keepalives_idle": 30,
            "tcp_keepalives_interval": 10,
            "tcp_keepalives_count": 3,
        }
        calls = [f"set_config('{name}', '{value}', false)" for name, value in settings.items()]
        # A commit is on the disk when it returns, whatever the server's default. What waits for
        # less than its own disk is raised to that; what waits for standbys as well stays.
        calls.append(
            "set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
            "WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)"
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT " + ", ".join(calls))
        connection.commit()

    def prepare(self, engine: Engine) -> None:
        engine.connect().close()  # a wrong URL is told at once

    def options(self, *, write: bool) -> dict[str, Any]:
        if write:
            return {"isolation_level": "READ COMMITTED"}
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    def comes_back(self, cause: str) -> bool:
        return any(text in cause for text in _PASSING)

    def keep_others_out(self, connection: Connection) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))

    def back_up(self, suffix: str, connection: Connection) -> str:
        existing = set(sa.inspect(connection).get_table_names())
        ours = sorted(t for t in existing if t.startswith("bbmmopt_") and "_before_" not in t)
        ending, count = f"_{suffix.replace('-', '_')}", 1
        while any(name + ending in existing for name in ours):
            count += 1
            ending = f"_{suffix.replace('-', '_')}_{count}"
        quote = connection.dialect.identifier_preparer.quote
        for name in ours:
            connection.exec_driver_sql(
                f"CREATE TABLE {quote(name + ending)} AS TABLE {quote(name)}"
            )
        return f"the tables bbmmopt_…{ending}"

    def advice(self, cause: str, state: str | None, *, lost: bool, committing: bool) -> str:
        if state in _STATES:
            return _STATES[state].format(seconds=self._busy_timeout, name=self.url.database)
        if committing and lost:
            return _UNCERTAIN
        for text, advice in _CONNECTING.items():
            if text in cause:
                return advice.format(name=self.url.database)
        return _LOST if lost else "Nothing was written."


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))  # 0 would mean: no limit


_LOST = "The connection was lost, and nothing was written: try again when the server is back."
_UNCERTAIN = (
    "The connection was lost while the server confirmed: all of it was written, or nothing. Do the "
    "same again when the server is back; telling the same result twice changes nothing."
)

# By SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_STATES = {
    "55P03": "Another process has been writing for over {seconds:g} s: wait for it, or end it, "
    "and try again; nothing was written.",
    "25P03": "This process stood still within a transaction, so the server gave way to others: "
    "nothing was written; try again.",
    "57014": "The server has a limit on the time of a statement: raise statement_timeout for this "
    "user; nothing was written.",
    "40001": "Two transactions got in each other's way: nothing was written; try again.",
    "40P01": "Two transactions got in each other's way: nothing was written; try again.",
    "53100": "The server's disk is full: free some space there and try again; nothing was written.",
    "53200": "The server is out of memory; nothing was written. Try again later.",
    "25006": "This server only reads, as standbys do: give the address of the primary.",
    "42501": "Let the user have it: GRANT USAGE, CREATE ON SCHEMA public and GRANT ALL ON the "
    "tables bbmmopt_… there.",
    "3F000": "Name a schema that exists in search_path, and let the user have it: GRANT USAGE, "
    "CREATE ON SCHEMA public.",
    "42P01": "Its tables were removed while it was in use: restore them from a backup, or start a "
    "new study.",
    "XX001": "The server's data are damaged: go back to a backup.",
    "XX002": "The server's data are damaged: rebuild its indexes (REINDEX DATABASE {name}).",
}

# While connecting there is no state to go by.
_CONNECTING = {
    "during recovery": "This server only reads, as standbys do: give the address of the primary.",
    "password authentication failed": "Check user and password in the URL, or in ~/.pgpass.",
    "no password supplied": "Write the password into the URL, or into ~/.pgpass.",
    "pg_hba.conf": "The server lets nobody in from here by that name: see its pg_hba.conf.",
    "too many clients": "The server's connections are used up, and each process holds one: raise "
    "max_connections there, or end some processes.",
    "remaining connection slots": "The server's connections are used up, and each process holds "
    "one: raise max_connections there, or end some processes.",
    "too many connections": "The connections of this user or database are used up, and each "
    "process holds one: raise its CONNECTION LIMIT, or end some processes.",
    "currently accepting": "It is closed to everybody: ALTER DATABASE … ALLOW_CONNECTIONS true.",
    "not yet accepting": "The server is starting: try again in a moment.",
    "recovery mode": "The server is recovering: try again in a moment.",
    'role "': "Create the user: createuser, as the server's owner.",
    'database "': "Create it: createdb {name}, as a user who may.",
    "starting up": "The server is starting: try again in a moment.",
    "shutting down": "The server is shutting down: try again when it is back.",
    "resolve host": "Check the host in the URL.",
    "translate host": "Check the host in the URL.",
    "refused": "Check host and port in the URL, and that the server is running.",
    "timeout": "Check host and port in the URL, and that no firewall is between.",
    "No such file": "Write the host into the URL, or start a server on this machine.",
}

# A server that restarts refuses connections for a while.
_PASSING = (
    *("starting up", "not yet accepting", "recovery mode", "shutting down", "refused", "timeout"),
    *("server closed the connection", "reset by peer", "too many clients"),
    "remaining connection slots",
)
