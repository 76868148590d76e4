"""What holds for SQLite files: opening, locks, full disks, files that are not what they were."""

import sqlite3
import threading
from pathlib import Path

import pytest

from bbmmopt.storage import MemoryStorage, StorageError, open_storage
from bbmmopt.trial import Trial
from tests.bbmmopt.storages import RECORD, everything, with_a_study


@pytest.fixture
def path(tmp_path) -> Path:
    """A file with an empty study."""
    return Path(with_a_study(tmp_path / "study.db"))


# --------------------------------------------------------------------------------------
# Opening
# --------------------------------------------------------------------------------------


def test_open_storage_takes_nothing_a_path_a_url_or_a_storage(tmp_path, monkeypatch):
    assert isinstance(memory := open_storage(None), MemoryStorage)
    assert open_storage(memory) is memory
    monkeypatch.chdir(tmp_path)
    for where in ("a.db", Path("a.db"), "sqlite:///a.db", str(tmp_path / "a.db")):
        with open_storage(where) as storage:
            storage.create_study(RECORD)
            assert storage.studies() == ["svm"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]
    with pytest.raises(TypeError, match="None, a path, a database URL or a Storage; got 3"):
        open_storage(3)  # pyright: ignore[reportArgumentType]


def test_a_relative_path_stays_the_same_file_when_the_directory_changes(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with open_storage("a.db") as storage:
        monkeypatch.chdir(tmp_path / "elsewhere")
        storage.close()  # the next use opens the file again
        storage.create_study(RECORD)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("missing/study.db", r"the directory .*missing does not exist. Create it first"),
        (".", "is a directory. Give the path of a file"),
        ("text.db", "not a database. Give the path of a study"),
        ("sqlite://", "use storage=None"),
        ("nosuch://host/db", "nosuch is not supported: .* SQLite files .* PostgreSQL"),
        ("://", "is not a database URL"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_advice(where, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.db").write_text("not a database, but long enough to be looked at closely" * 20)
    with pytest.raises(StorageError, match=message):
        open_storage(where)


def test_an_sqlite_file_of_another_program_is_refused_and_left_as_it_was(tmp_path):
    path = tmp_path / "photos.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"belongs to another program.*photos"):
        open_storage(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_in_one_line(path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE bbmmopt_schema SET version = 99")
    connection.close()
    with pytest.raises(StorageError, match=r"newer bbmmopt \(schema 99.*Upgrade") as caught:
        open_storage(path)
    assert "\n" not in str(caught.value)


def test_a_read_only_database_can_be_read_and_says_so_when_written(path):
    with open_storage(path) as storage:
        storage.add("svm", Trial(0, {"x": 1}))
    with open_storage(f"sqlite:///file:{path}?mode=ro&uri=true") as storage:
        assert storage.trial("svm", 0).params == {"x": 1}
        with pytest.raises(StorageError, match=r"readonly.*Make the file .* writable"):
            storage.add("svm", Trial(1, {}))


def test_a_locked_database_says_so_after_the_timeout_and_works_afterwards(path):
    from bbmmopt.storage.sql import SQLStorage

    other = sqlite3.connect(path, isolation_level=None)
    with SQLStorage(path, busy_timeout=0.05) as storage:
        other.execute("BEGIN IMMEDIATE")
        assert storage.changes("svm") == ([], 1)  # readers do not wait
        with pytest.raises(StorageError, match=r"locked. Another process .* over 0.05 s"):
            storage.add("svm", Trial(0, {}))
        other.execute("ROLLBACK")
        other.close()
        assert storage.add("svm", Trial(0, {})) == Trial(0, {})


def test_a_new_file_waits_for_whoever_has_it_before_the_log_is_set_up(tmp_path):
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
    # Changing to WAL now fails at once, whatever the busy timeout.
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, other.execute, ["ROLLBACK"])
    release.start()
    with open_storage(tmp_path / "a.db") as storage:
        assert storage.create_study(RECORD) == RECORD
    release.join()
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_a_full_disk_loses_nothing_that_was_acknowledged(path):
    with open_storage(path) as storage:
        with storage._database.transaction(write=False) as connection:  # pyright: ignore
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            # A limit on this connection, which the pool hands out again, acts as a full disk.
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
        kept = []

        def fill() -> None:
            for number in range(1000):
                kept.append(storage.add("svm", Trial(number, {"x": "long" * 100})))

        with pytest.raises(StorageError, match=r"full.*Free some space"):
            fill()
        assert everything(storage) == kept
        assert kept
    with open_storage(path) as storage:  # freed again
        storage.add("svm", Trial(len(kept), {}))
        assert everything(storage)[:-1] == kept


def test_the_file_is_in_wal_mode_and_every_commit_is_synced(path):
    def ask(pragma: str) -> object:
        with storage._database.transaction(write=False) as connection:  # pyright: ignore
            return connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()

    with open_storage(path) as storage:
        assert ask("journal_mode") == "wal"
        assert ask("synchronous") == 2  # FULL
        assert ask("busy_timeout") == 60_000
