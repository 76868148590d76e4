"""A study's tally: what a run looks at before each trial, without going through all of them."""

import random
from typing import Any

import pytest
from objectives import SPACE, quiet

from bbmmopt import Optimizer, Patience, Target, TotalTrials, Trial, TrialState
from bbmmopt.problem import Problem
from bbmmopt.storage import MemoryStorage
from bbmmopt.study.ledger import Ledger
from bbmmopt.study.tally import Tally

POINT = {"x": 0.0, "y": 0.0}
ENDS = [TrialState.COMPLETE] * 4 + [TrialState.FAILED, TrialState.PRUNED]


def ended(number: int, rng: random.Random) -> Trial:
    """A trial of any end; few values, so that many are equal, and half of them infeasible."""
    state = rng.choice(ENDS)
    if state != TrialState.COMPLETE:
        return Trial(number, POINT, state)
    values, constraints = {"f": float(rng.randrange(6))}, {"c": rng.choice([-1.0, 1.0])}
    return Trial(number, POINT, state, values=values, constraints=constraints)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("seed", range(20))
def test_a_tally_is_what_going_through_all_trials_gives(direction: str, seed: int) -> None:
    kind: dict[str, Any] = {direction: "f"}
    problem = Problem.make(SPACE, constraints="c", **kind)
    rng, tally = random.Random(seed), Tally(problem)
    trials: dict[int, Trial] = {}
    for step in range(60):  # each trial is begun, and ended when chance has it
        running = [k for k, trial in trials.items() if not trial.state.finished]
        number = rng.choice(running) if running and rng.random() < 0.5 else len(trials)
        before = trials.get(number)
        trials[number] = ended(number, rng) if before else Trial(number, POINT)
        tally.take(before, trials[number])
        tally.take(trials[number], trials[number])  # notes were added, say

        best = [problem.best_of(t for t in trials.values() if t.number <= k) for k in trials]
        assert tally.best is problem.best_of(trials.values())
        assert tally.records == [
            t for t, k in zip(best, trials, strict=True) if t and t.number == k
        ]
        over = [k for k, trial in trials.items() if trial.state.finished]
        assert tally.ended == len(over)
        assert tally.total == len(trials)
        assert tally.complete == sum(t.state == TrialState.COMPLETE for t in trials.values())
        assert tally.ended_after(step // 2) == sum(k > step // 2 for k in over)


def test_of_several_objectives_there_is_no_record() -> None:
    tally = Tally(Problem.make(SPACE, minimize=["a", "b"]))
    tally.take(None, Trial(0, POINT, TrialState.COMPLETE, values={"a": 1.0, "b": 2.0}))
    assert (tally.records, tally.best, tally.ended) == ([], None, 1)


def test_the_tally_of_a_study_knows_the_trials_of_others() -> None:
    storage = MemoryStorage()
    with Optimizer(SPACE, minimize="f", storage=storage, seed=1) as mine:
        assert mine.tally.total == 0
        with Optimizer(SPACE, minimize="f", storage=storage) as theirs:
            theirs.add_trial({"x": 1.0, "y": 0.5}, 3.0)
            theirs.tell(theirs.ask(), 2.0)
        assert (mine.tally.total, mine.tally.ended) == (2, 2)
        assert mine.tally.best == mine.best


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_looks_at_each_trial_once_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch, progress: bool, workers: int
) -> None:
    storage = MemoryStorage()
    options: dict[str, Any] = {"storage": storage, "seed": 1, "n_start": 1000, "budget": 310}
    with Optimizer(SPACE, minimize="value", **options) as optimizer:
        for k in range(300):
            optimizer.add_trial({"x": k / 100, "y": 0.5}, 1.0 + k)
    seen: list[int] = []
    walks: list[int] = []
    take, in_order = Tally.take, Ledger.in_order

    def counted(self: Tally, before: Trial | None, trial: Trial) -> None:
        seen.append(trial.number)
        take(self, before, trial)

    def walked(self: Ledger) -> Any:
        walks.append(1)
        return in_order(self)

    monkeypatch.setattr(Tally, "take", counted)
    monkeypatch.setattr(Ledger, "in_order", walked)
    monkeypatch.setattr(Problem, "best_of", lambda self, trials: _few(trials))
    rules = [Target(-1.0), Patience(1000), TotalTrials(310)]
    quiet(
        objective=lambda x, y: -x / 10,
        n_trials=None,
        timeout=60.0,
        stop=rules,
        storage=storage,
        n_start=1000,
        workers=workers,
        progress=progress,
    )
    assert len(walks) == 1  # when the tally is begun
    assert len(seen) <= 300 + 4 * 10  # begun, ended, each known from here and from the storage


def _few(trials: Any) -> Trial | None:
    (trial,) = trials
    return trial
