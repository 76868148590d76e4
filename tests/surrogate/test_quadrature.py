import itertools
import math

import pytest
import torch
from oracles import normal, spd_matrix, uniform

from surrogate.operators import Dense
from surrogate.solvers import BlockLanczos, log_quadratic_forms, mbcg
from surrogate.solvers.lanczos import Recorder
from tests.surrogate.helpers import Inverse


def log_of(A):
    values, vectors = torch.linalg.eigh(A)
    return (vectors * values.log()) @ vectors.T


def exact_forms(K, P, B):
    """Diagonal of BᵀP^(-1/2) log(P^(-1/2) K P^(-1/2)) P^(-1/2)B, and the least eigenvalue."""
    values, vectors = torch.linalg.eigh(P)
    root = (vectors * values.rsqrt()) @ vectors.T
    A = root @ K @ root
    A = 0.5 * (A + A.T)
    G = root @ B
    return ((log_of(A) @ G) * G).sum(0), float(torch.linalg.eigvalsh(A)[0])


def problem(seed):
    """K, P and right-hand sides of random sizes and conditions; P ≠ I half of the time."""
    rng = torch.Generator().manual_seed(seed)
    n, t = 5 + int(uniform(rng, 1) * 45), 1 + int(uniform(rng, 1) * 6)
    K = spd_matrix(10 ** (4 * uniform(rng, n) - 3), rng)
    P = spd_matrix(10 ** (2 * uniform(rng, n) - 1), rng) if seed % 2 else torch.eye(n).double()
    return K, P, normal(rng, n, t)


def forms(K, P, B, floor, **options):
    solution = mbcg(Dense(K), B, preconditioner=Inverse(P), lanczos=True, warn=False, **options)
    assert solution.lanczos is not None
    return log_quadratic_forms(solution.lanczos, floor)


def test_quadrature_brackets_the_truth_for_each_vector_of_200_problems():
    for seed in range(200):
        K, P, B = problem(seed)
        exact, least = exact_forms(K, P, B)
        floor = least * (1.0 if seed % 3 else 0.3)
        lower, upper = forms(K, P, B, floor, tolerance=0.3, max_steps=1 + seed % 8)
        slack = 1e-9 * (1 + exact.abs())
        assert bool((lower <= exact + slack).all()), seed
        assert bool((exact <= upper + slack).all()), seed


def test_one_step_for_one_vector_is_quadrature_with_one_node_and_with_two(rng):
    A, g, floor = (
        spd_matrix(torch.logspace(-1, 1, 9, dtype=torch.float64), rng),
        normal(rng, 9),
        0.05,
    )
    size, mean = float(g @ g), float(g @ A @ g / (g @ g))
    variance = float((A @ g) @ (A @ g)) / size - mean**2
    node = mean + variance / (mean - floor)  # beside the floor, so that both moments are right
    weight = (mean - floor) / (node - floor)
    lower, upper = forms(A, torch.eye(9).double(), g.unsqueeze(1), floor, max_steps=1)
    assert float(upper) == pytest.approx(size * math.log(mean))
    radau = size * (weight * math.log(node) + (1 - weight) * math.log(floor))
    assert float(lower) == pytest.approx(radau)


@pytest.mark.parametrize("seed", range(4))
def test_the_bracket_closes_as_steps_are_added(seed):
    K, P, B = problem(seed)
    exact, least = exact_forms(K, P, B)
    size = B.square().sum(0)
    gaps = []
    for steps in (1, 2, 4, 8, 16, 60):
        lower, upper = forms(K, P, B, least, tolerance=1e-13, max_steps=steps)
        gaps.append(float(((upper - lower) / size).max()))
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(gaps))
    assert gaps[0] > 1e-2
    assert gaps[-1] < 1e-6
    torch.testing.assert_close(upper, exact, rtol=1e-6, atol=1e-6)


def test_a_block_brackets_each_vector_better_than_a_run_of_its_own():
    K, P, B = problem(12)
    _, least = exact_forms(K, P, B)
    lower, upper = forms(K, P, B, least, tolerance=1e-12, max_steps=4)
    for i in range(B.shape[1]):
        alone = forms(K, P, B[:, i : i + 1], least, tolerance=1e-12, max_steps=4)
        assert float((upper - lower)[i]) <= float(alone[1] - alone[0]) + 1e-9


def test_vectors_that_depend_on_each_other_are_bracketed_too(rng):
    K = spd_matrix(torch.logspace(-2, 1, 30, dtype=torch.float64), rng)
    B = normal(rng, 30, 5)
    B[:, 1], B[:, 2], B[:, 3] = B[:, 0], 0.0, 3 * B[:, 0] - B[:, 4]
    P = torch.eye(30, dtype=torch.float64)
    exact, least = exact_forms(K, P, B)
    for steps in (1, 3, 30):
        lower, upper = forms(K, P, B, least, tolerance=1e-12, max_steps=steps)
        assert bool(((lower <= exact + 1e-7) & (exact <= upper + 1e-7)).all())
        assert float(lower[2]) == float(upper[2]) == 0.0
    torch.testing.assert_close(lower, exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", [1, 7, 12])
def test_a_space_that_holds_everything_gives_the_exact_value(t, rng):
    K = spd_matrix(torch.logspace(-2, 1, 6, dtype=torch.float64), rng)
    P, B = spd_matrix(torch.logspace(-1, 1, 6, dtype=torch.float64), rng), normal(rng, 6, t)
    exact, _ = exact_forms(K, P, B)
    for floor in (1e-6, 0.0):
        lower, upper = forms(K, P, B, floor, tolerance=1e-14, max_steps=20)
        torch.testing.assert_close(upper, exact, rtol=1e-8, atol=1e-8)
        if floor or t > 6:
            torch.testing.assert_close(lower, exact, rtol=1e-4, atol=1e-4)


def test_the_exact_preconditioner_leaves_nothing_to_estimate(rng):
    K, B = spd_matrix(torch.logspace(-4, 1, 30, dtype=torch.float64), rng), normal(rng, 30, 3)
    lower, upper = forms(K, K, B, 1.0, tolerance=1e-6)
    torch.testing.assert_close(upper, torch.zeros(3).double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(lower, torch.zeros(3).double(), rtol=0, atol=1e-7)


def test_not_knowing_a_floor_bounds_from_above_only(rng):
    K, P, B = problem(7)
    exact, _ = exact_forms(K, P, B)
    lower, upper = forms(K, P, B, 0.0, tolerance=1e-12, max_steps=2)
    assert bool((lower == -math.inf).all() and (upper >= exact).all())


def test_without_a_step_only_the_floor_is_known(rng):
    K, B = spd_matrix(torch.logspace(-2, 0, 9, dtype=torch.float64), rng), normal(rng, 9, 2)
    B[:, 1] = 0.0
    P = torch.eye(9, dtype=torch.float64)
    exact, least = exact_forms(K, P, B)
    lower, upper = forms(K, P, B, least, max_steps=0)
    assert float(lower[0]) <= float(exact[0]) < float(upper[0]) == math.inf
    assert float(lower[1]) == float(upper[1]) == 0.0
    assert float(forms(K, P, B, 0.0, max_steps=0)[0][0]) == -math.inf


def test_a_long_solve_keeps_as_many_coefficients_as_are_worth_their_eigenvectors(rng, monkeypatch):
    monkeypatch.setattr("surrogate.solvers.lanczos._ROWS", 12)
    K = spd_matrix(torch.logspace(-4, 0, 60, dtype=torch.float64), rng)
    B, P = normal(rng, 60, 5), torch.eye(60, dtype=torch.float64)
    solution = mbcg(Dense(K), B, lanczos=True, tolerance=1e-8)
    assert solution.lanczos is not None
    assert int(solution.info.steps.max()) > 2
    assert sum(len(block) for block in solution.lanczos.diagonal) == 10
    assert len(solution.lanczos.below) == 2
    exact, least = exact_forms(K, P, B)
    lower, upper = log_quadratic_forms(solution.lanczos, least)
    assert bool(((lower <= exact) & (exact <= upper)).all())


def test_the_coefficients_are_those_of_the_operator_in_an_orthonormal_basis(rng):
    # With a block that spans the space, T is similar to A: the same eigenvalues.
    K = spd_matrix(torch.logspace(-3, 1, 24, dtype=torch.float64), rng)
    P = spd_matrix(torch.logspace(-1, 1, 24, dtype=torch.float64), rng)
    solution = mbcg(
        Dense(K), normal(rng, 24, 8), preconditioner=Inverse(P), lanczos=True, tolerance=1e-11
    )
    assert isinstance(solution.lanczos, BlockLanczos)
    T = torch.zeros(24, 24, dtype=torch.float64)
    for i, block in enumerate(solution.lanczos.diagonal[:3]):
        rows = slice(8 * i, 8 * i + 8)
        T[rows, rows] = block
        if i < 2:
            after = slice(8 * i + 8, 8 * i + 16)
            T[after, rows] = solution.lanczos.below[i]
            T[rows, after] = solution.lanczos.below[i].T
    values, vectors = torch.linalg.eigh(P)
    root = (vectors * values.rsqrt()) @ vectors.T
    expected = torch.linalg.eigvalsh(root @ K @ root)
    torch.testing.assert_close(torch.linalg.eigvalsh(T), expected, rtol=1e-7, atol=1e-9)


def test_a_recorder_that_is_closed_adds_nothing_more():
    eye = torch.eye(2, dtype=torch.float64)
    recorder = Recorder(eye)
    recorder.add(eye, 2 * eye, eye)
    recorder.close(eye, 0.5 * eye)
    recorder.add(eye, 3 * eye, eye)
    assert len(recorder.lanczos.diagonal) == len(recorder.lanczos.below) == 1
    torch.testing.assert_close(recorder.lanczos.below[0], -eye)
