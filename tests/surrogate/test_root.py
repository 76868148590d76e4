"""K̂⁻¹ within a subspace, against the same Galerkin problem written out densely."""

import itertools

import pytest
import torch
from oracles import normal, uniform
from torch import Tensor

from surrogate import Matern52
from surrogate.models.root import InverseRoot
from surrogate.operators.basic import Dense

N = 23
NONE = torch.empty(0, 0, dtype=torch.long)
# Nine, eight and six of the points: padded with N.
CLUSTERS = torch.arange(27).view(3, 9)
CLUSTERS[1, 8], CLUSTERS[2] = N, torch.tensor([17, 18, 19, 20, 21, 22, N, N, N])
GROUPS = {"clusters": CLUSTERS, "no clusters": NONE}
EVERY_GROUPING = pytest.mark.parametrize("grouping", GROUPS)


class Problem:
    """K̂ of points sorted by their first coordinate, with noise that differs."""

    def __init__(self, rng: torch.Generator, noise: float = 1e-2) -> None:
        self.X = uniform(rng, N, 2)
        self.X = self.X[self.X[:, 0].argsort()]
        self.kernel = Matern52(2, 0.4, 1.3).requires_grad_(False)
        self.noise = noise * (0.5 + uniform(rng, N))
        self.K = self.kernel(self.X, self.X) + self.noise.diag()

    def root(self, basis: Tensor, grouping: str) -> InverseRoot:
        return InverseRoot.of(Dense(self.K), basis, GROUPS[grouping])

    def k(self, X: Tensor) -> Tensor:
        return self.kernel(X, self.X)

    def solutions(self, basis: Tensor, owner: Tensor, k: Tensor) -> Tensor:
        """x (m, n) in the span of the basis and of the unit vectors of a point's cluster."""
        x = torch.zeros_like(k)
        for i in range(len(k)):
            some = CLUSTERS[owner[i]] if owner[i] >= 0 else torch.empty(0, dtype=torch.long)
            B = torch.cat([basis, torch.eye(N, dtype=torch.float64)[:, some[some < N]]], dim=1)
            x[i] = B @ torch.linalg.solve(B.T @ self.K @ B, B.T @ k[i])
        return x


@pytest.fixture
def problem(rng) -> Problem:
    return Problem(rng)


@EVERY_GROUPING
@pytest.mark.parametrize("rank", [0, 1, 6])
def test_weights_solve_the_galerkin_problem_of_the_subspace(grouping, rank, problem, rng):
    basis, k = normal(rng, N, rank), problem.k(uniform(rng, 12, 2))
    root = problem.root(basis, grouping)
    projection = root.project(k)
    expected = problem.solutions(basis, projection.owner, k)
    x = root.weights(projection)
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(projection.explained, (k * x).sum(1), rtol=1e-9, atol=1e-10)
    assert root.rank == rank


def test_the_root_is_orthonormal_in_k(problem, rng):
    root = problem.root(normal(rng, N, 6), "clusters")
    torch.testing.assert_close(root.KR, problem.K @ root.R, rtol=1e-9, atol=1e-9)
    identity = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(root.R.T @ root.KR, identity, rtol=0, atol=1e-8)


def test_a_point_is_owned_by_the_cluster_of_the_observation_it_varies_with_most(problem, rng):
    X = uniform(rng, 30, 2)
    owner = problem.root(normal(rng, N, 2), "clusters").project(problem.k(X)).owner
    for x, received in zip(X, owner.tolist(), strict=True):
        nearest = int(problem.k(x.unsqueeze(0)).argmax())
        assert nearest in CLUSTERS[received]
    assert len(owner.unique()) == 3
    assert (problem.root(normal(rng, N, 2), "no clusters").project(problem.k(X)).owner == -1).all()


@EVERY_GROUPING
@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-6])
def test_no_more_is_explained_than_there_is(grouping, noise, rng):
    problem = Problem(rng, noise)
    k = problem.k(torch.cat([uniform(rng, 20, 2), problem.X]))
    whole = (k * torch.linalg.solve(problem.K, k.T).T).sum(1)
    for rank in (0, 3, 10, N):
        explained = problem.root(normal(rng, N, rank), grouping).project(k).explained
        assert (explained <= whole + 1e-9).all()


@EVERY_GROUPING
def test_a_larger_basis_explains_more_until_nothing_is_left(grouping, problem, rng):
    basis, k = normal(rng, N, N), problem.k(uniform(rng, 12, 2))
    explained = [problem.root(basis[:, :r], grouping).project(k).explained for r in (0, 5, 12, N)]
    for less, more in itertools.pairwise(explained):
        assert (more >= less - 1e-10).all() and (more > less + 1e-9).any()
    whole = (k * torch.linalg.solve(problem.K, k.T).T).sum(1)
    torch.testing.assert_close(explained[-1], whole, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("noise", [1e-2, 1e-6, 1e-10])
def test_the_variance_left_at_an_observation_is_at_most_its_noise(noise, rng):
    problem = Problem(rng, noise)
    root = problem.root(normal(rng, N, 3), "clusters")
    left = 1.3 - root.project(problem.k(problem.X)).explained
    assert (left <= problem.noise * (1 + 1e-6) + 1e-14).all() and (left > 0).all()


@EVERY_GROUPING
def test_vectors_that_repeat_in_a_basis_do_no_harm(grouping, problem, rng):
    basis, k = normal(rng, N, 4), problem.k(uniform(rng, 5, 2))
    once = problem.root(basis, grouping).project(k).explained
    twice = problem.root(torch.cat([basis, basis], dim=1), grouping).project(k).explained
    torch.testing.assert_close(twice, once, rtol=1e-5, atol=1e-7)


@EVERY_GROUPING
def test_points_that_vary_with_no_observation_are_explained_by_nothing(grouping, problem, rng):
    root = problem.root(normal(rng, N, 4), grouping)
    projection = root.project(torch.zeros(3, N, dtype=torch.float64))
    assert not projection.explained.any() and not root.weights(projection).any()


@EVERY_GROUPING
def test_no_points_have_no_projection(grouping, problem, rng):
    root = problem.root(normal(rng, N, 4), grouping)
    projection = root.project(torch.empty(0, N, dtype=torch.float64))
    assert projection.explained.shape == (0,)
    assert root.weights(projection).shape == (0, N)


def test_the_covariances_passed_in_stay_as_they_are(problem, rng):
    k = problem.k(uniform(rng, 5, 2))
    before, root = k.clone(), problem.root(normal(rng, N, 4), "clusters")
    root.weights(root.project(k))
    assert torch.equal(k, before)


# --------------------------------------------------------------------------------------
# Appended rows.
# --------------------------------------------------------------------------------------


def bordered(problem: Problem, grouping: str, rng: torch.Generator, n: int, block: int = 9):
    """A root of the first n rows, with the others appended."""
    K = problem.K
    index = GROUPS[grouping]
    index = index.where(index < n, n)
    first = InverseRoot.of(Dense(K[:n, :n]), normal(rng, n, min(4, n)), index)
    return first, first.append(Dense(K), K[:n, n:], problem.X, block)


def test_an_appended_row_joins_the_cluster_of_the_observation_it_varies_with_most(problem, rng):
    first, root = bordered(problem, "clusters", rng, 19)
    for row in range(19, N):
        nearest = int(problem.K[:19, row].argmax())
        assert root.owner[row] == root.owner[nearest] == first.owner[nearest]
    assert sorted(torch.cat(root.members).tolist()) == list(range(N))
    assert set(root.owner[19:].tolist()) == set(root.newest)
    untouched = [i for i in range(3) if i not in root.newest]
    assert untouched
    assert all(torch.equal(root.members[i], first.members[i]) for i in untouched)


def test_a_cluster_that_grew_beyond_twice_its_size_is_split(problem, rng):
    _, root = bordered(problem, "clusters", rng, 10, block=4)  # two clusters, of nine and of one
    assert sorted(torch.cat(root.members).tolist()) == list(range(N))
    assert max(len(some) for some in root.members) <= 8
    for i, some in enumerate(root.members):
        assert (root.owner[some] == i).all()
        assert bool((some >= 10).any()) == (i in root.newest)


@pytest.mark.parametrize(
    ("grouping", "n"), [("clusters", 19), ("no clusters", 19), ("clusters", 0)]
)
def test_after_rows_were_appended_projections_solve_the_larger_problem(grouping, n, problem, rng):
    _, root = bordered(problem, grouping, rng, n)
    basis = torch.cat([root.R, torch.zeros(N - n, root.rank, dtype=torch.float64)])
    k, identity = problem.k(uniform(rng, 12, 2)), torch.eye(N, dtype=torch.float64)
    projection = root.project(k)
    x = root.weights(projection)
    for i, owner in enumerate(projection.owner.tolist()):
        some = root.members[owner] if owner >= 0 else torch.empty(0, dtype=torch.long)
        B = torch.cat([basis, identity[:, some]], dim=1)
        expected = B @ torch.linalg.solve(B.T @ problem.K @ B, B.T @ k[i])
        torch.testing.assert_close(x[i], expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(projection.explained, (k * x).sum(1), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("grouping", "n"), [("clusters", 19), ("no clusters", 19), ("clusters", 0)]
)
def test_what_appended_targets_change_is_the_galerkin_solution_around_them(
    grouping, n, problem, rng
):
    _, root = bordered(problem, grouping, rng, n)
    basis = torch.cat([root.R, torch.zeros(N - n, root.rank, dtype=torch.float64)])
    some = torch.cat([root.members[i] for i in root.newest])
    B = torch.cat([basis, torch.eye(N, dtype=torch.float64)[:, some]], dim=1)
    s = normal(rng, N - n)
    b = torch.cat([torch.zeros(n, dtype=torch.float64), s])
    expected = B @ torch.linalg.solve(B.T @ problem.K @ B, B.T @ b)
    torch.testing.assert_close(root.appended(Dense(problem.K), s), expected, rtol=1e-6, atol=1e-6)
    assert not root.appended(Dense(problem.K), s[:0]).any()


def test_of_clusters_that_are_too_many_the_new_rows_are_taken_into_account(
    problem, rng, monkeypatch
):
    _, root = bordered(problem, "clusters", rng, 13)
    most = max(root.newest, key=lambda i: int((root.members[i] >= 13).sum()))
    monkeypatch.setattr("surrogate.models.root._AROUND", len(root.members[most]))
    assert len(root.newest) == 2
    some = torch.cat([root.members[most], torch.arange(13, N)]).unique()
    basis = torch.cat([root.R, torch.zeros(N - 13, root.rank, dtype=torch.float64)])
    B = torch.cat([basis, torch.eye(N, dtype=torch.float64)[:, some]], dim=1)
    s = normal(rng, N - 13)
    b = torch.cat([torch.zeros(13, dtype=torch.float64), s])
    expected = B @ torch.linalg.solve(B.T @ problem.K @ B, B.T @ b)
    torch.testing.assert_close(root.appended(Dense(problem.K), s), expected, rtol=1e-6, atol=1e-6)
