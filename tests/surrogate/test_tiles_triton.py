"""Fused tiles against dense algebra in float64, by Triton's interpreter."""

import math

import pytest
import torch
from oracles import normal, uniform
from torch import nn

import surrogate.tiles.fused as fusing
from surrogate import (
    RBF,
    FeatureMap,
    Hamming,
    Kernel,
    Matern12,
    Matern52,
    Periodic,
    PiecewisePolynomial,
    RationalQuadratic,
)
from surrogate.tiles.layout import FAR, SPREAD
from tests.surrogate.tile_cases import (
    BOTH,
    CASES,
    GRADIENT_TOLERANCE,
    TOLERANCE,
    Slopes,
    assert_product,
    data,
    dense,
    fused,
)

EVERY_KERNEL = pytest.mark.parametrize("name", CASES)
EVERY_TYPE = pytest.mark.parametrize("dtype", BOTH, ids=["float32", "float64"])


def check(kernel: Kernel, X: torch.Tensor, rng: torch.Generator, dtype, t: int = 2) -> None:
    """All that tiles compute for these points, and for others."""
    n = len(X)
    V, A, B = (normal(rng, n, t) for _ in range(3))
    X_new = torch.cat([X[: min(n, 3)], X[: min(n, 5)] + 0.01])
    tiles, K = fused(kernel, X, dtype), dense(kernel, X, X).detach()
    assert_product(tiles.product(V), K, V, TOLERANCE[dtype])
    assert_product(tiles.cross(X_new, V), dense(kernel, X_new, X).detach(), V, TOLERANCE[dtype])
    Slopes.of(kernel, X, A, B).check(kernel, tiles.pullback(A, B), GRADIENT_TOLERANCE[dtype])


# --------------------------------------------------------------------------------------
# Every kernel; every size.
# --------------------------------------------------------------------------------------


@EVERY_TYPE
@EVERY_KERNEL
def test_law_products_equal_those_with_the_dense_matrix(name, dtype, rng):
    kernel, X, V = CASES[name](), data(rng, 100), normal(rng, 100, 3)
    X_new = torch.cat([data(rng, 17), X[5:8]])
    tiles, K = fused(kernel, X, dtype), dense(kernel, X, X).detach()
    assert tiles.name == f"triton {str(dtype)[6:]}"
    product = tiles.product(V)
    assert_product(product, K, V, TOLERANCE[dtype])
    assert product.mT.is_contiguous()
    assert_product(tiles.cross(X_new, V), dense(kernel, X_new, X).detach(), V, TOLERANCE[dtype])


@EVERY_TYPE
@EVERY_KERNEL
def test_law_gradients_equal_those_of_autograd(name, dtype, rng):
    kernel, X, A, B = CASES[name](), data(rng, 100), normal(rng, 100, 2), normal(rng, 100, 2)
    received = fused(kernel, X, dtype).pullback(A, B)
    Slopes.of(kernel, X, A, B).check(kernel, received, GRADIENT_TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["matern52", "rational quadratic", "periodic", "mixed", "table"])
def test_rows_are_those_of_the_whole_and_gradients_by_rows_add_up_to_it(name, rng):
    kernel, X, V, A = CASES[name](), data(rng, 100), normal(rng, 100, 2), normal(rng, 100, 2)
    tiles, parts = fused(kernel, X, torch.float64), (slice(0, 37), slice(37, 37), slice(37, 100))
    rows = torch.cat([tiles.product(V, part) for part in parts])
    torch.testing.assert_close(rows, tiles.product(V), rtol=1e-13, atol=1e-13)
    sums = [sum(each) for each in zip(*(tiles.pullback(A, V, p) for p in parts), strict=True)]
    for ours, whole in zip(sums, tiles.pullback(A, V), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3, 7, 8, 10, 16, 17, 33, 64])
@pytest.mark.parametrize(
    ("make", "dtype"), [(RBF, BOTH[0]), (Matern52, BOTH[0]), (Matern52, BOTH[1])]
)
def test_dimensions_that_are_no_multiples_of_anything(make, d, dtype, rng):
    kernel, X = make(d, [0.4 * math.sqrt(d) * (1 + j / d) for j in range(d)]), uniform(rng, 70, d)
    X[60:] = X[:10]
    by_products = [f.padded > 0 for f in fused(kernel, X, dtype).layout.factors]
    assert by_products == [d >= 8 and dtype == torch.float32]
    check(kernel, X, rng, dtype)


@pytest.mark.parametrize("make", [Matern12, lambda d: PiecewisePolynomial(d, 0, 3.0)])
def test_a_cusp_is_made_of_direct_differences(make, rng):
    kernel, X = make(10), uniform(rng, 70, 10)
    X[60:] = X[:10] + 1e-2 * X[60:]
    assert [f.padded for f in fused(kernel, X).layout.factors] == [0]
    check(kernel, X, rng, torch.float32)


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 127, 129])
@pytest.mark.parametrize("d", [3, 10])
def test_numbers_of_points_that_are_no_multiples_of_a_tile(d, n, rng):
    check(Matern52(d, 0.4 * math.sqrt(d), 1.7), uniform(rng, n, d), rng, torch.float32)


@EVERY_TYPE
@pytest.mark.parametrize("t", [0, 1, 15, 16, 17, 64, 65])
def test_numbers_of_right_hand_sides_that_are_no_multiples_of_anything(t, dtype, rng):
    kernel, X = Matern52(3, 0.7, 1.7), uniform(rng, 66, 3)
    check(kernel, X, rng, dtype, t)


@EVERY_TYPE
@pytest.mark.parametrize("d", [3, 10])
def test_a_point_is_as_correlated_with_itself_as_can_be(d, dtype, rng):
    kernel, X = Matern52(d, 0.4 * math.sqrt(d), 2.0), uniform(rng, 70, d)
    diagonal = fused(kernel, X, dtype).product(torch.eye(70, dtype=torch.float64)).diagonal()
    assert torch.equal(diagonal, torch.full_like(diagonal, float(kernel.variance.detach())))


def test_nothing_times_a_vector_is_nothing(rng):
    none, X = torch.empty(0, 3).double(), uniform(rng, 5, 3)
    tiles = fused(RBF(3), none)
    assert torch.equal(tiles.cross(X, none[:, :2]), torch.zeros(5, 2).double())
    assert fused(RBF(3), X).cross(none, X).shape == (0, 3)
    assert not any(g.any() for g in tiles.pullback(none, none))


def test_what_has_no_room_in_a_tile_is_refused(rng):
    with pytest.raises(ValueError, match="too many parts to be fused; use tiles='torch'"):
        fused(Matern52(65), uniform(rng, 3, 65))


# --------------------------------------------------------------------------------------
# Inputs and parameters that ask for care.
# --------------------------------------------------------------------------------------


@EVERY_TYPE
@pytest.mark.parametrize("lengthscale", [1e-25, 1e-3, 0.03, 1e3, [1e-3, 1e3, 1.0]], ids=str)
@pytest.mark.parametrize("make", [RBF, Matern12, Matern52])
def test_extreme_lengthscales(make, lengthscale, dtype, rng):
    X = uniform(rng, 70, 3)
    X[60:], X[:20, 0] = X[:10], 0.5  # points that coincide; some that do in what matters
    X[20:25] = X[:5] + 1e-4
    kernel, V, A = make(3, lengthscale, 1.7), normal(rng, 70, 2), normal(rng, 70, 2)
    tiles, K = fused(kernel, X, dtype), dense(kernel, X, X).detach()
    # Differences of inputs near 1 in units of a lengthscale of 1e-3 lose 3 digits in float64.
    tolerance = TOLERANCE[dtype] if dtype == torch.float32 else 1e-12
    assert_product(tiles.product(V), K, V, tolerance)
    assert_product(tiles.cross(X[:30], V), K[:30], V, tolerance)
    Slopes.of(kernel, X, A, V).check(
        kernel, tiles.pullback(A, V), GRADIENT_TOLERANCE[dtype] if dtype.itemsize == 4 else 1e-11
    )


@pytest.mark.parametrize("d", [3, 10])
def test_points_far_from_the_others_but_near_each_other_keep_their_distances(d, rng):
    # Two clusters, 1000 lengthscales apart: in float32 alone their coordinates are off by 6e-5.
    X = 5e-3 * uniform(rng, 100, d)
    X[:50] += 1.0
    kernel, V, A = Matern52(d, 1e-3 * math.sqrt(d)), normal(rng, 100, 2), normal(rng, 100, 2)
    tiles, K = fused(kernel, X), dense(kernel, X, X).detach()
    assert [f.padded for f in tiles.layout.factors] == [FAR]
    assert_product(tiles.product(V), K, V, TOLERANCE[torch.float32])
    assert_product(tiles.cross(X[::9], V), K[::9], V, TOLERANCE[torch.float32])
    # Sums over points of what is 1000 away, times differences that are known to 6e-8.
    Slopes.of(kernel, X, A, V).check(kernel, tiles.pullback(A, V), 2e-5)


def test_what_float32_cannot_hold_is_computed_in_float64_and_says_so(rng):
    X = uniform(rng, 20, 2)
    assert fused(Matern52(2, 1e-14), X).name == "triton float32"
    tiles = fused(Matern52(2, 1e-16), X)
    assert (tiles.name, tiles.roundoff) == ("triton float64", fusing.ROUNDOFF[torch.float64])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Matern52(3, 0.4),
        lambda: RBF(10, 1.3),
        lambda: RationalQuadratic(3, 0.4, 2.0, 1.5),
        lambda: Matern12(3, 0.4),
    ],
)
@pytest.mark.parametrize("far", [1e3, 1e10, 1e30, 1e150])
def test_predictions_far_from_all_points(make, far, rng):
    kernel = make()
    X, V = uniform(rng, 66, kernel.dims), normal(rng, 66, 2)
    X_new = torch.cat([X[:3], far * (1 + uniform(rng, 4, kernel.dims))])
    product = fused(kernel, X).cross(X_new, V)
    assert_product(product, dense(kernel, X_new, X).detach(), V, TOLERANCE[torch.float32])


@EVERY_TYPE
@pytest.mark.parametrize("name", ["rbf", "periodic", "product", "columns of columns", "sum"])
def test_a_shift_of_all_inputs_by_a_million_changes_nothing(name, dtype, rng):
    X = data(rng, 80)
    X[:, :3] = (X[:, :3] * 1024).round() / 1024  # so that the shift is exact
    kernel, V, A = CASES[name](), normal(rng, 80, 2), normal(rng, 80, 2)
    tiles, K = fused(kernel, X + 2.0**20, dtype), dense(kernel, X, X).detach()
    assert_product(tiles.product(V), K, V, TOLERANCE[dtype])
    slopes = Slopes.of(kernel, X, A, V)
    slopes.check(kernel, tiles.pullback(A, V), GRADIENT_TOLERANCE[dtype])


def test_features_far_from_0_are_as_good_as_those_near_it(rng):
    X, V, layer = uniform(rng, 70, 2), normal(rng, 70, 2), nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.copy_(torch.tensor([1e5, -1e5]))
    kernel, same = FeatureMap(Matern52(2, 0.4), layer), Matern52(2, 0.4)
    tiles = fused(kernel, X)
    assert_product(tiles.product(V), dense(same, X, X).detach(), V, TOLERANCE[torch.float32])
    slopes = Slopes.of(same, X, V, V)
    slopes.check(same, tiles.pullback(V, V)[:2], GRADIENT_TOLERANCE[torch.float32])


def test_rounding_makes_no_square_of_a_distance_negative(rng):
    X = uniform(rng, 80, 33)
    X[40:] = X[:40] + 1e-5 * X[40:]  # less apart than products of points can tell
    kernel, V = Matern52(33, math.sqrt(3.3)), normal(rng, 80, 2)
    tiles = fused(kernel, X)
    assert [f.padded for f in tiles.layout.factors] == [64]
    assert_product(tiles.product(V), dense(kernel, X, X).detach(), V, 1e-6)
    Slopes.of(kernel, X, V, V).check(kernel, tiles.pullback(V, V), 1e-6)


@EVERY_TYPE
@pytest.mark.parametrize("variance", [1e-200, 1e-8, 1e8, 1e100])
def test_variances_of_any_size(variance, dtype, rng):
    X, V, base = uniform(rng, 70, 2), normal(rng, 70, 2), RBF(2, 0.4, variance)
    kernel, one = base * Hamming(2, 0.8), RBF(2, 0.4) * Hamming(2, 0.8)
    variance = float(base.variance.detach())  # of its logarithm
    tiles = fused(kernel, X, dtype)
    assert_product(tiles.product(V) / variance, dense(one, X, X).detach(), V, TOLERANCE[dtype])
    gradients = tuple(g / variance for g in tiles.pullback(V, V))
    Slopes.of(one, X, V, V).check(one, gradients, GRADIENT_TOLERANCE[dtype])


@EVERY_TYPE
def test_a_term_that_is_nothing_beside_another_keeps_its_gradient(dtype, rng):
    X, V = uniform(rng, 70, 2), normal(rng, 70, 2)
    small = RBF(2, 0.2, 1e-8)
    received = fused(Matern52(2, 0.4, 1e8) + small, X, dtype).pullback(V, V)
    Slopes.of(small, X, V, V).check(small, received[2:], GRADIENT_TOLERANCE[dtype])


def test_a_variance_that_is_nothing_gives_nothing(rng):
    kernel, X, V = RBF(2, 0.4), uniform(rng, 20, 2), normal(rng, 20, 2)
    kernel.log_variance.data.fill_(-1000.0)
    tiles = fused(kernel, X)
    assert not tiles.product(V).any() and not tiles.pullback(V, V)[0].any()


@EVERY_TYPE
@pytest.mark.parametrize("alpha", [1e-2, 1e2, 1e4, 1e8])
@pytest.mark.parametrize("lengthscale", [1e-6, 0.4])
def test_rational_quadratics_of_any_shape(alpha, lengthscale, dtype, rng):
    kernel, X = RationalQuadratic(2, lengthscale, 1.3, alpha), uniform(rng, 70, 2)
    V, A = normal(rng, 70, 2), normal(rng, 70, 2)
    tiles, received = fused(kernel, X, dtype), fused(kernel, X, dtype).pullback(A, V)
    u2 = ((X.unsqueeze(1) - X) / lengthscale).square().sum(-1)
    t, G = u2 / (2 * alpha), (A @ V.T + V @ A.T) / 2
    K = 1.3 * torch.exp(-alpha * t.log1p())
    assert_product(tiles.product(V), K, V, 10 * TOLERANCE[dtype])
    # d/d log α, of small t by its series, for autograd loses the digits.
    series = sum((-1) ** (k + 1) * (1 - 1 / k) * t**k for k in range(2, 9))
    slope = alpha * K * torch.where(t < 1e-2, series, t / (1 + t) - t.log1p())
    for ours, of_K in ((received[1], K), (received[2], slope)):
        error = (ours - (G * of_K).sum()).abs()
        assert error <= GRADIENT_TOLERANCE[dtype] * (G * of_K).abs().sum()


@EVERY_TYPE
def test_right_hand_sides_of_very_different_sizes_do_not_disturb_each_other(dtype, rng):
    kernel, X = Matern52(3, 0.7, 1.7), uniform(rng, 70, 3)
    size = torch.tensor([1.0, 1e12, 1e-12, 0.0, 1e300, 1e-300, 1e305], dtype=torch.float64)
    V = normal(rng, 70, 7)
    V[:, 6] = 1.2  # a power of two above it is beyond float64
    tiles, K = fused(kernel, X, dtype), dense(kernel, X, X).detach()
    product = tiles.product(V * size)
    assert not product[:, 3].any()
    kept = size > 0
    assert_product((product / size)[:, kept], K, V[:, kept], TOLERANCE[dtype])
    constant = torch.ones(70, 1).double()
    assert_product(tiles.product(constant), K, constant, TOLERANCE[dtype])
    spread = V * torch.logspace(-12, 12, 70).double().unsqueeze(1)
    assert_product(tiles.product(spread), K, spread, TOLERANCE[dtype])


def test_a_right_hand_side_as_large_as_float64_can_be(rng):
    X = uniform(rng, 10, 2)
    V = torch.zeros(10, 1).double()
    V[3] = 1.7e308  # a power of 2 above it is infinite
    received = fused(RBF(2, 0.4), X).product(V)
    torch.testing.assert_close(received, dense(RBF(2, 0.4), X, X).detach() @ V, rtol=1e-6, atol=0)


@EVERY_TYPE
@pytest.mark.parametrize("sizes", [(1e12, 1e-12), (1e200, 1e-190), (1e-60, 1e-100), (1e30, 1e30)])
def test_gradients_of_forms_of_any_size(sizes, dtype, rng):
    kernel, X = Matern52(2, 0.4), uniform(rng, 70, 2)
    A, B = normal(rng, 70, 3), normal(rng, 70, 3)
    A[:, 2] = 0.0
    tiles = fused(kernel, X, dtype)
    received = tiles.pullback(A * sizes[0], B * sizes[1])
    gradients = tuple(g / sizes[0] / sizes[1] for g in received)
    Slopes.of(kernel, X, A, B).check(kernel, gradients, GRADIENT_TOLERANCE[dtype])
    mixed = torch.tensor(
        [1.0, sizes[0], 1.0], dtype=torch.float64
    )  # the same form, its vectors unlike in size
    gradients = tiles.pullback(A * mixed, B / mixed)
    Slopes.of(kernel, X, A, B).check(kernel, gradients, GRADIENT_TOLERANCE[dtype])


@EVERY_TYPE
def test_categories_that_float32_cannot_tell_apart(dtype, rng):
    X = torch.cat([uniform(rng, 70, 1), 1e9 + (4 * uniform(rng, 70, 1)).floor()], 1)
    X[0, 1], X_new = -0.0, X[:9].clone()
    X_new[0, 1], X_new[1, 1], X_new[2, 1] = 0.0, 1e9 + 77, 1e9 + 0.5  # known, and twice not
    kernel, V = RBF(1, 0.4, columns=[0]) * Hamming(1, 0.5, columns=[1]), normal(rng, 70, 2)
    tiles = fused(kernel, X, dtype)
    assert_product(tiles.product(V), dense(kernel, X, X).detach(), V, TOLERANCE[dtype])
    assert_product(tiles.cross(X_new, V), dense(kernel, X_new, X).detach(), V, TOLERANCE[dtype])


def test_points_of_middling_spread_have_their_gradients_by_differences(rng):
    kernel, X, A, V = RBF(6, 0.06), uniform(rng, 90, 6), normal(rng, 90, 2), normal(rng, 90, 2)
    X[45:] = X[:45] + 0.02 * X[45:]
    tiles = fused(kernel, X)
    assert [f.padded for f in tiles.layout.factors] == [SPREAD]
    Slopes.of(kernel, X, A, V).check(kernel, tiles.pullback(A, V), 1e-7)


def test_the_period_is_learnt_far_from_0_as_well(rng):
    X, A = uniform(rng, 80, 1), normal(rng, 80, 2)
    here, there = (fused(Periodic(1, 0.5, 0.9), X + s).pullback(A, A) for s in (0.0, 2.0**20))
    torch.testing.assert_close(there[0], here[0], rtol=1e-4, atol=1e-4)
