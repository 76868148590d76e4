"""What solves and likelihoods by products take: refusals, warnings, operators of a user's own."""

import math

import pytest
import torch
from oracles import normal, spd_matrix

from surrogate import BBMM, RBF, Matern12, Matern52, NotConverged
from surrogate.operators import Dense, Diagonal, LinearOperator
from surrogate.solvers import Estimate, log_marginal_likelihood, solve
from tests.surrogate.helpers import log_density, observations

# --- At the door. ----------------------------------------------------------------------


def test_an_estimate_says_what_it_is():
    estimate = Estimate(torch.tensor(1.5), 1.0, 3.0, 0.1)
    assert str(estimate) == "1.5 (from 1 to 3)"
    assert estimate.half_width == 1.0
    assert float(estimate) == 1.5


def test_what_does_not_fit_is_refused(rng):
    K, y = Dense(torch.eye(4).double()), normal(rng, 4)
    with pytest.raises(ValueError, match=r"y must have shape \(4,\)"):
        log_marginal_likelihood(K, torch.ones(4), y[:3])
    with pytest.raises(ValueError, match=r"noise must have shape \(4,\) or \(\)"):
        log_marginal_likelihood(K, torch.ones(3), y)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="noise must hold finite, positive"):
            log_marginal_likelihood(K, torch.tensor([1.0, 1.0, bad, 1.0]), y)
    with pytest.raises(ValueError, match="y has 4 NaN"):
        log_marginal_likelihood(K, torch.ones(4), y * torch.nan)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tolerance", 0.0),
        ("training_tolerance", math.nan),
        ("variance_tolerance", -1.0),
        ("probes", 1),
        ("rank", -1),
        ("block", -1),
        ("max_steps", 0),
        ("storage", "float16"),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        BBMM(**{option: value})


def test_a_likelihood_that_did_not_converge_warns_and_is_bounded_still(rng):
    X, y, noise = observations(rng, 40, least=1e-4, most=1e-4)
    K = Matern12(2, 0.5)(X, X).detach()
    exact = float(log_density(K + noise.diag(), y))
    with pytest.warns(NotConverged, match="after 1 steps"):
        found = log_marginal_likelihood(Dense(K), noise, y, BBMM(rank=0, max_steps=1))
    assert found.lower <= exact <= found.upper


# --- A user's own operator. ------------------------------------------------------------


class Own(LinearOperator):
    """What a user writes: K of any type, with rows and diagonal of the same."""

    def __init__(self, K):
        self.K, self.n = K, len(K)

    def matmul(self, V):
        return self.K @ V.to(self.K.dtype)

    def rows(self, index):
        return self.K[index]

    def diagonal(self):
        return self.K.diagonal()


class Clusters(Own):
    """With coordinates, so that a preconditioner keeps blocks."""

    @property
    def coordinates(self):
        return torch.arange(self.n).double().unsqueeze(1)


def test_an_operator_that_contradicts_itself_has_neither_likelihood_nor_solution(rng):
    class Tripled(Own):
        def rows(self, index):
            return 3 * super().rows(index)

    K, y = spd_matrix(torch.logspace(-2, 0, 30, dtype=torch.float64), rng), normal(rng, 30)
    skew = K.clone()
    skew[3, 5] += 0.5
    for wrong, message in ((Tripled(K), "Tripled.rows disagrees"), (Own(skew), "symmetric")):
        with pytest.raises(ValueError, match=message):
            log_marginal_likelihood(wrong, 0.1, y)
        with pytest.raises(ValueError, match=message):
            solve(wrong, 0.1, y.unsqueeze(1))
    for ask, right in ((log_marginal_likelihood, y), (solve, y.unsqueeze(1))):
        with pytest.raises(TypeError, match="must be a LinearOperator; got Tensor"):
            ask(K, 0.1, right)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("operator", [Own, Clusters])
@pytest.mark.parametrize("smooth", [False, True])
def test_operators_in_float32_are_preconditioned_in_float64(operator, smooth, rng):
    X, y, _ = observations(rng)
    K = (RBF if smooth else Matern12)(2, 0.5)(X, X).detach()
    for noise in (1e-1, 1e-3):  # at 1e-4 products in float32 end at a residual of 6e-5
        K_hat = K.float().double() + noise * torch.eye(40)
        options = BBMM(rank=30, block=8, tolerance=1e-4)
        solution = solve(operator(K.float()), noise, y.unsqueeze(1).float(), options)
        assert solution.U.dtype == torch.float64 and bool(solution.info.converged.all())
        left = K_hat @ solution.U[:, 0] - y
        assert float(left.norm() / y.norm()) <= 1.1e-4
        found = log_marginal_likelihood(operator(K.float()), noise, y.float(), options)
        assert found.lower - 1e-2 <= float(log_density(K_hat, y)) <= found.upper + 1e-2


def test_an_operator_with_a_graph_is_solved_without_a_warning(rng):
    X, y, noise = observations(rng)
    kernel = Matern52(2, 0.5)
    noise.requires_grad_(True)
    for K in (Dense(kernel(X, X)), Clusters(kernel(X, X)), Diagonal(noise)):
        system = BBMM(rank=20, block=8).system(K, noise)
        solutions = solve(K, noise, y.unsqueeze(1)), system.solve(y.unsqueeze(1))
        assert not any(solution.U.requires_grad for solution in solutions)
        assert not system.preconditioner.L.requires_grad


def test_one_noise_variance_makes_a_system_as_n_equal_ones_do(rng):
    K, b = (
        Dense(spd_matrix(torch.logspace(-2, 0, 12, dtype=torch.float64), rng)),
        normal(rng, 12, 1),
    )
    expected = torch.linalg.solve(K.A + 0.1 * torch.eye(12), b)
    for noise in (0.1, torch.tensor(0.1), torch.full((12,), 0.1).double()):
        torch.testing.assert_close(
            BBMM().system(K, noise).solve(b).U, expected, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(solve(K, noise, b).U, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"noise must have shape \(12,\) or \(\); got \(3,\)"):
        BBMM().system(K, torch.ones(3))


def test_right_hand_sides_that_do_not_fit_are_refused_before_any_work(rng):
    K, b = Dense(torch.eye(6).double()), normal(rng, 6)
    for ask in (lambda b: solve(K, 0.1, b), BBMM().system(K, 0.1).solve):
        with pytest.raises(ValueError, match=r"B must have shape \(6, t\).*pass B.unsqueeze\(-1\)"):
            ask(b)
        with pytest.raises(ValueError, match=r"B must have shape \(6, t\).*got \(5, 1\)"):
            ask(b[:5].unsqueeze(1))
        with pytest.raises(ValueError, match="B has 6 NaN"):
            ask(b.unsqueeze(1) * torch.nan)


def test_warnings_point_at_who_called_the_library(rng):
    X, y, noise = observations(rng, 40, least=1e-4, most=1e-4)
    K, rough = Dense(Matern12(2, 0.5)(X, X).detach()), BBMM(rank=0, max_steps=1)
    calls = (
        lambda: log_marginal_likelihood(K, noise, y, rough),
        lambda: solve(K, noise, y.unsqueeze(1), rough),
        lambda: rough.system(K, noise).solve(y.unsqueeze(1)),
    )
    for call in calls:
        with pytest.warns(NotConverged) as caught:
            call()
        assert caught[0].filename == __file__
