"""Facts about reading a storage: in pages, and without changing anything."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bbmmopt.storage import StorageError, UnknownStudy, open_storage
from bbmmopt.storage.sql import SQLStorage
from bbmmopt.trial import Trial, TrialState
from tests.bbmmopt.storages import RECORD, RUNNING, WAITING, enqueue, everything, with_a_study

# --------------------------------------------------------------------------------------
# Laws: pages
# --------------------------------------------------------------------------------------


def test_law_pages_hold_every_trial_by_number(storage):
    enqueue(storage, 7)
    storage.claim("svm", worker="ann")  # now the last one that was changed
    pages, start = [], 0
    while page := storage.page("svm", start, 3):
        pages.append(page)
        start = page[-1].number + 1
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [trial for page in pages for trial in page] == everything(storage)
    assert storage.page("svm", 2**70, 3) == []


def test_law_pages_are_of_the_states_that_are_asked_for(storage):
    enqueue(storage, 3)
    storage.claim("svm", worker=None)
    storage.add_next("svm", Trial(0, {}, TrialState.FAILED))
    assert [trial.number for trial in storage.page("svm", 0, 9, [RUNNING])] == [0]
    assert [trial.number for trial in storage.page("svm", 2, 9, [RUNNING, WAITING])] == [2]
    assert storage.page("svm", 0, 9, []) == []


def test_law_reports_and_events_come_in_pages_too(storage):
    enqueue(storage, 2)
    for step in range(5):
        storage.report("svm", 0, step, float(step))
    reports, since = storage.reports("svm", most=2)
    assert [report.step for report in reports] == [0, 1]
    reports, since = storage.reports("svm", since, most=2)
    storage.report("svm", 1, 0, 9.0)
    rest, now = storage.reports("svm", since, most=2)
    assert [report.step for report in reports + rest] == [2, 3, 4, 0]
    assert storage.reports("svm", now, most=2) == ([], now)
    everything = storage.events("svm")
    assert storage.events("svm", most=2) == everything[:2]
    assert storage.events("svm", everything[1].revision, most=2) == everything[2:4]


# --------------------------------------------------------------------------------------
# Read only
# --------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict:
    return {p.name: (p.read_bytes(), os.stat(p).st_mtime_ns) for p in folder.iterdir()}


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open elsewhere"])
def test_a_file_is_read_without_being_touched(tmp_path, journal, is_open):
    url = f"sqlite:///{tmp_path}/été #1.db?journal={journal}"
    with open_storage(url) as writer:
        writer.create_study(RECORD)
        enqueue(writer, 3)
        if not is_open:
            writer.close()
        before = snapshot(tmp_path)
        with SQLStorage(url, read_only=True) as storage:
            assert storage.studies() == ["svm"]
            assert [trial.number for trial in everything(storage)] == [0, 1, 2]
            assert storage.check() == []
            assert storage.clock() > 1.7e9
            with pytest.raises(StorageError, match="readonly"):
                enqueue(storage, 1)
        after = snapshot(tmp_path)
        index = [name for name in before if name.endswith("-shm")]  # holds who reads how far
        assert {k: v for k, v in after.items() if k not in index} == {
            k: v for k, v in before.items() if k not in index
        }


def test_what_is_not_there_is_not_made(tmp_path):
    with pytest.raises(StorageError, match="unable to open"):
        SQLStorage(tmp_path / "none.db", read_only=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    with pytest.raises(UnknownStudy, match="holds no study yet"):
        SQLStorage(tmp_path / "empty.db", read_only=True)
    assert (tmp_path / "empty.db").read_bytes() == b""


def test_on_a_server_nothing_is_made_either(postgres, postgres_url):
    with pytest.raises(UnknownStudy, match="holds no study yet"):
        SQLStorage(postgres_url, read_only=True)
    tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'bbmmopt%'"
    assert postgres.execute(tables, "test") == [(0,)]
    with_a_study(postgres_url)
    with SQLStorage(postgres_url, read_only=True) as storage:
        assert storage.study("svm") == RECORD
        assert storage.create_study(replace(RECORD, seed=1)) == RECORD  # is there: not written
