import pytest
import torch
from oracles import normal, spd_matrix, uniform

from surrogate import RBF, Cholesky, CholeskyFactor, NotPositiveDefinite


def singular(rng, scale: float = 1.0) -> torch.Tensor:
    """A covariance matrix in which every point comes twice."""
    X = uniform(rng, 6, 2)
    X = torch.cat([X, X])
    return scale * RBF(2, 0.5)(X, X).detach()


def test_the_factor_times_its_transpose_is_the_matrix(rng):
    K = spd_matrix(torch.logspace(-6, 2, 9), rng)
    factor = Cholesky().factor(K)
    torch.testing.assert_close(factor.L @ factor.L.T, K)
    assert torch.equal(factor.L, factor.L.tril())
    assert factor.jitter == 0.0


def test_solutions_and_the_log_determinant_are_those_of_the_known_spectrum(rng):
    eigenvalues = torch.logspace(-3, 2, 9).double()
    K, U = spd_matrix(eigenvalues, rng), normal(rng, 9, 2)
    factor = Cholesky().factor(K)
    torch.testing.assert_close(factor.solve(K @ U), U, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(factor.logdet(), eigenvalues.log().sum())


def test_a_singular_matrix_gets_the_smallest_jitter_that_helps_and_says_so(rng):
    K = singular(rng)
    factor = Cholesky().factor(K)
    identity = torch.eye(12, dtype=torch.float64)
    assert 0 < factor.jitter < 1e-9
    torch.testing.assert_close(
        factor.L @ factor.L.T, K + factor.jitter * identity, rtol=1e-14, atol=1e-15
    )
    _, info = torch.linalg.cholesky_ex(K + factor.jitter / 10 * identity)
    assert factor.jitter == pytest.approx(1e-12) or info > 0


@pytest.mark.parametrize("scale", [1e-8, 1e6])
def test_jitter_is_relative_to_the_diagonal(scale):
    # Ones make the same rounding at every scale that is a power of two.
    ones = torch.ones(5, 5, dtype=torch.float64)
    scale = 2.0 ** round(torch.tensor(scale).log2().item())
    assert Cholesky().factor(scale * ones).jitter == scale * Cholesky().factor(ones).jitter > 0


def test_an_indefinite_matrix_climbs_the_ladder_up_to_what_is_allowed():
    K = torch.diag(torch.tensor([1.0, 1.0, -1e-5])).double()
    assert Cholesky().factor(K).jitter == pytest.approx(1e-4 * 2 / 3, rel=1e-4)
    with pytest.raises(NotPositiveDefinite):
        Cholesky(max_jitter=1e-6).factor(K)


def test_jitter_is_relative_to_a_scale_when_one_is_given():
    K = torch.diag(torch.tensor([1e-17, -1e-17])).double()  # nothing but rounding of 1.0
    assert Cholesky().factor(K, scale=1.0).jitter == pytest.approx(1e-12)


@pytest.mark.parametrize("out", [False, True], ids=["fresh", "out"])
def test_the_matrix_of_the_caller_is_never_written_into(out, rng):
    for K in (spd_matrix(torch.ones(12), rng), singular(rng)):
        before = K.clone()
        where = torch.full((12, 12), torch.nan, dtype=torch.float64) if out else None
        factor = Cholesky().factor(K, out=where)
        assert torch.equal(K, before)
        assert torch.equal(factor.L, Cholesky().factor(K).L)
        assert where is None or factor.L.data_ptr() == where.data_ptr()


def test_a_factor_is_not_put_where_the_matrix_is(rng):
    K = singular(rng)
    with pytest.raises(ValueError, match="out must not be the memory of K"):
        Cholesky().factor(K, out=K)
    assert torch.equal(Cholesky().factor(K.clone()).L, Cholesky().factor(K).L)


@pytest.mark.parametrize("bad", [-1.0, torch.nan])
def test_a_matrix_that_cannot_be_factored_is_described(bad):
    K = torch.eye(3, dtype=torch.float64)
    K[1, 1] = bad
    with pytest.raises(
        NotPositiveDefinite,
        match=r"a \(3, 3\) covariance matrix .*not positive definite.*0\.001.*Is the kernel",
    ):
        Cholesky().factor(K)
    assert issubclass(NotPositiveDefinite, ValueError)


def test_an_empty_matrix_has_an_empty_factor():
    factor = Cholesky().factor(torch.empty(0, 0, dtype=torch.float64))
    assert factor.L.shape == (0, 0)
    assert factor.jitter == 0.0
    assert factor.logdet() == 0.0


@pytest.mark.parametrize(("n", "m"), [(0, 3), (1, 1), (7, 1), (7, 4), (7, 0)])
def test_appended_rows_give_the_factor_of_the_whole(n, m, rng):
    K = spd_matrix(torch.logspace(-4, 1, n + m), rng)
    factor = Cholesky().factor(K[:n, :n])
    before = factor.L.clone()
    appended = factor.append(K[:n, n:], K[n:, n:])
    torch.testing.assert_close(appended.L, Cholesky().factor(K).L, rtol=1e-9, atol=1e-9)
    assert torch.equal(factor.L, before)


def test_rows_that_repeat_earlier_ones_can_be_appended(rng):
    K = singular(rng)
    appended = Cholesky().factor(K[:6, :6]).append(K[:6, 6:], K[6:, 6:])
    assert 0 < appended.jitter < 1e-9
    torch.testing.assert_close(appended.L @ appended.L.T, K, rtol=0, atol=1e-9)


def test_jitter_that_was_needed_before_is_given_to_appended_rows_too(rng):
    K = spd_matrix(torch.ones(4), rng)
    L = torch.linalg.cholesky(K[:2, :2] + 0.1 * torch.eye(2))
    appended = CholeskyFactor(L, 0.1).append(K[:2, 2:], K[2:, 2:])
    assert appended.jitter == 0.1
    torch.testing.assert_close(appended.L @ appended.L.T, K + 0.1 * torch.eye(4))
