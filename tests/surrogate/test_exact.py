import copy
import math

import numpy as np
import pytest
import torch
from oracles import central_difference, normal, uniform
from scipy import stats
from torch import Tensor

from surrogate import RBF, ExactGP, Hamming, Kernel, Matern12, Matern52, prior_set
from surrogate.models.exact import log_marginal_likelihood_and_gradient
from surrogate.workspace import Workspace
from tests.surrogate.helpers import rows


class Linear(Kernel):
    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return X1 @ X2.transpose(-1, -2)


KERNELS = {
    "matern52": Matern52(3, [0.3, 1.0, 2.0], 1.7),
    "mixed": Matern52(2, 0.5, columns=[0, 1]) * (1.3 * Hamming(1, 0.7, columns=[2])),
    "sum": RBF(3, 0.5, 0.4) + Matern12(1, 0.2, columns=[2]),
    "a user's own": Linear() + RBF(3, 0.5),
}
GIVEN = torch.tensor([0.3, torch.nan, 0.02, torch.nan, torch.nan, 0.0, 1.0, 0.1, torch.nan])


def data(rng, n: int = 9) -> tuple[Tensor, Tensor]:
    return rows(rng, n), normal(rng, n) + 1.5


def model_of(kernel: Kernel) -> ExactGP:
    return ExactGP(kernel, mean=0.7, noise=0.05)


def moved(model: ExactGP, at: np.ndarray) -> ExactGP:
    """A copy at these values of [log kernel parameters …, log σ², m]."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        parameters = [*model.kernel.parameters(), model.noise_model.log_noise, model.constant]
        parts = torch.from_numpy(at).split([p.numel() for p in parameters])
        for p, part in zip(parameters, parts, strict=True):
            p.copy_(part.view(p.shape))
    return model


@pytest.mark.parametrize("noise", [None, GIVEN.double()], ids=["learnt noise", "given noise"])
@pytest.mark.parametrize("name", KERNELS)
def test_the_log_marginal_likelihood_is_the_normal_log_density_of_scipy(name, noise, rng):
    X, y = data(rng)
    model = model_of(KERNELS[name])
    variances = np.full(9, 0.05) if noise is None else np.nan_to_num(noise.numpy(), nan=0.05)
    covariance = KERNELS[name](X, X).detach().numpy() + np.diag(variances)
    expected = stats.multivariate_normal(np.full(9, 0.7), covariance).logpdf(y.numpy())
    assert model.log_marginal_likelihood(X, y, noise).value.item() == pytest.approx(
        expected, rel=1e-10
    )
    np.testing.assert_allclose(model.covariance(X, noise).detach(), covariance, atol=1e-13)


@pytest.mark.parametrize("noise", [None, GIVEN.double()], ids=["learnt noise", "given noise"])
@pytest.mark.parametrize("name", KERNELS)
def test_the_closed_form_gradient_is_that_of_autograd_and_of_differences(name, noise, rng):
    X, y = data(rng)
    model = model_of(KERNELS[name])
    given = torch.full((9,), torch.nan).double() if noise is None else noise
    value, gradients, jitter = log_marginal_likelihood_and_gradient(model, X, y, given, Workspace())
    expected = model.log_marginal_likelihood(X, y, noise).value
    assert value == pytest.approx(expected.item(), rel=1e-12)
    assert jitter == 0.0

    parameters = [*model.kernel.parameters(), model.noise_model.log_noise, model.constant]
    by_autograd = torch.autograd.grad(expected, parameters)
    for ours, theirs in zip(gradients, by_autograd, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-10, atol=1e-10)

    at = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy()
    by_differences = central_difference(
        lambda u: moved(model, u).log_marginal_likelihood(X, y, noise).value.item(), at
    )
    received = torch.cat([g.detach().reshape(-1) for g in gradients]).numpy()
    np.testing.assert_allclose(received, by_differences, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_a_workspace_carries_nothing_from_one_evaluation_to_the_next(name, rng):
    workspace, noise = Workspace(), torch.full((9,), torch.nan).double()
    for step in (0.0, 0.5, -0.3):
        X, y = data(rng)
        model = model_of(KERNELS[name])
        with torch.no_grad():
            for p in model.parameters():
                p += step
            reused = log_marginal_likelihood_and_gradient(model, X, y, noise, workspace)
            fresh = log_marginal_likelihood_and_gradient(model, X, y, noise, Workspace())
        assert reused[0] == fresh[0]
        assert all(torch.equal(a, b) for a, b in zip(reused[1], fresh[1], strict=True))


def test_jitter_that_an_evaluation_needed_is_reported(rng):
    X = uniform(rng, 1, 3).expand(9, 3)
    _, gradients, jitter = log_marginal_likelihood_and_gradient(
        model_of(RBF(3)), X, torch.zeros(9).double(), torch.zeros(9).double(), Workspace()
    )
    assert 0 < jitter < 1e-9
    assert all(g.isfinite().all() for g in gradients)


def test_no_data_have_probability_one():
    empty = torch.empty(0, 3, dtype=torch.float64)
    assert model_of(RBF(3)).log_marginal_likelihood(empty, empty[:, 0]).value.item() == 0.0


def test_parameters_that_were_given_no_value_start_where_their_priors_say():
    model = ExactGP(Matern52(4))
    start = prior_set("dimension-scaled-1")
    expected = torch.full((4,), start.prior("lengthscale", 4).start).double()
    torch.testing.assert_close(model.kernel.lengthscale.detach(), expected)
    assert model.kernel.variance.item() == pytest.approx(start.prior("variance", 4).start)
    assert model.noise.item() == pytest.approx(start.prior("noise", 1).start)
    assert model.mean.item() == 0.0


def test_parameters_that_were_given_a_value_keep_it():
    kernel = Matern52(2, lengthscale=0.1) * (3.0 * Hamming(1, lengthscale=0.2, columns=[0]))
    model = ExactGP(kernel + Linear(), mean=2.0, noise=0.3)
    assert (model.mean.item(), model.noise.item()) == pytest.approx((2.0, 0.3))
    matern, scaled = model.kernel.first.first, model.kernel.first.second
    assert matern.lengthscale.tolist() == pytest.approx([0.1, 0.1])
    assert matern.variance.item() == pytest.approx(1.0)  # not given: the prior's start
    assert scaled.scale.item() == pytest.approx(3.0)
    assert scaled.kernel.lengthscale.item() == pytest.approx(0.2)
    for received, given in zip(
        model.kernel.second.parameters(), Linear().parameters(), strict=True
    ):
        assert torch.equal(received, given)  # a role no prior knows


def test_the_model_keeps_a_copy_of_its_kernel(rng):
    kernel = RBF(3)
    model = ExactGP(kernel)
    with torch.no_grad():
        kernel.log_lengthscale += 1
    assert not torch.equal(model.kernel.lengthscale, kernel.lengthscale)


def test_priors_line_up_with_the_parameters_of_a_composed_kernel():
    model = ExactGP(Matern52(2, columns=[0, 1]) * (1.0 * Hamming(1, columns=[2])))
    priors = model.log_priors()
    parameters = [*model.kernel.parameters(), model.noise_model.log_noise]
    np.testing.assert_allclose(  # every parameter starts where its own prior says
        torch.cat([p.detach().reshape(-1) for p in parameters]).numpy(), priors.start
    )
    names = [name for name, p in model.kernel.named_parameters() for _ in range(p.numel())]
    for name, low in zip(names, np.exp(priors.low), strict=False):
        if name == "second.kernel.log_lengthscale":
            assert low == pytest.approx(5e-2)
        elif name.endswith("log_lengthscale"):
            assert low == pytest.approx(5e-3)


def test_the_width_of_the_inputs_is_known_where_some_kernel_sees_all_of_them():
    assert ExactGP(RBF(3)).dims == 3
    assert ExactGP(Hamming(2)).dims == 2
    assert ExactGP(2.0 * (RBF(3) + Matern12(1, columns=[2]))).dims == 3
    assert ExactGP(RBF(2, columns=[0, 1])).dims is None
    assert ExactGP(Linear()).dims is None


@pytest.mark.parametrize("kernel", [RBF(3), 2.0 * RBF(3), RBF(3) + Hamming(1, columns=[0])])
def test_inputs_of_another_width_are_refused_and_not_broadcast(kernel, rng):
    with pytest.raises(ValueError, match=r"X must have 3 column\(s\).*got shape \(5, 1\)"):
        ExactGP(kernel).condition(uniform(rng, 5, 1), normal(rng, 5))


def test_data_that_do_not_fit_are_refused_at_every_door(rng):
    X, y = data(rng)
    model = ExactGP(RBF(3))
    for call in (model.condition, model.log_marginal_likelihood):
        with pytest.raises(ValueError, match=r"y must have one value per row of X.*\(9,\)"):
            call(X, y.unsqueeze(-1))
        with pytest.raises(ValueError, match=r"X must have shape \(n, d\)"):
            call(X[0], y)
        with pytest.raises(ValueError, match="noise holds variances"):
            call(X, y, torch.full((9,), -1.0))
        with pytest.raises(ValueError, match="y has 1 NaN or infinite"):
            call(X, torch.cat([y[1:], torch.tensor([math.inf])]))


def test_noise_and_prior_names_are_checked():
    with pytest.raises(ValueError, match="noise must be positive and finite; got 0"):
        ExactGP(RBF(1), noise=0.0)
    with pytest.raises(ValueError, match="no prior set 'nice'"):
        ExactGP(RBF(1), priors="nice")
