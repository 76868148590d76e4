"""Facts about the limits of an ask: on its time, by a clock of our own, and on its evaluations."""

import math

import pytest

from bbmmopt import Optimizer, Real, Space
from bbmmopt.search import Budget
from bbmmopt.strategies import Chosen
from tests.bbmmopt.shell import create, lines

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})


def bowl(x, y):
    return (x - 0.3) ** 2 + (y - 0.6) ** 2 + 0.1 * math.sin(12 * x)


def started(n=8, **options) -> Optimizer:
    settings = {"minimize": "f", "seed": 0, "n_start": 4} | options
    optimizer = Optimizer(PLANE, **settings)
    for _ in range(n):
        trial = optimizer.ask()
        optimizer.tell(trial, bowl(**trial.params))
    return optimizer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batches": "joint"},
        {"strategy": "trust_region"},
        {"strategy": "trust_region", "acquisition": "thompson"},
        {"strategy": "portfolio"},
    ],
    ids=str,
)
@pytest.mark.parametrize("limit", [12, 100, 900])
def test_a_batch_scores_no_more_candidates_than_allowed(options, limit, monkeypatch):
    limits = []

    class Kept(Budget):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            limits.append(self)

    optimizer = started(**options)
    with monkeypatch.context() as patched:
        patched.setattr("bbmmopt.optimizer.Budget", Kept)
        batch = optimizer.ask(3, evaluations=limit)
    counts, (kept,) = [t.origin["candidates_scored"] for t in batch], limits
    assert kept.left >= 0
    if options.get("batches") == "joint":
        assert set(counts) == {limit - kept.left} or limit == 12
    elif "portfolio" not in options.values():
        assert sum(counts) == limit - kept.left and 1 <= counts[0] <= limit // 3
    assert len({tuple(t.params.values()) for t in batch}) == 3
    again = started(**options).ask(3, evaluations=limit)
    assert [t.params for t in again] == [t.params for t in batch]


def test_what_one_trial_leaves_is_there_for_the_next():
    optimizer = started()
    optimizer.enqueue({"x": 0.9, "y": 0.9})
    first, second = optimizer.ask(2, evaluations=40)
    assert first.origin == {"phase": "enqueued"}
    assert 20 < second.origin["candidates_scored"] <= 40
    assert second.origin["ended_by"] == ["evaluations"]
    assert "cut short by the limit on the number of candidates" in optimizer.explain(second)


def test_an_ample_limit_changes_nothing(clock):
    free, limited = started(), started()
    a, b = free.ask(2), limited.ask(2, timeout=3600, evaluations=10**6)
    assert [t.params for t in a] == [t.params for t in b]
    assert [t.origin for t in a] == [
        t.origin | {"model": s.origin["model"]} for t, s in zip(b, a, strict=True)
    ]
    assert "cut short" not in limited.explain(b[0])


def test_preview_takes_the_limits_of_the_ask_it_shows():
    optimizer = started()
    shown = optimizer.preview(evaluations=50)
    assert shown.params == optimizer.ask(evaluations=50).params
    assert shown.origin["candidates_scored"] <= 50


def test_when_the_time_is_over_there_is_a_point_and_it_says_why(clock):
    optimizer, other = started(), started()
    clock.step = 1.0  # each look at the clock takes a second
    batch = optimizer.ask(3, timeout=2)
    clock.step = 0.0
    for trial in batch:
        assert trial.origin["fit_cut_short"] and trial.origin["ended_by"] == ["time"]
        assert trial.origin["candidates_scored"] <= 64
    told = optimizer.explain(batch[0])
    assert "The search was cut short by the limit on the time of the ask." in told
    assert "The fit of the model was cut short" in told
    assert len({tuple(t.params.values()) for t in batch}) == 3
    # The next one, with all the time, does not build on that fit.
    for trial in batch:
        other.tell(other.ask(fixed=trial.params), 1.0)
        optimizer.tell(trial, 1.0)
    a, b = optimizer.ask(), other.ask()
    assert a.params == b.params and "fit_cut_short" not in a.origin


def test_a_fit_has_half_of_the_time_and_a_batch_one_fit(clock, monkeypatch):
    optimizer = started()
    looks = []
    original = Budget._no_more_fits

    def look(self):
        looks.append(clock.time)
        clock.time += 10.0
        return original(self)

    monkeypatch.setattr(Budget, "_no_more_fits", look)
    trials = optimizer.ask(2, timeout=100)
    assert sum(at < 1040 for at in looks) == 4 and all(t.origin["fit_cut_short"] for t in trials)
    assert not any("ended_by" in t.origin for t in trials)  # the searches had theirs
    assert trials[0].origin["model"]["lengthscales"] == trials[1].origin["model"]["lengthscales"]


@pytest.mark.parametrize("timeout", [0, -1, math.nan, True, "1"])
def test_a_timeout_is_a_positive_number_of_seconds(timeout):
    for call in (started(0).ask, started(0).preview):
        with pytest.raises(ValueError, match="timeout must be a positive number"):
            call(timeout=timeout)


@pytest.mark.parametrize("evaluations", [0, -3, 1.5, True, 2])
def test_there_is_an_evaluation_for_each_trial(evaluations):
    with pytest.raises(ValueError, match=r"at least 3 for 3 trial\(s\)"):
        started(0).ask(3, evaluations=evaluations)
    with pytest.raises(ValueError, match=r"at least 12 for 3"):
        started(0, strategy="portfolio").ask(3, evaluations=11)


def test_a_strategy_knows_the_least_it_needs():
    assert Chosen(PLANE, 5).least_evaluations == 1
    assert Chosen(PLANE, 5, strategy="portfolio").least_evaluations == 4


def test_the_shell_has_a_timeout_for_all_that_are_asked_for(clock, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create(None, "--minimize", "loss", "--n-start", 2)
    with Optimizer.open("study.db") as optimizer:
        for _ in range(4):
            trial = optimizer.ask()
            optimizer.tell(trial, trial.params["x"] ** 2)
    clock.step = 1.0
    asked = lines("ask", "study.db", "-n", 2, "--timeout", 3)
    clock.step = 0.0
    with Optimizer.open("study.db") as optimizer:
        for line in asked:
            assert optimizer.trials[line["number"]].origin["ended_by"] == ["time"]
