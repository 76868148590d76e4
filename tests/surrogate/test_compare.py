"""Which model predicts best, and noise that varies."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from oracles import normal, uniform

from surrogate import (
    BBMM,
    RBF,
    Cholesky,
    ExactGP,
    Heteroskedastic,
    InducingGP,
    Matern12,
    Matern52,
    MultiOutputGP,
    compare,
    fit,
    nlpd,
)
from surrogate.models.compare import _spearman


def test_models_are_ranked_by_what_they_expect_of_each_observation_from_the_others(rng):
    X = uniform(rng, 40, 2)
    y = torch.sin(5 * X[:, 0]) + 0.05 * normal(rng, 40)
    table = compare([ExactGP(Matern12(2)), ExactGP(RBF(2)), ExactGP(RBF(2))], X, y)
    assert [row.name for row in table] == ["ExactGP RBF", "ExactGP RBF (2)", "ExactGP Matern12"]
    assert table[0].nlpd == table[1].nlpd < table[2].nlpd
    assert table.best is table[0].model and len(table) == 3
    for row in table:
        means, stds = [], []
        for i in range(40):
            others = torch.arange(40) != i
            posterior = row.model.condition(X[others], y[others])
            mean, std = posterior.predictive(X[i : i + 1])
            means.append(mean)
            stds.append(std)
        mean, std = torch.cat(means), torch.cat(stds)
        assert row.nlpd == pytest.approx(nlpd(mean, std.detach(), y), abs=1e-6)
        rank = scipy.stats.spearmanr(mean.detach(), y).statistic
        assert row.rank_correlation == pytest.approx(rank, abs=1e-9)
        assert row.rmse == pytest.approx(float((mean - y).square().mean().sqrt()), abs=1e-7)
        assert row.parameters == 5


def test_a_comparison_prints_a_row_for_each_model(rng):
    X = uniform(rng, 20, 1)
    text = str(compare({"smooth": ExactGP(RBF(1)), "rough": ExactGP(Matern12(1))}, X, X[:, 0]))
    lines = text.splitlines()
    assert len(lines) == 3 and lines[0].split()[:2] == ["model", "NLPD"]
    assert {line.split()[0] for line in lines[1:]} == {"smooth", "rough"}
    assert len({len(line) for line in lines}) == 1


def test_models_of_several_outputs_are_compared_on_the_values_that_are_there(rng):
    X = uniform(rng, 25, 1)
    f = torch.sin(6 * X[:, 0])
    Y = torch.stack([f, -f], 1) + 0.05 * normal(rng, 25, 2)
    Y[:10, 1] = math.nan
    models = {
        "together": MultiOutputGP(Matern52(1), 2),
        "apart": MultiOutputGP(Matern52(1), 2, output_kernel="independent"),
    }
    table = compare(models, X, Y)
    assert [row.name for row in table] == ["together", "apart"]
    assert all(row.model.report.n == 40 for row in table)


def test_models_without_leave_one_out_leave_out_a_tenth_at_a_time(rng):
    X = uniform(rng, 120, 1)
    y = torch.sin(6 * X[:, 0]) + 0.1 * normal(rng, 120)
    models = {"all rows": ExactGP(Matern52(1)), "fifteen points": InducingGP(Matern52(1), 15)}
    rows = {row.name: row for row in compare(models, X, y)}
    exact, sparse = rows["all rows"], rows["fifteen points"]
    assert sparse.nlpd == pytest.approx(exact.nlpd, abs=0.02) and sparse.nlpd != exact.nlpd
    assert sparse.rank_correlation == pytest.approx(exact.rank_correlation, abs=0.01)


def test_ranks_share_ties(rng):
    for _ in range(20):
        a = torch.randint(0, 5, (12,), generator=rng).double()
        b = torch.randint(0, 5, (12,), generator=rng).double()
        assert _spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)
    assert _spearman(torch.ones(5), torch.arange(5.0)) == 0.0


def test_there_must_be_something_to_compare(rng):
    with pytest.raises(ValueError, match="at least one"):
        compare([], uniform(rng, 5, 1), uniform(rng, 5))
    with pytest.raises(ValueError, match="two observations or more; got 1"):
        compare([ExactGP(RBF(1))], uniform(rng, 1, 1), uniform(rng, 1))


# --------------------------------------------------------------------------------------
# Noise that varies.
# --------------------------------------------------------------------------------------


def funnel(rng: torch.Generator, n: int = 200):
    X = uniform(rng, n, 1)
    std = 0.02 + 0.5 * X[:, 0].square()
    return X, torch.sin(6 * X[:, 0]) + std * normal(rng, n), std


@pytest.mark.parametrize("solver", [Cholesky(), BBMM()], ids=["cholesky", "products"])
def test_noise_that_varies_is_found_and_is_in_predictions(solver, rng):
    X, y, std = funnel(rng)
    flat = fit(ExactGP(Matern52(1), solver=solver), X, y)
    model = fit(ExactGP(Matern52(1), noise=Heteroskedastic(X), solver=solver), X, y)
    posterior = model.condition(X, y)
    ratio = model.noise_model(X).detach().sqrt() / std
    assert ratio.log().abs().mean() < 0.25 and ratio.log().abs().max() < 0.9
    new, fresh, _ = funnel(rng, 500)
    judged = []
    for belief in (posterior, flat.condition(X, y)):
        mean, deviation = belief.predictive(new)
        judged.append(nlpd(mean.detach(), deviation.detach(), fresh))
    assert judged[0] < judged[1] - 0.4
    _, of_f = posterior.marginals(new)
    _, of_y = posterior.predictive(new)
    torch.testing.assert_close(of_y.square() - of_f.square(), model.noise_model(new).detach())


def test_even_noise_is_found_to_be_even(rng):
    X = uniform(rng, 150, 2)
    y = torch.sin(5 * X[:, 0]) + 0.2 * normal(rng, 150)
    model = fit(ExactGP(Matern52(2), noise=Heteroskedastic(X, points=8)), X, y)
    level = model.noise_model(X).detach().sqrt()
    assert level.min() > 0.1 and level.max() < 0.4


def test_the_likelihood_of_varying_noise_has_the_gradient_that_autograd_finds(rng):
    X, y, _ = funnel(rng, 30)
    noise = Heteroskedastic(X, points=5, noise=0.05)
    noise.weights.data.copy_(normal(rng, 5))
    model = ExactGP(Matern52(1, 0.3), noise=noise, solver=Cholesky())
    parameters = [*model.searched_parameters(), model.constant]
    value = model.log_marginal_likelihood(X, y).value
    expected = torch.autograd.grad(value, parameters)
    nothing = torch.full((30,), math.nan).double()
    found, gradients, _ = model.evaluator(X, y, nothing, Cholesky(), best_mean=False)()
    assert found == pytest.approx(float(value.detach()))
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a.reshape(b.shape), b)


def test_points_of_varying_noise_are_spread_over_the_inputs(rng):
    X = torch.cat(
        [uniform(rng, 30, 1) * 0.1, torch.tensor([[1.0], [1.0], [0.6]], dtype=torch.float64)]
    )
    points = Heteroskedastic(X, points=4).get_buffer("points")
    assert {0.6, 1.0} <= set(np.round(points.flatten().tolist(), 9))
    assert len(Heteroskedastic(X[-3:], points=4).get_buffer("points")) == 2
    for bad in ({"points": 0}, {"spread": 0.0}):
        with pytest.raises(ValueError, match="must be positive"):
            Heteroskedastic(X, **bad)
    with pytest.raises(ValueError, match="not empty"):
        Heteroskedastic(X[:0])


def test_varying_noise_depends_on_no_more_than_the_columns_it_is_given(rng):
    X = uniform(rng, 20, 3)
    noise = Heteroskedastic(X, points=5, columns=[0, 2])
    noise.weights.data.copy_(normal(rng, 5))
    other = X.clone()
    other[:, 1] = uniform(rng, 20, 1)[:, 0]
    assert torch.equal(noise(X), noise(other))
    alone = Heteroskedastic(X[:, [0, 2]], points=5)
    alone.weights.data.copy_(noise.weights.data)
    torch.testing.assert_close(noise(X), alone(X[:, [0, 2]]))


def test_a_model_with_varying_noise_can_be_copied_and_appended_to(rng):
    X, y, _ = funnel(rng, 40)
    model = fit(ExactGP(Matern52(1), noise=Heteroskedastic(X)), X[:30], y[:30])
    twin = model.clone()
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True)
    )
    appended = model.condition(X[:30], y[:30]).append(X[30:], y[30:])
    whole = model.condition(X, y)
    torch.testing.assert_close(appended.marginals(X), whole.marginals(X), rtol=0, atol=1e-8)
