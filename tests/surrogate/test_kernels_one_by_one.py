"""What is particular to one kernel, and how kernels are built, combined and refused."""

import math

import pytest
import torch
from oracles import assert_mean_within, matern, normal

from surrogate import (
    RBF,
    Columns,
    Hamming,
    Linear,
    Matern12,
    Matern32,
    Matern52,
    Periodic,
    Product,
    Scaled,
    Sum,
)
from tests.surrogate.helpers import Polynomial


def test_plus_and_times_build_sums_products_and_multiples():
    a, b = RBF(1), Matern52(1)
    assert isinstance(a + b, Sum)
    assert isinstance(a * b, Product)
    assert isinstance(2.0 * a, Scaled)
    assert isinstance(a * 2.0, Scaled)
    assert (a * 2.0).scale.item() == pytest.approx(2.0)


def test_a_stationary_kernel_given_no_lengthscale_takes_one_that_grows_with_the_root_of_dims():
    for dims in (1, 4, 9):
        ell = Matern52(dims).lengthscale
        assert ell.shape == (dims,)
        torch.testing.assert_close(ell.detach(), torch.full_like(ell, math.sqrt(dims) / 5))


def test_parameters_read_in_their_own_units():
    kernel = RBF(2, [0.3, 2.0], 1.7)
    torch.testing.assert_close(kernel.lengthscale.detach(), torch.tensor([0.3, 2.0]).double())
    assert kernel.variance.item() == pytest.approx(1.7)
    hamming = Hamming(3, 0.5)
    torch.testing.assert_close(hamming.lengthscale.detach(), torch.full((3,), 0.5).double())


def test_a_kernel_names_its_inputs_when_printed():
    assert str(Matern52(2, columns=[0, 3])) == "Matern52(dims=2, columns=(0, 3))"
    assert str(Hamming(2)) == "Hamming(dims=2)"


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_the_frequencies_of_a_matern_are_those_of_its_spectral_density(dims, rng):
    # E exp(iωᵀx) = ρ(x), Bochner's theorem: Rasmussen & Williams (2006), eq. 4.5.
    x = normal(rng, 6, dims)
    for kernel, nu in ((Matern12, 0.5), (Matern32, 1.5), (Matern52, 2.5)):
        omega = kernel(dims).frequencies(20_000, rng)
        expected = torch.tensor([matern(nu, float(row.norm())) for row in x]).double()
        assert_mean_within(torch.cos(x @ omega).T, expected)


def test_hamming_features_tell_apart_any_two_categories(rng):
    X = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [0.5], [0.25], [1e6], [1e6 + 1]]).double()
    kernel = Hamming(1, 0.2)  # 0.7 % shared
    products = [(lambda p: p @ p.T)(kernel.features(50, rng)(X)) for _ in range(300)]
    assert_mean_within(torch.stack(products), kernel(X, X).detach())


def test_a_kernel_without_features_says_how_to_get_samples(rng):
    with pytest.raises(TypeError, match=r"Polynomial has no random features.*define `features"):
        Polynomial(1.0).features(8, rng)


def test_two_kernels_that_share_parameters_are_refused():
    kernel = RBF(1)
    for combine in (Sum, Product):
        with pytest.raises(ValueError, match=r"share parameters.*copy\.deepcopy"):
            combine(kernel, 2.0 * kernel)


@pytest.mark.parametrize("make", [RBF, Matern12, Matern32, Matern52, Hamming])
def test_arguments_that_do_not_fit_together_are_named(make):
    with pytest.raises(ValueError, match=r"dims must be at least 1; got 0"):
        make(0)
    with pytest.raises(ValueError, match=r"columns must name 2 column\(s\).*got \[1\]"):
        make(2, columns=[1])
    with pytest.raises(ValueError, match=r"one number or 2 of them.*got shape \(3,\)"):
        make(2, [1.0, 2.0, 3.0])
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="lengthscale must be positive and finite; got"):
            make(2, bad)


def test_variances_and_scales_must_be_positive():
    with pytest.raises(ValueError, match="variance must be positive and finite; got 0"):
        RBF(1, variance=0.0)
    with pytest.raises(ValueError, match="scale must be positive and finite; got -2"):
        -2.0 * RBF(1)


@pytest.mark.parametrize(
    "kernel",
    [
        Columns(RBF(2, [0.5, 0.8]), [1, 1]),
        RBF(2, [0.5, 0.8], columns=[1, 1]),
        Periodic(2, 0.7, columns=[0, 0]),
        Linear(2, columns=[2, 2]),
    ],
    ids=lambda kernel: type(kernel).__name__,
)
def test_a_column_that_is_looked_at_twice_has_both_gradients(kernel, rng):
    X, Z, G = normal(rng, 6, 3), normal(rng, 5, 3), normal(rng, 6, 5)
    leaf = X.clone().requires_grad_()
    (kernel(leaf, Z) * G).sum().backward()
    torch.testing.assert_close(kernel.pullback_inputs(X, Z, G), leaf.grad)
