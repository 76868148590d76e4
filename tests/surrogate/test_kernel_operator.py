"""K = k(X, X) as an operator, stored and tile by tile, against the dense matrix."""

import copy
import math

import numpy as np
import pytest
import torch
from oracles import central_difference, normal, uniform
from torch import Tensor, nn

from surrogate import RBF, Hamming, Kernel, Matern12, Matern32, Matern52, positive_parameter
from surrogate.operators import KernelOperator, default_budget
from surrogate.tiles.plain import tile_shape
from surrogate.workspace import Workspace
from tests.surrogate.helpers import assert_is_product, rows

STORAGES = ["float64", "float32", "tiles"]


class Polynomial(Kernel):
    """What a user writes: `forward` only."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.log_offset = positive_parameter("offset", offset)

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return (self.log_offset.exp() + X1 @ X2.transpose(-1, -2)) ** 2


KERNELS = {
    "rbf": lambda d: RBF(d, [0.5 + 0.1 * j for j in range(d)], 1.7),
    "matern12": lambda d: Matern12(d, 0.7, 0.3),
    "matern32": lambda d: Matern32(d, 0.4 * math.sqrt(d), 1.7),
    "matern52": lambda d: Matern52(d, [0.5 + 0.1 * j for j in range(d)], 1.7),
    "hamming": lambda d: Hamming(d, 3.0),
    "scaled": lambda d: 2.5 * Matern32(d, 0.9),
    "sum": lambda d: RBF(d, 0.8) + Matern32(1, 0.5, columns=[0]),
    "product": lambda d: Matern52(d, 0.9, 1.5) * Hamming(1, 0.7, columns=[d - 1]),
    "nested": lambda d: (
        0.5 * (Matern52(d, 0.9) * Hamming(1, 0.7, columns=[d - 1]) + RBF(d, 0.6)) * RBF(d, 2.0)
    ),
    "a user's own": lambda d: Polynomial(0.7),
    "a user's own, combined": lambda d: 2.0 * Polynomial(0.7) * RBF(d, 0.8) + Matern52(d, 0.9),
}
EVERY_KERNEL = pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
EVERY_STORAGE = pytest.mark.parametrize("storage", STORAGES)


def tolerance(kernel: Kernel, storage: str) -> float:
    if storage == "float32":
        return 3e-7
    # A Matérn-1/2 has a cusp: where points nearly meet, rounding of r² shows as its root.
    return 1e-10 if isinstance(kernel, Matern12) else 1e-13


# --------------------------------------------------------------------------------------
# K = k(X, X): products.
# --------------------------------------------------------------------------------------

# n, d, t; the rest is for small tiles.
SIZES = [(0, 3, 2), (1, 1, 65), (63, 2, 1), (64, 33, 16), (65, 6, 3), (513, 4, 7), (1100, 5, 2)]


@EVERY_STORAGE
@EVERY_KERNEL
@pytest.mark.parametrize(("n", "d", "t"), SIZES)
def test_law_products_equal_those_with_the_dense_matrix(make, storage, n, d, t, rng):
    kernel, X, V = make(d), rows(rng, n, d=d), normal(rng, n, t)
    K = KernelOperator(kernel, X, storage=storage)
    assert_is_product(K.matmul(V), kernel(X, X).detach(), V, tolerance(kernel, storage))


@EVERY_STORAGE
@EVERY_KERNEL
def test_law_tiles_and_strips_that_do_not_divide_n_meet_without_a_seam(
    make, storage, rng, small_tiles
):
    for n in (3, 4, 5, 11, 12, 13, 41):
        kernel, X, V = make(3), rows(rng, n), normal(rng, n, 2)
        K = KernelOperator(kernel, X, storage=storage)
        assert_is_product(K.matmul(V), kernel(X, X).detach(), V, tolerance(kernel, storage))


@EVERY_STORAGE
def test_more_columns_than_one_tile_has(storage, rng):
    n = sum(tile_shape(torch.device("cpu"))) + 77
    kernel, X, V = Matern52(2, 0.4), uniform(rng, n, 2), normal(rng, n, 2)
    K = KernelOperator(kernel, X, storage=storage)
    assert_is_product(K.matmul(V), kernel(X, X).detach(), V, tolerance(kernel, storage))


@EVERY_STORAGE
def test_the_right_hand_side_may_be_float32(storage, rng):
    kernel, X, V = RBF(2), uniform(rng, 20, 2), normal(rng, 20, 3).float()
    K = KernelOperator(kernel, X, storage=storage)
    assert_is_product(K.matmul(V), kernel(X, X).detach(), V.double(), tolerance(kernel, storage))


@EVERY_STORAGE
@EVERY_KERNEL
def test_law_a_workspace_used_by_one_operator_after_another_gives_the_same(
    make, storage, rng, small_tiles
):
    workspace, kernel = Workspace(), make(3)
    for n in (25, 13, 25, 40):
        X, V, A = rows(rng, n), normal(rng, n, 2), normal(rng, n, 2)
        fresh = KernelOperator(kernel, X, storage=storage)
        reused = KernelOperator(kernel, X, storage=storage, workspace=workspace)
        index = torch.arange(n)
        for _ in range(2):
            assert torch.equal(reused.matmul(V), fresh.matmul(V))
            assert torch.equal(reused.rows(index), fresh.rows(index))
            for ours, theirs in zip(reused.pullback(A, V), fresh.pullback(A, V), strict=True):
                assert torch.equal(ours, theirs)
        assert torch.equal(reused.precise.matmul(V), fresh.precise.matmul(V))
        assert torch.equal(reused.matmul(V), fresh.matmul(V))


@EVERY_STORAGE
@pytest.mark.parametrize("make", [RBF, Matern12, Matern32, Matern52])
def test_points_that_coincide_are_as_correlated_as_a_point_with_itself(make, storage, rng):
    X = uniform(rng, 30, 2)
    X[20:] = X[:10]
    kernel, V = make(2, 0.4, 1.7), normal(rng, 30, 2)
    K = KernelOperator(kernel, X, storage=storage)
    near = 1e-7 if make is Matern12 else 1e-14
    torch.testing.assert_close(K.rows(torch.arange(10))[:, 20:].diagonal(), K.diagonal()[:10],
                               rtol=near, atol=0)  # fmt: skip
    error = max(near, tolerance(kernel, storage))
    assert_is_product(K.matmul(V), kernel(X, X).detach(), V, error)
    assert all(g.isfinite().all() for g in K.pullback(V, V))


@EVERY_STORAGE
@pytest.mark.parametrize("make", [RBF, Matern12, Matern32, Matern52])
@pytest.mark.parametrize("lengthscale", [1e-25, 1e-3, 1e6])
def test_extreme_lengthscales_make_strangers_of_all_points_or_one_point(
    make, lengthscale, storage, rng
):
    kernel, V = make(2, lengthscale, 1.7), normal(rng, 40, 2)
    X = torch.cartesian_prod(torch.arange(8), torch.arange(5)).double() / 8  # 125 ℓ apart
    K = KernelOperator(kernel, X, storage=storage)
    dense = 1.7 * (torch.ones(40, 40) if lengthscale == 1e6 else torch.eye(40)).double()
    assert_is_product(K.matmul(V), dense, V, 1e-5)
    assert_is_product(K.matmul(V), kernel(X, X).detach(), V, tolerance(kernel, storage))
    assert all(g.isfinite().all() for g in K.pullback(V, V))


@EVERY_STORAGE
@pytest.mark.parametrize("make", [RBF, Matern32, Matern52])
def test_a_shift_of_all_inputs_by_a_million_changes_no_product(make, storage, rng, small_tiles):
    X = (uniform(rng, 40, 3) * 1024).round() / 1024  # so that the shift is exact
    kernel, V = make(3, 0.4), normal(rng, 40, 2)
    K = KernelOperator(kernel, X + 1e6, storage=storage)
    assert_is_product(K.matmul(V), kernel(X, X).detach(), V, max(tolerance(kernel, storage), 1e-9))
    here = KernelOperator(kernel, X).pullback(V, V)
    for ours, theirs in zip(K.pullback(V, V), here, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


# --------------------------------------------------------------------------------------
# K = k(X, X): gradients.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(1, 1), (23, 1), (41, 5), (23, 0)])
@EVERY_KERNEL
def test_law_gradients_of_bilinear_forms_equal_those_of_autograd(make, n, k, rng, small_tiles):
    kernel, X = make(3), rows(rng, n)
    A, B = normal(rng, n, k), normal(rng, n, k)
    received = KernelOperator(kernel, X, storage="tiles").pullback(A, B)
    parameters = list(kernel.parameters())
    expected = torch.autograd.grad((A * (kernel(X, X) @ B)).sum(), parameters)
    at_once = kernel.pullback(X, X, A @ B.T)
    for ours, automatic, dense in zip(received, expected, at_once, strict=True):
        torch.testing.assert_close(ours, automatic, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-10)


@EVERY_KERNEL
def test_law_gradients_of_bilinear_forms_match_central_differences(make, rng, small_tiles):
    kernel, X, A, B = make(2), rows(rng, 15, d=2), normal(rng, 15, 2), normal(rng, 15, 2)
    received = KernelOperator(kernel, X).pullback(A, B)

    def form(at: np.ndarray) -> float:
        moved = copy.deepcopy(kernel)
        nn.utils.vector_to_parameters(torch.from_numpy(at), moved.parameters())
        return (A * KernelOperator(moved, X).matmul(B)).sum().item()

    start = nn.utils.parameters_to_vector(kernel.parameters()).detach().numpy()
    received = torch.cat([g.reshape(-1) for g in received]).numpy()
    np.testing.assert_allclose(received, central_difference(form, start), rtol=1e-6, atol=1e-6)


@EVERY_STORAGE
def test_gradients_do_not_depend_on_the_storage(storage, rng):
    kernel, X, A = Matern52(4, 0.8), uniform(rng, 300, 4), normal(rng, 300, 3)
    stored = KernelOperator(kernel, X, storage=storage).pullback(A, A)
    for ours, dense in zip(stored, kernel.pullback(X, X, A @ A.T), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-10)


@EVERY_KERNEL
def test_law_gradients_of_nothing_are_zero(make):
    kernel, none = make(3), torch.empty(0, 3).double()
    gradients = KernelOperator(kernel, none).pullback(none, none)
    assert [g.shape for g in gradients] == [p.shape for p in kernel.parameters()]
    assert not any(g.any() for g in gradients)


def test_vectors_of_a_bilinear_form_come_in_pairs_of_the_right_length(rng):
    K = KernelOperator(RBF(2), uniform(rng, 5, 2))
    V = normal(rng, 5, 2)
    with pytest.raises(ValueError, match=r"B must have shape \(5, t\).*got \(4, 2\)"):
        K.pullback(V, V[:4])
    with pytest.raises(ValueError, match=r"as many columns.*got shapes \(5, 2\) and \(5, 1\)"):
        K.pullback(V, V[:, :1])


# --------------------------------------------------------------------------------------
# K = k(X, X): where it is kept.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 100, 700, 1100])
def test_storage_takes_half_a_matrix_and_says_so(n, rng):
    X = uniform(rng, n, 2)
    wide, narrow, none = (KernelOperator(RBF(2), X, storage=s) for s in STORAGES)
    assert 4 * n * n < wide.bytes <= 4 * n * n + 4 * 512 * n
    assert wide.bytes == 2 * narrow.bytes
    assert none.bytes == 0


@pytest.mark.parametrize("n", [1, 100, 700, 1100])
def test_auto_keeps_the_most_accurate_storage_that_the_budget_allows(n, rng):
    X = uniform(rng, n, 2)
    wide = 8 * (n * (n + 512) // 2)

    def chosen(budget: int, float32: bool = True) -> str:
        K = KernelOperator(RBF(2), X, budget=budget, float32=float32)
        assert K.bytes <= budget
        assert K.storage in repr(K)
        return K.storage

    assert chosen(wide) == chosen(wide, False) == "float64"
    assert chosen(wide - 1) == chosen(wide // 2) == "float32"
    assert chosen(wide // 2 - 1) == chosen(0) == "tiles"
    assert chosen(wide - 1, False) == chosen(wide // 2, False) == "tiles"
    assert KernelOperator(RBF(2), X).storage == "float64"  # of the memory of this machine


def test_the_budget_is_a_part_of_the_memory_there_is():
    assert 10**8 < default_budget() < 10**14


@EVERY_KERNEL
def test_law_of_k_in_float32_products_are_as_accurate_as_in_float64(make, rng, small_tiles):
    X, V = rows(rng, 41), normal(rng, 41, 3)
    K = KernelOperator(make(3), X, storage="float32")
    stored = K.matmul(torch.eye(41, dtype=torch.float64))
    assert torch.equal(stored, stored.float().double())
    assert_is_product(K.matmul(V), stored, V, 1e-15)


@pytest.mark.parametrize("make", [RBF, Matern12, Matern32, Matern52])
def test_float32_moves_the_eigenvalues_no_further_than_promised(make, rng):
    kernel, X = make(2, 0.3, 1.7), uniform(rng, 200, 2)
    K = kernel(X, X).detach()
    stored = KernelOperator(kernel, X, storage="float32").matmul(torch.eye(200).double())
    moved = torch.linalg.eigvalsh((stored + stored.T) / 2 - K)
    largest = torch.linalg.eigvalsh(K).max()
    assert moved.abs().max() < 1e-7 * (math.sqrt(200) * 1.7 + largest)


def test_arguments_that_make_no_kernel_matrix_are_refused(rng):
    with pytest.raises(ValueError, match=r"X must have shape \(n, d\)"):
        KernelOperator(RBF(2), uniform(rng, 5))
    with pytest.raises(ValueError, match=r"X has 1 NaN"):
        KernelOperator(RBF(1), torch.tensor([[math.nan]]))
    with pytest.raises(ValueError, match=r"storage must be one of .*'tiles'.*got 'float16'"):
        KernelOperator(RBF(2), uniform(rng, 5, 2), storage="float16")


# --------------------------------------------------------------------------------------
# What else preconditioners ask for.
# --------------------------------------------------------------------------------------


@EVERY_KERNEL
def test_law_points_of_equal_coordinates_are_one_point_to_the_kernel(make, rng):
    X = rows(rng, 6)
    X[4] = X[1]
    coordinates = KernelOperator(make(3), X).coordinates
    assert len(coordinates) == 6 and not coordinates.requires_grad
    assert torch.equal(coordinates[4], coordinates[1])
