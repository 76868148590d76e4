"""Sample paths: features are shared within a draw, so averages are taken over many draws."""

import pytest
import torch
from oracles import assert_mean_within, normal, uniform
from torch import Tensor
from torch.autograd import gradcheck

from surrogate import RBF, ExactGP, Hamming, Kernel, Matern12, Matern52, Posterior
from tests.surrogate.helpers import rows

KERNELS = {
    "rbf": RBF(2, [0.3, 1.0], 1.7),
    "matern12": Matern12(2, 0.8),
    "matern52": Matern52(2, 0.5),
    "mixed": Matern52(1, 0.5, columns=[0]) * (1.3 * Hamming(1, 0.7, columns=[1])),
    "sum": 0.5 * RBF(2, 0.5) + Matern52(1, 0.2, columns=[0]),
}
EVERY_KERNEL = pytest.mark.parametrize("name", KERNELS)


def posterior_of(name: str, rng: torch.Generator, n: int = 6, noise: float = 0.05) -> Posterior:
    model = ExactGP(KERNELS[name], mean=0.7, noise=noise)
    given = torch.full((n,), torch.nan, dtype=torch.float64)
    given[: n // 2] = 0.2
    return model.condition(rows(rng, n, d=2), normal(rng, n) + 0.7, given if noise > 1e-3 else None)


@EVERY_KERNEL
@pytest.mark.parametrize("n", [0, 6])
def test_over_many_draws_paths_have_the_mean_and_covariance_of_the_posterior(name, n, rng):
    posterior = posterior_of(name, rng, n)
    X = torch.cat([rows(rng, 4, d=2), posterior.X[:1]])
    mean, covariance = posterior.joint(X)
    means, products = [], []
    for _ in range(300):
        off = posterior.sample_paths(64, rng, features=64)(X) - mean  # (64, m)
        means.append(off.mean(0))
        products.append(off.T @ off / 64)
    assert_mean_within(torch.stack(means), 0.0)
    assert_mean_within(torch.stack(products), covariance)


@EVERY_KERNEL
def test_one_draw_with_the_default_features_is_near_the_posterior_already(name, rng):
    posterior = posterior_of(name, rng)
    X = rows(rng, 5, d=2)
    mean, covariance = posterior.joint(X)
    values = posterior.sample_paths(4000, rng)(X)
    torch.testing.assert_close(values.mean(0), mean, rtol=0, atol=0.1)
    torch.testing.assert_close(values.T.cov(), covariance, rtol=0, atol=0.15)


@EVERY_KERNEL
def test_a_path_is_a_function_the_same_at_every_call(name, rng):
    f = posterior_of(name, rng).sample_paths(3, rng, features=32)
    X = rows(rng, 5, d=2)
    assert f.count == 3
    assert f(X).shape == (3, 5)
    assert torch.equal(f(X), f(X))
    torch.testing.assert_close(f(X)[:, 2:3], f(X[2:3]))


def test_the_same_generator_state_gives_the_same_paths(rng):
    posterior, X = posterior_of("mixed", rng), rows(rng, 5, d=2)
    first, second = (
        posterior.sample_paths(3, torch.Generator().manual_seed(1))(X) for _ in range(2)
    )
    assert torch.equal(first, second)


@EVERY_KERNEL
def test_each_path_can_be_asked_at_points_of_its_own(name, rng):
    f = posterior_of(name, rng).sample_paths(4, rng, features=32)
    X = rows(rng, 4, 3, d=2)
    values = f(X)
    assert values.shape == (4, 3)
    for i in range(4):
        torch.testing.assert_close(values[i], f(X[i])[i])


@pytest.mark.parametrize("name", [n for n in KERNELS if n not in ("mixed", "matern12")])
def test_paths_can_be_differentiated(name, rng):
    f = posterior_of(name, rng).sample_paths(3, rng, features=32)
    assert gradcheck(f, (uniform(rng, 4, 2).requires_grad_(),))
    assert gradcheck(f, (uniform(rng, 3, 2, 2).requires_grad_(),))


def test_paths_over_categories_are_differentiated_in_the_real_columns(rng):
    f, X = posterior_of("mixed", rng).sample_paths(3, rng, features=32), rows(rng, 4, d=2)
    reals = X[:, :1].clone().requires_grad_()
    assert gradcheck(lambda x: f(torch.cat([x, X[:, 1:]], dim=1)), (reals,))


@EVERY_KERNEL
def test_paths_go_through_observations_without_noise(name, rng):
    posterior = posterior_of(name, rng, noise=1e-8)
    values = posterior.sample_paths(5, rng)(posterior.X)
    torch.testing.assert_close(values, posterior.y.expand(5, -1), rtol=0, atol=2e-3)


def test_paths_take_single_precision_inputs(rng):
    f, X = posterior_of("mixed", rng).sample_paths(2, rng, features=16), rows(rng, 3, d=2).float()
    assert torch.equal(f(X), f(X.double()))


def test_paths_keep_no_graph_and_change_nothing_in_the_posterior(rng):
    posterior, X = posterior_of("rbf", rng), rows(rng, 3, d=2)
    before = posterior.marginals(X)
    f = posterior.sample_paths(2, rng, features=16)
    assert not f(X).requires_grad
    torch.testing.assert_close(posterior.marginals(X), before, rtol=0, atol=0)


def test_a_number_of_inputs_that_is_not_the_number_of_paths_is_refused(rng):
    f = posterior_of("rbf", rng).sample_paths(4, rng, features=16)
    for wrong in (rows(rng, 3, 2, d=2), rows(rng, 1, 4, 2, d=2), rows(rng, d=2)):
        with pytest.raises(ValueError, match=r"X must have shape \(m, d\) or \(4, m, d\); got"):
            f(wrong)


def test_a_kernel_without_features_says_so(rng):
    class Linear(Kernel):
        def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
            return X1 @ X2.transpose(-1, -2)

    posterior = ExactGP(Linear()).condition(rows(rng, 3, d=2), normal(rng, 3))
    with pytest.raises(TypeError, match="Linear has no random features"):
        posterior.sample_paths(2, rng)


def test_a_user_kernel_with_features_has_paths(rng):
    class Linear(Kernel):
        def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
            return X1 @ X2.transpose(-1, -2)

        def features(self, count, generator):
            signs = torch.randn(2, count, generator=generator, dtype=torch.float64)
            return lambda X: X @ signs / count**0.5

    posterior = ExactGP(Linear(), noise=0.1).condition(rows(rng, 3, d=2), normal(rng, 3))
    values = posterior.sample_paths(2, rng, features=16)(rows(rng, 4, d=2))
    assert values.shape == (2, 4)
