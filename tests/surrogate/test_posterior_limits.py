"""Posteriors by a Cholesky factor at their limits: degenerate data, immutability, refusals."""

import copy
import math
import pickle

import pytest
import torch
from oracles import normal, uniform
from torch import Tensor

from surrogate import RBF, Cholesky, ExactGP, Kernel, Posterior, fit
from tests.surrogate.helpers import rows
from tests.surrogate.posterior_cases import EVERY_KERNEL, KERNELS, MEAN, NOISE, data, model_of

# --------------------------------------------------------------------------------------
# Degenerate data: finite, never negative, no exception, jitter told.
# --------------------------------------------------------------------------------------


@EVERY_KERNEL
def test_constant_targets_are_predicted_everywhere_near_them(name, rng):
    X, _ = data(rng)
    posterior = model_of(KERNELS[name]).condition(X, torch.full((9,), MEAN, dtype=torch.float64))
    mean, _ = posterior.marginals(rows(rng, 5))
    torch.testing.assert_close(mean, torch.full_like(mean, MEAN))


@pytest.mark.parametrize("noise", [1e-2, 1e-6, 1e-10])
@EVERY_KERNEL
def test_an_observation_leaves_no_more_uncertainty_than_its_noise(name, noise, rng):
    X, y = data(rng, 30)
    posterior = model_of(KERNELS[name], noise=noise).condition(X, y)
    _, std = posterior.marginals(X)
    # Where two rows are computed apart, rounding of r² at coincident points costs the Matérn-1/2,
    # linear in r, half the digits.
    rounding = 1e-6 if name == "matern12" else 1e-10
    assert (std.square() <= noise * (1 + 1e-6) + rounding).all()
    assert (std >= 0).all()


@pytest.mark.parametrize("name", [n for n in KERNELS if "user" not in n])
def test_standard_deviations_are_positive_even_where_nothing_is_unknown(name, rng):
    X, y = data(rng)
    X, y = torch.cat([X] * 5), torch.cat([y] * 5)
    posterior = model_of(KERNELS[name], noise=1e-10).condition(X, y)
    _, std = posterior.marginals(torch.cat([X, X + 1e-9]))
    assert (std > 0).all()


def test_where_nothing_is_unknown_std_rests_on_its_floor_without_a_gradient():
    one, exact = torch.full((1, 3), 0.5).double(), torch.zeros(1).double()
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(one, exact, exact)
    X = torch.cat([one, one + 1e-10, one + 0.1]).requires_grad_()
    _, std = posterior.marginals(X)
    (gradient,) = torch.autograd.grad(std.sum(), X)
    assert (std[:2] > 0).all() and (std[:2] < 1e-6).all()
    assert not gradient[:2].any() and gradient[2].all()


def test_repeated_observations_count_as_one_with_less_noise(rng):
    X, y = data(rng)
    X_new, model = rows(rng, 5), model_of(RBF(3, 0.35, 1.0))
    many = model.condition(X.repeat(4, 1), y.repeat(4))
    one = model.condition(X, y, torch.full((9,), NOISE / 4, dtype=torch.float64))
    torch.testing.assert_close(many.marginals(X_new), one.marginals(X_new), rtol=1e-8, atol=1e-8)


def test_jitter_is_reported_when_repeats_without_noise_need_it(rng):
    X, y = data(rng)
    exact = torch.zeros(18, dtype=torch.float64)
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(X.repeat(2, 1), y.repeat(2), exact)
    assert 0 < posterior.info.jitter < 1e-9
    assert posterior.info.solver == "cholesky"
    assert model_of(RBF(3, 0.35, 1.0)).condition(X, y).info.jitter == 0.0


def test_a_dead_input_has_no_influence(rng):
    X, y = data(rng)
    kernel = RBF(4, [0.3, 1.0, 2.0, 1e3])
    X_new = rows(rng, 5)
    alive = model_of(RBF(3, [0.3, 1.0, 2.0])).condition(X, y).marginals(X_new)
    dead = model_of(kernel).condition(torch.cat([X, uniform(rng, 9, 1)], 1), y)
    received = dead.marginals(torch.cat([X_new, uniform(rng, 5, 1)], 1))
    torch.testing.assert_close(received, alive, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in KERNELS if "user" not in n])
def test_a_shift_of_all_inputs_by_a_million_changes_nothing(name, rng):
    X, y = data(rng)
    X = (X * 1024).round() / 1024  # so that the shift is exact
    X_new = (rows(rng, 5) * 1024).round() / 1024
    model = model_of(KERNELS[name])
    here = model.condition(X, y).marginals(X_new)
    there = model.condition(X + 1e6, y).marginals(X_new + 1e6)
    torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-8)


# --------------------------------------------------------------------------------------
# Immutable.
# --------------------------------------------------------------------------------------


def test_the_tensors_of_the_caller_are_neither_written_into_nor_kept(rng):
    X, y = data(rng)
    noise, X_new = torch.full((9,), 0.1).double(), rows(rng, 4)
    originals = [t.clone() for t in (X, y, noise, X_new)]
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(X, y, noise)
    before = posterior.marginals(X_new)
    posterior.joint(X_new)
    posterior.sample(X_new, 2, rng)
    posterior.sample_paths(2, rng, features=8)(X_new)
    appended = posterior.append(X_new, y[:4], noise[:4])
    after = appended.marginals(X)
    for tensor, original in zip((X, y, noise, X_new), originals, strict=True):
        assert torch.equal(tensor, original)
    for tensor in (X, y, noise, X_new):
        tensor += 1.0
    torch.testing.assert_close(posterior.marginals(originals[3]), before, rtol=0, atol=0)
    torch.testing.assert_close(appended.marginals(originals[0]), after, rtol=0, atol=0)


def test_later_changes_to_the_model_do_not_reach_the_posterior(rng):
    X, y = data(rng)
    model = model_of(KERNELS["mixed"])
    posterior, X_new = model.condition(X, y), rows(rng, 4)
    untouched = copy.deepcopy(model).condition(X, y).marginals(X_new)
    with torch.no_grad():
        for p in model.parameters():
            p += 1.0
    torch.testing.assert_close(posterior.marginals(X_new), untouched, rtol=0, atol=0)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in posterior.model.parameters())


def test_a_result_can_be_written_into_without_harm(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    X_new = rows(rng, 4)
    before = [t.clone() for t in (*posterior.marginals(X_new), *posterior.joint(X_new))]
    for result in (*posterior.marginals(X_new), *posterior.joint(X_new)):
        result.zero_()
    after = (*posterior.marginals(X_new), *posterior.joint(X_new))
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_a_posterior_survives_pickling(rng):
    posterior = fit(ExactGP(KERNELS["mixed"]), *data(rng)).condition(*data(rng))
    twin = pickle.loads(pickle.dumps(posterior))
    X_new = rows(rng, 4)
    torch.testing.assert_close(twin.marginals(X_new), posterior.marginals(X_new), rtol=0, atol=0)


def test_a_posterior_says_its_size():
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(torch.zeros(2, 3), torch.zeros(2))
    assert isinstance(posterior, Posterior)
    assert repr(posterior) == "Posterior(n=2, d=3)"


def test_solve_applies_the_inverse_of_the_noisy_covariance(rng):
    X, y = data(rng)
    posterior, B = model_of(RBF(3, 0.35, 1.0)).condition(X, y), normal(rng, 9, 2)
    K = RBF(3, 0.35, 1.0)(X, X).detach() + NOISE * torch.eye(9, dtype=torch.float64)
    torch.testing.assert_close(posterior.solve(K @ B), B, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------------------
# At the door.
# --------------------------------------------------------------------------------------


def test_inputs_of_another_width_are_refused(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    wide = uniform(rng, 2, 4)
    for call in (posterior.marginals, posterior.joint, lambda X: posterior.sample(X, 2, rng)):
        with pytest.raises(ValueError, match=r"X must have 3 column\(s\).*got shape \(2, 4\)"):
            call(wide)
    with pytest.raises(ValueError, match=r"X must have 3 column\(s\)"):
        posterior.append(wide, normal(rng, 2))


def test_joint_asks_for_groups_of_points(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    with pytest.raises(ValueError, match=r"shape \(\.\.\., q, d\).*got \(3,\).*unsqueeze\(0\)"):
        posterior.joint(uniform(rng, 3))


def test_appended_targets_and_noise_are_checked(rng):
    posterior = model_of(RBF(3, 0.35, 1.0)).condition(*data(rng))
    with pytest.raises(ValueError, match="one value per row"):
        posterior.append(rows(rng, 2), normal(rng, 3))
    with pytest.raises(ValueError, match="one variance per observation"):
        posterior.append(rows(rng, 2), normal(rng, 2), normal(rng, 3))
    with pytest.raises(ValueError, match="y has 1 NaN"):
        posterior.append(rows(rng, 1), torch.tensor([math.nan]))


def test_a_kernel_that_is_not_positive_definite_is_named(rng):
    class Distance(Kernel):
        def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
            return torch.cdist(X1, X2)

    with pytest.raises(ValueError, match="Is the kernel positive definite"):
        ExactGP(Distance(), noise=1e-6, solver=Cholesky()).condition(*data(rng))
