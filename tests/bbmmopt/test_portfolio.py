"""Facts about portfolios: how far each member is trusted, what is stored, what is proposed."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from bbmmopt import Categorical, Integer, Near, Optimizer, Real, Space, Study
from bbmmopt.modelling import Data, Known, Modellers
from bbmmopt.space import Simplex
from bbmmopt.strategies import Chosen, Global, Past, Portfolio, Request, SpaceExhausted, building
from bbmmopt.strategies import portfolio as module
from bbmmopt.strategies.portfolio import MEMBERS, share_out, weigh

PLANE = Space({"x": Real(-1, 1), "y": Real(0, 2)})
MIXED = Space(
    {
        "kind": Categorical(["a", "b", "c"]),
        "n": Integer(1, 5),
        "rate": Real(1e-4, 1, log=True, when={"kind": ["a", "b"]}),
        "x": Real(-1, 1),
    }
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Functions are drawn with few random features: none of these facts needs more."""
    monkeypatch.setattr(building, "_FEATURES", 64)
    monkeypatch.setattr(building, "_MAXIMA", 8)


def bowl(x: float, y: float) -> float:
    return (x - 0.3) ** 2 + 0.5 * (y - 1.2) ** 2


def mixed(p) -> float:
    return {"a": 0.0, "b": 0.3, "c": 1.0}[p["kind"]] + 0.1 * p["n"] + p["x"] ** 2


def opened(space=PLANE, **options) -> Optimizer:
    return Optimizer(
        space, **{"minimize": "f", "seed": 0, "n_start": 4, "strategy": "portfolio"} | options
    )


def run(optimizer: Optimizer, count: int, batch: int = 1) -> Optimizer:
    """Ask and tell of the bowl."""
    for _ in range(count // batch):
        for trial in optimizer.ask(batch):
            optimizer.tell(trial, bowl(**trial.params))
    return optimizer


def data(space, n, seed=0) -> Data:
    X = space.snap(np.random.default_rng(seed).random((n, len(space))))
    y = -((X - 0.4) ** 2).sum(1)
    return Data(X, y, np.full(n, np.nan), X[:0], X[:0], exact=True)


def nominated(space, points, outcome: Any = "complete") -> Past:
    """A trial whose members nominated these rows."""
    nominees = {m: space.decode(x) for m, x in zip(MEMBERS, points, strict=True)}
    return Past(outcome, {"portfolio": {"member": MEMBERS[0], "nominees": nominees}})


# --------------------------------------------------------------------------------------
# How far each member is trusted
# --------------------------------------------------------------------------------------


def test_weights_are_those_computed_by_hand():
    # η = √(8 · log 4 / 10) = 1.0531; rewards have a range of 4, from -1; the older trial fades.
    rewards = np.array([[3.0, -1.0, 1.0, 1.0], [1.0, 3.0, 1.0, -1.0]])
    gains = [0.9 * 1 + 0.5, 0.9 * 0 + 1, 0.9 * 0.5 + 0.5, 0.9 * 0.5 + 0]
    expected = [math.exp(1.0531 * gain) for gain in gains]
    assert weigh(rewards) == pytest.approx(np.array(expected) / sum(expected), abs=1e-4)


def test_weights_are_equal_where_nothing_tells_members_apart():
    assert np.array_equal(weigh(np.empty((0, 4))), np.full(4, 0.25))
    assert np.array_equal(weigh(np.full((3, 4), 1.7)), np.full(4, 0.25))


def test_weights_do_not_depend_on_the_units_of_rewards():
    rewards = np.random.default_rng(0).standard_normal((9, 4))
    assert weigh(1e-6 * rewards + 5) == pytest.approx(weigh(rewards), rel=1e-6)


def test_a_hopeless_member_loses_weight_trial_by_trial_and_regains_it():
    def of_last(history):
        return [float(weigh(np.array(history[: t + 1]))[3]) for t in range(len(history))]

    bad, good = [1.0, 1.0, 1.0, -2.0], [-2.0, -2.0, -2.0, 1.0]
    falling = of_last([bad] * 12)
    assert all(a > b for a, b in pairwise(falling)) and falling[-1] < 1e-3
    rising = of_last([bad] * 12 + [good] * 30)[12:]
    assert all(a < b for a, b in pairwise(rising)) and rising[-1] > 0.9


def test_running_trials_of_a_member_make_it_less_likely():
    assert share_out(np.array([0.5, 0.3, 0.1, 0.1]), [0, 0, 0, 0]) == pytest.approx(
        [0.5, 0.3, 0.1, 0.1]
    )
    odds = np.array([0.5 / 4, 0.3, 0.1 / 9, 0.1])
    assert share_out(np.array([0.5, 0.3, 0.1, 0.1]), [1, 0, 2, 0]) == pytest.approx(
        odds / odds.sum()
    )


# --------------------------------------------------------------------------------------
# Rewards
# --------------------------------------------------------------------------------------


def test_rewards_are_what_todays_model_expects_of_earlier_nominees_tried_or_not():
    told = data(PLANE, 12)
    X = PLANE.snap(np.random.default_rng(1).random((8, 2)))
    past = (
        *[Past("complete", {})] * 10,
        nominated(PLANE, X[:4]),
        nominated(PLANE, X[4:] * 0, "pending"),  # of which nothing is known yet
        nominated(PLANE, X[4:], "failed"),
    )
    strategy = Portfolio(PLANE, 5)
    belief = Modellers(PLANE).beliefs(Known((told,))).first
    rewards = strategy.rewards(belief, past)
    mean, _ = belief.settled.marginals(torch.from_numpy(X))
    assert rewards == pytest.approx(mean.numpy().reshape(2, 4), abs=1e-9)
    assert strategy.rewards(belief, past[:10]).shape == (0, 4)


def test_a_nominee_where_trials_failed_is_worth_no_more_than_the_median():
    told = data(PLANE, 12)
    x = told.X[told.y.argmax()][None] + 1e-3  # beside the best
    belief = Modellers(PLANE).beliefs(Known((told,))).first
    failed = Data(*[told.X, told.y, told.errors, told.pending, x], exact=True)
    after = Modellers(PLANE).beliefs(Known((failed,))).first
    past = (nominated(PLANE, np.repeat(x, 4, 0)),)
    strategy = Portfolio(PLANE, 5)
    assert strategy.rewards(belief, past).min() > float(belief.posterior.y.median()) + 0.5
    assert strategy.rewards(after, past).max() < strategy.rewards(belief, past).max() - 0.5


def test_old_nominees_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(module, "_COUNTED", 3)
    X = PLANE.snap(np.random.default_rng(1).random((5, 4, 2)))
    past = tuple(nominated(PLANE, points) for points in X)
    belief = Modellers(PLANE).beliefs(Known((data(PLANE, 12),))).first
    strategy = Portfolio(PLANE, 5)
    assert np.array_equal(strategy.rewards(belief, past), strategy.rewards(belief, past[2:]))


def test_the_member_whose_nominees_turn_out_bad_is_trusted_less():
    told = data(PLANE, 20)
    good, bad = told.X[told.y.argmax()], told.X[told.y.argmin()]
    past = tuple(nominated(PLANE, [bad, good, good, good]) for _ in range(10))
    origin = Portfolio(PLANE, 5).propose(Request(told, 30, 0, past=past)).origin["portfolio"]
    assert origin["counted"] == 10 and origin["weights"]["log_ei"] < 0.002
    # Of many trials, that member has hardly any.
    drawn = [
        module._drawn(np.array([0.002, 0.3, 0.3, 0.398]), module.generator(0, k, "portfolio"))
        for k in range(400)
    ]
    assert drawn.count(0) < 8 and min(drawn.count(i) for i in (1, 2, 3)) > 80


# --------------------------------------------------------------------------------------
# What is proposed
# --------------------------------------------------------------------------------------


def test_each_member_nominates_what_it_would_propose_alone():
    told = data(PLANE, 12)
    asked = Request(told, 12, 0, past=(Past("complete", {}),) * 12)
    proposal = Portfolio(PLANE, 5).propose(asked)
    nominees = proposal.origin["portfolio"]["nominees"]
    assert set(nominees) == set(MEMBERS)
    for member, params in nominees.items():
        assert params == PLANE.decode(Global(PLANE, 5, member).propose(asked).x)
    member = proposal.origin["portfolio"]["member"]
    assert PLANE.decode(proposal.x) == nominees[member]
    again = Chosen(PLANE, 5, strategy="portfolio").propose(asked)
    assert bytes(again.x) == bytes(proposal.x)


def test_a_proposal_is_a_function_of_the_request():
    past = tuple(
        nominated(MIXED, MIXED.snap(np.random.default_rng(k).random((4, 4)))) for k in range(3)
    )
    asked = Request(data(MIXED, 12), 12, 0, past=past)
    fresh = Portfolio(MIXED, 5).propose(asked)
    used = Portfolio(MIXED, 5)
    used.propose(Request(data(MIXED, 15, seed=4), 15, 1))
    again = used.propose(asked)
    assert bytes(again.x) == bytes(fresh.x) and again.origin == fresh.origin


@pytest.mark.parametrize("batch", [1, 2])
def test_a_run_reopened_after_any_trial_goes_on_bit_by_bit(batch, tmp_path):
    where = tmp_path / "study.db"

    def start(**options):
        return opened(MIXED, n_start=3, **options)

    def rounds(optimizer, reopen):
        told = []
        for _ in range(8 // batch):
            if reopen:
                optimizer.close()
                optimizer = start(storage=where)
            for trial in optimizer.ask(batch):
                told.append((trial.params, trial.origin))
                optimizer.tell(trial, mixed({"x": 0, **trial.params}))
        return told

    straight = rounds(start(), False)
    assert rounds(start(storage=where), True) == straight
    members = {origin["portfolio"]["member"] for _, origin in straight[4:]}
    assert len(members) > 1


def test_a_finite_space_is_used_up_and_no_point_comes_twice():
    optimizer = opened(Space({"n": Integer(0, 4), "k": Categorical(["a", "b"])}), n_start=3)
    points = set()
    for batch in (3, 2, 2, 3):
        trials = optimizer.ask(batch)
        points |= {tuple(trial.params.values()) for trial in trials}
        for trial in trials:
            optimizer.tell(trial, trial.params["n"] ** 2)
    assert len(points) == 10
    with pytest.raises(SpaceExhausted):
        optimizer.ask()


def test_a_batch_is_distinct_and_of_several_members():
    optimizer = run(opened(), 8)
    trials = optimizer.ask(6)
    assert len({tuple(trial.params.values()) for trial in trials}) == 6
    told = [trial.origin["portfolio"] for trial in trials]
    assert len({origin["member"] for origin in told}) >= 3
    for k, origin in enumerate(told):
        before = [other["member"] for other in told[:k]]
        assert origin["running"] == {m: before.count(m) for m in MEMBERS if m in before}
        # Nothing was told in between, so the trust is the same.
        assert origin["weights"] == pytest.approx(told[0]["weights"])


def test_constraints_of_the_space_and_fixed_parameters_are_kept_to():
    space = Space({"a": Real(0, 1), "b": Real(0, 1), "n": Integer(0, 9)}, [Simplex(["a", "b"])])
    optimizer = opened(space, n_start=3)
    for batch in (3, 2, 1):
        for trial in optimizer.ask(batch, fixed={"n": 4}):
            assert space.satisfies(trial.params) and trial.params["n"] == 4
            assert all(
                space.satisfies(p) and p["n"] == 4
                for p in trial.origin.get("portfolio", {"nominees": {}})["nominees"].values()
            )
            optimizer.tell(trial, (trial.params["a"] - 0.6) ** 2)


def test_failed_trials_and_trials_told_from_elsewhere_do_no_harm():
    optimizer = run(opened(noise="noisy"), 6)
    optimizer.add_trial({"x": 0.3, "y": 1.0}, 0.02)
    optimizer.tell(optimizer.ask(), failed="diverged")
    optimizer.enqueue({"x": 0.1, "y": 1.1})
    optimizer = run(optimizer, 3)
    assert optimizer.trials[-1].origin["portfolio"]["counted"] == 4


def test_the_minimum_is_found():
    assert run(opened(), 14).recommend().value < 0.01


def test_an_acquisition_asked_for_by_preview_is_maximised_alone():
    optimizer = run(opened(), 6)
    trial = optimizer.preview(acquisition="log_pi")
    assert trial.origin["acquisition"] == "log_pi" and "portfolio" not in trial.origin
    assert "portfolio" in optimizer.preview().origin
    assert optimizer.preview().params == optimizer.ask().params


# --------------------------------------------------------------------------------------
# What is said
# --------------------------------------------------------------------------------------


def test_explain_tells_who_nominated_it_and_how_far_each_was_trusted():
    optimizer = run(opened(), 7)
    assert "because no nominee of theirs had been tried" in optimizer.explain(4)
    assert "of the nominees of 1 earlier trial." in optimizer.explain(5)
    told = optimizer.trials[6].origin["portfolio"]
    text = optimizer.explain(6)
    assert f"Of the portfolio {told['member']} nominated it." in text
    for member, weight in told["weights"].items():
        assert f"{member} {weight:.2g}" in text
    assert "of the nominees of 2 earlier trials." in text
    optimizer.ask()
    first = optimizer.trials[7].origin["portfolio"]["member"]
    running = f"Less often drawn were members with trials running: 1 of {first}."
    assert running not in optimizer.explain(7) and running in optimizer.explain(optimizer.ask())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minimize": ["f", "g"]}, '"portfolio" is for one objective.*take "global"'),
        ({"constraints": ["c <= 1"]}, '"portfolio" is for one objective and no constraints'),
        ({"acquisition": "log_ei"}, "has acquisition functions of its own.*'log_ei'"),
        ({"cost": "seconds"}, '"portfolio" cannot take cost into account; take "global"'),
        ({"prior": {"x": Near(0.3, spread=0.1)}}, '"portfolio" cannot take prior into account'),
        ({"perturbation": {"x": 0.1}}, '"portfolio" cannot take perturbation into account'),
    ],
)
def test_what_does_not_suit_is_refused_at_the_door(options, words):
    with pytest.raises(ValueError, match=words):
        Study(PLANE, **{"minimize": "f", "strategy": "portfolio"} | options)
