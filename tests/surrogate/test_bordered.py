"""Appended rows leave what was there where it is: operators, factors, preconditioners, roots."""

import pytest
import torch
from oracles import uniform

from surrogate import BBMM, Cholesky, ExactGP, Matern52
from surrogate.operators import Dense, KernelOperator
from surrogate.operators.bordered import Bordered
from surrogate.solvers.cholesky import BorderedFactor, CholeskyFactor
from surrogate.solvers.pivots import Structure, clusters
from surrogate.solvers.preconditioners import Preconditioner

KERNEL = Matern52(3, lengthscale=0.5)


def covariance(rng, n=60, noise=0.01):
    X = uniform(rng, n, 3)
    return X, KERNEL(X, X).detach(), torch.full((n,), noise, dtype=torch.float64)


def twice_bordered(X, K):
    inner = KernelOperator(KERNEL, X[:40])
    middle = Bordered(inner, K[:40, 40:47], K[40:47, 40:47])
    return Bordered(middle, K[:47, 47:], K[47:, 47:])


def test_a_border_around_a_border_is_the_matrix_and_one_border(rng):
    X, K, _ = covariance(rng)
    operator = twice_bordered(X, K)
    V = torch.randn(60, 5, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(operator.matmul(V), K @ V, rtol=1e-12, atol=1e-12)
    assert isinstance(operator.first, KernelOperator) and operator.B.shape == (40, 20)


def test_rows_blocks_and_diagonal_may_lie_on_either_side_of_the_border(rng):
    X, K, _ = covariance(rng)
    operator = twice_bordered(X, K)
    index = torch.tensor([59, 0, 39, 40, 46, 47])
    torch.testing.assert_close(operator.rows(index), K[index], rtol=1e-12, atol=1e-14)
    some = torch.stack([index, index.flip(0), torch.arange(6)])
    expected = torch.stack([K[i][:, i] for i in some])
    torch.testing.assert_close(operator.blocks(some), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(operator.diagonal(), K.diagonal())


def test_a_border_that_does_not_fit_is_refused(rng):
    _, K, _ = covariance(rng)
    with pytest.raises(ValueError, match=r"takes B \(n, m\) and C \(m, m\); got \(39, 20\)"):
        Bordered(Dense(K[:40, :40]), K[:39, 40:], K[40:, 40:])


def test_a_bordered_float32_operator_is_as_precise_as_its_inside(rng):
    X, K, _ = covariance(rng)
    inner = KernelOperator(KERNEL, X[:40], storage="float32")
    operator = Bordered(inner, K[:40, 40:], K[40:, 40:])
    V = torch.randn(60, 3, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(operator.precise.matmul(V), K @ V, rtol=1e-12, atol=1e-12)
    assert Bordered(Dense(K[:40, :40]), K[:40, 40:], K[40:, 40:]).precise.matmul is not None


def test_a_bordered_factor_solves_what_the_whole_factor_solves(rng):
    _, K, noise = covariance(rng)
    Khat = K + noise.diag()
    first = Cholesky().factor(Khat[:40, :40])
    factor = BorderedFactor.of(first, Khat[:40, 40:47], Khat[40:47, 40:47])
    factor = factor.append(Khat[:47, 47:], Khat[47:, 47:])
    B = torch.randn(60, 3, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(factor.solve(B), torch.linalg.solve(Khat, B), rtol=1e-9, atol=1e-9)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(Khat), B, upper=False)
    torch.testing.assert_close(factor.whiten(B), white, rtol=1e-9, atol=1e-9)
    assert factor.jitter == 0.0 and factor.first is first
    assert isinstance(factor.corner, CholeskyFactor)


@pytest.mark.parametrize("block", [0, 7])
def test_a_bordered_preconditioner_is_the_one_made_of_all_rows_with_its_clusters(block, rng):
    X, K, noise = covariance(rng)
    old = KernelOperator(KERNEL, X[:40])
    structure = Structure.of(old, noise[:40], rank=12, block=block, generator=rng)
    index = clusters(X[40:], 9)
    appended = Preconditioner(old, noise[:40], structure).append(
        K[:40, 40:], K[40:, 40:], noise[40:], index
    )
    both = structure.clusters
    if block:
        both = torch.full((len(structure.clusters) + len(index), 9), 60)
        inside = structure.clusters < 40
        both[: len(inside), : inside.shape[1]] = structure.clusters.where(inside, 60)
        both[len(inside) :, : index.shape[1]] = (index + 40).where(index < 20, 60)
    whole = Preconditioner(KernelOperator(KERNEL, X), noise, Structure(structure.pivots, both))
    eye = torch.eye(60, dtype=torch.float64)
    torch.testing.assert_close(appended.solve(eye), whole.solve(eye), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(appended.logdet(), whole.logdet())
    assert appended.floor == pytest.approx(whole.floor)


ROOTED = {
    "by a factor": Cholesky(root_from=10),
    "by products": BBMM(variance_tolerance=float("inf"), tolerance=1e-8),
}


@pytest.mark.parametrize("name", ROOTED)
def test_weights_behind_a_root_are_exact_and_its_variances_never_too_small(name, rng):
    X = uniform(rng, 140, 3)
    y = torch.sin(5 * X.sum(1)) + 0.05 * torch.randn(140, generator=rng, dtype=torch.float64)
    new = uniform(rng, 30, 3)
    exact = ExactGP(KERNEL, noise=0.01, solver=Cholesky()).condition(X, y)
    rooted = ExactGP(KERNEL, noise=0.01, solver=ROOTED[name]).condition(X[:100], y[:100])
    rooted = rooted.append(X[100:110], y[100:110]).append(X[110:], y[110:])
    mean, std = exact.marginals(new)
    mean_rooted, std_rooted = rooted.marginals(new)
    torch.testing.assert_close(mean_rooted, mean, rtol=1e-6, atol=1e-6)
    assert (std_rooted > std - 1e-9).all() and (std_rooted < std + 0.3).all()
    torch.testing.assert_close(rooted.joint(new)[1], exact.joint(new)[1], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(rooted.fitted(), exact.marginals(X)[0], rtol=1e-6, atol=1e-6)
    lower, upper = rooted.variance_bounds(new)
    assert (lower <= std.square()).all() and (std.square() <= upper + 1e-9).all()


def test_at_an_observation_a_root_explains_what_its_cluster_does(rng):
    X = uniform(rng, 300, 3)
    y = torch.sin(5 * X.sum(1))
    posterior = ExactGP(KERNEL, noise=1e-6, solver=Cholesky(root_from=10)).condition(X, y)
    variance = posterior.marginals(X)[1].square()
    assert (variance <= 1e-6 * (1 + 1e-6)).all()


def test_leave_one_out_and_paths_work_behind_a_root(rng):
    X = uniform(rng, 60, 3)
    y = torch.sin(5 * X.sum(1))
    models = [ExactGP(KERNEL, noise=0.01, solver=s) for s in (Cholesky(), Cholesky(root_from=10))]
    exact, rooted = (model.condition(X, y) for model in models)
    for ours, theirs in zip(rooted.leave_one_out(), exact.leave_one_out(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
    paths = [p.sample_paths(3, torch.Generator().manual_seed(1)) for p in (exact, rooted)]
    torch.testing.assert_close(paths[0](X), paths[1](X), rtol=1e-7, atol=1e-7)
