"""Acquisition functions: pure formulas and the thin classes that join them to a posterior."""

from bbmmopt.acquisition.analytic import (
    LogExpectedImprovement,
    LogProbabilityOfImprovement,
    PosteriorMean,
    UpperConfidenceBound,
    log_expected_improvement,
)
from bbmmopt.acquisition.base import Acquisition, Fantasised, MarginalAcquisition, Posterior
from bbmmopt.acquisition.feasibility import (
    ConstrainedLogExpectedImprovement,
    LogProbabilityOfFeasibility,
    best_feasible,
)
from bbmmopt.acquisition.multi_objective import LogExpectedHypervolumeImprovement
from bbmmopt.acquisition.noisy import (
    NoisyLogExpectedImprovement,
    base_samples,
    draw,
    prune_baseline,
)
from bbmmopt.acquisition.weighted import Feasible, LikelyFeasible

__all__ = [
    "Acquisition",
    "ConstrainedLogExpectedImprovement",
    "Fantasised",
    "Feasible",
    "LikelyFeasible",
    "LogExpectedHypervolumeImprovement",
    "LogExpectedImprovement",
    "LogProbabilityOfFeasibility",
    "LogProbabilityOfImprovement",
    "MarginalAcquisition",
    "NoisyLogExpectedImprovement",
    "Posterior",
    "PosteriorMean",
    "UpperConfidenceBound",
    "base_samples",
    "best_feasible",
    "draw",
    "log_expected_improvement",
    "prune_baseline",
]
