"""Facts about which acquisition is taken, and what is put around it: integrals by scipy."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from bbmmopt.acquisition import (
    Feasible,
    JointEntropySearch,
    KnowledgeGradient,
    Log,
    LogPrior,
    LogScalarisedImprovement,
    PerCost,
    PriorGuided,
)
from bbmmopt.acquisition.base import Acquisition, elementwise
from bbmmopt.acquisition.scalarised import (
    log_scalarised_improvement,
    random_directions,
    scalarise,
)
from bbmmopt.acquisition.weighted import Levels, Normal
from bbmmopt.modelling import Beliefs, Data, Known, Modellers
from bbmmopt.space import Categorical, Linear, Real, Space
from bbmmopt.strategies import Guide, acquisition_for, make_acquisition
from bbmmopt.strategies.base import Request
from bbmmopt.strategies.rules import choose

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})
NOTHING = np.empty((0, 2))
ACTIVE = ("variance", "integrated_variance")
INFORMED = ("max_value_entropy", "joint_entropy", "knowledge_gradient")


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def told(f, n=14, *, exact=True, noise=0.0, pending=NOTHING, bound=None, warp=True) -> Data:
    rng = np.random.default_rng(0)
    X = rng.random((n, 2))
    y = f(X) + noise * rng.standard_normal(n)
    return Data(X, y, np.full(n, np.nan), pending, NOTHING, exact, bound, warp)


def hill(X):
    return -((X - 0.3) ** 2).sum(1)


def beliefs(*objectives: Data, **options) -> Beliefs:
    return Modellers(PLANE).beliefs(Known(objectives, **options))


def many(k: int) -> Beliefs:
    tops = np.random.default_rng(1).random((k, 2))
    return beliefs(*(told(lambda X, t=t: -((X - t) ** 2).sum(1), warp=False) for t in tops))


# --------------------------------------------------------------------------------------
# The table of rules
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "guide", "name"),
    [
        (lambda: beliefs(told(hill)), Guide(), "log_ei"),
        (lambda: beliefs(told(hill, exact=False, noise=0.1)), Guide(), "noisy_log_ei"),
        (lambda: beliefs(told(hill, pending=np.full((1, 2), 0.5))), Guide(), "noisy_log_ei"),
        (lambda: many(2), Guide(), "log_ehvi"),
        (lambda: many(3), Guide(), "log_ehvi"),
        (lambda: many(4), Guide(), "scalarised"),
        (lambda: beliefs(told(hill)), Guide(perturbation=tensor(0.1, 0.0)), "robust"),
        (
            lambda: beliefs(told(hill), constraints=(told(lambda X: -X[:, 0], bound=1.0),)),
            Guide(),
            "feasibility",
        ),
    ],
)
def test_auto_goes_by_the_problem_and_the_data(known, guide, name):
    known = known()
    assert choose(known, guide)[0] == name
    auto, named = (make_acquisition(n, known, guide=guide) for n in ("auto", name))
    X = torch.rand(5, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(auto(X), named(X))


@pytest.mark.parametrize("name", [*INFORMED, *ACTIVE])
@pytest.mark.parametrize(
    "space",
    [PLANE, Space({"x": Real(0, 1), "y": Real(0, 1)}, [Linear({"x": 1, "y": 1}, at_most=1)])],
)
def test_what_is_asked_for_by_name_is_built_with_gradients(name, space):
    known = beliefs(told(hill, exact=False, noise=0.05, pending=np.array([[0.5, 0.5]])))
    made = [make_acquisition(name, known, seed=3, space=space) for _ in range(2)]
    X = torch.rand(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(made[0](X.unsqueeze(1)), made[1](X.unsqueeze(1)))
    value, gradient = made[0].value_and_gradient(X)
    assert torch.allclose(value, made[0](X.unsqueeze(1)), atol=1e-9)
    for j in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[j] = 1e-5
        up, down = (made[0]((X + s * step).unsqueeze(1)) for s in (1, -1))
        assert torch.allclose(gradient[:, j], (up - down) / 2e-5, rtol=1e-3, atol=1e-3)


def test_what_learns_f_goes_where_it_is_uncertain_and_what_looks_for_the_top_does_not():
    known = beliefs(told(hill, exact=False, noise=0.02))
    X = torch.rand(400, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        _, std = known.first.posterior.marginals(X[:, 0])
        for name in ACTIVE:
            best = int(make_acquisition(name, known)(X).argmax())
            assert std[best] >= std.median()
        for name in INFORMED:
            best = int(make_acquisition(name, known)(X).argmax())
            assert float((X[best, 0] - 0.3).norm()) < 0.4


@pytest.mark.parametrize(
    ("name", "known", "match"),
    [
        ("log_ehvi", lambda: beliefs(told(hill)), "does not suit 1 objective"),
        ("scalarised", lambda: beliefs(told(hill)), "take 'log_ei'"),
        ("log_ehvi", lambda: many(4), "take 'scalarised'"),
        ("variance", lambda: many(2), "take 'log_ehvi'"),
        ("robust", lambda: beliefs(told(hill)), "needs a perturbation"),
        *(
            (name, lambda: beliefs(told(hill), constraints=(told(hill, bound=0.0),)), "knows no")
            for name in (*INFORMED, *ACTIVE)
        ),
    ],
)
def test_what_does_not_suit_the_problem_is_refused(name, known, match):
    with pytest.raises(ValueError, match=match):
        make_acquisition(name, known())


def test_improvement_alone_ignores_variation_and_says_so():
    guide = Guide(perturbation=tensor(0.1, 0.1))
    with pytest.raises(ValueError, match='take "robust"'):
        make_acquisition("log_ei", beliefs(told(hill)), guide=guide)


def test_weights_are_put_around_what_is_in_logs_alone():
    labels = told(lambda X: np.where(X[:, 0] > 0.8, -1.0, 1.0), exact=False, bound=0.0, warp=False)
    seconds = told(lambda X: 3 + 2 * X[:, 0], exact=False, warp=False)
    known = beliefs(told(hill), success=labels, cost=seconds)
    guide = Guide(LogPrior({0: Normal(0.2, 0.1)}), budget=28)
    whole = make_acquisition("log_ei", known, guide=guide)
    assert isinstance(whole, PriorGuided) and whole.exponent == pytest.approx(2.8 / 14)
    assert isinstance(whole.acquisition, PerCost)
    # Half of the budget is spent: log seconds, not model units, count by a half.
    slope = whole.acquisition.exponent * float(
        np.diff(whole.acquisition.cost.marginals(tensor([0.2, 0.5], [0.7, 0.5]))[0].detach())[0]
    )
    assert slope == pytest.approx(0.5 * 1.0, abs=0.05)
    assert isinstance(whole.acquisition.acquisition, Feasible)
    for name in ("mean", "ucb", "thompson"):
        assert not isinstance(make_acquisition(name, known, guide=guide), PriorGuided)


def test_a_direction_is_drawn_for_each_trial():
    known = many(4)
    requests = [Request(known.first.data, number, 7) for number in (3, 3, 4)]
    a, b, c = (acquisition_for("scalarised", known, r, PLANE) for r in requests)
    assert isinstance(a, LogScalarisedImprovement)
    assert torch.equal(a.weights, b.weights) and not torch.equal(a.weights, c.weights)


def test_the_points_that_stand_for_a_space_are_points_of_it():
    space = Space({"kind": Categorical(["a", "b", "c"]), "z": Real(0, 1, when={"kind": "a"})})
    rows = np.random.default_rng(0).random((12, 2))
    X = space.snap(rows)
    data = Data(X, X.sum(1), np.full(12, np.nan), NOTHING, NOTHING, exact=True)
    known = Modellers(space).beliefs(Known((data,)))
    joint = make_acquisition("joint_entropy", known, space=space)
    gradient = make_acquisition("knowledge_gradient", known, space=space)
    assert isinstance(joint, JointEntropySearch) and isinstance(gradient, KnowledgeGradient)
    for points in (joint.optima, gradient.points):
        assert np.allclose(space.snap(points.numpy())[:, 0], points[:, 0].numpy())


# --------------------------------------------------------------------------------------
# Improvement along a direction
# --------------------------------------------------------------------------------------


def by_quad(mean, std, reference, weights, best) -> float:
    """log E[(s - b)+], normalised by its integrand at b."""
    c, width = (mean - reference) / weights, std / weights

    def log_integrand(t):
        return special.log_ndtr((c - t) / width).sum()

    at_best, end = log_integrand(best), 1e-9
    while log_integrand(best + end) > at_best - 40:
        end *= 1.3
    edges = [c + q * width - best for q in (-6, -3, -1, 0, 1, 3)]
    cuts = np.concatenate([np.linspace(0, end, 40), end * 0.5 ** np.arange(5, 20), *edges])
    cuts = np.unique(cuts.clip(0, end))
    pieces = [
        integrate.quad(lambda u: math.exp(log_integrand(best + u) - at_best), a, b, epsrel=1e-12)[0]
        for a, b in itertools.pairwise(cuts)
    ]
    return at_best + math.log(math.fsum(pieces))


@pytest.mark.parametrize("spread", ["alike", "different", "far"])
def test_improvement_along_a_direction_is_the_integral(spread):
    rng = np.random.default_rng(3)
    for k in (1, 2, 4, 5, 7):
        for _ in range(4):
            mean = rng.normal(size=k) * {"alike": 1, "different": 3, "far": 20}[spread]
            std = (
                10 ** rng.uniform(-2.5, 0.5, k) if spread == "different" else rng.uniform(0.2, 2, k)
            )
            reference, best = rng.normal(size=k) - 2, float(rng.normal())
            weights = np.abs(rng.normal(size=k))
            weights /= np.linalg.norm(weights)
            value, _, _ = log_scalarised_improvement(
                *(torch.from_numpy(a).unsqueeze(-1) for a in (mean, std)),
                torch.from_numpy(reference),
                torch.from_numpy(weights),
                tensor(best),
            )
            expected = by_quad(mean, std, reference, weights, best)
            assert abs(math.expm1(float(value) - expected)) < 1e-6


def test_improvement_along_a_direction_has_the_gradient_it_says():
    draws = torch.Generator().manual_seed(0)
    mean = torch.randn(4, 2, 3, generator=draws, dtype=torch.float64)
    std = 0.3 + torch.rand(4, 2, 3, generator=draws, dtype=torch.float64)
    (weights,) = random_directions(4, 1, draws)

    def improvement(mean, std):
        reference, best = tensor(-1.0, -1.0, -1.0, -1.0), torch.full((2, 3), 0.2).double()
        return elementwise(
            lambda m, s: log_scalarised_improvement(m, s, reference, weights, best), mean, std
        )

    leaves = (mean.requires_grad_(), std.requires_grad_())
    assert torch.autograd.gradcheck(improvement, leaves)


def test_improvement_along_a_direction_is_that_of_samples():
    draws = torch.Generator().manual_seed(2)
    mean, std, (weights,) = (
        tensor(0.1, -0.2, 0.3),
        tensor(0.5, 1.0, 0.2),
        random_directions(3, 1, draws),
    )
    f = mean + std * torch.randn(200_000, 3, generator=draws, dtype=torch.float64)
    gain = (scalarise(f, tensor(-1.0, -1.0, -1.0), weights) - 0.4).clamp_min(0)
    value, _, _ = log_scalarised_improvement(
        mean[:, None], std[:, None], tensor(-1.0, -1.0, -1.0), weights, tensor(0.4)
    )
    assert math.exp(float(value)) == pytest.approx(float(gain.mean()), rel=0.02)


def test_far_out_in_the_tail_improvement_still_has_a_slope():
    mean = torch.full((5, 1), -1e4, dtype=torch.float64)
    ones = torch.ones(5, 1, dtype=torch.float64)
    value, by_mean, by_std = log_scalarised_improvement(
        mean, ones, torch.zeros(5).double(), torch.full((5,), 5**-0.5).double(), tensor(1.0)
    )
    assert float(value) < -1e8 and bool((by_mean > 0).all()) and bool((by_std > 0).all())


# --------------------------------------------------------------------------------------
# What belongs to weights
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [Normal(0.2, 0.3), Normal(1.0, 0.05), Levels([3.0, 1.0, 0.5])])
def test_quantiles_undo_the_shares_of_a_density(density):
    u = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    for share, x in zip(u.tolist(), density.quantile(u).tolist(), strict=True):
        grid = torch.linspace(0, x, 20_001, dtype=torch.float64)
        middle = 0.5 * (grid[1:] + grid[:-1])
        assert float(density.log(middle)[0].exp().mean() * x) == pytest.approx(share, abs=1e-4)
    assert bool((density.quantile(tensor(0.0, 1.0)) == tensor(0.0, 1.0)).all())


def test_the_quantiles_of_a_cut_normal_are_those_of_scipy():
    u = np.linspace(0.05, 0.95, 10)
    expected = stats.truncnorm.ppf(u, -0.25 / 0.2, 0.75 / 0.2, 0.25, 0.2)
    assert np.allclose(Normal(0.25, 0.2).quantile(torch.from_numpy(u)).numpy(), expected)


def test_a_prior_leaves_out_what_is_not_active():
    space = Space({"kind": Categorical(["a", "b"]), "z": Real(0, 1, when={"kind": "a"})})
    prior = LogPrior(
        {1: Normal(0.1, 0.1)}, lambda X: torch.from_numpy(space.active(X.detach().numpy()))
    )
    X = tensor([0.25, 0.1], [0.75, 0.5])
    value, gradient = prior.value_and_gradient(X)
    assert value[0] > 1 and value[1] == 0 and bool((gradient[1] == 0).all())
    assert torch.equal(prior(X.unsqueeze(1)), value)


class Square(Acquisition):
    def __call__(self, X):
        return X.squeeze(-2).square().sum(-1)


def test_a_log_is_the_log_with_its_gradient_and_finite_at_nothing():
    X = tensor([0.3, 0.4], [1.0, 2.0])
    value, gradient = Log(Square()).value_and_gradient(X)
    assert torch.allclose(value, tensor(math.log(0.25), math.log(5.0)))
    assert torch.allclose(gradient, 2 * X / tensor(0.25, 5.0).unsqueeze(-1))
    assert torch.isfinite(Log(Square())(torch.zeros(1, 1, 2).double())).all()
