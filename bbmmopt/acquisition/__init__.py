"""Acquisition functions: pure formulas and the thin classes that join them to a posterior."""

from bbmmopt.acquisition.analytic import (
    LogExpectedImprovement,
    LogProbabilityOfImprovement,
    PosteriorMean,
    UpperConfidenceBound,
    log_expected_improvement,
)
from bbmmopt.acquisition.base import Acquisition, MarginalAcquisition, Posterior

__all__ = [
    "Acquisition",
    "LogExpectedImprovement",
    "LogProbabilityOfImprovement",
    "MarginalAcquisition",
    "Posterior",
    "PosteriorMean",
    "UpperConfidenceBound",
    "log_expected_improvement",
]
