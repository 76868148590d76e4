"""Posteriors by a Cholesky factor: values, gradients, samples, against the textbook."""

import pytest
import torch
from oracles import assert_mean_within, gp_prediction, normal, uniform
from torch import Tensor
from torch.autograd import gradcheck

from surrogate import RBF, Matern52
from tests.surrogate.helpers import rows
from tests.surrogate.posterior_cases import EVERY_KERNEL, KERNELS, MEAN, NOISE, data, model_of

GIVEN = torch.tensor([0.3, torch.nan, 0.02, torch.nan, torch.nan, 0.5, 1.0, 0.1, torch.nan])


def dense(name: str, X: Tensor, y: Tensor, X_new: Tensor, noise: Tensor | None = None):
    variances = torch.full((len(X),), NOISE, dtype=torch.float64)
    if noise is not None:
        variances = torch.where(noise.isnan(), variances, noise)
    with torch.no_grad():
        return gp_prediction(KERNELS[name], X, y, variances, X_new, MEAN)


# --------------------------------------------------------------------------------------
# Values, against the textbook.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [None, GIVEN.double()], ids=["learnt noise", "given noise"])
@EVERY_KERNEL
def test_marginals_and_joint_are_those_of_the_textbook(name, noise, rng):
    X, y = data(rng)
    X_new = torch.cat([rows(rng, 6), X[:2]])
    posterior = model_of(KERNELS[name]).condition(X, y, noise)
    mean, covariance = dense(name, X, y, X_new, noise)
    for received, std in (posterior.marginals(X_new), posterior.linearise(X_new)[:2]):
        torch.testing.assert_close(received, mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(std, covariance.diagonal().sqrt(), rtol=1e-7, atol=1e-9)
    joint_mean, joint_covariance = posterior.joint(X_new)
    torch.testing.assert_close(joint_mean, mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(joint_covariance, covariance, rtol=1e-9, atol=1e-9)


@EVERY_KERNEL
def test_batches_are_predicted_as_they_are_one_by_one(name, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    X = rows(rng, 2, 3, 4)
    mean, std = posterior.marginals(X)
    joint_mean, covariance = posterior.joint(X)
    assert mean.shape == std.shape == joint_mean.shape == (2, 3, 4)
    assert covariance.shape == (2, 3, 4, 4)
    torch.testing.assert_close(joint_mean, mean)
    torch.testing.assert_close(covariance.diagonal(dim1=-2, dim2=-1).sqrt(), std)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(covariance[i, j], posterior.joint(X[i, j])[1])
    single_mean, single_std = posterior.marginals(X[1, 2, 3])
    assert single_mean.shape == ()
    torch.testing.assert_close((single_mean, single_std), (mean[1, 2, 3], std[1, 2, 3]))


@pytest.mark.parametrize("n", [0, 1, 2])
@EVERY_KERNEL
def test_few_observations_or_none_need_no_special_care(name, n, rng):
    X, y = data(rng, n)
    X_new = rows(rng, 5)
    posterior = model_of(KERNELS[name]).condition(X, y)
    mean, covariance = dense(name, X, y, X_new)
    torch.testing.assert_close(posterior.joint(X_new)[1], covariance, rtol=1e-9, atol=1e-9)
    received, std = posterior.marginals(X_new.requires_grad_())
    torch.testing.assert_close(received, mean, rtol=1e-9, atol=1e-9)
    (received.sum() + std.sum()).backward()
    assert X_new.grad is not None and X_new.grad.isfinite().all()
    assert posterior.leave_one_out()[0].shape == (n,)
    assert posterior.info.n == n


def test_no_test_points_give_no_predictions(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    assert posterior.marginals(torch.empty(0, 3))[0].shape == (0,)
    assert posterior.joint(torch.empty(0, 3))[1].shape == (0, 0)
    assert posterior.sample(torch.empty(0, 3), 2, rng).shape == (2, 0)


# --------------------------------------------------------------------------------------
# Gradients.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in KERNELS if n != "mixed"])
def test_gradients_in_the_inputs_match_differences(name, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    X = uniform(rng, 2, 3, 3).requires_grad_()
    assert gradcheck(posterior.marginals, (X,))
    assert gradcheck(posterior.joint, (X,))


def test_gradients_flow_to_the_real_columns_of_a_mixed_input_alone(rng):
    posterior = model_of(KERNELS["mixed"]).condition(*data(rng))
    X = rows(rng, 4)

    def of_reals(reals: Tensor) -> tuple[Tensor, Tensor]:
        return posterior.marginals(torch.cat([reals, X[:, 2:]], dim=1))

    assert gradcheck(of_reals, (X[:, :2].clone().requires_grad_(),))
    X.requires_grad_()
    sum(posterior.marginals(X)).sum().backward()
    assert X.grad is not None and not X.grad[:, 2].any()


@EVERY_KERNEL
def test_linearise_maps_gradients_back_as_autograd_does(name, rng):
    posterior = model_of(KERNELS[name]).condition(*data(rng))
    X, by_mean, by_std = rows(rng, 5).requires_grad_(), normal(rng, 5), normal(rng, 5)
    mean, covariance = posterior.joint(X)
    loss = by_mean @ mean + by_std @ covariance.diagonal().sqrt()
    (expected,) = torch.autograd.grad(loss, X)
    _, _, pullback = posterior.linearise(X.detach())
    torch.testing.assert_close(pullback(by_mean, by_std), expected, rtol=1e-8, atol=1e-8)


@EVERY_KERNEL
def test_gradients_at_the_training_inputs_are_finite(name, rng):
    X, y = data(rng)
    posterior = model_of(KERNELS[name], noise=1e-10).condition(X, y)
    X = X.clone().requires_grad_()
    mean, std = posterior.marginals(X)
    (gradient,) = torch.autograd.grad(mean.sum() + std.sum(), X)
    assert gradient.isfinite().all()


def test_gradients_reach_single_precision_inputs(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    X = rows(rng, 4).float().requires_grad_()
    mean, std = posterior.marginals(X)
    assert mean.dtype == std.dtype == torch.float64
    sum(posterior.marginals(X)).sum().backward()
    assert X.grad is not None and X.grad.dtype == torch.float32 and X.grad.any()


def test_single_precision_inputs_are_predicted_in_double(rng):
    X, y = data(rng)
    model, X_new = model_of(RBF(3, 0.35, 1.0)), rows(rng, 4).float()
    received = model.condition(X.float(), y.float()).marginals(X_new)
    expected = model.condition(X.float().double(), y.float().double()).marginals(X_new.double())
    torch.testing.assert_close(received, expected, rtol=0, atol=0)


def test_without_a_wish_for_gradients_none_are_recorded(rng):
    X, y = data(rng)
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(X.requires_grad_(), y.requires_grad_())
    for result in (*posterior.marginals(rows(rng, 2)), *posterior.joint(rows(rng, 2))):
        assert not result.requires_grad
    with torch.no_grad():
        assert not posterior.marginals(rows(rng, 2).requires_grad_())[0].requires_grad
    assert not posterior.append(X, y).X.requires_grad


def test_what_was_cached_in_inference_mode_serves_gradients_later(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    with torch.inference_mode():
        posterior.marginals(rows(rng, 2))
    X = rows(rng, 2).requires_grad_()
    posterior.joint(X)[1].sum().backward()
    assert X.grad is not None


# --------------------------------------------------------------------------------------
# Samples.
# --------------------------------------------------------------------------------------


@EVERY_KERNEL
def test_samples_have_the_mean_and_covariance_of_the_joint(name, rng):
    X, y = data(rng)
    X_new = rows(rng, 5)
    posterior = model_of(KERNELS[name]).condition(X, y)
    mean, covariance = posterior.joint(X_new)
    samples = posterior.sample(X_new, 20_000, rng)
    assert samples.shape == (20_000, 5)
    assert_mean_within(samples, mean)
    off = samples - mean
    assert_mean_within(off.unsqueeze(-1) * off.unsqueeze(-2), covariance)


def test_the_same_generator_state_gives_the_same_samples(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    X = rows(rng, 4)
    first, second = (posterior.sample(X, 3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)


def test_samples_at_exact_observations_are_the_observations(rng):
    X, y = data(rng)
    for repeats in (1, 20):
        posterior = model_of(RBF(3, 0.35, 1.0), noise=1e-10).condition(X, y)
        samples = posterior.sample(X.repeat(repeats, 1), 3, rng)
        torch.testing.assert_close(samples, y.repeat(repeats).expand(3, -1), rtol=0, atol=1e-3)
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(
        X, y, torch.zeros(9)
    )  # all covariance is rounding
    torch.testing.assert_close(posterior.sample(X, 1, rng)[0], y, rtol=0, atol=1e-4)


# --------------------------------------------------------------------------------------
# Leaving one out, appending.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [None, GIVEN.double()], ids=["learnt noise", "given noise"])
@EVERY_KERNEL
def test_leave_one_out_is_what_leaving_one_out_gives(name, noise, rng):
    X, y = data(rng)
    posterior = model_of(KERNELS[name]).condition(X, y, noise)
    mean, std = posterior.leave_one_out()
    for i in range(9):
        others = torch.arange(9) != i
        rest = model_of(KERNELS[name]).condition(
            X[others], y[others], None if noise is None else noise[others]
        )
        expected, latent = rest.marginals(X[i])
        own = posterior.noise_variances()[i]
        torch.testing.assert_close(mean[i], expected, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(std[i], (latent.square() + own).sqrt(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("used", [False, True], ids=["before any use", "after use"])
@pytest.mark.parametrize("split", [0, 4, 8, 9])
@EVERY_KERNEL
def test_appending_is_the_same_as_conditioning_on_all(name, split, used, rng):
    X, y = data(rng)
    noise, X_new = GIVEN.double(), rows(rng, 5)
    model = model_of(KERNELS[name])
    part = model.condition(X[:split], y[:split], noise[:split])
    if used:
        part.marginals(X_new)
    appended = part.append(X[split:], y[split:], noise[split:])
    whole = model.condition(X, y, noise)
    for ours, theirs in (
        (appended.marginals(X_new), whole.marginals(X_new)),
        (appended.joint(X_new), whole.joint(X_new)),
        (appended.leave_one_out(), whole.leave_one_out()),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert appended.info.n == 9
    torch.testing.assert_close(appended.X, X)
    torch.testing.assert_close(appended.noise_variances(), whole.noise_variances())


def test_appending_leaves_the_former_posterior_as_it_was(rng):
    X, y = data(rng)
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(X, y)
    X_new = rows(rng, 4)
    before = posterior.marginals(X_new)
    posterior.append(rows(rng, 2), normal(rng, 2))
    torch.testing.assert_close(posterior.marginals(X_new), before, rtol=0, atol=0)
    assert posterior.info.n == 9


def test_a_thousand_appended_rows_drift_by_less_than_one_in_ten_million(rng):
    X, y = data(rng, 1020)
    model, X_new = model_of(Matern52(3, 0.5), noise=1e-3), rows(rng, 20)
    posterior = model.condition(X[:20], y[:20])
    posterior.marginals(X_new)  # so that the inverse root is extended as well
    for i in range(20, 1020):
        posterior = posterior.append(X[i : i + 1], y[i : i + 1])
    whole = model.condition(X, y)
    torch.testing.assert_close(
        posterior.marginals(X_new), whole.marginals(X_new), rtol=1e-7, atol=1e-7
    )


def test_an_observation_without_noise_can_be_appended_twice(rng):
    X, y = data(rng)
    exact = torch.zeros(9, dtype=torch.float64)
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(X, y, exact).append(X, y, exact)
    assert 0 < posterior.info.jitter < 1e-9
    torch.testing.assert_close(posterior.marginals(X)[0], y, rtol=0, atol=1e-6)
