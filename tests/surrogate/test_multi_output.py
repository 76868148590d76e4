"""Models of several outputs, against the same model written out on one row per value."""

import math

import pytest
import torch
from oracles import assert_mean_within, normal, uniform
from torch import Tensor

from surrogate import (
    BBMM,
    RBF,
    Cholesky,
    Coregionalization,
    ExactGP,
    Homoskedastic,
    Matern52,
    MultiOutputGP,
    NoisePerTask,
    fit,
)

T = 3
NAN = math.nan


def data(rng: torch.Generator, n: int = 12, missing: bool = False) -> tuple[Tensor, Tensor]:
    X = uniform(rng, n, 2)
    f = torch.sin(5 * X[:, 0])
    Y = torch.stack([f + X[:, 1], f - X[:, 1], X[:, 0] * X[:, 1]], 1) + 0.1 * normal(rng, n, T)
    if missing:
        Y[uniform(rng, n, T) < 0.3] = NAN
        Y[0, 0], Y[1] = 0.3, NAN
    return X, Y


def icm(**options) -> MultiOutputGP:
    factor = torch.tensor([[0.9], [-0.5], [0.2]])
    C = Coregionalization(T, factor=factor, diagonal=[0.2, 0.5, 0.1])
    return MultiOutputGP(
        Matern52(2, [0.4, 0.9]), T, output_kernel=C, noise=0.03, mean=0.2, **options
    )


def lmc(**options) -> MultiOutputGP:
    kernels = [Matern52(2, [0.4, 0.9], 0.7), RBF(2, 0.8, 1.2)]
    return MultiOutputGP(kernels, T, rank=2, **options)


def curves(**options) -> MultiOutputGP:
    places = torch.tensor([0.0, 0.3, 1.0])
    return MultiOutputGP(Matern52(2, 0.6), places, output_kernel=RBF(1, 0.5), noise=0.02, **options)


def independent(**options) -> MultiOutputGP:
    return MultiOutputGP(Matern52(2, 0.6), T, output_kernel="independent", **options)


MODELS = {"icm": icm, "lmc": lmc, "curves": curves, "independent": independent}
EVERY_MODEL = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
WAYS = {
    "chosen": None,
    "cholesky": Cholesky(),
    "products": BBMM(tolerance=1e-11, variance_tolerance=1e-9, training_tolerance=1e-9),
}


class Dense:
    """The same, by loops over values and dense algebra."""

    def __init__(self, model: MultiOutputGP, X: Tensor, Y: Tensor) -> None:
        self.model, self.X = model, X
        self.there = [(i, t) for i in range(len(X)) for t in range(T) if not Y[i, t].isnan()]
        self.y = torch.stack([Y[i, t] for i, t in self.there]) - model.mean.detach()
        level = model.noise.detach().expand(T)
        self.Khat = self.between(X, self.there, X, self.there)
        self.Khat += torch.stack([level[t] for _, t in self.there]).diag()

    @torch.no_grad()
    def between(self, X1, entries1, X2, entries2) -> Tensor:
        kernel, places = self.model.kernel, self.model.places
        K = sum(
            k(X1, X2)[[i for i, _ in entries1]][:, [j for j, _ in entries2]]
            * c(places, places)[[t for _, t in entries1]][:, [u for _, u in entries2]]
            for k, c in kernel.terms
        )
        assert isinstance(K, Tensor)
        return K

    def log_density(self) -> float:
        normal = torch.distributions.MultivariateNormal(
            torch.zeros(len(self.y)).double(), self.Khat
        )
        return float(normal.log_prob(self.y))

    def joint(self, X: Tensor) -> tuple[Tensor, Tensor]:
        entries = [(i, t) for i in range(len(X)) for t in range(T)]
        k = self.between(X, entries, self.X, self.there)
        solved = torch.linalg.solve(self.Khat, torch.cat([self.y.unsqueeze(1), k.T], 1))
        mean = self.model.mean.detach() + k @ solved[:, 0]
        return mean.view(-1, T), self.between(X, entries, X, entries) - k @ solved[:, 1:]


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("way", WAYS)
@EVERY_MODEL
def test_likelihood_and_posterior_are_those_of_all_values(make, way, missing, rng):
    X, Y = data(rng, missing=missing)
    model = make(solver=WAYS[way])
    exact = Dense(model, X, Y)
    estimate = model.log_marginal_likelihood(X, Y)
    if way == "products":
        assert estimate.lower <= exact.log_density() <= estimate.upper
    else:
        assert float(estimate.value.detach()) == pytest.approx(exact.log_density(), abs=1e-8)
    posterior, new = model.condition(X, Y), torch.cat([uniform(rng, 4, 2), X[:2]])
    mean, covariance = exact.joint(new)
    close = {"rtol": 0, "atol": 1e-7}
    received, std = posterior.marginals(new)
    torch.testing.assert_close(received, mean, **close)
    torch.testing.assert_close(std.square().flatten(), covariance.diagonal(), **close)
    joint = posterior.joint(new)
    torch.testing.assert_close(joint[0], mean, **close)
    torch.testing.assert_close(joint[1], covariance, **close)
    again, noisy = posterior.predictive(new)
    torch.testing.assert_close(again, mean, **close)
    expected = std.square() + model.noise.detach().expand(T)
    torch.testing.assert_close(noisy.square(), expected)
    assert posterior.info.n == len(exact.there)


def test_the_choice_follows_from_what_is_there(rng):
    X, Y = data(rng)
    assert icm().condition(X, Y).info.solver == "eigenvectors"
    assert curves().condition(X, Y).info.solver == "eigenvectors"
    assert lmc().condition(X, Y).info.solver == "cholesky"
    Y[3, 1] = NAN
    assert icm().condition(X, Y).info.solver == "cholesky"


@EVERY_MODEL
def test_gradients_of_the_likelihood_match_differences_of_the_dense_one(make, rng):
    X, complete = data(rng, 6)
    gap = complete.clone()
    gap[2, 1] = NAN
    for Y in (complete, gap):
        model = make()
        parameters = [p for p in model.parameters() if p.requires_grad]
        value = model.log_marginal_likelihood(X, Y).value
        gradients = torch.autograd.grad(value, parameters)
        for p, gradient in zip(parameters, gradients, strict=True):
            for i in range(p.numel()):
                found = []
                for step in (1e-5, -1e-5):
                    p.data.view(-1)[i] += step
                    found.append(Dense(model, X, Y).log_density())
                    p.data.view(-1)[i] -= step
                slope = (found[0] - found[1]) / 2e-5
                assert float(gradient.reshape(-1)[i]) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@EVERY_MODEL
def test_values_may_be_told_row_by_row_and_one_by_one(make, rng):
    X, Y = data(rng, missing=True)
    at_once = make().condition(X, Y)
    posterior = make().condition(X[:5], Y[:5]).append(X[5:9], Y[5:9])
    posterior = posterior.append(X[9:], Y[9:])
    torch.testing.assert_close(posterior.marginals(X), at_once.marginals(X), rtol=0, atol=1e-8)
    more = torch.full((1, T), NAN).double()
    more[0, 2] = 0.7
    there = Y[1].isnan()
    assert there.all()
    both = Y.clone()
    both[1, 2] = 0.7
    posterior, at_once = posterior.append(X[1:2], more), make().condition(X, both)
    torch.testing.assert_close(posterior.marginals(X), at_once.marginals(X), rtol=0, atol=1e-8)


def test_samples_and_paths_have_the_mean_and_the_covariance_of_the_posterior(rng):
    X, Y = data(rng, missing=True)
    new = uniform(rng, 2, 2)
    posterior = curves().condition(X, Y)
    mean, covariance = posterior.joint(new)
    samples = posterior.sample(new, 4000, rng)
    assert samples.shape == (4000, 2, T)
    assert_mean_within(samples.flatten(1), mean.flatten())
    spread = (samples - mean).flatten(1)
    assert_mean_within(spread.unsqueeze(1) * spread.unsqueeze(2), covariance)
    paths = posterior.sample_paths(3000, rng, features=4000)
    drawn = paths(new)
    assert drawn.shape == (3000, 2, T)
    assert_mean_within(drawn.flatten(1), mean.flatten())
    torch.testing.assert_close(paths(new.expand(3000, 2, 2)), drawn)


def test_marginals_can_be_differentiated(rng):
    X, Y = data(rng)
    new = uniform(rng, 3, 2).requires_grad_()
    for make in (icm, lmc):
        posterior = make().condition(X, Y)
        assert torch.autograd.gradcheck(posterior.marginals, (new,), atol=1e-5)


def test_a_fit_finds_which_outputs_go_together_and_how_noisy_each_is(rng):
    X = uniform(rng, 60, 2)
    f, g = torch.sin(5 * X[:, 0]), torch.cos(4 * X[:, 1])
    Y = torch.stack([f, -f, g], 1) + normal(rng, 60, 3) * torch.tensor([0.05, 0.3, 0.05])
    Y = (Y - Y.mean(0)) / Y.std(0)
    for missing in (False, True):
        if missing:
            Y[uniform(rng, 60, 3) < 0.3] = NAN
        model = fit(MultiOutputGP(Matern52(2), 3, rank=2), X, Y)
        assert isinstance(model, MultiOutputGP) and model.report is not None
        assert model.report.solver == ("cholesky" if missing else "eigenvectors")
        correlation = model.task_correlation
        torch.testing.assert_close(correlation.diagonal(), torch.ones(3).double())
        assert correlation[0, 1] < -0.8 and correlation[0, 2].abs() < 0.5
        noise = model.noise.detach()
        assert noise[1] > 5 * noise[0] and noise[1] > 5 * noise[2]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_fit_of_a_complete_table_takes_few_decompositions_of_the_rows(seed, monkeypatch):
    rng = torch.Generator().manual_seed(seed)
    X = uniform(rng, 40, 2)
    Y = torch.sin(4 * X) @ normal(rng, 2, 5) + 0.1 * normal(rng, 40, 5)
    Y = (Y - Y.mean(0)) / Y.std(0)
    exact = fit(MultiOutputGP(Matern52(2), 5, solver=Cholesky()), X, Y)
    sizes = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr("torch.linalg.eigh", lambda A: (sizes.append(len(A)), eigh(A))[1])
    ours = fit(MultiOutputGP(Matern52(2), 5), X, Y)
    assert sizes.count(40) <= 40 < sizes.count(5)
    assert ours.report.solver == "eigenvectors"
    assert ours.report.value > exact.report.value - 0.05


def test_a_frozen_model_of_several_outputs_is_refused_and_a_partly_frozen_one_is_fitted(rng):
    X, Y = data(rng)
    model = icm()
    before = model.kernel.terms[0][0].lengthscale.detach().clone()
    model.kernel.terms[0][0].requires_grad_(False)
    fitted = fit(model, X, Y)
    assert torch.equal(fitted.kernel.terms[0][0].lengthscale, before)
    assert fitted.report.value > float(model.log_marginal_likelihood(X, Y).value.detach()) - 30
    only = icm()
    only.requires_grad_(False)
    only.kernel.terms[0][0].requires_grad_(True)
    assert not torch.equal(fit(only, X, Y).kernel.terms[0][0].lengthscale, before)
    with pytest.raises(ValueError, match="all parameters of the model are frozen"):
        fit(icm().requires_grad_(False), X, Y)


def test_an_output_that_is_seldom_seen_is_learnt_from_its_kin(rng):
    X = uniform(rng, 40, 1)
    f = torch.sin(6 * X[:, 0])
    Y = torch.stack([f, -f], 1) + 0.02 * normal(rng, 40, 2)
    hidden = Y[:, 1].clone()
    Y[4:, 1] = NAN
    models = [
        fit(MultiOutputGP(Matern52(1), 2, output_kernel=kind), X, Y)
        for kind in (None, "independent")
    ]
    errors = [
        float((m.condition(X, Y).marginals(X)[0][:, 1] - hidden).square().mean()) for m in models
    ]
    assert errors[0] < 0.1 * errors[1]


def test_independent_outputs_share_nothing_but_the_kernel(rng):
    X, Y = data(rng)
    model = independent(noise=NoisePerTask(T, noise=[0.1, 0.2, 0.3]))
    posterior = model.condition(X, Y)
    torch.testing.assert_close(model.task_correlation, torch.eye(T).double())
    for t in range(T):
        own = Matern52(2, 0.6, float(model.task_covariance[t, t]))
        alone = ExactGP(own, noise=0.1 * (t + 1), solver=Cholesky()).condition(X, Y[:, t])
        for ours, theirs in zip(
            posterior.marginals(X + 0.1), alone.marginals(X + 0.1), strict=True
        ):
            torch.testing.assert_close(ours[:, t], theirs, rtol=1e-7, atol=1e-7)


def test_given_noise_is_used(rng):
    X, Y = data(rng)
    given = torch.full((12, T), NAN).double()
    given[3, 1] = 1e6
    without = Y.clone()
    without[3, 1] = NAN
    new = uniform(rng, 3, 2)
    told, ignored = icm().condition(X, Y, given), icm().condition(X, without)
    torch.testing.assert_close(told.marginals(new), ignored.marginals(new), rtol=0, atol=1e-4)


def test_the_variance_of_a_kernel_is_left_to_the_covariance_of_the_outputs():
    model = MultiOutputGP(Matern52(2, 0.5, 3.0), T)
    assert float(model.task_covariance.diagonal().mean()) == pytest.approx(1.0, abs=1e-6)
    held = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert len(held) == 1 and held[0].endswith("log_variance")
    assert all(p.requires_grad for p in curves().parameters())


@pytest.mark.parametrize("n", [0, 1, 2])
def test_next_to_no_data_are_no_error(n, rng):
    X, Y = data(rng, 5)
    model = fit(icm(), X[:n], Y[:n])
    mean, std = model.condition(X[:n], Y[:n]).marginals(X)
    assert mean.shape == std.shape == (5, T) and bool(std.isfinite().all())
    nothing = torch.full_like(Y, NAN)
    assert icm().condition(X, nothing).info.n == 0


def test_what_does_not_fit_together_is_refused(rng):
    X, Y = data(rng)
    with pytest.raises(ValueError, match=r"shape \(12, 3\); got \(12, 2\)"):
        icm().condition(X, Y[:, :2])
    with pytest.raises(ValueError, match=r"noise must have shape \(12, 3\)"):
        fit(icm(), X, Y, noise=torch.ones(12))
    with pytest.raises(ValueError, match=r"2 column\(s\)"):
        icm().condition(X[:, :1], Y)
    with pytest.raises(ValueError, match=r"2 column\(s\)"):
        icm().condition(X, Y).marginals(X[:, :1])
    with pytest.raises(ValueError, match="y has 3 "):
        icm().condition(X, Y.index_fill(0, torch.tensor([2]), math.inf))
    with pytest.raises(ValueError, match="outputs must be at least 1"):
        MultiOutputGP(Matern52(2), 0)
    with pytest.raises(ValueError, match="different places"):
        MultiOutputGP(Matern52(2), torch.tensor([0.0, 0.0]), output_kernel=RBF(1))
    with pytest.raises(ValueError, match="need an output_kernel"):
        MultiOutputGP(Matern52(2), torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="as many output kernels"):
        MultiOutputGP([Matern52(2), RBF(2)], 2, output_kernel=Coregionalization(2))
    with pytest.raises(ValueError, match='or "independent"'):
        MultiOutputGP(Matern52(2), 2, output_kernel="alone")  # pyright: ignore
    with pytest.raises(ValueError, match="outputs that are numbered"):
        curves_with_noise_per_output()
    with pytest.raises(ValueError, match="pass dims"):
        MultiOutputGP(RBF(1, columns=[0]), 2)


def curves_with_noise_per_output() -> MultiOutputGP:
    places = torch.tensor([0.0, 1.0])
    return MultiOutputGP(RBF(1), places, output_kernel=RBF(1), noise="per output")


# --------------------------------------------------------------------------------------
# Noise.
# --------------------------------------------------------------------------------------


def test_noise_per_task_is_that_of_the_task_and_its_pullback_is_that_of_autograd(rng):
    noise = NoisePerTask(3, column=1, noise=[0.1, 0.2, 0.3])
    X = torch.tensor([[0.5, 2.0], [0.1, 0.0], [0.3, 2.0]]).double()
    torch.testing.assert_close(noise(X), torch.tensor([0.3, 0.1, 0.3]).double())
    weights = normal(rng, 3)
    (expected,) = torch.autograd.grad((noise(X) * weights).sum(), [noise.log_noise])
    torch.testing.assert_close(noise.pullback(X, weights)[0], expected)
    shared = Homoskedastic(0.2)
    (expected,) = torch.autograd.grad((shared(X) * weights).sum(), [shared.log_noise])
    torch.testing.assert_close(shared.pullback(X, weights)[0], expected)
    with pytest.raises(ValueError, match="number of a task, 0 to 2; got values from 1 to 3"):
        noise(X + torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="one number or 3"):
        NoisePerTask(3, noise=[0.1])
    with pytest.raises(ValueError, match="at least 1"):
        NoisePerTask(0)


def test_a_noise_of_ones_own_needs_a_formula_alone(rng):
    from surrogate import Noise, positive_parameter

    class Growing(Noise):
        def __init__(self) -> None:
            super().__init__()
            self.log_slope = positive_parameter("slope", 0.1)

        @property
        def level(self) -> Tensor:
            return self.log_slope.exp()

        def forward(self, X: Tensor) -> Tensor:
            return 1e-4 + self.level * X[:, 0]

    X = uniform(rng, 150, 1)
    y = torch.sin(6 * X[:, 0]) + (0.3 * X[:, 0]).sqrt() * normal(rng, 150)
    model = fit(ExactGP(Matern52(1), noise=Growing()), X, y)
    assert float(model.noise.detach()) == pytest.approx(0.3, rel=0.4)
    std = model.condition(X, y).predictive(torch.tensor([[0.05], [0.95]]))[1]
    assert std[1] > 2 * std[0]
