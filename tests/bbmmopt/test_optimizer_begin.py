"""Trials that are taken or begun apart from `ask`: claim, begin, running."""

import math
from typing import Any

import pytest

from bbmmopt import Optimizer, Real
from bbmmopt.storage import MemoryStorage
from tests.bbmmopt.loops import plane, run


@pytest.mark.parametrize("told", [0, 12])
def test_what_preview_suggests_and_begin_makes_is_what_ask_hands_out(told: int) -> None:
    asked, begun = plane(), plane()
    run(asked, told)
    run(begun, told)
    trial = asked.ask(worker="a", lease=9.0)
    other = begun.begin(begun.preview(), worker="a", lease=9.0)
    assert other is not None
    same = ("number", "params", "state", "origin", "worker", "lease", "arguments")
    assert [getattr(other, name) for name in same] == [getattr(trial, name) for name in same]
    assert begun.running == begun.trials[told:]
    begun.tell(other, 1.0)
    assert begun.running == []
    other.report(0, 1.0)  # it is the running trial, not a record


def test_of_two_suggestions_for_a_number_one_is_begun() -> None:
    storage = MemoryStorage()
    first, second = plane(storage), plane(storage)
    suggested = second.preview()
    assert first.begin(first.preview()) is not None
    assert second.begin(suggested) is None
    assert len(second.trials) == 1
    assert second.begin(second.preview()) is not None


def test_claim_hands_out_what_is_in_line_and_suggests_nothing() -> None:
    optimizer = plane()
    assert optimizer.claim() is None
    queued = optimizer.enqueue({"x": 1.0, "y": 2.0})
    claimed = optimizer.claim(worker="a", lease=5.0)
    assert claimed is not None
    assert (claimed.number, claimed.params) == (queued.number, queued.params)
    assert (claimed.worker, claimed.lease, claimed.state) == ("a", 5.0, "running")
    assert optimizer.claim() is None


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"worker": ""}, TypeError, "worker must be a non-empty name"),
        ({"worker": 3}, TypeError, "worker must be a non-empty name"),
        ({"lease": 0}, ValueError, "lease must be a positive number"),
        ({"lease": math.inf}, ValueError, "lease must be a positive number"),
        ({"lease": "1 h"}, TypeError, "lease must be a number of seconds"),
    ],
)
def test_bad_workers_and_leases_are_refused_everywhere(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    optimizer = plane()
    trial, suggested = optimizer.ask(), optimizer.preview()
    for call in (
        optimizer.ask,
        optimizer.claim,
        lambda **o: optimizer.begin(suggested, **o),
        lambda **o: optimizer.take_over(trial, **o),
    ):
        with pytest.raises(error, match=says):
            call(**options)
    assert [t.worker for t in optimizer.trials] == [None]


def test_begin_takes_nothing_but_suggestions_of_its_study() -> None:
    optimizer, other = plane(), plane()
    run(other, 2)
    with pytest.raises(TypeError, match="begin needs a Trial that preview returned"):
        optimizer.begin({"x": 1.0, "y": 2.0})  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="begin needs a Trial that preview returned"):
        other.begin(other.ask())
    with pytest.raises(ValueError, match="suggested for another study"):
        optimizer.begin(other.preview())
    elsewhere = Optimizer({"z": Real(0, 1)}, minimize="f").preview()
    with pytest.raises(ValueError, match="begin"):
        optimizer.begin(elsewhere)
    assert optimizer.trials == []


def test_what_is_suggested_for_a_later_number_is_what_will_be_if_nothing_new_is_learnt() -> None:
    optimizer = plane()
    later = optimizer.preview(number=3)
    assert later.number == 3
    run(optimizer, 3)
    assert later.params not in [trial.params for trial in optimizer.trials]
    assert optimizer.preview().params == later.params  # of the start, which learns nothing
    for wrong in (-1, 1.5, True):
        with pytest.raises(TypeError, match="number must be an integer from 0 on"):
            optimizer.preview(number=wrong)  # pyright: ignore[reportArgumentType]
