"""How much is left to gain, against brute force over the space and over draws."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from oracles import uniform

from bbmmopt import Integer, Optimizer, Real
from bbmmopt.acquisition import ExpectedGain
from tests.bbmmopt.acquisitions import gp
from tests.bbmmopt.loops import branin, plane, run


def expected_gain(optimizer: Optimizer, X: np.ndarray) -> np.ndarray:
    """E[max(f - best, 0)] at rows of the unit cube, in the user's units: by 300 quantiles."""
    belief = optimizer.belief()
    posterior = belief.posterior
    exact = belief.data.exact
    best = float((posterior.y if exact else posterior.fitted()).max())
    with torch.no_grad():
        mean, std = posterior.marginals(torch.from_numpy(X))
    z = torch.special.ndtri((torch.arange(300, dtype=torch.float64) + 0.5) / 300)
    f = belief.transform.inverse((mean.unsqueeze(-1) + std.unsqueeze(-1) * z).numpy())
    return np.maximum(f - belief.transform.inverse(np.array([best])), 0.0).mean(-1)


def told(n: int, f: Any = branin, **options: Any) -> Optimizer:
    optimizer = plane(seed=1, **options)
    rng = np.random.default_rng(0)
    for x, y in rng.uniform(size=(n, 2)):
        params = {"x": 15 * x - 5, "y": 15 * y}
        optimizer.add_trial(params, f(**params))
    return optimizer


@pytest.mark.parametrize("noise", ["none", "unknown"])
@pytest.mark.parametrize("warped", [False, True])
def test_it_is_the_largest_expected_gain_anywhere_in_the_users_units(
    noise: str, warped: bool
) -> None:
    # What is far from normal is modelled in warped units.
    f = (lambda x, y: math.exp(0.02 * branin(x, y))) if warped else (lambda x, y: 10 * x + y)
    optimizer = told(20, f, noise=noise)
    assert (type(optimizer.belief().transform).__name__ == "YeoJohnson") is warped
    grid = np.linspace(0.0, 1.0, 80)
    X = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    expected = expected_gain(optimizer, X).max()
    left = optimizer.remaining_improvement()
    assert expected * 0.98 <= left <= expected * 1.1  # the grid misses the very top


def test_units_and_direction_are_the_users() -> None:
    low = told(15).remaining_improvement()
    assert told(15, lambda x, y: 1000 * branin(x, y)).remaining_improvement() == pytest.approx(
        1000 * low, rel=1e-3
    )
    high = Optimizer({"x": Real(-5, 10), "y": Real(0, 15)}, maximize="f", seed=1)
    for trial in told(15).trials:
        high.add_trial(trial.params, -branin(**trial.params))
    assert high.remaining_improvement() == pytest.approx(low, rel=1e-6)


def test_it_shrinks_as_the_optimum_is_found() -> None:
    optimizer = plane(seed=0, noise="none")
    run(optimizer, 10)
    before = optimizer.remaining_improvement()
    run(optimizer, 20)
    assert optimizer.remaining_improvement() < 0.05 * before
    assert optimizer.best.value is not None


def test_what_is_running_does_not_count_yet_and_nothing_is_stored() -> None:
    optimizer = told(15)
    before = optimizer.remaining_improvement()
    optimizer.ask()
    assert optimizer.remaining_improvement() == pytest.approx(before, rel=1e-6)
    assert len(optimizer.trials) == 16


def test_what_constraints_forbid_is_not_left_to_gain() -> None:
    free, bound = told(20), plane(seed=1, constraints="c")
    rng = np.random.default_rng(0)
    for x, y in rng.uniform(size=(20, 2)):
        params = {"x": 15 * x - 5, "y": 15 * y}
        bound.add_trial(params, branin(**params), constraints={"c": -1.0})
    assert bound.remaining_improvement() == pytest.approx(free.remaining_improvement(), rel=0.05)
    nowhere = plane(seed=1, constraints="c")
    nowhere.add_trial({"x": 0.0, "y": 0.0}, 1.0, constraints={"c": 1.0})
    assert nowhere.remaining_improvement() == math.inf
    assert plane().remaining_improvement() == math.inf


def test_nothing_is_left_where_everything_was_tried() -> None:
    optimizer = Optimizer({"k": Integer(0, 3)}, minimize="f", noise="none", seed=0)
    for k in range(4):
        optimizer.add_trial({"k": k}, float(k))
    assert optimizer.remaining_improvement() == 0.0


def test_it_is_for_one_objective_without_perturbation() -> None:
    two = Optimizer({"x": Real(0, 1)}, minimize=["a", "b"])
    with pytest.raises(ValueError, match="several objectives"):
        two.remaining_improvement()
    varied = Optimizer({"x": Real(0, 1)}, minimize="a", perturbation={"x": 0.1})
    with pytest.raises(ValueError, match="perturbation"):
        varied.remaining_improvement()


def test_the_gain_of_a_function_in_pieces_is_its_mean_over_draws_and_has_a_slope() -> None:
    posterior, X = gp(0), uniform(torch.Generator().manual_seed(1), 5, 3)
    knots, slopes = torch.tensor([0.1, 0.3, 0.9]).double(), torch.tensor([2.0, 0.5, 3.0]).double()
    gain = ExpectedGain(posterior, knots, slopes)
    mean, std = posterior.marginals(X)
    z = torch.special.ndtri((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    f = (mean.unsqueeze(-1) + std.unsqueeze(-1) * z).detach()
    g = (
        2.0 * (f.clamp(0.1, 0.3) - 0.1)
        + 0.5 * (f.clamp(0.3, 0.9) - 0.3)
        + 3 * (f - 0.9).clamp_min(0)
    )
    value, gradient = gain.value_and_gradient(X)
    torch.testing.assert_close(value, g.mean(-1), rtol=1e-4, atol=1e-7)
    h = 1e-6
    for i in range(len(X)):
        for j in range(3):
            step = torch.zeros(3, dtype=torch.float64)
            step[j] = h
            up, down = (gain((X[i] + s * step).reshape(1, 1, 3)) for s in (1, -1))
            slope = float((up - down).detach()) / (2 * h)
            assert float(gradient[i, j]) == pytest.approx(slope, rel=1e-4, abs=1e-7)
