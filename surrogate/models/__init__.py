"""Models: what a Gaussian process is, how it is fitted, and what it then believes."""

from surrogate.models.compare import Compared, Comparison, compare
from surrogate.models.draws import ParameterDraws, draw_parameters
from surrogate.models.exact import ExactGP
from surrogate.models.fantasies import Fantasies
from surrogate.models.fit import FitReport, UnscaledData, fit
from surrogate.models.gradients import GradientGP, GradientPosterior
from surrogate.models.grid import CoarseGrid, GridGP, GridPosterior
from surrogate.models.inducing import InducingGP
from surrogate.models.inducing_posterior import InducingPosterior
from surrogate.models.metrics import coverage, nlpd, rmse
from surrogate.models.multi_output import MultiOutputGP, MultiOutputPosterior
from surrogate.models.noise import Heteroskedastic, Homoskedastic, Noise, NoisePerTask
from surrogate.models.paths import SamplePaths
from surrogate.models.posterior import Posterior, PosteriorInfo
from surrogate.models.priors import LogNormal, Normal, Prior, PriorSet, prior_set

__all__ = [
    "ParameterDraws",
    "GradientGP",
    "GradientPosterior",
    "GridGP",
    "GridPosterior",
    "CoarseGrid",
    "Compared",
    "Comparison",
    "compare",
    "draw_parameters",
    "Heteroskedastic",
    "ExactGP",
    "Fantasies",
    "FitReport",
    "Homoskedastic",
    "InducingGP",
    "InducingPosterior",
    "LogNormal",
    "MultiOutputGP",
    "MultiOutputPosterior",
    "Noise",
    "NoisePerTask",
    "Normal",
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
