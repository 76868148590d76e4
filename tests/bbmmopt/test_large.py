"""Facts about many observations: refits are rare, what lies between is added, nothing is lost.

The size from which all this holds is lowered, so that the tests are quick.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from bbmmopt import Optimizer, Real, Space
from bbmmopt.modelling import Data, Modeller
from bbmmopt.modelling import model as model_module
from bbmmopt.modelling import modeller as modeller_module
from surrogate import BBMM, Auto, Cholesky, ExactGP

SPACE = Space({"x": Real(0, 1), "y": Real(0, 1)})
LARGE = 150
PRODUCTS = BBMM(variance_tolerance=math.inf, tolerance=1e-4, rank=60, block=20)
SOLVERS = {
    "a factor for weights": Auto(LARGE, 10_000, Cholesky(root_from=LARGE), PRODUCTS),
    "products alone": Auto(LARGE, LARGE, Cholesky(), PRODUCTS),
}


@pytest.fixture(autouse=True, params=SOLVERS)
def large_is_small(request, monkeypatch):
    monkeypatch.setattr(modeller_module, "LARGE_FROM", LARGE)
    monkeypatch.setattr(model_module, "LARGE", SOLVERS[request.param])


def made(n, *, pending=0, failed=0, exact=False) -> Data:
    rng = np.random.default_rng(3)
    rows = rng.random((n + pending + failed, 2))
    noise = 0.0 if exact else 0.05
    y = np.sin(6 * rows[:n, 0]) + rows[:n, 1] ** 2 + noise * rng.standard_normal(n)
    errors = np.full(n, np.nan)
    return Data(rows[:n], y, errors, rows[n : n + pending], rows[n + pending :], exact)


def bits(belief) -> list[bytes]:
    X = torch.from_numpy(np.random.default_rng(9).random((20, 2)))
    tensors = [*belief.posterior.marginals(X), *belief.fantasised.marginals(X)]
    return [t.numpy().tobytes() for t in tensors] + [belief.centres(3).tobytes()]


def count_fits(monkeypatch) -> list[int]:
    sizes: list[int] = []
    real = model_module.fit

    def counted(model, X, *arguments, **options):
        sizes.append(len(X))
        return real(model, X, *arguments, **options)

    monkeypatch.setattr(model_module, "fit", counted)
    return sizes


def test_parameters_are_fitted_to_all_trials_when_these_have_grown_by_six_percent(monkeypatch):
    sizes = count_fits(monkeypatch)
    modeller, whole = Modeller(SPACE), made(200)
    fitted = []
    for n in range(160, 200):
        sizes.clear()
        modeller.belief(whole.rows(slice(n)))
        fitted += [size for size in sizes if size >= LARGE]
    assert len(fitted) == len(set(fitted)) <= 6
    assert all(b >= 1.05 * a for a, b in itertools.pairwise(fitted))


def test_between_fits_the_weights_are_those_of_all_trials():
    data = made(190)
    posterior = Modeller(SPACE).belief(data).posterior
    assert len(posterior.y) == 190
    model = posterior.model.clone()
    model.solver = Cholesky()
    exact = ExactGP.condition(model, posterior.X, posterior.y)
    X = torch.from_numpy(np.random.default_rng(1).random((40, 2)))
    mean, std = posterior.marginals(X)
    exact_mean, exact_std = exact.marginals(X)
    torch.testing.assert_close(mean, exact_mean, rtol=0, atol=2e-3)
    noise = float(model.noise.detach())
    assert (std.square() > exact_std.square() - 1e-9).all()
    assert (std.square() < exact_std.square() * 2 + noise).all()


def test_the_belief_does_not_depend_on_what_the_modeller_saw_before():
    whole = made(175, pending=2, failed=1)
    stages = [whole.rows(slice(n)) for n in (140, 152, 160, 168)] + [whole]
    fresh = [bits(Modeller(SPACE).belief(data)) for data in stages]
    for order in ((0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 0, 3, 1)):
        modeller = Modeller(SPACE)
        for i in order:
            assert bits(modeller.belief(stages[i])) == fresh[i]


def test_pending_and_failed_trials_are_put_in_and_believed():
    data = made(170, failed=4)
    assert len(Modeller(SPACE).belief(data).fantasised.y) == 174
    data = made(170, pending=3)
    belief = Modeller(SPACE).belief(data)
    pending = torch.from_numpy(data.pending)
    before, after = belief.posterior.marginals(pending), belief.fantasised.marginals(pending)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=5e-3)
    assert (after[1] < before[1]).all()
    assert len(belief.fantasised.y) == 173 and len(belief.posterior.y) == 170


def test_an_exact_objective_is_believed_to_the_digits_it_has():
    data = made(180, exact=True)
    belief = Modeller(SPACE).belief(data)
    fitted = belief.transform.inverse(belief.posterior.fitted().numpy())
    assert np.abs(fitted - data.y).max() < 1e-2
    assert belief.incumbent == float(belief.posterior.y.max())


def test_a_constant_objective_is_no_reason_to_stop():
    data = made(160)
    belief = Modeller(SPACE).belief(Data(**{**vars(data), "y": np.full(160, 2.0)}))
    assert np.allclose(belief.predict(data.X[:5])[0], 2.0)


def test_an_optimizer_with_many_observations_asks_and_improves_on_them():
    optimizer = Optimizer(SPACE, minimize="loss", seed=0)
    data = made(165)
    for x, y in zip(data.X, data.y, strict=True):
        optimizer.add_trial({"x": float(x[0]), "y": float(x[1])}, float(y))
    for _ in range(8):
        trial = optimizer.ask()
        x, y = trial.params["x"], trial.params["y"]
        optimizer.tell(trial, float(np.sin(6 * x) + y**2))
    asked = [t.values["loss"] for t in optimizer.trials[165:]]
    assert min(asked) < -0.98  # the minimum is -1, at x = π/4, y = 0
    assert optimizer.trials[-1].origin["model"]["trials"] == 172


def test_a_resumed_run_proposes_what_an_uninterrupted_one_does(tmp_path):
    def run(optimizer, turns):
        for _ in range(turns):
            trial = optimizer.ask()
            x, y = trial.params["x"], trial.params["y"]
            optimizer.tell(trial, float(np.sin(6 * x) + y**2))

    def started(storage):
        optimizer = Optimizer(SPACE, minimize="loss", storage=storage, seed=0)
        for x, y in zip(made(158).X, made(158).y, strict=True):
            optimizer.add_trial({"x": float(x[0]), "y": float(x[1])}, float(y))
        return optimizer

    whole = started(tmp_path / "whole.db")
    run(whole, 6)
    run(started(tmp_path / "cut.db"), 3)
    resumed = Optimizer(SPACE, minimize="loss", storage=tmp_path / "cut.db", seed=0)
    run(resumed, 3)
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]
