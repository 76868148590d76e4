"""Models compute where their data are, and say there what they say on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import normal, uniform
from pretended_device import DEVICE, PretendedDevice, pretended_device
from torch import Tensor

from surrogate import (
    RBF,
    Cholesky,
    ExactGP,
    InducingGP,
    Matern52,
    compare,
    coverage,
    draw_parameters,
    fit,
    nlpd,
    rmse,
)
from surrogate.models.objective import ExactObjective, Parameters
from surrogate.models.root import InverseRoot
from surrogate.operators import Dense
from surrogate.sums import sums_by_group
from tests.surrogate.device_cases import CASES, EVERY_CASE, FITS, POSTERIORS, SOLVERS, values

CPU = torch.device("cpu")


def there(*tensors: Tensor) -> list[Tensor]:
    return [t.to(DEVICE) for t in tensors]


def assert_same(found: dict[str, Any], expected: dict[str, Any], share: float) -> None:
    """The same numbers up to a share of the largest, and on the device."""
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        for a, b in zip(found[name], numbers, strict=True):
            assert a.device == DEVICE, name
            off = (a.cpu() - b).abs().max()
            assert a.shape == b.shape and off <= share * b.abs().max() + 1e-12, (name, off)


def assert_on_the_cpu(model: ExactGP) -> None:
    assert {t.device for t in [*model.parameters(), *model.buffers()]} == {CPU}


# --------------------------------------------------------------------------------------
# Fits.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "solver"), FITS)
def test_a_fit_there_finds_what_one_here_does(name, solver):
    some = CASES[name]

    def fitted(data: tuple[Tensor, ...]) -> ExactGP:
        model = some.make(SOLVERS[solver], data[0])
        noise = data[2] if len(data) > 2 else None
        return fit(model, data[0], data[1], noise=noise, max_evaluations=3)

    here = fitted(some.data)
    with pretended_device():
        away = fitted(tuple(there(*some.data)))
    assert_on_the_cpu(away)
    for a, b in zip(away.parameters(), here.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert here.report is not None and away.report is not None
    told, expected = away.report, here.report
    assert (told.solver, told.evaluations, told.products, told.storage, told.n) == (
        expected.solver,
        expected.evaluations,
        expected.products,
        expected.storage,
        expected.n,
    )
    numbers = [
        (r.value, float(r.likelihood), r.likelihood.lower, r.likelihood.upper, r.jitter)
        for r in (told, expected)
    ]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-9)


@pytest.mark.parametrize(("name", "solver"), FITS)
def test_gradients_of_the_likelihood_reach_the_parameters(name, solver):
    some = CASES[name]

    def found(data: tuple[Tensor, ...]) -> list[Tensor]:
        model = some.make(SOLVERS[solver], data[0])
        value = model.log_marginal_likelihood(*data).value
        value.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        return [value.detach().cpu(), *gradients]

    here = found(some.data)
    with pretended_device():
        away = found(tuple(there(*some.data)))
    assert len(here) > 2
    for a, b in zip(away, here, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_draws_of_parameters_there_are_those_of_here():
    X, y = values(15, 0)

    def drawn(X: Tensor, y: Tensor) -> list[Tensor]:
        rng = torch.Generator().manual_seed(3)
        draws = draw_parameters(ExactGP(Matern52(2)), X, y, generator=rng, count=2, moves=1)
        return [p for model in draws.models for p in model.parameters()]

    here = drawn(X, y)
    with pretended_device():
        away = drawn(*there(X, y))
    for a, b in zip(away, here, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_models_are_compared_and_predictions_measured_there():
    X, y = values(14, 0)

    def measured(X: Tensor, y: Tensor) -> list[float]:
        rows = compare([ExactGP(RBF(2)), InducingGP(RBF(2), 4)], X, y)
        mean, std = rows.best.condition(X, y).predictive(X)
        numbers = [getattr(row, f) for row in rows for f in ("nlpd", "rmse", "rank_correlation")]
        return [*numbers, rmse(mean, y), nlpd(mean, std, y), coverage(mean, std, y)]

    here = measured(X, y)
    with pretended_device():
        assert measured(*there(X, y)) == pytest.approx(here, rel=1e-9)


# --------------------------------------------------------------------------------------
# Posteriors.
# --------------------------------------------------------------------------------------


def told(posterior: Any, X: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """What any posterior tells of the rows of X (6, d)."""
    rng = torch.Generator().manual_seed(5)
    wanted = X.clone().requires_grad_(True)
    mean, std = posterior.marginals(wanted)
    (mean.sum() + std.square().sum()).backward()
    assert wanted.grad is not None
    paths = posterior.sample_paths(3, rng, features=32)
    out = {
        "marginals": posterior.marginals(X),
        "their gradient": (wanted.grad,),
        "predictive": posterior.predictive(X),
        "joint": posterior.joint(X.reshape(2, 3, -1)),
        "sample": (posterior.sample(X, 2, rng),),
        "paths": (paths(X), paths(X.expand(3, *X.shape))),
    }
    if hasattr(posterior, "gradient"):
        out["gradient"] = posterior.gradient(X)
        out["gradients of paths"] = (paths.gradient(X),)
    if hasattr(posterior, "linearise"):
        mean, std, pullback = posterior.linearise(X)
        out["linearise"] = mean, std, pullback(mean, std)
        out["variance_bounds"] = posterior.variance_bounds(X)
        out["at the data"] = posterior.fitted(), posterior.noise_variances()
    if hasattr(posterior, "fantasise"):
        Y = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=torch.float64).to(X.device)
        fantasies = posterior.fantasise(X[:2], Y)
        wanted = X.reshape(2, 3, -1).clone().requires_grad_(True)
        mean, std = posterior.averages(wanted)
        (mean.sum() + std.sum()).backward()
        assert wanted.grad is not None
        out["averages"] = (*posterior.averages(wanted.detach()), wanted.grad)
        out["covariance"] = (posterior.covariance(X, X[:2]),)
        out["solve"] = (posterior.solve(posterior.y.unsqueeze(1)),)
        out["leave_one_out"] = posterior.leave_one_out()
        out["fantasies"] = (*fantasies.marginals(X), *fantasies.joint(X))
        _, _, pullback = fantasies.linearise(X)
        out["their pullback"] = (pullback(torch.ones_like(out["fantasies"][0]), X[:, 0]),)
    if hasattr(posterior, "mean"):
        out["mean"] = (posterior.mean(X),)
    return out


@pytest.mark.parametrize(("name", "solver"), POSTERIORS)
def test_a_posterior_there_tells_what_one_here_does(name, solver):
    some = CASES[name]
    X = 0.9 * some.data[0][:6] + (0.0 if name == "categories" else 0.05)
    if name == "categories":
        X[:, 1] = some.data[0][:6, 1]

    def all_told(data: tuple[Tensor, ...], more: tuple[Tensor, ...], X: Tensor) -> list[Any]:
        posterior = some.make(SOLVERS[solver], data[0]).condition(*data)
        appended = posterior.append(*more)
        means = {"marginals": appended.marginals(X), "joint": appended.joint(X.reshape(2, 3, -1))}
        return [told(posterior, X), means, posterior]

    here = all_told(some.data, some.more, X)
    with pretended_device():
        away = all_told(tuple(there(*some.data)), tuple(there(*some.more)), *there(X))
        for found, expected in zip(away[:2], here[:2], strict=True):
            # Blocks of K are made together there: iterations magnify what that rounds otherwise.
            assert_same(found, expected, 1e-10 if solver == "cholesky" else 1e-8)
        assert away[2].info.solver == here[2].info.solver
        assert_on_the_cpu(away[2].model)


@EVERY_CASE
def test_data_on_two_devices_are_refused(name):
    some = CASES[name]
    with pretended_device():
        X, y, *noise = there(*some.data)
        more = there(*some.more)
        model = some.make(SOLVERS["cholesky"], X)
        known = noise[0] if noise else None
        with pytest.raises(ValueError, match=r"must be on meta, where the other data are"):
            fit(model, X, y.cpu(), noise=known)
        with pytest.raises(ValueError, match=r"must be on cpu, where the other data are"):
            model.condition(X.cpu(), y, known)
        with pytest.raises(ValueError, match=r"noise must be on meta"):
            model.condition(X, y, torch.full(y.shape, 0.1, dtype=torch.float64))
        posterior: Any = model.condition(X, y, known)
        for ask in (
            posterior.marginals,
            posterior.predictive,
            posterior.joint,
            lambda X: posterior.sample(X, 1, torch.Generator()),
            lambda X: posterior.sample_paths(2, torch.Generator(), 8)(X),
            lambda X: posterior.append(X, *more[1:]),
        ):
            with pytest.raises(ValueError, match=r"X must be on meta, .* Pass X\.to\('meta'\)"):
                ask(some.more[0])
        with pytest.raises(ValueError, match=r"must be on meta"):
            posterior.append(more[0], some.more[1])


def test_lists_and_arrays_are_put_where_the_data_are():
    X, y = values(8, 0)
    expected = ExactGP(RBF(2)).condition(X, y).marginals(X[:3])
    with pretended_device():
        posterior = ExactGP(RBF(2)).condition(X.to(DEVICE), y.numpy())
        for found, same in zip(posterior.marginals(X[:3].tolist()), expected, strict=True):
            assert found.device == DEVICE
            torch.testing.assert_close(found.cpu(), same, rtol=1e-12, atol=1e-12)


def test_parameters_that_were_moved_to_a_device_are_refused():
    with pretended_device():
        X, y = there(*values(8, 0))
        model = ExactGP(RBF(2))
        moved = model.kernel.get_parameter("log_lengthscale").detach().to(DEVICE)
        model.kernel.register_parameter("log_lengthscale", torch.nn.Parameter(moved))
        for refusing in (lambda: fit(model, X, y), lambda: model.condition(X, y)):
            with pytest.raises(ValueError, match=r"kernel\.log_lengthscale is on meta\. Pass"):
                refusing()


# --------------------------------------------------------------------------------------
# How often the host waits.
# --------------------------------------------------------------------------------------


def waits_of_an_evaluation(device: PretendedDevice, model: ExactGP, *data: Tensor) -> int:
    """At new parameters, after a first evaluation."""
    X, y, noise = model.as_data(*data)
    parameters = Parameters(model)
    objective = ExactObjective(parameters, X, y, noise, Cholesky())
    x = parameters.position()
    objective(x)
    device.forget()
    objective(x + 0.01)
    return device.waits


@pytest.mark.parametrize(
    ("name", "waits"),
    # Whether K̂ has a factor; the value and the mean; the gradient. Factors of two matrices and a
    # derivative of k(x, x) for inducing points. Checks of the numbers of derivatives and of outputs
    # each time they are looked at; two sets of eigenvectors for a table.
    [("exact", 3), ("heteroskedastic", 3), ("inducing, given", 6), ("gradients", 4), ("table", 8)],
)
def test_an_evaluation_of_a_fit_waits_a_few_times(name, waits):
    with pretended_device() as device:
        data = there(*CASES[name].data)
        model = CASES[name].make(Cholesky(), data[0])
        assert waits_of_an_evaluation(device, model, *data) <= waits
        # What comes back is the gradient, the value and the mean: nothing that grows with n.
        assert sum(device.downloads) <= sum(p.numel() for p in model.parameters()) + 2
        assert max(device.uploads) <= 16  # points of the noise, by which its process is known


@pytest.mark.parametrize("name", ["exact", "heteroskedastic", "inducing, given"])
def test_marginals_by_a_factor_wait_for_nothing(name):
    with pretended_device() as device:
        data = there(*CASES[name].data)
        posterior: Any = CASES[name].make(Cholesky(), data[0]).condition(*data)
        posterior.marginals(data[0])
        device.forget()
        posterior.marginals(data[0])
        assert device.waits == 0 and max(device.uploads) <= 12


def test_clusters_are_gone_through_after_one_wait(rng):
    X = uniform(rng, 40, 2)
    K = torch.exp(-torch.cdist(X, X).square()) + 0.1 * torch.eye(40, dtype=torch.float64)
    index = torch.randperm(40, generator=rng).reshape(10, 4)
    here = InverseRoot.of(Dense(K), K[:, :3], index)
    with pretended_device() as device:
        root = InverseRoot.of(Dense(K.to(DEVICE)), K[:, :3].to(DEVICE), index.to(DEVICE))
        k = K.to(DEVICE)
        device.forget()
        projection = root.project(k)
        weights = root.weights(projection)
        assert len(projection.groups) == 10 and device.waits == 1
        assert torch.equal(weights.cpu(), here.weights(here.project(K)))


def test_sums_by_group_are_those_of_a_loop_everywhere(rng):
    numbers, group = normal(rng, 50, 2), torch.randint(4, (50,), generator=rng)
    expected = torch.stack([numbers[group == i].sum(0) for i in range(5)])
    torch.testing.assert_close(sums_by_group(numbers, group, 5), expected)
    with pretended_device() as device:
        found = sums_by_group(*there(numbers, group), 5)
        assert device.waits == 0 and "index_add_" not in device.calls
        torch.testing.assert_close(found.cpu(), expected)
