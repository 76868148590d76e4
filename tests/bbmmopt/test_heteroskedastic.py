"""Facts about noise whose size depends on the parameters: found where it is, used at candidates."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import bbmmopt.modelling.modeller as modeller_module
from bbmmopt import Optimizer
from bbmmopt.acquisition import (
    IntegratedVariance,
    JointEntropySearch,
    KnowledgeGradient,
    LowerBoundMaxValueEntropySearch,
)
from bbmmopt.modelling import Belief, Beliefs, Data, Modeller
from bbmmopt.modelling.heteroskedastic import with_varying_noise
from bbmmopt.modelling.model import ROUGH, fitted, loo_densities, make_model
from bbmmopt.space import Categorical, Real, Space
from bbmmopt.strategies.rules import make_acquisition
from bbmmopt.transforms import Standardise
from surrogate import ExactGP, Matern52

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})
LEAST, MOST = 0.05, 0.5  # standard deviations of the noise at x = 0 and at x = 1


def f(X: np.ndarray) -> np.ndarray:
    return np.sin(5 * X[:, 0]) + X[:, 1] ** 2


def deviation(X: np.ndarray) -> np.ndarray:
    return LEAST * (MOST / LEAST) ** X[:, 0]


def made(n: int, *, seed: int = 0, even: bool = False, space: Space = PLANE) -> Data:
    rng = np.random.default_rng(seed)
    X = space.snap(rng.random((n, len(space))))
    std = np.full(n, 0.25) if even else deviation(X)
    y = f(X) + std * rng.standard_normal(n)
    return Data(X, y, np.full(n, np.nan), X[:0], X[:0], exact=False, warp=False)


@pytest.fixture(scope="module")
def belief() -> Belief:
    return Modeller(PLANE).belief(made(120))


def unit_of(belief: Belief) -> float:
    """One model unit in the units of y."""
    return float(np.subtract(*belief.transform.inverse(np.array([1.0, 0.0]))))


def points(m: int, seed: int = 0, d: int = 2) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(m, d, generator=rng, dtype=torch.float64)


# --------------------------------------------------------------------------------------
# Found where it is
# --------------------------------------------------------------------------------------


def test_noise_ten_times_as_large_at_one_end_is_found_there(belief):
    assert belief.noise_varies
    ends = torch.tensor([[0.0, 0.5], [1.0, 0.5]], dtype=torch.float64)
    low, high = (unit_of(belief) * belief.noise_at(ends).sqrt()).tolist()
    assert LEAST / 1.7 < low < LEAST * 1.7
    assert MOST / 1.7 < high < MOST * 1.7


def test_even_noise_is_mostly_left_even():
    seeds = range(10)
    found = [Modeller(PLANE).belief(made(64, seed=s, even=True)).noise_varies for s in seeds]
    assert sum(found) <= 2


def plainly(monkeypatch, data: Data) -> Belief:
    """The belief with the same noise everywhere."""
    monkeypatch.setattr(modeller_module, "with_varying_noise", lambda model, *_: model)
    return Modeller(PLANE).belief(data)


def test_new_values_are_predicted_better_than_with_even_noise(belief, monkeypatch):
    plain = plainly(monkeypatch, belief.data)
    assert not plain.noise_varies
    X = points(2000, seed=5)
    rng = np.random.default_rng(1)
    y = f(X.numpy()) + deviation(X.numpy()) * rng.standard_normal(len(X))
    density, inside = [], []
    left = X[:, 0] < 0.5
    for which in (belief, plain):
        mean, std = which.posterior.predictive(X)
        z = (torch.from_numpy(which.transform.forward(y)) - mean) / std
        density.append(float((-0.5 * z.square() - (std * unit_of(which)).log()).mean()))
        inside.append([float((z[part].abs() < 1.645).double().mean()) for part in (left, ~left)])
    assert density[0] > density[1] + 0.2
    (a, b), (c, d) = inside  # shares of the values in bands that should hold 90 %
    assert max(abs(a - 0.9), abs(b - 0.9)) < 0.06
    assert max(abs(c - 0.9), abs(d - 0.9)) > 0.08


def test_it_is_kept_only_where_values_left_out_are_better_predicted():
    data = made(64, even=True)
    transform = Standardise.of(data.y)
    model = fitted(make_model(PLANE, exact=False), data, transform, ROUGH, never)
    varied = made(64)
    scale = Standardise.of(varied.y)
    start = fitted(make_model(PLANE, exact=False), varied, scale, ROUGH, never)
    other = with_varying_noise(start, PLANE, varied, scale, never)
    gain = loo_densities(other, varied, scale) - loo_densities(start, varied, scale)
    assert gain.sum() > 4 + math.sqrt(64) * gain.std()
    assert with_varying_noise(model, PLANE, data, transform, never) is model
    assert with_varying_noise(start, PLANE, varied, scale, lambda: True) is start


def never() -> bool:
    return False


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.rows(slice(39)),
        lambda data: replace(data, errors=deviation(data.X)),
        lambda data: replace(data, exact=True),
        lambda data: replace(data, y=f(data.X) + 1e-4 * data.y),
    ],
    ids=["few", "given", "exact", "small"],
)
def test_nothing_is_tried_where_nothing_can_be_learnt_of_the_noise(change):
    assert not Modeller(PLANE).belief(change(made(120))).noise_varies


def test_noise_does_not_depend_on_categories_or_on_what_is_fixed():
    space = Space(
        {
            "x": Real(0, 1),
            "y": Real(0, 1),
            "k": Categorical(["a", "b", "c"]),
            "z": Real(2, 2),
        }
    )
    belief = Modeller(space).belief(made(120, space=space))
    assert belief.noise_varies
    X = torch.from_numpy(space.snap(np.random.default_rng(0).random((9, 4))))
    other = X.clone()
    other[:, 2:] = X[:, 2:].roll(1, 0)
    assert not torch.equal(X, other)
    assert torch.equal(belief.noise_at(X), belief.noise_at(other))
    only = Space({"k": Categorical(["a", "b", "c"])})
    data = replace(made(120), X=only.snap(np.random.default_rng(0).random((120, 1))))
    data = replace(data, pending=data.X[:0], failed=data.X[:0])
    assert not Modeller(only).belief(data).noise_varies


# --------------------------------------------------------------------------------------
# A function of the data alone
# --------------------------------------------------------------------------------------


def bits(belief: Belief) -> list[bytes]:
    X = points(20, seed=9)
    parts = [*belief.posterior.marginals(X), *belief.fantasised.marginals(X), belief.noise_at(X)]
    return [part.detach().numpy().tobytes() for part in parts]


def test_the_belief_does_not_depend_on_what_the_modeller_saw_before():
    whole = made(76)
    stages = [whole.rows(slice(n)) for n in (30, 39, 47, 60, 75, 76)]
    fresh = [Modeller(PLANE).belief(data) for data in stages]
    assert [b.noise_varies for b in fresh][:2] == [False, False] and fresh[-1].noise_varies
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 2]):
        modeller = Modeller(PLANE)
        for i in order:
            assert bits(modeller.belief(stages[i])) == bits(fresh[i])


def study(storage=None) -> Optimizer:
    return Optimizer(PLANE, minimize="f", noise="noisy", seed=3, storage=storage, n_start=60)


def tell(optimizer: Optimizer, count: int) -> list[dict]:
    """What was asked; the noise is a function of the trial's number."""
    asked = []
    for _ in range(count):
        trial = optimizer.ask()
        asked.append(trial.params)
        rng = np.random.default_rng(trial.number)
        row = np.array([[trial.params["x"], trial.params["y"]]])
        value = f(row)[0] + deviation(row)[0] * rng.standard_normal()
        optimizer.tell(trial, float(value))
    return asked


def test_a_resumed_study_goes_on_as_an_uninterrupted_one(tmp_path):
    path = str(tmp_path / "study.db")
    whole = tell(study(), 63)
    begun = tell(study(path), 61)
    optimizer = study(path)
    assert begun + tell(optimizer, 2) == whole
    assert optimizer.beliefs().first.noise_varies


def test_explain_says_between_which_sizes_the_noise_was():
    optimizer = study()
    tell(optimizer, 60)
    trial = optimizer.ask()
    belief = optimizer.beliefs().first
    assert belief.noise_varies
    told = trial.origin["model"]
    at_trials = belief.noise_at(torch.from_numpy(belief.data.X))
    least, most = float(at_trials.min()), float(at_trials.max())
    assert told["noise_variance_range"] == pytest.approx([least, most])
    assert told["noise_variance"] == pytest.approx(float(at_trials.mean()))
    assert (
        f"noise variance {float(at_trials.mean()):.2g} of the targets' variance on average; it "
        f"depends on the parameters, and was between {least:.2g} and {most:.2g} at the trials."
    ) in optimizer.explain(trial)


def test_of_even_noise_explain_says_nothing_new():
    optimizer = Optimizer(PLANE, minimize="f", noise="noisy", seed=0, n_start=5)
    tell(optimizer, 6)
    trial = optimizer.ask()
    assert "noise_variance_range" not in trial.origin["model"]
    assert "depends on the parameters" not in optimizer.explain(trial)


# --------------------------------------------------------------------------------------
# Used where it is
# --------------------------------------------------------------------------------------


def test_every_row_of_the_covariance_has_the_noise_of_its_place(belief):
    data = replace(belief.data, pending=points(3, seed=4).numpy())
    told = Modeller(PLANE).belief(data)
    at_trials = told.noise_at(torch.from_numpy(data.X))
    assert torch.equal(told.posterior.noise_variances(), at_trials)
    assert told.noise == pytest.approx(float(at_trials.mean()))
    assert told.is_noisy(0.9 * told.noise) and not told.is_noisy(1.1 * told.noise)
    # By dense algebra: what a running trial takes off the variance at its place.
    X = torch.from_numpy(data.pending)
    before = told.posterior.joint(X)[1]
    noise = told.noise_at(X).diag()
    after = before - before @ torch.linalg.solve(before + noise, before)
    _, std = told.fantasised.marginals(X)
    torch.testing.assert_close(std.square(), after.diagonal(), rtol=1e-6, atol=1e-9)


def smooth(X: torch.Tensor) -> torch.Tensor:
    """A variance of noise that depends on x, 0.01 to 0.3."""
    return 0.01 * (3.4 * X[..., 0]).exp() * (1 + 0.2 * X[..., 1])


KINDS = {
    "integrated": lambda p, noise: IntegratedVariance(p, points(9, 2), noise),
    "gradient": lambda p, noise: KnowledgeGradient(p, points(9, 2), noise),
    "joint": lambda p, noise: JointEntropySearch(p, points(4, 3), maxima(), noise),
    "bound": lambda p, noise: LowerBoundMaxValueEntropySearch(p, maxima(), noise),
}


def maxima() -> torch.Tensor:
    return torch.tensor([1.2, 1.6, 2.0, 2.4], dtype=torch.float64)


@pytest.fixture
def posterior():
    X = points(9)
    model = ExactGP(Matern52(2, lengthscale=0.5), noise=1e-2)
    return model.condition(X, torch.sin(5 * X).sum(-1))


@pytest.mark.parametrize("kind", KINDS)
def test_law_a_candidate_is_scored_with_the_noise_of_its_place(kind, posterior):
    X = points(6, 1)
    received = KINDS[kind](posterior, smooth)(X.unsqueeze(-2))
    expected = [KINDS[kind](posterior, float(smooth(x)))(x[None]) for x in X]
    torch.testing.assert_close(received, torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [*KINDS, "pending"])
def test_law_the_gradient_knows_that_the_noise_changes(kind, posterior):
    if kind == "pending":
        acquisition = LowerBoundMaxValueEntropySearch(posterior, maxima(), smooth, points(2, 7))
    else:
        acquisition = KINDS[kind](posterior, smooth)
    X = points(6, 1)
    value, gradient = acquisition.value_and_gradient(X)
    torch.testing.assert_close(value, acquisition(X.unsqueeze(-2)), rtol=1e-12, atol=1e-12)
    for j in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[j] = 1e-6
        slope = (acquisition((X + step)[:, None]) - acquisition((X - step)[:, None])) / 2e-6
        torch.testing.assert_close(gradient[:, j], slope, rtol=1e-5, atol=1e-7)
    assert torch.autograd.gradcheck(acquisition, X.unsqueeze(-2).requires_grad_(True))


def test_law_groups_have_the_noise_of_each_of_their_points(posterior):
    pair = points(2, 1)
    group = LowerBoundMaxValueEntropySearch(posterior, maxima(), smooth)(pair)
    # One point after the other: the first pending, its own value included.
    after = LowerBoundMaxValueEntropySearch(posterior, maxima(), smooth, pair[:1])(pair[1:])
    torch.testing.assert_close(group, after, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "name", ["knowledge_gradient", "joint_entropy", "integrated_variance", "max_value_entropy"]
)
def test_rules_hand_over_the_noise_as_a_function(name, belief):
    acquisition = make_acquisition(name, Beliefs((belief,)), space=PLANE)
    inner: Any = getattr(acquisition, "acquisition", acquisition)
    X = points(5)
    least = 1e-4 if name == "joint_entropy" else 0.0
    torch.testing.assert_close(inner.noise(X), belief.noise_at(X).clamp_min(least))
    value, gradient = acquisition.value_and_gradient(X)
    assert value.isfinite().all() and gradient.isfinite().all()
