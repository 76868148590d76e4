"""Laws of storage, for every store there is: in memory, SQLite, PostgreSQL."""

import threading
import time
from collections import Counter
from dataclasses import replace
from math import inf, nan

import pytest

from bbmmopt.storage import NumberTaken, StudyRecord, UnknownStudy
from bbmmopt.trial import Trial, TrialAlreadyTold, TrialState, UnknownTrial
from tests.bbmmopt.storages import RECORD, RUNNING, WAITING, enqueue, everything, together

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
        lambda: storage.claim("svn", worker=None),
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
    assert storage.claim("svm", worker=None) is None
    assert storage.changes("other") == ([Trial(0, {"x": 2}, WAITING)], 2)


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
    before = time.time()
    first = storage.claim("svm", worker="w")
    assert before <= first.started <= time.time()
    assert first == Trial(1, {"x": 1}, RUNNING, worker="w", started=first.started)
    second = storage.claim("svm", worker=None)
    assert second == Trial(3, {"x": 3}, RUNNING, created=1.0, started=second.started)
    assert storage.claim("svm", worker="w") is None
    assert everything(storage)[0] == first


def test_law_every_waiting_trial_is_claimed_by_one_thread(storage):
    enqueue(storage, 24)

    def take_all(i: int) -> list[int]:
        claims = iter(lambda: storage.claim("svm", worker=str(i)), None)
        return [trial.number for trial in claims]

    counts = Counter(number for numbers in together(6, take_all) for number in numbers)
    assert counts == dict.fromkeys(range(24), 1)


def test_law_a_running_trial_changes_hands_only_from_whom_it_was_seen_with(storage):
    storage.add("svm", Trial(0, {}, RUNNING, worker="a", started=1.0))
    assert storage.reclaim("svm", 0, worker="b", previous_worker="x") is None
    moved = storage.reclaim("svm", 0, worker="b", previous_worker="a")
    assert moved == Trial(0, {}, RUNNING, worker="b", started=1.0)
    assert storage.reclaim("svm", 0, worker="c", previous_worker="a") is None
    assert storage.trial("svm", 0) == moved
    outcomes = together(6, lambda i: storage.reclaim("svm", 0, worker=f"w{i}", previous_worker="b"))
    assert sum(outcome is not None for outcome in outcomes) == 1
    storage.finish("svm", 0, state="failed", finished=9.0)
    last = storage.trial("svm", 0).worker
    assert storage.reclaim("svm", 0, worker="d", previous_worker=last) is None


TOLD = {"values": {"error": 0.5}, "standard_errors": {"error": 0.1}, "constraints": {"m": -1.0}}


@pytest.mark.parametrize("state", [RUNNING, WAITING])
def test_law_finishing_keeps_the_outcome_and_ends_the_lease(storage, state):
    storage.add("svm", Trial(0, {"x": 1}, state, worker="w", started=1.0, lease=50.0))
    done = storage.finish("svm", 0, state="complete", finished=9.0, **TOLD)
    expected = Trial(
        0, {"x": 1}, TrialState.COMPLETE, worker="w", started=1.0, finished=9.0, **TOLD
    )
    assert done == expected
    assert storage.trial("svm", 0) == expected
    assert storage.claim("svm", worker=None) is None


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
        lambda: storage.reclaim("svm", number, worker="a", previous_worker="b"),
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
    assert storage.changes("svm") == ([], 1)
    for number in range(3):
        storage.add("svm", Trial(number, {}, WAITING))
    trials, seen = storage.changes("svm")
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert storage.changes("svm", seen) == ([], seen)
    storage.finish("svm", 1, state="failed", finished=1.0)
    storage.claim("svm", worker=None)
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
