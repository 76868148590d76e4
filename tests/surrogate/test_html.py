"""Posteriors as a notebook shows them."""

import re
from html import unescape

import pytest
import torch
from oracles import uniform

from surrogate import BBMM, ExactGP, Hamming, InducingGP, Matern52, MultiOutputGP, fit


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    X = uniform(torch.Generator().manual_seed(0), 40, 2)
    return X, torch.sin(3 * X).sum(1)


def facts(posterior) -> dict[str, str]:
    """{name: what is said of it}"""
    html = posterior._repr_html_()
    rows = re.findall(r"<tr><th [^>]*>(.*?)</th><td [^>]*>(.*?)</td></tr>", html)
    assert html.count("<tr>") == len(rows)
    return {unescape(name): unescape(text) for name, text in rows}


def test_an_exact_posterior_tells_its_parameters_and_that_nothing_was_iterated(data):
    kernel = Matern52(2, lengthscale=[0.5, 2.0], variance=3.0)
    posterior = ExactGP(kernel, noise=0.01, mean=-1.5).condition(*data)
    found = facts(posterior)
    assert found["mean"] == "constant -1.5"
    assert found["kernel"] == "Matern52(dims=2): lengthscale [0.5, 2]; variance 3"
    assert "noise 0.01" in found["noise_model"]
    assert found["solver"] == f"cholesky: {posterior.info.reason}"
    assert found["solve"] == "no iterations: exact"
    assert "log marginal likelihood" not in found  # it was not fitted
    assert "given 40 observations" in posterior._repr_html_()


def test_an_iterated_one_tells_its_residual_and_the_error_of_its_likelihood(data):
    X, y = data
    model = fit(
        ExactGP(Matern52(2), solver=BBMM(tolerance=1e-4)),
        X,
        y + 0.1 * torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    )
    posterior = model.condition(X, y)
    found = facts(posterior)
    assert posterior.info.weights is not None and model.report is not None
    assert found["solve"] == str(posterior.info.weights)
    likelihood = model.report.likelihood
    assert found["log marginal likelihood"].startswith(f"{float(likelihood.value):.6g} nats")
    assert (
        f"between {likelihood.lower:.6g} and {likelihood.upper:.6g}"
        in (found["log marginal likelihood"])
    )
    assert found["K kept as"] == posterior.info.storage


def test_each_part_of_a_kernel_has_a_row_and_many_numbers_become_a_range():
    X = uniform(torch.Generator().manual_seed(0), 30, 21)
    kernel = Matern52(20, columns=list(range(20))) * Hamming(1, columns=[20])
    found = facts(ExactGP(kernel).condition(X, X.sum(1)))
    assert re.match(r"Matern52\(.*\): lengthscale 20 numbers from \S+ to ", found["kernel.first"])
    assert found["kernel.second"].startswith("Hamming(")


def test_posteriors_of_other_models_are_shown_too(data):
    X, y = data
    inducing = InducingGP(Matern52(2), 8).condition(X, y)
    assert facts(inducing)["solver"].startswith("inducing points")
    several = MultiOutputGP(Matern52(2), outputs=2).condition(X, torch.stack([y, -y], 1))
    assert "MultiOutputPosterior of MultiOutputGP" in several._repr_html_()
