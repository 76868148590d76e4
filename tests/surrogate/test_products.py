"""Posteriors by products with K alone, against dense algebra and against the Cholesky factor."""

import math

import pytest
import torch
from oracles import assert_mean_within, normal, uniform
from torch import Tensor
from torch.autograd import gradcheck

from surrogate import BBMM, RBF, Cholesky, ExactGP, Hamming, Kernel, Matern12, Matern52
from surrogate.operators import KernelOperator
from tests.surrogate.helpers import prediction_by_cholesky, rows

MEAN, NOISE = 0.7, 0.02
TIGHT = BBMM(tolerance=1e-11, variance_tolerance=1e-9, rank=30, block=20)
ROOT_ALONE = BBMM(tolerance=1e-11, variance_tolerance=math.inf, rank=30, block=20)


class Own(Kernel):
    """What a user writes: not stationary, so k(x, x) has a gradient too."""

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        near = (-((X1.unsqueeze(-2) - X2.unsqueeze(-3)).square().sum(-1)) / 0.3).exp()
        return near + 0.2 * X1 @ X2.transpose(-1, -2)


KERNELS = {
    "matern52": Matern52(3, [0.3, 1.0, 2.0], 1.7),
    "mixed": RBF(2, 0.5, columns=[0, 1]) * (1.3 * Hamming(1, 0.7, columns=[2])),
    "sum": RBF(3, 0.5, 0.4) + Matern12(1, 0.4, columns=[0]),
    "a user's own": Own(),
    "a user's own, combined": 0.3 * Own() + Matern52(3, 0.8, 1.0),
}
EVERY_KERNEL = pytest.mark.parametrize("name", KERNELS)


def data(rng: torch.Generator, n: int = 70, noise: float = NOISE) -> tuple[Tensor, Tensor]:
    X = rows(rng, n)
    return X, torch.sin(6 * X[:, 0]) + X[:, 1] + X[:, 2] + noise**0.5 * normal(rng, n)


def model_of(name: str, solver=TIGHT, noise: float = NOISE) -> ExactGP:
    return ExactGP(KERNELS[name], mean=MEAN, noise=noise, solver=solver)


# --------------------------------------------------------------------------------------
# Values.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [False, True], ids=["learnt noise", "given noise"])
@EVERY_KERNEL
def test_a_posterior_by_products_is_that_of_the_cholesky_factor(name, given, rng):
    X, y = data(rng)
    noise = torch.full((70,), torch.nan).double()
    if given:
        noise[::3] = 0.1 + uniform(rng, 24)
    X_new = torch.cat([rows(rng, 20), X[:5]])
    ours = model_of(name).condition(X, y, noise)
    exact = model_of(name, Cholesky()).condition(X, y, noise)
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(ours.marginals(X_new), exact.marginals(X_new), **close)
    torch.testing.assert_close(ours.joint(X_new), exact.joint(X_new), **close)
    torch.testing.assert_close(ours.leave_one_out(), exact.leave_one_out(), **close)
    B = normal(rng, 70, 4)
    torch.testing.assert_close(ours.solve(B), exact.solve(B), **close)
    groups = X_new[:24].reshape(2, 3, 4, 3)
    torch.testing.assert_close(ours.joint(groups), exact.joint(groups), **close)
    one, other = (p.sample(X_new[:4], 3, torch.Generator().manual_seed(1)) for p in (ours, exact))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("storage", ["float64", "float32", "tiles"])
def test_wherever_k_is_kept_the_posterior_is_the_same(storage, rng):
    X, y = data(rng)
    solver = BBMM(tolerance=1e-9, variance_tolerance=1e-6, storage=storage, rank=20, block=20)
    posterior = model_of("matern52", solver).condition(X, y)
    mean, covariance = prediction_by_cholesky(posterior.model, X, y, rows(rng, 9), MEAN)
    rng.manual_seed(0)
    data(rng)
    received, std = posterior.marginals(rows(rng, 9))
    torch.testing.assert_close(received, mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(std**2, covariance.diagonal(), rtol=1e-5, atol=1e-7)
    assert posterior.info.storage == storage


@pytest.mark.parametrize("block", [0, 40], ids=["no clusters", "clusters"])
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_the_bracket_of_a_variance_holds_it_and_is_as_narrow_as_asked_for(noise, block, rng):
    X, y = data(rng, 120, noise)
    X_new = torch.cat([rows(rng, 25), X[:15], X[:2] + 5.0])
    solver = BBMM(rank=30, block=block)
    posterior = model_of("matern52", solver, noise).condition(X, y)
    mean, covariance = prediction_by_cholesky(posterior.model, X, y, X_new, MEAN)
    exact, rounding = covariance.diagonal(), 1e-13
    lower, upper = posterior.variance_bounds(X_new)
    assert (lower <= exact + rounding).all() and (exact <= upper + rounding).all()
    assert (lower >= 0).all() and (upper > 0).all()
    received, std = posterior.marginals(X_new)
    torch.testing.assert_close(std**2, upper, rtol=1e-9, atol=rounding)
    assert ((upper - exact) / (exact + noise)).max() <= 0.01
    assert ((upper - lower) / (exact + noise)).max() <= 0.011
    torch.testing.assert_close(received, mean, rtol=0, atol=1e-4 * float(y.std()))
    if block:  # an observation's own cluster says as much
        assert (upper[25:40] <= noise * (1 + 1e-6)).all()
    root = model_of("matern52", BBMM(rank=30, block=block, variance_tolerance=math.inf), noise)
    lower, upper = root.condition(X, y).variance_bounds(X_new)
    assert (lower <= exact + rounding).all() and (exact <= upper + rounding).all()


@pytest.mark.parametrize(("storage", "tolerance"), [("float64", 1e-2), ("float32", 1e-4)])
def test_of_a_loose_solve_the_square_of_its_residual_is_left_in_covariances(
    storage, tolerance, rng
):
    loose = BBMM(tolerance=tolerance, rank=10, block=10, storage=storage)
    for noise in (1e-1, 1e-3):
        X, y = data(rng, 150, noise)
        posterior = model_of("matern52", loose, noise).condition(X, y)
        X_new = torch.cat([X[:10], rows(rng, 5)])
        received = posterior.joint(X_new)[1]
        over = received - prediction_by_cholesky(posterior.model, X, y, X_new, MEAN)[1]
        # Too much, never too little: so no eigenvalue is negative.
        assert torch.linalg.eigvalsh(received).min() > -1e-12
        assert torch.linalg.eigvalsh(over).min() > -1e-12
        assert 0 < over.abs().max() < 5 * tolerance
        exact = model_of("matern52", Cholesky(), noise).condition(X, y)
        ratio = posterior.leave_one_out()[1] / exact.leave_one_out()[1]
        assert (ratio >= 1 - 1e-11).all() and (ratio <= 1 + 1e-4).all()


# --------------------------------------------------------------------------------------
# Gradients.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [TIGHT, ROOT_ALONE], ids=["certain", "root alone"])
@pytest.mark.parametrize("name", [n for n in KERNELS if n != "mixed"])
def test_gradients_in_the_inputs_match_differences(name, solver, rng):
    posterior = model_of(name, solver).condition(*data(rng, 40))
    X = uniform(rng, 4, 3).requires_grad_()
    assert gradcheck(posterior.marginals, (X,), atol=1e-5, rtol=1e-3)
    assert gradcheck(posterior.joint, (X,), atol=1e-5, rtol=1e-3)


def test_gradients_within_the_default_tolerance_are_those_of_the_exact_posterior(rng):
    X, y = data(rng)
    X_new, by_std = rows(rng, 12).requires_grad_(), normal(rng, 12)
    gradients = []
    for solver in (BBMM(rank=20, block=20), Cholesky()):
        mean, std = model_of("matern52", solver).condition(X, y).marginals(X_new)
        gradients.append(torch.autograd.grad(mean.sum() + by_std @ std, X_new)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.02, atol=0.02)


def test_what_was_cached_in_inference_mode_serves_gradients_and_products_later(rng):
    X, y = data(rng, 40)
    for storage in ("float64", "tiles"):
        posterior = model_of("matern52", BBMM(storage=storage, rank=10, block=10)).condition(X, y)
        with torch.inference_mode():
            posterior.marginals(rows(rng, 2))
            posterior.joint(rows(rng, 2))
            assert posterior.info.rank
        X_new = rows(rng, 2).requires_grad_()
        (sum(posterior.marginals(X_new)).sum() + posterior.joint(X_new)[1].sum()).backward()
        assert X_new.grad is not None and X_new.grad.isfinite().all()
        posterior.append(X[:1], y[:1]).marginals(X_new)


def test_without_a_wish_for_gradients_none_are_recorded(rng):
    X, y = data(rng, 30)
    posterior = model_of("matern52").condition(X.requires_grad_(), y.requires_grad_())
    for result in (*posterior.marginals(rows(rng, 2)), *posterior.joint(rows(rng, 2))):
        assert not result.requires_grad
    with torch.no_grad():
        assert not posterior.joint(rows(rng, 2).requires_grad_())[1].requires_grad


# --------------------------------------------------------------------------------------
# Paths.
# --------------------------------------------------------------------------------------


def test_paths_have_the_mean_and_covariance_of_the_exact_posterior(rng):
    X, y = data(rng, 30)
    posterior = model_of("matern52", BBMM(rank=10, block=10)).condition(X, y)
    X_new = torch.cat([rows(rng, 4), X[:1]])
    mean, covariance = prediction_by_cholesky(posterior.model, X, y, X_new, MEAN)
    means, products = [], []
    for _ in range(320):  # features are shared within a draw: 20,480 paths in all
        off = posterior.sample_paths(64, rng, features=64)(X_new) - mean
        means.append(off.mean(0))
        products.append(off.T @ off / 64)
    assert_mean_within(torch.stack(means), 0.0)
    assert_mean_within(torch.stack(products), covariance)


def test_a_path_is_the_same_at_every_call_and_from_every_equal_generator(rng):
    X, y = data(rng)
    posterior, X_new = model_of("mixed", BBMM()).condition(X, y), rows(rng, 6)
    f, g = (posterior.sample_paths(3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(f(X_new), f(X_new)) and torch.equal(f(X_new), g(X_new))
    with torch.no_grad():  # more paths than are solved for at once
        assert posterior.sample_paths(300, rng, features=8)(X_new).shape == (300, 6)


# --------------------------------------------------------------------------------------
# Appending.
# --------------------------------------------------------------------------------------


@EVERY_KERNEL
def test_appending_is_conditioning_on_everything(name, rng):
    X, y = data(rng)
    given = torch.full((70,), torch.nan).double()
    given[55:60] = 0.3
    X_new = torch.cat([rows(rng, 10), X[-3:]])
    whole = model_of(name).condition(X, y, given)
    parts = model_of(name).condition(X[:50], y[:50], given[:50])
    before = parts.marginals(X_new)
    appended = parts.append(X[50:], y[50:], given[50:])
    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(appended.marginals(X_new), whole.marginals(X_new), **close)
    torch.testing.assert_close(appended.joint(X_new), whole.joint(X_new), **close)
    assert appended.info.n == 70
    assert torch.equal(parts.marginals(X_new)[0], before[0])


def test_a_hundred_appends_drift_no_farther_than_one_solve(rng):
    X, y = data(rng, 130)
    solver = BBMM(tolerance=1e-9, rank=20, block=20, variance_tolerance=math.inf)
    posterior = model_of("matern52", solver).condition(X[:30], y[:30])
    for i in range(30, 130):
        posterior = posterior.append(X[i : i + 1], y[i : i + 1])
    X_new = rows(rng, 10)
    mean, _ = prediction_by_cholesky(posterior.model, X, y, X_new, MEAN)
    torch.testing.assert_close(posterior.marginals(X_new)[0], mean, rtol=0, atol=1e-6)
    assert posterior.info.weights.converged.all()


def test_an_append_starts_from_the_weights_there_are(rng):
    X, y = data(rng, 201, 1e-4)
    solver = BBMM(tolerance=1e-3, rank=0, block=0)
    last = model_of("matern52", solver, 1e-4).condition(X[:200], y[:200])
    warm = last.append(X[200:], y[200:]).info.weights
    solver = BBMM(tolerance=warm.tolerance, rank=0, block=0)
    cold = model_of("matern52", solver, 1e-4).condition(X, y).info.weights
    assert warm.products < cold.products
    assert warm.converged.all() and cold.converged.all()


# --------------------------------------------------------------------------------------
# Appended without a solve.
# --------------------------------------------------------------------------------------

APPENDED = {"append_tolerance": math.inf, "variance_tolerance": math.inf, "tolerance": 1e-10}


@pytest.fixture
def products(monkeypatch) -> list[int]:
    """Columns of each product with K."""
    made: list[int] = []

    def counted(self, V, multiply=KernelOperator.matmul):
        made.append(V.shape[1])
        return multiply(self, V)

    monkeypatch.setattr(KernelOperator, "matmul", counted)
    return made


def test_rows_appended_without_a_solve_change_the_weights_almost_as_a_solve_would(rng, products):
    X, y = data(rng, 300, 1e-2)
    new = X[:10] + 0.02 * normal(rng, 10, 3)  # among others, as in a search
    X, y = torch.cat([X, new]), torch.cat([y, y[:10] + 0.3])
    solver = BBMM(rank=60, block=60, **APPENDED)
    ours = model_of("matern52", solver, 1e-2).condition(X[:300], y[:300])
    ours.marginals(X[:2])
    products.clear()
    T = torch.cat([new + 0.01, rows(rng, 20)])
    for start, stop in ((300, 306), (306, 310)):
        before = torch.cat([ours._cache.alpha, torch.zeros(stop - start).double()])
        ours = ours.append(X[start:stop], y[start:stop])
        exact = model_of("matern52", Cholesky(), 1e-2).condition(X[:stop], y[:stop])
        alpha, K = exact._cache.alpha, exact.model.covariance(X[:stop])
        left, nothing = ours._cache.alpha - alpha, before - alpha
        assert float(left @ K @ left) < 0.01 * float(nothing @ K @ nothing)
        mean, std = exact.marginals(T)
        received = ours.marginals(T)
        assert ((received[0] - mean) / std).abs().max() < 0.2
        assert (received[1] > std - 1e-9).all()
    assert not products
    assert 0 < float(ours.info.weights.residual) < 1 and ours.info.weights.products == 1
    assert products == [1]


def test_where_the_space_of_the_root_is_all_weights_of_appended_rows_are_exact(rng):
    X, y = data(rng, 50)
    solver = BBMM(rank=5, block=60, **APPENDED)
    posterior = model_of("matern52", solver).condition(X[:40], y[:40])
    posterior = posterior.append(X[40:45], y[40:45]).append(X[45:], y[45:])
    mean, covariance = prediction_by_cholesky(posterior.model, X, y, X[:20] + 0.1, MEAN)
    received, std = posterior.marginals(X[:20] + 0.1)
    torch.testing.assert_close(received, mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(std**2, covariance.diagonal(), rtol=1e-5, atol=1e-8)
    assert float(posterior.info.weights.residual) < 1e-6


def test_too_many_rows_to_be_appended_without_a_solve_are_solved_for(rng, products, monkeypatch):
    monkeypatch.setattr("surrogate.models.products._AT_ONCE", 9)
    X, y = data(rng, 50)
    posterior = model_of("matern52", BBMM(rank=5, block=5, **APPENDED)).condition(X[:40], y[:40])
    posterior = posterior.append(X[40:], y[40:])
    mean, _ = prediction_by_cholesky(posterior.model, X, y, X, MEAN)
    torch.testing.assert_close(posterior.marginals(X)[0], mean, rtol=0, atol=1e-7)
    assert posterior.info.weights.converged.all()
