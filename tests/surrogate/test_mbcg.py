import math
import warnings

import pytest
import torch
from oracles import normal, spd_matrix, uniform

from surrogate import RBF, Matern12, NotConverged, NotPositiveDefinite
from surrogate.operators import Dense, Diagonal, KernelOperator, LinearOperator
from surrogate.solvers import mbcg
from tests.surrogate.helpers import Inverse


class Counted(Dense):
    """A stored matrix that counts its products."""

    products = 0

    def matmul(self, V):
        self.products += 1
        return super().matmul(V)


class Broken(Dense):
    """Its products are NaN from the third on."""

    products = 0

    def matmul(self, V):
        self.products += 1
        return super().matmul(V) * (torch.nan if self.products > 2 else 1.0)


def spectrum(n: int, least: float, most: float = 1.0) -> torch.Tensor:
    return torch.logspace(math.log10(least), math.log10(most), n, dtype=torch.float64)


def residuals(K, solution, B):
    return (B - K @ solution.U).norm(dim=0) / B.norm(dim=0)


def close(found, expected, tolerance=1e-8):
    error = (found - expected).norm(dim=0)
    assert bool((error <= tolerance * expected.norm(dim=0)).all())


# --- The answer. -----------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 3, 16, 70])
def test_solutions_are_those_of_a_cholesky_factor(t, rng):
    K, B = spd_matrix(spectrum(60, 1e-4), rng), normal(rng, 60, t)
    solution = mbcg(Dense(K), B, tolerance=1e-12)
    close(solution.U, torch.cholesky_solve(B, torch.linalg.cholesky(K)))
    torch.testing.assert_close(solution.R, B - K @ solution.U)
    assert bool(solution.info.converged.all())
    assert solution.U.mT.is_contiguous() and solution.R.mT.is_contiguous()


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("t", [0, 1, 5])
@pytest.mark.parametrize("lanczos", [False, True])
def test_the_smallest_systems_are_solved_too(n, t, lanczos, rng):
    K, B = spd_matrix(spectrum(n, 1e-2), rng), normal(rng, n, t)
    solution = mbcg(Dense(K), B, tolerance=1e-10, lanczos=lanczos)
    torch.testing.assert_close(solution.U, torch.linalg.inv(K) @ B)
    assert solution.info.residual.shape == (t,)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-4, 1e-8])
def test_the_residual_it_reports_is_the_one_it_has(tolerance, rng):
    K, B = spd_matrix(spectrum(80, 1e-3), rng), normal(rng, 80, 7)
    solution = mbcg(Dense(K), B, tolerance=tolerance)
    true = residuals(K, solution, B)
    assert bool((true <= tolerance).all())
    assert bool((true <= 1.5 * solution.info.residual).all())
    assert bool((solution.info.residual <= 1.5 * true).all())


def test_99_easy_columns_do_not_hide_a_hard_one(rng):
    eigenvalues = spectrum(100, 1e-5)
    K = eigenvalues.diag()
    B = torch.eye(100, dtype=torch.float64)[:, -1:].repeat(1, 100) * uniform(rng, 100)
    B[:, 57] = normal(rng, 100)
    solution = mbcg(Dense(K), B, tolerance=1e-6)
    assert bool((residuals(K, solution, B) <= 1e-6).all())
    assert solution.info.steps.argmax() == 57
    with pytest.warns(NotConverged, match=r"after 5 steps: 99 of 100 columns reached"):
        short = mbcg(Dense(K), B, tolerance=1e-6, max_steps=5)
    assert short.info.converged.logical_not().nonzero().tolist() == [[57]]


def test_columns_that_coincide_vanish_or_depend_on_others_do_no_harm(rng):
    K, B = spd_matrix(spectrum(40, 1e-3), rng), normal(rng, 40, 8)
    B[:, 1], B[:, 2], B[:, 3] = B[:, 0], 0.0, -1e-7 * B[:, 0]
    B[:, 4] = B[:, 5] - 2 * B[:, 6]
    B[:, 7] = B[:, 0] + 1e-13 * B[:, 7]
    solution = mbcg(Dense(K), B, tolerance=1e-11)
    close(solution.U, torch.linalg.solve(K, B))
    assert torch.equal(solution.U[:, 2], torch.zeros(40))
    guessed = mbcg(Dense(K), B, tolerance=1e-11, guess=normal(rng, 40, 8))
    close(guessed.U, torch.linalg.solve(K, B))
    assert torch.equal(guessed.U[:, 2], torch.zeros(40))


def test_columns_of_any_size_stand_side_by_side(rng):
    K, B = spd_matrix(spectrum(40, 1e-3), rng), normal(rng, 40, 5)
    sizes = torch.tensor([1e-250, 1e-150, 1.0, 1e150, 1e250], dtype=torch.float64)
    U = mbcg(Dense(K), B * sizes, tolerance=1e-11).U
    close(U / sizes, torch.linalg.solve(K, B))


def test_float32_right_hand_sides_are_solved_in_float64(rng):
    K, B = spd_matrix(spectrum(20, 1e-3), rng), normal(rng, 20, 2).float()
    close(mbcg(Dense(K), B, tolerance=1e-11).U, torch.linalg.solve(K, B.double()))


# --- How long it takes. ----------------------------------------------------------------


def test_products_are_counted(rng):
    K = Counted(spd_matrix(spectrum(50, 1e-3), rng))
    for guess in (None, normal(rng, 50, 3)):
        K.products = 0
        info = mbcg(K, normal(rng, 50, 3), guess=guess).info
        assert info.products == K.products


def test_the_exact_inverse_as_preconditioner_needs_one_step(rng):
    K, B = spd_matrix(spectrum(50, 1e-6), rng), normal(rng, 50, 4)
    info = mbcg(Dense(K), B, preconditioner=Inverse(K), tolerance=1e-8).info
    assert info.steps.tolist() == [1, 1, 1, 1]


def test_a_diagonal_preconditioner_undoes_bad_scaling(rng):
    scale = spectrum(80, 1e-3)
    K, B = spd_matrix(spectrum(80, 0.1), rng), normal(rng, 80, 1)
    scaled = Dense(scale.unsqueeze(1) * K * scale)
    plain = mbcg(scaled, B, tolerance=1e-6).info.steps
    helped = mbcg(scaled, B, preconditioner=Inverse(scale.square().diag()), tolerance=1e-6).info
    assert 4 * int(helped.steps) < int(plain)
    assert bool(helped.converged)


def test_a_block_takes_fewer_steps_than_each_of_its_columns_alone(rng):
    K, B = Dense(spd_matrix(spectrum(120, 1e-4), rng)), normal(rng, 120, 12)
    together = mbcg(K, B, tolerance=1e-6).info.steps.max()
    alone = min(int(mbcg(K, b.unsqueeze(1), tolerance=1e-6).info.steps) for b in B.T)
    assert 2 * together < alone


def test_a_block_spans_the_whole_space_after_n_over_t_steps(rng):
    K, B = spd_matrix(spectrum(60, 1e-2), rng), normal(rng, 60, 20)
    assert mbcg(Dense(K), B, tolerance=1e-6).info.steps.max() <= 3


def test_helpers_shorten_the_solve_and_do_not_show(rng):
    K, B = Dense(spd_matrix(spectrum(120, 1e-4), rng)), normal(rng, 120, 2)
    alone = mbcg(K, B, tolerance=1e-8)
    for guess in (None, 0.9 * alone.U):
        helped = mbcg(K, B, guess=guess, helpers=normal(rng, 120, 10), tolerance=1e-8)
        assert 2 * int(helped.info.steps.max()) < int(alone.info.steps.min())
        assert helped.U.shape == helped.R.shape == B.shape
        assert helped.info.residual.shape == (2,)
        assert bool((residuals(K.A, helped, B) <= 1e-8).all())
    easy = torch.linalg.eigh(K.A)[1][:, -2:]
    helped = mbcg(K, easy + 1e-4 * B, helpers=normal(rng, 120, 3), tolerance=1e-2)
    assert helped.info.products <= 3  # the helpers themselves are far from solved


# --- Warm starts. ----------------------------------------------------------------------


def test_the_solution_as_guess_needs_no_step(rng):
    K, B = spd_matrix(spectrum(50, 1e-4), rng), normal(rng, 50, 4)
    U = torch.linalg.solve(K, B)
    solution = mbcg(Dense(K), B, guess=U, tolerance=1e-8)
    assert solution.info.steps.tolist() == [0] * 4
    assert solution.info.products == 1
    close(solution.U, U)


def test_a_bad_guess_costs_no_more_than_its_product(rng):
    K, B = Dense(spd_matrix(spectrum(80, 1e-4), rng)), normal(rng, 80, 4)
    cold = mbcg(K, B).info
    for guess in (torch.zeros_like(B), 1e6 * normal(rng, 80, 4), -torch.linalg.solve(K.A, B)):
        assert mbcg(K, B, guess=guess).info.products <= cold.products + 1


def test_warm_and_cold_solves_agree_and_warm_ones_are_shorter(rng):
    X, B = uniform(rng, 120, 2), normal(rng, 120, 5)
    guess, shorter = None, []
    for step in range(30):  # parameters on a slow walk, noise up and down
        noise = 10 ** (-3 + math.sin(step / 6))
        K = RBF(2, 0.3 + 0.003 * step)(X, X).detach() + noise * torch.eye(120)
        cold = mbcg(Dense(K), B, tolerance=1e-4)
        warm = mbcg(Dense(K), B, tolerance=1e-4, guess=guess)
        assert bool((residuals(K, warm, B) <= 1e-4).all())
        energy = ((warm.U - cold.U) * (K @ (warm.U - cold.U))).sum(0).sqrt()
        assert bool((energy <= 2e-4 * B.norm(dim=0) / noise**0.5).all())
        shorter.append(bool(warm.info.steps.max() <= cold.info.steps.max()))
        guess = warm.U
    assert sum(shorter) >= 27


# --- The end of what rounding allows. --------------------------------------------------


def test_what_float64_cannot_reach_ends_with_a_warning_and_the_best_there_was(rng):
    K, B = spd_matrix(spectrum(60, 1e-5), rng), normal(rng, 60, 3)
    with pytest.warns(NotConverged, match=r"where rounding allows no more: 0 of 3 columns"):
        solution = mbcg(Dense(K), B, tolerance=1e-17)
    assert bool((residuals(K, solution, B) < 1e-10).all())
    assert solution.info.products < 500
    assert int(solution.info.steps.min()) >= solution.info.products - 5
    assert not bool(solution.info.converged.any())
    torch.testing.assert_close(residuals(K, solution, B), solution.info.residual)


def test_a_solution_that_rounding_would_spoil_is_kept(rng):
    class Deteriorating(Dense):
        """The more it is used, the less accurate its products."""

        count = 0

        def matmul(self, V):
            self.count += 1
            noise = 0.0 if self.count < 20 else 1e-3
            return super().matmul(V) + noise * normal(rng, *V.shape) * V.norm(dim=0)

    K, B = spd_matrix(spectrum(60, 1e-2), rng), normal(rng, 60, 2)
    first = mbcg(Dense(K), B, tolerance=1e-4)
    with pytest.warns(NotConverged):
        solution = mbcg(Deteriorating(K), B, guess=first.U, tolerance=1e-15, max_steps=200)
    assert bool((residuals(K, solution, B) < 1e-3).all())


def test_max_steps_ends_a_solve_with_a_warning_that_can_be_turned_off(rng):
    K, B = Dense(spd_matrix(spectrum(80, 1e-6), rng)), normal(rng, 80, 2)
    with pytest.warns(NotConverged, match=r"after 3 steps: 0 of 2 .* in 4 products") as caught:
        mbcg(K, B, max_steps=3)
    assert caught[0].filename == __file__
    info = mbcg(K, B, max_steps=3, warn=False).info
    assert info.steps.tolist() == [3, 3]
    untouched = mbcg(K, B, max_steps=0, warn=False)
    assert not untouched.U.any()
    torch.testing.assert_close(untouched.R, B)


class Single(Dense):
    """Multiplies in float32; what it multiplies is known in float64 too."""

    roundoff = 1e-7

    def matmul(self, V):
        self.products = getattr(self, "products", 0) + 1
        return (self.A.float() @ V.float()).double()

    @property
    def precise(self):
        return Dense(self.A)


@pytest.mark.parametrize("refine", [False, True])
def test_products_that_are_off_are_looked_at_on_the_way_and_not_only_at_the_end(refine, rng):
    X, B = uniform(rng, 200, 1), normal(rng, 200, 1)
    exact = Matern12(1, 0.3)(X, X).detach() + 1e-2 * torch.eye(200)
    single = Single(exact)
    tolerance = 1e-9 if refine else 1e-4
    solution = mbcg(
        1.0 * single + Diagonal(torch.zeros(200).double()), B, tolerance=tolerance, refine=refine
    )
    assert bool((residuals(exact, solution, B) <= 1.1 * tolerance).all())
    steps = int(solution.info.steps.max())
    looks = solution.info.products - steps
    assert steps // 12 <= looks <= 0.3 * steps
    assert (single.products == solution.info.products) != refine


def test_products_in_float32_still_give_solutions_of_float64(rng):
    X, B = uniform(rng, 150, 2), normal(rng, 150, 4)
    K = KernelOperator(Matern12(2, 0.5), X, storage="float32")
    noise = torch.full((150,), 1e-2, dtype=torch.float64)
    exact = Matern12(2, 0.5)(X, X).detach() + noise.diag()
    rough = mbcg(K + Diagonal(noise), B, tolerance=1e-10, warn=False)
    assert float(residuals(exact, rough, B).max()) > 1e-9
    solution = mbcg(K + Diagonal(noise), B, tolerance=1e-10, refine=True)
    assert bool((residuals(exact, solution, B) <= 1.01e-10).all())
    close(solution.U, torch.linalg.solve(exact, B))


def test_float32_products_are_looked_at_on_the_way_and_not_only_at_the_end(rng):
    X, B = uniform(rng, 200, 1), normal(rng, 200, 1)
    K = KernelOperator(Matern12(1, 0.3), X, storage="float32")
    noise = Diagonal(torch.full((200,), 1e-3, dtype=torch.float64))
    exact = Matern12(1, 0.3)(X, X).detach() + noise.values.diag()
    solution = mbcg(K + noise, B, tolerance=1e-9, refine=True)
    assert bool((residuals(exact, solution, B) <= 1.01e-9).all())
    assert solution.info.products <= 1.3 * int(solution.info.steps.max())


# --- Degenerate kernels. ---------------------------------------------------------------


@pytest.mark.parametrize("noise", [1e-2, 1e-6])
def test_duplicated_and_far_shifted_inputs_are_solved(noise, rng):
    X = uniform(rng, 40, 2)
    X = torch.cat([X, X, X]) + 1e6
    K = KernelOperator(RBF(2, 0.3), X)
    B = torch.cat([normal(rng, 120, 2), torch.ones(120, 1)], 1)
    solution = mbcg(K + Diagonal(torch.full((120,), noise).double()), B, tolerance=1e-8)
    exact = RBF(2, 0.3)(X, X).detach() + noise * torch.eye(120)
    assert bool((residuals(exact, solution, B) <= 1.5e-8).all())


def test_noise_far_below_rounding_ends_without_an_exception(rng):
    X = uniform(rng, 40, 2)
    K = KernelOperator(RBF(2, 0.5), torch.cat([X, X]))
    for noise in (1e-10, 0.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConverged)
            operator = K + Diagonal(torch.full((80,), noise).double())
            solution = mbcg(operator, normal(rng, 80, 3), tolerance=1e-8, max_steps=200)
        assert bool(solution.U.isfinite().all())
        assert bool((solution.info.residual >= 0).all())


# --- At the door. ----------------------------------------------------------------------


def test_an_indefinite_matrix_is_described(rng):
    eigenvalues = spectrum(30, 1e-2)
    eigenvalues[3] = -0.05
    with pytest.raises(NotPositiveDefinite, match=r"dᵀKd from -?\d.*all must be positive"):
        mbcg(Dense(spd_matrix(eigenvalues, rng)), normal(rng, 30, 2), tolerance=1e-10)
    with pytest.raises(NotPositiveDefinite, match="from -1 to -1"):
        mbcg(Dense(-torch.eye(5).double()), normal(rng, 5, 1))


def test_an_indefinite_preconditioner_is_described(rng):
    K, P = spd_matrix(spectrum(30, 1e-2), rng), -torch.eye(30, dtype=torch.float64)
    with pytest.raises(NotPositiveDefinite, match="the preconditioner is not positive definite"):
        mbcg(Dense(K), normal(rng, 30, 2), preconditioner=Inverse(P))


def test_a_product_that_is_not_finite_is_an_error(rng):
    K, B = spd_matrix(spectrum(30, 1e-4), rng), normal(rng, 30, 2)
    for guess in (None, B):
        with pytest.raises(ValueError, match="a product with K is not finite"):
            mbcg(Broken(K), B, guess=guess)
    broken = Inverse(torch.eye(30, dtype=torch.float64))
    broken.inverse[3, 3] = torch.nan
    with pytest.raises(ValueError, match="the preconditioner's solve is not finite"):
        mbcg(Dense(K), B, preconditioner=broken)


def test_what_does_not_fit_is_refused(rng):
    K, B = Dense(spd_matrix(spectrum(6, 1e-2), rng)), normal(rng, 6, 2)
    with pytest.raises(ValueError, match=r"shape \(6, t\).*B.unsqueeze"):
        mbcg(K, B[:, 0])
    with pytest.raises(ValueError, match=r"shape \(6, t\).*got \(5, 2\)"):
        mbcg(K, B[:5])
    with pytest.raises(ValueError, match=r"guess must have the shape \(6, 2\)"):
        mbcg(K, B, guess=B[:, :1])
    with pytest.raises(ValueError, match="leave out guess"):
        mbcg(K, B, guess=B, lanczos=True)
    bad = B.clone()
    bad[2, 1] = torch.inf
    with pytest.raises(ValueError, match="B has 1 NaN or infinite"):
        mbcg(K, bad)
    with pytest.raises(ValueError, match="guess has 1 NaN or infinite"):
        mbcg(K, B, guess=bad)


def test_what_the_caller_owns_is_left_alone(rng):
    class Plain(LinearOperator):
        n = 20

        def matmul(self, V):
            return K @ V

    K, B, guess = spd_matrix(spectrum(20, 1e-2), rng), normal(rng, 20, 3), normal(rng, 20, 3)
    for start in (None, guess, B):
        before = K.clone(), B.clone(), guess.clone()
        mbcg(Plain(), B, guess=start)
        assert all(torch.equal(a, b) for a, b in zip(before, (K, B, guess), strict=True))
