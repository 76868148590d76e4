import math

import pytest
import torch
from oracles import normal, uniform
from scipy import stats

from surrogate import coverage, nlpd, rmse


def test_rmse_is_the_root_of_the_mean_square():
    assert rmse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0])) == pytest.approx(
        math.sqrt(9 / 2)
    )


def test_nlpd_is_minus_the_mean_log_density_of_scipy(rng):
    mean, std, y = normal(rng, 9), 0.1 + uniform(rng, 9), normal(rng, 9)
    expected = -stats.norm(mean.numpy(), std.numpy()).logpdf(y.numpy()).mean()
    assert nlpd(mean, std, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_coverage_of_calibrated_predictions_is_the_level(level, rng):
    n = 40_000
    mean, std = normal(rng, n), 0.1 + uniform(rng, n)
    received = coverage(mean, std, mean + std * normal(rng, n), level)
    assert abs(received - level) < 4 * math.sqrt(level * (1 - level) / n)


def test_coverage_counts_by_hand():
    mean, std = torch.zeros(4), torch.ones(4)
    assert coverage(mean, std, torch.tensor([0.0, 1.6, -1.7, 3.0]), 0.9) == 0.5


def test_metrics_are_plain_numbers_though_predictions_carry_a_graph():
    mean, std = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    y = torch.ones(2)
    for value in (rmse(mean, y), nlpd(mean, std, y), coverage(mean, std, y)):
        assert type(value) is float
