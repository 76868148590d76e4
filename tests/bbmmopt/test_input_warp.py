"""Warped inputs: kept where a function varies faster in one part of a range, and only there."""

import numpy as np
import pytest
import torch

from bbmmopt import Categorical, Optimizer, Real, Space
from bbmmopt.modelling import Data, Modeller
from bbmmopt.modelling import modeller as modeller_module
from surrogate import Warped

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})


def data(n, seed, f, space=PLANE) -> Data:
    X = space.snap(np.random.default_rng(seed).random((n, len(space))))
    nothing = X[:0]
    return Data(X, f(X), np.full(n, np.nan), nothing, nothing, exact=True)


def steep(X):
    """Five waves over x, half of them below 0.03."""
    return np.sin(30 * X[:, 0] ** 0.2) + X[:, 1]


def even(X):
    return np.sin(5 * X[:, 0]) + np.cos(4 * X[:, 1])


def test_a_warp_is_found_and_predicts_better(monkeypatch):
    beliefs = [Modeller(PLANE).belief(data(60, s, steep)) for s in range(4)]
    assert sum(belief.warps_inputs for belief in beliefs) >= 3
    monkeypatch.setattr(modeller_module, "with_warped_inputs", lambda model, *_: model)
    X = np.random.default_rng(99).random((500, 2))
    errors = []
    for belief in beliefs:
        if belief.warps_inputs:
            assert belief.posterior.model.kernel.a[0] < 0.7  # fastest near 0
            both = belief, Modeller(PLANE).belief(belief.data)
            errors.append([np.sqrt(np.mean((b.predict(X)[0] - steep(X)) ** 2)) for b in both])
    warped, plain = np.transpose(errors)
    assert warped.sum() < 0.8 * plain.sum()


def test_there_is_no_warp_where_nothing_calls_for_one():
    found = [Modeller(PLANE).belief(data(60, s, even)).warps_inputs for s in range(6)]
    assert sum(found) <= 1


@pytest.mark.parametrize("n", [24, 47])
def test_few_data_tell_no_warp(n):
    assert not Modeller(PLANE).belief(data(n, 0, steep)).warps_inputs


def test_categories_are_not_warped():
    space = Space({"x": Real(0, 1), "k": Categorical(["a", "b"])})
    belief = Modeller(space).belief(data(40, 1, lambda X: np.sin(30 * X[:, 0] ** 0.2), space))
    kernel = belief.posterior.model.kernel
    assert isinstance(kernel, Warped) and kernel.columns == (0,)
    # Moving a category by a hair changes nothing but by its level.
    rows = torch.tensor([[0.3, 0.25], [0.3, 0.75]], dtype=torch.float64)
    assert torch.equal(kernel.embed(rows)[:, 1], rows[:, 1])


def test_a_suggestion_follows_from_the_data_alone_with_warps_too():
    told = data(66, 2, steep)
    asked_before = Modeller(PLANE)
    for n in (24, 48, 60):
        asked_before.belief(told.rows(slice(n)))
    rows = torch.rand(20, 2, dtype=torch.float64)
    one, other = (m.belief(told).posterior.marginals(rows) for m in (asked_before, Modeller(PLANE)))
    assert all(map(torch.equal, one, other))


def test_explain_tells_of_a_warp():
    optimizer = Optimizer(PLANE, minimize="f", noise="none", seed=0)
    told = data(60, 0, steep)
    for x, y in zip(told.X, told.y, strict=True):
        optimizer.add_trial({"x": float(x[0]), "y": float(x[1])}, float(y))
    assert optimizer.belief().warps_inputs
    trial = optimizer.ask()
    assert trial.origin["model"]["inputs"] == "Warped"
    assert "as fractions of each warped range" in optimizer.explain(trial.number)
