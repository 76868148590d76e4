"""Facts about how much acquisitions look at, counted: what keeps them quick where data are many."""

import math

import numpy as np
import pytest
import torch

from bbmmopt.acquisition import (
    IntegratedVariance,
    JointEntropySearch,
    KnowledgeGradient,
    scalarised,
)
from bbmmopt.modelling import Beliefs, Data, Known, Modellers
from bbmmopt.space import Real, Space
from bbmmopt.strategies import Guide, fantasies, make_acquisition, risk
from surrogate import ExactGP, Matern52, Posterior
from surrogate.models import paths as sample_paths

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})
NOTHING = np.empty((0, 2))


def uniform(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def posterior() -> Posterior:
    X = uniform(0, 30, 2)
    return ExactGP(Matern52(2, lengthscale=0.4), noise=1e-3).condition(X, torch.sin(5 * X).sum(1))


def beliefs(n: int, *, noise: float = 0.0, pending: np.ndarray = NOTHING) -> Beliefs:
    rng = np.random.default_rng(0)
    X = rng.random((n, 2))
    y = -((X - 0.3) ** 2).sum(1) + noise * rng.standard_normal(n)
    data = Data(X, y, np.full(n, np.nan), pending, NOTHING, exact=not noise)
    return Modellers(PLANE).beliefs(Known((data,)))


@pytest.mark.parametrize("kind", ["joint entropy", "knowledge gradient", "integrated variance"])
def test_what_asks_for_covariances_solves_for_its_points_once(kind, posterior, monkeypatch):
    points, solves, solve = uniform(1, 5, 2), [], Posterior.solve
    acquisition = {
        "joint entropy": JointEntropySearch(posterior, points, 2 + points[:, 0], 1e-3),
        "knowledge gradient": KnowledgeGradient(posterior, points, 1e-3),
        "integrated variance": IntegratedVariance(posterior, points, 1e-3),
    }[kind]

    def counted(self, B):
        solves.append(B.shape[1])
        return solve(self, B)

    monkeypatch.setattr(Posterior, "solve", counted)
    for seed in range(3):
        acquisition(uniform(seed, 7, 1, 2))
        acquisition.value_and_gradient(uniform(seed, 7, 2))
    assert solves == [5]


def test_paths_are_looked_at_in_pieces_that_agree_with_the_whole(posterior, monkeypatch):
    paths = posterior.sample_paths(3, torch.Generator().manual_seed(0), features=64)
    X, sizes, evaluate = uniform(2, 50, 2), [], Matern52.evaluate
    whole = paths(X.clone().requires_grad_(True)).detach()

    def counted(self, X1, X2, out, workspace=None):
        sizes.append(out.numel())
        return evaluate(self, X1, X2, out, workspace)

    monkeypatch.setattr(Matern52, "evaluate", counted)
    monkeypatch.setattr(sample_paths, "_AT_ONCE", 640)
    torch.testing.assert_close(paths(X), whole)
    assert len(sizes) == 5 and max(sizes) == 10 * 30


@pytest.mark.parametrize("level", [1.0, 0.1])
def test_robust_looks_for_the_best_among_a_bounded_number_of_trials(level, monkeypatch):
    monkeypatch.setattr(risk, "_BEST_OF", 4)
    guide = Guide(perturbation=torch.tensor([0.1, 0.0], dtype=torch.float64), level=level)
    known, seen = beliefs(20), []
    perturbed = risk.ExpectedUnderPerturbation.marginals
    risks = risk.ConditionalValueAtRisk.risks

    def counted(inner):
        def call(self, X):
            seen.append(len(X))
            return inner(self, X)

        return call

    monkeypatch.setattr(risk.ExpectedUnderPerturbation, "marginals", counted(perturbed))
    monkeypatch.setattr(risk.ConditionalValueAtRisk, "risks", counted(risks))
    make_acquisition("robust", known, guide=guide, space=PLANE)
    assert seen == [4]


def test_the_points_of_a_batch_share_their_base_samples(monkeypatch):
    drawn, base_samples = [], fantasies.base_samples

    def counted(count, dims, generator):
        drawn.append((count, dims))
        return base_samples(count, dims, generator)

    fantasies._base.cache_clear()
    monkeypatch.setattr(fantasies, "base_samples", counted)
    batch = [beliefs(20, noise=0.1, pending=np.full((k, 2), 0.1 * k)) for k in range(3)]
    for known in batch:
        fantasies.imagine(known, seed=0)
    assert len(drawn) == 1
    fantasies.imagine(batch[0], seed=1)
    assert len(drawn) == 2


def test_a_direction_is_integrated_where_factors_fall_alone(monkeypatch):
    # Two of three objectives are so far above the best that they do not fall before the third:
    # of nine pieces, three are not empty.
    sizes, falling = [], scalarised._falling

    def counted(z, log_mass):
        sizes.append(z.shape[-1])
        return falling(z, log_mass)

    monkeypatch.setattr(scalarised, "_falling", counted)
    means = torch.tensor([[0.0], [1e3], [1e3]], dtype=torch.float64)
    zeros, ones = torch.zeros(3).double(), torch.ones(3).double()
    value, _, _ = scalarised.log_scalarised_improvement(
        means, torch.ones_like(means), zeros, ones, torch.zeros(1).double()
    )
    assert math.exp(float(value)) == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-6)
    assert sizes == [3]
