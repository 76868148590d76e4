"""Tables of outputs, complete or not, against the covariance of all their entries written out."""

import copy

import pytest
import torch
from oracles import normal, uniform
from torch import Tensor

from surrogate import BBMM, RBF, Auto, Cholesky, ExactGP, Hamming, Matern52, fit
from surrogate.kernels import TableKernel
from surrogate.kernels.table import Table
from surrogate.models.kronecker import KroneckerFactor, TableEvaluator, complete_table
from surrogate.models.noise import NoisePerTask
from surrogate.models.objective import ExactObjective, Parameters
from surrogate.operators import Dense, TableKernelOperator, TableOperator, Term

ROWS, COLUMNS = 7, 4


def one() -> TableKernel:
    return TableKernel([(Matern52(2, [0.4, 0.9], 1.3), RBF(1, 0.7))], 2)


def two() -> TableKernel:
    terms = [(Matern52(2, [0.4, 0.9], 1.3), RBF(1, 0.7)), (RBF(2, 0.8, 0.5), Hamming(1, 1.5))]
    return TableKernel(terms, 2)


TERMS = {"one term": one, "two terms": two}
EVERY_TERM = pytest.mark.parametrize("make", TERMS.values(), ids=TERMS)


def table(rng: torch.Generator, missing: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Entries of a table in no order, some of them missing: X (N, 3) and y (N,)."""
    x, s = uniform(rng, ROWS, 2), torch.arange(COLUMNS).double() / COLUMNS
    X = torch.cat([x.repeat_interleave(COLUMNS, 0), s.repeat(ROWS).unsqueeze(1)], 1)
    X = X[torch.randperm(len(X), generator=rng)][missing:]
    return X, torch.sin(5 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * normal(rng, len(X))


def operator_of(kernel: TableKernel, X: Tensor) -> TableKernelOperator:
    found = Table.of(kernel, X)
    assert found is not None
    return found.operator(kernel, None)


# --------------------------------------------------------------------------------------
# The kernel and its products.
# --------------------------------------------------------------------------------------


@EVERY_TERM
def test_a_table_kernel_is_the_sum_of_products_of_its_parts(make, rng):
    X, kernel = table(rng)[0], make()
    expected = sum(k(X[:, :2], X[:, :2]) * c(X[:, 2:], X[:, 2:]) for k, c in kernel.terms)
    torch.testing.assert_close(kernel(X, X), expected)
    assert len(kernel.terms) == (2 if make is two else 1)
    order = [p for pair in kernel.terms for part in pair for p in part.parameters()]
    assert all(p is q for p, q in zip(order, kernel.parameters(), strict=True))


@EVERY_TERM
@pytest.mark.parametrize("missing", [0, 9])
def test_law_products_rows_and_blocks_are_those_of_the_whole_matrix(make, missing, rng):
    X, kernel = table(rng, missing)[0], make()
    K, operator = kernel(X, X).detach(), operator_of(kernel, X)
    close = {"rtol": 1e-12, "atol": 1e-12}
    for t in (0, 1, 5):
        V = normal(rng, len(X), t)
        torch.testing.assert_close(operator.matmul(V), K @ V, **close)
    torch.testing.assert_close(operator.diagonal(), K.diagonal(), **close)
    index = torch.tensor([3, 0, 3, 11])
    torch.testing.assert_close(operator.rows(index), K[index], **close)
    blocks = operator.blocks(torch.stack([index, index.flip(0)]))
    torch.testing.assert_close(blocks[0], K[index][:, index], **close)
    assert len(operator.coordinates) == len(X)


@EVERY_TERM
@pytest.mark.parametrize("missing", [0, 9])
def test_gradients_of_a_bilinear_form_are_those_of_the_whole_matrix(make, missing, rng):
    X, kernel = table(rng, missing)[0], make()
    A, B = normal(rng, len(X), 3), normal(rng, len(X), 3)
    expected = torch.autograd.grad((A * (kernel(X, X) @ B)).sum(), list(kernel.parameters()))
    received = operator_of(kernel, X).pullback(A, B)
    for ours, theirs in zip(received, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_a_table_is_found_in_rows_in_any_order_and_refused_where_an_entry_stands_twice(rng):
    X, kernel = table(rng, 5)[0], one()
    found = Table.of(kernel, X)
    assert found is not None and not found.is_complete
    assert torch.equal(torch.cat([found.X[found.row], found.S[found.column]], 1), X)
    assert Table.of(kernel, torch.cat([X, X[:1]])) is None
    assert Table.of(RBF(3), X) is None
    assert Table.of(kernel, X[:0]) is None


def test_scattered_points_are_no_table_that_pays(rng):
    found = Table.of(one(), uniform(rng, 30, 3))
    assert found is not None and not found.pays
    complete = Table.of(one(), table(rng)[0])
    assert complete is not None and complete.pays and complete.is_complete


def test_what_does_not_fit_together_is_refused(rng):
    K, C = Dense(torch.eye(3)), torch.eye(2).double()
    row, column = torch.tensor([0, 2]), torch.tensor([1, 0])
    with pytest.raises(ValueError, match="terms must be of one size"):
        TableOperator([Term(K, C), Term(Dense(torch.eye(4)), C)], row, column)
    with pytest.raises(ValueError, match="inside the table of 3 × 2"):
        TableOperator([Term(K, C)], row, column + 1)
    with pytest.raises(ValueError, match=r"one shape \(N,\)"):
        TableOperator([Term(K, C)], row, column[:1])
    with pytest.raises(ValueError, match="at least one pair"):
        TableKernel([], 2)
    shared = RBF(1)
    with pytest.raises(ValueError, match="share parameters"):
        TableKernel([(shared, RBF(1)), (shared, RBF(1))], 1)


# --------------------------------------------------------------------------------------
# Complete: by eigenvectors.
# --------------------------------------------------------------------------------------

NOISES = {
    "one noise": lambda: 0.03,
    "one for each column": lambda: NoisePerColumn(),
}


class NoisePerColumn(NoisePerTask):
    """The columns of the tables here stand at multiples of 1/4."""

    def __init__(self) -> None:
        super().__init__(COLUMNS, noise=[0.01, 0.03, 0.1, 0.02])

    def _task(self, X):
        return (X[:, -1] * COLUMNS).round().long()


EVERY_NOISE = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)


def models(noise) -> tuple[ExactGP, ExactGP]:
    """The same, by eigenvectors and by a Cholesky factor."""
    return tuple(  # pyright: ignore[reportReturnType]
        ExactGP(one(), mean=0.3, noise=noise(), priors="flat-1", solver=solver)
        for solver in (Auto(), Cholesky())
    )


@EVERY_NOISE
def test_the_likelihood_of_a_complete_table_and_its_gradient_are_those_of_all_entries(noise, rng):
    X, y = table(rng)
    ours, exact = models(noise)
    values = [model.log_marginal_likelihood(X, y).value for model in (ours, exact)]
    torch.testing.assert_close(*values, rtol=1e-10, atol=1e-8)
    gradients = [
        torch.autograd.grad(v, list(m.parameters()))
        for v, m in zip(values, (ours, exact), strict=True)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


@EVERY_NOISE
def test_the_objective_of_a_complete_table_is_that_of_all_entries(noise, rng):
    X, y = table(rng)
    nothing, found = torch.full((len(y),), torch.nan).double(), []
    for model in models(noise):
        parameters = Parameters(model)
        objective = ExactObjective(parameters, X, y, nothing, Cholesky())
        found.append(objective(parameters.position() + 0.1))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-8)
    torch.testing.assert_close(*(torch.from_numpy(g) for _, g in found), rtol=1e-7, atol=1e-7)


def test_eigenvectors_of_the_rows_are_kept_while_their_parameters_stay(rng, monkeypatch):
    X, y = table(rng)
    model = models(NOISES["one noise"])[0]
    found = complete_table(model, X, torch.full((len(y),), torch.nan))
    evaluator = TableEvaluator(model, found, X, y, best_mean=True)
    evaluator()
    sizes, eigh = [], torch.linalg.eigh
    monkeypatch.setattr("torch.linalg.eigh", lambda A: (sizes.append(len(A)), eigh(A))[1])
    k, c = model.kernel.terms[0]
    for part in (c, model.noise_model, k):
        for p in part.parameters():
            p.data += 0.3
        kept = evaluator()
        fresh = TableEvaluator(model, found, X, y, best_mean=True)()
        assert kept[0] == fresh[0]
        assert all(map(torch.equal, kept[1], fresh[1]))
    assert sizes.count(ROWS) == 3 + 1
    evaluator.wants_rows = False
    value, gradients, _ = evaluator()
    count = len(list(k.parameters()))
    assert value == kept[0] and not any(g.any() for g in gradients[:count])
    assert all(map(torch.equal, gradients[count:], kept[1][count:]))


@EVERY_NOISE
def test_the_posterior_of_a_complete_table_is_that_of_all_entries(noise, rng):
    X, y = table(rng)
    new = torch.cat([uniform(rng, 6, 3), X[:3]])
    ours, exact = (model.condition(X, y) for model in models(noise))
    assert ours.info.solver == "eigenvectors" and "7 × 4" in ours.info.reason
    close = {"rtol": 1e-8, "atol": 1e-8}
    for _ in range(3):  # appended to: no longer complete
        torch.testing.assert_close(ours.marginals(new), exact.marginals(new), **close)
        torch.testing.assert_close(ours.joint(new), exact.joint(new), **close)
        torch.testing.assert_close(ours.leave_one_out(), exact.leave_one_out(), **close)
        torch.testing.assert_close(ours.fitted(), exact.fitted(), **close)
        B = normal(rng, len(ours.y), 3)
        torch.testing.assert_close(ours.solve(B), exact.solve(B), **close)
        more = torch.cat([uniform(rng, 2, 2), torch.tensor([[0.0], [0.5]]).double()], 1)
        ours, exact = (p.append(more, torch.tensor([0.3, -0.2])) for p in (ours, exact))
    gradients = []
    for posterior in (ours, exact):
        at = new.clone().requires_grad_()
        mean, std = posterior.marginals(at)
        (mean.sum() + std.square().sum()).backward()
        gradients.append(at.grad)
    torch.testing.assert_close(*gradients, **close)


def test_a_singular_table_is_taken_as_it_is(rng):
    X, y = table(rng)
    X[:, :2] = X[:, :2].round()  # rows that coincide are one row: entries stand there twice
    model = ExactGP(one(), noise=1e-3)
    assert complete_table(model, X, torch.full((len(y),), torch.nan)) is None
    assert model.condition(X, y).info.solver == "cholesky"


@pytest.mark.parametrize("case", ["given noise", "two terms", "a missing entry", "as asked"])
def test_where_eigenvectors_do_not_serve_others_do(case, rng):
    X, y = table(rng, missing=case == "a missing entry")
    noise = torch.full((len(y),), 0.1).double() if case == "given noise" else None
    solver = Cholesky() if case == "as asked" else None
    model = ExactGP(two() if case == "two terms" else one(), noise=0.1, solver=solver)
    posterior = model.condition(X, y, noise)
    assert posterior.info.solver == "cholesky"
    exact = ExactGP(copy.deepcopy(model.kernel), noise=0.1, solver=Cholesky()).condition(X, y)
    torch.testing.assert_close(posterior.marginals(X), exact.marginals(X))


def test_a_fit_of_a_complete_table_finds_what_one_of_all_entries_finds(rng):
    X, y = table(rng)
    reports = [fit(m, X, y, tolerance=1e-8).report for m in models(NOISES["one noise"])]
    assert reports[0].solver == "eigenvectors" and reports[1].solver == "cholesky"
    assert reports[0].value == pytest.approx(reports[1].value, abs=1e-6)


def test_the_factor_of_a_table_whitens_and_solves(rng):
    X, _ = table(rng)
    kernel = one()
    found = Table.of(kernel, X)
    (k, c), D = kernel.terms[0], torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    factor = KroneckerFactor.of(
        found, *torch.linalg.eigh(k(found.X, found.X).detach()), c(found.S, found.S).detach(), D
    )
    Khat = kernel(X, X).detach() + D[found.column].diag()
    F = torch.linalg.inv(factor.whiten(torch.eye(len(X)).double()))
    torch.testing.assert_close(F @ F.T, Khat)
    torch.testing.assert_close(factor.solve(Khat), torch.eye(len(X)).double())
    torch.testing.assert_close(factor.logdet(), torch.logdet(Khat))
    torch.testing.assert_close(factor.unwhiten(F.T), torch.eye(len(X)).double())


# --------------------------------------------------------------------------------------
# Incomplete: by products.
# --------------------------------------------------------------------------------------


@EVERY_TERM
def test_a_table_with_missing_entries_is_inferred_by_products_of_its_factors(
    make, rng, monkeypatch
):
    X, y = table(rng, 6)
    monkeypatch.setattr("surrogate.kernels.table._PAYS", 10.0)
    sizes = []
    multiply = TableOperator.matmul
    monkeypatch.setattr(
        TableOperator, "matmul", lambda self, V: (sizes.append(self.n), multiply(self, V))[1]
    )
    solver = BBMM(tolerance=1e-10, training_tolerance=1e-8, variance_tolerance=1e-8, block=5)
    ours = ExactGP(make(), mean=0.3, noise=0.03, solver=solver)
    exact = ExactGP(make(), mean=0.3, noise=0.03, solver=Cholesky())
    posterior = ours.condition(X, y)
    for a, b in zip(posterior.marginals(X), exact.condition(X, y).marginals(X), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
    assert set(sizes) == {len(X)}
    estimate = ours.log_marginal_likelihood(X, y)
    value = float(exact.log_marginal_likelihood(X, y))
    assert estimate.lower <= value <= estimate.upper
    assert estimate.half_width < 0.1 * abs(value) + 5


def test_a_fit_of_an_incomplete_table_is_that_by_products_with_the_whole_matrix(rng, monkeypatch):
    x, s = uniform(rng, 25, 2), torch.arange(10).double() / 10
    X = torch.cat([x.repeat_interleave(10, 0), s.repeat(25).unsqueeze(1)], 1)
    y = torch.sin(5 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * normal(rng, 250)
    kept = uniform(rng, 250) < 0.7
    X, y = X[kept], y[kept]
    reports = []
    for pays in (0.0, 10.0):
        monkeypatch.setattr("surrogate.kernels.table._PAYS", pays)
        reports.append(fit(ExactGP(one(), priors="flat-1", solver=BBMM()), X, y).report)
    assert reports[1].value == pytest.approx(reports[0].value, abs=1e-4)
    assert reports[1].products == reports[0].products > 0
