"""What holds for PostgreSQL: what is refused, who waits for whom, a server that goes away."""

import signal
import sys
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from bbmmopt.storage import StorageError, open_storage, schema
from bbmmopt.storage.database import Database
from bbmmopt.storage.sql import SQLStorage
from bbmmopt.trial import Trial
from benchmarks.postgres import PostgresServer
from tests.bbmmopt.storages import everything, next_line, output, start, with_a_study

pytestmark = pytest.mark.alone


@pytest.fixture
def url(postgres_url) -> str:
    """A database with an empty study."""
    return str(with_a_study(postgres_url))


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server to be stopped and killed, which the other tests do not see."""
    with PostgresServer(fsync=False) as server:
        yield server


@pytest.fixture
def server(own_server) -> Iterator[PostgresServer]:
    """It, running, with an empty study in the database "study"."""
    with_a_study(own_server.url("study"))
    yield own_server
    own_server.stop()
    own_server.start()
    own_server.execute("DROP SCHEMA public CASCADE", "study")
    own_server.execute("CREATE SCHEMA public", "study")


def hold_the_study(database: str, pause: str) -> str:
    """Code that takes the lock on a study's row, changes the study and pauses."""
    return f"""
    storage = SQLStorage(where, busy_timeout={database})
    with storage._database.transaction(write=True) as connection:
        connection.exec_driver_sql("SELECT * FROM bbmmopt_studies FOR UPDATE")
        connection.exec_driver_sql("UPDATE bbmmopt_studies SET seed = '999'")
        print("holding", flush=True)
        {pause}
    """


# --------------------------------------------------------------------------------------
# At the door
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (":{password}@", ":wrong@", "authentication failed .* Check user and password in the URL"),
        (":{password}@", "@", r"no password supplied\. Write the password into the URL, or"),
        ("/test", "/missing", r'"missing" does not exist\. Create it: createdb missing'),
        (":{port}/", ":1/", r"refused\. Check host and port in the URL, and that the server"),
        ("127.0.0.1", "nowhere.invalid", r"Check the host in the URL\."),
        (":{port}/", ":port/", "is not a database URL"),
        ("+psycopg:", "+asyncpg:", r"through psycopg, not asyncpg: write postgresql\+psycopg"),
        ("postgresql+psycopg", "mysql", "mysql is not supported: .* SQLite .* PostgreSQL"),
        ("/test", "/test?options=-csearch_path%3Dx", "no schema .* Name a schema that exists"),
    ],
)
def test_a_wrong_url_is_refused_with_advice_and_the_password_not_shown(
    old, new, message, postgres, postgres_url
):
    old = old.format(password=postgres.password, port=postgres.port)
    assert old in postgres_url
    with pytest.raises(StorageError, match=message) as caught:
        open_storage(postgres_url.replace(old, new))
    assert postgres.password not in str(caught.value)
    assert "wrong" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_driver_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StorageError, match=r"pip install 'bbmmopt\[postgres\]'"):
        open_storage("postgresql+psycopg://user@127.0.0.1/study")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_url_without_a_driver_means_psycopg(scheme, url):
    with open_storage(url.replace("postgresql+psycopg", scheme)) as storage:
        assert storage.studies() == ["svm"]


def test_a_user_without_rights_is_told_which(postgres, url):
    postgres.execute("DROP ROLE IF EXISTS poor")
    postgres.execute("CREATE ROLE poor LOGIN PASSWORD 'poor'")
    poor = postgres.url("test", user="poor", password="poor")
    with pytest.raises(StorageError, match=r"no schema .* GRANT USAGE, CREATE ON SCHEMA public"):
        open_storage(poor)
    postgres.execute("GRANT USAGE ON SCHEMA public TO poor", "test")
    with pytest.raises(StorageError, match=r"permission denied .* GRANT ALL ON the tables"):
        open_storage(poor)
    postgres.execute("ALTER ROLE poor CONNECTION LIMIT 0")
    with pytest.raises(StorageError, match=r"too many connections .* CONNECTION LIMIT"):
        open_storage(poor)
    postgres.execute("REVOKE ALL ON SCHEMA public FROM poor", "test")
    postgres.execute("DROP ROLE poor")


def test_who_creates_the_tables_waits_for_who_is_at_it(postgres, postgres_url):
    opened: list[list[str]] = []

    def open_too() -> None:
        with open_storage(postgres_url) as storage:
            opened.append(storage.studies())

    first = Database(postgres_url, busy_timeout=60)
    second = threading.Thread(target=open_too)
    with first.transaction(write=True) as connection:
        first.keep_others_out(connection)
        second.start()
        until(first, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'advisory'")
        schema.create(connection)
    second.join()
    first.close()
    assert opened == [[]]


def test_a_commit_is_on_the_disk_whatever_the_default_of_the_server(postgres, url):
    for default, ours in (("off", "on"), ("remote_apply", "remote_apply"), ("on", "on")):
        postgres.execute(f"ALTER DATABASE test SET synchronous_commit = {default}")
        with SQLStorage(url) as storage, storage._database.transaction(write=True) as connection:
            found = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
        assert found == ours
    postgres.execute("ALTER DATABASE test RESET synchronous_commit")


# --------------------------------------------------------------------------------------
# Who waits for whom
# --------------------------------------------------------------------------------------


def test_what_is_read_in_a_transaction_is_from_one_moment(url):
    with SQLStorage(url) as storage, SQLStorage(url) as other:
        read = "SELECT revision FROM bbmmopt_studies"
        with storage._database.transaction(write=False) as connection:
            before = connection.exec_driver_sql(read).scalar_one()
            other.add("svm", Trial(0, {}))
            assert connection.exec_driver_sql(read).scalar_one() == before
        assert storage.changes("svm")[1] > before


def test_a_writer_sees_what_was_written_while_it_waited(url):
    """So a number is taken once, and nobody ever has to begin again."""
    with SQLStorage(url) as storage, SQLStorage(url) as other:
        numbers = []
        with storage._database.transaction(write=True) as connection:
            connection.exec_driver_sql("SELECT * FROM bbmmopt_studies FOR UPDATE")
            waiting = threading.Thread(
                target=lambda: numbers.append(other.add_next("svm", Trial(0, {})).number)
            )
            waiting.start()
            until(
                storage._database,
                "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
            )
            connection.exec_driver_sql(
                "INSERT INTO bbmmopt_trials (study, number, revision, state, params, outcome, "
                "attrs, origin) SELECT id, 7, 1, 'waiting', '{}', '{}', '{}', '{}' "
                "FROM bbmmopt_studies"
            )
        waiting.join()
        assert numbers == [8]


def until(database: Database, query: str) -> None:
    """Wait for a query to answer yes."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        with database.transaction(write=False) as connection:
            if connection.exec_driver_sql(query).scalar_one():
                return
        time.sleep(0.005)
    raise AssertionError(query)


def test_a_lock_held_too_long_is_told_and_nothing_written(url):
    holder = start(hold_the_study("60", "sys.stdin.readline()"), url)
    assert next_line(holder) == "holding"
    with SQLStorage(url, busy_timeout=0.2) as storage:
        assert storage.changes("svm")[0] == []  # readers do not wait
        with pytest.raises(StorageError, match=r"lock timeout\. Another process .* over 0.2 s"):
            storage.add("svm", Trial(0, {}))
        assert holder.stdin is not None
        holder.stdin.write("\n")
        output(holder)
        assert storage.add("svm", Trial(0, {})) == Trial(0, {})
        assert storage.study("svm").seed == 999


def test_a_process_stopped_within_a_transaction_blocks_nobody_for_long(url):
    """It is stopped by a signal, as a debugger or a full batch queue would. The others get its
    lock before they give up; what it had written half is undone, and it is told so."""
    code = hold_the_study("2", "sys.stdin.readline()") + (
        '    connection.exec_driver_sql("UPDATE bbmmopt_studies SET settings = NULL")\n'
    )
    stopped = start(code, url)
    assert next_line(stopped) == "holding"
    stopped.send_signal(signal.SIGSTOP)
    with SQLStorage(url, busy_timeout=2) as storage:
        storage.add("svm", Trial(0, {}))
        assert storage.study("svm").seed == 2**70
        stopped.send_signal(signal.SIGCONT)
        error = stopped.communicate("\n", timeout=60)[1]
        assert "This process stood still within a transaction" in error
        assert stopped.returncode == 1
        assert storage.check() == []


def test_who_takes_long_over_what_was_read_is_not_cut_off(url):
    with SQLStorage(url, busy_timeout=0.2) as storage:
        with storage._database.transaction(write=False) as connection:
            found = connection.exec_driver_sql("SELECT name FROM bbmmopt_studies").scalar_one()
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            until(storage._database, f"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}")
        assert found == "svm"


def test_a_process_killed_within_a_transaction_blocks_nobody(url):
    killed = start(hold_the_study("60", "sys.stdin.readline()"), url)
    assert next_line(killed) == "holding"
    with SQLStorage(url, busy_timeout=30) as storage:
        killed.kill()
        killed.communicate()
        storage.add("svm", Trial(0, {}))
        assert storage.study("svm").seed == 2**70


# --------------------------------------------------------------------------------------
# A server that goes away
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_after_a_restart_connections_are_replaced_and_what_was_told_is_there(server, end):
    with open_storage(server.url("study")) as storage:
        storage.add("svm", Trial(0, {"x": 1}))
        getattr(server, end)()
        server.start()
        assert everything(storage) == [Trial(0, {"x": 1})]
        storage.add("svm", Trial(1, {}))
        assert storage.check() == []


def test_a_server_that_is_away_for_a_moment_is_waited_for(server):
    with SQLStorage(server.url("study"), busy_timeout=30) as storage:
        server.kill()
        back = threading.Timer(0.3, server.start)
        back.start()
        storage.add("svm", Trial(0, {}))
        back.join()
        assert everything(storage) == [Trial(0, {})]


def test_a_server_that_stays_away_is_told_after_the_timeout(server):
    with SQLStorage(server.url("study"), busy_timeout=0.3) as storage:
        server.stop()
        with pytest.raises(StorageError, match=r"refused\. Check host and port .* is running"):
            storage.add("svm", Trial(0, {}))
        server.start()
        assert storage.changes("svm")[0] == []


@pytest.mark.parametrize(
    ("end", "committing", "message"),
    [
        ("kill", False, "connection was lost, and nothing was written: try again"),
        ("stop", False, "connection was lost, and nothing was written: try again"),
        ("kill", True, r"all of it was written, or nothing.* telling the same result twice"),
    ],
)
def test_a_transaction_cut_off_leaves_nothing_half_written(server, end, committing, message):
    def cut_off() -> None:
        with storage._database.transaction(write=True) as connection:
            connection.exec_driver_sql("UPDATE bbmmopt_studies SET seed = '999'")
            getattr(server, end)()
            if not committing:
                connection.exec_driver_sql("UPDATE bbmmopt_studies SET seed = '1000'")

    with SQLStorage(server.url("study")) as storage:
        with pytest.raises(StorageError, match=message):
            cut_off()
        server.start()
        assert storage.study("svm").seed == 2**70


def test_telling_again_after_a_lost_confirmation_is_no_second_result(server, monkeypatch):
    """The commit is done, but the server dies before the client hears of it."""
    told = {"state": "complete", "values": {"e": 1.0}, "finished": 1.0}
    commit = psycopg.Connection.commit

    def commit_unheard(connection: psycopg.Connection) -> None:
        commit(connection)
        server.kill()
        connection.execute("SELECT 'committed'")  # raises what a commit does then

    with SQLStorage(server.url("study")) as storage:
        storage.add("svm", Trial(0, {}))
        before = storage.changes("svm")[1]
        monkeypatch.setattr(psycopg.Connection, "commit", commit_unheard)
        with pytest.raises(StorageError, match=r"telling the same result twice changes nothing"):
            storage.finish("svm", 0, **told)
        monkeypatch.undo()
        server.start()
        assert storage.finish("svm", 0, **told).values == {"e": 1.0}
        assert storage.changes("svm")[1] == before + 1


def test_tables_that_were_removed_meanwhile_are_told(server):
    with SQLStorage(server.url("study")) as storage:
        server.execute("DROP TABLE bbmmopt_trials", "study")
        with pytest.raises(StorageError, match="tables were removed while it was in use"):
            storage.add("svm", Trial(0, {}))


def test_used_up_connections_are_told():
    settings = {"max_connections": 4, "superuser_reserved_connections": 0, "max_wal_senders": 0}
    with PostgresServer(fsync=False, settings=settings) as server:
        url = with_a_study(server.url("study"))
        opened = []

        def open_many() -> None:
            for _ in range(5):
                opened.append(open_storage(url))

        with pytest.raises(
            StorageError, match=r"too many clients .* each process holds one: raise"
        ):
            open_many()
        assert 1 <= len(opened) <= 4
        for storage in opened:
            storage.close()


# --------------------------------------------------------------------------------------
# Backups
# --------------------------------------------------------------------------------------


def test_a_backup_is_a_copy_of_the_tables_that_is_never_overwritten(postgres, url):
    def seeds(table: str) -> list[tuple]:
        return postgres.execute(f"SELECT seed FROM {table}", "test")

    def back_up() -> str:
        with database.transaction(write=True) as connection:
            database.keep_others_out(connection)
            name = database.back_up("before-v9", connection)
            connection.exec_driver_sql("UPDATE bbmmopt_studies SET seed = seed || '1'")
            return name

    with SQLStorage(url) as storage:
        database, seed = storage._database, str(2**70)
        assert back_up() == "the tables bbmmopt_…_before_v9"
        assert back_up() == "the tables bbmmopt_…_before_v9_2"
        assert seeds("bbmmopt_studies_before_v9") == [(seed,)]
        assert seeds("bbmmopt_studies_before_v9_2") == [(seed + "1",)]
        assert seeds("bbmmopt_studies") == [(seed + "11",)]
        assert postgres.execute("SELECT * FROM bbmmopt_schema_before_v9", "test")
        assert storage.check() == []


def test_a_backup_goes_with_a_transaction_that_fails(postgres, url):
    def back_up_and_fail() -> None:
        with database.transaction(write=True) as connection:
            database.back_up("before-v9", connection)
            raise ZeroDivisionError

    with SQLStorage(url) as storage:
        database = storage._database
        with pytest.raises(ZeroDivisionError):
            back_up_and_fail()
    found = postgres.execute("SELECT tablename FROM pg_tables WHERE tablename ~ 'before'", "test")
    assert found == []
