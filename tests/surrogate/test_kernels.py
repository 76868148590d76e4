"""Laws that hold for every kernel."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from oracles import assert_mean_within, central_difference, kernel_matrix, matern, normal, uniform
from torch import Tensor, nn

from surrogate import (
    RBF,
    Conditional,
    Coregionalization,
    Hamming,
    Kernel,
    Matern12,
    Matern32,
    Matern52,
    positive_parameter,
)
from surrogate.kernels.base import _AutogradLinearised
from surrogate.workspace import Workspace
from tests.surrogate.helpers import Polynomial
from tests.surrogate.smooth_cases import FROM_THE_ORIGIN, SMOOTH, WITHOUT_FEATURES
from tests.surrogate.structured_cases import STRUCTURED

# Every kernel sees rows of five columns: three of real numbers, two of categories.
REAL, CATEGORIES = [0, 1, 2], [3, 4]


class Constant(Kernel):
    """What a user writes: one parameter, a result that is an expanded view."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.log_value = positive_parameter("value", value)

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(X1.shape[:-2], X2.shape[:-2])
        value = self.log_value.exp().to(X1.device)
        return value.expand(*batch, X1.shape[-2], X2.shape[-2])


ELL = [0.3, 1.2, 0.7, 2.0, 0.9]


def distance(a, b, ell=ELL, columns=range(5)) -> float:
    return math.sqrt(
        sum(((a[j] - b[j]) / e) ** 2 for j, e in zip(columns, ell, strict=True)).item()
    )


def hamming(a, b, ell, columns=CATEGORIES) -> float:
    return math.exp(-sum(1 / e for j, e in zip(columns, ell, strict=True) if a[j] != b[j]))


def mixed(a, b) -> float:
    return 1.5 * matern(2.5, distance(a, b, ELL[:3], REAL)) * hamming(a, b, [0.5, 2.0])


# What it is, what it should be for one pair of points.
CASES = {
    "rbf": (RBF(5, ELL, 1.7), lambda a, b: 1.7 * math.exp(-(distance(a, b) ** 2) / 2)),
    "matern12": (Matern12(5, ELL, 1.7), lambda a, b: 1.7 * matern(0.5, distance(a, b))),
    "matern32": (Matern32(5, ELL, 1.7), lambda a, b: 1.7 * matern(1.5, distance(a, b))),
    "matern52": (Matern52(5, ELL, 1.7), lambda a, b: 1.7 * matern(2.5, distance(a, b))),
    "one lengthscale": (Matern52(5, 0.8), lambda a, b: matern(2.5, distance(a, b, [0.8] * 5))),
    "columns": (
        Matern32(2, [0.3, 0.7], columns=[2, 0]),
        lambda a, b: matern(1.5, distance(a, b, [0.3, 0.7], [2, 0])),
    ),
    "hamming": (
        Hamming(2, [0.5, 2.0], columns=CATEGORIES),
        lambda a, b: hamming(a, b, [0.5, 2.0]),
    ),
    "hamming of all": (Hamming(5, 3.0), lambda a, b: hamming(a, b, [3.0] * 5, range(5))),
    "scaled": (
        2.5 * Hamming(2, columns=CATEGORIES),
        lambda a, b: 2.5 * hamming(a, b, [1.0, 1.0]),
    ),
    "sum": (
        RBF(5, ELL) + Matern12(1, 0.5, columns=[1]),
        lambda a, b: math.exp(-(distance(a, b) ** 2) / 2) + math.exp(-abs(a[1] - b[1]) / 0.5),
    ),
    "product": (
        Matern52(3, ELL[:3], 1.5, columns=REAL) * Hamming(2, [0.5, 2.0], columns=CATEGORIES),
        mixed,
    ),
    "product of three, sums and scales": (
        0.5 * (Matern52(3, ELL[:3], 1.5, columns=REAL) * Hamming(2, [0.5, 2.0], columns=CATEGORIES))
        + RBF(3, 0.6, columns=REAL) * 0.3 * Hamming(2, 0.7, columns=CATEGORIES),
        lambda a, b: (
            0.5 * mixed(a, b)
            + 0.3
            * math.exp(-(distance(a, b, [0.6] * 3, REAL) ** 2) / 2)
            * hamming(a, b, [0.7, 0.7])
        ),
    ),
    "product of sums": (
        (RBF(5, ELL) + Matern12(1, 0.5, columns=[1])) * (RBF(5, 0.9, 3.0) + Matern12(5, ELL, 0.3)),
        lambda a, b: (
            (math.exp(-(distance(a, b) ** 2) / 2) + math.exp(-abs(a[1] - b[1]) / 0.5))
            * (
                3.0 * math.exp(-(distance(a, b, [0.9] * 5) ** 2) / 2)
                + 0.3 * matern(0.5, distance(a, b))
            )
        ),
    ),
    "a user's own": (Polynomial(1.0), lambda a, b: (1 + float(a @ b)) ** 2),
    "a user's own, combined": (
        2.0 * Polynomial(1.0) + Constant(0.7) * RBF(5, ELL),
        lambda a, b: 2 * (1 + float(a @ b)) ** 2 + 0.7 * math.exp(-(distance(a, b) ** 2) / 2),
    ),
    **SMOOTH,
    **STRUCTURED,
}
EVERY_KERNEL = [pytest.param(kernel, id=name) for name, (kernel, _) in CASES.items()]
OWN = "a user's"  # whose kernel has no features unless it defines them
WITH_FEATURES = [p for p in EVERY_KERNEL if not str(p.id).startswith((OWN, *WITHOUT_FEATURES))]
# What tells places apart: where the levels stand, or an end of [0, 1].
FIXED = {"ordinal", "tasks", "warped", "feature map", "conditional"}
FREE = [p for p in EVERY_KERNEL if not str(p.id).startswith((OWN, *FROM_THE_ORIGIN))]
SHIFTABLE = [p for p in FREE if p.id not in FIXED]
SINGLE = [RBF(5, ELL, 1.7), Matern12(5, ELL, 1.7), Matern32(5, ELL, 1.7), Matern52(5, ELL, 1.7)]
SINGLE += [kernel for name, (kernel, _) in SMOOTH.items() if not name.startswith(FROM_THE_ORIGIN)]


def rows(rng: torch.Generator, *shape: int) -> Tensor:
    """Real numbers in three columns, one of three categories in the other two: (*shape, 5)."""
    real = uniform(rng, *shape, 3)
    categories = torch.randint(0, 3, (*shape, 2), generator=rng) / 2
    return torch.cat([real, categories.to(torch.float64)], dim=-1)


def flat(kernel: nn.Module) -> np.ndarray:
    parts = [p.detach().reshape(-1) for p in kernel.parameters()]
    return torch.cat([*parts, torch.empty(0, dtype=torch.float64)]).numpy()


def moved(kernel: Kernel, at: np.ndarray) -> Kernel:
    """A copy with these values of its parameters."""
    kernel = copy.deepcopy(kernel)
    with torch.no_grad():
        offset = 0
        for p in kernel.parameters():
            p.copy_(torch.from_numpy(at[offset : offset + p.numel()]).view(p.shape))
            offset += p.numel()
    return kernel


# --------------------------------------------------------------------------------------
# Laws: values.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "formula"), CASES.values(), ids=CASES)
def test_law_every_kernel_matches_its_formula_one_pair_at_a_time(kernel, formula, rng):
    X1, X2 = rows(rng, 6), rows(rng, 4)
    expected = kernel_matrix(formula, X1, X2)
    torch.testing.assert_close(kernel(X1, X2).detach(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kernel.linearise(X1, X2).K, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_every_kernel_is_symmetric_and_positive_semidefinite(kernel, rng):
    X = rows(rng, 12)
    for K in (kernel(X, X).detach(), kernel.linearise(X, X).K):
        torch.testing.assert_close(K, K.T, rtol=1e-13, atol=1e-13)
        assert torch.linalg.eigvalsh(K).min() > -1e-12


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_the_diagonal_is_that_of_the_matrix_however_far_from_the_origin(kernel, rng):
    X = rows(rng, 30) + 3
    diagonal = kernel.diagonal(X).detach()
    assert diagonal.shape == (30,)
    torch.testing.assert_close(kernel(X, X).detach().diagonal(), diagonal, rtol=1e-14, atol=0)
    torch.testing.assert_close(kernel.linearise(X, X).K.diagonal(), diagonal, rtol=1e-14, atol=0)
    batched = kernel.diagonal(X.view(3, 2, 5, 5)).detach()
    torch.testing.assert_close(batched.reshape(-1), diagonal, rtol=1e-14, atol=0)


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_every_kernel_computes_batches_as_it_does_one_by_one(kernel, rng):
    X1, X2 = rows(rng, 3, 2, 6), rows(rng, 3, 2, 4)
    with torch.no_grad():
        both, left = kernel(X1, X2), kernel(X1, X2[0, 0])
        right, itself = kernel(X1[0, 0], X2), kernel(X1, X1)
        for i in range(3):
            for j in range(2):
                torch.testing.assert_close(both[i, j], kernel(X1[i, j], X2[i, j]))
                torch.testing.assert_close(left[i, j], kernel(X1[i, j], X2[0, 0]))
                torch.testing.assert_close(right[i, j], kernel(X1[0, 0], X2[i, j]))
                torch.testing.assert_close(itself[i, j], kernel(X1[i, j], X1[i, j]))


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_evaluate_writes_the_matrix_into_a_part_of_another_and_nowhere_else(kernel, rng):
    workspace = Workspace()
    for n, m in ((6, 4), (9, 7), (1, 5)):
        X1, X2 = rows(rng, n).requires_grad_(), rows(rng, m)
        for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 5e-7)):
            for X in (X2, X1):  # k(X1, X2) and k(X1, X1)
                whole = torch.full((n + 2, len(X) + 3), math.nan, dtype=dtype)
                part = whole[1:-1, 2:-1]
                returned = kernel.evaluate(X1, X, part, workspace)
                assert returned.data_ptr() == part.data_ptr() and not returned.requires_grad
                expected = kernel(X1, X).detach()
                near = {"rtol": tolerance, "atol": tolerance}
                torch.testing.assert_close(part.double(), expected, **near)
                assert whole.isnan().sum() == whole.numel() - part.numel()
    fresh = kernel.evaluate(X1, X2, torch.empty(1, 7).double()[:, :5])
    torch.testing.assert_close(fresh, kernel(X1, X2[:5]).detach(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_evaluate_gives_the_diagonal_however_far_from_the_origin(kernel, dtype, rng):
    X = rows(rng, 30) + 3
    K = kernel.evaluate(X, X, torch.empty(30, 30, dtype=dtype))
    near = 1e-14 if dtype == torch.float64 else 3e-7
    torch.testing.assert_close(
        K.diagonal().double(), kernel.diagonal(X).detach(), rtol=near, atol=0
    )
    empty = torch.empty(0, 30, dtype=dtype)
    assert kernel.evaluate(X[:0], X, empty).shape == (0, 30)
    assert kernel.evaluate(X, X[:0], empty.T).shape == (30, 0)


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_pullbacks_may_be_asked_twice_and_in_any_order(kernel, rng):
    X1, X2, G = rows(rng, 6), rows(rng, 4), normal(rng, 6, 4)
    linearised = kernel.linearise(X1, X2, Workspace())
    K, before = linearised.K.clone(), G.clone()
    inputs, parameters = linearised.inputs(G), linearised.parameters(G)
    assert torch.equal(linearised.inputs(G), inputs)
    for again, first in zip(linearised.parameters(G), parameters, strict=True):
        assert torch.equal(again, first)
    assert torch.equal(linearised.K, K) and torch.equal(G, before)


@pytest.mark.parametrize("kernel", SHIFTABLE)
def test_law_a_shift_of_all_inputs_by_a_million_changes_nothing(kernel, rng):
    X1, X2 = ((rows(rng, n) * 1024).round() / 1024 for n in (7, 5))  # so that the shift is exact
    G = normal(rng, 7, 5)
    here, there = kernel.linearise(X1, X2), kernel.linearise(X1 + 1e6, X2 + 1e6)
    torch.testing.assert_close(there.K, here.K, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(kernel(X1 + 1e6, X2 + 1e6).detach(), here.K, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(there.inputs(G), here.inputs(G), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_no_rows_give_an_empty_matrix(kernel, rng):
    X = rows(rng, 3)
    for n, m in ((0, 3), (3, 0), (0, 0)):
        assert kernel(X[:n], X[:m]).shape == (n, m)
        linearised = kernel.linearise(X[:n], X[:m])
        assert linearised.K.shape == (n, m)
        assert linearised.inputs(torch.zeros(n, m, dtype=torch.float64)).shape == (n, 5)


# --------------------------------------------------------------------------------------
# Laws: gradients.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [False, True], ids=["k(X1, X2)", "k(X, X)"])
@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_closed_form_gradients_equal_those_of_autograd(kernel, same, rng):
    X1 = rows(rng, 7)
    X2 = X1 if same else rows(rng, 4)
    G = normal(rng, 7, len(X2))
    closed, automatic = kernel.linearise(X1, X2), _AutogradLinearised(kernel, X1, X2)
    for ours, theirs, p in zip(
        kernel.pullback(X1, X2, G), automatic.parameters(G), kernel.parameters(), strict=True
    ):
        assert ours.shape == p.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    # Without the rows that coincide: there rounding makes a Matérn-1/2 slope of 0 a large one.
    G = G.clone().fill_diagonal_(0.0) if same else G
    torch.testing.assert_close(closed.inputs(G), automatic.inputs(G), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(closed.inputs(G), kernel.pullback_inputs(X1, X2, G))


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_gradients_in_the_parameters_match_central_differences(kernel, rng):
    X1, X2, G = rows(rng, 6), rows(rng, 4), normal(rng, 6, 4)
    expected = central_difference(
        lambda at: (G * moved(kernel, at)(X1, X2)).sum().item(), flat(kernel)
    )
    received = [g.reshape(-1) for g in kernel.pullback(X1, X2, G)]
    received = torch.cat([*received, torch.empty(0, dtype=torch.float64)]).numpy()
    np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_gradients_in_the_inputs_match_central_differences(kernel, rng):
    X1, X2, G = rows(rng, 6), rows(rng, 4), normal(rng, 6, 4)
    # Categories cannot be moved a little: a kernel that takes them for numbers is tested on them.
    discrete = (Hamming, Conditional, Coregionalization)
    columns = 3 if any(isinstance(k, discrete) for k in kernel.modules()) else 5

    def loss(x: np.ndarray) -> float:
        moved = X1.clone()
        moved[:, :columns] = torch.from_numpy(x).view(6, columns)
        return (G * kernel(moved, X2)).sum().item()

    if isinstance(kernel, Hamming):
        assert torch.equal(kernel.pullback_inputs(X1, X2, G), torch.zeros(6, 5).double())
        return
    received = kernel.pullback_inputs(X1, X2, G)
    expected = central_difference(loss, X1[:, :columns].reshape(-1).numpy())
    np.testing.assert_allclose(
        received[:, :columns].reshape(-1).numpy(), expected, rtol=1e-6, atol=1e-6
    )
    assert not received[:, columns:].any()


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_pullbacks_leave_the_kernel_and_the_graph_of_the_caller_alone(kernel, rng):
    X1, X2, G = rows(rng, 5).requires_grad_(), rows(rng, 4).requires_grad_(), normal(rng, 5, 4)
    before = flat(kernel)
    linearised = kernel.linearise(X1, X2)
    gradients = (*linearised.parameters(G), linearised.inputs(G), linearised.K)
    assert not any(g.requires_grad for g in gradients)
    assert all(p.grad is None for p in (*kernel.parameters(), X1, X2))
    np.testing.assert_array_equal(flat(kernel), before)


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_a_workspace_used_again_gives_the_same_result(kernel, rng):
    workspace, G = Workspace(), normal(rng, 6, 6)
    for _ in range(3):
        X = rows(rng, 6)
        fresh, reused = kernel.linearise(X, X), kernel.linearise(X, X, workspace)
        assert torch.equal(reused.K, fresh.K)
        for ours, theirs in zip(reused.parameters(G), fresh.parameters(G), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(reused.inputs(G), fresh.inputs(G))
    X = rows(rng, 9)  # and the buffers grow with the data
    assert torch.equal(kernel.linearise(X, X, workspace).K, kernel.linearise(X, X).K)


@pytest.mark.parametrize("kernel", SHIFTABLE)
def test_law_where_all_points_coincide_the_gradient_is_exactly_zero(kernel):
    X = torch.full((3, 5), 0.3, dtype=torch.float64)
    G = torch.ones(3, 3, dtype=torch.float64)
    for X2 in (X, X.clone()):
        assert torch.equal(kernel.pullback_inputs(X, X2, G), torch.zeros_like(X))
        for name, g in zip(dict(kernel.named_parameters()), kernel.pullback(X, X2, G), strict=True):
            assert g.isfinite().all(), name
            assert not g.any() or "lengthscale" not in name
        leaf = X.clone().requires_grad_()
        kernel(leaf, X2.clone()).sum().backward() if not isinstance(kernel, Hamming) else None
        assert leaf.grad is None or torch.equal(leaf.grad, torch.zeros_like(X))


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_gradients_are_finite_where_points_coincide_and_at_the_ends(kernel):
    for x in (0.0, 0.5, 1.0):
        X = torch.full((3, 5), x, dtype=torch.float64)
        for X2 in (X, X.clone()):
            linearised = kernel.linearise(X, X2)
            G = torch.ones_like(linearised.K)
            gradients = (*linearised.parameters(G), linearised.inputs(G))
            assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_coordinates_belong_to_one_point_each_and_carry_no_graph(kernel, rng):
    X = rows(rng, 2, 6)
    C = kernel.coordinates(X)
    assert C.shape[:-1] == (2, 6) and C.isfinite().all() and not C.requires_grad
    torch.testing.assert_close(kernel.coordinates(X[1, 2:4]), C[1, 2:4])


@pytest.mark.parametrize("kernel", SINGLE, ids=str)
def test_law_a_point_that_meets_another_among_many_is_not_pulled(kernel, rng):
    X = rows(rng, 8)
    G = torch.zeros(8, 8, dtype=torch.float64)
    G[2, 5] = 1.0
    X[5] = X[2]
    gradient = kernel.pullback_inputs(X, X, G)
    assert gradient.abs().max() < 1e-6


# --------------------------------------------------------------------------------------
# Laws: random features, roles, copies.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", WITH_FEATURES)
def test_law_random_features_have_the_kernel_as_their_mean_product(kernel, rng):
    X = torch.cat([rows(rng, 5), rows(rng, 2) * 3])
    products = []
    for _ in range(400):
        phi = kernel.features(33, rng)(X)
        assert phi.shape == (7, 33)
        products.append(phi @ phi.T)
    assert_mean_within(torch.stack(products), kernel(X, X).detach())


@pytest.mark.parametrize("kernel", WITH_FEATURES)
def test_law_random_features_are_one_function_of_each_point_by_itself(kernel, rng):
    X = rows(rng, 2, 3)
    phi = kernel.features(16, rng)
    assert torch.equal(phi(X), phi(X))
    torch.testing.assert_close(phi(X)[1, 2], phi(X[1, 2]))
    assert not phi(X).requires_grad


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_law_each_parameter_has_one_role_and_the_width_of_its_own_kernel(kernel):
    roles = kernel.roles_of_parameters()
    assert len(roles) == len(list(kernel.parameters()))
    for (role, dims), (name, p) in zip(roles, kernel.named_parameters(), strict=True):
        if "lengthscale" in role:
            assert name.endswith("log_lengthscale")
            assert p.shape == (dims,)


@pytest.mark.parametrize("kernel", [p for p in EVERY_KERNEL if "own" not in str(p.id)])
def test_law_a_kernel_survives_pickling_and_its_state_can_be_loaded_into_another(kernel, rng):
    X = rows(rng, 4)
    twin = pickle.loads(pickle.dumps(kernel))
    assert torch.equal(twin(X, X), kernel(X, X))
    other = moved(kernel, flat(kernel) + 0.5)
    other.load_state_dict(kernel.state_dict())
    assert torch.equal(other(X, X), kernel(X, X))
