"""Facts about what guides a search: priors, the cost of trials, parameters that vary in use."""

import itertools
import math

import numpy as np
import pytest
import torch

from bbmmopt import (
    Categorical,
    Integer,
    Linear,
    Near,
    Optimizer,
    Ordinal,
    Real,
    Space,
    Study,
    StudyDiffers,
)
from bbmmopt import optimizer as optimizer_module
from bbmmopt.perturbation import stds_of
from bbmmopt.prior import Bell, columns_of, prior_to_json
from bbmmopt.strategies import Guide
from bbmmopt.strategies.guide import log_prior
from bbmmopt.study import study as study_module

PLANE = {"x": Real(0, 1), "y": Real(0, 1)}
MIXED = Space(
    {
        "rate": Real(1e-5, 1e-1, log=True),
        "width": Real(-2, 8),
        "depth": Integer(1, 10),
        "batch": Integer(1, 1000, log=True),
        "grade": Ordinal(["low", "medium", "high"]),
        "kernel": Categorical(["rbf", "poly", True]),
        "degree": Integer(2, 5, when={"kernel": "poly"}),
    }
)
PRIOR = {
    "degree": Near(3, spread=1),
    "rate": Near(1e-3, factor=10),
    "width": Near(3, spread=1),
    "depth": Near(6, spread=2),
    "batch": Near(32, factor=2),
    "grade": Near("high", spread=1),
    "kernel": {"poly": 4, "rbf": 2},
}


def hill(x, y):
    return (x - 0.83) ** 2 + 2 * (y - 0.21) ** 2 + 0.02 * math.sin(40 * x) * math.sin(30 * y)


def steps(optimizer: Optimizer, n: int, f=hill) -> list[dict]:
    found = []
    for _ in range(n):
        trial = optimizer.ask()
        optimizer.tell(trial, f(**trial.params))
        found.append(trial.params)
    return found


def same_again(n, f=hill, **options) -> None:
    """A fresh optimizer on the same storage proposes the same bits."""
    first = Optimizer(PLANE, minimize="f", seed=4, **options)
    steps(first, n, f)
    first.ask()
    torch.manual_seed(0)
    with Optimizer.open(options["storage"]) as second:
        there = second.preview()
        assert second.settings == first.settings
    here = first.ask()
    assert here.params == there.params and here.origin == there.origin
    first.close()


# --------------------------------------------------------------------------------------
# Priors: what is described
# --------------------------------------------------------------------------------------


def test_a_prior_becomes_a_density_of_each_column():
    stored = prior_to_json(PRIOR, MIXED)
    assert list(stored) == list(MIXED.names)
    assert stored["kernel"] == {"weights": [2.0, 4.0, 1.0]}
    assert stored["rate"] == {"near": 1e-3, "factor": 10.0}
    columns = columns_of(stored, MIXED)
    assert columns[0] == pytest.approx(Bell(0.5, 0.25))
    assert columns[1] == pytest.approx(Bell(0.5, 0.1))
    assert columns[2] == pytest.approx(Bell(0.55, 0.2))
    assert columns[3] == pytest.approx(
        Bell(math.log(64) / math.log(2001), math.log(2) / math.log(2001)), rel=1e-3
    )
    assert columns[4] == pytest.approx(Bell(5 / 6, 1 / 3))
    assert columns[5] == [2.0, 4.0, 1.0]


def test_a_prior_is_largest_where_it_says():
    prior = log_prior(prior_to_json(PRIOR, MIXED), MIXED)
    best = {"rate": 1e-3, "width": 3.0, "depth": 6, "batch": 32, "grade": "high"}
    best |= {"kernel": "poly", "degree": 3}
    others = [
        best | {"rate": 1e-2},
        best | {"width": 4.0},
        best | {"depth": 7},
        best | {"batch": 64},
        best | {"grade": "medium"},
        best | {"degree": 4},
        {k: v for k, v in best.items() if k != "degree"} | {"kernel": "rbf"},
    ]
    X = torch.from_numpy(MIXED.encode_many([best, *others]))
    value = prior(X.unsqueeze(1))
    assert bool((value[0] > value[1:]).all())
    drop = float(value[0] - value[1])  # one standard deviation of a log parameter
    assert drop == pytest.approx(0.5)
    # A parameter that is not active has no say.
    gone = {k: v for k, v in best.items() if k != "degree"} | {"kernel": "rbf"}
    without = log_prior(
        prior_to_json({k: v for k, v in PRIOR.items() if k != "degree"}, MIXED), MIXED
    )
    row = torch.from_numpy(MIXED.encode(gone))[None, None]
    assert float(prior(row)) == pytest.approx(float(without(row)))


@pytest.mark.parametrize(
    ("prior", "error", "match"),
    [
        ([("rate", 1)], TypeError, "prior must be"),
        ({"rat": Near(1, factor=2)}, ValueError, "unknown parameter 'rat'.*'rate'"),
        ({"rate": Near(1e-3, spread=2)}, ValueError, "'rate': Near needs factor="),
        ({"rate": Near(1e-3)}, ValueError, "Near needs factor= here"),
        ({"rate": Near(1e-3, factor=1)}, ValueError, "above 1; got 1"),
        ({"rate": Near(5.0, factor=2)}, ValueError, "outside"),
        ({"width": Near(0, spread=-1)}, ValueError, "above 0"),
        ({"width": Near(0, spread=math.inf)}, ValueError, "finite"),
        ({"width": Near(0, factor=2)}, ValueError, "Near needs spread="),
        ({"depth": Near(6.5, spread=1)}, ValueError, "an integer"),
        ({"depth": {6: 2}}, TypeError, "a number takes Near"),
        ({"kernel": Near("rbf", spread=1)}, TypeError, "give {choice: weight}"),
        ({"kernel": {"sigmoid": 1}}, ValueError, "one of"),
        ({"kernel": {"rbf": 0}}, ValueError, "To rule a choice out"),
        ({"kernel": {}}, ValueError, "says nothing"),
        ({"kernel": "rbf"}, TypeError, "expected Near"),
    ],
)
def test_a_prior_that_makes_no_sense_is_refused(prior, error, match):
    with pytest.raises(error, match=match):
        Study(MIXED, minimize="f", prior=prior)


def test_another_prior_is_another_study(tmp_path):
    options = {"minimize": "f", "storage": tmp_path / "s.db", "seed": 0}
    Study(MIXED, prior=PRIOR, **options).close()
    Study(MIXED, **options).close()  # what is left out is as it was
    Study(MIXED, prior=PRIOR | {"kernel": {"poly": 4.0, "rbf": 2, True: 1}}, **options).close()
    with pytest.raises(StudyDiffers, match="prior: was"):
        Study(MIXED, prior=PRIOR | {"depth": Near(7, spread=2)}, **options)
    Study(MIXED, study="plain", **options).close()
    with pytest.raises(StudyDiffers, match="prior: was None"):
        Study(MIXED, study="plain", prior=PRIOR, **options)


@pytest.mark.parametrize("name", ["ucb", "mean", "thompson"])
def test_what_is_not_in_logs_takes_no_prior(name):
    with pytest.raises(ValueError, match="cannot take prior and cost into account"):
        Study(MIXED, minimize="f", prior=PRIOR, cost="seconds", acquisition=name)
    with pytest.raises(ValueError, match="cannot take prior into account"):
        Study(MIXED, minimize="f", prior=PRIOR, strategy="portfolio")


# --------------------------------------------------------------------------------------
# Priors: what they do
# --------------------------------------------------------------------------------------


def test_every_second_point_of_the_start_is_drawn_from_the_prior():
    optimizer = Optimizer(MIXED, minimize="f", prior=PRIOR, seed=0, n_start=40)
    trials = optimizer.ask(40)
    drawn = [t for t in trials if t.origin["point"] == "prior"]
    assert [t.number for t in drawn] == list(range(1, 40, 2))
    width = np.array([t.params["width"] for t in drawn])
    assert abs(width.mean() - 3) < 0.3 and 0.7 < width.std() < 1.3
    kernels = [t.params["kernel"] for t in drawn]
    assert kernels.count("poly") > kernels.count("rbf") > kernels.count(True)
    assert "what you believe of the optimum" in optimizer.explain(1)
    assert "Sobol" in optimizer.explain(2)
    fixed = optimizer.ask(fixed={"width": 7.0})
    assert fixed.params["width"] == 7.0


def test_the_start_of_a_prior_keeps_constraints_and_uses_a_finite_space_up():
    space = Space(PLANE, [Linear({"x": 1, "y": 1}, at_most=1)])
    prior = {"x": Near(0.9, spread=0.2)}
    optimizer = Optimizer(space, minimize="f", prior=prior, seed=0, n_start=12)
    assert all(t.params["x"] + t.params["y"] <= 1 + 1e-9 for t in optimizer.ask(12))
    small = {"n": Integer(0, 5)}
    optimizer = Optimizer(small, minimize="f", prior={"n": Near(5, spread=0.1)}, seed=0, n_start=9)
    assert sorted(t.params["n"] for t in optimizer.ask(6)) == [0, 1, 2, 3, 4, 5]


def reached(prior, seed, n=14, **options) -> list[float]:
    optimizer = Optimizer(
        PLANE, minimize="f", prior=prior, seed=seed, noise="none", n_start=5, **options
    )
    steps(optimizer, n)
    return np.minimum.accumulate([t.value for t in optimizer.trials]).tolist()


def test_a_prior_that_is_right_is_quicker_and_one_that_is_wrong_is_overcome():
    right = {"x": Near(0.83, spread=0.05), "y": Near(0.21, spread=0.05)}
    wrong = {"x": Near(0.1, spread=0.1), "y": Near(0.9, spread=0.1)}
    lowest = min(hill(x, y) for x, y in itertools.product(np.linspace(0, 1, 401), repeat=2))
    helped = [reached(right, seed, 8)[-1] - lowest for seed in range(3)]
    alone = [reached(None, seed, 8)[-1] - lowest for seed in range(3)]
    assert np.mean(helped) < 0.5 * np.mean(alone)
    for seed in range(2):
        assert reached(wrong, seed, 30, budget=30)[-1] - lowest < 0.01


def test_a_prior_fades_with_the_trials():
    assert [Guide(budget=b).beta for b in (None, 30, 100)] == [5.0, 3.0, 10.0]
    assert [Guide(budget=30).prior_exponent(n) for n in (0, 1, 4)] == [3.0, 3.0, 0.75]
    optimizer = Optimizer(PLANE, minimize="f", prior={"x": Near(0.1, spread=0.1)}, seed=0)
    steps(optimizer, 8)
    acquisition = optimizer.acquisition()
    assert acquisition.exponent == 5.0 / 8


def test_explain_tells_with_which_power_the_prior_counted():
    options = {"minimize": "f", "seed": 0, "n_start": 4, "prior": {"x": Near(0.1, spread=0.1)}}
    optimizer = Optimizer(PLANE, budget=20, **options)
    steps(optimizer, 5)
    optimizer.ask()  # running: it is not counted
    optimizer.tell(optimizer.ask(), failed="crashed")  # but this one is
    steps(optimizer, 1)
    assert "powers" not in optimizer.trials[3].origin
    assert [t.origin["powers"] for t in optimizer.trials[4:]] == [
        *({"prior": 2 / 4}, {"prior": 2 / 5}, {"prior": 2 / 5}, {"prior": 2 / 6})
    ]
    assert "\nYour prior counted with a power of 0.4.\n" in optimizer.explain(5)
    assert "power" not in optimizer.explain(3)
    plain = Optimizer(PLANE, minimize="f", seed=0, n_start=4)
    steps(plain, 5)
    assert "powers" not in plain.trials[4].origin
    assert "power" not in plain.explain(4)


def test_a_preview_of_what_takes_no_prior_tells_of_none():
    prior = {"x": Near(0.1, spread=0.1)}
    optimizer = Optimizer(PLANE, minimize="f", seed=0, n_start=4, prior=prior)
    steps(optimizer, 4)
    assert "powers" not in optimizer.preview(acquisition="ucb").origin
    assert optimizer.preview(acquisition="log_pi").origin["powers"] == {"prior": 1.25}


def test_a_resumed_search_with_a_prior_goes_on_the_same(tmp_path):
    prior = {"x": Near(0.7, spread=0.1), "y": Near(0.5, spread=0.2)}
    same_again(9, storage=tmp_path / "s.db", prior=prior, budget=20)
    same_again(2, storage=tmp_path / "start.db", prior=prior)


# --------------------------------------------------------------------------------------
# Cost
# --------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that only its user moves."""

    class Clock:
        now = 1e9

        def time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(study_module, "time", clock)
    monkeypatch.setattr(optimizer_module, "time", clock)
    return clock


def spend(optimizer: Optimizer, n: int, clock, seconds) -> float:
    """Run n trials that take as long as `seconds` says; returns how long all took."""
    total = 0.0
    for _ in range(n):
        trial = optimizer.ask()
        clock.now += (took := seconds(**trial.params))
        total += took
        x, y = trial.params["x"], trial.params["y"]
        optimizer.tell(trial, (y - 0.3) ** 2 + 0.1 * (x - 0.5) ** 2)
    return total


def seconds(x, y):
    return math.exp(6 * x)


def test_where_time_matters_less_of_it_is_spent(clock):
    spent, best = {}, {}
    for cost in (None, "seconds"):
        optimizer = Optimizer(PLANE, minimize="f", seed=0, cost=cost, budget=20)
        spent[cost], best[cost] = spend(optimizer, 16, clock, seconds), optimizer.best.value
    assert spent["seconds"] < 0.8 * spent[None]
    assert best["seconds"] < 0.01
    trial = optimizer.trials[-1]
    assert trial.origin["seconds"] == pytest.approx(trial.duration, rel=0.5)
    assert "It expected the trial to take" in optimizer.explain(trial)


def test_cost_counts_less_and_less_as_the_budget_is_spent():
    guide = Guide(budget=20)
    assert [guide.cost_exponent(n) for n in (0, 5, 20, 30)] == [1.0, 0.75, 0.0, 0.0]
    assert Guide().cost_exponent(7) == 0.5


def test_explain_tells_with_which_power_the_cost_counted(clock):
    prior = {"x": Near(0.5, spread=0.3)}
    options = {"seed": 0, "n_start": 4, "cost": "seconds", "budget": 16, "prior": prior}
    optimizer = Optimizer(PLANE, minimize="f", **options)
    spend(optimizer, 6, clock, seconds)
    last = optimizer.trials[5]
    assert last.origin["powers"] == {"prior": 1.6 / 5, "cost": 1 - 5 / 16}
    assert (
        "Your prior counted with a power of 0.32.\n"
        "The seconds it should take counted with a power of 0.69.\n"
    ) in optimizer.explain(last)
    acquisition = optimizer.acquisition()  # of the next trial
    assert acquisition.exponent == 1.6 / 6
    scale = optimizer.beliefs().cost.transform.inverse(np.array([1.0, 0.0]))
    assert acquisition.acquisition.exponent == pytest.approx((1 - 6 / 16) * (scale[0] - scale[1]))


def test_trials_that_took_no_time_or_failed_say_nothing_of_cost(clock):
    optimizer = Optimizer(PLANE, minimize="f", seed=0, cost="seconds", n_start=3)
    for x in (0.1, 0.5, 0.9, 0.7):
        optimizer.add_trial({"x": x, "y": x}, x)
    trial = optimizer.ask()  # no times are known: as if there were no cost
    assert "seconds" not in trial.origin and "powers" not in trial.origin
    clock.now += 3.0
    optimizer.tell(trial, failed="crashed")
    assert not len(optimizer.beliefs().cost.data.y)
    clock.now += 2.0
    trial = optimizer.ask()
    clock.now += 2.0
    optimizer.tell(trial, 0.2)
    assert optimizer.beliefs().cost.data.y == pytest.approx([math.log(2)])
    assert math.isfinite(optimizer.ask().origin["seconds"])


def test_a_resumed_search_that_minds_cost_goes_on_the_same(tmp_path, clock):
    def slow(x, y):
        clock.now += seconds(x, y)
        return hill(x, y)

    same_again(9, slow, storage=tmp_path / "s.db", cost="seconds", budget=20)


def test_cost_other_than_seconds_is_refused():
    with pytest.raises(ValueError, match=r"cost must be .*; got 'money'"):
        Study(PLANE, minimize="f", cost="money")


# --------------------------------------------------------------------------------------
# Parameters that vary in use
# --------------------------------------------------------------------------------------


def ridge(x, y):
    """A narrow deep minimum at x = 0.2, a wide shallow one at x = 0.7."""
    narrow = math.exp(-0.5 * ((x - 0.2) / 0.04) ** 2)
    wide = 0.8 * math.exp(-0.5 * ((x - 0.7) / 0.2) ** 2)
    return 1 - narrow - wide + 0.1 * (y - 0.5) ** 2


def under_variation(x, y, share=1.0) -> float:
    """What ridge is worth by quadrature; the mean over the worst share, beyond the bounds cut."""
    deltas = np.random.default_rng(0).normal(size=20_000) * 0.1
    values = np.sort([ridge(v, y) for v in (x + deltas).clip(0, 1)])[::-1]
    return float(values[: int(share * len(values))].mean())


def test_a_search_under_variation_prefers_what_is_good_around_too():
    plain = Optimizer(PLANE, minimize="f", seed=0, noise="none")
    robust = Optimizer(PLANE, minimize="f", seed=0, noise="none", perturbation={"x": 0.1})
    for optimizer in (plain, robust):
        for x in np.linspace(0.02, 0.98, 17):
            optimizer.add_trial({"x": x, "y": 0.5}, ridge(x, 0.5))
        steps(optimizer, 10, ridge)
    assert plain.recommend().params["x"] == pytest.approx(0.2, abs=0.03)
    found = robust.recommend()
    assert found.params["x"] == pytest.approx(0.7, abs=0.1)
    assert found.value == pytest.approx(under_variation(**found.params), abs=0.03)
    assert robust.trials[-1].origin["acquisition"] == "robust"
    assert "parameters will vary in use" in robust.explain(26)
    assert robust.acquisition()(torch.tensor([[[0.7, 0.5]]]).double()).isfinite().all()


def test_risk_looks_at_the_worst_of_the_variation():
    options = {"minimize": "f", "seed": 0, "noise": "none", "perturbation": {"x": 0.1}}
    optimizer = Optimizer(PLANE, risk=0.9, **options)
    for x in np.linspace(0.02, 0.98, 17):
        optimizer.add_trial({"x": x, "y": 0.5}, ridge(x, 0.5))
    steps(optimizer, 3, ridge)
    found = optimizer.recommend()
    assert found.params["x"] == pytest.approx(0.7, abs=0.1)
    assert found.value == pytest.approx(under_variation(**found.params, share=0.1), abs=0.06)
    assert found.value > 0.1 + under_variation(**found.params)


@pytest.mark.parametrize("risk", [None, 0.8])
def test_a_resumed_search_under_variation_goes_on_the_same(risk, tmp_path):
    same_again(8, storage=tmp_path / "s.db", perturbation={"x": 0.05}, risk=risk, n_start=6)


def test_variation_is_that_of_the_columns_and_exact_in_its_moments():
    space = Space({"x": Real(-5, 5), "y": Real(0, 1), "k": Categorical(["a", "b"])})
    assert stds_of({"x": 2.0}, space) == [0.2, 0.0, 0.0]
    guide = Guide.of({"perturbation": {"x": 2.0}, "risk": 0.9}, space)
    deltas = guide.deltas(torch.Generator().manual_seed(0))
    assert guide.level == pytest.approx(0.1) and deltas.shape == (32, 3)
    assert torch.allclose(deltas.mean(0), torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(deltas.square().mean(0).sqrt(), torch.tensor([0.2, 0, 0]).double())


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"perturbation": {"z": 1}}, ValueError, "unknown parameter 'z'"),
        ({"perturbation": {}}, TypeError, "must be {parameter: standard deviation}"),
        ({"perturbation": {"width": 0}}, ValueError, "positive and finite; got 0"),
        ({"perturbation": {"width": "1"}}, TypeError, "must be a number"),
        ({"perturbation": {"rate": 0.1}}, ValueError, "only a Real can vary"),
        ({"perturbation": {"depth": 1}}, ValueError, "only a Real can vary"),
        ({"perturbation": {"width": 1}, "constraints": "c"}, ValueError, "one objective and no"),
        ({"perturbation": {"width": 1}, "risk": 1.0}, ValueError, "between 0 and 1"),
        ({"perturbation": {"width": 1}, "risk": "worst"}, ValueError, "risk must be"),
        ({"risk": 0.9}, ValueError, "give perturbation="),
        ({"perturbation": {"width": 1}, "acquisition": "log_ei"}, ValueError, '"robust"'),
    ],
)
def test_variation_that_makes_no_sense_is_refused(options, error, match):
    with pytest.raises(error, match=match):
        Study(MIXED, minimize="f", **options)
