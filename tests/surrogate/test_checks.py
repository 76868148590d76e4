"""Every message says what was expected, what came and what to do."""

import math

import numpy as np
import pytest
import torch

from surrogate.checks import as_matrix, as_noise, as_targets, check_finite


def test_a_good_matrix_comes_back_in_double_precision():
    X = torch.zeros(3, 2, dtype=torch.float64)
    assert as_matrix("X", X, 2) is X
    for other in (X.float(), X.int(), X.numpy(), X.tolist()):
        checked = as_matrix("X", other, 2)
        assert checked.dtype == torch.float64 and torch.equal(checked, X)


@pytest.mark.parametrize("shape", [(), (3,), (1, 3, 2)])
def test_what_is_not_a_matrix_is_refused_with_the_remedy(shape):
    with pytest.raises(ValueError, match=r"X must have shape \(n, d\).*got .*X\.unsqueeze\(-1\)"):
        as_matrix("X", torch.zeros(shape))


def test_another_number_of_columns_is_refused_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"Z must have 2 column\(s\).*got shape \(4, 3\)\..*with dims=3"
    ):
        as_matrix("Z", torch.zeros(4, 3), 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_counted(bad):
    X = torch.zeros(3, 2)
    X[1:, 0] = bad
    message = r"X has 2 NaN or infinite value\(s\) out of 6\. Drop those observations"
    with pytest.raises(ValueError, match=message):
        as_matrix("X", X)
    with pytest.raises(ValueError, match=message):
        check_finite("X", X)
    with pytest.raises(ValueError, match=r"y has 2 NaN or infinite value\(s\) out of 3"):
        as_targets("y", X[:, 0], 3)


@pytest.mark.parametrize("shape", [(), (2,), (3, 1), (1, 3)])
def test_targets_of_another_shape_are_refused_with_the_remedy(shape):
    with pytest.raises(
        ValueError,
        match=r"y must have one value per row of X: expected shape \(3,\), got .*squeeze\(-1\)",
    ):
        as_targets("y", torch.zeros(shape), 3)


def test_good_targets_come_back_in_double_precision():
    for y in (torch.ones(3), np.ones(3), [1, 1, 1]):
        assert torch.equal(as_targets("y", y, 3), torch.ones(3).double())


def test_noise_that_is_not_given_is_to_be_learnt():
    assert as_noise(None, 3).isnan().all()
    assert as_noise(None, 0).shape == (0,)


def test_noise_may_be_given_for_some_and_may_be_zero():
    noise = as_noise([0.0, math.nan, 2.0], 3)
    assert noise.dtype == torch.float64
    assert noise[0] == 0 and noise[1].isnan() and noise[2] == 2


def test_noise_of_another_shape_is_refused_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"one variance per observation: expected shape \(3,\), got \(\)\. Use NaN"
    ):
        as_noise(torch.tensor(0.1), 3)


@pytest.mark.parametrize("bad", [-0.5, math.inf])
def test_noise_that_is_no_variance_is_shown(bad):
    with pytest.raises(
        ValueError, match=rf"noise holds variances.*at least 0; got \[{bad}\]\. Use NaN"
    ):
        as_noise(torch.tensor([0.1, bad, math.nan]), 3)
