"""Laws of storage, for every store there is, and what holds for SQLite files in particular."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest

from bbmmopt.storage import (
    MemoryStorage,
    NumberTaken,
    Storage,
    StorageError,
    StudyRecord,
    UnknownStudy,
    open_storage,
)
from bbmmopt.trial import Trial, TrialAlreadyTold, TrialState, UnknownTrial

ROOT = Path(__file__).resolve().parents[2]
RECORD = StudyRecord("svm", {"space": {"parameters": []}}, seed=2**70, created=1.5, version="0.1")
WAITING, RUNNING = TrialState.WAITING, TrialState.RUNNING


@pytest.fixture(params=["memory", "sqlite"])
def storage(request, tmp_path) -> Iterator[Storage]:
    """An open storage with an empty study, of each kind."""
    with open_storage(None if request.param == "memory" else tmp_path / "study.db") as storage:
        storage.create_study(RECORD)
        yield storage


@pytest.fixture
def path(tmp_path) -> Path:
    """A file with an empty study."""
    with open_storage(tmp_path / "study.db") as storage:
        storage.create_study(RECORD)
    return tmp_path / "study.db"


def everything(storage: Storage) -> list[Trial]:
    return sorted(storage.changes("svm")[0], key=lambda trial: trial.number)


def enqueue(storage: Storage, count: int) -> None:
    for i in range(count):
        storage.add_next("svm", Trial(0, {"i": i}, WAITING))


def together(count: int, action: Callable[[int], object]) -> list:
    """What `action(0)`, …, `action(count - 1)` return or raise, started at the same moment."""
    barrier = threading.Barrier(count)

    def run(i: int) -> object:
        barrier.wait()
        try:
            return action(i)
        except Exception as error:
            return error

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # or a thread would often be done before the next one starts
    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))
    finally:
        sys.setswitchinterval(interval)


# --------------------------------------------------------------------------------------
# Laws: studies and records
# --------------------------------------------------------------------------------------


def test_law_the_first_record_of_a_study_stays(storage):
    assert storage.study("svm") == RECORD
    assert storage.create_study(replace(RECORD, seed=1)) == RECORD
    other = StudyRecord("a second, été", {"n": nan}, 3, {"deep": {"$float": [inf, "x"]}})
    assert repr(storage.create_study(other)) == repr(other)
    assert storage.studies() == ["svm", "a second, été"]
    assert storage.study("none") is None


def test_law_workers_that_start_at_once_get_the_same_study(storage):
    records = together(8, lambda i: storage.create_study(StudyRecord("new", {}, seed=i)))
    assert len({record.seed for record in records}) == 1
    assert storage.study("new") == records[0]


@pytest.mark.parametrize("name", ["", "two\nlines", "\ud800", None])
def test_a_study_needs_a_name_that_can_be_printed(name):
    with pytest.raises(ValueError, match="a study needs a name"):
        StudyRecord(name, {}, 0)


def test_law_an_unknown_study_is_named(storage):
    for use in (
        lambda: storage.add("svn", Trial(0, {})),
        lambda: storage.claim("svn", worker=None, now=0),
        lambda: storage.changes("svn"),
    ):
        with pytest.raises(UnknownStudy, match="no study 'svn'"):
            use()


FULL = Trial(
    number=5,
    params={"x": 0.1, "n": 2**60, "c": "naïve 🎉 \ud800", "flag": True},
    state=TrialState.COMPLETE,
    values={"error": 0.25},
    standard_errors={"error": None},
    constraints={"memory": -1.5},
    reason="line\n\x00 \ud800",
    created=1e9 + 0.123456,
    started=1e9 + 1,
    finished=1e9 + 2,
    attrs={"inf": inf, "big": 2**100, "$float": "x", "deep": [{"a": None}]},
    origin={"phase": "model", "value": -inf},
    worker="w-1",
    lease_until=1e9 + 3,
)


def test_law_a_trial_comes_back_as_it_was_written(storage):
    for trial in (FULL, Trial(0, {}), Trial(1, {"x": 1.0}, WAITING, origin={"by": "user"})):
        assert storage.add("svm", trial) == trial
        assert storage.trial("svm", trial.number) == trial
    assert everything(storage) == [Trial(0, {}), storage.trial("svm", 1), FULL]
    assert type(storage.trial("svm", 5).params["flag"]) is bool
    assert storage.trial("svm", 5).arguments == FULL.params


def test_law_what_the_caller_does_to_a_trial_stays_with_the_caller(storage):
    trial = storage.add("svm", mine := Trial(0, {"x": [1]}))
    for params in (mine.params, trial.params, storage.trial("svm", 0).params):
        params["x"].append(2)
    assert storage.trial("svm", 0).params == {"x": [1]}


def test_law_what_is_not_json_is_refused_before_anything_is_written(storage):
    with pytest.raises(TypeError, match=r"trial.attrs\['a'\]"):
        storage.add("svm", Trial(0, {}, attrs={"a": object()}))
    storage.add("svm", Trial(0, {}))
    before = storage.changes("svm")
    with pytest.raises(TypeError, match="attrs"):
        storage.set_attrs("svm", 0, {"a": object()})
    assert storage.changes("svm") == before


# --------------------------------------------------------------------------------------
# Laws: numbers, claims, ends
# --------------------------------------------------------------------------------------


def test_law_a_number_is_given_once(storage):
    storage.add("svm", Trial(0, {"x": 1}))
    before = storage.changes("svm")
    with pytest.raises(NumberTaken, match="trial 0"):
        storage.add("svm", Trial(0, {"x": 2}))
    assert storage.changes("svm") == before
    outcomes = together(8, lambda i: storage.add("svm", Trial(1, {"x": i})))
    winners = [trial for trial in outcomes if isinstance(trial, Trial)]
    assert sum(isinstance(outcome, NumberTaken) for outcome in outcomes) == 7
    assert winners == [storage.trial("svm", 1)]


def test_law_numbers_of_one_study_do_not_touch_another(storage):
    storage.create_study(StudyRecord("other", {}, 0))
    storage.add("svm", Trial(0, {"x": 1}))
    storage.add("other", Trial(0, {"x": 2}, WAITING))
    assert storage.claim("svm", worker=None, now=0) is None
    assert storage.changes("other") == ([Trial(0, {"x": 2}, WAITING)], 1)


def test_law_the_next_number_follows_the_highest(storage):
    assert storage.add_next("svm", Trial(99, {})).number == 0
    storage.add("svm", Trial(6, {}))
    assert storage.add_next("svm", Trial(0, {})).number == 7
    numbers = [t.number for t in together(8, lambda i: storage.add_next("svm", Trial(0, {})))]
    assert sorted(numbers) == list(range(8, 16))


def test_law_claims_go_in_order_and_set_who_and_when(storage):
    storage.add("svm", Trial(3, {"x": 3}, WAITING, created=1.0))
    storage.add("svm", Trial(1, {"x": 1}, WAITING))
    storage.add("svm", Trial(2, {"x": 2}, RUNNING))
    first = storage.claim("svm", worker="w", now=10.0, lease=5.0)
    assert first == Trial(1, {"x": 1}, RUNNING, worker="w", started=10.0, lease_until=15.0)
    second = storage.claim("svm", worker=None, now=11.0)
    assert second == Trial(3, {"x": 3}, RUNNING, created=1.0, started=11.0)
    assert storage.claim("svm", worker="w", now=12.0) is None
    assert everything(storage)[0] == first


def test_law_every_waiting_trial_is_claimed_by_one_thread(storage):
    enqueue(storage, 24)

    def take_all(i: int) -> list[int]:
        claims = iter(lambda: storage.claim("svm", worker=str(i), now=0.0), None)
        return [trial.number for trial in claims]

    counts = Counter(number for numbers in together(6, take_all) for number in numbers)
    assert counts == dict.fromkeys(range(24), 1)


def test_law_a_running_trial_changes_hands_only_from_whom_it_was_seen_with(storage):
    storage.add("svm", Trial(0, {}, RUNNING, worker="a", started=1.0))
    take = {"now": 5.0, "lease": 2.0}
    assert storage.reclaim("svm", 0, worker="b", previous_worker="x", **take) is None
    moved = storage.reclaim("svm", 0, worker="b", previous_worker="a", **take)
    assert moved == Trial(0, {}, RUNNING, worker="b", started=1.0, lease_until=7.0)
    assert storage.reclaim("svm", 0, worker="c", previous_worker="a", **take) is None
    assert storage.trial("svm", 0) == moved
    outcomes = together(
        6, lambda i: storage.reclaim("svm", 0, worker=f"w{i}", previous_worker="b", **take)
    )
    assert sum(outcome is not None for outcome in outcomes) == 1
    storage.finish("svm", 0, state="failed", finished=9.0)
    last = storage.trial("svm", 0).worker
    assert storage.reclaim("svm", 0, worker="d", previous_worker=last, **take) is None


def test_law_a_lease_can_be_required_to_have_run_out(storage):
    storage.add("svm", Trial(0, {}, RUNNING, worker="a", lease_until=10.0))
    storage.add("svm", Trial(1, {}, RUNNING, worker=None))  # without a lease it never runs out

    def take(number: int, previous: str | None, now: float) -> Trial | None:
        return storage.reclaim(
            "svm", number, worker="b", previous_worker=previous, now=now, expired=True
        )

    assert take(0, "a", 9.0) is None
    assert take(1, None, 1e12) is None
    assert take(0, "a", 10.0) == Trial(0, {}, RUNNING, worker="b")


TOLD = {"values": {"error": 0.5}, "standard_errors": {"error": 0.1}, "constraints": {"m": -1.0}}


@pytest.mark.parametrize("state", [RUNNING, WAITING])
def test_law_finishing_keeps_the_outcome_and_ends_the_lease(storage, state):
    storage.add("svm", Trial(0, {"x": 1}, state, worker="w", started=1.0, lease_until=50.0))
    done = storage.finish("svm", 0, state="complete", finished=9.0, **TOLD)
    expected = Trial(
        0, {"x": 1}, TrialState.COMPLETE, worker="w", started=1.0, finished=9.0, **TOLD
    )
    assert done == expected
    assert storage.trial("svm", 0) == expected
    assert storage.claim("svm", worker=None, now=0.0) is None


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"state": "complete", **TOLD}, {"state": "complete", **TOLD}),
        ({"state": "complete", "values": {"a": nan}}, {"state": "complete", "values": {"a": nan}}),
        ({"state": "failed", "reason": "one"}, {"state": "failed", "reason": "two"}),
        ({"state": "pruned"}, {"state": "pruned"}),
    ],
)
def test_law_telling_the_same_again_changes_nothing(storage, first, again):
    storage.add("svm", Trial(0, {}))
    done = storage.finish("svm", 0, finished=1.0, **first)
    revision = storage.changes("svm")[1]
    assert repr(storage.finish("svm", 0, finished=2.0, **again)) == repr(done)
    assert storage.changes("svm")[1] == revision


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"state": "complete", **TOLD | {"values": {"error": 0.75}}}, r"error = 0.75 ± 0.1"),
        ({"state": "complete", "values": {"error": 0.5}}, r"now it was told complete with error"),
        ({"state": "failed", "reason": "diverged"}, r"now it was told failed \(diverged\)"),
    ],
)
def test_law_another_outcome_is_refused_with_both(storage, told, words):
    storage.add("svm", Trial(0, {}))
    done = storage.finish("svm", 0, state="complete", finished=1.0, **TOLD)
    with pytest.raises(
        TrialAlreadyTold, match=rf"trial 0 .* error = 0.5 ± 0.1, m = -1.0; .*{words}"
    ):
        storage.finish("svm", 0, finished=2.0, **told)
    assert storage.trial("svm", 0) == done


def test_law_of_different_outcomes_told_at_once_one_is_kept(storage):
    storage.add("svm", Trial(0, {}))
    outcomes = together(
        8,
        lambda i: storage.finish(
            "svm", 0, state="complete", values={"e": float(i)}, finished=float(i)
        ),
    )
    kept = [trial for trial in outcomes if isinstance(trial, Trial)]
    assert kept == [storage.trial("svm", 0)]
    assert sum(isinstance(outcome, TrialAlreadyTold) for outcome in outcomes) == 7


def test_law_a_trial_does_not_end_as_running(storage):
    storage.add("svm", Trial(0, {}))
    with pytest.raises(ValueError, match="ends complete, failed or pruned; got 'running'"):
        storage.finish("svm", 0, state="running", finished=1.0)


@pytest.mark.parametrize("number", [1, -1, 2**80])
def test_law_an_unknown_trial_is_named(storage, number):
    storage.add("svm", Trial(0, {}))
    for use in (
        lambda: storage.trial("svm", number),
        lambda: storage.set_attrs("svm", number, {}),
        lambda: storage.finish("svm", number, state="failed", finished=1.0),
        lambda: storage.reclaim("svm", number, worker="a", previous_worker="b", now=0.0),
    ):
        with pytest.raises(UnknownTrial, match=f"study 'svm' has no trial {number}"):
            use()


def test_law_notes_are_merged(storage):
    storage.add("svm", Trial(0, {}, attrs={"a": 1, "b": 2}))
    assert storage.set_attrs("svm", 0, {"b": inf, "c": (3,)}).attrs == {"a": 1, "b": inf, "c": [3]}
    together(6, lambda i: storage.set_attrs("svm", 0, {f"k{i}": i}))
    assert storage.trial("svm", 0).attrs == {"a": 1, "b": inf, "c": [3]} | {
        f"k{i}": i for i in range(6)
    }


def test_law_changes_tell_each_write_once_in_order(storage):
    assert storage.changes("svm") == ([], 0)
    for number in range(3):
        storage.add("svm", Trial(number, {}, WAITING))
    trials, seen = storage.changes("svm")
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert storage.changes("svm", seen) == ([], seen)
    storage.finish("svm", 1, state="failed", finished=1.0)
    storage.claim("svm", worker=None, now=1.0)
    storage.set_attrs("svm", 1, {"a": 1})
    trials, now = storage.changes("svm", seen)
    assert [(trial.number, trial.state) for trial in trials] == [(0, "running"), (1, "failed")]
    assert trials[1].attrs == {"a": 1}
    assert now > seen
    assert len(everything(storage)) == 3


def test_law_a_reader_that_syncs_misses_no_write_of_others(storage):
    """The oracle: at the end, what was synced piece by piece equals what is read in one go."""
    done = threading.Event()
    mirror: dict[int, Trial] = {}

    def follow() -> None:
        seen = 0
        while True:
            last = done.is_set()
            trials, seen = storage.changes("svm", seen)
            mirror.update((trial.number, trial) for trial in trials)
            if last:
                return

    def work(i: int) -> None:
        for _ in range(6):
            number = storage.add_next("svm", Trial(0, {"by": i})).number
            storage.finish("svm", number, state="complete", values={"e": 1.0}, finished=1.0)

    reader = threading.Thread(target=follow)
    reader.start()
    together(4, work)
    done.set()
    reader.join()
    assert [mirror[number] for number in sorted(mirror)] == everything(storage)
    assert len(mirror) == 24


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
        ("nosuch://host/db", "no driver for"),
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
        assert storage.changes("svm") == ([], 0)  # readers do not wait
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


# --------------------------------------------------------------------------------------
# Several processes
# --------------------------------------------------------------------------------------

HEADER = """
import os, sys
from bbmmopt.storage import *
from bbmmopt.trial import *
path = sys.argv[1]
"""


def start(code: str, path: Path) -> subprocess.Popen[str]:
    """Run code in a process of its own, warnings being errors there too."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HEADER + textwrap.dedent(code), str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def assert_intact(path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_processes_that_create_the_same_file_at_once_share_one_study(tmp_path):
    code = """
    with open_storage(path) as storage:
        print(storage.create_study(StudyRecord("svm", {}, seed=os.getpid())).seed)
    """
    processes = [start(code, tmp_path / "new.db") for _ in range(6)]
    seeds = {output(process) for process in processes}
    assert len(seeds) == 1
    assert_intact(tmp_path / "new.db")


def test_every_waiting_trial_is_claimed_by_one_process(path):
    with open_storage(path) as storage:
        enqueue(storage, 60)
    code = """
    with open_storage(path) as storage:
        while (trial := storage.claim("svm", worker=str(os.getpid()), now=0.0)) is not None:
            print(trial.number)
    """
    processes = [start(code, path) for _ in range(4)]
    counts = Counter(int(n) for process in processes for n in output(process).split())
    assert counts == dict.fromkeys(range(60), 1)
    with open_storage(path) as storage:
        assert {trial.state for trial in everything(storage)} == {"running"}
    assert_intact(path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("acknowledged", [1, 7, 30])
def test_what_was_acknowledged_survives_a_kill(path, acknowledged):
    code = """
    storage = open_storage(path)
    for number in range(10**6):
        storage.add("svm", Trial(number, {"x": number}))
        storage.finish("svm", number, state="complete", values={"e": 1.0}, finished=2.0)
        print(number, flush=True)
    """
    process = start(code, path)
    assert process.stdout is not None
    last = [int(process.stdout.readline()) for _ in range(acknowledged)][-1]
    process.kill()
    last = max([last, *map(int, process.communicate()[0].split())])
    with open_storage(path) as storage:
        trials = everything(storage)
        assert [t.number for t in trials if t.state == "complete"][: last + 1] == list(
            range(last + 1)
        )
        assert len(trials) <= last + 2  # at most one more, not yet acknowledged
        storage.add_next("svm", Trial(0, {}))
    assert_intact(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_opens_connections_of_its_own(path):
    code = """
    storage = open_storage(path)
    storage.add("svm", Trial(0, {"by": "parent"}))

    def connection() -> object:
        with storage._database.transaction(write=False) as connection:
            return connection.connection.dbapi_connection

    inherited = connection()
    child = os.fork()
    assert (connection() is inherited) == bool(child)
    for number in range(1, 20):
        storage.add_next("svm", Trial(0, {"by": "parent" if child else "child"}))
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    storage.close()
    """
    output(start(code, path))
    with open_storage(path) as storage:
        by = Counter(trial.params["by"] for trial in everything(storage))
    assert by == {"parent": 20, "child": 19}
    assert_intact(path)
