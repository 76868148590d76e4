"""Parameters that vary in use: what is expected of them then, and improvement on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bbmmopt.acquisition import (
    Acquisition,
    ConditionalValueAtRisk,
    ExpectedUnderPerturbation,
    LogExpectedImprovement,
    PosteriorMean,
)
from bbmmopt.modelling import Belief
from bbmmopt.strategies.base import generator
from bbmmopt.strategies.guide import Guide

_RISKS = 32  # sampled functions whose risk is measured
_FEATURES = 512  # random features of each
_BEST_OF = 100  # trials, of which one is the best under risk


def expected_risk(belief: Belief, seed: int, guide: Guide) -> Acquisition:
    """What the varied parameters are expected to give, in model units."""
    deltas = _deltas(belief, seed, guide)
    if guide.level == 1:
        return PosteriorMean(ExpectedUnderPerturbation(belief.posterior, deltas))
    draws = generator(seed, len(belief.data.y), "paths of risk")
    paths = belief.posterior.sample_paths(_RISKS, draws, features=_FEATURES)
    return ConditionalValueAtRisk(paths, deltas, guide.level)


def predict_risk(belief: Belief, x: np.ndarray, seed: int, guide: Guide) -> tuple[float, float]:
    """What the varied parameters of a row x (d,) are expected to give, and how uncertain that is.

    As `Belief.predict`, for which see the units.
    """
    acquisition, X = expected_risk(belief, seed, guide), belief.data.place(x[None])
    with torch.no_grad():
        if isinstance(acquisition, ConditionalValueAtRisk):
            risks = acquisition.risks(X)[:, 0].cpu().numpy()
            z, dz = risks.mean(), risks.std()
        else:
            assert isinstance(acquisition, PosteriorMean)
            z, dz = torch.cat(acquisition.posterior.marginals(X)).cpu().numpy()
    lower, value, upper = belief.transform.inverse(np.array([z - dz, z, z + dz]))
    return float(value), float(0.5 * upper - 0.5 * lower)


def _deltas(belief: Belief, seed: int, guide: Guide) -> Tensor:
    """Perturbations (w, d), the same for every trial."""
    return guide.deltas(generator(seed, 0, "perturbations")).to(belief.device)


def improvement_at_risk(belief: Belief, seed: int, guide: Guide) -> Acquisition:
    """Improvement on the best of the trials under perturbation, those that are running included."""
    posterior = belief.fantasised
    deltas = _deltas(belief, seed, guide)
    likely = posterior.fitted().argsort(descending=True, stable=True)[:_BEST_OF]
    tried = posterior.X[likely]
    if guide.level == 1:
        expected = ExpectedUnderPerturbation(posterior, deltas)
        with torch.no_grad():
            return LogExpectedImprovement(expected, float(expected.marginals(tried)[0].max()))
    draws = generator(seed, len(belief.data.y), "paths of risk")
    paths = posterior.sample_paths(_RISKS, draws, features=_FEATURES)
    risk = ConditionalValueAtRisk(paths, deltas, guide.level)
    with torch.no_grad():
        best = risk.risks(tried).amax(1)
    return replace(risk, best=best)
