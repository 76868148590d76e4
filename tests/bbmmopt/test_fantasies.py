"""Facts about joint draws at trials that may be the best and at those that are running."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bbmmopt.modelling import Beliefs, Data, Known, Modellers
from bbmmopt.space import Real, Space
from bbmmopt.strategies import fantasies as module
from bbmmopt.strategies.fantasies import imagine, is_noisy

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})
NOTHING = np.empty((0, 2))
RUNNING = np.array([[0.31, 0.29], [0.8, 0.2]])


def told(n: int, *, noise: float = 0.3, pending=NOTHING, seed: int = 0, **options) -> Data:
    rng = np.random.default_rng(seed)
    X = rng.random((n, 2))
    y = -4 * ((X - 0.3) ** 2).sum(1) + noise * rng.standard_normal(n)
    fields = {"exact": False} | options
    return Data(X, y, np.full(n, np.nan), pending, NOTHING, **fields)


def believed(*objectives: Data, constraints: tuple[Data, ...] = ()) -> Beliefs:
    return Modellers(PLANE).beliefs(Known(objectives, constraints))


def test_over_the_draws_the_values_have_the_mean_and_spread_of_the_belief():
    beliefs = believed(told(30, pending=RUNNING))
    drawn = imagine(beliefs, seed=0).objectives[0]
    assert drawn.shape == (32, 32)
    rows = torch.cat([beliefs.first.posterior.X, torch.from_numpy(RUNNING)])
    mean, std = beliefs.first.posterior.marginals(rows)
    # Sobol points through Φ⁻¹: means are nearer than those of independent draws would be.
    assert ((drawn.mean(0) - mean).abs() < 0.3 * std).all()
    torch.testing.assert_close(drawn.std(0), std, rtol=0.4, atol=1e-4)


def test_each_draw_is_believed():
    drawn = imagine(believed(told(30, pending=RUNNING)), seed=0)
    means, std = drawn.beliefs[0].marginals(torch.from_numpy(RUNNING))
    torch.testing.assert_close(means, drawn.objectives[0, :, 30:], rtol=0, atol=1e-3)
    assert std.max() < 1e-3


def test_what_is_running_changes_no_draw_of_what_was_told():
    """Or candidates of one batch would each see another world."""
    alone = imagine(believed(told(30)), seed=0).objectives
    with_running = imagine(believed(told(30, pending=RUNNING)), seed=0).objectives
    torch.testing.assert_close(with_running[..., :30], alone, rtol=0, atol=1e-9)
    other = imagine(believed(told(30)), seed=1).objectives
    assert not torch.equal(other, alone)


@pytest.mark.parametrize("pending", [NOTHING, RUNNING], ids=["none running", "two running"])
def test_exact_values_are_what_they_were(pending):
    beliefs = believed(told(15, noise=0.0, exact=True, pending=pending))
    drawn = imagine(beliefs, seed=0)
    assert not is_noisy(beliefs.first)
    assert len(drawn.objectives[0]) == (32 if len(pending) else 1)
    y = beliefs.first.posterior.y.expand(len(drawn.objectives[0]), -1)
    assert torch.equal(drawn.objectives[0, :, :15], y)


def test_only_trials_that_may_be_the_best_are_drawn_for(monkeypatch):
    monkeypatch.setattr(module, "_CANDIDATES", 12)
    one = told(40)
    beliefs = believed(one)
    drawn = imagine(beliefs, seed=0)
    assert drawn.objectives.shape == (1, 32, 12)
    best = beliefs.first.posterior.fitted().topk(12).values
    assert drawn.objectives[0].mean(0).min() > best.min() - 0.5
    # Of those, the belief is given the ones that are the best of some draw.
    kept = len(drawn.beliefs[0].posterior.y) - 40
    assert 1 <= kept <= 12


def test_of_several_objectives_whole_fronts_are_drawn_for(monkeypatch):
    monkeypatch.setattr(module, "_CANDIDATES", 12)
    first, second = told(40), replace(told(40, seed=1), X=told(40).X)
    limit = replace(told(40, seed=2, noise=0.0, exact=True), X=first.X, bound=-1.0)
    drawn = imagine(believed(first, second, constraints=(limit,)), seed=0)
    assert drawn.objectives.shape == (2, 16, 12) and drawn.constraints.shape == (1, 16, 12)
    assert len(drawn.feasible) == 1 and len(drawn.beliefs) == 3


def test_of_very_many_trials_nothing_is_drawn(monkeypatch):
    monkeypatch.setattr(module, "DRAWN_TO", 20)
    beliefs = believed(told(30, pending=RUNNING))
    drawn = imagine(beliefs, seed=0)
    assert drawn.objectives.shape == (1, 1, 32)
    rows = torch.cat([beliefs.first.posterior.X, torch.from_numpy(RUNNING)])
    mean, _ = beliefs.first.posterior.marginals(rows)
    torch.testing.assert_close(drawn.objectives[0, 0], mean, rtol=0, atol=1e-6)
