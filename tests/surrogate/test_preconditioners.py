import math

import pytest
import torch
from oracles import normal, spd_matrix, uniform

from surrogate import RBF, Hamming, Matern12, Matern52, NotPositiveDefinite
from surrogate.operators import Dense, KernelOperator, LinearOperator
from surrogate.solvers import Preconditioner, Structure
from surrogate.solvers.pivots import clusters, random_pivots
from tests.surrogate.helpers import noises


class Products(LinearOperator):
    """Knows how to multiply, and nothing else."""

    def __init__(self, A):
        self.A, self.n = A, len(A)

    def matmul(self, V):
        return self.A @ V


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def structure(K, noise, rank, block, seed=0):
    return Structure.of(K, noise, rank=rank, block=block, generator=seeded(seed))


def build(K, noise, rank, block):
    return Preconditioner(K, noise, structure(K, noise, rank, block))


def dense(structure, K, noise):
    """P by its formula, from K (n, n): Nyström, and what it leaves out on clusters."""
    S = structure.pivots
    core = K[S][:, S] * (1 + 1e-9 * torch.eye(len(S), dtype=K.dtype))
    low = K[:, S] @ torch.linalg.solve(core, K[S]) if len(S) else torch.zeros_like(K)
    kept = torch.zeros_like(K)
    for cluster in structure.clusters:
        some = cluster[cluster < len(K)]
        kept[some.unsqueeze(1), some] = 1.0
    return low + kept * (K - low) + noise.diag()


CASES = [(0, 0), (0, 9), (12, 0), (12, 9), (12, 1), (12, 60), (60, 0), (60, 9)]


@pytest.mark.parametrize(("rank", "block"), CASES)
def test_solutions_and_the_log_determinant_are_those_of_the_formula(rank, block, rng):
    X, noise = uniform(rng, 60, 2), noises(60, rng)
    kernel = Matern52(2, 0.5)
    K, operator = kernel(X, X).detach(), KernelOperator(kernel, X)
    chosen = structure(operator, noise, rank, block)
    P = Preconditioner(operator, noise, chosen)
    expected = dense(chosen, K, noise)
    torch.testing.assert_close(
        P.solve(expected), torch.eye(60, dtype=torch.float64), rtol=1e-8, atol=1e-8
    )
    torch.testing.assert_close(P.logdet(), torch.logdet(expected), rtol=1e-8, atol=1e-8)
    assert P.solve(normal(rng, 60, 3)).mT.is_contiguous()


@pytest.mark.parametrize(("rank", "block"), CASES)
def test_what_is_drawn_has_the_covariance_of_the_formula(rank, block, rng):
    X, noise = uniform(rng, 60, 2), noises(60, rng)
    kernel = Matern52(2, 0.5)
    K, operator = kernel(X, X).detach(), KernelOperator(kernel, X)
    chosen = structure(operator, noise, rank, block)
    P = Preconditioner(operator, noise, chosen)
    expected, s = dense(chosen, K, noise), 20_000
    Z = P.sample(normal(rng, P.rank + 3, s), normal(rng, 60, s))
    # Var[z_i z_j] = P_ii P_jj + P_ij²
    diagonal = expected.diagonal()
    error = ((diagonal.unsqueeze(1) * diagonal + expected.square()) / s).sqrt()
    assert float(((Z @ Z.T / s - expected).abs() / error).max()) < 5


def test_noise_that_differs_between_points_of_all_sizes_is_kept_apart(rng):
    X = uniform(rng, 50, 1)
    noise = noises(50, rng, 1e-4, 1e4)
    operator = KernelOperator(RBF(1, 0.3), X)
    for rank, block in ((20, 0), (20, 7)):
        chosen = structure(operator, noise, rank, block)
        P = Preconditioner(operator, noise, chosen)
        expected = dense(chosen, operator.rows(torch.arange(50)), noise)
        torch.testing.assert_close(P.logdet(), torch.logdet(expected), rtol=1e-8, atol=1e-8)
        Z = normal(rng, 50, 3)
        torch.testing.assert_close(P.solve(expected @ Z), Z, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("rank", "block"), CASES)
@pytest.mark.parametrize("m", [1, 7])
def test_appended_rows_give_the_preconditioner_of_the_whole(rank, block, m, rng):
    X, noise = uniform(rng, 60 + m, 2), noises(60 + m, rng)
    kernel = Matern52(2, 0.5)
    K, operator = kernel(X, X).detach(), KernelOperator(kernel, X[:60])
    chosen = structure(operator, noise[:60], rank, block)
    index = clusters(X[60:], block) if block else None
    P = Preconditioner(operator, noise[:60], chosen)
    P = P.append(K[:60, 60:], K[60:, 60:], noise[60:], index)
    # By the same formula: padding of the first clusters must not come to stand for row 60.
    first = chosen.clusters.where(chosen.clusters < 60, 60 + m)
    added = first.new_full((0 if index is None else len(index), first.shape[1]), 60 + m)
    if index is not None:
        added[:, : index.shape[1]] = (60 + index).where(index < m, 60 + m)
    expected = dense(Structure(chosen.pivots, torch.cat([first, added])), K, noise)
    identity = torch.eye(60 + m, dtype=torch.float64)
    torch.testing.assert_close(P.solve(expected), identity, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(P.logdet(), torch.logdet(expected), rtol=1e-8, atol=1e-8)
    least = torch.linalg.eigvals(P.solve(K + noise.diag())).real.min()
    assert P.floor * (1 - 1e-7) <= float(least)
    lower, upper = P.logdet_bounds
    assert lower <= float(torch.logdet(K + noise.diag())) + 1e-7 <= upper + 2e-7


# --- Below K̂. --------------------------------------------------------------------------


@pytest.mark.parametrize("least", [1e-2, 1e-6])
@pytest.mark.parametrize("rank", [0, 10, 40])
@pytest.mark.parametrize("block", [0, 8])
def test_no_eigenvalue_is_below_the_floor(least, rank, block, rng):
    X = torch.cat([uniform(rng, 30, 2), 0.05 * uniform(rng, 30, 2)])
    noise = noises(60, rng, least, 10 * least)
    for kernel in (RBF(2, 0.4), Matern12(2, 0.4)):
        operator = KernelOperator(kernel, X)
        P = build(operator, noise, rank, block)
        K_hat = operator.rows(torch.arange(60)) + noise.diag()
        # Symmetric: K̂ = C Cᵀ, and Cᵀ P⁻¹ C has the eigenvalues of P⁻¹K̂.
        C = torch.linalg.cholesky(K_hat)
        smallest = float(torch.linalg.eigvalsh(C.T @ P.solve(C))[0])
        assert 0 < P.floor <= 1
        assert P.floor == 1 or block
        assert smallest >= P.floor * (1 - 1e-8) - 1e-8
        if not block:
            assert smallest <= 1 + 1e-3 or rank == 0


def test_bounds_of_the_log_determinant_contain_it_and_close_with_rank(rng):
    X, noise = uniform(rng, 60, 2), noises(60, rng)
    operator, widths = KernelOperator(Matern52(2, 0.5), X), []
    exact = float(torch.logdet(operator.rows(torch.arange(60)) + noise.diag()))
    for rank, block in ((0, 4), (5, 0), (20, 0), (20, 9), (60, 0)):
        lower, upper = build(operator, noise, rank, block).logdet_bounds
        assert lower <= exact + 1e-7 and exact - 1e-7 <= upper
        widths.append(upper - lower)
    assert widths[0] > widths[1] > widths[2] > widths[4]
    assert widths[2] == pytest.approx(widths[3])
    assert widths[4] < 1e-2


def test_the_energy_of_a_residual_is_bounded(rng):
    X, noise, R = uniform(rng, 40, 2), noises(40, rng), normal(rng, 40, 5)
    R[:, 4] = 0.0
    operator = KernelOperator(Matern52(2, 0.5), X)
    exact = (R * torch.linalg.solve(operator.rows(torch.arange(40)) + noise.diag(), R)).sum(0)
    for rank, block in ((0, 0), (10, 0), (10, 8), (40, 0)):
        bound = build(operator, noise, rank, block).energy_bound(R)
        assert bool((bound >= exact * (1 - 1e-8)).all())
        assert float(bound[4]) == 0.0
    torch.testing.assert_close(bound, exact, rtol=0.02, atol=0)


def test_rows_without_noise_leave_nothing_certain_but_all_of_it_finite(rng):
    X = torch.cat([uniform(rng, 20, 1)] * 2)
    noise = torch.full((40,), 0.1, dtype=torch.float64)
    noise[::5] = 0.0
    operator = KernelOperator(RBF(1, 0.3), X)
    for rank, block in ((0, 0), (40, 0), (10, 8), (0, 8)):
        P = build(operator, noise, rank, block)
        assert bool(P.solve(normal(rng, 40, 3)).isfinite().all())
        assert math.isfinite(float(P.logdet()))
        assert P.floor == 0.0
        assert P.logdet_bounds == (-math.inf, math.inf)
        assert float(P.energy_bound(torch.ones(40, 1).double())) == math.inf
        assert float(P.energy_bound((noise > 0).double().unsqueeze(1))) < math.inf


# --- Pivots. ---------------------------------------------------------------------------


def left_by(operator, pivots):
    """Trace of what the pivots leave, over what the best rank leaves."""
    A = operator.rows(torch.arange(operator.n))
    low = A[:, pivots] @ torch.linalg.pinv(A[pivots][:, pivots], rcond=1e-13) @ A[pivots]
    tail = torch.linalg.eigvalsh(A)[: operator.n - len(pivots)].sum()
    return float((A - low).trace() / tail)


def test_pivots_leave_little_more_than_the_best_subspace(rng):
    noise = torch.full((200,), 1e-9, dtype=torch.float64)
    for kernel, most in ((RBF(2, 0.4), 10.0), (Matern52(2, 0.4), 5.0), (Matern12(2, 0.4), 3.0)):
        operator = KernelOperator(kernel, uniform(rng, 200, 2))
        ratios = [
            left_by(operator, random_pivots(operator, noise, 20, seeded(s))) for s in range(5)
        ]
        assert all(1 - 1e-6 <= ratio < most for ratio in ratios), ratios


def test_pivots_end_where_the_rank_does(rng):
    B = normal(rng, 80, 7)
    noise = torch.full((80,), 1e-8, dtype=torch.float64)
    assert len(random_pivots(Dense(B @ B.T), noise, 40, rng)) == 7
    assert len(random_pivots(Dense(B @ B.T), torch.zeros(80).double(), 40, rng)) == 7
    X = uniform(rng, 10, 2)
    operator = KernelOperator(Matern52(2, 0.5), torch.cat([X] * 8))
    pivots = random_pivots(operator, noise, 40, rng)
    assert len(pivots) == 10
    assert sorted((pivots % 10).tolist()) == list(range(10))


def test_pivots_end_where_the_noise_hides_what_is_left(rng):
    operator = KernelOperator(RBF(1, 0.3), uniform(rng, 100, 1))
    counts = []
    for noise in (10.0, 1e-1, 1e-4):
        pivots = random_pivots(operator, torch.full((100,), noise).double(), 100, rng)
        A = operator.rows(torch.arange(100))
        low = A[:, pivots] @ torch.linalg.pinv(A[pivots][:, pivots], rcond=1e-12) @ A[pivots]
        assert float((A - low).diagonal().max()) <= 0.1 * noise + 1e-9
        counts.append(len(pivots))
    assert counts[0] == 0 < counts[1] < counts[2] < 100


def test_no_row_is_taken_twice(rng):
    operator = KernelOperator(Matern12(1, 0.1), uniform(rng, 50, 1))
    pivots = random_pivots(operator, torch.zeros(50).double(), 50, rng)
    assert sorted(pivots.tolist()) == list(range(50))


def test_pivots_are_drawn_in_proportion_to_what_is_left(rng):
    # Three blocks that know nothing of each other, of traces 6, 3 and 1: the second pivot is
    # drawn from what the first one left.
    a = torch.tensor([1.0, 2.0, 3.0, 3.0, 0.5, 0.5], dtype=torch.float64)
    A = a.diag()
    A[2, 3] = A[3, 2] = 3.0
    noise, draws = torch.zeros(6).double(), 4000
    found = torch.zeros(6, 6, dtype=torch.float64)
    for _ in range(draws):
        first, second = random_pivots(Dense(A), noise, 2, rng).tolist()
        found[first, second] += 1
    expected = torch.zeros_like(found)
    for i in range(6):
        left = (A - torch.outer(A[i], A[i]) / A[i, i]).diagonal()
        expected[i] = a[i] / a.sum() * left / left.sum()
    error = (draws * expected * (1 - expected)).sqrt()
    assert bool(((found - draws * expected).abs() <= 4.5 * error + 1e-6).all())


def test_rows_that_fall_short_of_the_diagonal_end_the_search(rng):
    class Inconsistent(Dense):
        def diagonal(self):
            return super().diagonal() + 0.5

    B = normal(rng, 30, 4)
    pivots = random_pivots(Inconsistent(B @ B.T), torch.zeros(30).double(), 20, rng)
    assert 4 <= len(pivots) <= 20
    assert len(pivots.unique()) == len(pivots)


def test_the_same_seed_takes_the_same_pivots(rng):
    operator, noise = KernelOperator(Matern52(2, 0.3), uniform(rng, 90, 2)), torch.full((90,), 0.01)
    first, second, other = (structure(operator, noise, 20, 0, seed) for seed in (1, 1, 2))
    assert torch.equal(first.pivots, second.pivots)
    assert not torch.equal(first.pivots, other.pivots)


# --- Clusters. -------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(1, 1), (7, 1), (7, 3), (64, 64), (65, 64), (100, 7)])
def test_each_point_is_in_one_cluster_of_at_most_the_size_asked_for(n, size, rng):
    index = clusters(uniform(rng, n, 3), size)
    assert len(index) == -(-n // size)
    assert index.shape[1] <= size
    inside = index[index < n]
    assert sorted(inside.tolist()) == list(range(n))
    assert int((index == n).sum(1).max()) <= 1


def test_points_of_a_cluster_are_close_to_each_other(rng):
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]], dtype=torch.float64)
    which = torch.arange(40) % 4
    for cluster in clusters(centres[which] + uniform(rng, 40, 2), 10):
        assert len(which[cluster].unique()) == 1


def test_points_that_cannot_be_told_apart_are_clustered_all_the_same():
    assert clusters(torch.ones(10, 2), 4).shape == (3, 4)
    assert clusters(torch.ones(10, 0), 4).shape == (3, 4)
    assert clusters(torch.ones(0, 2), 4).shape == (0, 0)


def test_categories_are_treated_exactly_where_they_fit_into_a_cluster(rng):
    X = (uniform(rng, 60, 2) * 3).floor()
    operator = KernelOperator(Hamming(2, 0.7), X)
    noise = noises(60, rng)
    K_hat = operator.rows(torch.arange(60)) + noise.diag()
    for rank, block in ((0, 60), (60, 0), (9, 10)):  # nine combinations: rank nine
        P = build(operator, noise, rank, block)
        torch.testing.assert_close(P.logdet(), torch.logdet(K_hat), rtol=1e-5, atol=1e-5)


# --- Edges. ----------------------------------------------------------------------------


def test_with_neither_rank_nor_clusters_an_operator_only_has_to_multiply(rng):
    K, noise = spd_matrix(torch.logspace(-2, 0, 12, dtype=torch.float64), rng), noises(12, rng)
    P = build(Products(K), noise, 0, 20)
    torch.testing.assert_close(P.solve(noise.diag()), torch.eye(12, dtype=torch.float64))
    assert P.logdet_bounds == (pytest.approx(float(noise.log().sum())), math.inf)
    assert P.floor == 1.0
    with pytest.raises(TypeError, match=r"Products does not say its diagonal.*rank=0"):
        build(Products(K), noise, 3, 0)


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize(("rank", "block"), [(0, 0), (2, 0), (0, 2), (2, 2)])
def test_the_smallest_problems_have_preconditioners(n, rank, block, rng):
    X, noise = uniform(rng, n, 2), noises(n, rng)
    operator = KernelOperator(RBF(2, 0.5), X)
    P = build(operator, noise, rank, block)
    assert P.solve(normal(rng, n, 3)).shape == (n, 3)
    assert P.sample(normal(rng, P.rank, 3), normal(rng, n, 3)).shape == (n, 3)
    lower, upper = P.logdet_bounds
    exact = float(torch.logdet(operator.rows(torch.arange(n)) + noise.diag())) if n else 0.0
    assert lower <= exact + 1e-7 and exact - 1e-7 <= upper
    assert 0 < P.floor <= 1


@pytest.mark.parametrize(("rank", "block"), [(0, 0), (10, 0), (10, 8), (0, 8)])
def test_noise_far_below_rounding_still_makes_a_preconditioner(rank, block, rng):
    X = torch.cat([uniform(rng, 20, 2)] * 2) + 1e6
    operator = KernelOperator(RBF(2, 2.0), X)
    P = build(operator, torch.full((40,), 1e-18, dtype=torch.float64), rank, block)
    assert bool(P.solve(normal(rng, 40, 2)).isfinite().all())
    assert math.isfinite(float(P.logdet()))
    assert 0 < P.floor < 1e-5 or (rank, block) == (0, 0)


def test_a_constant_kernel_of_zero_is_all_noise(rng):
    noise = noises(9, rng)
    P = build(Dense(torch.zeros(9, 9).double()), noise, 3, 4)
    assert P.rank == 0
    torch.testing.assert_close(P.logdet(), noise.log().sum())


def test_what_is_no_covariance_is_described(rng):
    A = torch.eye(8, dtype=torch.float64)
    A[2, 2] = torch.nan
    with pytest.raises(ValueError, match="the diagonal of K has 1 NaN"):
        build(Dense(A), torch.ones(8).double(), 2, 0)

    class Wrong(KernelOperator):
        def blocks(self, index):
            return -super().blocks(index)

    wrong = Wrong(RBF(1, 1.0), uniform(rng, 8, 1))
    with pytest.raises(NotPositiveDefinite, match=r"a cluster of points.*0.1 %"):
        build(wrong, torch.full((8,), 1e-3, dtype=torch.float64), 0, 4)


def test_appending_looks_at_new_clusters_only_and_has_the_same_floor(rng, monkeypatch):
    X, noise = uniform(rng, 50, 2), noises(50, rng)
    kernel = Matern52(2, 0.3)
    K, index = kernel(X, X).detach(), torch.arange(10).view(2, 5)
    P = build(KernelOperator(kernel, X[:40]), noise[:40], 8, 5)
    border = K[:40, 40:], K[40:, 40:], noise[40:], index
    unread = P.append(*border)
    assert P.floor > 0  # read, and so known to what is appended from here on
    looked, largest_over = [], type(P._D).largest_over

    def counted(self, noise):
        looked.append(len(self.index))
        return largest_over(self, noise)

    monkeypatch.setattr(type(P._D), "largest_over", counted)
    assert P.append(*border).floor == pytest.approx(unread.floor, rel=1e-12)
    assert looked == [2, 10]
