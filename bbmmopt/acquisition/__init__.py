"""Acquisition functions: pure formulas and the thin classes that join them to a posterior."""

from bbmmopt.acquisition.active import IntegratedVariance, PosteriorVariance
from bbmmopt.acquisition.analytic import (
    ExpectedGain,
    LogExpectedImprovement,
    LogProbabilityOfImprovement,
    PosteriorMean,
    UpperConfidenceBound,
    log_expected_improvement,
)
from bbmmopt.acquisition.averaged import LogMean
from bbmmopt.acquisition.base import (
    Acquisition,
    Fantasised,
    MarginalAcquisition,
    NoiseVariance,
    Posterior,
)
from bbmmopt.acquisition.batch import NoisyBatchLogExpectedImprovement
from bbmmopt.acquisition.device import from_the_cpu
from bbmmopt.acquisition.entropy import (
    JointEntropySearch,
    LowerBoundMaxValueEntropySearch,
    sample_maxima,
)
from bbmmopt.acquisition.feasibility import (
    ConstrainedLogExpectedImprovement,
    LogProbabilityOfFeasibility,
    best_feasible,
)
from bbmmopt.acquisition.knowledge import KnowledgeGradient
from bbmmopt.acquisition.multi_objective import LogExpectedHypervolumeImprovement
from bbmmopt.acquisition.noisy import (
    NoisyLogExpectedImprovement,
    base_samples,
    draw,
    prune_baseline,
)
from bbmmopt.acquisition.robust import ConditionalValueAtRisk, ExpectedUnderPerturbation
from bbmmopt.acquisition.scalarised import (
    LogScalarisedImprovement,
    random_directions,
    scalarise,
)
from bbmmopt.acquisition.weighted import (
    Feasible,
    LikelyFeasible,
    Log,
    LogPrior,
    PerCost,
    PriorGuided,
    Weighted,
)

__all__ = [
    "LogMean",
    "Acquisition",
    "ConditionalValueAtRisk",
    "ConstrainedLogExpectedImprovement",
    "ExpectedGain",
    "ExpectedUnderPerturbation",
    "Fantasised",
    "Feasible",
    "IntegratedVariance",
    "JointEntropySearch",
    "KnowledgeGradient",
    "LikelyFeasible",
    "Log",
    "LogExpectedHypervolumeImprovement",
    "LogExpectedImprovement",
    "LogProbabilityOfFeasibility",
    "LogPrior",
    "LogProbabilityOfImprovement",
    "LogScalarisedImprovement",
    "LowerBoundMaxValueEntropySearch",
    "MarginalAcquisition",
    "NoiseVariance",
    "NoisyBatchLogExpectedImprovement",
    "NoisyLogExpectedImprovement",
    "PerCost",
    "Posterior",
    "PosteriorMean",
    "PosteriorVariance",
    "PriorGuided",
    "UpperConfidenceBound",
    "Weighted",
    "base_samples",
    "best_feasible",
    "draw",
    "from_the_cpu",
    "log_expected_improvement",
    "prune_baseline",
    "random_directions",
    "sample_maxima",
    "scalarise",
]
