"""Facts about polytopes: projections, walks, and climbs within them."""

import numpy as np
import pytest
import scipy.optimize

from bbmmopt.search import Domain, NoFeasiblePoint, Region
from bbmmopt.search.polytope import Polytope, least_distance
from bbmmopt.search.walk import lattice_moves, walk
from bbmmopt.search.within import ascend_within
from bbmmopt.space import Integer, Linear, Real, Simplex, Space
from tests.bbmmopt.searches import QUICK, Peak, random_limits, rng, search_for, seeded


def as_scipy(A, lower, upper):
    equal = lower == upper
    return [
        {"type": "ineq", "fun": lambda u: (upper - A @ u)[~equal], "jac": lambda u: -A[~equal]},
        {"type": "eq", "fun": lambda u: (A @ u - upper)[equal], "jac": lambda u: A[equal]},
    ][: 1 + equal.any()]


def box(d):
    return np.zeros(d), np.ones(d)


# --------------------------------------------------------------------------------------
# Polytopes
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_a_projection_is_the_nearest_point(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(3, 10))
    rows = random_limits(rng, d, equalities=seed % 3)
    P = Polytope.of(*rows, np.zeros(d), np.ones(d))
    start, _ = P.interior(np.full(d, 0.5), np.ones(d, dtype=bool))
    for _ in range(4):
        target = rng.uniform(-1, 2, d)
        oracle = scipy.optimize.minimize(
            lambda u, t=target: ((u - t) ** 2).sum(),
            start,
            jac=lambda u, t=target: 2 * (u - t),
            bounds=[(0, 1)] * d,
            method="SLSQP",
            constraints=as_scipy(*rows),
            options={"ftol": 1e-15, "maxiter": 500},
        )
        point = P.project(target, np.ones(d, dtype=bool))
        assert point is not None
        np.testing.assert_allclose(point, oracle.x, atol=1e-6)
        assert (P.G @ point <= P.h + 1e-10).all() and (point >= 0).all() and (point <= 1).all()
        np.testing.assert_allclose(P.E @ point, P.e, atol=1e-10)


def test_a_projection_into_nothing_is_none():
    P = Polytope.of(np.array([[1.0, 1.0]]), np.array([3.0]), np.array([np.inf]), *box(2))
    assert P.project(np.full(2, 0.5), np.ones(2, dtype=bool)) is None
    assert least_distance(np.array([[1.0], [-1.0]]), np.array([-1.0, 0.5])) is None
    assert least_distance(np.zeros((1, 2)), np.array([-1.0])) is None


def test_two_limits_that_meet_are_an_equality_and_their_walks_stay_on_it():
    A = np.array([[1.0, 1.0, 0.0], [-2.0, -2.0, 0.0]])
    P = Polytope.of(A, np.full(2, -np.inf), np.array([1.0, -2.0]), *box(3))
    assert len(P.E) == 1 and len(P.G) == 0
    X = walk(np.array([[0.5, 0.5, 0.5]]), 50, P, np.ones(3, dtype=bool), np.empty((0, 3)), rng())
    np.testing.assert_allclose(X[:, 0] + X[:, 1], 1.0, atol=1e-12)
    with pytest.raises(NoFeasiblePoint, match="contradict"):
        Polytope.of(A, np.full(2, -np.inf), np.array([1.0, -2.1]), *box(3))


def test_equalities_that_inequalities_only_imply_together_are_found():
    # a ≤ b ≤ c ≤ a: three half-spaces that leave a line.
    A = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [-1.0, 0.0, 1.0]])
    P = Polytope.of(A, np.full(3, -np.inf), np.zeros(3), *box(3))
    x, flat = P.interior(np.full(3, 0.5), np.ones(3, dtype=bool))
    assert np.linalg.matrix_rank(flat.E) == 2 and np.ptp(x) < 1e-9
    X = walk(x[None].repeat(64, 0), 500, flat, np.ones(3, dtype=bool), np.empty((0, 3)), rng())
    assert np.ptp(X, axis=1).max() < 1e-9 and X.min() < 0.05 and X.max() > 0.95


def test_walks_in_a_triangle_are_uniform():
    P = Polytope.of(np.array([[1.0, 1.0]]), np.array([-np.inf]), np.ones(1), *box(2))
    free = np.ones(2, dtype=bool)
    X = walk(np.full((2000, 2), 0.3), 4000, P, free, np.empty((0, 2)), rng())
    # Of a uniform point in the triangle: x ~ Beta(1, 2), of mean 1/3 and variance 1/18.
    error = np.sqrt(1 / 18 / 2000)
    assert (np.abs(X.mean(0) - 1 / 3) < 4 * error).all()
    for x in X.T:
        assert scipy.stats.kstest(x[:2000], scipy.stats.beta(1, 2).cdf).pvalue > 1e-3
    assert abs(np.cov(X.T)[0, 1] + 1 / 36) < 4 * error * 0.3


def test_walks_on_a_simplex_have_dirichlet_marginals_though_it_is_long_one_way():
    # x0 in [0, 1] and the others within 1e-3 of each other: hard without the spread of the walks.
    d = 5
    A = np.vstack([np.ones((1, d))])
    P = Polytope.of(A, np.ones(1), np.ones(1), *box(d))
    X = walk(np.full((1000, d), 1 / d), 2000, P, np.ones(d, dtype=bool), np.empty((0, d)), rng(1))
    np.testing.assert_allclose(X.sum(1), 1.0, atol=1e-12)
    for x in X.T:
        assert scipy.stats.kstest(x[:1000], scipy.stats.beta(1, d - 1).cdf).pvalue > 1e-3


def test_walks_keep_out_of_what_is_not_allowed():
    P = Polytope.of(np.empty((0, 2)), np.empty(0), np.empty(0), *box(2))

    def disc(X):
        return ((X - 0.5) ** 2).sum(1) < 0.01

    X = walk(
        np.full((500, 2), 0.5), 2000, P, np.ones(2, dtype=bool), np.empty((0, 2)), rng(),
        allowed=disc,
    )  # fmt: skip
    assert disc(X).all()
    radius = np.linalg.norm(X - 0.5, axis=1)[-500:]  # of a uniform point: P(r < s) = (s / R)²
    assert scipy.stats.kstest(radius, lambda s: (s / 0.1) ** 2).pvalue > 1e-3


@pytest.mark.parametrize(
    ("row", "moving", "expected"),
    [
        ([1.0, 1.0, 1.0], [False, False, False], 3),  # pairs
        ([1.0, 1.0, 1.0], [False, False, True], 2),  # each alone, the real one making up for it
        ([2.0, 3.0, 5.0], [False, False, False], 3),
    ],
)
def test_moves_of_integers_keep_the_equalities(row, moving, expected):
    P = Polytope.of(np.array([row]), np.ones(1), np.ones(1), *box(3))
    moving = np.array(moving)
    whole = {j: 10 for j in range(3) if not moving[j]}
    moves = lattice_moves(P, moving, whole)
    assert len(moves) == expected
    np.testing.assert_allclose(moves @ P.E.T, 0, atol=1e-12)
    levels = moves[:, ~moving] * 10
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-9)


def test_mixtures_of_integers_that_overlap_are_walked_through():
    parameters = {name: Integer(0, 40) for name in "abcde"}
    space = Space(
        parameters, [Simplex(list("abc"), total=40), Linear({"b": 1, "c": 1, "d": 1}, equals=40)]
    )
    X = Region(Domain(space)).sample(500, seeded())
    assert space.feasible(X).all() and np.array_equal(space.snap(X), X)
    assert len({row.tobytes() for row in X[:, :4]}) > 200
    best = space.encode({"a": 11, "b": 4, "c": 25, "d": 11, "e": 7})
    assert np.array_equal(search_for(Peak(best), Domain(space)).x, best)


def test_large_integers_and_many_columns_do_not_stop_a_search():
    space = Space(
        {"a": Integer(0, 10**6), "b": Integer(0, 10**6), "x": Real(0, 1e6)},
        [Simplex(["a", "b", "x"], total=1e6)],
    )
    found = search_for(Peak(np.array([0.2, 0.3, 0.5])), Domain(space))
    np.testing.assert_allclose(found.x, [0.2, 0.3, 0.5], atol=1e-4)
    names = [f"x{j}" for j in range(100)]
    many = Space({name: Real(0, 1) for name in names}, [Simplex(names)])
    top = np.random.default_rng(0).dirichlet(np.full(100, 0.3))
    found = search_for(Peak(top), Domain(many), search=QUICK)
    np.testing.assert_allclose(found.x, top, atol=1e-4)
    assert abs(sum(many.decode(found.x).values()) - 1) < 1e-10


# --------------------------------------------------------------------------------------
# Climbs, against scipy
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_linear_function_is_climbed_to_its_vertex(seed):
    g = rng(seed)
    d = int(g.integers(3, 10))
    A, lower, upper = rows = random_limits(g, d, equalities=seed % 3)
    P = Polytope.of(*rows, *box(d))
    w, equal = g.standard_normal(d), lower == upper
    oracle = scipy.optimize.linprog(
        -w, A[~equal], upper[~equal], A[equal] if equal.any() else None,
        upper[equal] if equal.any() else None, bounds=(0, 1),
    )  # fmt: skip
    x, _ = P.interior(np.full(d, 0.5), np.ones(d, dtype=bool))
    ascent = ascend_within(
        lambda X: (X @ w, np.tile(w, (len(X), 1))),
        x[None],
        np.zeros((1, d)),
        np.ones((1, d)),
        10 ** g.uniform(-1, 1, d),
        P,
    )
    np.testing.assert_allclose(ascent.X[0], oracle.x, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_a_concave_quadratic_is_climbed_to_its_top_on_a_face_an_edge_or_inside(seed):
    g = rng(seed)
    d = int(g.integers(3, 10))
    rows = random_limits(g, d, equalities=seed % 3)
    P = Polytope.of(*rows, *box(d))
    M, top = g.standard_normal((d, d)) / np.sqrt(d), g.uniform(-0.5, 1.5, d)

    def function(X):
        away = (X - top) @ M.T
        return -0.5 * (away**2).sum(1), -away @ M

    x, _ = P.interior(np.full(d, 0.5), np.ones(d, dtype=bool))
    oracle = scipy.optimize.minimize(
        lambda u: (-function(u[None])[0][0], -function(u[None])[1][0]), x, jac=True,
        bounds=[(0, 1)] * d, method="SLSQP", constraints=as_scipy(*rows),
        options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    scale = 10 ** g.uniform(-1, 1, d)
    ascent = ascend_within(
        function, x[None], np.zeros((1, d)), np.ones((1, d)), scale, P,
        max_rounds=300, tolerance=1e-7,
    )  # fmt: skip
    assert ascent.value[0] >= -oracle.fun - 1e-8
    assert (P.G @ ascent.X[0] <= P.h + 1e-10).all()
    np.testing.assert_allclose(P.E @ ascent.X[0], P.e, atol=1e-12)
