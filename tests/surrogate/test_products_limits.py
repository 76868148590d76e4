"""Posteriors by products at their limits: degenerate data, memory and work, the switch to them."""

import math

import pytest
import torch
from oracles import normal, uniform
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from surrogate import BBMM, Auto, Cholesky, ExactGP, Kernel, Matern52, NotConverged
from surrogate.models import differentiated
from tests.surrogate.helpers import prediction_by_cholesky

MEAN, NOISE = 0.7, 0.02


class Own(Kernel):
    """What a user writes. Remembers how many entries were asked for at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, int]] = []

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        self.calls.append((math.prod(X1.shape[:-1]), X2.shape[-2]))
        return (-((X1.unsqueeze(-2) - X2.unsqueeze(-3)).square().sum(-1)) / 0.3).exp()

    @property
    def entries(self) -> int:
        return sum(n * m for n, m in self.calls)


def data(rng: torch.Generator, n: int = 70, noise: float = NOISE) -> tuple[Tensor, Tensor]:
    X = uniform(rng, n, 3)
    return X, torch.sin(6 * X[:, 0]) + X[:, 1] + X[:, 2] + noise**0.5 * normal(rng, n)


def model_of(solver, noise: float = NOISE) -> ExactGP:
    return ExactGP(Matern52(3, [0.3, 1.0, 2.0], 1.7), mean=MEAN, noise=noise, solver=solver)


# --------------------------------------------------------------------------------------
# Degenerate data.
# --------------------------------------------------------------------------------------


def degenerate(name: str, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None, float]:
    X, y = data(rng, 24)
    nothing = torch.full((24,), torch.nan).double()
    return {
        "no observation": (X[:0], y[:0], None, NOISE),
        "one observation": (X[:1], y[:1], None, NOISE),
        "two observations": (X[:2], y[:2], None, NOISE),
        "every point twice": (X.repeat(2, 1), y.repeat(2), None, NOISE),
        "twice, and not equal": (X.repeat(2, 1), torch.cat([y, -y]), None, NOISE),
        "all points the same": (X[:1].expand(24, 3), y, None, NOISE),
        "constant targets": (X, torch.full_like(y, 2.5), None, NOISE),
        "targets of the mean": (X, torch.full_like(y, MEAN), None, NOISE),
        "a dead input": (X * torch.tensor([1.0, 0.0, 1.0]), y, None, NOISE),
        "shifted by a million": (X + 1e6, y, None, NOISE),
        "hardly any noise": (X, y, None, 1e-10),
        "one without noise": (X, y, nothing.index_fill(0, torch.tensor([3]), 0.0), NOISE),
        "all without noise": (X, y, torch.zeros(24).double(), NOISE),
        "twice without noise": (X.repeat(2, 1), y.repeat(2), torch.zeros(48).double(), NOISE),
    }[name]


DEGENERATE = [
    "no observation",
    "one observation",
    "two observations",
    "every point twice",
    "twice, and not equal",
    "all points the same",
    "constant targets",
    "targets of the mean",
    "a dead input",
    "shifted by a million",
    "hardly any noise",
    "one without noise",
    "all without noise",
    "twice without noise",
]


SOLVERS = {
    "default": BBMM(),
    "no clusters": BBMM(block=0),
    "root alone": BBMM(variance_tolerance=math.inf),
    "rough P": BBMM(rank=4, block=5),
}
SINGULAR = ("twice without noise", "rough P")


@pytest.mark.parametrize(
    ("name", "by"), [(d, s) for d in DEGENERATE for s in SOLVERS if (d, s) != SINGULAR]
)
def test_degenerate_data_are_predicted_as_by_the_cholesky_factor(name, by, rng):
    X, y, given, noise = degenerate(name, rng)
    X_new = torch.cat([X, X[:3] + 0.1, uniform(rng, 5, 3) + (X[:1].sum() / 3)])
    solver = SOLVERS[by]
    ours = model_of(solver, noise).condition(X, y, given)
    exact = model_of(Cholesky(), noise).condition(X, y, given)
    mean, std = ours.marginals(X_new)
    expected, exact_std = exact.marginals(X_new)
    torch.testing.assert_close(mean, expected, rtol=0, atol=2e-5 * float(y.abs().sum() + 1))
    least = float(exact.noise_variances().min()) if len(X) else 0.0
    if math.isfinite(solver.variance_tolerance):
        # 1e-10 s² is the least noise that is reckoned with.
        assert ((std**2 - exact_std**2).abs() <= 0.01 * (exact_std**2 + least) + 1e-9).all()
    lower, upper = ours.variance_bounds(X_new)
    assert (lower <= upper).all() and (lower >= 0).all() and upper.isfinite().all()
    assert ours.joint(X_new[-4:])[1].isfinite().all()
    assert ours.sample(X_new[-4:], 2, rng).isfinite().all()
    assert ours.sample_paths(2, rng)(X_new).isfinite().all()
    assert ours.info.n == len(X)
    more = ours.append(X_new[-2:], torch.ones(2)).marginals(X_new)
    expected = exact.append(X_new[-2:], torch.ones(2)).marginals(X_new)
    torch.testing.assert_close(more[0], expected[0], rtol=0, atol=1e-3)


@pytest.mark.filterwarnings("ignore::surrogate.NotConverged")
def test_the_answers_to_a_singular_system_are_sensible_though_they_may_be_inexact(rng):
    X, y, given, noise = degenerate(SINGULAR[0], rng)
    posterior = model_of(SOLVERS[SINGULAR[1]], noise).condition(X, y, given)
    mean, std = posterior.marginals(X)
    torch.testing.assert_close(mean, y, rtol=0, atol=1e-5)
    assert (std < 1e-2).all()


def test_nothing_appended_changes_nothing(rng):
    X, y = data(rng, 30)
    for block in (0, 10):
        posterior = model_of(BBMM(rank=5, block=block)).condition(X, y)
        appended = posterior.append(X[:0], y[:0])
        expected = posterior.marginals(X[:4])
        torch.testing.assert_close(appended.marginals(X[:4]), expected, rtol=1e-5, atol=1e-6)


def test_no_points_have_no_predictions(rng):
    posterior = model_of(BBMM()).condition(*data(rng, 30))
    nowhere = torch.empty(0, 3, dtype=torch.float64)
    assert posterior.marginals(nowhere)[1].shape == (0,)
    assert posterior.variance_bounds(nowhere)[0].shape == (0,)
    assert posterior.joint(nowhere)[1].shape == (0, 0)
    assert posterior.sample(nowhere, 2, rng).shape == (2, 0)
    assert posterior.solve(torch.empty(30, 0, dtype=torch.float64)).shape == (30, 0)


def test_variances_that_cannot_be_made_certain_are_warned_of_with_numbers(rng):
    X, y = data(rng, 60, 1e-6)
    solver = BBMM(rank=0, block=0, max_steps=8, variance_tolerance=1e-3)
    posterior = model_of(solver, 1e-6).condition(X, y)
    with pytest.warns(NotConverged, match="stopped after 8 steps"):
        info = posterior.info
    assert not info.weights.converged.all()
    X_new = uniform(rng, 4, 3)
    with pytest.warns(NotConverged, match=r"variances are certain to within .* v \+ σ² only"):
        lower, upper = posterior.variance_bounds(X_new)
    exact = prediction_by_cholesky(posterior.model, X, y, X_new, MEAN)[1].diagonal()
    assert (lower <= exact + 1e-12).all() and (exact <= upper + 1e-12).all()


# --------------------------------------------------------------------------------------
# Memory and work, counted.
# --------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Remembers the most bytes that a tensor made meanwhile took."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, Tensor):
                self.bytes = max(self.bytes, t.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize(
    "solver", [BBMM(rank=20, block=10), BBMM(variance_tolerance=math.inf), Cholesky()]
)
def test_many_marginals_are_computed_a_few_at_a_time(solver, rng, monkeypatch):
    X, y = data(rng, 100)
    posterior = model_of(solver).condition(X, y)
    X_new = uniform(rng, 600, 3)
    whole = posterior.marginals(X_new)
    monkeypatch.setattr(differentiated, "CHUNK", 2000)
    with Largest() as largest:
        parts = posterior.marginals(X_new)
        posterior.variance_bounds(X_new)
    # 8 m n would be 480 kB, let alone 8 m²; a chunk is 16 kB, K̂ 80.
    assert largest.bytes <= 8 * 100**2
    torch.testing.assert_close(parts[0], whole[0])
    assert ((parts[1] ** 2 - whole[1] ** 2).abs() <= 0.01 * (whole[1] ** 2 + NOISE)).all()


def test_k_is_computed_once_for_all_that_a_posterior_is_asked(rng):
    X, y = data(rng, 100)
    model = ExactGP(Own(), noise=NOISE, solver=BBMM(rank=10, block=10, storage="float64"))
    posterior = model.condition(X, y)
    kernel = posterior.model.kernel
    posterior.marginals(X[:1])
    # The upper triangle in tiles, rows of pivots, clusters; some of it twice.
    assert kernel.entries < 4 * 100**2
    kernel.calls.clear()
    posterior.solve(normal(rng, 100, 3))
    posterior.leave_one_out()
    assert posterior.info.storage == "float64" and not kernel.calls
    posterior.joint(uniform(rng, 5, 3))
    assert kernel.entries <= 5 * 100 + 5 * 5


def test_appending_does_not_compute_what_is_known_again(rng):
    X, y = data(rng, 100)
    model = ExactGP(Own(), noise=NOISE, solver=BBMM(rank=10, block=10, storage="float64"))
    posterior = model.condition(X, y)
    posterior.marginals(X[:1])
    kernel = posterior.model.kernel
    kernel.calls.clear()
    assert posterior.append(uniform(rng, 2, 3), y[:2]).info.n == 102
    assert kernel.entries <= 10 * 102


def test_the_budget_decides_where_k_is_kept(rng):
    X, y = data(rng, 200)
    kept = []
    for budget in (10**9, 100_000, 2):
        solver = BBMM(budget=budget, tolerance=1e-8, rank=10, block=10)
        posterior = model_of(solver).condition(X, y)
        kept.append(posterior.info.storage)
        cache = posterior._cache
        assert cache.K.bytes <= budget
        mean, _ = prediction_by_cholesky(posterior.model, X, y, X[:5], MEAN)
        torch.testing.assert_close(posterior.marginals(X[:5])[0], mean, rtol=0, atol=1e-6)
    assert kept[0] == "float64" and kept[-1] == "tiles"


def test_the_same_posterior_twice_is_the_same_to_the_bit(rng):
    X, y = data(rng)
    X_new = uniform(rng, 9, 3)
    first, second = (model_of(BBMM(rank=20, block=20)).condition(X, y) for _ in range(2))
    for one, other in zip(first.marginals(X_new), second.marginals(X_new), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(first.marginals(X_new), first.marginals(X_new), strict=True):
        assert torch.equal(one, other)


def test_asking_does_not_change_what_was_passed_in(rng):
    X, y = data(rng, 30)
    before = X.clone(), y.clone()
    posterior = model_of(BBMM()).condition(X, y)
    posterior.marginals(X)
    posterior.append(X[:2], y[:2]).leave_one_out()
    assert torch.equal(X, before[0]) and torch.equal(y, before[1])


# --------------------------------------------------------------------------------------
# Where Cholesky ends and products begin.
# --------------------------------------------------------------------------------------


def test_auto_changes_the_solver_at_its_limit_and_says_so(rng):
    X, y = data(rng, 60)
    X_new = uniform(rng, 40, 3)
    solver = Auto(predict_from=60, bbmm=BBMM(rank=20, block=20))
    exact = model_of(solver).condition(X[:59], y[:59])
    ours = model_of(solver).condition(X, y)
    assert exact.info.solver == "cholesky" and "59 observations, below the 60" in exact.info.reason
    assert ours.info.solver == "bbmm" and "at or above the 60" in ours.info.reason
    assert exact.info.weights is None and exact.info.storage is None
    assert ours.info.weights.converged.all()
    asked = model_of(BBMM()).condition(X, y).info
    assert (asked.solver, asked.reason) == ("bbmm", "as asked")
    # At the switch nobody sees a difference.
    other = model_of(Cholesky()).condition(X, y)
    (mean, std), (expected, exact_std) = ours.marginals(X_new), other.marginals(X_new)
    assert (mean - expected).abs().max() <= 1e-4 * y.std()
    assert ((std**2 - exact_std**2).abs() <= 0.01 * (exact_std**2 + NOISE)).all()
    assert ours.info.rank > 0
