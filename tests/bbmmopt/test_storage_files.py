"""SQLite files on disks as they are: networks, full ones, files that somebody moved or damaged."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bbmmopt.storage import StorageError, mounts, open_storage
from bbmmopt.storage.sql import SQLStorage
from bbmmopt.trial import Trial
from tests.bbmmopt.storages import RECORD, everything, next_line, output, start, with_a_study


@pytest.fixture
def path(tmp_path) -> Path:
    """A file with an empty study."""
    return Path(with_a_study(tmp_path / "study.db"))


def ask(storage: SQLStorage, pragma: str) -> object:
    with storage._database.transaction(write=False) as connection:
        return connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()


# --------------------------------------------------------------------------------------
# Network file systems
# --------------------------------------------------------------------------------------

TABLE = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - {root}
28 27 0:40 / /net rw,relatime shared:7 - nfs4 server:/export rw,vers=4.2
29 28 254:1 / /net/scratch rw - ext4 /dev/vdb rw
30 27 0:41 / /mnt/with\\040blank rw - cifs //server/share rw
31 27 0:42 / /tmp rw - tmpfs tmpfs rw
32 27 0:43 / /data rw - autofs systemd-1 rw
33 32 0:44 / /data rw shared:9 master:2 - fuse.sshfs user@server: rw
34 27 0:45 / /windows rw - 9p drvfs rw,trans=fd
35 27 0:46 / /guest rw - virtiofs shared rw
a line that is none of them
"""


@pytest.fixture
def table(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Pretend that the root is mounted like this."""

    def pretend(root: str) -> None:
        (tmp_path / "mountinfo").write_text(TABLE.replace("{root}", root))
        monkeypatch.setattr(mounts, "_TABLE", tmp_path / "mountinfo")

    pretend("ext4 /dev/vda rw")
    return pretend


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/net", "nfs4"),
        ("/net/me/runs", "nfs4"),
        ("/net/scratch/me", None),
        ("/network", None),
        ("/mnt/with blank/x", "cifs"),
        ("/data/x", "fuse.sshfs"),
        ("/windows/c", "9p"),
        ("/tmp", None),
        ("/guest", None),
        ("/", None),
    ],
)
def test_the_deepest_and_last_mount_says_what_a_directory_is_on(directory, kind, table):
    assert mounts.network_file_system(directory) == kind


@pytest.mark.parametrize(
    ("root", "kind"),
    [
        ("overlay overlay rw,lowerdir=/x", None),
        ("btrfs /dev/sda rw", None),
        ("9p none rw,trans=fd", None),  # a sandbox with nobody else in it
        ("nfs server:/diskless rw", "nfs"),
    ],
)
def test_what_the_root_is_on(root, kind, table):
    table(root)
    assert mounts.network_file_system("/etc") == kind


def test_no_table_of_mounts_means_that_nothing_is_known(monkeypatch):
    monkeypatch.setattr(mounts, "_TABLE", Path("/nonexistent/mountinfo"))
    assert mounts.network_file_system("/") is None


def test_where_the_tests_run_is_no_network_file_system(tmp_path):
    for directory in (tmp_path, tempfile.gettempdir(), "/dev/shm"):
        assert mounts.network_file_system(directory) is None


def test_a_link_is_judged_by_where_it_leads(table, tmp_path):
    (tmp_path / "link").symlink_to("/net")
    assert mounts.network_file_system(tmp_path / "link") == "nfs4"


def test_a_log_on_a_network_file_system_is_refused_with_the_ways_out(table, tmp_path):
    with (tmp_path / "mountinfo").open("a") as mountinfo:
        mountinfo.write(f"36 31 0:47 / {tmp_path} rw - nfs server:/x rw\n")
    with pytest.raises(StorageError, match=r"network file system \(nfs\): .* PostgreSQL") as caught:
        open_storage(tmp_path / "study.db")
    assert not (tmp_path / "study.db").exists()
    proposed = str(caught.value).split()[-1].rstrip(".")
    assert proposed == f"sqlite:///{tmp_path}/study.db?journal=delete"
    with SQLStorage(proposed) as storage:
        storage.create_study(RECORD)
        assert storage.add("svm", Trial(0, {})) == Trial(0, {})
        assert ask(storage, "journal_mode") == "delete"
        assert ask(storage, "synchronous") == 3  # EXTRA: the commit is the journal's removal
        assert sorted(file.name for file in tmp_path.iterdir()) == ["mountinfo", "study.db"]


def test_a_file_keeps_its_kind_of_journal_until_another_is_asked_for(tmp_path):
    path = tmp_path / "study.db"
    for given, mode in (
        ("?journal=delete", "delete"),
        ("", "delete"),  # somebody may have it open from another machine
        ("?journal=wal", "wal"),
        ("", "wal"),
        ("?journal=delete", "delete"),
    ):
        with SQLStorage(f"sqlite:///{path}{given}") as storage:
            assert ask(storage, "journal_mode") == mode
            storage.create_study(RECORD)
            address = storage.address
        with SQLStorage(address) as storage:
            assert ask(storage, "journal_mode") == mode


@pytest.mark.parametrize("query", ["journal=off", "jornal=delete", "mode=ro"])
def test_an_unknown_option_of_a_url_is_refused(query, tmp_path):
    with pytest.raises(StorageError, match=r"wal or .*delete; got '?(off|jornal|mode)"):
        open_storage(f"sqlite:///{tmp_path}/study.db?{query}")


# --------------------------------------------------------------------------------------
# Files that are not what they were
# --------------------------------------------------------------------------------------


def replace(path: Path) -> None:
    other = with_a_study(path.with_name("other.db"))
    os.replace(other, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Path.unlink, r"study\.db was deleted or moved"),
        (lambda path: path.rename(path.with_name("old.db")), r"study\.db was deleted or moved"),
        (lambda path: shutil.rmtree(path.parent), r"study\.db was deleted or moved"),
        (replace, r"study\.db was replaced by another file"),
        (lambda path: os.truncate(path, 0), r"study\.db was emptied"),
        (lambda path: path.with_name("study.db-wal").unlink(), r"study\.db-wal was deleted"),
        (lambda path: path.with_name("study.db-shm").unlink(), r"study\.db-shm was deleted"),
    ],
)
def test_results_are_not_written_to_a_file_that_nobody_will_find(change, message, tmp_path):
    (tmp_path / "in").mkdir()
    path = Path(with_a_study(tmp_path / "in" / "study.db"))
    with open_storage(path) as storage:
        storage.add("svm", Trial(0, {}))
        change(path)
        for _ in range(2):
            with pytest.raises(StorageError, match=rf"{message}.* so nothing was written\. Put"):
                storage.add_next("svm", Trial(0, {}))
        with pytest.raises(StorageError, match=message):
            storage.changes("svm")


def test_a_file_that_goes_during_a_transaction_is_told_after_it(path):
    def write_and_remove() -> None:
        with storage._database.transaction(write=True) as connection:
            connection.exec_driver_sql("UPDATE bbmmopt_studies SET seed = '1'")
            path.unlink()

    with (
        SQLStorage(path) as storage,
        pytest.raises(StorageError, match="what was just written is lost"),
    ):
        write_and_remove()


def test_a_file_put_back_in_its_place_goes_on(path):
    with open_storage(path) as storage:
        storage.add("svm", Trial(0, {}))
        path.rename(path.with_name("aside.db"))
        with pytest.raises(StorageError, match="deleted or moved"):
            storage.add("svm", Trial(1, {}))
        path.with_name("aside.db").rename(path)
        storage.add("svm", Trial(1, {}))
        assert len(everything(storage)) == 2


def test_a_log_that_comes_and_goes_with_its_users_is_no_alarm(path):
    with open_storage(path) as storage, open_storage(path) as other:
        for number in range(4):
            (storage, other)[number % 2].add("svm", Trial(number, {}))
            storage.close()  # opened again by the next use; then the log is another one
            if number == 1:
                other.close()
        assert len(everything(storage)) == 4


def damaged(path: Path, change: Callable[[Path], None]) -> Path:
    """A file of some pages, all of them written back from the log, then changed."""
    with open_storage(path) as storage:
        for number in range(20):
            storage.add("svm", Trial(number, {"x": "long" * 100}))
    change(path)
    return path


def overwrite(at: int, count: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"\xa5" * count)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: os.truncate(path, path.stat().st_size // 2), "malformed.*go back to a copy"),
        (lambda path: os.truncate(path, 5000), "malformed.*go back to a copy"),
        (overwrite(0, 100), "not a database.* its beginning is damaged: go back to a copy"),
        (overwrite(3 * 4096, 4096), "malformed.*sqlite3 FILE .recover"),
    ],
)
def test_a_torn_file_is_told(change, message, path):
    def use() -> None:
        with open_storage(path) as storage:
            storage.changes("svm")
            storage.add_next("svm", Trial(0, {}))

    damaged(path, change)
    with pytest.raises(StorageError, match=message):
        use()


@pytest.mark.parametrize("change", [Path.unlink, lambda path: os.truncate(path, 0)])
def test_an_emptied_file_does_not_take_its_log_with_it(change, path):
    log = path.with_name("study.db-wal")
    with open_storage(path) as storage:
        storage.add("svm", Trial(0, {}))
        shutil.copy(log, path.with_name("kept"))
    path.with_name("kept").rename(log)
    change(path)
    before = log.read_bytes()
    with pytest.raises(StorageError, match=r"empty or gone, but .*study\.db-wal .* holds"):
        open_storage(path)
    assert log.read_bytes() == before


# --------------------------------------------------------------------------------------
# Rights and room
# --------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach, with an empty study in it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    Path(with_a_study(folder / "study.db")).chmod(0o666)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("file", "folder", "message"),
    [
        (0o444, 0o777, "readonly database. Make the file and its directory writable"),
        (0o666, 0o555, "readonly database. Make the file and its directory writable"),
        (0o000, 0o777, "unable to open database file. Check that you may read and write"),
        (0o666, 0o000, "cannot be reached: Permission denied. Check that"),
    ],
)
def test_a_user_without_rights_is_told_what_to_allow(file, folder, message, open_folder):
    (open_folder / "study.db").chmod(file)
    open_folder.chmod(folder)
    code = """
    if os.getuid() == 0:
        os.setuid(65534)  # root may do anything
    try:
        open_storage(where).add("svm", Trial(0, {}))
    except StorageError as error:
        print(error)
    """
    assert message in output(start(code, open_folder / "study.db"))


def test_a_limit_on_the_size_of_files_loses_nothing_and_can_be_lifted(path):
    """The kernel refuses to write further, as a full disk or a quota would."""
    code = """
    import resource
    limit = os.path.getsize(where) + 40_000
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    storage = open_storage(where)
    try:
        for number in range(1000):
            storage.add("svm", Trial(number, {"x": "long" * 500}))
            print(number, flush=True)
    except StorageError as error:
        assert "Check that the disk is there and not full, and try again" in str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    storage.add("svm", Trial(number, {}))
    print(number)
    """
    process = start(code, path)
    assert next_line(process) == "0"
    acknowledged = [0, *map(int, output(process).split())]
    with open_storage(path) as storage:
        assert [trial.number for trial in everything(storage)] == acknowledged
        assert storage.check() == []


# --------------------------------------------------------------------------------------
# Backups
# --------------------------------------------------------------------------------------


def back_up(storage: SQLStorage, then: str) -> str:
    with storage._database.transaction(write=True) as connection:
        name = storage._database.back_up("before-v9", connection)
        connection.exec_driver_sql(then)
        return name


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_backup_is_a_file_of_its_own_that_is_never_overwritten(journal, tmp_path):
    path = tmp_path / "study.db"
    change = "UPDATE bbmmopt_studies SET seed = seed || '1'"
    with SQLStorage(f"sqlite:///{path}?journal={journal}") as storage:
        storage.create_study(RECORD)
        storage.add("svm", Trial(0, {"x": 1}))
        assert back_up(storage, change) == f"{path}.before-v9"
        assert back_up(storage, change) == f"{path}.before-v9.2"
        assert storage.check() == []
    seeds = {f"{path}.before-v9": "", f"{path}.before-v9.2": "1", str(path): "11"}
    for name, added in seeds.items():
        with open_storage(name) as storage:
            assert storage.study("svm").seed == int(f"{2**70}{added}")
            assert everything(storage) == [Trial(0, {"x": 1})]
            assert storage.check() == []
    assert sorted(map(str, tmp_path.iterdir())) == sorted(seeds)


def test_a_backup_that_cannot_be_finished_leaves_nothing_behind(path, monkeypatch):
    def no_room(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with SQLStorage(path) as storage:
        seed = storage.study("svm").seed
        monkeypatch.setattr(os, "fsync", no_room)
        with pytest.raises(StorageError, match=r"no backup .* No space left .* nothing was chang"):
            back_up(storage, "UPDATE bbmmopt_studies SET seed = '1'")
        monkeypatch.undo()
        assert storage.study("svm").seed == seed
    assert list(path.parent.iterdir()) == [path]


def test_a_backup_is_made_while_others_read_and_wait(path):
    with SQLStorage(path) as storage, SQLStorage(path, busy_timeout=0.05) as other:
        with storage._database.transaction(write=True) as connection:
            name = storage._database.back_up("before-v9", connection)
            assert other.study("svm") == RECORD
            with pytest.raises(StorageError, match="locked"):
                other.add("svm", Trial(0, {}))
        connection = sqlite3.connect(name)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
