import math

import numpy as np
import pytest
from oracles import quadratic_minimum_in_box
from scipy import optimize

from surrogate.models.descent import Minimum, follow, minimise


def quadratic(A, c):
    return lambda x: (0.5 * (x - c) @ A @ (x - c), A @ (x - c))


def rosenbrock(x):
    return optimize.rosen(x), optimize.rosen_der(x)


def random_problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A of condition up to 10⁴, a centre mostly outside the unit box, a start inside."""
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 7))
    Q, _ = np.linalg.qr(rng.normal(size=(p, p)))
    A = (Q * 10 ** rng.uniform(-2, 2, size=p)) @ Q.T
    return A, 2 * rng.normal(size=p), rng.uniform(-1, 1, size=p)


class Recorded:
    def __init__(self, function) -> None:
        self.function, self.calls = function, []

    def __call__(self, x):
        self.calls.append(x.copy())
        return self.function(x)


@pytest.mark.parametrize("seed", range(150))
def test_a_quadratic_in_a_box_is_minimised_whichever_bounds_are_active(seed):
    A, c, x = random_problem(seed)
    low, high = -np.ones(len(c)), np.ones(len(c))
    function = quadratic(A, c)
    found = minimise(function, x, low, high, tolerance=1e-9)
    best, _ = function(quadratic_minimum_in_box(A, c, low, high))
    assert found.converged
    assert found.value == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert found.value == function(found.x)[0]
    np.testing.assert_array_equal(found.gradient, function(found.x)[1])


def test_boxes_are_solved_in_ten_evaluations_on_average():
    # Before it used the Hessian's block along active bounds it took 30, and sometimes got stuck.
    evaluations = 0
    for seed in range(100):
        A, c, x = random_problem(seed)
        box = np.ones(len(c))
        evaluations += minimise(quadratic(A, c), x, -box, box, tolerance=1e-6).evaluations
    assert evaluations <= 1000


@pytest.mark.parametrize("dims", [2, 5])
def test_rosenbrock_is_followed_to_the_end_of_its_valley(dims):
    found = minimise(
        rosenbrock, np.full(dims, -1.2), np.full(dims, -3.0), np.full(dims, 3.0), tolerance=1e-10
    )
    assert found.converged
    np.testing.assert_allclose(found.x, 1.0, atol=1e-3)


def test_rosenbrock_cut_off_by_a_bound_agrees_with_scipy():
    low, high = np.array([-2.0, -2.0, -2.0]), np.array([0.5, 2.0, 2.0])
    x = np.array([-1.0, 1.0, 0.5])
    expected = optimize.minimize(
        rosenbrock, x, jac=True, method="L-BFGS-B", bounds=list(zip(low, high, strict=True))
    )
    found = minimise(rosenbrock, x, low, high, tolerance=1e-10)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-4)
    assert found.x[0] == 0.5


def test_no_point_outside_the_box_is_ever_evaluated():
    low, high = np.array([-0.3, -1.0]), np.array([0.2, 0.4])
    function = Recorded(rosenbrock)
    minimise(function, np.array([-5.0, 7.0]), low, high)  # starts outside: moved in
    calls = np.array(function.calls)
    assert (calls >= low).all() and (calls <= high).all()


def test_every_call_is_counted():
    function = Recorded(rosenbrock)
    found = minimise(function, np.zeros(2), np.full(2, -2.0), np.full(2, 2.0))
    assert found.evaluations == len(function.calls)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_no_more_evaluations_are_made_than_allowed(limit):
    function = Recorded(rosenbrock)
    found = minimise(
        function, np.full(3, -1.2), np.full(3, -3.0), np.full(3, 3.0), max_evaluations=limit
    )
    assert len(function.calls) == limit
    assert not found.converged
    assert str(limit) in found.message
    assert found.value == min(rosenbrock(x)[0] for x in function.calls)


@pytest.mark.parametrize("outside", [math.inf, math.nan])
def test_values_that_are_not_finite_are_backed_away_from(outside):
    def function(x):  # a cliff right behind the minimum at 0.9
        return ((x[0] - 0.9) ** 2, 2 * (x - 0.9)) if x[0] < 1 else (outside, np.zeros(1))

    found = minimise(function, np.array([-4.0]), np.array([-9.0]), np.array([9.0]), tolerance=1e-8)
    assert found.converged
    np.testing.assert_allclose(found.x, 0.9, atol=1e-3)


def test_a_start_that_is_not_finite_is_not_called_a_minimum():
    found = minimise(lambda x: (math.inf, np.zeros(2)), np.zeros(2), -np.ones(2), np.ones(2))
    assert not found.converged
    assert "not finite" in found.message
    assert found.inverse_hessian is None


def test_a_gradient_that_lies_ends_the_search_instead_of_looping():
    found = minimise(lambda x: (x @ x, -2 * x), np.ones(2), np.full(2, -3.0), np.full(2, 3.0))
    assert not found.converged
    assert "no step" in found.message
    np.testing.assert_array_equal(found.x, 1.0)


def test_a_start_at_the_minimum_costs_one_evaluation():
    found = minimise(quadratic(np.eye(2), np.zeros(2)), np.zeros(2), -np.ones(2), np.ones(2))
    assert found.converged and found.evaluations == 1
    assert found.inverse_hessian is None


def test_nothing_to_vary_costs_one_evaluation():
    nothing = np.empty(0)
    found = minimise(lambda x: (1.5, x), nothing, nothing, nothing)
    assert isinstance(found, Minimum)
    assert found.converged and found.value == 1.5


def test_a_start_in_the_corner_the_function_pushes_into_stays_there():
    found = minimise(lambda x: (x.sum(), np.ones(3)), np.zeros(3), np.zeros(3), np.ones(3))
    assert found.converged and found.evaluations == 1


def test_the_inverse_hessian_comes_out_near_the_true_one():
    A = np.array([[3.0, 1.0], [1.0, 0.5]])
    box = np.full(2, 9.0)
    found = minimise(quadratic(A, np.zeros(2)), np.array([2.0, -1.0]), -box, box, tolerance=1e-12)
    np.testing.assert_allclose(found.inverse_hessian, np.linalg.inv(A), rtol=0.05)


def test_a_warm_inverse_hessian_saves_evaluations_and_is_not_written_into():
    dims = 8
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dims, dims)))
    A, box = (Q * np.logspace(-1, 2, dims)) @ Q.T, np.full(dims, 9.0)
    start, centre = np.full(dims, 0.5), np.full(dims, 0.2)
    cold = minimise(quadratic(A, np.zeros(dims)), start, -box, box, tolerance=1e-8)
    before = cold.inverse_hessian.copy()
    warm = minimise(
        quadratic(A, centre), start, -box, box, tolerance=1e-8, inverse_hessian=cold.inverse_hessian
    )
    np.testing.assert_allclose(warm.value, 0.0, atol=1e-7)
    assert 2 * warm.evaluations <= cold.evaluations
    np.testing.assert_array_equal(cold.inverse_hessian, before)


def test_the_caller_keeps_the_start_and_the_bounds():
    x, low, high = np.array([-5.0, 0.3]), np.full(2, -2.0), np.full(2, 2.0)
    minimise(rosenbrock, x, low, high)
    np.testing.assert_array_equal(x, [-5.0, 0.3])
    np.testing.assert_array_equal(low, -2.0)
    np.testing.assert_array_equal(high, 2.0)


# --------------------------------------------------------------------------------------
# Many variables, of which only the first few have a curvature that is kept whole.
# --------------------------------------------------------------------------------------


def wide_problem(seed: int, columns: int = 3, rows: int = 60):
    """Two variables and rows of others whose columns have lengths 1, 1/10, 1/100, all coupled."""
    rng = np.random.default_rng(seed)
    p = 2 + columns * rows
    lengths = np.concatenate([[0.3, 3.0], np.tile(0.1 ** np.arange(columns), rows)])
    V = rng.normal(size=(p, 8)) / np.sqrt(p)
    A = (np.eye(p) + V @ V.T) / np.outer(lengths, lengths)
    return A, lengths * rng.normal(size=p), lengths


def minimise_wide(seed: int, *, dense: int = 2, **options) -> Minimum:
    A, c, _ = wide_problem(seed)
    far = np.full(len(c), 1e9)
    return minimise(quadratic(A, c), np.zeros(len(c)), -far, far, dense=dense, **options)


@pytest.mark.parametrize("seed", range(10))
def test_columns_of_different_lengths_are_minimised_in_few_evaluations(seed):
    scaled = minimise_wide(seed, columns=3, tolerance=1e-6)
    assert scaled.converged and scaled.evaluations <= 40
    assert scaled.value < 1e-4
    alike = minimise_wide(seed, columns=1, tolerance=1e-6)
    assert 2 * scaled.evaluations < alike.evaluations
    assert alike.value > scaled.value


def test_the_inverse_hessian_handed_on_is_that_of_the_variables_kept_whole():
    found = minimise_wide(0, columns=3, tolerance=1e-10).inverse_hessian
    A, _, _ = wide_problem(0)
    ratio = found.diagonal() / np.linalg.inv(A).diagonal()[:2]
    assert ((ratio > 0.5) & (ratio < 2)).all()
    np.testing.assert_allclose(found, found.T)
    warm = minimise_wide(0, columns=3, tolerance=1e-4, inverse_hessian=found)
    assert warm.inverse_hessian.shape == (2, 2)
    none = minimise_wide(0, dense=0, columns=2, tolerance=1e-4)
    assert none.inverse_hessian.shape == (0, 0)


@pytest.mark.parametrize(("dense", "columns"), [(0, 1), (2, 3)])
def test_bounds_hold_where_curvature_is_not_kept_whole(dense, columns):
    A, c, _ = wide_problem(1, rows=10)
    low, high = np.full(len(c), -1e9), np.full(len(c), 1e9)
    low[:2] = c[:2] + 0.1
    expected = optimize.minimize(
        quadratic(A, c), low.clip(-1), jac=True, method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)), options={"ftol": 1e-15, "gtol": 1e-10},
    )  # fmt: skip
    function = Recorded(quadratic(A, c))
    found = minimise(
        function, low.clip(-1), low, high, dense=dense, columns=columns, tolerance=1e-9,
        max_evaluations=1000,
    )  # fmt: skip
    assert found.value == pytest.approx(expected.fun, abs=1e-5)
    assert all((x >= low).all() for x in function.calls)


def test_a_step_in_variables_that_are_no_logarithms_is_measured_by_their_spread():
    """Other units, here a power of two to keep rounding the same, take the same steps."""
    A, c, _ = wide_problem(2)
    start = np.concatenate([[0.0, 0.0], np.random.default_rng(0).normal(size=len(c) - 2)])
    far, steps = np.full(len(c), 1e9), []
    for unit in (1.0, 1024.0):
        units = np.concatenate([np.ones(2), np.full(len(c) - 2, unit)])
        function = Recorded(quadratic(A / np.outer(units, units), c * units))
        minimise(function, start * units, -far, far, dense=2, columns=3)
        steps.append([x / units for x in function.calls])
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-9)


def test_high_dimensional_rosenbrock_agrees_with_scipy():
    far, x = np.full(50, 10.0), np.full(50, -0.5)
    expected = optimize.minimize(rosenbrock, x, jac=True, method="L-BFGS-B").fun
    found = minimise(rosenbrock, x, -far, far, dense=0, tolerance=1e-10, max_evaluations=1000)
    assert found.value == pytest.approx(expected, abs=1e-6)


# --------------------------------------------------------------------------------------
# By slopes alone.
# --------------------------------------------------------------------------------------


def slopes(function):
    return lambda x: function(x)[1]


@pytest.mark.parametrize("seed", range(100))
def test_slopes_alone_lead_to_the_minimum_of_a_quadratic_in_a_box(seed):
    A, c, x = random_problem(seed)
    box = np.ones(len(c))
    function = quadratic(A, c)
    found = follow(slopes(function), x, -box, box, tolerance=1e-9, max_evaluations=200)
    best, _ = function(quadratic_minimum_in_box(A, c, -box, box))
    assert found.converged and math.isnan(found.value)
    assert function(found.x)[0] == pytest.approx(best, rel=1e-6, abs=1e-6)
    np.testing.assert_array_equal(found.gradient, function(found.x)[1])


@pytest.mark.parametrize("dims", [2, 5])
def test_slopes_alone_lead_along_the_valley_of_rosenbrock(dims):
    start, box = np.full(dims, -1.2), np.full(dims, 3.0)
    found = follow(slopes(rosenbrock), start, -box, box, tolerance=1e-10, max_evaluations=300)
    assert found.converged
    # The other stationary point of five dimensions has x₁ = -1.
    np.testing.assert_allclose(found.gradient, 0.0, atol=1e-3)


def test_following_slopes_evaluates_nothing_outside_of_the_box_and_counts_every_call():
    low, high = np.array([-0.3, -1.0]), np.array([0.2, 0.4])
    function = Recorded(slopes(rosenbrock))
    found = follow(function, np.array([-5.0, 7.0]), low, high)
    calls = np.array(function.calls)
    assert (calls >= low).all() and (calls <= high).all()
    assert found.evaluations == len(calls)
    assert any(np.array_equal(found.x, call) for call in calls)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_following_slopes_makes_no_more_evaluations_than_allowed(limit):
    function, box = Recorded(slopes(rosenbrock)), np.full(3, 3.0)
    found = follow(function, np.full(3, -1.2), -box, box, max_evaluations=limit, tolerance=1e-9)
    assert len(function.calls) == limit
    assert not found.converged and str(limit) in found.message


def test_a_step_that_meets_half_its_slope_uphill_is_shortened():
    # Flat at first, then a wall: each full step ends on the wall.
    function = Recorded(lambda x: np.where(x < 1.0, -0.1, 50 * (x - 1.0) - 0.1))
    found = follow(function, np.zeros(1), np.full(1, -9.0), np.full(1, 9.0), tolerance=1e-9)
    assert found.converged
    np.testing.assert_allclose(found.x, 1.002, atol=1e-3)
    assert max(call[0] for call in function.calls) > 1.01  # it was met


def test_slopes_that_lie_end_the_search_instead_of_looping():
    def away(x):  # downhill wherever it stands, and steeper the farther it has gone
        return -np.sign(x - 1.0) * (1 + np.abs(x - 1.0))

    found = follow(away, np.array([1.0 + 1e-3]), np.array([-3.0]), np.array([3.0]))
    assert found.x[0] == 3.0  # a bound holds it

    def uphill(x):  # the slope changes its sign with every step, however short
        return np.where(x == 1.0, 1.0, -5.0)

    found = follow(uphill, np.ones(1), np.full(1, -3.0), np.full(1, 3.0))
    assert not found.converged and "no step" in found.message
    np.testing.assert_array_equal(found.x, 1.0)


def test_following_slopes_begins_with_curvature_that_is_known_and_hands_on_its_own():
    dims = 8
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dims, dims)))
    A, box = (Q * np.logspace(-1, 2, dims)) @ Q.T, np.full(dims, 9.0)
    start, centre = np.full(dims, 0.5), np.full(dims, 0.2)
    cold = follow(slopes(quadratic(A, 0 * start)), start, -box, box, tolerance=1e-8)
    before = cold.inverse_hessian.copy()
    warm = follow(
        slopes(quadratic(A, centre)),
        start,
        -box,
        box,
        tolerance=1e-8,
        inverse_hessian=cold.inverse_hessian,
    )
    assert cold.converged and warm.converged
    assert 2 * warm.evaluations <= cold.evaluations
    np.testing.assert_array_equal(cold.inverse_hessian, before)
    np.testing.assert_allclose(warm.x, centre, atol=1e-3)


def test_following_slopes_costs_one_evaluation_at_the_minimum_or_with_nothing_to_vary():
    nothing = np.empty(0)
    assert follow(lambda x: x, nothing, nothing, nothing).evaluations == 1
    found = follow(lambda x: x, np.zeros(2), -np.ones(2), np.ones(2))
    assert found.converged and found.evaluations == 1 and found.inverse_hessian is None
