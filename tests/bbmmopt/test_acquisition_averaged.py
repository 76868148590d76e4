"""The mean of an acquisition function over several models."""

import math

import pytest
import torch
from oracles import uniform

from bbmmopt.acquisition import Acquisition, LogExpectedImprovement, LogMean
from surrogate import ExactGP, Matern52


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def _parts(rng, lengthscales=(0.2, 0.5, 1.5)):
    X = uniform(rng, 6, 2)
    y = torch.sin(5 * X.sum(1))
    return [
        LogExpectedImprovement(
            ExactGP(Matern52(2, length), noise=1e-4).condition(X, y), float(y.max())
        )
        for length in lengthscales
    ]


def test_it_is_the_log_of_the_mean_of_what_its_parts_are_logs_of(rng):
    parts = _parts(rng)
    X = uniform(rng, 5, 1, 2)
    expected = (sum(part(X).exp() for part in parts) / 3).log()
    torch.testing.assert_close(LogMean(parts)(X), expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences(rng):
    acquisition = LogMean(_parts(rng))
    X = uniform(rng, 3, 2)
    value, gradient = acquisition.value_and_gradient(X)
    torch.testing.assert_close(value, acquisition(X.unsqueeze(-2)))
    for j in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[j] = 1e-6
        slope = (acquisition((X + step).unsqueeze(1)) - acquisition((X - step).unsqueeze(1))) / 2e-6
        torch.testing.assert_close(gradient[:, j], slope, rtol=1e-5, atol=1e-6)


def test_where_no_part_expects_anything_there_is_no_slope():
    class Never(Acquisition):
        def __call__(self, X):
            return X.sum((-1, -2)) * 0 - math.inf

        def value_and_gradient(self, X):
            return torch.full((len(X),), -math.inf, dtype=X.dtype), torch.zeros_like(X)

    value, gradient = LogMean([Never(), Never()]).value_and_gradient(torch.rand(2, 2).double())
    assert (value == -math.inf).all() and (gradient == 0).all()


def test_nothing_to_average_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        LogMean([])
