"""Several processes on one storage: nothing twice, nothing lost, on SQLite and PostgreSQL."""

import os
import signal
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from bbmmopt.storage import open_storage
from bbmmopt.trial import Trial
from tests.bbmmopt.storages import enqueue, everything, output, start, with_a_study

pytestmark = pytest.mark.alone


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request, tmp_path) -> str | Path:
    """Where there is nothing yet."""
    if request.param == "sqlite":
        return tmp_path / "study.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def where(empty) -> str | Path:
    """Where there is an empty study."""
    return with_a_study(empty)


def assert_intact(where: str | Path) -> None:
    with open_storage(where) as storage:
        assert storage.check() == []
    if isinstance(where, Path):
        connection = sqlite3.connect(where)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


def test_processes_that_create_the_same_file_at_once_share_one_study(tmp_path):
    code = """
    with open_storage(where) as storage:
        print(storage.create_study(StudyRecord("svm", {}, seed=os.getpid())).seed)
    """
    processes = [start(code, tmp_path / "new.db") for _ in range(6)]
    seeds = {output(process) for process in processes}
    assert len(seeds) == 1
    assert_intact(tmp_path / "new.db")


def test_every_waiting_trial_is_claimed_by_one_process(where):
    with open_storage(where) as storage:
        enqueue(storage, 60)
    code = """
    with open_storage(where) as storage:
        while (trial := storage.claim("svm", worker=str(os.getpid()))) is not None:
            print(trial.number)
    """
    processes = [start(code, where) for _ in range(4)]
    counts = Counter(int(n) for process in processes for n in output(process).split())
    assert counts == dict.fromkeys(range(60), 1)
    with open_storage(where) as storage:
        assert {trial.state for trial in everything(storage)} == {"running"}
    assert_intact(where)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("acknowledged", [1, 7, 30])
def test_what_was_acknowledged_survives_a_kill(where, acknowledged):
    code = """
    storage = open_storage(where)
    for number in range(10**6):
        storage.add("svm", Trial(number, {"x": number}))
        storage.finish("svm", number, state="complete", values={"e": 1.0}, finished=2.0)
        print(number, flush=True)
    """
    process = start(code, where)
    assert process.stdout is not None
    last = [int(process.stdout.readline()) for _ in range(acknowledged)][-1]
    process.kill()
    last = max([last, *map(int, process.communicate()[0].split())])
    with open_storage(where) as storage:
        trials = everything(storage)
        assert [t.number for t in trials if t.state == "complete"][: last + 1] == list(
            range(last + 1)
        )
        assert len(trials) <= last + 2  # at most one more, not yet acknowledged
        storage.add_next("svm", Trial(0, {}))
    assert_intact(where)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit()"])
def test_a_forked_process_opens_connections_of_its_own(where, end):
    """And leaves those of its parent alone, also when the interpreter cleans up at its end."""
    code = f"""
    storage = open_storage(where)
    storage.add("svm", Trial(0, {{"by": "parent"}}))

    def connection() -> object:
        with storage._database.transaction(write=False) as connection:
            return connection.connection.dbapi_connection

    inherited = connection()
    child = os.fork()
    assert (connection() is inherited) == bool(child)
    for number in range(1, 20):
        storage.add_next("svm", Trial(0, {{"by": "parent" if child else "child"}}))
    if not child:
        {end}
    assert os.waitpid(child, 0)[1] == 0
    assert connection() is inherited
    storage.add_next("svm", Trial(0, {{"by": "parent"}}))
    storage.close()
    """
    output(start(code, where))
    with open_storage(where) as storage:
        by = Counter(trial.params["by"] for trial in everything(storage))
    assert by == {"parent": 21, "child": 19}
    assert_intact(where)
