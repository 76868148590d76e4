"""Draws of parameters from their posterior, against quadrature."""

import math

import numpy as np
import pytest
import torch
from oracles import uniform

from surrogate import ExactGP, Matern52, draw_parameters, fit


def _few(rng, n=8, d=1):
    X = uniform(rng, n, d)
    y = torch.sin(6 * X[:, 0]) + 0.3 * X.sum(1)
    return X, (y - y.mean()) / y.std()


def _model(dims):
    model = ExactGP(Matern52(dims), noise=1e-3)
    for noise in model.noise_model.parameters():
        noise.requires_grad_(False)
    return model


def _log_posterior(model, X, y):
    """Of log ℓ and log s², up to a constant, with the mean at its most likely value."""
    K = model.kernel(X, X) + model.noise * torch.eye(len(X), dtype=X.dtype)
    one = torch.ones_like(y)
    mean = one @ torch.linalg.solve(K, y) / (one @ torch.linalg.solve(K, one))
    r = y - mean
    log_p = -0.5 * (r @ torch.linalg.solve(K, r) + torch.logdet(K))
    # Log-normal priors of "dimension-scaled-1" in one dimension, as `fit` sees them: log x is
    # normal around the logarithm of the mode, location - scale².
    log_prior = -0.5 * (
        ((model.kernel.lengthscale.log() - math.sqrt(2) + 3) / math.sqrt(3)).square().sum()
        + ((model.kernel.variance.log() - 0.5 + 0.7071**2) / 0.7071).square()
    )
    return float(log_p + log_prior)


def test_draws_have_the_moments_of_the_posterior_by_quadrature(rng):
    X, y = _few(rng)
    model = fit(_model(1), X, y)
    grid = np.linspace(-4, 4, 41)
    at_mode = [
        math.log(float(v.detach())) for v in (model.kernel.lengthscale, model.kernel.variance)
    ]
    density = np.empty((41, 41))
    with torch.no_grad():
        for i, a in enumerate(grid):
            for j, b in enumerate(grid):
                moved = ExactGP(
                    Matern52(1, math.exp(at_mode[0] + a), math.exp(at_mode[1] + b)), noise=1e-3
                )
                density[i, j] = _log_posterior(moved, X, y)
    density = np.exp(density - density.max())
    density /= density.sum()
    drawn = draw_parameters(model, X, y, count=300, moves=3, generator=rng)
    kernels = [m.kernel.requires_grad_(False) for m in drawn.models]
    logs = [[math.log(float(v)) for v in (k.lengthscale, k.variance)] for k in kernels]
    found = np.array(logs) - np.array(at_mode)
    for axis in (0, 1):
        marginal = density.sum(1 - axis)
        mean = marginal @ grid
        std = math.sqrt(marginal @ (grid - mean) ** 2)
        error = std / math.sqrt(len(found))
        assert abs(found[:, axis].mean() - mean) < 4 * error + 0.02
        assert found[:, axis].std() == pytest.approx(std, rel=0.15)
    assert drawn.accepted > 0.8


def test_many_data_leave_less_open_than_few(rng):
    X, y = _few(rng, 200, 2)

    def spread(n):
        few = X[:n], y[:n]
        models = draw_parameters(fit(_model(2), *few), *few, count=24, generator=rng).models
        return torch.stack([m.kernel.lengthscale.detach()[0].log() for m in models]).std()

    assert spread(200) < 0.5 * spread(6)


def test_the_model_stays_and_the_draws_are_those_of_the_generator(rng):
    X, y = _few(rng, 8, 2)
    model = fit(ExactGP(Matern52(2)), X, y)
    before = [p.clone() for p in model.parameters()]
    first, second = (
        draw_parameters(model, X, y, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert all(map(torch.equal, before, model.parameters()))
    for a, b in zip(first.models, second.models, strict=True):
        assert all(map(torch.equal, a.parameters(), b.parameters()))
    assert len(first.models) == 8 and first.accepted > 0.5
    p = 4  # two lengthscales, variance, noise
    assert first.evaluations <= p + 1 + 8 * (2 * 4 + 1) + 1
    distinct = {m.kernel.lengthscale.detach().numpy().tobytes() for m in first.models}
    assert len(distinct) > 1


def test_a_draw_is_conditioned_like_any_model(rng):
    X, y = _few(rng, 8, 2)
    noise = torch.full_like(y, 1e-2)
    model = fit(ExactGP(Matern52(2)), X, y, noise=noise)
    drawn = draw_parameters(model, X, y, noise=noise, generator=rng).models[0]
    mean, std = drawn.condition(X, y, noise).marginals(X)
    assert (mean - y).abs().max() < 0.5 and std.max() < 0.5


def test_what_cannot_be_drawn_is_told(rng):
    X, y = _few(rng)
    with pytest.raises(ValueError, match="at least 1; got count=0"):
        draw_parameters(ExactGP(Matern52(1)), X, y, count=0, generator=rng)
    frozen = ExactGP(Matern52(1)).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_parameters(frozen, X, y, generator=rng)
