"""Laws of leases, for every store: whose time is up is handed out again, and nobody else."""

import time
from dataclasses import replace

import pytest

from bbmmopt.storage import clock, open_storage
from bbmmopt.storage.clock import LeaseClock
from bbmmopt.trial import Trial, TrialAlreadyTold
from tests.bbmmopt.clocks import Clock
from tests.bbmmopt.storages import RECORD, RUNNING, WAITING, together


@pytest.fixture
def now(storage, monkeypatch) -> Clock:
    """The clock that leases go by, at 1000 s."""
    clock = Clock()
    monkeypatch.setattr(type(storage), "clock", lambda self: clock())
    return clock


def test_law_a_lease_begins_when_a_trial_is_written_or_claimed(storage, now):
    asked = storage.add("svm", Trial(0, {}, RUNNING, worker="a", lease=5.0))
    assert asked.lease_until == 1005.0
    storage.add("svm", Trial(1, {}, WAITING))
    now.time = 1002.0
    assert storage.claim("svm", worker="b", lease=3.0).lease_until == 1005.0
    assert [trial.lease for trial in storage.changes("svm")[0]] == [5.0, 3.0]


def test_law_a_trial_is_claimed_again_when_its_lease_is_over_and_not_before(storage, now):
    first = storage.add("svm", Trial(0, {"x": 1}, RUNNING, worker="a", started=7.0, lease=5.0))
    now.time = 1004.999
    assert storage.claim("svm", worker="b") is None
    now.time = 1005.0
    taken = storage.claim("svm", worker="b", lease=9.0)
    assert taken == replace(first, worker="b", lease=9.0, lease_until=1014.0)
    assert storage.trial("svm", 0) == taken
    assert storage.claim("svm", worker="c") is None


def test_law_without_a_lease_a_trial_is_never_claimed_again(storage, now):
    storage.add("svm", Trial(0, {}, RUNNING, worker="a"))
    now.time = 1e12
    assert storage.claim("svm", worker="b") is None


def test_law_what_was_under_way_goes_before_what_waits(storage, now):
    storage.add("svm", Trial(0, {}, WAITING))
    storage.add("svm", Trial(1, {}, RUNNING, worker="a", lease=50.0))
    storage.add("svm", Trial(2, {}, RUNNING, worker="a", lease=20.0))
    storage.add("svm", Trial(3, {}, RUNNING, worker="a", lease=900.0))
    now.time = 1100.0
    assert [storage.claim("svm", worker="b").number for _ in range(3)] == [2, 1, 0]
    assert storage.claim("svm", worker="b") is None


def test_law_of_many_that_claim_an_expired_trial_one_gets_it(storage, now):
    storage.add("svm", Trial(0, {}, RUNNING, worker="a", lease=5.0))
    now.time = 1006.0
    claims = together(6, lambda i: storage.claim("svm", worker=str(i), lease=5.0))
    (winner,) = [claim for claim in claims if claim is not None]
    assert storage.trial("svm", 0) == winner


def test_law_signs_of_life_begin_the_lease_anew(storage, now):
    storage.add("svm", Trial(0, {}, RUNNING, worker="a", lease=5.0))
    _, seen = storage.changes("svm")
    now.time = 1004.0
    assert storage.renew("svm", 0, worker="a")
    assert storage.trial("svm", 0).lease_until == 1009.0
    now.time = 1008.0
    storage.report("svm", 0, 1, 0.5)
    assert storage.trial("svm", 0).lease_until == 1013.0
    # Others are not kept busy with it.
    assert storage.changes("svm", seen)[0] == []
    now.time = 1012.0
    assert storage.claim("svm", worker="b") is None
    now.time = 1013.0
    assert storage.claim("svm", worker="b").number == 0


def test_law_renewing_says_when_the_trial_is_somebody_elses(storage, now):
    storage.add("svm", Trial(0, {}, RUNNING, worker="a", lease=5.0))
    now.time = 1006.0
    storage.claim("svm", worker="b", lease=5.0)
    assert not storage.renew("svm", 0, worker="a")
    assert storage.renew("svm", 0, worker="b")
    storage.finish("svm", 0, state="failed", finished=1.0)
    assert not storage.renew("svm", 0, worker="b")
    assert storage.trial("svm", 0).lease_until is None


def test_law_without_a_lease_there_is_nothing_to_renew(storage, now):
    storage.add("svm", Trial(0, {}, RUNNING, worker="a"))
    assert storage.renew("svm", 0, worker="a")
    assert storage.trial("svm", 0).lease_until is None


def test_law_the_result_of_a_late_worker_counts_if_it_is_the_first(storage, now):
    for number in (0, 1):
        storage.add("svm", Trial(number, {}, RUNNING, worker="slow", lease=5.0))
    now.time = 1006.0
    assert {storage.claim("svm", worker="b").number for _ in range(2)} == {0, 1}
    late = storage.finish("svm", 0, state="complete", values={"f": 1.0}, finished=9.0)
    assert storage.trial("svm", 0) == late
    storage.finish("svm", 1, state="complete", values={"f": 1.0}, finished=9.0)
    with pytest.raises(TrialAlreadyTold, match=r"f = 1\.0; now it was told complete with f = 2\.0"):
        storage.finish("svm", 1, state="complete", values={"f": 2.0}, finished=9.0)
    refused = storage.events("svm")[-1]
    assert (refused.kind, refused.number, refused.detail["values"]) == ("refused", 1, {"f": 2.0})
    assert storage.trial("svm", 1).values == {"f": 1.0}


# --------------------------------------------------------------------------------------
# The clock
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_wall_clock_that_is_set_moves_no_lease(storage, jump, monkeypatch):
    storage.add("svm", Trial(0, {}, RUNNING, worker="a", lease=3600.0))
    before, wall = storage.clock(), time.time()
    monkeypatch.setattr(time, "time", lambda: wall + jump)
    assert 0 <= storage.clock() - before < 60
    assert storage.claim("svm", worker="b") is None


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_nor_does_it_where_the_storage_is_opened_after_the_jump(tmp_path, jump, monkeypatch):
    with open_storage(tmp_path / "study.db") as one:
        one.create_study(RECORD)
        one.add("svm", Trial(0, {}, RUNNING, worker="a", lease=3600.0))
        wall = time.time()
        monkeypatch.setattr(time, "time", lambda: wall + jump)
        with open_storage(tmp_path / "study.db") as other:
            assert abs(other.clock() - one.clock()) < 60
            assert other.claim("svm", worker="b") is None


def test_after_a_boot_the_wall_clock_is_looked_at_anew(tmp_path, monkeypatch):
    anchors: dict[str, float] = {}
    wall = Clock()
    monkeypatch.setattr(time, "time", wall)
    monkeypatch.setattr(time, "monotonic", lambda: 30.0)
    monkeypatch.setattr(clock, "boot", lambda: "first")
    assert LeaseClock(anchors.setdefault)() == 1000.0
    wall.time = 5000.0  # set, or half a minute lasted long
    assert LeaseClock(anchors.setdefault)() == 1000.0
    monkeypatch.setattr(clock, "boot", lambda: "second")
    assert LeaseClock(anchors.setdefault)() == 5000.0
    monkeypatch.setattr(clock, "boot", lambda: "")
    wall.time = 7000.0
    assert LeaseClock(anchors.setdefault)() == 7000.0
