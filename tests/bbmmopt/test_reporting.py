"""Trials under way: reports, notes, leases, and the same from another process."""

import math
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from objectives import report_from_a_process

from bbmmopt import Optimizer, Real
from bbmmopt.storage import open_storage
from bbmmopt.study import Study
from bbmmopt.trial import TrialAlreadyTold, TrialState, UnknownTrial
from tests.bbmmopt.clocks import Clock
from tests.bbmmopt.loops import plane

LINE = {"x": Real(0, 1)}


# --------------------------------------------------------------------------------------
# Reports
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(0.5), np.array([0.5]), torch.tensor(0.5, requires_grad=True)],
)
def test_a_report_is_kept_as_a_plain_number(value, tmp_path):
    optimizer = plane(tmp_path / "study.db")
    trial = optimizer.ask()
    trial.report(np.int64(3), value)
    with Study.open(tmp_path / "study.db") as other:
        curve = other.curves[0]
    assert curve == {3: 0.5}
    assert type(curve[3]) is float
    optimizer.close()


def test_the_last_report_of_a_step_counts_and_all_are_kept():
    optimizer = plane()
    trial = optimizer.ask()
    for step, value in [(0, 1.0), (1, 0.5), (0, 2.0)]:
        trial.report(step, value)
    assert optimizer.curves == {0: {0: 2.0, 1: 0.5}}
    assert len(optimizer.storage.reports("default")[0]) == 3


def test_what_a_caller_does_to_the_curves_stays_with_the_caller():
    optimizer = plane()
    optimizer.report(optimizer.ask(), 0, 1.0)
    optimizer.curves[0][0] = 5.0
    assert optimizer.curves == {0: {0: 1.0}}


@pytest.mark.parametrize(
    ("step", "value", "error", "message"),
    [
        (-1, 0.5, ValueError, r"trial 0: a step is an integer from 0 on; got -1"),
        (2**63, 0.5, ValueError, "from 0 on"),
        (0.5, 0.5, TypeError, r"a step is an integer, 0, 1, 2 …; got 0\.5"),
        (True, 0.5, TypeError, "got True"),
        ("1", 0.5, TypeError, "got '1'"),
        (0, "0.5", TypeError, r"trial 0: the value at step 0 must be a number; got '0\.5'"),
        (0, None, TypeError, "must be a number; got None"),
        (0, 1j, TypeError, "must be a number"),
        (0, [0.5], TypeError, "must be a number"),
        (0, np.zeros(2), ValueError, r"must be one number; got an array of shape \(2,\)"),
        (0, 10**400, ValueError, "too large for a float"),
    ],
)
def test_what_is_no_report_is_refused(step, value, error, message):
    optimizer = plane()
    trial = optimizer.ask()
    with pytest.raises(error, match=message):
        trial.report(step, value)
    assert optimizer.curves == {}


def test_a_report_of_an_unknown_trial_names_it():
    with pytest.raises(UnknownTrial, match="no trial 3"):
        plane().report(3, 0, 0.5)


def test_a_record_says_that_it_cannot_report():
    optimizer = plane()
    optimizer.ask()
    (record,) = optimizer.trials
    with pytest.raises(RuntimeError, match=r"trial 0 is a record: report\(\) is for trials that"):
        record.report(0, 0.5)
    with pytest.raises(RuntimeError, match=r"should_stop\(\) is for trials that `ask` hands out"):
        record.should_stop()


def test_a_trial_that_ended_elsewhere_should_stop(tmp_path):
    optimizer = plane(tmp_path / "study.db")
    trial = optimizer.ask()
    trial.report(0, 0.5)
    assert not trial.should_stop()
    with Study.open(tmp_path / "study.db") as other:
        other.tell(0, 1.0)
    trial.report(1, 0.5)
    assert trial.should_stop()
    assert optimizer.should_stop(0) == "trial 0 has ended already: it is complete."
    optimizer.close()


# --------------------------------------------------------------------------------------
# From another process
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_worker_process_reports_to_the_storage(kind, tmp_path, request):
    where = tmp_path / "study.db"
    if kind == "postgres":
        where = request.getfixturevalue("postgres_url")
    with Study(LINE, minimize="f", storage=where, seed=0) as study:
        study.enqueue({"x": 0.5})
        trial = study._ledger.hand_out(study.storage.claim("default", worker=None))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            assert pool.submit(report_from_a_process, trial).result() == (False, "StudyReporter")
        assert study.curves == {0: {0: 0.5, 1: 0.25}}


def test_a_study_in_memory_cannot_be_reached_from_another_process():
    trial = pickle.loads(pickle.dumps(plane().ask()))
    for use in (lambda: trial.report(0, 0.5), trial.should_stop):
        with pytest.raises(RuntimeError, match=r'memory of another .* storage="study.db"'):
            use()


def test_a_sent_trial_is_the_same_trial(tmp_path):
    with plane(tmp_path / "study.db") as optimizer:
        trial = optimizer.ask()
        assert pickle.loads(pickle.dumps(trial)) == trial


# --------------------------------------------------------------------------------------
# Told as pruned
# --------------------------------------------------------------------------------------


def test_a_pruned_trial_has_a_reason_and_no_value():
    optimizer = plane()
    trial = optimizer.ask()
    told = optimizer.tell(trial, pruned="behind")
    assert (told.state, told.reason, told.values) == (TrialState.PRUNED, "behind", None)
    assert optimizer.tell(trial, pruned="again") == told
    with pytest.raises(TrialAlreadyTold, match=r"pruned \(behind\); now it was told complete"):
        optimizer.tell(trial, 1.0)


@pytest.mark.parametrize(
    ("value", "options", "error"),
    [
        (1.0, {"pruned": "why"}, ValueError),
        (None, {"pruned": "why", "failed": "why"}, ValueError),
        (None, {"pruned": "why", "constraints": {}}, ValueError),
        (None, {"pruned": ""}, TypeError),
        (None, {"pruned": True}, TypeError),
    ],
)
def test_a_trial_is_told_one_thing(value, options, error):
    optimizer = plane()
    trial = optimizer.ask()
    with pytest.raises(error, match=r"trial 0: (give a value|pruned= takes the reason)"):
        optimizer.tell(trial, value, **options)
    assert optimizer.trials[0].state == TrialState.RUNNING


# --------------------------------------------------------------------------------------
# Notes, events
# --------------------------------------------------------------------------------------


def test_notes_are_kept_with_the_trial(tmp_path):
    with plane(tmp_path / "study.db") as optimizer:
        trial = optimizer.ask()
        optimizer.tell(trial, 1.0)
        optimizer.set_attrs(trial, {"batch": "B7", "temperatures": [20.5, math.inf]})
        optimizer.set_attrs(0, {"batch": "B8"})
        with pytest.raises(TypeError, match="JSON cannot hold"):
            optimizer.set_attrs(0, {"model": object()})
        with pytest.raises(TypeError, match=r"takes \{name: note\}"):
            optimizer.set_attrs(0, ["batch"])
    with Study.open(tmp_path / "study.db") as study:
        assert study.trials[0].attrs == {"batch": "B8", "temperatures": [20.5, math.inf]}


def test_the_log_says_who_did_what():
    optimizer = plane()
    optimizer.enqueue({"x": 0, "y": 0})
    optimizer.tell(optimizer.ask(worker="robot"), 1.0)
    optimizer.log_retry(optimizer.ask(), "burnt")
    events = optimizer.events()
    assert [(e.kind, e.number, e.worker) for e in events] == [
        ("created", None, None),
        ("enqueued", 0, None),
        ("claimed", 0, "robot"),
        ("told", 0, "robot"),
        ("asked", 1, None),
        ("retried", 1, None),
    ]
    assert optimizer.events(since=5) == events[5:]


# --------------------------------------------------------------------------------------
# Leases
# --------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path, monkeypatch) -> tuple[Optimizer, Optimizer, Clock]:
    """Two optimizers on one storage, and the clock of their leases."""
    clock, path = Clock(), tmp_path / "study.db"
    with open_storage(path) as one, open_storage(path) as two:
        monkeypatch.setattr(type(one), "clock", lambda self: clock())
        yield plane(one), plane(two), clock


def test_a_trial_whose_lease_ran_out_is_handed_out_before_anything_new(shared):
    one, two, clock = shared
    first = one.ask(worker="a", lease=60)
    one.enqueue({"x": 1.0, "y": 1.0})
    clock.time += 61
    assert two.ask(worker="b").params == first.params
    assert two.ask(worker="b").params == {"x": 1.0, "y": 1.0}
    assert two.ask(worker="b").number == 2


def test_reports_and_renewals_keep_a_lease(shared):
    one, two, clock = shared
    trial = one.ask(worker="a", lease=60)
    for step in range(3):
        clock.time += 50
        trial.report(step, 0.5)
        clock.time += 50
        assert one.renew(trial)
        assert two.ask(worker="b").number == step + 1
    clock.time += 61
    assert two.ask(worker="b").number == 0
    assert not one.renew(trial)


def test_the_late_result_is_told_if_it_is_the_first(shared):
    one, two, clock = shared
    late = [one.ask(worker="a", lease=60) for _ in range(2)]
    clock.time += 61
    again = [two.ask(worker="b") for _ in range(2)]
    assert [trial.number for trial in again] == [0, 1]
    one.tell(late[0], 1.0)
    assert two.tell(again[0], 1.0).values == {"f": 1.0}
    two.tell(again[1], 2.0)
    with pytest.raises(TrialAlreadyTold):
        one.tell(late[1], 1.0)
    assert [trial.values for trial in one.trials] == [{"f": 1.0}, {"f": 2.0}]
    assert one.events()[-1].kind == "refused"


def test_a_worker_that_comes_back_in_time_gets_its_trial_and_a_new_lease(tmp_path, monkeypatch):
    clock, path = Clock(), tmp_path / "study.db"
    with open_storage(path) as storage:
        monkeypatch.setattr(type(storage), "clock", lambda self: clock())
        trial = plane(storage).ask(worker="a", lease=60)
        clock.time += 50
        again = plane(storage).ask(worker="a", lease=60)
        assert (again.number, again.params) == (0, trial.params)
        assert again.lease_until == clock.time + 60


@pytest.mark.parametrize(
    ("lease", "error"),
    [*((x, ValueError) for x in (0, -1, math.inf, math.nan)), ("60", TypeError), (True, TypeError)],
)
def test_what_is_no_lease_is_refused(lease, error):
    optimizer = plane()
    with pytest.raises(error, match=r"lease must be a (positive )?number of seconds"):
        optimizer.ask(lease=lease)
    assert optimizer.trials == []
