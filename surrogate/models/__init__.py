"""Models: what a Gaussian process is, how it is fitted, and what it then believes."""

from surrogate.models.exact import ExactGP
from surrogate.models.fit import FitReport, UnscaledData, fit
from surrogate.models.metrics import coverage, nlpd, rmse
from surrogate.models.paths import SamplePaths
from surrogate.models.posterior import Posterior, PosteriorInfo
from surrogate.models.priors import LogNormal, Prior, PriorSet, prior_set

__all__ = [
    "ExactGP",
    "FitReport",
    "LogNormal",
    "Posterior",
    "PosteriorInfo",
    "Prior",
    "PriorSet",
    "SamplePaths",
    "UnscaledData",
    "coverage",
    "fit",
    "nlpd",
    "prior_set",
    "rmse",
]
